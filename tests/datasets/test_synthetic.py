"""The generator keeps its promises: the planted truth is what the counts show."""

import tracemalloc
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from scmvp_scvi._mudata import without_pulling
from scmvp_scvi.datasets import _synthetic, synthetic

Floats = NDArray[np.float64]
MODALITIES = ("rna", "atac")


@pytest.fixture(scope="module")
def mdata() -> MuData:
    return synthetic()


def expected_counts(mdata: MuData, modality: str) -> Floats:
    """``(cells, features)``, the mean that the docstring states, from the stored truth."""
    varm = mdata[modality].varm
    types, batches = mdata.obs["cell_type"].cat.codes, mdata.obs["batch"].cat.codes
    shares = varm["type_profile"].T[types] * varm["batch_effect"].T[batches].astype(float)
    shares /= shares.sum(axis=1, keepdims=True)
    return mdata.obs[f"{modality}_depth"].to_numpy()[:, None] * shares


def dense(mdata: MuData, modality: str) -> Floats:
    return mdata[modality].X.toarray().astype(float)


def same_counts(one: MuData, other: MuData, modality: str) -> bool:
    return bool((one[modality].X != other[modality].X).nnz == 0)


def sum_by(groups: pd.Series, values: Floats) -> Floats:
    return pd.DataFrame(values).groupby(groups.to_numpy(), observed=True).sum().to_numpy()


def link_auroc(mdata: MuData, subtract_groups: list[str]) -> float:
    """How well correlation ranks the linked peaks of a gene above the others of its window."""
    links, genes, peaks = mdata.uns["truth"]["links"], mdata["rna"].var, mdata["atac"].var
    rates = {m: dense(mdata, m) / mdata.obs[[f"{m}_depth"]].to_numpy() for m in MODALITIES}
    if subtract_groups:
        keys = [mdata.obs[name].to_numpy() for name in subtract_groups]
        for modality, rate in rates.items():
            frame = pd.DataFrame(rate)
            rates[modality] = (frame - frame.groupby(keys, observed=True).transform("mean")).values
    midpoint, score, is_link = (peaks["start"] + peaks["end"]) // 2, [], []
    for gene, linked in links.groupby("gene")["peak"]:
        same_chrom = peaks["chrom"].astype(str) == genes["chrom"][gene]
        near = np.flatnonzero(same_chrom & ((midpoint - genes["tss"][gene]).abs() <= 100_000))
        near = near[rates["atac"][:, near].std(axis=0) > 0]
        activity = stats.zscore(rates["rna"][:, genes.index.get_loc(gene)])
        score.extend(activity @ stats.zscore(rates["atac"][:, near]))
        is_link.extend(peaks.index[near].isin(linked))
    return float(roc_auc_score(is_link, score))


def embed(mdata: MuData, modality: str) -> Floats:
    """``(cells, 15)``, principal components of RNA or latent semantic indexing of ATAC."""
    counts = dense(mdata, modality)
    depth = counts.sum(axis=1, keepdims=True)
    if modality == "rna":
        return PCA(15, random_state=0).fit_transform(np.log1p(counts / depth * np.median(depth)))
    inverse_frequency = np.log1p(len(counts) / (1 + (counts > 0).sum(axis=0)))
    tfidf = np.log1p(counts / depth * 1e4) * inverse_frequency
    return TruncatedSVD(16, random_state=0).fit_transform(tfidf)[:, 1:]


def clustering_ari(embedding: Floats, labels: pd.Series) -> float:
    clusters = KMeans(labels.nunique(), n_init=5, random_state=0).fit_predict(embedding)
    return float(adjusted_rand_score(labels, clusters))


# ---------------------------------------------------------------------------------------------
# Reproducibility


def test_same_seed_gives_the_same_bytes(mdata: MuData) -> None:
    again = synthetic()
    for modality in MODALITIES:
        for part in ("data", "indices", "indptr"):
            one, other = (getattr(m[modality].X, part) for m in (mdata, again))
            assert one.tobytes() == other.tobytes()
        assert_frame_equal(mdata[modality].var, again[modality].var)
    assert_frame_equal(mdata.obs, again.obs)


@pytest.mark.parametrize("modality", MODALITIES)
def test_another_seed_gives_other_counts(mdata: MuData, modality: str) -> None:
    assert not same_counts(mdata, synthetic(seed=1), modality)


def test_the_block_size_does_not_change_the_draws(
    mdata: MuData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_synthetic, "_BLOCK_ENTRIES", 70 * 500)
    in_blocks = synthetic()
    assert same_counts(mdata, in_blocks, "rna")
    assert same_counts(mdata, in_blocks, "atac")


