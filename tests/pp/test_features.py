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
@pytest.mark.parametrize("key", ["rna", "atac"])
def test_features_by_variance_are_those_of_scanpy(counts, key, batch_key):
    numbers = {"n_genes": 20} if key == "rna" else {"n_peaks": 20, "peaks_by": "variance"}
    found = pp.select_features(counts, **numbers, batch_key=batch_key, span=0.5)[key].var
    expected = counts[key].copy()
    expected.obs["batch"] = counts.obs["batch"]
    sc.pp.highly_variable_genes(
        expected, flavor="seurat_v3", n_top_genes=20, batch_key=batch_key, span=0.5
    )
    assert found["highly_variable"].sum() == 20
    pd.testing.assert_frame_equal(found[SCANPY_COLUMNS], expected.var[SCANPY_COLUMNS])


def test_peaks_are_by_default_those_with_a_count_in_most_cells(counts):
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


def test_a_second_choice_keeps_no_columns_of_the_first(counts):
    batched = {"n_peaks": 20, "peaks_by": "variance", "batch_key": "batch", "span": 0.5}
    by_variance = pp.select_features(counts, **batched)
    assert "highly_variable_nbatches" in by_variance["atac"].var
    for options in (batched, {"n_peaks": 30}, {**batched, "batch_key": None}):
        found = pp.select_features(by_variance, **options)["atac"].var
        expected = pp.select_features(counts, **options)["atac"].var
        pd.testing.assert_frame_equal(found[expected.columns], expected)
        assert set(found) == set(expected)


@pytest.mark.parametrize("peaks_by", ["cells", "variance"])
def test_peaks_ranked_by_reads_are_warned_about_where_fragments_are_there(
    make_pair, rng, peaks_by
):
    reads = 2 * rng.poisson(rng.gamma(2.0, size=40), (60, 40))
    fragments = pp.reads_to_fragments(make_pair(reads, reads))
    options = {"n_peaks": 5, "peaks_by": peaks_by, "span": 1.0}
    with pytest.warns(UserWarning, match="counts in `atac` look like reads"):
        pp.select_features(fragments, **options)
    pp.select_features(fragments, **options, atac_layer="fragments")


def test_account_says_by_what_peaks_were_chosen(counts):
    found = pp.select_features(counts, n_peaks=30, peaks_by="variance", subset=True)
    reason = found.uns["scmvp_removed"]["reason"].tolist()
    assert reason == ["not among the 30 most variable peaks"]


def test_the_given_object_stays_as_it_is(make_mdata, assert_untouched):
    mdata = make_mdata()
    pp.select_features(mdata, n_genes=20, n_peaks=30, subset=True)
    assert_untouched(mdata, make_mdata())


def test_layers_that_share_their_columns_with_unsorted_counts_stay_as_they_are(
    unsorted_pair, assert_untouched
):
    before = unsorted_pair.copy()
    pp.select_features(unsorted_pair, n_peaks=3)
    assert_untouched(unsorted_pair, before)


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


def test_batch_column_may_be_that_of_a_modality(make_mdata):
    mdata = make_mdata()
    mdata["atac"].obs["lane"] = mdata.obs["batch"]
    found, expected = (
        pp.select_features(mdata, n_genes=20, batch_key=key, span=0.5)["rna"].var
        for key in ("lane", "batch")
    )
    pd.testing.assert_frame_equal(found, expected)


def test_missing_batches_are_refused(make_mdata):
    mdata = make_mdata()
    mdata.obs["lane"] = [None, *["a"] * 299]
    with pytest.raises(ValueError, match='the column "lane" must have a category for each cell'):
        pp.select_features(mdata, n_genes=5, batch_key="lane")


def test_kidney_genes_are_refused_with_the_span_that_ranks_them(read_real):
    kidney = read_real("scicar_kidney_sample.h5mu")
    match = r"`rna` must have a curve .* with `span=0.3` it has none.* Pass `span=0.4`"
    with pytest.raises(ValueError, match=match):
        pp.select_features(kidney, n_genes=300)
    found = pp.select_features(kidney, n_genes=300, span=0.4)["rna"].var
    expected = kidney["rna"].copy()
    sc.pp.highly_variable_genes(expected, flavor="seurat_v3", n_top_genes=300, span=0.4)
    pd.testing.assert_frame_equal(found[SCANPY_COLUMNS], expected.var[SCANPY_COLUMNS])


