"""Differences between groups of cells: planted ones are found, chance is not tagged."""

import copy
import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from mudata import MuData
from scipy.stats import binom
from scvi.model.base import DifferentialComputation

from scmvp_scvi import SCMVPModel, _bayes_factors, _differential
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi.nn._calibration import CalibrationFit

N_GENES, N_PEAKS, N_TYPES = 120, 400, 4
DELTA, FDR = 0.25, 0.05


pytestmark = pytest.mark.usefixtures("same_draws")


@pytest.fixture(scope="module")
def planted(make_mdata, register) -> MuData:
    size = {"n_cells": 520, "n_genes": N_GENES, "n_peaks": N_PEAKS, "n_types": N_TYPES}
    return register(make_mdata(**size, atac_depth=200), batch_key="batch")


@pytest.fixture(scope="module")
def model(planted, train) -> SCMVPModel:
    # with 80 epochs some seeds find the types' genes and others do not
    return train(planted, max_epochs=200, batch_size=64)


@pytest.fixture(scope="module", params=["rna", "atac"])
def modality(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def compare(model, modality):
    """The method of the modality, its columns in the words of expression."""

    def compare(**arguments) -> pd.DataFrame:
        if modality == "rna":
            return model.differential_expression(**{"silent": True, **arguments})
        found = model.differential_accessibility(**{"silent": True, **arguments})
        return found.rename(columns={"prob_da": "proba_de", "is_da_fdr": f"is_de_fdr_{FDR}"})

    return compare


@pytest.fixture(scope="module")
def of_types(compare) -> pd.DataFrame:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return compare(groupby="cell_type")


@pytest.fixture(scope="module")
def planted_change(planted, modality) -> pd.DataFrame:
    """``(features, types)``, planted log2 fold change of each type over all other cells."""
    types = planted.obs["cell_type"].cat
    profile = planted[modality].varm["type_profile"]
    sizes = np.bincount(types.codes)
    rest = (profile @ sizes)[:, None] - profile * sizes
    change = np.log2(profile / (rest / (sizes.sum() - sizes)))
    return pd.DataFrame(change, index=planted[modality].var_names, columns=types.categories)


# -- what is found --------------------------------------------------------------------------------


def test_batches_that_groups_share_in_part_are_warned_of_once(compare):
    batches = {"batch_correction": True, "batchid1": ["batch_0"]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compare(groupby="cell_type", n_samples_overall=50, **batches)
        compare(groupby="cell_type", n_samples_overall=50, batchid2=["batch_0"], **batches)
    [told] = [w for w in caught if "atch" in str(w.message)]
    assert str(told.message).startswith("`batchid1` and `batchid2` share `batch_0` and are not")
    assert told.filename == __file__


def test_planted_markers_of_a_type_come_first(of_types, planted, modality):
    marks = planted[modality].var["marker_of"]
    first = {
        name: marks[found.index[: (marks == name).sum() // 2]].str.startswith((name, "lineage"))
        for name, found in of_types[of_types["lfc_mean"] > 0].groupby("group1")
    }
    assert pd.concat(first).mean() > 0.8


def test_fold_changes_follow_the_planted_ones(of_types, planted_change):
    for name, found in of_types.groupby("group1"):
        correlation = np.corrcoef(found["lfc_mean"], planted_change.loc[found.index, name])[0, 1]
        assert correlation > 0.8


def test_share_of_false_tags_is_within_the_target(of_types, planted_change):
    tagged = of_types[of_types[f"is_de_fdr_{FDR}"]]
    truth = np.array([planted_change.at[f, t] for f, t in tagged["group1"].items()])
    false = (np.abs(truth) < DELTA) | (np.sign(truth) != np.sign(tagged["lfc_mean"]))
    assert len(tagged) >= 15
    assert false.sum() <= binom.ppf(0.99, len(tagged), FDR)


@pytest.mark.parametrize("batch_correction", [False, True])
def test_share_of_false_tags_is_within_the_target_where_types_are_compared_in_pairs(
    compare, planted, modality, batch_correction
):
    """It is not by scvi-tools' rule, as many tags as keep the mean of 1 - p within the target."""
    types = planted.obs["cell_type"].cat.categories
    profile = planted[modality].varm["type_profile"].astype(float)
    share = pd.DataFrame(profile, planted[modality].var_names, types)
    false_of = {"own": [], "mean": []}
    for name, other in itertools.combinations(types, 2):
        found = compare(
            groupby="cell_type", group1=name, group2=other, batch_correction=batch_correction
        )
        truth = np.log2(share[name] / share[other])[found.index]
        is_false = (truth.abs() < DELTA) | (np.sign(truth) != np.sign(found["lfc_mean"]))
        mean = (1 - found["proba_de"]).cumsum() / np.arange(1, len(found) + 1)
        false_of["own"].append(is_false[found[f"is_de_fdr_{FDR}"]])
        false_of["mean"].append(is_false[mean <= FDR])
    own, by_mean = (pd.concat(parts) for parts in false_of.values())
    assert len(own) >= 60
    assert own.sum() <= binom.ppf(0.99, len(own), FDR)
    assert by_mean.sum() > binom.ppf(0.99, len(by_mean), FDR)


def test_all_features_and_no_others_are_tagged_that_are_as_probable_as_the_target_asks(compare):
    for target in (0.05, 0.2):
        found = compare(groupby="cell_type", group1="type_0", fdr_target=target)
        [tag] = [name for name in found if name.startswith("is_de_fdr")]
        tagged, others = (
            found["proba_de"][found[tag] == is_tagged] for is_tagged in (True, False)
        )
        assert tagged.min() >= 1 - target > others.max()


def test_nothing_is_tagged_where_labels_are_permuted(compare, planted, rng):
    permuted = rng.permutation(planted.obs["cell_type"])
    for name in planted.obs["cell_type"].cat.categories:
        found = compare(idx1=permuted == name)
        assert not found[f"is_de_fdr_{FDR}"].any()


def test_every_group_has_every_feature_once(of_types, planted, modality):
    for name, found in of_types.groupby("group1"):
        assert sorted(found.index) == sorted(planted[modality].var_names)
        assert set(found["comparison"]) == {f"{name} vs Rest"}
    assert of_types["group1"].nunique() == N_TYPES


def test_features_are_sorted_by_their_probability(of_types):
    for _, found in of_types.groupby("group1"):
        assert found["proba_de"].is_monotonic_decreasing


# -- against scvi-tools ---------------------------------------------------------------------------


def by_scvi_tools(model, modality, mask, **options) -> pd.DataFrame:
    """Statistics of scvi-tools on draws of all features at once, decoded cell by cell."""
    methods = {
        "rna": model.get_normalized_expression,
        "atac": model.get_normalized_accessibility,
    }

    def draw(adata, indices, transform_batch, n_samples_overall):
        rows = np.random.default_rng(1).choice(indices, n_samples_overall)
        return methods[modality](
            indices=rows, transform_batch=transform_batch, n_samples=1, return_numpy=True
        )

    computation = DifferentialComputation(draw, None, model.adata_manager)
    statistics = computation.get_bayes_factors(mask, ~mask, n_samples_overall=2_000, **options)
    return pd.DataFrame(statistics, index=model.adata[modality].var_names)


@pytest.mark.parametrize("batch_correction", [False, True])
def test_vanilla_probabilities_are_those_of_scvi_tools(
    model, modality, compare, planted, batch_correction
):
    mask = (planted.obs["cell_type"] == "type_1").to_numpy()
    expected = by_scvi_tools(
        model,
        modality,
        mask,
        mode="vanilla",
        use_observed_batches=not batch_correction,
    )
    found = compare(idx1=mask, mode="vanilla", batch_correction=batch_correction).loc[
        expected.index
    ]
    first = "proba_m1" if modality == "rna" else "proba_de"
    # five standard errors of the difference of two means of 2,000 draws
    np.testing.assert_allclose(found[first], expected["proba_m1"], atol=5 * np.sqrt(0.5 / 2_000))


def test_fold_changes_are_those_of_scvi_tools_where_counts_are_certain(
    model, modality, compare, planted, monkeypatch
):
    monkeypatch.setattr(_differential, "raw_means", lambda *args: certain(_raw_means(*args)))
    mask = (planted.obs["cell_type"] == "type_1").to_numpy()
    options = {"mode": "change", "delta": 0.5, "pseudocounts": 1e-5}
    expected = by_scvi_tools(model, modality, mask, use_observed_batches=True, **options)
    found = compare(idx1=mask, **options).loc[expected.index]
    np.testing.assert_allclose(found["proba_de"], expected["proba_de"], atol=0.08)
    np.testing.assert_allclose(found["lfc_mean"], expected["lfc_mean"], atol=0.3)


_raw_means = _differential.raw_means


def certain(raw):
    return raw._replace(log_variance=np.zeros_like(raw.log_variance))


def test_blocks_of_features_do_not_change_the_statistics(compare, planted, monkeypatch):
    tables = []
    for entries in (2_000_000, 50_000):
        monkeypatch.setattr(_bayes_factors, "_ENTRIES_PER_BLOCK", entries)
        torch.manual_seed(0)
        tables.append(compare(groupby="cell_type", group1="type_0", mode="vanilla"))
    pd.testing.assert_frame_equal(*(t.sort_index() for t in tables), rtol=1e-4, atol=1e-3)


# -- cells without the modality -------------------------------------------------------------------


@pytest.fixture
def lacking(planted) -> np.ndarray:
    """Rows of 60 cells that are to have no counts of the modality, but for the first."""
    return np.flatnonzero(planted.obs["cell_type"] == "type_1")[:60]


@pytest.fixture
def in_part(planted, modality, lacking) -> MuData:
    """The cells, some without counts of the modality."""
    new = planted.copy()
    keep = np.ones(new.n_obs, dtype=np.float32)
    keep[lacking[1:]] = 0
    new[modality].X = (sp.diags(keep) @ new[modality].X).tocsr()
    return new


@pytest.fixture
def calibrate(model, modality, monkeypatch):
    """Return a function that calibrates the channel that the modality is predicted from."""
    monkeypatch.setattr(model, "module", copy.deepcopy(model.module))
    calibration = model.module.calibrations[{"rna": "atac", "atac": "rna"}[modality]]

    def calibrate(slope: float, scale: float) -> None:
        zeros = np.zeros(model.module.prior.means.shape[1])
        calibration.copy_fit(CalibrationFit(slope, zeros, zeros, scale))

    return calibrate


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_scales_of_cells_without_the_modality_are_the_profiles_that_are_predicted(
    model, modality, compare, in_part, lacking, calibrate
):
    predict = {
        "rna": model.get_normalized_expression,
        "atac": model.get_normalized_accessibility,
    }[modality]
    scale1, means, errors = {}, {}, {}
    for slope, scale in ((1.0, 1.0), (0.3, 1.5)):
        calibrate(slope, scale)
        draws = predict(in_part, lacking, n_samples=20, return_mean=False, return_numpy=True)
        means[slope] = draws.mean((0, 1))
        # of a mean of 2,000 draws beside one of 20 draws of each cell
        errors[slope] = np.sqrt(draws.var((0, 1)) * (1 / 2_000 + 1 / (20 * len(lacking))))
        found = compare(adata=in_part, idx1=lacking).loc[in_part[modality].var_names]
        scale1[slope] = found["scale1" if modality == "rna" else "est_prob1"].to_numpy()
        assert (np.abs(scale1[slope] - means[slope]) < 5 * errors[slope]).all()
    assert (np.abs(scale1[0.3] - means[1.0]) > 5 * errors[0.3]).mean() > 0.3


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_outliers_among_cells_without_the_modality_are_those_of_the_embedding(
    model, compare, in_part, lacking, calibrate, monkeypatch
):
    seen = []

    def recorded(self, rows):
        seen.append((rows, self.representation_fn(None, rows)))
        return rows

    monkeypatch.setattr(DifferentialComputation, "filter_outlier_cells", recorded)
    calibrate(0.3, 1.5)
    compare(adata=in_part, idx1=lacking, filter_outlier_cells=True)
    latent = model.get_latent_representation(in_part)
    assert len(seen) == 2
    for rows, means in seen:
        np.testing.assert_allclose(means, latent[rows], atol=1e-5)


# -- statistics of the raw counts -----------------------------------------------------------------


def test_raw_statistics_are_means_of_the_counts_of_each_group(model, planted):
    counts = planted["rna"].X.toarray()
    mask = (planted.obs["cell_type"] == "type_2").to_numpy()
    found = model.differential_expression(idx1=mask, silent=True).loc[planted["rna"].var_names]
    shares = counts / counts.sum(1, keepdims=True)
    for rows, suffix in ((mask, 1), (~mask, 2)):
        for name, values in (
            (f"raw_mean{suffix}", counts),
            (f"non_zeros_proportion{suffix}", counts > 0),
            (f"raw_normalized_mean{suffix}", 1e4 * shares),
        ):
            np.testing.assert_allclose(found[name], values[rows].mean(0), rtol=1e-5)


def test_accessibility_is_in_the_columns_of_multivi(model, planted):
    mask = (planted.obs["cell_type"] == "type_2").to_numpy()
    found = model.differential_accessibility(idx1=mask, silent=True)
    found = found.loc[planted["atac"].var_names]
    detected = planted["atac"].X.toarray() > 0
    np.testing.assert_allclose(found["emp_prob1"], detected[mask].mean(0))
    np.testing.assert_allclose(
        found["emp_effect"], detected[~mask].mean(0) - detected[mask].mean(0), atol=1e-12
    )
    np.testing.assert_allclose(found["effect_size"], found["est_prob2"] - found["est_prob1"])
    assert {"prob_da", "is_da_fdr", "bayes_factor"} <= set(found.columns)


def test_raw_statistics_may_be_left_out(compare):
    found = compare(groupby="batch", all_stats=False)
    assert not any(name.startswith(("raw_", "emp_")) for name in found.columns)


# -- options --------------------------------------------------------------------------------------


def test_groups_may_be_rows_masks_or_queries(compare, planted):
    mask = (planted.obs["cell_type"] == "type_0").to_numpy()
    tables = []
    for cells in (mask, np.flatnonzero(mask), 'cell_type == "type_0"'):
        torch.manual_seed(0)
        tables.append(compare(idx1=cells))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_groups_that_are_named_twice_are_refused(compare):
    with pytest.raises(ValueError, match="`group1` must name each group once, got `type_0` again"):
        compare(groupby="cell_type", group1=["type_0", "type_1", "type_0"])


def test_batches_to_decode_in_are_those_that_are_named(model, planted):
    mask = (planted.obs["cell_type"] == "type_0").to_numpy()
    first, second = planted.obs["batch"].cat.categories
    found = model.differential_expression(
        idx1=mask, batch_correction=True, batchid1=[first], batchid2=[second], silent=True
    ).loc[planted["rna"].var_names]
    for rows, batch, column in ((mask, first, "scale1"), (~mask, second, "scale2")):
        expected = model.get_normalized_expression(
            indices=rows, transform_batch=batch, n_samples=5, return_numpy=True
        ).mean(0)
        assert np.corrcoef(found[column], expected)[0, 1] > 0.999


def test_batches_to_decode_in_without_batch_correction_are_refused(compare, planted):
    with pytest.raises(ValueError, match="`batchid1` names .* pass `batch_correction=True`"):
        compare(groupby="batch", batchid1=["batch_0"])


def test_batch_to_decode_in_that_does_not_exist_is_refused_by_its_argument(compare):
    with pytest.raises(ValueError, match="`batchid2` must be one of 'batch_0', 'batch_1'"):
        compare(groupby="batch", batch_correction=True, batchid2=["zz"])
    for batch in ("batch_0", 0):
        with pytest.raises(
            TypeError, match=rf"`batchid1` must be a list.* got {batch!r}: \[{batch!r}\]"
        ):
            compare(groupby="batch", batch_correction=True, batchid1=batch)


def test_groups_may_be_decoded_in_numbers_of_batches_that_do_not_divide_the_draws(
    make_mdata, register, train
):
    mdata = register(make_mdata(n_batches=3), batch_key="batch")
    model = train(mdata, max_epochs=2)
    with pytest.warns(UserWarning, match="share `batch_0`, `batch_1` and are not the same"):
        found = model.differential_expression(
            groupby="batch",
            group1="batch_0",
            batch_correction=True,
            batchid1=["batch_0", "batch_1"],
            n_samples_overall=200,
            silent=True,
        )
    assert np.isfinite(found["lfc_mean"]).all()


@pytest.mark.parametrize(
    ("batches", "n_batches", "expected"),
    [
        ((None, None), 3, 1998),
        ((["a"], None), 3, 1998),
        ((["a", "b"], list("abcde")), 7, 2000),
        ((None, list("abc")), 1500, 3000 - 1500),
    ],
)
def test_draws_are_a_multiple_of_the_batches_of_either_group(batches, n_batches, expected):
    how = SimpleNamespace(
        batch_correction=True, batchid1=batches[0], batchid2=batches[1], n_samples_overall=2_000
    )
    assert _bayes_factors._n_draws(how, n_batches) == expected


def test_any_difference_may_count(compare):
    """With a threshold of zero one of the two directions has at least half of the draws."""
    found = compare(groupby="batch", delta=0)
    assert (found["proba_de"] >= 0.5).all()


@pytest.mark.parametrize("kind", [list, np.array])
def test_higher_credible_levels_are_wider_and_hold_the_median(compare, kind):
    found = compare(groupby="batch", group1="batch_0", cred_interval_lvls=kind([0.5, 0.9]))
    low, high = (found[f"lfc_confidence_interval_0.9_{end}"] for end in ("min", "max"))
    assert ((low < found["lfc_median"]) & (found["lfc_median"] < high)).all()
    narrow = found["lfc_confidence_interval_0.5_max"] - found["lfc_confidence_interval_0.5_min"]
    assert (narrow < high - low).all()


def test_pseudocount_is_by_default_one_count_of_the_group_of_lower_depth(
    compare, planted, modality
):
    counts = planted[modality].X
    is_first = (planted.obs["cell_type"] == "type_0").to_numpy()
    depths = [counts[rows].sum() for rows in (is_first, ~is_first)]
    tables = []
    for pseudocounts in (None, 1 / min(depths)):
        torch.manual_seed(0)
        tables.append(compare(groupby="cell_type", group1="type_0", pseudocounts=pseudocounts))
    by_default, of_one_count = (table.sort_index() for table in tables)
    pd.testing.assert_frame_equal(by_default, of_one_count, rtol=1e-3, check_dtype=False)


def test_features_that_are_as_sure_to_differ_are_sorted_by_how_much(compare):
    table = compare(groupby="cell_type", group1="type_0", n_samples_overall=100)
    changes = table["lfc_median"].abs()
    ties = (table["proba_de"].diff() == 0).to_numpy()
    assert ties.sum() > 5
    assert (changes.diff()[ties] <= 1e-6).all()


def test_more_pseudocounts_leave_fewer_differences(compare):
    few, many = (
        compare(groupby="cell_type", group1="type_0", pseudocounts=offset)["proba_de"].mean()
        for offset in (1e-6, 1e-2)
    )
    assert many < few


def test_cells_that_scvi_tools_calls_outliers_are_left_out_if_asked_for(
    compare, planted, monkeypatch
):
    monkeypatch.setattr(DifferentialComputation, "filter_outlier_cells", lambda _, rows: rows[:20])
    decode, sizes = _bayes_factors.DenoisedDraws._decode, set()

    def counted(self, rows, *args):
        sizes.add(len(rows))
        return decode(self, rows, *args)

    monkeypatch.setattr(_bayes_factors.DenoisedDraws, "_decode", counted)
    asked = {"groupby": "cell_type", "group1": "type_0"}
    found = compare(**asked, filter_outlier_cells=True)
    assert sizes == {20}
    rows1, rows2 = (
        np.flatnonzero(side)[:20]
        for is_first in [(planted.obs["cell_type"] == "type_0").to_numpy()]
        for side in (is_first, ~is_first)
    )
    of_these = compare(idx1=rows1, idx2=rows2)
    of_counts = [name for name in found if name.startswith(("raw", "non_zeros", "emp"))]
    assert len(of_counts) >= 3
    pd.testing.assert_frame_equal(
        found[of_counts].sort_index(), of_these[of_counts].sort_index(), rtol=1e-5
    )


def test_outliers_are_those_of_the_posterior_means(model, compare, planted, monkeypatch):
    filtered, seen = DifferentialComputation.filter_outlier_cells, []

    def recorded(self, rows):
        seen.append((rows, self.representation_fn(None, rows), filtered(self, rows)))
        return seen[-1][2]

    monkeypatch.setattr(DifferentialComputation, "filter_outlier_cells", recorded)
    compare(groupby="cell_type", group1="type_0", filter_outlier_cells=True)
    assert len(seen) == 2
    latent = model.get_latent_representation()
    for rows, means, kept in seen:
        np.testing.assert_allclose(means, latent[rows], atol=1e-5)
        assert 0.8 < len(kept) / len(rows) < 1


def test_few_cells_are_all_kept_where_outliers_are_asked_for(model, compare):
    n_latent = model.module.prior.means.shape[1]
    groups = {"idx1": np.arange(n_latent), "idx2": np.arange(100, 100 + n_latent)}
    with pytest.warns(UserWarning, match=f"dimensions, {n_latent}, .* all {n_latent} are kept"):
        found = compare(**groups, filter_outlier_cells=True)
    of_counts = [name for name in found if name.startswith(("raw", "non_zeros", "emp"))]
    expected = compare(**groups)[of_counts]
    pd.testing.assert_frame_equal(found[of_counts].sort_index(), expected.sort_index())


def test_new_data_are_compared(model, planted):
    with without_pulling():
        modalities = {key: planted[key][100:400].copy() for key in ("rna", "atac")}
        new = MuData(modalities, obs=planted.obs[["batch", "cell_type"]].iloc[100:400].copy())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* have no counts in")
        found = model.differential_expression(new, groupby="cell_type", silent=True)
    assert len(found) == N_TYPES * N_GENES


def test_groups_that_were_not_measured_are_left_out_of_all_and_refused_by_name(
    model, planted, compare, modality
):
    new = planted.copy()
    keep = sp.diags((planted.obs["cell_type"] != "type_1").to_numpy().astype(np.float32))
    new[modality].X = (keep @ new[modality].X).tocsr()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* have no counts in")
        with pytest.warns(UserWarning, match=f"count in `{modality}` are not compared: `type_1`"):
            found = compare(adata=new, groupby="cell_type")
        assert set(found["group1"]) == {"type_0", "type_2", "type_3"}
        for groups in (
            {"groupby": "cell_type", "group1": "type_1"},
            {"idx1": keep.diagonal() == 0},
        ):
            with pytest.raises(ValueError, match=f"must have counts in `{modality}`"):
                compare(adata=new, **groups)


def test_columns_of_the_data_are_left_alone(compare, planted):
    before = list(planted.obs.columns)
    compare(idx1=np.arange(50))
    with pytest.raises(ValueError, match="`group1` must be a group"):
        compare(groupby="cell_type", group1="nobody")
    assert list(planted.obs.columns) == before


# -- bad requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"group1": "type_0"},
        {"idx2": [0, 1]},
        {"groupby": "batch", "idx1": [0, 1]},
    ],
)
def test_groups_asked_for_in_neither_way_or_both_are_refused(model, groups):
    with pytest.raises(ValueError, match="Groups must be asked for by `groupby`.*or by `idx1`"):
        model.differential_expression(**groups, silent=True)


def test_groups_asked_for_in_both_ways_are_told_to_be(model):
    with pytest.raises(ValueError, match="got both: leave either out"):
        model.differential_expression(groupby="batch", idx1=[0, 1], silent=True)


def test_list_of_columns_to_group_by_is_refused(model):
    match = r"`groupby` must name one column, got \['cell_type', 'batch'\]"
    with pytest.raises(TypeError, match=match):
        model.differential_expression(groupby=["cell_type", "batch"], silent=True)


def test_column_whose_name_is_a_number_groups_cells(model, planted):
    tables = []
    planted.obs[0] = planted.obs["cell_type"]
    for groupby in (0, "cell_type"):
        torch.manual_seed(0)
        asked = {"groupby": groupby, "group1": "type_0", "n_samples_overall": 50}
        tables.append(model.differential_expression(**asked, silent=True))
    del planted.obs[0]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("cells", [[], np.zeros(520, dtype=bool), "rna_depth < 0"])
def test_empty_choice_of_cells_is_refused(model, cells):
    with pytest.raises((ValueError, TypeError), match="`idx1` must"):
        model.differential_expression(idx1=cells, silent=True)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("mode", "changes", "`mode` must be one of 'vanilla', 'change'"),
        ("delta", None, "`delta` must be a number"),
        ("delta", -1, "`delta` must be at least 0 and finite"),
        ("fdr_target", 1.5, "`fdr_target` must be at least 0 and below 1"),
        ("pseudocounts", -1, "`pseudocounts` must be above 0 and finite"),
        ("n_samples_overall", 1, "`n_samples_overall` must be at least 2"),
    ],
)
def test_option_out_of_range_is_refused(model, option, value, message):
    with pytest.raises((ValueError, TypeError), match=message):
        model.differential_expression(groupby="cell_type", silent=True, **{option: value})


@pytest.mark.parametrize("level", [0.9, np.float32(0.9), np.array(0.9)])
def test_lone_credible_level_is_refused_with_the_list_to_pass(model, level):
    match = rf"`cred_interval_lvls` must be a list of levels, got {level}: pass \[{level}\]"
    with pytest.raises(TypeError, match=match):
        model.differential_expression(groupby="cell_type", cred_interval_lvls=level, silent=True)


@pytest.mark.parametrize("feature", ["expression", "accessibility"])
def test_column_in_the_place_of_the_data_is_refused(model, feature):
    with pytest.raises(TypeError, match="must be a MuData .* got a str"):
        getattr(model, f"differential_{feature}")("cell_type")


def test_untrained_model_is_refused(fresh_mdata, small):
    untrained = SCMVPModel(fresh_mdata, **small)
    for compare in (untrained.differential_expression, untrained.differential_accessibility):
        with pytest.raises(RuntimeError, match="[Tt]rain"):
            compare(groupby="cell_type")