def test_the_dispersion_of_rna_leaves_the_draws_of_atac_alone(mdata: MuData) -> None:
    other = synthetic(rna_dispersion=1.0)
    assert not same_counts(mdata, other, "rna")
    assert same_counts(mdata, other, "atac")


def test_emptying_some_cells_leaves_the_counts_of_the_others_alone(mdata: MuData) -> None:
    holed = synthetic(missing_rna=0.1, missing_atac=0.2)
    for modality in MODALITIES:
        missing = holed.obs[f"{modality}_missing"].to_numpy()
        assert (holed[modality].X[~missing] != mdata[modality].X[~missing]).nnz == 0


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002  the legacy state is the subject
    synthetic(n_cells=20)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# ---------------------------------------------------------------------------------------------
# Form


@pytest.mark.parametrize("modality", MODALITIES)
def test_counts_are_canonical_csr_of_whole_float32_numbers(mdata: MuData, modality: str) -> None:
    counts = mdata[modality].X
    assert counts.format == "csr"
    assert counts.dtype == np.float32
    assert counts.has_canonical_format
    assert (counts.data > 0).all()
    assert (counts.data % 1 == 0).all()


def test_obs_holds_the_listed_columns_and_nothing_else(mdata: MuData) -> None:
    depths = [f"{m}_{what}" for what in ("depth", "missing") for m in MODALITIES]
    assert mdata.obs.columns.tolist() == ["cell_type", "lineage", "batch", *depths]
    assert (mdata.obs.dtypes[["cell_type", "lineage", "batch"]] == "category").all()
    assert mdata.var.columns.empty


def test_a_written_file_reads_back_equal(mdata: MuData, tmp_path: Path) -> None:
    with without_pulling():
        mdata.write(tmp_path / "synthetic.h5mu")
        back = mudata.read_h5mu(tmp_path / "synthetic.h5mu")
    assert_frame_equal(back.obs, mdata.obs)
    assert_frame_equal(back.uns["truth"]["links"], mdata.uns["truth"]["links"])
    for modality in MODALITIES:
        assert same_counts(back, mdata, modality)
        assert_frame_equal(back[modality].var, mdata[modality].var)
        for name, truth in mdata[modality].varm.items():
            np.testing.assert_array_equal(back[modality].varm[name], truth)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_cells": 1, "n_genes": 1, "n_peaks": 1, "n_types": 1, "n_batches": 1},
        {"marker_fraction": 0.0},
        {"marker_fraction": 1.0, "linked_fraction": 1.0, "n_genes": 20, "n_peaks": 20},
        {"rna_depth": 0.0, "atac_depth": 0.0},
        {"n_types": 3, "n_lineages": 3, "window": 1},
    ],
    ids=["one of each", "no markers", "no unlinked peaks", "no counts", "lone types"],
)
def test_limits_of_the_arguments_still_give_data(arguments: dict[str, Any]) -> None:
    mdata = synthetic(**{"n_cells": 30, **arguments})
    assert mdata.n_obs == arguments.get("n_cells", 30)
    for modality in MODALITIES:
        totals = mdata[modality].varm["type_profile"].sum(axis=0)
        np.testing.assert_allclose(totals, 1, rtol=1e-5)


# ---------------------------------------------------------------------------------------------
# Cells


def test_types_are_of_unequal_size_and_never_empty() -> None:
    sizes = synthetic(n_cells=40, n_types=20).obs["cell_type"].value_counts()
    assert sizes.min() >= 1
    default = synthetic().obs["cell_type"].value_counts()
    assert default.max() > 2 * default.min()


def test_each_type_lies_in_one_lineage(mdata: MuData) -> None:
    table = pd.crosstab(mdata.obs["cell_type"], mdata.obs["lineage"])
    assert ((table > 0).sum(axis=1) == 1).all()
    assert ((table > 0).sum(axis=0) > 1).all()


def test_batch_is_independent_of_type_unless_confounded(mdata: MuData) -> None:
    confounded = synthetic(batch_confounding=1.0)
    tables = [pd.crosstab(m.obs["cell_type"], m.obs["batch"]) for m in (mdata, confounded)]
    assert stats.chi2_contingency(tables[0]).pvalue > 0.01
    assert ((tables[1] > 0).sum(axis=1) == 1).all()


