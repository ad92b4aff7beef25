"""Links of peaks to genes: planted ones are found, none where there are none, oracles."""

import re
import warnings

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData
from scipy import stats
from sklearn.metrics import roc_auc_score

from scmvp_scvi import tl
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi.datasets import synthetic

# most data here have few peaks: the null is hardly matched
pytestmark = pytest.mark.filterwarnings("ignore:`n_matched=100` peaks are matched:UserWarning")

WINDOW = {"window": 100_000}


@pytest.fixture(scope="module")
def links(planted) -> pd.DataFrame:
    return tl.peak_gene_links(planted, gc_key="gc", **WINDOW)


def log_normalized(counts: np.ndarray) -> np.ndarray:
    depth = counts.sum(1, keepdims=True, dtype=float)
    # in single precision, so that equal ratios are ties among ranks
    return np.log1p((counts * (np.median(depth) / depth)).astype(np.float32))


# -- what is found --------------------------------------------------------------------------------


def test_planted_links_score_above_decoys(links, is_planted):
    assert roc_auc_score(is_planted(links), links["score"].fillna(0)) > 0.9
    assert roc_auc_score(is_planted(links), links["z_score"].fillna(0)) > 0.9


def test_false_discoveries_keep_to_their_rate(links, is_planted):
    found = links["q_value"] <= 0.1
    assert (found & is_planted(links)).sum() >= 20
    assert (found & ~is_planted(links)).sum() <= 0.25 * found.sum()


def test_distances_are_those_that_were_planted(planted, links):
    pair = ["gene", "peak"]
    truth = planted.uns["truth"]["links"]
    both = truth.merge(links, on=pair, suffixes=("_planted", ""))
    assert len(both) == len(truth)
    assert (both["distance"] == both["distance_planted"]).all()


def test_p_values_are_uniform_where_no_link_is_planted(links, is_planted):
    decoys = links.loc[~is_planted(links), "p_value"].dropna()
    # p-values of one gene depend on one another: quantiles, not a test of independent draws
    np.testing.assert_allclose(
        decoys.quantile([0.05, 0.25, 0.5, 0.75, 0.95]), [0.05, 0.25, 0.5, 0.75, 0.95], atol=0.03
    )


def test_nothing_is_found_in_data_without_links():
    mdata = synthetic(n_cells=600, n_genes=200, n_peaks=1_000, linked_fraction=0.0)
    links = tl.peak_gene_links(mdata, alternative="two-sided", **WINDOW)
    assert (links["q_value"] <= 0.05).sum() <= 2
    assert links["p_value"].lt(0.05).mean() == pytest.approx(0.05, abs=0.015)


def test_peaks_without_counts_do_not_change_the_links_of_the_others(make_positioned, genes):
    # so few that each is matched with all of the other chromosome, and all are drawn
    peaks, empty = (
        [f"chr{i}:{start}-{start + 9}" for i in (1, 2) for start in range(first, 2_200, 100)]
        for first in (0, 50)
    )
    mdata = make_positioned(genes, [*peaks, *empty])
    mdata["atac"].X = mdata["atac"].X @ sp.diags(np.repeat([1, 0], 44), dtype="float32")
    alone = MuData({"rna": mdata["rna"].copy(), "atac": mdata["atac"][:, peaks].copy()})
    found = tl.peak_gene_links(mdata)
    assert found["score"].isna().sum() == 44
    found = found[found["peak"].isin(peaks)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, tl.peak_gene_links(alone))


