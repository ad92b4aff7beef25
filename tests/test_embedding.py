"""Where a trained model places cells, and in which cluster."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats
from scipy.special import logsumexp
from torch.distributions import Normal

from scmvp_scvi import SCMVPModel

N_CELLS, N_PEAKS, N_LATENT, N_CLUSTERS = 300, 150, 5, 4


# -- embedding ------------------------------------------------------------------------------------


def test_latent_has_a_row_a_cell(latent):
    assert latent.shape == (N_CELLS, N_LATENT)
    assert np.isfinite(latent).all()


def test_latent_is_the_same_twice(trained_model, latent):
    np.testing.assert_array_equal(trained_model.get_latent_representation(), latent)


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_latent_does_not_depend_on_the_batch_size(trained_model, latent, batch_size):
    found = trained_model.get_latent_representation(batch_size=batch_size)
    np.testing.assert_allclose(found, latent, atol=1e-5)


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_latent_keeps_the_order_of_the_indices(trained_model, latent, kind):
    rows = [17, 3, 250, 4]
    found = trained_model.get_latent_representation(indices=kind(rows))
    np.testing.assert_allclose(found, latent[rows], atol=1e-5)


def test_latent_takes_a_boolean_mask(trained_model, latent, mdata):
    mask = (mdata.obs["cell_type"].cat.codes == 1).to_numpy()
    found = trained_model.get_latent_representation(indices=mask)
    np.testing.assert_allclose(found, latent[mask], atol=1e-5)


def test_cell_that_does_not_exist_is_refused(trained_model):
    with pytest.raises(
        ValueError, match=r"`indices` must lie between 0 and 299, got values.* 300"
    ):
        trained_model.get_latent_representation(indices=[0, 300])


def test_return_dist_gives_mean_and_variance(trained_model, latent):
    mean, variance = trained_model.get_latent_representation(return_dist=True)
    np.testing.assert_array_equal(mean, latent)
    assert variance.shape == latent.shape
    assert (variance > 0).all()


def test_draws_of_the_latent_have_the_spread_that_return_dist_says(trained_model):
    mean, variance = trained_model.get_latent_representation(return_dist=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = trained_model.get_latent_representation(give_mean=False)
    # 1,500 standard normal numbers: five standard errors of their mean square
    standardised = (draw - mean) / np.sqrt(variance)
    assert np.mean(standardised**2) == pytest.approx(1, abs=5 * np.sqrt(2 / 1_500))


def test_dataloader_takes_the_place_of_data(trained_model, latent, mdata):
    loader = trained_model._make_data_loader(mdata, indices=np.arange(20))
    found = trained_model.get_latent_representation(dataloader=loader)
    np.testing.assert_allclose(found, latent[:20], atol=1e-5)


def test_dataloader_without_minibatches_is_refused(trained_model):
    with pytest.raises(ValueError, match="`dataloader` must yield at least one minibatch"):
        trained_model.get_latent_representation(dataloader=[])


def test_dataloader_together_with_indices_is_refused(trained_model, mdata):
    loader = trained_model._make_data_loader(mdata)
    with pytest.raises(ValueError, match="`dataloader` brings its own cells"):
        trained_model.get_latent_representation(dataloader=loader, indices=[1])


def test_channel_alone_ignores_the_other_modality(trained_model, some_cells):
    expected = trained_model.get_latent_representation(some_cells, modality="rna")
    changed = some_cells.copy()
    changed["atac"].X = changed["atac"].X + sp.csr_matrix(np.eye(200, N_PEAKS, dtype="float32"))
    found = trained_model.get_latent_representation(changed, modality="rna")
    np.testing.assert_array_equal(found, expected)
    joint = trained_model.get_latent_representation(changed)
    assert not np.allclose(joint, trained_model.get_latent_representation(some_cells))


def test_unknown_modality_is_refused(trained_model):
    with pytest.raises(ValueError, match="`modality` must be one of 'joint', 'rna', 'atac'"):
        trained_model.get_latent_representation(modality="RNA")


def test_single_channel_of_empty_cells_is_warned_about(with_empty_cells):
    with pytest.warns(UserWarning, match="30 cells have no atac counts"):
        with_empty_cells.get_latent_representation(modality="atac")


def test_joint_embedding_of_empty_cells_is_that_of_the_other_channel(with_empty_cells):
    joint = with_empty_cells.get_latent_representation()
    with pytest.warns(UserWarning, match="30 cells have no rna counts"):
        rna = with_empty_cells.get_latent_representation(modality="rna")
    empty = with_empty_cells.adata.obs["atac_missing"].to_numpy()
    np.testing.assert_array_equal(joint[empty], rna[empty])


def test_outputs_of_empty_cells_are_finite(with_empty_cells):
    outputs = (
        with_empty_cells.get_latent_representation(),
        with_empty_cells.get_cluster_probabilities(),
        with_empty_cells.get_normalized_expression(),
        with_empty_cells.get_normalized_accessibility(),
        with_empty_cells.get_elbo(return_mean=False),
    )
    assert all(np.isfinite(np.asarray(output)).all() for output in outputs)


# -- clusters -------------------------------------------------------------------------------------


def test_cluster_probabilities_are_named_by_cell_and_component(trained_model, mdata):
    probs = trained_model.get_cluster_probabilities()
    assert probs.index.equals(mdata.obs_names)
    assert list(probs.columns) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("n_samples", [None, 1, 5])
def test_cluster_probabilities_of_a_cell_sum_to_one(trained_model, n_samples):
    probs = trained_model.get_cluster_probabilities(n_samples=n_samples).to_numpy()
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)


def test_cluster_probabilities_follow_bayes_rule_at_the_latent_mean(trained_model, latent):
    prior = trained_model.module.prior
    means, variances, weights = (
        values.detach().numpy()[:N_CLUSTERS]
        for values in (prior.means, prior.variances, prior.log_weights.exp())
    )
    squares = ((latent[:, None] - means) ** 2 / variances + np.log(variances)).sum(-1)
    joint = np.exp(-0.5 * squares) * weights
    expected = joint / joint.sum(1, keepdims=True)
    found = trained_model.get_cluster_probabilities()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_cluster_probabilities_of_draws_are_their_mean_over_the_posterior(trained_model):
    mean, deviation = trained_model.get_latent_representation(return_dist=True)
    draws = Normal(torch.as_tensor(mean), torch.as_tensor(deviation).sqrt()).sample((500,))
    with torch.no_grad():
        expected = trained_model.module.prior.cluster_probs(draws).mean(0)[:, :N_CLUSTERS].numpy()
    found = trained_model.get_cluster_probabilities(n_samples=500).to_numpy()
    # five standard errors of a difference of means of values between 0 and 1
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(2 * 0.25 / 500))
    at_the_mean = trained_model.get_cluster_probabilities().to_numpy()
    assert np.abs(found - expected).mean() < np.abs(at_the_mean - expected).mean() / 2


def test_predicted_cluster_is_the_most_probable_one(trained_model):
    clusters = trained_model.predict_clusters()
    probs = trained_model.get_cluster_probabilities()
    assert list(clusters) == list(probs.idxmax(axis=1))
    assert list(clusters.cat.categories) == list(probs.columns)


def test_predicted_clusters_follow_the_order_of_the_indices(trained_model, mdata):
    clusters = trained_model.predict_clusters(indices=[9, 1])
    assert list(clusters.index) == list(mdata.obs_names[[9, 1]])
    assert list(clusters) == list(trained_model.predict_clusters().iloc[[9, 1]])


def test_number_of_draws_must_be_positive(trained_model):
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        trained_model.get_cluster_probabilities(n_samples=0)
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        trained_model.get_normalized_expression(n_samples=0)


# -- mixture of posteriors ------------------------------------------------------------------------


@pytest.mark.parametrize("dof", [None, 3.0])
def test_aggregated_posterior_is_the_mean_of_the_laws_of_its_cells(trained_model, latent, dof):
    rows = np.arange(0, 60, 4)
    means, variances = trained_model.get_latent_representation(indices=rows, return_dist=True)
    at = {"loc": means, "scale": np.sqrt(variances)}
    law = stats.norm(**at) if dof is None else stats.t(dof, **at)
    expected = logsumexp(law.logpdf(latent[:20, None]).sum(-1), axis=1) - np.log(len(rows))
    mixture = trained_model.get_aggregated_posterior(indices=rows, dof=dof)
    found = mixture.log_prob(torch.as_tensor(latent[:20]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# -- before training ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "get_latent_representation",
        "get_cluster_probabilities",
        "predict_clusters",
        "get_normalized_expression",
        "get_normalized_accessibility",
    ],
)
def test_untrained_model_is_refused(fresh_mdata, small, method):
    model = SCMVPModel(fresh_mdata, **small)
    with pytest.raises(RuntimeError, match="[Tt]rain"):
        getattr(model, method)()
