"""Chosen rows of a weight, and their gradient."""

import pytest
import torch

from scmvp_scvi._rows import split_uses, take_rows


def test_gradient_of_a_row_is_multiplied_by_its_factor(rng):
    weight = torch.as_tensor(rng.normal(size=(6, 3))).requires_grad_()
    rows, factors = torch.tensor([1, 4, 5]), torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64)
    upstream = torch.as_tensor(rng.normal(size=(3, 3)))
    (found,) = torch.autograd.grad(take_rows(weight, rows, factors), weight, upstream)
    torch.testing.assert_close(found.coalesce().indices()[0], rows)
    torch.testing.assert_close(found.coalesce().values(), upstream * factors[:, None])


@pytest.mark.parametrize("width", [(), (4,)])
def test_rows_and_their_gradient_are_those_of_indexing(rng, width):
    weight = torch.as_tensor(rng.normal(size=(30, *width))).requires_grad_()
    rows = torch.tensor([1, 7, 29])
    upstream = torch.as_tensor(rng.normal(size=(3, *width)))
    torch.testing.assert_close(take_rows(weight, rows), weight[rows], rtol=0, atol=0)
    (sparse,) = torch.autograd.grad(take_rows(weight, rows), weight, upstream)
    (dense,) = torch.autograd.grad(weight[rows], weight, upstream)
    assert sparse.is_sparse
    torch.testing.assert_close(sparse.to_dense(), dense, rtol=0, atol=0)


def test_a_slice_of_rows_has_a_dense_gradient(rng):
    weight = torch.as_tensor(rng.normal(size=(30, 4))).requires_grad_()
    (gradient,) = torch.autograd.grad(take_rows(weight, slice(2, 5)).sum(), weight)
    assert not gradient.is_sparse
    assert gradient.sum() == 12


def test_sparse_and_dense_gradients_of_one_weight_add_up(rng):
    weight = torch.as_tensor(rng.normal(size=(30, 4))).requires_grad_()
    rows = torch.tensor([0, 3])
    (weight.square().sum() + take_rows(weight, rows).sum()).backward()
    expected = 2 * weight.detach()
    expected[rows] += 1
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize("uses", ["all rows", "some rows", "both", "both, all by slice"])
def test_gradient_of_split_uses_is_that_of_the_weight_used_twice(rng, uses):
    weight = torch.as_tensor(rng.normal(size=(9, 3)))
    rows = slice(None) if uses == "both, all by slice" else torch.tensor([1, 4, 8])

    def total(for_all: torch.Tensor, for_some: torch.Tensor) -> torch.Tensor:
        dense = for_all.square().sum() if uses != "some rows" else 0.0
        return dense + (take_rows(for_some, rows).exp().sum() if uses != "all rows" else 0.0)

    split, plain = (weight.clone().requires_grad_() for _ in range(2))
    total(*split_uses(split)).backward()
    total(plain, plain).backward()
    found = split.grad.to_dense() if split.grad.is_sparse else split.grad
    expected = plain.grad.to_dense() if plain.grad.is_sparse else plain.grad
    torch.testing.assert_close(found, expected)
    assert found.any()