@pytest.mark.parametrize(
    ("n_elsewhere", "n_matched", "way_out", "matched"),
    [
        (62, 20, None, ["accessibility"]),
        (62, 40, "Pass `n_matched=20`", ["accessibility"]),
        (62, 62, "Pass `n_matched=20`", []),
        (59, 20, "Lower `n_matched`", ["accessibility"]),
    ],
)
def test_few_peaks_on_other_chromosomes_are_warned_about(
    make_positioned, genes, n_elsewhere, n_matched, way_out, matched
):
    peaks = [f"chr1:{10 * i}-{10 * i + 9}" for i in range(70)]
    peaks += [f"chr{2 + i % 2}:{10 * i}-{10 * i + 9}" for i in range(n_elsewhere)]
    mdata = make_positioned(genes, peaks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        links = tl.peak_gene_links(mdata, n_matched=n_matched)
    assert links.attrs["matched_on"] == matched
    messages = [str(w.message) for w in caught if w.category is UserWarning]
    assert len(messages) == (way_out is not None)
    if way_out is not None:
        assert f"as few as {n_elsewhere} are on other chromosomes" in messages[0]
        assert way_out in messages[0]
        assert caught[-1].filename == __file__


def test_depth_makes_no_links_of_the_most_accessible_peaks(rng, make_positioned):
    genes = pd.DataFrame(
        {"chrom": np.repeat(["chr1", "chr2", "chr3"], 20), "tss": 0, "strand": "+"},
        index=[f"gene_{i}" for i in range(60)],
    )
    peaks = [f"chr{1 + i % 3}:{i}-{i + 1}" for i in range(6_000)]
    mdata = make_positioned(genes, peaks, n_cells=300)
    depth = np.exp(0.5 * rng.standard_normal((300, 1)))
    accessibility = 0.05 * np.exp(rng.standard_normal(6_000))
    mdata["rna"].X = rng.poisson(2 * depth * np.ones(60)).astype("float32")
    mdata["atac"].X = rng.poisson(depth * accessibility).astype("float32")
    links = tl.peak_gene_links(mdata, normalize=False, n_background=300, n_matched=30)
    top = mdata["atac"].var_names[np.argsort(-mdata["atac"].X.sum(axis=0))[:60]]
    below = links["p_value"] < 0.05
    # by an even draw of the background more than a quarter
    assert below[links["peak"].isin(top)].mean() < 0.1
    assert below.mean() == pytest.approx(0.05, abs=0.02)


# -- oracles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("block_size", [3, 1_000])
def test_scores_are_scipys(make_mdata, method, block_size):
    mdata = make_mdata(n_genes=12, n_peaks=90)
    links = tl.peak_gene_links(
        mdata, method=method, window=30_000, n_matched=0, block_size=block_size
    )
    rna, atac = (
        pd.DataFrame(log_normalized(mdata[key].X.toarray()), columns=mdata[key].var_names)
        for key in ("rna", "atac")
    )
    varies = links[links["score"].notna()]
    expected = [
        getattr(stats, f"{method}r")(rna[gene], atac[peak]).statistic
        for gene, peak in varies[["gene", "peak"]].itertuples(index=False)
    ]
    assert len(varies) > 20
    np.testing.assert_allclose(varies["score"], expected, atol=2e-5)


def test_q_values_are_statsmodels(links):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    tested = links.dropna(subset=["p_value"])
    expected = multitest.multipletests(tested["p_value"], method="fdr_bh")[1]
    np.testing.assert_allclose(tested["q_value"], expected)


@pytest.fixture(scope="module")
def shallow(planted) -> MuData:
    """Counts of which so few are left that many pairs have the same score."""
    rng = np.random.default_rng(0)
    thinned = {}
    for key, share in (("rna", 0.02), ("atac", 0.1)):
        adata = planted[key].copy()
        adata.X.data = rng.binomial(adata.X.data.astype(int), share).astype(np.float32)
        adata.X.eliminate_zeros()
        thinned[key] = adata
    with without_pulling():
        return MuData(thinned)


def test_links_depend_on_neither_blocks_nor_the_order_of_the_cells(shallow):
    links = tl.peak_gene_links(shallow, **WINDOW)
    assert links["p_value"].nunique() < 0.9 * links["p_value"].notna().sum()
    turned = shallow[::-1].copy()
    others = [tl.peak_gene_links(shallow, block_size=7, **WINDOW)]
    others.append(tl.peak_gene_links(turned, **WINDOW))
    for other in others:
        pd.testing.assert_frame_equal(other, links, check_exact=False, rtol=1e-9, atol=1e-9)


def test_same_seed_gives_the_same_table(planted, links):
    pd.testing.assert_frame_equal(tl.peak_gene_links(planted, gc_key="gc", **WINDOW), links)


def test_genes_are_in_their_order_and_peaks_from_left_to_right(planted, links):
    positions = planted["rna"].var_names.get_indexer(links["gene"])
    assert (np.diff(positions) >= 0).all()
    assert links.groupby("gene")["start"].is_monotonic_increasing.all()


# -- what is correlated ---------------------------------------------------------------------------


class Denoiser:
    """Stands for a model: notes how many features it is asked for, and returns given values."""

    def __init__(self, mdata: MuData) -> None:
        self.tables = {key: mdata[key].to_df() for key in ("rna", "atac")}
        self.asked: list[int] = []

    def get_normalized_expression(self, mdata, gene_list, library_size, return_numpy):
        return self._denoise("rna", gene_list)

    def get_normalized_accessibility(self, mdata, region_list, library_size, return_numpy):
        return self._denoise("atac", region_list)

    def _denoise(self, key: str, names: list[str]) -> np.ndarray:
        self.asked.append(len(names))
        return self.tables[key][names].to_numpy() + 1.0


def test_denoised_values_are_correlated_and_asked_for_in_blocks(make_mdata):
    mdata = make_mdata(n_genes=12, n_peaks=90)
    model = Denoiser(mdata)
    links = tl.peak_gene_links(mdata, model=model, window=30_000, n_matched=0, block_size=5)
    assert max(model.asked) == 5
    gene, peak, score = links.dropna(subset=["score"])[["gene", "peak", "score"]].iloc[3]
    values = [np.log1p(model._denoise(*of)[:, 0]) for of in (("rna", [gene]), ("atac", [peak]))]
    assert score == pytest.approx(stats.pearsonr(*values).statistic, abs=2e-5)


def test_links_of_a_trained_model_are_found(trained_model, mdata):
    links = tl.peak_gene_links(mdata, model=trained_model, **WINDOW)
    truth = set(map(tuple, mdata.uns["truth"]["links"][["gene", "peak"]].to_numpy()))
    is_planted = [pair in truth for pair in zip(links["gene"], links["peak"], strict=True)]
    assert roc_auc_score(is_planted, links["score"]) > 0.6


def test_groups_take_the_place_of_cells(make_mdata):
    mdata = make_mdata(n_genes=12, n_peaks=90)
    mdata.obs["group"] = [f"g{i % 30}" for i in range(300)]
    links = tl.peak_gene_links(mdata, groupby="group", window=30_000, n_matched=0)
    names = pd.Categorical(mdata.obs["group"])
    rna, atac = (
        pd.DataFrame(
            log_normalized(mdata[key].to_df().groupby(names, observed=True).sum().to_numpy()),
            columns=mdata[key].var_names,
        )
        for key in ("rna", "atac")
    )
    gene, peak, score = links.dropna(subset=["score"])[["gene", "peak", "score"]].iloc[0]
    assert score == pytest.approx(stats.pearsonr(rna[gene], atac[peak]).statistic, abs=2e-5)


@pytest.mark.parametrize("dense", [True, False])
def test_layers_are_taken_as_they_are_without_normalization(make_mdata, dense):
    mdata = make_mdata(n_genes=12, n_peaks=90)
    for key in ("rna", "atac"):
        values = mdata[key].X * 0.5
        mdata[key].layers["mine"] = values.toarray() if dense else values
    links = tl.peak_gene_links(
        mdata, normalize=False, rna_layer="mine", atac_layer="mine", window=30_000, n_matched=0
    )
    gene, peak, score = links.dropna(subset=["score"])[["gene", "peak", "score"]].iloc[0]
    expected = stats.pearsonr(mdata["rna"].to_df()[gene], mdata["atac"].to_df()[peak]).statistic
    assert score == pytest.approx(expected, abs=2e-5)


def test_cells_without_counts_in_a_modality_do_not_change_the_links(make_mdata):
    mdata = make_mdata(missing_rna=0.1, missing_atac=0.1)
    has_both = ~(mdata.obs["rna_missing"] | mdata.obs["atac_missing"]).to_numpy()
    paired = MuData({key: mdata[key][has_both].copy() for key in ("rna", "atac")})
    arguments = {"n_matched": 0, **WINDOW}
    pd.testing.assert_frame_equal(
        tl.peak_gene_links(mdata, **arguments), tl.peak_gene_links(paired, **arguments)
    )


def test_data_stay_as_they_are(make_mdata):
    mdata, before = make_mdata(), make_mdata()
    tl.peak_gene_links(mdata, gc_key="gc", method="spearman", **WINDOW)
    for key in ("rna", "atac"):
        assert (mdata[key].X != before[key].X).nnz == 0
        pd.testing.assert_frame_equal(mdata[key].var, before[key].var)


@pytest.mark.parametrize(
    ("arguments", "matched"),
    [
        ({}, ["accessibility"]),
        ({"gc_key": "gc"}, ["accessibility", "gc"]),
        ({"n_matched": 0}, []),
    ],
)
def test_table_says_what_the_null_matches(make_mdata, arguments, matched):
    assert tl.peak_gene_links(make_mdata(), **WINDOW, **arguments).attrs["matched_on"] == matched


def test_scores_without_null_have_no_p_values(make_mdata):
    links = tl.peak_gene_links(make_mdata(), n_matched=0, **WINDOW)
    assert links["score"].notna().any()
    assert links[["z_score", "p_value", "q_value"]].isna().all(axis=None)


def test_peak_that_does_not_vary_has_a_missing_score(make_positioned, genes):
    mdata = make_positioned(genes, ["chr1:900-1000", "chr1:1100-1200", "chr2:1-9"])
    mdata["atac"].X = mdata["atac"].X @ sp.diags([1, 0, 1], dtype="float32", format="csr")
    links = tl.peak_gene_links(mdata, n_matched=0)
    assert links["score"].isna().tolist() == [False, True, False, True]


def test_groups_of_constant_values_have_missing_scores_whatever_their_sizes(make_mdata):
    mdata = make_mdata()
    for adata in mdata.mod.values():
        adata.layers["same"] = np.full(adata.shape, 0.1)
    mdata.obs["group"] = (np.arange(mdata.n_obs) ** 0.7).astype(int).astype(str)
    arguments = {"normalize": False, "rna_layer": "same", "atac_layer": "same", "n_matched": 0}
    assert tl.peak_gene_links(mdata, groupby="group", **arguments)["score"].isna().all()


def test_null_is_that_of_the_values_whatever_the_form_of_the_matrix(make_mdata):
    # few counts in many cells: sums of peaks have ties, which rounding would break
    found = []
    for form in (sp.csr_matrix, sp.csc_matrix, sp.csr_matrix.toarray):
        mdata = make_mdata(n_cells=301, atac_depth=20)
        mdata["atac"].X = form(mdata["atac"].X)
        found.append(tl.peak_gene_links(mdata, n_background=100, n_matched=20)["p_value"])
    for p_value in found[1:]:
        pd.testing.assert_series_equal(p_value, found[0])


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("modality", ["rna", "atac"])
@pytest.mark.parametrize("arguments", [{"n_matched": 0}, {"groupby": "group"}, {}])
def test_values_that_are_not_finite_are_refused_and_the_way_out_fills_them(
    make_mdata, modality, form, arguments
):
    mdata = make_mdata()
    mdata.obs["group"] = [f"g{i % 30}" for i in range(mdata.n_obs)]
    values = mdata[modality].X.toarray()
    values[[5, 6, 7], 3] = np.nan, np.inf, -np.inf
    mdata[modality].layers["mine"] = form(values)
    arguments = {"normalize": False, f"{modality}_layer": "mine", **WINDOW, **arguments}
    name = mdata[modality].var_names[3]
    match = rf"`{modality}_layer`: .*mine\"\]` must .* but 3 are NaN or infinite, of `{name}`\. "
    with pytest.raises(ValueError, match=match) as error:
        tl.peak_gene_links(mdata, **arguments)
    (line,) = re.findall("`(values = [^`]*)`", str(error.value))
    exec(line, {"mdata": mdata, "numpy": np})
    assert tl.peak_gene_links(mdata, **arguments)["score"].notna().any()


def test_layer_without_accessibility_to_match_is_refused_with_a_way_out(make_mdata):
    mdata = make_mdata()
    mdata["atac"].layers["scaled"] = mdata["atac"].X.toarray() - 0.5
    mdata["atac"].layers["scaled"][:, 3] = -3
    arguments = {"normalize": False, "atac_layer": "scaled"}
    with pytest.raises(ValueError, match="peaks by their mean accessibility.*`n_matched=0`"):
        tl.peak_gene_links(mdata, **arguments)
    assert len(tl.peak_gene_links(mdata, n_matched=0, **arguments)) > 0


def test_reads_are_warned_about_and_fragments_in_a_layer_are_not(make_mdata):
    mdata = make_mdata()
    expected = tl.peak_gene_links(mdata, **WINDOW)
    mdata["atac"].layers["fragments"] = mdata["atac"].X
    mdata["atac"].X = 2 * mdata["atac"].X
    with pytest.warns(UserWarning, match="counts in `atac` look like reads.*reads_to_fragments"):
        tl.peak_gene_links(mdata, **WINDOW)
    found = tl.peak_gene_links(mdata, atac_layer="fragments", **WINDOW)
    pd.testing.assert_frame_equal(found, expected)


def test_reads_behind_denoised_values_are_not_warned_about(make_mdata):
    mdata = make_mdata()
    mdata["atac"].X = 2 * mdata["atac"].X
    tl.peak_gene_links(mdata, model=Denoiser(mdata), **WINDOW)  # warnings are errors


# -- what is refused ------------------------------------------------------------------------------


def test_unknown_gene_suggests_a_near_one(make_mdata):
    with pytest.raises(KeyError, match=r"`genes`: 1 of 1 names.*Did you mean `gene_1`"):
        tl.peak_gene_links(make_mdata(), genes=["Gene-1"])


def test_window_without_peaks_is_refused(make_positioned, genes):
    with pytest.raises(ValueError, match="`window=10` holds no peak around any of the 2 genes"):
        tl.peak_gene_links(make_positioned(genes, ["chr1:90000-90100"]), window=10)


def test_chromosomes_named_differently_are_refused(make_positioned, genes):
    mdata = make_positioned(genes.assign(chrom="1"), ["chr1:900-1000"])
    with pytest.raises(ValueError, match="spelled differently, `1` for `chr1`"):
        tl.peak_gene_links(mdata)


def test_few_cells_are_refused(make_positioned, genes):
    with pytest.raises(ValueError, match="at least 10 cells with both modalities, got "):
        tl.peak_gene_links(make_positioned(genes, ["chr1:900-1000"], n_cells=6))


def test_peaks_on_one_chromosome_say_how_to_go_without_null(make_positioned, genes):
    with pytest.raises(ValueError, match="`n_matched=0` to have scores without p-values"):
        tl.peak_gene_links(make_positioned(genes, ["chr1:900-1000"]))


@pytest.mark.parametrize("n_matched", [1, 19])
def test_a_null_of_too_few_peaks_is_refused(make_mdata, n_matched):
    with pytest.raises(ValueError, match="`n_matched` must be at least 20"):
        tl.peak_gene_links(make_mdata(), n_matched=n_matched)


def test_genes_without_position_are_left_out_with_a_warning(make_positioned, genes):
    mdata = make_positioned(genes.assign(tss=[1_000, np.nan]), ["chr1:900-1000"])
    with pytest.warns(UserWarning, match="1 of 2 genes have no position .*: `rev`"):
        links = tl.peak_gene_links(mdata, n_matched=0)
    assert links["gene"].unique().tolist() == ["fwd"]
    with pytest.raises(ValueError, match="but 1 have none: `rev`"):
        tl.peak_gene_links(mdata, genes=["rev"], n_matched=0)


def test_genes_asked_for_that_have_no_peak_near_are_left_out_with_a_warning(
    make_positioned, genes
):
    mdata = make_positioned(genes.assign(tss=[1_000, 90_000]), ["chr1:900-1000"])
    match = "`window=500` holds no peak around 1 of the 2 `genes`, which are left out: `rev`. Wide"
    with pytest.warns(UserWarning, match=match) as caught:
        links = tl.peak_gene_links(mdata, genes=["rev", "fwd"], window=500, n_matched=0)
    assert links["gene"].tolist() == ["fwd"]
    assert caught[-1].filename == __file__
    tl.peak_gene_links(mdata, window=500, n_matched=0)  # of all genes some have none


def test_unknown_gc_column_is_named(make_mdata):
    with pytest.raises(KeyError, match=r"`gc_key=.*Did you mean `gc`.*match accessibility alone"):
        tl.peak_gene_links(make_mdata(), gc_key="GC")


def test_gc_content_that_is_missing_or_text_is_refused_with_what_to_do_about_peaks(make_mdata):
    mdata = make_mdata()
    mdata["atac"].var.iloc[3, mdata["atac"].var.columns.get_loc("gc")] = np.nan
    with pytest.raises(ValueError, match="1 of 150 values .* or remove these peaks"):
        tl.peak_gene_links(mdata, gc_key="gc")
    match = r'`mdata\["atac"\].var\["chrom"\] = .*or leave `gc_key` out to match accessibility'
    with pytest.raises(TypeError, match=match):
        tl.peak_gene_links(mdata, gc_key="chrom")


def test_list_of_columns_to_group_by_is_refused(make_mdata):
    with pytest.raises(TypeError, match=r"`groupby` must name one column, got \['batch'"):
        tl.peak_gene_links(make_mdata(), groupby=["batch", "cell_type"])


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_normalized_values_are_not_taken_for_counts(make_mdata, modality):
    mdata = make_mdata()
    mdata[modality].X = mdata[modality].X.log1p()
    with pytest.raises(ValueError, match=f"`{modality}_layer`: .* must hold raw counts"):
        tl.peak_gene_links(mdata)


def test_other_objects_are_not_taken_for_a_model(make_mdata):
    with pytest.raises(TypeError, match="`model` must give denoised values.*str has no"):
        tl.peak_gene_links(make_mdata(), model="scvi")


def test_unknown_modality_is_named(make_mdata):
    with pytest.raises(KeyError, match=r"`rna_key=\"RNA\"` is not a modality.*`rna`"):
        tl.peak_gene_links(make_mdata(), rna_key="RNA")


def test_one_modality_for_both_is_refused(make_mdata):
    with pytest.raises(ValueError, match='must be different modalities, got "rna" for both'):
        tl.peak_gene_links(make_mdata(), atac_key="rna")


def test_matrices_on_disk_are_refused_with_the_way_to_read_them(make_mdata, tmp_path):
    make_mdata().write(tmp_path / "cells.h5mu")
    backed = mudata.read_h5mu(tmp_path / "cells.h5mu", backed="r")
    with pytest.raises(ValueError, match="`rna` must be in memory.*mudata.read_h5mu"):
        tl.peak_gene_links(backed)
    backed.file.close()


def test_views_have_the_links_of_their_copies(make_mdata):
    view = make_mdata()[::3]
    found, expected = (tl.peak_gene_links(mdata, n_matched=20) for mdata in (view, view.copy()))
    pd.testing.assert_frame_equal(found, expected)


def test_unpaired_cells_are_refused(make_mdata):
    mdata = make_mdata()
    with without_pulling():
        unpaired = MuData({"rna": mdata["rna"].copy(), "atac": mdata["atac"][::-1].copy()})
    with pytest.raises(ValueError, match="different orders"):
        tl.peak_gene_links(unpaired)