@pytest.mark.parametrize(("modality", "depth"), [("rna", 150.0), ("atac", 60.0)])
def test_median_depth_is_near_the_one_asked(modality: str, depth: float) -> None:
    asked: dict[str, Any] = {f"{modality}_depth": depth}
    mdata = synthetic(n_cells=2_000, batch_strength=0, **asked)
    observed = dense(mdata, modality).sum(axis=1)
    # The standard error of a median of 2,000 such depths is about 1 %.
    assert np.median(observed) == pytest.approx(depth, rel=0.05)


@pytest.mark.parametrize(("modality", "low", "high"), [("rna", 0.1, 0.2), ("atac", 0.01, 0.03)])
@pytest.mark.parametrize("scale", [1, 4])
def test_sparsity_stays_in_its_range_at_any_size(
    modality: str, low: float, high: float, scale: int
) -> None:
    mdata = synthetic(n_cells=400, n_genes=500 * scale, n_peaks=2_000 * scale)
    counts = mdata[modality].X
    assert low < counts.nnz / np.prod(counts.shape) < high


def test_missing_modalities_are_empty_and_recorded() -> None:
    mdata = synthetic(missing_rna=0.1, missing_atac=0.2)
    for modality, n_missing in (("rna", 100), ("atac", 200)):
        missing = mdata.obs[f"{modality}_missing"]
        assert missing.sum() == n_missing
        assert mdata[modality].X[missing.to_numpy()].nnz == 0
        assert ((mdata.obs[f"{modality}_depth"] == 0) == missing).all()
    assert not (mdata.obs["rna_missing"] & mdata.obs["atac_missing"]).any()


def test_no_cell_lacks_both_modalities_when_every_cell_lacks_one() -> None:
    obs = synthetic(n_cells=15, missing_rna=0.5, missing_atac=0.5).obs
    assert (obs["rna_missing"] ^ obs["atac_missing"]).all()


# ---------------------------------------------------------------------------------------------
# Law of the counts


@pytest.mark.parametrize("modality", MODALITIES)
def test_group_sums_have_the_planted_mean(modality: str) -> None:
    mdata = synthetic(n_types=3, rna_dispersion=0, link_strength=0, seed=3)
    group = mdata.obs["cell_type"].astype(str) + mdata.obs["batch"].astype(str)
    expected = sum_by(group, expected_counts(mdata, modality))
    observed = sum_by(group, dense(mdata, modality))
    usable = expected > 5
    # Sums of independent Poisson counts are Poisson: no degree of freedom is lost.
    statistic = ((observed - expected) ** 2 / expected)[usable].sum()
    assert 0.001 < stats.chi2.sf(statistic, usable.sum()) < 0.999


def test_gene_sums_have_the_planted_mean_and_variance_with_all_noise(mdata: MuData) -> None:
    mean = expected_counts(mdata, "rna")
    linked = mdata["rna"].var_names.isin(mdata.uns["truth"]["links"]["gene"])
    second_moment = 1.2 * np.where(linked, np.exp(0.8**2), 1)
    variance = mean + mean**2 * (second_moment - 1)
    deviation = (dense(mdata, "rna") - mean).sum(axis=0) / np.sqrt(variance.sum(axis=0))
    assert np.abs(deviation.mean()) < 3 / np.sqrt(500)
    assert (deviation**2).mean() == pytest.approx(1, abs=0.2)


def test_linked_peak_sums_have_the_planted_mean_and_variance(mdata: MuData) -> None:
    links = mdata.uns["truth"]["links"]
    at = mdata["atac"].var_names.get_indexer(links["peak"])
    mean = expected_counts(mdata, "atac")[:, at]
    variance = mean + mean**2 * (np.exp((0.8 * links["effect"].to_numpy()) ** 2) - 1)
    deviation = (dense(mdata, "atac")[:, at] - mean).sum(axis=0) / np.sqrt(variance.sum(axis=0))
    assert np.abs(deviation.mean()) < 3 / np.sqrt(len(at))
    assert (deviation**2).mean() == pytest.approx(1, abs=0.4)


def test_counts_of_unlinked_peaks_spread_as_poisson(mdata: MuData) -> None:
    unlinked = ~mdata["atac"].var_names.isin(mdata.uns["truth"]["links"]["peak"])
    mean = expected_counts(mdata, "atac")[:, unlinked]
    squares = (dense(mdata, "atac")[:, unlinked] - mean) ** 2 / mean
    # A standardised Poisson square has mean 1 and variance 2 + 1 / mean.
    z = (squares - 1).sum() / np.sqrt((2 + 1 / mean).sum())
    assert abs(z) < 3


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("strength", "differs"), [(0.0, False), (0.3, True)])
def test_batches_differ_only_when_asked_to(modality: str, strength: float, differs: bool) -> None:
    mdata = synthetic(n_types=1, batch_strength=strength, link_strength=0, rna_dispersion=0)
    table = sum_by(mdata.obs["batch"], dense(mdata, modality))
    p_value = stats.chi2_contingency(table[:, (table > 5).all(axis=0)]).pvalue
    assert p_value < 1e-10 if differs else p_value > 0.001