def test_batch_that_cannot_be_ranked_is_named_with_the_span_that_ranks_it(read_real):
    kidney = read_real("scicar_kidney_sample.h5mu")
    match = r"`span=0.3` in batch \"Replicate 1\" of the column \"batch\".* Pass `span=0.5`"
    with pytest.raises(ValueError, match=match):
        pp.select_features(kidney, n_genes=300, batch_key="batch")


def test_genes_of_too_few_means_for_any_window_are_refused_with_another_way_out(make_pair):
    counts = np.tile(np.eye(12), (1, 3))  # all genes in one cell
    pair = make_pair(counts, counts)
    match = "holds? too few different means. Remove features in few cells first"
    with pytest.raises(ValueError, match=match):
        pp.select_features(pair, n_genes=3)


# the regression below scanpy ends the process without a message in the first three
@pytest.mark.parametrize("values", ["zero", "constant", "one cell", "few genes"])
def test_cells_without_genes_that_differ_are_refused(make_pair, rng, values):
    counts = rng.poisson(1.0, (30, 40))
    counts = {
        "zero": np.zeros_like(counts),
        "constant": np.ones_like(counts),
        "one cell": counts[:1],
        "few genes": counts[:, :8],
    }[values]
    match = f"at least 3 features that differ .* but the {len(counts)} cells have [08] in all"
    with pytest.raises(ValueError, match=match):
        pp.select_features(make_pair(counts, counts), n_genes=2)


def test_batch_without_genes_that_differ_is_refused_by_name(make_pair, rng):
    counts = rng.poisson(2.0, (60, 30))
    counts[40:] = 0
    pair = make_pair(counts, counts)
    pair.obs["lane"] = ["x"] * 40 + ["y"] * 20
    match = 'the 20 cells of batch "y" of the column "lane" have 0 in all. Leave the batch out'
    with pytest.raises(ValueError, match=match):
        pp.select_features(pair, n_genes=5, batch_key="lane")


@pytest.mark.parametrize("number", ["n_genes", "n_peaks"])
def test_data_without_cells_are_refused(make_pair, number):
    pair = make_pair(np.empty((0, 8)), np.empty((0, 8)))
    with pytest.raises(ValueError, match="must have cells and features, got 0 cells"):
        pp.select_features(pair, **{number: 2})


@pytest.mark.parametrize(("span", "error"), [(0, ValueError), (1.5, ValueError), ("a", TypeError)])
def test_span_that_is_no_share_is_refused(counts, span, error):
    with pytest.raises(error, match="`span` must be"):
        pp.select_features(counts, n_genes=5, span=span)


def test_unknown_ranking_of_peaks_is_refused(counts):
    with pytest.raises(ValueError, match="`peaks_by` must be one of 'cells', 'variance'"):
        pp.select_features(counts, n_peaks=5, peaks_by="depth")


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "pearson_residuals"])
def test_columns_that_another_flavor_of_scanpy_wrote_go_with_its_choice(make_mdata, flavor):
    mdata = make_mdata()
    expected = pp.select_features(mdata, n_genes=20, span=0.5)["rna"]
    rna = mdata["rna"].copy()
    rna.obs["batch"] = mdata.obs["batch"].to_numpy()
    if flavor == "pearson_residuals":
        sc.experimental.pp.highly_variable_genes(rna, n_top_genes=30, batch_key="batch")
    else:
        sc.pp.normalize_total(rna)
        sc.pp.log1p(rna)
        sc.pp.highly_variable_genes(rna, flavor=flavor, n_top_genes=30, batch_key="batch")
    mdata["rna"].var, mdata["rna"].uns["hvg"] = rna.var, rna.uns["hvg"]
    found = pp.select_features(mdata, n_genes=20, span=0.5)["rna"]
    assert set(found.var) == set(expected.var)
    pd.testing.assert_frame_equal(found.var[list(expected.var)], expected.var)
    assert "hvg" not in found.uns
