"""Genes beside their peaks: order and scale of the rows, and what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from scmvp_scvi import pl


def test_rows_are_sorted_by_the_group_of_their_gene(links, expression, accessibility):
    genes, peaks = pl.marker_links(links, expression, accessibility)
    assert [label.get_text() for label in genes.get_yticklabels()] == ["B", "A", "", ""]
    distances = [label.get_text() for label in peaks.get_yticklabels()]
    assert distances == ["−0.7 kb", "−1.0 kb", "+0.5 kb", "+1.4 kb"]


def test_each_row_goes_from_its_lowest_to_its_highest_group(links, expression, accessibility):
    genes, peaks = pl.marker_links(links, expression, accessibility)
    np.testing.assert_allclose(genes.images[0].get_array()[:2], [[1, 0, 0], [0, 1, 0.5]])
    drawn = peaks.images[0].get_array()
    np.testing.assert_allclose([drawn.min(axis=1), drawn.max(axis=1)], [[0] * 4, [1] * 4])


def test_genes_that_do_not_vary_are_drawn_low(links, expression, accessibility):
    genes, _ = pl.marker_links(links, expression * 0, accessibility)
    assert (genes.images[0].get_array() == 0).all()


def test_best_links_are_drawn_where_there_are_too_many(links, expression, accessibility):
    genes, _ = pl.marker_links(links, expression, accessibility, max_links=2)
    assert [label.get_text() for label in genes.get_yticklabels()] == ["B", "A"]


def test_given_axes_are_drawn_on_and_returned(links, expression, accessibility):
    figure, grid = plt.subplots(1, 2)
    assert pl.marker_links(links, expression, accessibility, axes=grid) == list(grid)
    assert plt.get_fignums() == [figure.number]


def test_tables_that_do_not_fit_are_refused(links, expression, accessibility):
    with pytest.raises(ValueError, match="`links` must have at least one link"):
        pl.marker_links(links.iloc[:0], expression, accessibility)
    with pytest.raises(ValueError, match="must have the same groups in the same order"):
        pl.marker_links(links, expression, accessibility[::-1])
    with pytest.raises(ValueError, match="`expression` must have every gene .* missing: `B`"):
        pl.marker_links(links, expression[["A"]], accessibility)
    with pytest.raises(ValueError, match="`axes` must have two axes, got 1"):
        pl.marker_links(links, expression, accessibility, axes=[plt.subplots()[1]])


def test_what_is_no_axes_is_refused(links, expression, accessibility):
    with pytest.raises(TypeError, match="`axes` must be Axes of matplotlib, got .* `int`"):
        pl.marker_links(links, expression, accessibility, axes=3)


def test_axes_may_be_those_of_a_grid(links, expression, accessibility):
    _, grid = plt.subplots(2, 1, squeeze=False)
    panels = pl.marker_links(links, expression, accessibility, axes=grid)
    assert panels == list(grid.flat)


def test_links_without_a_column_that_is_needed_are_refused(links, expression, accessibility):
    with pytest.raises(KeyError, match="`links` must have the columns of .* has no `distance`"):
        pl.marker_links(links.drop(columns="distance"), expression, accessibility)


def test_tables_that_name_a_feature_twice_are_refused(links, expression, accessibility):
    twice = pd.concat([expression, expression[["A"]]], axis=1)
    with pytest.raises(ValueError, match="`expression` must have one column .* 1 are .*: `A`"):
        pl.marker_links(links, twice, accessibility)
    with pytest.raises(TypeError, match="`accessibility` must be a table, as `tl.group_means`"):
        pl.marker_links(links, expression, accessibility.to_numpy())
