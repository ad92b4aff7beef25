"""Every protocol with every method that is fast, and what a method gets to see."""

import inspect
import math

import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy import sparse

import harness.data as data
import harness.methods.simple as simple
import harness.protocols as protocols
import harness.scores.embedding as embedding
from harness.methods import METHODS
from harness.methods.base import Embedder, Imputer, Labeller, Predictor, Projector
from harness.methods.factors import MOFA
from harness.methods.integration import Harmony
from harness.methods.models import SCANVI, SCMVP, SCVI, MultiVI
from harness.protocols import PROTOCOLS

SMALL = {"n_latent": 5, "n_hidden": 32, "n_hidden_atac": 16, "n_shared": 32, "n_heads": 4}
FAST = ("raw", "mean", "mean of logs", "kNN 15", "linear", "RNA PCA", "PCA + LSI")
pytestmark = pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")


def numbers_in(result: dict[str, object]) -> list[float]:
    found = []
    for value in result.values():
        if isinstance(value, dict):
            found += numbers_in(value)
        elif isinstance(value, int | float):
            found.append(float(value))
    return found


def run(name: str, method, cells: MuData, case: str | None = None) -> dict[str, object]:
    protocol = PROTOCOLS[name]
    task = protocol.make(cells, 0, protocol.cases[0] if case is None else case)
    method.fit(task.train, 0)
    return task.score(method)


@pytest.fixture(autouse=True)
def _without_scib(monkeypatch):
    monkeypatch.setattr(protocols, "find_spec", lambda name: None)


PAIRS = [
    (protocol, method)
    for protocol in PROTOCOLS
    for method in FAST
    if PROTOCOLS[protocol].suits(METHODS[method]())
]


@pytest.mark.parametrize(("protocol", "method"), PAIRS)
def test_fast_methods_have_finite_scores(protocol, method, cells):
    result = run(protocol, METHODS[method](), cells)
    assert numbers_in(result)
    assert all(math.isfinite(number) for number in numbers_in(result))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_model_goes_through_every_protocol(protocol, cells):
    result = run(protocol, SCMVP(epochs=1, model={**SMALL, "max_clusters": 10}), cells)
    assert all(math.isfinite(number) for number in numbers_in(result))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", ["embedding", "held-out", "cross-modal", "modalities"])
@pytest.mark.parametrize("make", [MultiVI, SCVI], ids=lambda make: make.__name__)
def test_models_of_scvi_tools_go_through_the_protocols(protocol, make, cells):
    method = make(epochs=1)
    if PROTOCOLS[protocol].suits(method):
        result = run(protocol, method, cells)
        assert all(math.isfinite(number) for number in numbers_in(result))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scanvi_learns_the_planted_types(cells):
    result = run("labels", SCANVI(), cells, "10")
    assert result["held_out"]["f1"] > 0.5


@pytest.mark.slow  # numba compiles the distances of muon
@pytest.mark.filterwarnings("ignore")
def test_weighted_neighbours_find_the_types(cells):
    assert run("embedding", METHODS["WNN"](), cells)["leiden"]["ari"] > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_factors_of_mofa_embed_the_types(cells):
    pytest.importorskip("mofapy2", reason="needs the extra `bench`")
    assert run("embedding", MOFA(), cells)["leiden"]["ari"] > 0.5


@pytest.mark.parametrize("view", ["rna", "joint"])
def test_harmony_takes_batches_out_of_components_and_leaves_types(view):
    pytest.importorskip("harmonypy", reason="needs the extra `bench`")
    sizes = {"n_cells": 300, "n_genes": 150, "n_peaks": 300, "n_types": 3}
    cells = data.generate(n_batches=2, rna_depth=400, atac_depth=200, **sizes)
    batch = (cells.obs["batch"] == "batch_0").to_numpy()
    apart = []
    for method in (simple.Components(view), Harmony(view)):
        method.fit(cells, 0)
        z = method.embed(view)
        apart.append(np.linalg.norm(z[batch].mean(0) - z[~batch].mean(0)) / z.std())
        assert embedding.in_sample_transfer(z, cells.obs["cell_type"].to_numpy())["f1"] > 0.9
    assert apart[1] < apart[0] / 2


