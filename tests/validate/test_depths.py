"""Cells and features without counts are found, and cells with very many; the ways out work."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmvp_scvi._validate import (
    check_has_cells,
    check_no_cell_is_empty_in_both,
    check_paired,
    find_empty_cells,
    warn_about_deep_cells,
)

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")


def test_empty_cells_and_features_equal_a_plain_loop(container, store, rng, block_size):
    values = rng.poisson(0.2, (11, 9)).astype("float32")
    with pytest.warns(UserWarning, match="have no counts in `atac`") as caught:
        cells = find_empty_cells(store(values, container), modality="atac")
    assert cells.tolist() == [all(value == 0 for value in row) for row in values]
    n_empty = sum(all(value == 0 for value in column) for column in values.T)
    assert str(caught[-1].message).startswith(f"{n_empty} of 9 features have no counts")
    assert cells.any()
    assert not cells.all()


def test_data_without_a_cell_are_refused(container, store):
    matrix = store(np.ones((3, 4), "float32"), container)
    check_has_cells(matrix[:1], "atac")
    with pytest.raises(ValueError, match="`atac` must have at least one cell, got none"):
        check_has_cells(matrix[:0], "atac")


def test_empty_cells_and_features_are_warned_about_once_each():
    with pytest.warns(UserWarning, match="no counts") as caught:
        find_empty_cells(sp.csr_matrix(np.diag([1, 0, 0, 2])[:, :3]), modality="atac")
    cells, features = (str(warning.message) for warning in caught)
    assert cells.startswith("3 of 4 cells have no counts in `atac`. They are kept, and embedded")
    assert features.startswith("2 of 3 features have no counts in `atac`.")


def test_stored_zeros_are_no_counts_and_stay_stored():
    matrix = sp.csr_matrix((np.array([0.0, 1.0]), ([0, 1], [0, 1])))
    with pytest.warns(UserWarning, match="1 of 2") as caught:
        cells = find_empty_cells(matrix, modality="rna")
    assert len(caught) == 2  # a cell and a feature
    assert cells.tolist() == [True, False]
    assert matrix.nnz == 2


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_matrix_without_any_count_is_empty_all_over(make):
    with pytest.warns(UserWarning, match="no counts") as caught:
        cells = find_empty_cells(make(np.zeros((3, 2))), modality="rna")
    assert str(caught[-1].message).startswith("2 of 2 features have no counts")
    assert cells.all()


@pytest.mark.filterwarnings("error")
def test_matrix_with_a_count_everywhere_is_silent():
    cells = find_empty_cells(np.eye(3), modality="rna")
    assert not cells.any()


@pytest.mark.parametrize("layer", [None, "counts"])
def test_cell_empty_in_both_modalities_is_refused_and_the_way_out_removes_it(
    make_mdata, run_way_out, cells, layer
):
    mdata = make_mdata()
    empty = {key: np.array([key == "rna", True, False, False, False, False]) for key in mdata.mod}
    for key, adata in mdata.mod.items():
        counts = sp.csr_matrix(np.where(empty[key][:, None], 0, adata.X.toarray()))
        if layer is None:
            adata.X = counts
        else:
            adata.layers[layer] = counts
    with pytest.raises(ValueError, match="but 1 have none in either: `cell1`") as error:
        check_no_cell_is_empty_in_both(
            empty, cell_names=mdata.obs_names, layers=dict.fromkeys(mdata.mod, layer)
        )
    fixed = run_way_out(error, mdata, "mdata = mdata[")
    assert list(fixed.obs_names) == ["cell0", *cells[2:]]


def test_cells_empty_in_one_modality_pass_the_check_of_both():
    mask = np.array([True, False])
    check_no_cell_is_empty_in_both(
        {"rna": mask, "atac": ~mask},
        cell_names=pd.Index(["a", "b"]),
        layers={"rna": None, "atac": None},
    )


@pytest.mark.parametrize("layer", [None, "counts"])
def test_the_way_out_of_features_without_counts_removes_them(make_mdata, layer):
    mdata = make_mdata()
    adata = mdata["atac"]
    counts = adata.X.toarray()
    counts[:, 1] = 0
    adata.layers["counts"] = sp.csr_matrix(counts)
    if layer is None:
        adata.X = sp.csr_matrix(counts)
    kept = adata.var_names[counts.sum(0) > 0]
    with pytest.warns(UserWarning, match="features have no counts") as caught:
        find_empty_cells(sp.csr_matrix(counts), modality="atac", layer=layer)
    exec(re.search("`(mdata.mod.*)`", str(caught[-1].message))[1], {"numpy": np, "mdata": mdata})
    assert list(mdata["atac"].var_names) == list(kept)
    assert mdata.n_vars == mdata["rna"].n_vars + len(kept)


def test_tiny_multiome_has_19_cells_empty_in_atac_and_none_in_both(read_real):
    mdata = read_real("pbmc_multiome_tiny.h5mu")
    check_paired(mdata, "rna", "atac")
    with pytest.warns(UserWarning, match="no counts in `atac`") as caught:
        atac_empty = find_empty_cells(mdata["atac"].X, modality="atac")
    assert str(caught[0].message).startswith("19 of 1000 cells have no counts in `atac`")
    rna_empty = find_empty_cells(mdata["rna"].X, modality="rna")
    assert atac_empty.tolist() == (mdata["atac"].X.toarray().sum(axis=1) == 0).tolist()
    check_no_cell_is_empty_in_both(
        {"rna": rna_empty, "atac": atac_empty},
        cell_names=mdata.obs_names,
        layers={"rna": None, "atac": None},
    )


@pytest.mark.parametrize("layer", [None, "counts"])
def test_cells_far_deeper_than_the_median_measured_one_are_named_and_the_way_out_removes_them(
    make_mdata, layer
):
    mdata = make_mdata()
    depths = np.array([0, 10, 10, 10, 500, 501])  # the median of cells with counts is 10
    counts = np.zeros(mdata["atac"].shape, int)
    counts[:, 0], counts[:, 1] = depths // 2, depths - depths // 2
    if layer is None:
        mdata["atac"].X = sp.csr_matrix(counts)
    else:
        mdata["atac"].layers[layer] = sp.csr_matrix(counts)
    with pytest.warns(UserWarning, match="1 of 6 cells have more than 50 times") as caught:
        warn_about_deep_cells(depths, cell_names=mdata.obs_names, modality="atac", layer=layer)
    message = str(caught[0].message)
    assert "of the median cell, up to 501: `cell5`." in message
    names = {"numpy": np, "mdata": mdata}
    exec(re.search("`(mdata = .*)`", message)[1], names)
    assert list(names["mdata"].obs_names) == [f"cell{i}" for i in range(5)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("depths", [[0, 0], [1, 2, 50], [0, 0, 0, 7]])
def test_depths_that_differ_as_those_of_cells_do_are_silent(depths):
    warn_about_deep_cells(np.array(depths), cell_names=pd.Index([]), modality="atac")
