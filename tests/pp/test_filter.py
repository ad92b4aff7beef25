"""Filters against matrices counted by hand, scanpy, and plain loops."""

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from mudata import MuData

from scmvp_scvi import pp

RNA = [
    [1, 2, 0, 0],  # 2 genes
    [3, 0, 1, 0],  # 2
    [0, 1, 1, 1],  # 3
    [0, 0, 0, 5],  # 1
]
ATAC = [
    [1, 1, 0],  # 2 peaks
    [0, 1, 1],  # 2
    [1, 1, 0],  # 2
    [1, 1, 1],  # 3
]


@pytest.fixture
def pair(make_pair) -> MuData:
    return make_pair(RNA, ATAC)


@pytest.fixture
def sparse_pair(make_pair, rng) -> MuData:
    """Few counts, so that rounds have something to do."""
    return make_pair(rng.poisson(0.2, (80, 40)), rng.poisson(0.15, (80, 50)))


def account(mdata, *columns):
    return mdata.uns["scmvp_removed"][list(columns)].to_numpy().tolist()


def test_one_round_removes_what_a_count_by_hand_removes(pair):
    filtered = pp.filter_cells_and_features(pair, min_genes=2, min_peaks=2, min_cells=2)
    # cell3 has 1 gene; without it gene3 is in 1 cell, and so is the last peak
    assert list(filtered.obs_names) == ["cell0", "cell1", "cell2"]
    assert list(filtered["rna"].var_names) == ["gene0", "gene1", "gene2"]
    assert list(filtered["atac"].var_names) == ["chr1:0-50", "chr1:100-150"]
    np.testing.assert_array_equal(filtered["rna"].X.toarray(), np.array(RNA)[:3, :3])


def test_account_says_what_each_rule_removed_and_left(pair):
    filtered = pp.filter_cells_and_features(pair, min_genes=2, min_peaks=2, min_cells=2)
    assert account(filtered, "round", "of", "reason", "removed", "kept") == [
        [1, "cells", "fewer than 2 genes", 1, 3],
        [1, "cells", "fewer than 2 peaks", 0, 3],
        [1, "genes", "fewer than 2 cells", 1, 3],
        [1, "peaks", "fewer than 2 cells", 1, 2],
    ]


def test_account_grows_with_each_step_and_can_be_written(pair, tmp_path):
    once = pp.filter_cells_and_features(pair, min_genes=2)
    twice = pp.filter_cells_and_features(once, max_cells_per_peak=2)
    assert account(twice, "reason") == [["fewer than 2 genes"], ["more than 2 cells"]]
    twice.write(tmp_path / "filtered.h5mu")


def test_rounds_that_end_with_nothing_say_which_rule_and_round(pair):
    # round 2: cell1 has 1 peak left, and without it genes 0 and 2 are in 1 cell; so in round 3
    # the other two cells have 1 gene
    with pytest.raises(ValueError, match="min_genes=2` leaves no cells: .*round 3.* most 1 gene"):
        pp.filter_cells_and_features(
            pair, min_genes=2, min_peaks=2, min_cells=2, until_stable=True
        )


def test_repeated_rounds_equal_single_ones_until_nothing_changes(sparse_pair):
    rules = {"min_genes": 5, "min_peaks": 5, "min_cells": 5, "max_cells_per_peak": 14}
    stable = pp.filter_cells_and_features(sparse_pair, until_stable=True, **rules)
    looped, shape = sparse_pair, None
    while looped.shape != shape:
        shape, looped = looped.shape, pp.filter_cells_and_features(looped, **rules)
    assert stable.uns["scmvp_removed"]["round"].max() > 2
    assert stable.obs_names.equals(looped.obs_names)
    assert stable.var_names.equals(looped.var_names)


def test_cells_and_features_left_by_repeated_rounds_meet_all_thresholds(sparse_pair):
    rules = {"min_genes": 5, "min_peaks": 5, "min_cells": 5}
    stable = pp.filter_cells_and_features(sparse_pair, until_stable=True, **rules)
    for key in ("rna", "atac"):
        seen = stable[key].X.toarray() > 0
        assert seen.sum(axis=1).min() >= 5
        assert seen.sum(axis=0).min() >= 5