def test_planted_types_are_found_by_components_of_both_modalities(cells):
    result = run("held-out", METHODS["PCA + LSI"](), cells)
    assert min(result[view]["f1"] for view in ("joint", "rna")) > 0.8
    assert result["atac"]["f1"] > 1 / 3  # chance; these few peaks say little


def test_one_profile_for_all_cells_predicts_the_same_by_either_modality(cells):
    result = run("modalities", METHODS["mean"](), cells)
    assert result["rna"] == result["atac"] == result["joint"]
    assert "f1" not in result["joint"]  # it places no cell


@pytest.mark.parametrize("case", PROTOCOLS["labels"].cases)
def test_no_more_labels_are_shown_than_the_case_says_and_some_of_each_type(cells, case):
    train = PROTOCOLS["labels"].make(cells, 0, case).train
    shown = train.obs["label"] != "Unknown"
    assert (train.obs["label"] == train.obs["cell_type"].astype(str))[shown].all()
    sizes, of_types = train.obs["cell_type"].value_counts(), train.obs[shown]["cell_type"]
    expected = (sizes * int(case) / 100).round().clip(lower=3)
    assert of_types.value_counts().to_dict() == expected.to_dict()


def test_labels_of_a_tenth_of_the_cells_are_learned_with_the_counts(cells):
    result = run("labels", SCMVP(epochs=60, model=SMALL), cells, "10")
    assert min(scores["f1"] for scores in result.values()) > 0.8


def test_held_out_cells_are_not_learned_from(cells):
    train, test = protocols.split(cells.n_obs, 0)
    for name in ("held-out", "labels", "cross-modal", "modalities"):
        task = PROTOCOLS[name].make(cells, 0, PROTOCOLS[name].cases[0])
        assert list(task.train.obs_names) == list(cells.obs_names[train])
    assert len(np.union1d(train, test)) == cells.n_obs
    assert not np.isin(test, train).any()


def test_components_place_a_cell_alone_where_they_place_it_among_others(cells):
    method = METHODS["PCA + LSI"]()
    method.fit(data.subset(cells, np.arange(200)), 0)
    rest = data.subset(cells, np.arange(200, 240))
    one = data.subset(cells, np.array([207]))
    for view in method.views:
        np.testing.assert_allclose(
            method.project(one, view)[0], method.project(rest, view)[7], atol=1e-5
        )


def test_components_place_training_cells_where_they_embedded_them(cells):
    method = METHODS["PCA + LSI"]()
    method.fit(cells, 0)
    for view in method.views:
        np.testing.assert_allclose(method.project(cells, view), method.embed(view), atol=1e-5)


def test_thinned_parts_add_up_to_the_counts(cells, rng):
    kept, rest = protocols.thin(cells["rna"].X, rng, share=0.25)
    assert (kept + rest != cells["rna"].X).nnz == 0
    assert kept.sum() / cells["rna"].X.sum() == pytest.approx(0.25, abs=0.02)


def test_a_predictor_across_modalities_sees_no_counts_of_what_it_predicts(cells):
    seen = {}

    class Spy(simple.Mean):
        def predict(self, modality, query, rows, view):
            seen[modality] = query[modality].X.nnz, view
            return super().predict(modality, query, rows, view)

    run("cross-modal", Spy(), cells)
    assert seen == {"rna": (0, "atac"), "atac": (0, "rna")}


def test_a_modality_is_predicted_for_held_out_cells_with_counts_in_the_other(cells):
    _, held_out = protocols.split(cells.n_obs, 0)
    counts = data.counts_of(cells)
    atac = counts["atac"].tolil()
    atac[held_out[3]] = 0
    n_cells = {}

    class Spy(simple.Mean):
        def predict(self, modality, query, rows, view):
            n_cells[modality] = query.n_obs
            return super().predict(modality, query, rows, view)

    run("cross-modal", Spy(), data.build({**counts, "atac": atac.tocsr()}, cells))
    assert n_cells == {"rna": len(held_out) - 1, "atac": len(held_out)}


