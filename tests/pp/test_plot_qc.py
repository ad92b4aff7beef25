"""The figure of the quality report: what is drawn where."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from scmvp_scvi import pp


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def report(make_mdata) -> pp.QualityReport:
    return pp.qc(make_mdata(missing_atac=0.1), batch_key="batch", labels_key="cell_type")


def test_every_cell_with_a_count_is_in_the_histograms(report):
    axes = pp.plot_qc(report)
    drawn = [sum(bar.get_height() for bar in axis.patches) for axis in axes[:4]]
    assert drawn == [300, 270, 300, 270]


@pytest.mark.parametrize(("panel", "unit"), [(1, "counts"), (3, "features")])
def test_median_is_that_of_the_table_cells_without_a_count_included(make_pair, panel, unit):
    report = pp.qc(make_pair([[1], [1], [1], [1]], [[0, 0], [1, 0], [2, 0], [3, 1]]))
    ax = pp.plot_qc(report)[panel]
    median = {"counts": 1.5, "features": 1}[unit]
    assert report.value("atac", f"{unit} per cell, median") == median
    assert ax.lines[0].get_xdata()[0] == median
    assert ax.texts[0].get_text() == f"median {median:g}, 1 cells without a count"


def test_median_of_mostly_empty_cells_is_told_and_not_drawn(make_pair):
    ax = pp.plot_qc(pp.qc(make_pair([[1], [1], [1]], [[0], [0], [3]])))[1]
    assert ax.texts[0].get_text() == "median 0, 2 cells without a count"
    assert len(ax.lines) == 0


def test_overlap_is_a_bar_of_cells_measured_and_one_of_those_with_a_count(make_pair):
    pair = make_pair([[1], [0], [2]], [[0], [3]], ["a", "b", "c"], ["c", "d"])
    ax = pp.plot_qc(pp.qc(pair))[5]
    widths = {bar.get_label(): bar[0].get_width() for bar in ax.containers}
    assert widths == {
        "cells in both": 1,
        "cells in rna alone": 2,
        "cells in atac alone": 1,
        "cells with a count in both": 0,
        "cells with a count in rna alone": 2,
        "cells with a count in atac alone": 1,
        "cells without any count": 1,
    }
    assert "other cells or another order" in [text.get_text() for text in ax.texts]


def test_half_counts_and_other_values_that_are_no_counts_are_bars(make_pair):
    pair = make_pair([[1, -1, np.nan, np.inf]], [[0.5, 1.5, 0.3]])
    ax = pp.plot_qc(pp.qc(pair))[6]
    widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
    assert widths == [[0, 0, 1, 2], [2, 1, 0, 0]]  # RNA and ATAC
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["half counts", "other fractions", "negative", "NaN, infinite"]


def test_cells_without_a_count_are_named(report):
    texts = [axis.texts[0].get_text() for axis in pp.plot_qc(report)[:5]]
    assert "30 cells without a count" in texts[1]
    assert "without" not in texts[0]
    assert texts[4] == "270 of 300 cells have both"


def test_cells_of_both_modalities_are_dots_at_their_depths(report):
    dots = pp.plot_qc(report)[4].collections[0].get_offsets()
    both = report.cells[report.cells["atac_depth"] > 0]
    np.testing.assert_array_equal(dots, both[["rna_depth", "atac_depth"]])


def test_groups_are_bars_as_long_as_they_are_large(report):
    batches = pp.plot_qc(report)[7]
    expected = report.cells["batch"].value_counts()
    assert [bar.get_width() for bar in batches.patches] == expected.tolist()


def test_thresholds_are_drawn_and_say_what_they_would_remove(report):
    genes = pp.plot_qc(report, min_genes=20)[2]
    n_below = (report.cells["rna_features"] < 20).sum()
    assert genes.get_xlabel() == f"genes in a cell ({n_below} below 20)"
    assert genes.lines[-1].get_xdata()[0] == 20


def test_given_axes_are_drawn_on_and_returned(report):
    figure, grid = plt.subplots(1, 9)
    axes = pp.plot_qc(report, axes=grid)
    assert axes == list(grid)
    assert plt.get_fignums() == [figure.number]


def test_axes_of_a_grid_are_drawn_on_row_by_row(report):
    _, grid = plt.subplots(3, 3)
    assert pp.plot_qc(report, axes=grid) == list(grid.flat)


def test_data_are_refused_with_the_call_that_draws_them(make_mdata):
    match = r"`report` must be what `pp.qc` returns, got a MuData.*`pp.plot_qc\(pp.qc\(mdata\)\)`"
    with pytest.raises(TypeError, match=match):
        pp.plot_qc(make_mdata())


def test_wrong_number_of_axes_is_refused(report):
    with pytest.raises(ValueError, match="`axes` must have 9 axes, .* got 2"):
        pp.plot_qc(report, axes=plt.subplots(1, 2)[1])


def test_what_is_no_axes_is_refused(report):
    with pytest.raises(TypeError, match="`axes` must be Axes of matplotlib, got .* `Figure`"):
        pp.plot_qc(report, axes=plt.figure())


def test_cells_with_values_that_are_no_counts_were_measured(make_pair):
    values = [[np.nan, 1.0], [1.0, -5.0], [0.0, 0.0]]
    axes = pp.plot_qc(pp.qc(make_pair(values, np.eye(3))))
    (note,) = (text.get_text() for text in axes[0].texts)
    assert "1 cells without a count" in note
    assert "not measured" not in note


@pytest.mark.parametrize("counts", [np.zeros((3, 2)), np.empty((0, 2)), np.full((3, 2), 0.25)])
def test_data_without_whole_counts_can_be_drawn(make_pair, counts):
    axes = pp.plot_qc(pp.qc(make_pair(counts, counts)))
    axes[0].figure.canvas.draw()
