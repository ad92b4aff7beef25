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
    batches = pp.plot_qc(report)[5]
    expected = report.cells["batch"].value_counts()
    assert [bar.get_width() for bar in batches.patches] == expected.tolist()


def test_thresholds_are_drawn_and_say_what_they_would_remove(report):
    genes = pp.plot_qc(report, min_genes=20)[2]
    n_below = (report.cells["rna_features"] < 20).sum()
    assert genes.get_xlabel() == f"genes in a cell ({n_below} below 20)"
    assert genes.lines[-1].get_xdata()[0] == 20


def test_given_axes_are_drawn_on_and_returned(report):
    figure, grid = plt.subplots(1, 7)
    axes = pp.plot_qc(report, axes=grid)
    assert axes == list(grid)
    assert plt.get_fignums() == [figure.number]


def test_wrong_number_of_axes_is_refused(report):
    with pytest.raises(ValueError, match="`axes` must have 7 axes, .* got 2"):
        pp.plot_qc(report, axes=plt.subplots(1, 2)[1])


@pytest.mark.parametrize("counts", [np.zeros((3, 2)), np.empty((0, 2)), np.full((3, 2), 0.25)])
def test_data_without_whole_counts_can_be_drawn(make_pair, counts):
    axes = pp.plot_qc(pp.qc(make_pair(counts, counts)))
    axes[0].figure.canvas.draw()
