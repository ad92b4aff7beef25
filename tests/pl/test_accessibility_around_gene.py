"""Tracks around a gene: bars, arcs, the gene itself, and what is refused."""

from io import StringIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import PathPatch

from scmvp_scvi import pl


def arcs(ax: plt.Axes) -> list[PathPatch]:
    return [patch for patch in ax.patches if isinstance(patch, PathPatch)]


def test_bars_have_one_scale_and_stand_at_their_peaks(links, accessibility):
    ax = pl.accessibility_around_gene(links, accessibility, "A")
    heights = np.array([[bar.get_height() for bar in track] for track in ax.containers])
    values = accessibility.iloc[:, :3].to_numpy()
    np.testing.assert_allclose(heights / heights.max(), values / values.max())
    middles = [bar.get_x() + bar.get_width() / 2 for bar in ax.containers[0]]
    assert middles == pytest.approx([600, 1_500, 3_000])


def test_first_group_is_on_top(links, accessibility):
    ax = pl.accessibility_around_gene(links, accessibility, "A")
    bottoms = [track[0].get_y() for track in ax.containers]
    assert bottoms == [2, 1, 0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y", "z"]


def test_arcs_go_from_the_site_to_the_linked_peaks(links, accessibility):
    drawn = arcs(pl.accessibility_around_gene(links, accessibility, "A"))
    ends = [(arc.get_path().vertices[0, 0], arc.get_path().vertices[-1, 0]) for arc in drawn]
    assert ends == [(2_000, 1_500), (2_000, 3_000)]


def test_stronger_arcs_are_thicker_and_negative_ones_dashed(links, accessibility):
    positive, negative = arcs(pl.accessibility_around_gene(links, accessibility, "A"))
    assert positive.get_linewidth() > negative.get_linewidth()
    assert [positive.get_linestyle(), negative.get_linestyle()] == ["-", "--"]


@pytest.mark.parametrize(("limit", "n_arcs"), [(None, 3), (0.05, 2), (0.001, 0)])
def test_links_above_the_limit_have_no_arc(links, accessibility, limit, n_arcs):
    ax = pl.accessibility_around_gene(links, accessibility, "A", max_q_value=limit)
    assert len(arcs(ax)) == n_arcs


def test_pairs_without_a_score_have_no_arc(links, accessibility):
    links.loc[1, ["score", "q_value"]] = np.nan
    ax = pl.accessibility_around_gene(links, accessibility, "A", max_q_value=None)
    ends = [arc.get_path().vertices[-1, 0] for arc in arcs(ax)]
    assert ends == [600, 3_000]


def test_gene_whose_pairs_all_lack_a_score_is_drawn_without_arcs(links, accessibility):
    links.loc[:2, ["score", "q_value"]] = np.nan
    ax = pl.accessibility_around_gene(links, accessibility, "A")
    assert (len(ax.containers), arcs(ax)) == (3, [])


def test_links_without_q_values_are_refused_and_the_way_out_draws_them(links, accessibility):
    links = links.assign(q_value=np.nan)
    match = "links with q-values, but those of `A` have none.* Pass `max_q_value=None`"
    with pytest.raises(ValueError, match=match):
        pl.accessibility_around_gene(links, accessibility, "A")
    assert plt.get_fignums() == []
    ax = pl.accessibility_around_gene(links, accessibility, "A", max_q_value=None)
    assert len(arcs(ax)) == 3


def test_links_that_all_score_zero_are_drawn_faintly(links, accessibility):
    drawn = arcs(pl.accessibility_around_gene(links.assign(score=0.0), accessibility, "A"))
    assert [arc.get_alpha() for arc in drawn] == [0.35, 0.35]


def test_window_leaves_out_what_is_further(links, accessibility):
    ax = pl.accessibility_around_gene(links, accessibility, "A", window=700)
    assert ax.get_xlim() == (1_300, 2_700)
    assert len(ax.containers[0]) == 1
    assert len(arcs(ax)) == 1


def test_arrow_points_downstream(links, accessibility):
    arrow, name = pl.accessibility_around_gene(links, accessibility, "A").texts
    assert arrow.xy[0] < 2_000
    assert name.get_text() == "A"


def test_given_axes_are_drawn_on_and_returned(links, accessibility):
    figure, ax = plt.subplots()
    assert pl.accessibility_around_gene(links, accessibility, "A", ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_unknown_gene_suggests_a_near_one(links, accessibility):
    long_names = links.assign(gene="Gad1")
    with pytest.raises(KeyError, match="`GAD1` is not in `links`. Did you mean `Gad1`"):
        pl.accessibility_around_gene(long_names, accessibility, "GAD1")


def test_table_without_peaks_of_the_gene_is_refused(links, accessibility):
    with pytest.raises(ValueError, match="must have peaks within 1501 base pairs .* at chr1:2000"):
        pl.accessibility_around_gene(links, accessibility.iloc[:, 3:], "A")


def test_links_that_were_kept_in_a_file_are_drawn_as_before(links, accessibility):
    def ensembl(names: pd.Series) -> pd.Series:
        return names.str.removeprefix("chr")

    links = links.assign(chrom=ensembl(links["chrom"]), peak=ensembl(links["peak"]))
    accessibility = accessibility.set_axis(links["peak"], axis=1)
    again = pd.read_csv(StringIO(links.to_csv(index=False)))
    assert again["chrom"].dtype == np.int64
    found, expected = (
        pl.accessibility_around_gene(of, accessibility, "A") for of in (again, links)
    )
    assert (len(found.containers[0]), len(arcs(found))) == (3, 2)
    assert (len(expected.containers[0]), len(arcs(expected))) == (3, 2)
    assert found.get_xlabel() == expected.get_xlabel()


def test_values_below_zero_are_refused_unless_they_are_elsewhere(links, accessibility):
    accessibility.iloc[0, 1] = -0.1
    with pytest.raises(ValueError, match="must not be below zero, .* around `A`. Average counts"):
        pl.accessibility_around_gene(links, accessibility, "A")
    assert plt.get_fignums() == []
    pl.accessibility_around_gene(links, accessibility, "B")


@pytest.mark.parametrize("limit", [5, 0, -0.05])
def test_limit_that_is_no_share_is_refused(links, accessibility, limit):
    with pytest.raises(ValueError, match="`max_q_value` must be above 0 and at most 1, got"):
        pl.accessibility_around_gene(links, accessibility, "A", max_q_value=limit)


@pytest.mark.parametrize("column", ["tss", "q_value"])
def test_links_without_a_column_that_is_needed_are_refused(links, accessibility, column):
    match = f"`links` must have the columns of `tl.peak_gene_links`, but has no `{column}`"
    with pytest.raises(KeyError, match=match):
        pl.accessibility_around_gene(links.drop(columns=column), accessibility, "A")


def test_peaks_that_are_there_twice_are_refused_and_so_is_what_is_no_table(links, accessibility):
    twice = pd.concat([accessibility, accessibility.iloc[:, :1]], axis=1)
    with pytest.raises(ValueError, match="`accessibility` must have one column for each name"):
        pl.accessibility_around_gene(links, twice, "A")
    with pytest.raises(TypeError, match="`accessibility` must be a table, as `tl.group_means`"):
        pl.accessibility_around_gene(links, accessibility.to_numpy(), "A")


def test_columns_that_are_no_peaks_are_named_as_those_of_the_table(links, accessibility):
    accessibility.columns = [*accessibility.columns[:3], "peak_3"]
    with pytest.raises(ValueError, match=r"`accessibility\.columns = \.\.\.`") as error:
        pl.accessibility_around_gene(links, accessibility, "A")
    assert "atac" not in str(error.value)