ADAPTERS = {
    **{name: METHODS[name] for name in ("kNN 15", "linear", "PCA + LSI")},
    "scmvp": lambda: SCMVP(epochs=1, model={**SMALL, "max_clusters": 10}),
}


@pytest.mark.parametrize("make", ADAPTERS.values(), ids=ADAPTERS)
def test_one_modality_alone_does_not_depend_on_the_other(cells, rng, make):
    method = make()
    method.fit(cells, 0)
    shuffled = data.build(
        {"rna": cells["rna"].X, "atac": cells["atac"].X[rng.permutation(cells.n_obs)]}, cells
    )
    rows = np.arange(20)
    if isinstance(method, Projector):
        of_rna, of_shuffled = (method.project(query, "rna") for query in (cells, shuffled))
        np.testing.assert_allclose(of_shuffled, of_rna, atol=1e-5)
    if not isinstance(method, Predictor):
        return
    for modality in ("rna", "atac"):
        np.testing.assert_allclose(
            method.predict(modality, shuffled, rows, "rna"),
            method.predict(modality, cells, rows, "rna"),
            rtol=1e-5,
            atol=1e-9,
        )


def test_laws_of_the_model_have_the_depth_that_is_asked_for(cells):
    method = ADAPTERS["scmvp"]()
    method.fit(cells, 0)
    depth = np.array([50.0, 400.0, 7.0])
    for law in method.laws("rna", np.array([3, 1, 8]), depth, n_draws=2):
        np.testing.assert_allclose(law.mean.sum(1), depth, rtol=1e-4)


def test_neighbours_average_the_profiles_of_the_nearest_training_cells(cells):
    method = METHODS["kNN 15"]()
    method.fit(cells, 0)
    points = method.embed("joint")
    nearest = np.linalg.norm(points - points[4], axis=1).argsort()[:15]
    counts = cells["rna"].X[nearest].toarray()
    expected = (counts / counts.sum(1, keepdims=True)).mean(0)
    found = method.impute("rna", np.array([4]))[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(method.impute_logs(np.array([4]), 100.0)[0], logs, rtol=1e-4)


def test_robustness_thins_the_modality_that_its_case_names(cells):
    task = PROTOCOLS["robustness"].make(cells, 0, "atac-10")
    assert (task.train["rna"].X != cells["rna"].X).nnz == 0
    share = task.train["atac"].X.sum() / cells["atac"].X.sum()
    assert share == pytest.approx(0.1, abs=0.02)


def test_a_number_of_components_that_a_form_of_the_model_fixes_is_not_overruled():
    with pytest.raises(ValueError, match="`n_clusters` is fixed to 1"):
        METHODS["scmvp, one Gaussian"](n_clusters=5)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_suited_to_a_protocol(name):
    method = METHODS[name]()
    assert any(protocol.suits(method) for protocol in PROTOCOLS.values())
    assert isinstance(method, Embedder | Imputer | Labeller | simple.WNN)
    assert inspect.getdoc(type(method))


def test_generated_data_have_counts_labels_and_no_batches():
    mdata = data.generate(n_cells=200, n_genes=60, n_peaks=90, n_types=5)
    assert mdata.n_obs == 200
    assert list(mdata.obs) == ["cell_type"]
    assert mdata.obs["cell_type"].nunique() == 5
    assert sparse.issparse(mdata["atac"].X)


def test_made_up_batches_differ_in_the_shares_of_the_types_alone(cells):
    mdata = data.in_batches_of_other_shares(data.subset(cells, np.arange(cells.n_obs)))
    for modality, counts in data.counts_of(cells).items():
        assert (mdata[modality].X != counts).nnz == 0
    shares = pd.crosstab(mdata.obs["cell_type"], mdata.obs["batch"], normalize="index")
    expected = np.random.default_rng(0)
    expected.uniform(size=cells.n_obs)
    np.testing.assert_allclose(shares["first"], expected.uniform(size=len(shares)), atol=0.2)
    assert np.ptp(shares["first"]) > 0.3


def test_data_that_are_not_there_are_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("SCMVP_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set SCMVP_DATA to the folder of the data"):
        data.DATA["bmmc"].load()
