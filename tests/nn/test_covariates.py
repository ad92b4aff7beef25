"""Covariates keep their cells together."""

import torch

from scmvp_scvi.nn import Covariates
from scmvp_scvi.nn._covariates import concatenate_covariates


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
