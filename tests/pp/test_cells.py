"""Pairing of cells against sets, muon and tables by name."""

import re
import warnings

import mudata
import muon
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData

from scmvp_scvi import SCMVPModel, pp

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


@pytest.mark.parametrize(("n_shared", "is_few"), [(1, True), (2, False), (4, False)])
def test_few_shared_cells_are_warned_about_with_names_of_both(make_pair, n_shared, is_few):
    shared = [f"shared{i}" for i in range(n_shared)]
    cells = [*shared, "x", "y", "z"][:4], [*shared, "x-1", "y-1", "z-1", "w-1", "v-1"]
    pair = make_pair(*(np.ones((len(names), 1)) for names in cells), *cells)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        assert list(pp.intersect_cells(pair).obs_names) == shared
    few = [warning for warning in caught if "cells have both" in str(warning.message)]
    assert len(few) == is_few
    if is_few:
        match = (
            r"Only 1 cells have both modalities, of 4 with RNA and 6 with ATAC: `rna` has "
            r"`shared0`.* If you expect more: give .* build the MuData again\.$"
        )
        assert re.search(match, str(few[0].message))
        assert few[0].filename == __file__


@pytest.mark.parametrize("pair_cells", [pp.intersect_cells, pp.union_cells])
def test_no_shared_cell_is_refused_with_an_example_of_each(make_pair, pair_cells):
    apart = make_pair([[1]], [[1]], ["AAAC-1"], ["AAAC-2"])
    with pytest.raises(ValueError, match="`AAAC-1` is one in `rna` and `AAAC-2` is one in `atac`"):
        pair_cells(apart)


# -- cells of either modality ---------------------------------------------------------------------


def with_annotations(mdata: MuData) -> MuData:
    """Something of each kind that a modality can know of its cells."""
    for adata in mdata.mod.values():
        n_cells = adata.n_obs
        adata.obs["batch"] = pd.Categorical(np.where(np.arange(n_cells) % 2, "x", "y"))
        adata.obs["is_doublet"] = np.arange(n_cells) == 1
        adata.layers["twice"] = (2 * adata.X).toarray()
        adata.obsm["X_pca"] = np.arange(2.0 * n_cells).reshape(n_cells, 2)
        adata.obsp["distances"] = sp.csr_matrix(np.arange(n_cells**2).reshape(n_cells, n_cells))
        adata.varm["loadings"] = np.ones((adata.n_vars, 2))
        adata.var["is_marker"] = True
        adata.uns["log1p"] = {"base": 2}
        adata.raw = adata.copy()
    mdata.obsm["X_joint"] = np.arange(float(mdata.n_obs))[:, None]
    return mdata


def values_by_name(names: list[str], known: dict[str, float], missing: float) -> np.ndarray:
    """Oracle: what is known of each cell by its name, or the value of what is missing."""
    return np.array([known.get(name, missing) for name in names])


def test_all_cells_of_either_modality_are_in_both_in_the_order_of_obs(unpaired):
    united = pp.union_cells(unpaired)
    assert list(united.obs_names) == list(unpaired.obs_names)
    for adata in united.mod.values():
        assert list(adata.obs_names) == list(unpaired.obs_names)


def test_counts_stay_with_their_cell_and_are_zero_where_it_was_not_measured(unpaired):
    united = pp.union_cells(with_annotations(unpaired))
    for key, cells in (("rna", RNA_CELLS), ("atac", ATAC_CELLS)):
        known = {cell: 1 + "abcdef".index(cell) for cell in cells}
        expected = values_by_name(united.obs_names, known, 0)
        adata = united[key]
        for matrix, factor in ((adata.X, 1), (adata.layers["twice"], 2), (adata.raw.X, 1)):
            assert sp.isspmatrix_csr(matrix)
            assert matrix.nnz == len(cells)
            np.testing.assert_array_equal(matrix.toarray().ravel(), factor * expected)


