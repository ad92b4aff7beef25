"""Pairing of cells against sets, and muon."""

import muon
import numpy as np
import pytest
from mudata import MuData

from scmvp_scvi import pp

RNA_CELLS = ["d", "a", "c", "b"]
ATAC_CELLS = ["c", "e", "b", "d", "f"]


@pytest.fixture
def unpaired(make_pair) -> MuData:
    """A value tells the place of its cell in the alphabet."""
    rna, atac = (
        [[1 + "abcdef".index(cell)] for cell in cells] for cells in (RNA_CELLS, ATAC_CELLS)
    )
    return make_pair(rna, atac, RNA_CELLS, ATAC_CELLS)


def test_cells_of_both_modalities_are_left_in_the_order_of_obs(unpaired):
    paired = pp.intersect_cells(unpaired)
    expected = [cell for cell in unpaired.obs_names if cell in {"b", "c", "d"}]
    assert list(paired.obs_names) == expected
    for adata in paired.mod.values():
        assert list(adata.obs_names) == expected


def test_counts_stay_with_their_cell(unpaired):
    paired = pp.intersect_cells(unpaired)
    expected = [1 + "abcdef".index(cell) for cell in paired.obs_names]
    for adata in paired.mod.values():
        assert adata.X.toarray().ravel().tolist() == expected


def test_the_same_cells_are_left_as_by_muon(unpaired):
    paired = pp.intersect_cells(unpaired)
    muon.pp.intersect_obs(unpaired)
    assert set(paired.obs_names) == set(unpaired.obs_names)


def test_account_says_where_cells_were_missing(unpaired):
    account = pp.intersect_cells(unpaired).uns["scmvp_removed"]
    columns = ["step", "reason", "removed", "kept"]
    assert account[columns].to_numpy().tolist() == [
        ["intersect_cells", "not in `rna`", 2, 4],
        ["intersect_cells", "not in `atac`", 1, 3],
    ]


def test_paired_cells_stay_as_they_are(make_pair, assert_untouched):
    pair = make_pair(np.eye(3), np.eye(3))
    paired = pp.intersect_cells(pair)
    assert paired.uns.pop("scmvp_removed")["removed"].sum() == 0
    assert_untouched(paired, pair)


def test_the_given_object_stays_as_it_is(unpaired, assert_untouched):
    before = unpaired.copy()
    pp.intersect_cells(unpaired)
    assert_untouched(unpaired, before)


def test_the_result_can_be_filtered(unpaired):
    assert pp.filter_cells_and_features(pp.intersect_cells(unpaired), min_cells=3).n_obs == 3


def test_no_shared_cell_is_refused_with_an_example_of_each(make_pair):
    apart = make_pair([[1]], [[1]], ["AAAC-1"], ["AAAC-2"])
    with pytest.raises(ValueError, match="`AAAC-1` is one in `rna` and `AAAC-2` is one in `atac`"):
        pp.intersect_cells(apart)