def test_one_round_equals_scanpy(sparse_pair):
    filtered = pp.filter_cells_and_features(sparse_pair, min_genes=5, min_peaks=4, min_cells=6)
    rna, atac = sparse_pair["rna"].copy(), sparse_pair["atac"].copy()
    enough = (
        sc.pp.filter_cells(rna, min_genes=5, inplace=False)[0]
        & sc.pp.filter_cells(atac, min_genes=4, inplace=False)[0]
    )
    for key, adata in (("rna", rna), ("atac", atac)):
        adata = adata[enough].copy()
        sc.pp.filter_genes(adata, min_cells=6)
        assert filtered[key].obs_names.equals(adata.obs_names)
        assert filtered[key].var_names.equals(adata.var_names)


@pytest.fixture(scope="module")
def at_the_thresholds(make_pair) -> MuData:
    """Counts at and beside each published threshold; the expected survivors are below."""
    n_cells = 340  # the last two are poor
    rna = np.zeros((n_cells, 202))
    rna[:, :200] = 1
    rna[:10, 200] = 1  # in 10 cells
    rna[:9, 201] = 1  # in 9
    rna[338, 0] = 0  # a cell of 199 genes
    atac = np.ones((n_cells, 203))
    for i in range(n_cells):  # each has 200 of the first 202 peaks, each of these in 336 at most
        atac[i, [i % 202, (i + 101) % 202]] = 0
    atac[[0, 339], 202] = 0  # in 337 cells of 338
    atac[339, np.flatnonzero(atac[339])[0]] = 0  # a cell of 199 peaks
    return make_pair(rna, atac)


@pytest.mark.parametrize(
    ("preset", "n_peaks"), [("sci-car", 203), ("snare-seq", 203), ("paired-seq", 202)]
)
def test_presets_keep_what_is_at_the_published_thresholds(at_the_thresholds, preset, n_peaks):
    filtered = pp.filter_cells_and_features(at_the_thresholds, preset=preset)
    assert filtered.n_obs == 338
    assert filtered.obs_names.isin(["cell338", "cell339"]).sum() == 0
    assert list(filtered["rna"].var_names) == [f"gene{i}" for i in range(201)]
    assert list(filtered["atac"].var_names) == list(at_the_thresholds["atac"].var_names[:n_peaks])


def test_a_threshold_replaces_that_of_the_preset(at_the_thresholds):
    filtered = pp.filter_cells_and_features(at_the_thresholds, preset="sci-car", min_genes=201)
    assert filtered.n_obs == 10


def test_stored_zeros_are_no_counts(pair):
    before = pp.filter_cells_and_features(pair, min_genes=2)
    rows, columns = np.indices((4, 4)).reshape(2, -1)
    full = sp.csr_matrix((np.ravel(RNA).astype("float32"), (rows, columns)))
    assert full.nnz == 16
    pair["rna"].X = full
    assert pp.filter_cells_and_features(pair, min_genes=2).obs_names.equals(before.obs_names)


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_counts_in_any_container_give_the_same(pair, convert):
    expected = pp.filter_cells_and_features(pair, min_genes=2, min_cells=2)
    for adata in pair.mod.values():
        adata.X = convert(adata.X.toarray())
    found = pp.filter_cells_and_features(pair, min_genes=2, min_cells=2)
    assert found.obs_names.equals(expected.obs_names)
    assert found.var_names.equals(expected.var_names)


def test_counts_may_be_in_layers(pair):
    expected = pp.filter_cells_and_features(pair, min_genes=2)
    pair["rna"].layers["counts"] = pair["rna"].X
    pair["rna"].X = pair["rna"].X * 0.37
    filtered = pp.filter_cells_and_features(pair, min_genes=2, rna_layer="counts")
    assert filtered.obs_names.equals(expected.obs_names)


def test_the_given_object_stays_as_it_is(pair, assert_untouched):
    before = pair.copy()
    filtered = pp.filter_cells_and_features(pair, min_genes=2)
    filtered["rna"].X.data[:] = 99
    assert_untouched(pair, before)


def test_layers_that_share_their_columns_with_unsorted_counts_stay_as_they_are(
    unsorted_pair, assert_untouched
):
    before = unsorted_pair.copy()
    filtered = pp.filter_cells_and_features(unsorted_pair, min_genes=1)
    assert_untouched(unsorted_pair, before)
    for adata in filtered.mod.values():
        np.testing.assert_array_equal(adata.layers["double"].toarray(), 2 * adata.X.toarray())