def test_what_a_modality_knows_of_its_cells_stays_with_them_and_is_missing_for_others(unpaired):
    before = with_annotations(unpaired).copy()
    united = pp.union_cells(unpaired)
    for key in ("rna", "atac"):
        adata, old = united[key], before[key]
        measured = adata.obs_names.isin(old.obs_names)
        old = old[adata.obs_names[measured]]
        assert adata.obs["batch"].dtype == old.obs["batch"].dtype
        assert (adata[measured].obs["batch"] == old.obs["batch"]).all()
        assert (adata[measured].obs["is_doublet"] == old.obs["is_doublet"]).all()
        np.testing.assert_array_equal(adata[measured].obsm["X_pca"], old.obsm["X_pca"])
        np.testing.assert_array_equal(
            adata[measured].obsp["distances"].toarray(), old.obsp["distances"].toarray()
        )
        assert adata[~measured].obs.isna().all(axis=None)
        assert np.isnan(adata[~measured].obsm["X_pca"]).all()
        assert adata.obsp["distances"].sum() == old.obsp["distances"].sum()
        assert adata.var.equals(old.var)
        assert adata.raw.var.equals(old.raw.var)
        np.testing.assert_array_equal(adata.raw.varm["loadings"], old.raw.varm["loadings"])
        assert adata.varm["loadings"].shape == (1, 2)
        assert adata.uns["log1p"] == {"base": 2}
    np.testing.assert_array_equal(united.obsm["X_joint"], before.obsm["X_joint"])


def test_truth_values_in_tables_of_cells_stay_such_and_can_be_written(unpaired, tmp_path):
    for adata in unpaired.mod.values():
        adata.obsm["calls"] = pd.DataFrame({"is_doublet": True}, index=adata.obs_names)
    united = pp.union_cells(unpaired)
    united.write(tmp_path / "united.h5mu")
    for mdata in (united, mudata.read_h5mu(tmp_path / "united.h5mu")):
        for key, adata in unpaired.mod.items():
            found = mdata[key].obsm["calls"]["is_doublet"]
            assert found.dtype == "boolean"
            assert set(found.index[found.notna()]) == set(adata.obs_names)
            assert found.dropna().all()


def test_cells_say_what_measured_them(unpaired):
    united = pp.union_cells(unpaired)
    expected = {"a": "rna", "b": "both", "c": "both", "d": "both", "e": "atac", "f": "atac"}
    assert united.obs["scmvp_measured"].to_dict() == expected


def test_cells_of_neither_modality_are_left_out_and_counted(unpaired, make_modality):
    protein = make_modality([[1], [2]], ["CD4"], ["a", "z"])
    united = pp.union_cells(MuData({**unpaired.mod, "protein": protein}))
    assert set(united.obs_names) == set("abcdef")
    assert list(united["protein"].obs_names) == ["a"]
    assert united.uns["scmvp_removed"][["removed", "kept"]].to_numpy().tolist() == [[1, 6]]


def test_cells_that_were_padded_before_are_still_said_to_be(unpaired):
    once = pp.union_cells(unpaired)
    twice = pp.union_cells(once)
    assert twice.obs["scmvp_measured"].to_dict() == once.obs["scmvp_measured"].to_dict()


def test_counts_in_a_layer_alone_are_padded_there(unpaired):
    rna = unpaired["rna"]
    rna.layers["counts"], rna.X = rna.X, None
    united = pp.union_cells(unpaired)
    assert united["rna"].X is None
    assert united["rna"].layers["counts"].sum() == rna.layers["counts"].sum()


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
def test_repeated_names_in_raw_are_no_hindrance(make_pair):
    pair = make_pair([[1, 2], [3, 4]], [[5], [6]], ["a", "b"], ["b", "c"])
    rna = pair["rna"].copy()
    rna.var_names = ["Gad1", "Gad1"]
    pair["rna"].raw = rna
    united = pp.union_cells(pair)
    assert list(united["rna"].raw.var_names) == ["Gad1", "Gad1"]
    np.testing.assert_array_equal(united["rna"].raw.X.toarray(), [[1, 2], [3, 4], [0, 0]])


def test_rules_of_a_modality_are_not_asked_of_cells_that_it_did_not_measure(make_pair):
    rna = {"a": [1, 1], "b": [1, 0], "c": [1, 1]}
    atac = {"b": [1, 1], "c": [1, 1], "d": [1, 1], "e": [0, 1]}
    pair = make_pair([*rna.values()], [*atac.values()], [*rna], [*atac])
    united = pp.union_cells(pair)
    filtered = pp.filter_cells_and_features(united, min_genes=2, min_peaks=2)
    assert list(filtered.obs_names) == ["a", "c", "d"]
    assert list(filtered.obs["scmvp_measured"]) == ["rna", "both", "atac"]


def test_account_of_modalities_that_were_renamed_is_refused_with_the_way_out(make_pair):
    pair = make_pair([[1, 1], [1, 0]], [[1, 1], [1, 1]], ["a", "b"], ["b", "c"])
    united = pp.union_cells(pair)
    renamed = MuData({"gex": united["rna"], "peaks": united["atac"]}, obs=united.obs)
    keys = {"rna_key": "gex", "atac_key": "peaks"}
    with pytest.raises(ValueError, match="has `rna`, `atac`.*rename_categories") as refused:
        pp.filter_cells_and_features(renamed, min_genes=2, min_peaks=2, **keys)
    assert "`gex`" in str(refused.value)
    names = {"rna": "gex", "atac": "peaks"}
    measured = renamed.obs["scmvp_measured"].cat.rename_categories(names)
    renamed.obs["scmvp_measured"] = measured
    found = pp.filter_cells_and_features(renamed, min_genes=2, min_peaks=2, **keys)
    assert list(found.obs_names) == ["a", "c"]


