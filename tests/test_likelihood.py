"""How probable the counts are under a trained model."""

from itertools import product

import numpy as np
import pytest
import torch
from scvi.model.base._log_likelihood import compute_elbo, compute_reconstruction_error

N_CELLS = 300


def seeded(compute, *args, **how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return compute(*args, **how)


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


def test_elbo_and_reconstruction_error_are_those_of_scvi_tools(trained_model, mdata):
    """Which computes the cycle as well, and nothing of it goes into either."""
    rows = np.arange(50)
    loader = trained_model._make_data_loader(mdata, indices=rows, batch_size=20)
    pairs = (
        (trained_model.get_elbo, lambda *args, **how: -compute_elbo(*args, **how)),
        (trained_model.get_reconstruction_error, compute_reconstruction_error),
    )
    for (ours, theirs), return_mean in product(pairs, (False, True)):
        found = seeded(ours, indices=rows, batch_size=20, return_mean=return_mean)
        with torch.inference_mode():
            expected = seeded(theirs, trained_model.module, loader, return_mean=return_mean)
        torch.testing.assert_close(found, expected)


def test_likelihoods_embed_no_imputed_profile(trained_model, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the imputed profile was embedded")

    monkeypatch.setattr(trained_model.module, "reencode", refuse)
    for method in ("get_elbo", "get_reconstruction_error", "get_marginal_ll"):
        getattr(trained_model, method)(indices=[0, 1])


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
