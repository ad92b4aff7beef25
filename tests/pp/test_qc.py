"""The quality report against counts by hand, scanpy, and the oddities of real data."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from mudata import MuData

from scmvp_scvi import pp

RNA = [[1, 2, 0], [0, 0, 0], [4, 0, 0]]
ATAC = [[1, 0.5, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


@pytest.fixture
def pair(make_pair) -> MuData:
    pair = make_pair(RNA, ATAC)
    pair.obs["batch"] = ["a", "b", "a"]
    return pair


@pytest.mark.parametrize(
    ("group", "quantity", "expected"),
    [
        ("rna", "cells", 3),
        ("rna", "features", 3),
        ("rna", "share of values not zero", 3 / 9),
        ("rna", "counts per cell, median", 3),
        ("rna", "features per cell, median", 1),
        ("rna", "cells without a count", 1),
        ("rna", "features without a count", 1),
        ("rna", "largest value", 4),
        ("rna", "half counts (n + 0.5)", 0),
        ("atac", "half counts (n + 0.5)", 1),
        ("atac", "other values that are not integers", 0),
        ("atac", "features without a count", 2),
        ("both", "cells in both", 3),
        ("both", "same cells in the same order", 1),
        ("both", "cells with a count in both", 1),
        ("both", "cells with a count in rna alone", 1),
        ("both", "cells with a count in atac alone", 1),
        ("both", "cells without any count", 0),
        ("batch", "a", 2),
        ("batch", "b", 1),
    ],
)
def test_summary_is_what_a_count_by_hand_gives(pair, group, quantity, expected):
    assert pp.qc(pair, batch_key="batch").value(group, quantity) == pytest.approx(expected)


def test_cells_equal_scanpy(make_mdata):
    mdata = make_mdata()
    report = pp.qc(mdata)
    for key in ("rna", "atac"):
        expected = sc.pp.calculate_qc_metrics(mdata[key], percent_top=None, log1p=False)[0]
        np.testing.assert_allclose(report.cells[f"{key}_depth"], expected["total_counts"])
        np.testing.assert_array_equal(
            report.cells[f"{key}_features"], expected["n_genes_by_counts"]
        )


def test_cells_of_one_modality_are_counted_and_missing_in_the_other(make_pair):
    report = pp.qc(make_pair(np.eye(3), np.eye(2), ["a", "b", "c"], ["c", "d"]))
    assert report.value("both", "cells in both") == 1
    assert report.value("both", "cells in rna alone") == 2
    assert report.value("both", "cells in atac alone") == 1
    assert report.value("both", "same cells in the same order") == 0
    assert report.cells["atac_depth"].isna().to_dict() == {"a": 1, "b": 1, "c": 0, "d": 0}


def test_cells_that_were_filled_up_are_not_measured(make_pair):
    pair = make_pair(np.eye(3), np.eye(2), ["a", "b", "c"], ["c", "d"])
    report, united = pp.qc(pair), pp.qc(pp.union_cells(pair))
    pd.testing.assert_frame_equal(united.cells, report.cells)
    for group in ("rna", "atac"):
        of_group = (r.summary[r.summary["group"] == group] for r in (united, report))
        pd.testing.assert_frame_equal(*of_group)
    assert united.value("both", "cells in both") == 1


@pytest.mark.parametrize("name", ["rna", "both", "atac_depth"])
def test_column_named_as_one_of_the_report_is_refused(pair, name):
    pair.obs[name] = "x"
    with pytest.raises(ValueError, match=f"`{name}` of its own: rename the column"):
        pp.qc(pair, batch_key=name)


def test_values_that_are_no_counts_are_reported_not_refused(make_pair):
    report = pp.qc(make_pair([[-1, 0.3, np.nan, np.inf]], [[1, 2]]))
    assert report.value("rna", "negative values") == 1
    assert report.value("rna", "other values that are not integers") == 1
    assert report.value("rna", "values that are NaN or infinite") == 2


def test_stored_zeros_are_no_counts(pair):
    pair["rna"].X.data[:] = 0
    assert pp.qc(pair).value("rna", "cells without a count") == 3


@pytest.mark.filterwarnings("error:Downcasting")
@pytest.mark.parametrize(
    ("lanes", "sizes"),
    [
        ([1, 2, 1], {"1": 2, "2": 1}),
        ([1, np.nan, 1], {"1": 2, "missing": 1}),
        ([True, False, True], {"True": 2, "False": 1}),
    ],
)
def test_batches_that_are_numbers_keep_their_names(pair, lanes, sizes):
    pair.obs["lane"] = lanes
    report = pp.qc(pair, batch_key="lane")
    assert {name: report.value("lane", name) for name in sizes} == sizes


def test_groups_that_print_alike_are_counted_apart(pair):
    pair.obs["lane"] = pd.Series([1, "1", "missing"], pair.obs_names, dtype=object)
    pair.obs["lane"] = pair.obs["lane"].where(pair.obs_names != pair.obs_names[0])
    groups = {"1": 1, "missing": 1, "'missing'": 1}
    report = pp.qc(pair, batch_key="lane")
    assert {name: report.value("lane", name) for name in groups} == groups
    pair.obs["lane"] = pd.Series([1, "1", "1"], pair.obs_names, dtype=object)
    report = pp.qc(pair, batch_key="lane")
    assert {name: report.value("lane", name) for name in ("1", "'1'")} == {"1": 1, "'1'": 2}


def test_list_of_columns_is_refused_with_what_joins_them(pair):
    with pytest.raises(TypeError, match=r"`batch_key` must name one column, got \['batch'\]"):
        pp.qc(pair, batch_key=["batch"])


def test_missing_labels_are_a_group_of_their_own(pair):
    pair.obs["cell_type"] = ["T", None, "T"]
    report = pp.qc(pair, labels_key="cell_type")
    assert report.value("cell_type", "missing") == 1
    assert report.value("cell_type", "T") == 2


def test_labels_of_modalities_with_different_cells_are_counted(make_pair):
    pair = make_pair(np.ones((2, 1)), np.ones((2, 1)), ["a", "b"], ["b", "c"])
    pair["rna"].obs["cell_type"], pair["atac"].obs["cell_type"] = ["T", "B"], ["B", "B"]
    report = pp.qc(pair, labels_key="cell_type")
    assert report.value("cell_type", "T") == 1
    assert report.value("cell_type", "B") == 2
    assert report.cells["cell_type"].to_dict() == {"a": "T", "b": "B", "c": "B"}


def test_the_given_object_stays_as_it_is(pair, assert_untouched):
    before = pair.copy()
    pp.qc(pair, batch_key="batch")
    assert_untouched(pair, before)


def test_data_without_cells_give_a_report(make_pair):
    report = pp.qc(make_pair(np.empty((0, 2)), np.empty((0, 2))))
    assert report.value("rna", "cells") == 0
    assert np.isnan(report.value("rna", "counts per cell, median"))


def test_unknown_quantity_is_refused_with_those_there_are(pair):
    with pytest.raises(KeyError, match="no quantity 'depth' of 'rna'. It has 'cells', 'features'"):
        pp.qc(pair).value("rna", "depth")


def test_unknown_layer_is_refused(pair):
    with pytest.raises(KeyError, match='`atac_layer="x"` is not a layer'):
        pp.qc(pair, atac_layer="x")


def test_unknown_column_is_refused(pair):
    with pytest.raises(KeyError, match='`labels_key="type"` is not a column of `mdata.obs`'):
        pp.qc(pair, labels_key="type")


def test_pbmc_cells_without_accessibility_are_counted(read_real):
    report = pp.qc(read_real("pbmc_multiome_tiny.h5mu"))
    assert report.value("atac", "cells without a count") == 19
    assert report.value("both", "cells with a count in rna alone") == 19


def test_kidney_half_counts_are_counted(read_real):
    kidney = read_real("scicar_kidney_sample.h5mu")
    report = pp.qc(kidney, batch_key="batch", labels_key="cell_type", atac_layer="fractional")
    halves = kidney["atac"].layers["fractional"].data % 1 == 0.5
    assert report.value("atac", "half counts (n + 0.5)") == halves.sum() == 81
    assert report.value("cell_type", "nan") == 113
    assert report.value("batch", "Replicate 1") == 291
