"""Permuted pairings: what moves, what stays, and which links are left."""

import numpy as np
import pandas as pd
import pytest
from mudata import MuData

from scmvp_scvi import tl

# the data here have few peaks: the null is hardly matched
pytestmark = pytest.mark.filterwarnings("ignore:`n_matched=100` peaks are matched:UserWarning")


def find_links(mdata):
    return tl.peak_gene_links(mdata, window=100_000)


def test_accessibility_moves_within_groups_and_everything_else_stays(make_mdata):
    mdata = make_mdata()
    mdata["atac"].obs["source"] = mdata.obs_names
    permuted = tl.permute_pairing(mdata, ["cell_type", "batch"], seed=1)
    source = mdata.obs_names.get_indexer(permuted["atac"].obs["source"])
    assert sorted(source) == list(range(mdata.n_obs))
    assert (source != np.arange(mdata.n_obs)).all()
    groups = mdata.obs[["cell_type", "batch"]].astype(str)
    assert (groups.to_numpy() == groups.to_numpy()[source]).all()
    assert (permuted["atac"].X != mdata["atac"].X[source]).nnz == 0
    assert (permuted["rna"].X != mdata["rna"].X).nnz == 0
    pd.testing.assert_frame_equal(permuted.obs, mdata.obs)
    assert permuted["atac"].obs_names.equals(mdata.obs_names)


def test_cells_alone_in_their_group_keep_their_accessibility_with_a_warning(make_mdata):
    mdata = make_mdata()
    mdata.obs["kind"] = ["one", "two", "two", *["many"] * (mdata.n_obs - 3)]
    mdata["atac"].obs["source"] = mdata.obs_names
    with pytest.warns(UserWarning, match=f"1 of {mdata.n_obs} cells are the only ones of their"):
        permuted = tl.permute_pairing(mdata, "kind")
    source = mdata.obs_names.get_indexer(permuted["atac"].obs["source"])
    assert list(source[:3]) == [0, 2, 1]
    assert (source[3:] != np.arange(3, mdata.n_obs)).all()


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_a_cell_without_counts_in_a_modality_has_no_pair_to_be_warned_about(make_mdata, modality):
    mdata = make_mdata()
    counts = mdata[modality].X.tolil()
    counts[5] = 0
    mdata[modality].X = counts.tocsr()
    mdata.obs["kind"] = "one"
    tl.permute_pairing(mdata, "kind")  # warnings are errors


def test_columns_keep_their_types(make_mdata):
    mdata = make_mdata()
    # to which mudata gives another type where they are given with the modalities
    mdata.obs["whole"] = np.arange(mdata.n_obs, dtype=float)
    mdata.obs["missing"] = np.where(np.arange(mdata.n_obs) < 3, np.nan, 1.0)
    mdata.obs["anything"] = pd.Series([1, *[2.5] * (mdata.n_obs - 1)], mdata.obs_names, object)
    permuted = tl.permute_pairing(mdata, "cell_type")
    pd.testing.assert_frame_equal(permuted.obs, mdata.obs)


@pytest.mark.filterwarnings("ignore:.*have no counts in:UserWarning")
def test_as_many_cells_as_before_have_both_modalities(make_mdata):
    mdata = make_mdata(missing_rna=0.2, missing_atac=0.3)

    def n_of_each(data: MuData) -> list[int]:
        has_rna, has_atac = (np.asarray(data[key].X.sum(1)).ravel() > 0 for key in data.mod)
        return np.bincount(2 * has_rna + has_atac).tolist()

    assert n_of_each(tl.permute_pairing(mdata, "cell_type")) == n_of_each(mdata)
    for adata in mdata.mod.values():
        adata.layers["counts"], adata.X = adata.X, np.ones(adata.shape)
    layers = {"rna_layer": "counts", "atac_layer": "counts"}
    permuted = tl.permute_pairing(mdata, "cell_type", **layers)
    for adata in (*mdata.mod.values(), *permuted.mod.values()):
        adata.X = adata.layers["counts"]
    assert n_of_each(permuted) == n_of_each(mdata)


def test_groups_may_be_those_of_a_modality(make_mdata):
    mdata = make_mdata()
    mdata["rna"].obs["kind"] = mdata.obs["cell_type"]
    found, expected = (tl.permute_pairing(mdata, key, seed=1) for key in ("kind", "cell_type"))
    assert (found["atac"].X != expected["atac"].X).nnz == 0


def test_views_are_permuted_as_their_copies_are(make_mdata):
    view = make_mdata()[::3]
    found, expected = (tl.permute_pairing(mdata, "cell_type") for mdata in (view, view.copy()))
    assert (found["atac"].X != expected["atac"].X).nnz == 0
    assert not found["rna"].is_view


def test_original_stays_as_it_is(make_mdata):
    mdata, before = make_mdata(), make_mdata()
    tl.permute_pairing(mdata, "cell_type").obs["new"] = 1
    assert (mdata["atac"].X != before["atac"].X).nnz == 0
    pd.testing.assert_frame_equal(mdata.obs, before.obs)


def test_permuted_data_can_be_registered(make_mdata, register, train):
    permuted = register(tl.permute_pairing(make_mdata(), "cell_type"), batch_key="batch")
    assert train(permuted, max_epochs=1).is_trained_