def test_cells_that_a_modality_did_not_measure_have_no_part_in_the_variance(make_pair, rng):
    names = [f"cell{i}" for i in range(90)]
    rna, atac = rng.poisson(rng.gamma(2.0, size=40), (60, 40)), rng.poisson(1.0, (60, 50))
    pair = make_pair(rna, atac, names[:60], names[30:])
    options = {"n_genes": 5, "span": 1.0}
    found = pp.select_features(pp.union_cells(pair), **options)["rna"].var
    alone = make_pair(rna, rng.poisson(1.0, (60, 50)), names[:60], names[:60])
    expected = pp.select_features(alone, **options)["rna"].var
    pd.testing.assert_frame_equal(found, expected)


def test_group_that_a_padded_cell_has_in_the_other_modality_is_found(unpaired):
    for adata in unpaired.mod.values():
        adata.obs["batch"] = pd.Categorical([f"batch of {name}" for name in adata.obs_names])
    cells = pp.qc(pp.union_cells(unpaired), batch_key="batch").cells
    assert cells["batch"].to_dict() == {name: f"batch of {name}" for name in "abcdef"}


def test_tables_of_the_joint_cells_stay_with_them(unpaired):
    table = pd.DataFrame({"0": np.arange(unpaired.n_obs)}, index=unpaired.obs_names)
    unpaired.obsm["probabilities"] = table
    for pair_cells in (pp.intersect_cells, pp.union_cells):
        found = pair_cells(unpaired).obsm["probabilities"]
        pd.testing.assert_frame_equal(found, table.loc[found.index])


def test_paired_cells_are_united_as_they_are(make_pair, assert_untouched):
    pair = make_pair(np.eye(3), np.eye(3))
    united = pp.union_cells(pair)
    assert (united.obs.pop("scmvp_measured") == "both").all()
    del united.uns["scmvp_removed"]
    assert_untouched(united, pair)


def test_the_given_object_is_not_padded(unpaired, assert_untouched):
    annotated = with_annotations(unpaired).copy()
    before = annotated.copy()
    pp.union_cells(annotated)
    assert_untouched(annotated, before)


def test_united_cells_can_be_written_and_read(unpaired, tmp_path):
    united = pp.union_cells(with_annotations(unpaired))
    united.write(tmp_path / "united.h5mu")
    read = mudata.read_h5mu(tmp_path / "united.h5mu")
    assert (read.obs["scmvp_measured"] == united.obs["scmvp_measured"]).all()
    assert (read["rna"].X != united["rna"].X).nnz == 0


@pytest.mark.filterwarnings("ignore:.*have no counts in:UserWarning")
def test_united_cells_are_what_the_model_registers(unpaired):
    with pytest.raises(ValueError, match="or keep all"):
        SCMVPModel.setup_mudata(unpaired, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    united = pp.union_cells(unpaired)
    SCMVPModel.setup_mudata(united, modalities={"rna_layer": "rna", "atac_layer": "atac"})


def test_cells_that_were_padded_are_not_measured_by_both(unpaired):
    again = pp.intersect_cells(pp.union_cells(unpaired))
    assert set(again.obs_names) == set(pp.intersect_cells(unpaired).obs_names)
    account = again.uns["scmvp_removed"].iloc[-2:]
    assert account[["reason", "removed", "kept"]].to_numpy().tolist() == [
        ["not in `rna`", 2, 4],
        ["not in `atac`", 1, 3],
    ]


def test_data_in_which_each_cell_is_padded_have_none_that_both_measured(unpaired):
    united = pp.union_cells(unpaired)
    padded = united[united.obs["scmvp_measured"] != "both"].copy()
    with pytest.raises(ValueError, match="Both `rna` and `atac` must have measured some cells"):
        pp.intersect_cells(padded)


def test_account_of_another_pair_is_said_to_be_one(unpaired):
    protein = unpaired["rna"].copy()
    protein.var_names = [f"protein_{name}" for name in protein.var_names]
    united = pp.union_cells(MuData({**unpaired.mod, "protein": protein}))
    with pytest.raises(ValueError, match="has padded another pair of modalities: pass that one"):
        pp.intersect_cells(united, rna_key="protein")