@pytest.mark.parametrize("modality", MODALITIES)
def test_batch_effects_have_the_strength_asked_and_cancel(modality: str) -> None:
    log_effect = np.log(synthetic(n_batches=4, batch_strength=0.3)[modality].varm["batch_effect"])
    np.testing.assert_allclose(log_effect.mean(axis=1), 0, atol=1e-6)
    assert log_effect.std() == pytest.approx(0.3, rel=0.1)


# ---------------------------------------------------------------------------------------------
# Markers, and what they make of the types


@pytest.mark.parametrize("modality", MODALITIES)
def test_markers_have_their_highest_share_in_what_they_mark(mdata: MuData, modality: str) -> None:
    names = mdata.obs[["cell_type", "lineage"]].astype(str).drop_duplicates()
    lineage_of = names.set_index("cell_type")["lineage"]
    types = mdata.obs["cell_type"].cat.categories
    top = types[mdata[modality].varm["type_profile"].argmax(axis=1)]
    marker_of = mdata[modality].var["marker_of"].astype(str).to_numpy()
    correct = (marker_of == top) | (marker_of == lineage_of[top].to_numpy())
    assert correct[marker_of != ""].all()


def test_type_markers_have_their_highest_mean_count_in_their_type(mdata: MuData) -> None:
    marker_of = mdata["rna"].var["marker_of"].astype(str)
    abundant = marker_of.str.startswith("type") & (mdata["rna"].var["baseline"] > 1 / 500)
    totals = sum_by(mdata.obs["cell_type"], dense(mdata, "rna"))
    totals = totals / sum_by(mdata.obs["cell_type"], mdata.obs[["rna_depth"]].to_numpy())
    top = mdata.obs["cell_type"].cat.categories[totals.argmax(axis=0)]
    assert (top == marker_of)[abundant].mean() > 0.95


def test_most_features_mark_nothing_and_have_heavy_tailed_means(mdata: MuData) -> None:
    for modality in MODALITIES:
        var = mdata[modality].var
        assert (var["marker_of"] == "").mean() > 0.7
        assert var["baseline"].quantile(0.99) > 20 * var["baseline"].quantile(0.05)


def test_rna_separates_types_well_but_not_trivially(mdata: MuData) -> None:
    assert 0.6 < clustering_ari(embed(mdata, "rna"), mdata.obs["cell_type"]) < 0.98


def test_atac_is_informative_but_less_than_rna(mdata: MuData) -> None:
    scores = [clustering_ari(embed(mdata, m), mdata.obs["cell_type"]) for m in MODALITIES]
    assert 0.2 < scores[1] < scores[0]


@pytest.mark.parametrize("modality", MODALITIES)
def test_lineages_are_easier_to_find_than_types(mdata: MuData, modality: str) -> None:
    embedding = embed(mdata, modality)
    lineage, cell_type = (
        clustering_ari(embedding, mdata.obs[k]) for k in ("lineage", "cell_type")
    )
    assert lineage > max(0.8, cell_type)


# ---------------------------------------------------------------------------------------------
# Coordinates and links


def test_peaks_are_sorted_disjoint_and_named_by_their_coordinates(mdata: MuData) -> None:
    peaks = mdata["atac"].var
    names = [f"{c}:{s}-{e}" for c, s, e in zip(peaks.chrom, peaks.start, peaks.end, strict=True)]
    assert peaks.index.tolist() == names
    assert (peaks["end"] - peaks["start"]).between(450, 550).all()
    for _, chrom in peaks.groupby("chrom", observed=True):
        assert (chrom["start"].to_numpy()[1:] > chrom["end"].to_numpy()[:-1]).all()