def test_links_within_types_exceed_permuted_ones(planted):
    excess = tl.permuted_excess(
        planted, ["cell_type", "batch"], find_links=find_links, n_permutations=2
    )
    assert excess.n_links > 15
    assert max(excess.n_permuted) < excess.n_links / 2
    assert excess.share > 0.5
    truth = planted.uns["truth"]["links"]
    planted_excess = truth.merge(excess.links, on=["gene", "peak"])["excess"].mean()
    assert planted_excess > 3 * abs(excess.links["excess"].mean())


def test_links_between_types_alone_have_no_excess(make_mdata):
    mdata = make_mdata(n_cells=800, link_strength=0.0)
    found = tl.permuted_excess(mdata, "cell_type", find_links=find_links, n_permutations=2)
    assert found.links["excess"].mean() == pytest.approx(0, abs=0.005)


def test_permuted_score_is_the_mean_over_permutations(make_mdata):
    mdata = make_mdata()
    seeds = np.random.SeedSequence(4).generate_state(2)
    excess = tl.permuted_excess(
        mdata, "cell_type", find_links=find_links, n_permutations=2, seed=4
    )
    runs = [find_links(tl.permute_pairing(mdata, "cell_type", seed=int(seed))) for seed in seeds]
    expected = np.mean([run["score"] for run in runs], axis=0)
    np.testing.assert_allclose(excess.links["permuted_score"], expected)
    assert excess.n_permuted == tuple(int((run["q_value"] <= 0.05).sum()) for run in runs)


def test_links_are_found_between_modalities_of_any_name(make_mdata):
    mdata = make_mdata()
    renamed = MuData({"gex": mdata["rna"], "peaks": mdata["atac"]}, obs=mdata.obs)
    found = tl.permuted_excess(
        renamed, "cell_type", n_permutations=1, rna_key="gex", atac_key="peaks"
    )
    expected = tl.permuted_excess(mdata, "cell_type", n_permutations=1)
    pd.testing.assert_frame_equal(found.links, expected.links)


def test_links_of_layers_are_counted_as_those_of_the_matrices(make_mdata):
    mdata, other = make_mdata(), make_mdata()
    for adata in other.mod.values():
        adata.layers["counts"], adata.X = adata.X, None
    found = tl.permuted_excess(mdata, "cell_type", n_permutations=1)
    layers = {"rna_layer": "counts", "atac_layer": "counts"}
    of_layers = tl.permuted_excess(other, "cell_type", n_permutations=1, **layers)
    pd.testing.assert_frame_equal(of_layers.links, found.links)


def test_links_without_q_values_cannot_be_counted(make_mdata):
    def find_links(data: MuData) -> pd.DataFrame:
        return tl.peak_gene_links(data, n_matched=0)

    with pytest.raises(ValueError, match="`find_links` must return links with q-values"):
        tl.permuted_excess(make_mdata(), "cell_type", find_links=find_links)


def test_links_of_which_a_pair_is_there_twice_cannot_be_counted(make_mdata):
    def twice(data: MuData) -> pd.DataFrame:
        return pd.concat([find_links(data)] * 2)

    with pytest.raises(ValueError, match="`find_links` must return each pair once, but .* there"):
        tl.permuted_excess(make_mdata(), "cell_type", find_links=twice)


def test_links_without_a_column_that_is_needed_are_refused(make_mdata):
    def find_links(data: MuData) -> pd.DataFrame:
        return pd.DataFrame({"gene": [], "peak": [], "score": []})

    with pytest.raises(KeyError, match=r"`find_links\(mdata\)` must have .* has no `q_value`"):
        tl.permuted_excess(make_mdata(), "cell_type", find_links=find_links)


@pytest.mark.parametrize("limit", [5, 0, -0.1])
def test_limit_that_is_no_share_is_refused(make_mdata, limit):
    with pytest.raises(ValueError, match="`max_q_value` must be above 0 and at most 1"):
        tl.permuted_excess(make_mdata(), "cell_type", max_q_value=limit)


@pytest.mark.parametrize(
    "function",
    [
        lambda mdata, seed: tl.peak_gene_links(mdata, seed=seed),
        lambda mdata, seed: tl.permute_pairing(mdata, "cell_type", seed=seed),
        lambda mdata, seed: tl.permuted_excess(mdata, "cell_type", seed=seed),
        lambda mdata, seed: tl.metacells(mdata["rna"].X.toarray(), seed=seed),
    ],
)
def test_seed_below_zero_is_refused(make_mdata, function):
    with pytest.raises(ValueError, match="`seed` must be at least 0, got -1"):
        function(make_mdata(), -1)


@pytest.mark.parametrize("within", [[], None])
def test_no_group_to_permute_within_is_refused(make_mdata, within):
    with pytest.raises(ValueError, match="`within` must name one column or more, got none"):
        tl.permute_pairing(make_mdata(), within)


def test_share_is_missing_without_links():
    assert np.isnan(tl.PermutedExcess(pd.DataFrame(), 0, (0, 0)).share)


def test_unknown_column_suggests_a_near_one(make_mdata):
    with pytest.raises(KeyError, match=r"`within=\"celltype\"`.*Did you mean `cell_type`"):
        tl.permute_pairing(make_mdata(), "celltype")


def test_no_permutation_is_refused(make_mdata):
    with pytest.raises(ValueError, match="`n_permutations` must be at least 1"):
        tl.permuted_excess(make_mdata(), "cell_type", n_permutations=0)
