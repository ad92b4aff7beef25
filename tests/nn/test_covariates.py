"""Covariates keep their cells together."""

import numpy as np
import torch

from scmvp_scvi.nn import Covariates
from scmvp_scvi.nn._covariates import BatchCentering, concatenate_covariates


def test_covariates_of_minibatches_are_joined_and_chosen_by_cell():
    batch, donor = torch.arange(5)[:, None], torch.arange(5, 10)[:, None]
    age = torch.linspace(0, 1, 5)[:, None]
    parts = [Covariates((batch[c], donor[c]), age[c]) for c in (slice(0, 3), slice(3, 5))]
    chosen = torch.tensor([4, 0, 4])
    found = concatenate_covariates(parts).at(chosen)
    assert found.batch.flatten().tolist() == [4, 0, 4]
    assert found.categorical[1].flatten().tolist() == [9, 5, 9]
    torch.testing.assert_close(found.continuous, age[chosen])


def test_covariates_without_continuous_ones_are_joined():
    found = concatenate_covariates([Covariates((torch.zeros(2, 1, dtype=torch.long),), None)] * 2)
    assert found.batch.shape == (4, 1)
    assert found.continuous is None


# -- centring by batch ----------------------------------------------------------------------------


def of_batches(codes: list[int]) -> Covariates:
    return Covariates((torch.tensor(codes)[:, None],), None)


def test_centred_batches_have_the_mean_of_all_cells(rng):
    codes = [0, 1, 1, 2, 0, 1]
    hidden = torch.as_tensor(rng.normal(size=(6, 4)) + np.array(codes)[:, None])
    centering = BatchCentering(3, 4).double()
    centering.learn(hidden, of_batches(codes), torch.ones(6))
    centred = centering(hidden, of_batches(codes))
    for batch in range(3):
        rows = np.array(codes) == batch
        torch.testing.assert_close(centred[rows].mean(0), hidden.mean(0))
        # nothing but the mean: cells of a batch keep their differences
        torch.testing.assert_close(centred[rows].diff(dim=0), hidden[rows].diff(dim=0))


def test_running_means_of_batches_follow_a_plain_loop(rng):
    centering, expected, n_steps = BatchCentering(3, 2).double(), np.zeros((3, 2)), np.zeros(3)
    for _ in range(15):
        codes, observed = rng.integers(0, 2, 5), rng.integers(0, 2, 5)  # none of the last batch
        hidden = rng.normal(size=(5, 2))
        for batch in range(3):
            rows = (codes == batch) & (observed == 1)
            if rows.any():
                n_steps[batch] += 1
                rate = max(0.1, 1 / n_steps[batch])
                expected[batch] += rate * (hidden[rows].mean(0) - expected[batch])
        centering.learn(
            torch.as_tensor(hidden), of_batches(codes.tolist()), torch.as_tensor(observed).float()
        )
    assert n_steps.max() > 10
    np.testing.assert_allclose(centering.means, expected)


def test_cells_of_a_batch_that_was_never_seen_stay_as_they_are():
    hidden = torch.tensor([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]])
    centering, codes = BatchCentering(2, 2), of_batches([0, 0, 1])
    assert torch.equal(centering(hidden, codes), hidden)
    centering.learn(hidden, codes, torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(centering(hidden, codes)[2], hidden[2])


def test_held_batches_keep_their_means_and_so_do_all_cells():
    centering = BatchCentering(2, 1)
    centering.learn(torch.tensor([[1.0], [5.0]]), of_batches([0, 1]), torch.ones(2))
    centering.n_held = 1
    centering.learn(torch.tensor([[9.0], [9.0]]), of_batches([0, 1]), torch.ones(2))
    assert centering.means.flatten().tolist() == [1, 7]
    assert centering.overall.item() == 3