def test_link_distances_are_signed_downstream_of_the_tss_and_within_the_window() -> None:
    mdata = synthetic(window=50_000)
    links = mdata.uns["truth"]["links"]
    genes, peaks = mdata["rna"].var.loc[links["gene"]], mdata["atac"].var.loc[links["peak"]]
    assert (genes["chrom"].to_numpy() == peaks["chrom"].to_numpy()).all()
    offset = ((peaks["start"] + peaks["end"]) // 2).to_numpy() - genes["tss"].to_numpy()
    distance = np.where(genes["strand"] == "-", -offset, offset)
    np.testing.assert_array_equal(links["distance"], distance)
    assert links["distance"].abs().max() <= 50_000
    assert genes["tss"].min() >= 0


def test_links_belong_to_marker_genes_and_a_peak_has_one_at_most(mdata: MuData) -> None:
    links = mdata.uns["truth"]["links"]
    gene_owner = mdata["rna"].var["marker_of"][links["gene"]].astype(str).to_numpy()
    peak_owner = mdata["atac"].var["marker_of"][links["peak"]].astype(str).to_numpy()
    assert links["gene"].nunique() == 80
    assert links["peak"].is_unique
    assert links["gene"].value_counts().max() == 2
    assert (gene_owner == peak_owner).all()
    assert (gene_owner != "").all()


def test_log_accessibility_of_a_linked_peak_is_the_effect_times_that_of_its_gene(
    mdata: MuData,
) -> None:
    links = mdata.uns["truth"]["links"]
    gene, peak = (
        np.log(mdata[m].varm["type_profile"][mdata[m].var_names.get_indexer(links[name])])
        for m, name in (("rna", "gene"), ("atac", "peak"))
    )
    residual = peak - links[["effect"]].to_numpy() * gene
    residual -= residual.mean(axis=1, keepdims=True)
    # What the normalisers of the two profiles leave is linear in the effect, for each type.
    design = np.column_stack([np.ones(len(links)), links["effect"]])
    fitted = design @ np.linalg.lstsq(design, residual)[0]
    np.testing.assert_allclose(fitted, residual, atol=1e-4)


def test_linked_peaks_follow_their_gene_more_than_decoys_across_cells(mdata: MuData) -> None:
    assert link_auroc(mdata, subtract_groups=[]) > 0.8


def test_linked_peaks_follow_their_gene_more_than_decoys_within_types(mdata: MuData) -> None:
    assert link_auroc(mdata, subtract_groups=["cell_type", "batch"]) > 0.75


def test_links_vanish_within_types_at_zero_strength() -> None:
    mdata = synthetic(link_strength=0)
    assert link_auroc(mdata, subtract_groups=["cell_type", "batch"]) < 0.6


def test_gc_content_rises_with_accessibility(mdata: MuData) -> None:
    peaks = mdata["atac"].var
    assert peaks["gc"].between(0.2, 0.8).all()
    assert stats.pearsonr(peaks["gc"], np.log(peaks["baseline"])).statistic == pytest.approx(
        0.5, abs=0.08
    )


# ---------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_cells": 0}, "`n_cells` must be at least 1, got 0"),
        ({"window": 0}, "`window` must be at least 1, got 0"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"n_types": 11}, "`n_types` must be at most `n_cells`, 10, got 11"),
        ({"n_batches": 11}, "`n_batches` must be at most `n_cells`, 10, got 11"),
        ({"n_lineages": 9}, "`n_lineages` must be at most `n_types`, 8, got 9"),
        ({"n_peaks": 50}, "`n_peaks` must be at least the number of linked genes, 80, got 50"),
        ({"link_strength": -1.0}, "`link_strength` must be at least 0 and finite, got -1"),
        ({"rna_depth": np.nan}, "`rna_depth` must be at least 0 and finite, got nan"),
        ({"marker_fraction": 1.5}, "`marker_fraction` must be at least 0 and at most 1, got 1.5"),
        ({"missing_rna": 0.6, "missing_atac": 0.5}, r"must be at most 1, .* got 0.6 \+ 0.5"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic(**{"n_cells": 10, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_cells": 10.5}, r"`n_cells` must be an integer, got 10\.5"),
        ({"n_types": "4"}, r"`n_types` must be an integer, got '4' \(str\)"),
        ({"n_lineages": True}, r"`n_lineages` must be an integer, got True \(bool\)"),
        ({"seed": 1.5}, r"`seed` must be an integer, got 1\.5 \(float\)"),
        ({"seed": None}, r"`seed` must be an integer, got None"),
        ({"link_strength": "0.8"}, r"`link_strength` must be a number, got '0\.8' \(str\)"),
        ({"missing_rna": None}, "`missing_rna` must be a number, got None"),
    ],
)
def test_arguments_of_another_type_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        synthetic(**arguments)


# ---------------------------------------------------------------------------------------------
# Size


@pytest.mark.slow
def test_twenty_thousand_cells_by_two_hundred_thousand_peaks_stay_under_three_gigabytes() -> None:
    tracemalloc.start()
    mdata = synthetic(20_000, 2_000, 200_000, n_types=20, n_batches=4)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mdata["atac"].shape == (20_000, 200_000)
    assert peak_bytes < 3e9
