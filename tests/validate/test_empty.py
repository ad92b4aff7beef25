"""Cells and features without counts are found; the way out of cells empty twice works."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmvp_scvi._validate import check_no_cell_is_empty_in_both, check_paired, warn_about_empty

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")


def test_empty_cells_and_features_equal_a_plain_loop(container, store, rng, block_size):
    values = rng.poisson(0.2, (11, 9)).astype("float32")
    with pytest.warns(UserWarning, match="have no counts in `atac`"):
        cells, features = warn_about_empty(store(values, container), modality="atac")
    assert cells.tolist() == [all(value == 0 for value in row) for row in values]
    assert features.tolist() == [all(value == 0 for value in column) for column in values.T]
    assert cells.any()
    assert not cells.all()


def test_empty_cells_and_features_are_warned_about_once_each():
    with pytest.warns(UserWarning, match="no counts") as caught:
        warn_about_empty(sp.csr_matrix(np.diag([1, 0, 0, 2])[:, :3]), modality="atac")
    cells, features = (str(warning.message) for warning in caught)
    assert cells.startswith("3 of 4 cells have no counts in `atac`. They are kept, and embedded")
    assert features.startswith("2 of 3 features have no counts in `atac`.")


def test_stored_zeros_are_no_counts_and_stay_stored():
    matrix = sp.csr_matrix((np.array([0.0, 1.0]), ([0, 1], [0, 1])))
    with pytest.warns(UserWarning, match="1 of 2"):
        cells, features = warn_about_empty(matrix, modality="rna")
    assert cells.tolist() == features.tolist() == [True, False]
    assert matrix.nnz == 2


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_matrix_without_any_count_is_empty_all_over(make):
    with pytest.warns(UserWarning, match="no counts"):
        cells, features = warn_about_empty(make(np.zeros((3, 2))), modality="rna")
    assert cells.all()
    assert features.all()


@pytest.mark.filterwarnings("error")
def test_matrix_with_a_count_everywhere_is_silent():
    cells, features = warn_about_empty(np.eye(3), modality="rna")
    assert not cells.any()
    assert not features.any()


def test_cell_empty_in_both_modalities_is_refused_and_the_way_out_removes_it(
    make_mdata, run_way_out, cells
):
    mdata = make_mdata()
    empty = {key: np.array([key == "rna", True, False, False, False, False]) for key in mdata.mod}
    for key, adata in mdata.mod.items():
        adata.X = sp.csr_matrix(np.where(empty[key][:, None], 0, adata.X.toarray()))
    args = (empty["rna"], empty["atac"])
    with pytest.raises(ValueError, match="but 1 have none in either: `cell1`") as error:
        check_no_cell_is_empty_in_both(*args, cell_names=mdata.obs_names)
    fixed = run_way_out(error, mdata, "mdata = mdata[")
    assert list(fixed.obs_names) == ["cell0", *cells[2:]]


def test_cells_empty_in_one_modality_pass_the_check_of_both():
    mask = np.array([True, False])
    check_no_cell_is_empty_in_both(mask, ~mask, cell_names=pd.Index(["a", "b"]))


def test_tiny_multiome_has_19_cells_empty_in_atac_and_none_in_both(read_real):
    mdata = read_real("pbmc_multiome_tiny.h5mu")
    check_paired(mdata, "rna", "atac")
    with pytest.warns(UserWarning, match="no counts in `atac`") as caught:
        atac_empty, _ = warn_about_empty(mdata["atac"].X, modality="atac")
    assert str(caught[0].message).startswith("19 of 1000 cells have no counts in `atac`")
    rna_empty, _ = warn_about_empty(mdata["rna"].X, modality="rna")
    assert atac_empty.tolist() == (mdata["atac"].X.toarray().sum(axis=1) == 0).tolist()
    check_no_cell_is_empty_in_both(rna_empty, atac_empty, cell_names=mdata.obs_names)
