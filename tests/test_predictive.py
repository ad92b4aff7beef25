"""Counts drawn from a model have the law that the model states, and the form others read."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from scvi.criticism import PosteriorPredictiveCheck
from sparse import GCXS

from scmvp_scvi import SCMVPModel, _predictive

N_CELLS, N_GENES, N_PEAKS = 300, 80, 150


pytestmark = pytest.mark.usefixtures("same_draws")


# -- counts ---------------------------------------------------------------------------------------


def test_drawn_counts_are_sparse_and_named_by_modality(trained_model):
    drawn = trained_model.posterior_predictive_sample()
    assert {name: counts.shape for name, counts in drawn.items()} == {
        "rna": (N_CELLS, N_GENES),
        "atac": (N_CELLS, N_PEAKS),
    }
    for counts in drawn.values():
        assert isinstance(counts, GCXS)
        assert counts.dtype.kind == "i"
        assert (counts.data > 0).all()


def test_several_draws_have_an_axis_behind(trained_model):
    drawn = trained_model.posterior_predictive_sample(n_samples=3, indices=[4, 2], batch_size=1)
    assert drawn["rna"].shape == (2, N_GENES, 3)
    assert drawn["atac"].shape == (2, N_PEAKS, 3)


@pytest.mark.parametrize("block", [40, 8_192])
@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_mean_of_the_draws_is_the_mean_of_the_law_in_blocks_of_any_size(
    trained_model, modality, block, monkeypatch
):
    monkeypatch.setattr(_predictive, "_FEATURES_PER_BLOCK", block)
    n_samples, rows = 100, np.arange(60)
    drawn = trained_model.posterior_predictive_sample(
        n_samples=n_samples, indices=rows, modality=modality
    )[modality]
    law = {"rna": "px", "atac": "py"}[modality]
    expected = np.zeros(drawn.shape[1])
    (tensors,) = trained_model._make_data_loader(trained_model.adata, indices=rows)
    with torch.inference_mode():
        for _ in range(n_samples):
            _, outputs = trained_model.module(tensors, compute_loss=False)
            expected += outputs[law].distribution().mean.sum(0).numpy() / n_samples
    found = drawn.sum(axis=(0, 2)).todense() / n_samples
    np.testing.assert_allclose(found, expected, rtol=0.2, atol=1)
    np.testing.assert_allclose(found.sum(), expected.sum(), rtol=0.02)


def test_counts_are_of_draws_of_the_posterior_in_the_batch_asked_for(trained_model, monkeypatch):
    places, batches, original = [], [], trained_model.module.generative

    def generative(z, *args, transform_batch=None, **kwargs):
        places.append(z)
        batches.append(transform_batch)
        return original(z, *args, transform_batch=transform_batch, **kwargs)

    monkeypatch.setattr(trained_model.module, "generative", generative)
    trained_model.posterior_predictive_sample(
        n_samples=50, transform_batch="batch_1", batch_size=N_CELLS
    )
    drawn = torch.stack(places).numpy()
    mean, variance = trained_model.get_latent_representation(return_dist=True)
    scaled = (drawn - mean) / np.sqrt(variance)
    assert scaled.var() == pytest.approx(1, abs=0.02)
    assert set(batches) == {1}


def test_features_are_drawn_in_the_order_asked_for(trained_model):
    genes = list(trained_model.adata["rna"].var_names)
    counts = trained_model.adata["rna"].X.sum(0).A1
    order = np.argsort(counts)[[0, -1]]
    drawn = trained_model.posterior_predictive_sample(
        gene_list=[genes[i] for i in order], modality="rna"
    )
    rare, common = drawn["rna"].sum(axis=0).todense()
    assert list(drawn) == ["rna"]
    assert rare < common


def test_cells_without_a_modality_draw_none_of_it(make_mdata, register, train):
    mdata = make_mdata(missing_atac=0.1)
    with pytest.warns(UserWarning, match="30 of 300 cells have no counts in"):
        register(mdata)
    drawn = train(mdata, max_epochs=1).posterior_predictive_sample()["atac"]
    totals = drawn.sum(axis=1).todense()
    assert (totals[mdata.obs["atac_missing"]] == 0).all()
    assert totals.sum() > 0


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_scvi_tools_checks_the_draws_against_the_counts(trained_model, mdata, modality):
    counts = mdata.copy()
    counts[modality].X = counts[modality].X.astype(
        "int32"
    )  # scvi-tools 1.4 fails on sparse floats
    check = PosteriorPredictiveCheck(
        counts, {"scmvp": trained_model}, n_samples=5, modality=modality
    )
    check.zero_fraction()
    zeros = check.metrics["zero_fraction"]
    observed = (mdata[modality].X.toarray() != 0).mean(0)
    np.testing.assert_allclose(zeros["Raw"], observed)
    assert np.corrcoef(zeros["scmvp"], zeros["Raw"])[0, 1] > 0.9


def test_atac_of_a_model_of_tfidf_is_refused(fresh_mdata, train):
    model = train(fresh_mdata, architecture={"atac_target": "tfidf"}, max_epochs=1)
    with pytest.raises(ValueError, match='no law of ATAC counts .* pass `modality="rna"'):
        model.posterior_predictive_sample()
    assert list(model.posterior_predictive_sample(modality="rna")) == ["rna"]


def test_bad_requests_for_draws_are_refused(trained_model):
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        trained_model.posterior_predictive_sample(n_samples=0)
    with pytest.raises(KeyError, match="`region_list`: 1 of 1 names are unknown"):
        trained_model.posterior_predictive_sample(region_list=["chr0:1-2"])
    with pytest.raises(ValueError, match="`modality` must be one of"):
        trained_model.posterior_predictive_sample(modality="joint")


@pytest.mark.parametrize(
    ("modality", "names"), [("atac", {"gene_list": ["gene_3"]}), ("rna", {"region_list": []})]
)
def test_features_of_a_modality_that_is_not_drawn_are_refused(trained_model, modality, names):
    [name] = names
    with pytest.raises(
        ValueError, match=f"`{name}` chooses features that `modality='{modality}'`"
    ):
        trained_model.posterior_predictive_sample(modality=modality, **names)


def test_untrained_model_is_refused(fresh_mdata, small):
    with pytest.raises(RuntimeError, match="[Tt]rain"):
        SCMVPModel(fresh_mdata, **small).posterior_predictive_sample()


# -- correlations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_correlations_are_those_of_the_draws(trained_model, kind):
    torch.manual_seed(1)
    found = trained_model.get_feature_correlation_matrix(n_samples=2, correlation_type=kind)
    torch.manual_seed(1)
    draws = trained_model.get_normalized_expression(n_samples=2, return_mean=False)
    flat = np.concatenate(draws)
    expected = spearmanr(flat)[0] if kind == "spearman" else np.corrcoef(flat, rowvar=False)
    assert list(found.columns) == list(trained_model.adata["rna"].var_names)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_draw_has_no_correlations(trained_model):
    with pytest.raises(ValueError, match="at least two draws, got one cell and `n_samples=1`"):
        trained_model.get_feature_correlation_matrix(indices=[3], n_samples=1)


def test_genes_are_correlated_in_the_batch_asked_for(trained_model, monkeypatch):
    options = {"n_samples": 20, "correlation_type": "pearson"}
    found = {}
    for batch in (None, "batch_1"):
        torch.manual_seed(0)
        found[batch] = trained_model.get_feature_correlation_matrix(
            transform_batch=batch, **options
        )
    torch.manual_seed(0)
    draws = trained_model.get_normalized_expression(
        transform_batch="batch_1", n_samples=20, return_mean=False, return_numpy=True
    )
    expected = np.corrcoef(draws.reshape(-1, draws.shape[-1]).T)
    np.testing.assert_allclose(found["batch_1"], expected, atol=1e-3)
    assert np.abs(found[None] - expected).to_numpy().max() > 0.01


def test_genes_to_correlate_may_be_chosen(trained_model):
    genes = list(trained_model.adata["rna"].var_names[[5, 2]])
    found = trained_model.get_feature_correlation_matrix(gene_list=genes, n_samples=1)
    assert isinstance(found, pd.DataFrame)
    assert list(found.index) == list(found.columns) == genes


def test_unknown_correlation_is_refused(trained_model):
    with pytest.raises(ValueError, match="`correlation_type` must be one of 'spearman'"):
        trained_model.get_feature_correlation_matrix(correlation_type="kendall")


def test_draws_of_several_batches_are_refused(trained_model):
    with pytest.raises(ValueError, match="`transform_batch` must be one batch, got 2: draws are"):
        trained_model.posterior_predictive_sample(transform_batch=["batch_0", "batch_1"])
