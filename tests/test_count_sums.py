import numpy as np
import pytest
import scipy.sparse as sp
from mudata import MuData
from scipy import stats
from scvi.data import AnnDataManager

from scmvp_scvi import SCMVPModel
from scmvp_scvi._count_sums import TrainingCounts, raw_means

N_CELLS, N_GENES, N_PEAKS = 60, 20, 30


@pytest.fixture
def raw(make_mdata) -> MuData:
    """Data that no test has registered."""
    return make_mdata(n_cells=N_CELLS, n_genes=N_GENES, n_peaks=N_PEAKS, n_types=2)


def manager_of(mdata: MuData) -> AnnDataManager:
    return SCMVPModel(mdata, n_hidden=8).adata_manager


def feature_statistics(manager: AnnDataManager, rows: np.ndarray) -> dict[str, object]:
    return TrainingCounts.read(manager, rows).feature_statistics()


def test_feature_statistics_equal_numpy_on_the_chosen_cells(raw, register, rng):
    rows = rng.permutation(N_CELLS)[:25]
    found = feature_statistics(manager_of(register(raw)), rows)
    rna, atac = (raw[key].X.toarray()[rows] for key in ("rna", "atac"))
    assert found["rna_median_depth"] == pytest.approx(np.median(rna.sum(1)))
    np.testing.assert_allclose(found["rna_totals"], rna.sum(0))
    np.testing.assert_allclose(found["atac_totals"], atac.sum(0))
    assert found["n_cells"] == 25


def test_sums_of_counts_in_half_precision_do_not_overflow(raw, register):
    raw["rna"].X = raw["rna"].X.toarray().astype(np.float16)
    raw["rna"].X[:, 0] = 60_000  # of two cells more than the largest half
    manager = SCMVPModel(register(raw), n_hidden=8).adata_manager
    statistics = feature_statistics(manager, np.arange(10))
    assert statistics["rna_totals"][0] == 10 * np.float16(60_000).astype(float)
    assert statistics["rna_median_depth"] >= 60_000 - 32


def test_feature_statistics_are_the_same_in_small_blocks(raw, register, monkeypatch):
    manager = manager_of(register(raw))
    whole = feature_statistics(manager, np.arange(N_CELLS))
    monkeypatch.setattr("scmvp_scvi._count_sums._ROWS_PER_BLOCK", 7)
    in_blocks = feature_statistics(manager, np.arange(N_CELLS))
    for name, value in whole.items():
        np.testing.assert_allclose(in_blocks[name], value)


