"""Choice of features against scanpy and pandas."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from scmvp_scvi import pp

SCANPY_COLUMNS = ["highly_variable", "highly_variable_rank", "means", "variances"]


@pytest.fixture(scope="module")
def counts(make_mdata):
    """Counts that are not registered with a model."""
    return make_mdata()


@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_genes_are_those_of_scanpy(counts, batch_key):
    found = pp.select_features(counts, n_genes=20, batch_key=batch_key)["rna"].var
    expected = counts["rna"].copy()
    expected.obs["batch"] = counts.obs["batch"]
    sc.pp.highly_variable_genes(expected, flavor="seurat_v3", n_top_genes=20, batch_key=batch_key)
    assert found["highly_variable"].sum() == 20
    pd.testing.assert_frame_equal(found[SCANPY_COLUMNS], expected.var[SCANPY_COLUMNS])


def test_peaks_are_those_with_a_count_in_most_cells(counts):
    found = pp.select_features(counts, n_peaks=30)["atac"].var
    n_cells = pd.Series((counts["atac"].X.toarray() > 0).sum(axis=0), found.index)
    assert set(found.index[found["highly_variable"]]) == set(n_cells.nlargest(30).index)
    assert found["n_cells"].tolist() == n_cells.tolist()


def test_ties_between_peaks_go_by_their_order(make_pair):
    pair = make_pair(np.ones((2, 1)), np.ones((2, 5)))
    found = pp.select_features(pair, n_peaks=2)["atac"].var["highly_variable"]
    assert found.tolist() == [True, True, False, False, False]


def test_a_modality_without_a_number_stays_as_it_is(counts):
    found = pp.select_features(counts, n_peaks=30, subset=True)
    assert found["rna"].var.equals(counts["rna"].var)
    assert found["rna"].n_vars == counts["rna"].n_vars


def test_subset_leaves_the_chosen_features_and_accounts_for_the_others(counts):
    marked = pp.select_features(counts, n_genes=20, n_peaks=30)
    subset = pp.select_features(counts, n_genes=20, n_peaks=30, subset=True)
    for key, n in (("rna", 20), ("atac", 30)):
        chosen = marked[key].var["highly_variable"]
        assert list(subset[key].var_names) == list(chosen.index[chosen])
        assert subset[key].var["highly_variable"].all()
        assert subset[key].n_vars == n
    account = subset.uns["scmvp_removed"][["of", "removed", "kept"]]
    assert account.to_numpy().tolist() == [["genes", 60, 20], ["peaks", 120, 30]]


def test_the_given_object_stays_as_it_is(make_mdata, assert_untouched):
    mdata = make_mdata()
    pp.select_features(mdata, n_genes=20, n_peaks=30, subset=True)
    assert_untouched(mdata, make_mdata())


def test_counts_may_be_in_layers(make_pair):
    pair = make_pair(np.ones((2, 1)), [[1, 1, 0], [1, 0, 0]])
    pair["atac"].layers["other"] = pair["atac"].X[:, [2, 1, 0]]
    found = pp.select_features(pair, n_peaks=1, atac_layer="other")["atac"].var
    assert found["highly_variable"].tolist() == [False, False, True]


def test_no_number_is_refused(counts):
    with pytest.raises(ValueError, match="needs the number of features to choose, got none"):
        pp.select_features(counts)


def test_more_features_than_there_are_is_refused(counts):
    with pytest.raises(ValueError, match="`n_peaks` must be at most .* of `atac`, 150, got 151"):
        pp.select_features(counts, n_peaks=151)


def test_unknown_batch_column_is_refused_with_a_near_one(counts):
    with pytest.raises(KeyError, match='`batch_key="bach"` is not .* Did you mean `batch`'):
        pp.select_features(counts, n_genes=5, batch_key="bach")


def test_batch_column_of_a_modality_is_named_in_the_error(make_mdata):
    mdata = make_mdata()
    mdata["rna"].obs["lane"] = "a"
    with pytest.raises(KeyError, match=r'copy it, `mdata.obs\["lane"\] = mdata\["rna"\].obs'):
        pp.select_features(mdata, n_genes=5, batch_key="lane")


def test_missing_batches_are_refused(make_mdata):
    mdata = make_mdata()
    mdata.obs["lane"] = [None, *["a"] * 299]
    with pytest.raises(ValueError, match='the column "lane" must have a category for each cell'):
        pp.select_features(mdata, n_genes=5, batch_key="lane")