def test_what_is_known_of_the_cells_and_features_comes_along(pair):
    pair.obs["number"] = range(4)
    pair.obsm["X_pca"] = np.arange(8.0).reshape(4, 2)
    pair.obsp["graph"] = sp.csr_matrix(np.diag([1.0, 2, 3, 4]))
    pair.varm["loadings"] = np.arange(7)[:, None]
    pair["rna"].var["length"] = [10, 20, 30, 40]
    filtered = pp.filter_cells_and_features(pair, min_genes=3)
    assert list(filtered.obs["number"]) == [2]
    assert filtered.obsm["X_pca"].tolist() == [[4, 5]]
    assert filtered.obsp["graph"].toarray().tolist() == [[3]]
    filtered = pp.filter_cells_and_features(pair, max_cells_per_peak=3)
    assert filtered.varm["loadings"].ravel().tolist() == [0, 1, 2, 3, 4, 6]
    assert list(filtered["rna"].var["length"]) == [10, 20, 30, 40]


def test_cells_of_a_third_modality_go_too(pair, make_modality):
    protein = make_modality(np.eye(3), ["a", "b", "c"], ["cell3", "cell1", "cell0"])
    with_protein = MuData({**pair.mod, "protein": protein})
    filtered = pp.filter_cells_and_features(with_protein, min_genes=2)
    assert list(filtered["protein"].obs_names) == ["cell0", "cell1"]
    np.testing.assert_array_equal(filtered["protein"].X.toarray(), [[0, 0, 1], [0, 1, 0]])


def test_unknown_preset_is_refused_with_the_known_ones(pair):
    with pytest.raises(
        ValueError, match="must be one of 'sci-car', 'snare-seq', 'paired-seq', got"
    ):
        pp.filter_cells_and_features(pair, preset="share-seq")


def test_no_threshold_is_refused(pair):
    with pytest.raises(ValueError, match="needs a `preset` or at least one threshold, got none"):
        pp.filter_cells_and_features(pair)


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (2.5, TypeError)])
def test_thresholds_must_be_counts(pair, value, error):
    with pytest.raises(error, match=f"`min_peaks` must be .* got {value}"):
        pp.filter_cells_and_features(pair, min_peaks=value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"min_genes": 9}, "`min_genes=9` leaves no cells: the 4 .* at most 3 genes.* Lower it"),
        ({"preset": "sci-car"}, "`min_genes=200` leaves no cells: .* also where a preset sets it"),
        ({"min_cells": 5}, "`min_cells=5` leaves no genes: the 4 .* at most 2 cells"),
        ({"max_cells_per_peak": 1}, "leaves no peaks: the 3 .* at least 2 cells.* Raise it"),
    ],
)
def test_nothing_left_is_refused_with_what_there_was(pair, rules, message):
    with pytest.raises(ValueError, match=message):
        pp.filter_cells_and_features(pair, **rules)


def test_modality_without_features_is_refused(pair):
    empty = MuData({"rna": pair["rna"], "atac": pair["atac"][:, []].copy()})
    with pytest.raises(ValueError, match="`atac` must have cells and features, got 4 cells and 0"):
        pp.filter_cells_and_features(empty, min_genes=1)


def test_unpaired_cells_are_refused(make_pair):
    unpaired = make_pair(RNA, ATAC, atac_cells=["cell0", "cell1", "cell2", "other"])
    with pytest.raises(ValueError, match="1 are missing in `rna`"):
        pp.filter_cells_and_features(unpaired, min_genes=1)


def test_values_that_are_no_counts_are_refused(pair):
    pair["rna"].X = pair["rna"].X * 0.37
    with pytest.raises(ValueError, match="`rna_layer`: .* must hold raw counts"):
        pp.filter_cells_and_features(pair, min_genes=1)


@pytest.mark.parametrize(
    ("min_genes", "min_peaks", "min_cells"), [(20, 2, 2), (40, 1, 10), (60, 5, 1)]
)
def test_kidney_filters_equal_scanpy(read_real, min_genes, min_peaks, min_cells):
    kidney = read_real("scicar_kidney_sample.h5mu")
    filtered = pp.filter_cells_and_features(
        kidney, min_genes=min_genes, min_peaks=min_peaks, min_cells=min_cells
    )
    rna, atac = kidney["rna"], kidney["atac"]
    enough = (
        sc.pp.filter_cells(rna, min_genes=min_genes, inplace=False)[0]
        & sc.pp.filter_cells(atac, min_genes=min_peaks, inplace=False)[0]
    )
    assert filtered.obs_names.equals(kidney.obs_names[enough])
    for key, adata in (("rna", rna), ("atac", atac)):
        kept = sc.pp.filter_genes(adata[enough].copy(), min_cells=min_cells, inplace=False)[0]
        assert filtered[key].var_names.equals(adata.var_names[kept])