def test_median_depth_leaves_empty_cells_out(make_mdata, register):
    mdata = make_mdata(n_cells=100, missing_rna=0.6)
    with pytest.warns(UserWarning, match="60 of 100 cells have no counts in `rna`"):
        manager = manager_of(register(mdata))
    depth = mdata["rna"].X.sum(1).A1
    found = feature_statistics(manager, np.arange(100))["rna_median_depth"]
    assert found == pytest.approx(np.median(depth[depth > 0]))


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_size_factors_become_depths_with_the_median_of_the_observed(raw, register, rng, modality):
    raw.obs["size"] = rng.uniform(0.5, 2, raw.n_obs) * np.linspace(1, 9, raw.n_obs)
    register(raw, **{f"{modality}_size_factor_key": "size"})
    manager = SCMVPModel._get_most_recent_anndata_manager(raw)
    training = np.arange(raw.n_obs // 2)
    found = feature_statistics(manager, training)
    depths = raw.obs["size"].to_numpy()[training] * found[f"{modality}_depth_per_size_factor"]
    observed = np.median(raw[modality].X[training].sum(1).A1)
    assert np.median(depths) == pytest.approx(observed, rel=1e-5)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_size_factors_of_cells_without_counts_do_not_enter_the_scale(raw, register, modality):
    """The counts themselves are the factors where there are any, anything else elsewhere."""
    counts = raw[modality].X.tolil()
    counts[::2], counts[::3] = 0, 0
    raw[modality].X = counts.tocsr()
    depth = np.asarray(raw[modality].X.sum(1)).ravel()
    raw.obs["size"] = np.where(depth > 0, depth, 0.01)
    with pytest.warns(UserWarning, match="no counts in"):
        register(raw, **{f"{modality}_size_factor_key": "size"})
    manager = SCMVPModel._get_most_recent_anndata_manager(raw)
    training = np.random.default_rng(0).permutation(raw.n_obs)[: raw.n_obs - 3]
    found = feature_statistics(manager, training)
    assert found[f"{modality}_depth_per_size_factor"] == pytest.approx(1, rel=1e-6)


def test_raw_means_are_those_of_numpy_over_measured_cells_in_blocks_of_any_size(rng, monkeypatch):
    counts = 1 + rng.poisson(0.5, (50, 8)).astype("float32")
    counts[7] = 0  # a cell without counts was not measured
    rows = np.sort(np.r_[7, 8 + rng.choice(42, 21, replace=False)])
    chosen = counts[rows[rows != 7]]
    depth = chosen.sum(1, keepdims=True)
    for block in (4096, 5):
        monkeypatch.setattr("scmvp_scvi._count_sums._ROWS_PER_BLOCK", block)
        found = raw_means(sp.csr_matrix(counts), rows)
        np.testing.assert_allclose(found.mean, chosen.mean(0), rtol=1e-6)
        np.testing.assert_allclose(found.detected, (chosen > 0).mean(0))
        np.testing.assert_allclose(found.normalized, (1e4 * chosen / depth).mean(0), rtol=1e-6)
        assert found.depth == chosen.sum()


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_squares_of_counts_that_are_small_integers_do_not_overflow(rng, dtype):
    counts = rng.integers(0, np.iinfo(dtype).max, (40, 6), endpoint=True)
    found = raw_means(sp.csr_matrix(counts.astype(dtype)), np.arange(40))
    expected = raw_means(sp.csr_matrix(counts.astype("float64")), np.arange(40))
    for name, of_floats in expected._asdict().items():
        np.testing.assert_allclose(getattr(found, name), of_floats)


@pytest.mark.parametrize("dispersion", [0.0, 2.0])
def test_sampling_variance_of_raw_means_is_that_of_repeated_draws(rng, dispersion):
    """Gamma-Poisson counts of 200 cells, drawn 2,000 times as features of their own."""
    mean = np.full((200, 2_000), 0.5)
    if dispersion > 0:
        mean *= rng.gamma(1 / dispersion, dispersion, mean.shape)
    counts = sp.csr_matrix(rng.poisson(mean).astype("float32"))
    found = raw_means(counts, np.arange(200))
    assert np.median(found.log_variance) == pytest.approx(np.log(found.mean).var(), rel=0.15)


@pytest.mark.parametrize("n_cells", [2, 3, 10])
def test_few_cells_that_are_alike_by_chance_are_no_more_certain(rng, n_cells):
    """Poisson counts, 20 a cell, 4,000 times."""
    counts = sp.csr_matrix(rng.poisson(20, (n_cells, 4_000)).astype("float32"))
    found = raw_means(counts, np.arange(n_cells))
    error = (np.log(found.mean) - np.log(20)) / np.sqrt(found.log_variance)
    within = stats.norm.cdf(2) - stats.norm.cdf(-2)
    # four standard errors of a share of 4,000
    assert (np.abs(error) < 2).mean() > within - 4 * np.sqrt(within * (1 - within) / 4_000)


def test_sampling_variance_of_many_cells_is_their_own_where_counts_vary_less_than_poisson(rng):
    """Peaks that are open or not, in half of 2,000 cells, 1,000 times."""
    counts = sp.csr_matrix(rng.integers(0, 2, (2_000, 1_000)).astype("float32"))
    found = raw_means(counts, np.arange(2_000))
    assert np.median(found.log_variance) == pytest.approx(np.log(found.mean).var(), rel=0.15)


def test_sampling_variance_of_a_feature_without_counts_is_finite():
    found = raw_means(sp.csr_matrix((5, 3), dtype="float32"), np.arange(5))
    np.testing.assert_array_equal(found.log_variance, 1)


def test_empty_cells_are_looked_for_among_the_asked_cells_alone(make_mdata, register):
    mdata = make_mdata(n_cells=40)
    counts = mdata["atac"].X.tolil()
    counts[[3, 17]] = 0
    mdata["atac"].X = counts.tocsr()
    with pytest.warns(UserWarning, match="no counts"):
        register(mdata)
    manager = SCMVPModel(mdata).adata_manager
    others = np.setdiff1d(np.arange(40), [3, 17])[::-1]
    assert not TrainingCounts.read(manager, others).lack("atac")
    assert TrainingCounts.read(manager, np.array([30, 17])).lack("atac")
    assert not TrainingCounts.read(manager, np.arange(40)).lack("rna")
