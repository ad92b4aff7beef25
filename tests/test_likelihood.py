"""How probable the counts are under a trained model."""

import numpy as np
import pytest
import torch

N_CELLS = 300


def test_marginal_likelihood_takes_a_dataloader(trained_model, mdata):
    loader = trained_model._make_data_loader(mdata, indices=np.arange(20))
    found = []
    for cells in ({"dataloader": loader}, {"indices": np.arange(20)}):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found.append(trained_model.get_marginal_ll(**cells, n_mc_samples=3, return_mean=False))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("method", ["get_elbo", "get_reconstruction_error", "get_marginal_ll"])
def test_likelihoods_take_indices_as_embeddings_do(trained_model, mdata, method):
    compute = getattr(trained_model, method)
    mask = np.arange(N_CELLS) % 30 == 0
    found = compute(indices=mask.tolist(), return_mean=False)
    lengths = [len(part) for part in (found.values() if isinstance(found, dict) else [found])]
    assert set(lengths) == {10}
    with pytest.raises(ValueError, match="`indices` must lie between 0 and 299"):
        compute(indices=[0, N_CELLS])
    loader = trained_model._make_data_loader(mdata)
    with pytest.raises(ValueError, match="`dataloader` brings its own cells"):
        compute(dataloader=loader, indices=[1])


def test_elbo_of_each_cell_averages_to_the_elbo(trained_model):
    values = []
    for return_mean in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            values.append(trained_model.get_elbo(return_mean=return_mean))
    assert values[0].shape == (N_CELLS,)
    assert float(values[1]) == pytest.approx(float(values[0].mean()), rel=1e-5)


def test_reconstruction_error_has_a_value_for_each_modality(trained_model):
    error = trained_model.get_reconstruction_error()
    assert {"reconstruction_loss_rna", "reconstruction_loss_atac"} <= set(error)
    assert all(np.isfinite(float(value)) for value in error.values())


def test_elbo_lies_below_the_marginal_likelihood(trained_model):
    rows = np.arange(40)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        evidence = trained_model.get_marginal_ll(indices=rows, n_mc_samples=30, return_mean=False)
        elbo = np.mean([trained_model.get_elbo(indices=rows) for _ in range(10)])
    assert evidence.shape == (40,)
    assert elbo < float(evidence.mean())


def test_marginal_likelihood_is_a_mean_over_cells_and_not_over_minibatches(trained_model):
    rows, values = np.arange(9), []
    for options in ({"return_mean": False}, {"return_mean": True}):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            options |= {"n_mc_samples": 2, "batch_size": 8, "indices": rows}
            values.append(trained_model.get_marginal_ll(**options))
    assert float(values[1]) == pytest.approx(float(values[0].mean()), rel=1e-5)
