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
    centering, expected, n_cells = BatchCentering(3, 2).double(), np.zeros((4, 2)), np.zeros(4)
    for _ in range(15):
        # none of the last batch
        codes, observed = rng.integers(0, 2, 100), rng.integers(0, 2, 100)
        hidden = rng.normal(size=(100, 2))
        for row in range(4):
            cells = ((codes == row - 1) | (row == 0)) & (observed == 1)
            if cells.any():
                n_cells[row] += cells.sum()
                share = cells.sum() / min(n_cells[row], 640)
                expected[row] += share * (hidden[cells].mean(0) - expected[row])
        centering.learn(
            torch.as_tensor(hidden), of_batches(codes.tolist()), torch.as_tensor(observed).float()
        )
    assert n_cells[0] > 640 > n_cells[1]
    np.testing.assert_allclose(centering.means, expected)


def test_running_means_are_those_of_all_cells_at_first(rng):
    hidden, codes = torch.as_tensor(rng.normal(size=(50, 2))), rng.integers(0, 2, 50)
    centering = BatchCentering(2, 2).double()
    for cells in np.array_split(np.arange(50), 7):  # minibatches of other shares
        centering.learn(hidden[cells], of_batches(codes[cells].tolist()), torch.ones(len(cells)))
    groups = [hidden, *(hidden[codes == batch] for batch in range(2))]
    torch.testing.assert_close(centering.means, torch.stack([group.mean(0) for group in groups]))


def test_running_means_are_in_full_precision_under_autocast(rng):
    hidden = torch.as_tensor(rng.normal(size=(40, 3)), dtype=torch.float32) + 100
    centering = BatchCentering(1, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        centering.learn(hidden, of_batches([0] * 40), torch.ones(40))
    torch.testing.assert_close(centering.means[1], hidden.mean(0), rtol=1e-6, atol=0)


def test_cells_of_a_batch_that_was_never_seen_stay_as_they_are():
    hidden = torch.tensor([[1.0, 2.0], [3.0, 5.0], [4.0, 4.0]])
    centering, codes = BatchCentering(2, 2), of_batches([0, 0, 1])
    assert torch.equal(centering(hidden, codes), hidden)
    centering.learn(hidden, codes, torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(centering(hidden, codes)[2], hidden[2])


def test_held_batches_keep_their_means_and_so_do_all_cells():
    centering = BatchCentering(2, 1)
    centering.learn(torch.tensor([[1.0], [5.0]]), of_batches([0, 1]), torch.ones(2))
    centering.n_held = 2
    centering.learn(torch.tensor([[9.0], [9.0]]), of_batches([0, 1]), torch.ones(2))
    assert centering.means.flatten().tolist() == [3, 1, 7]
