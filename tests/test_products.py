"""Products of wide matrices against NumPy, and their gradients against those of torch."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from scmvp_scvi import _products
from scmvp_scvi._counts import SparseCounts
from scmvp_scvi._products import linear, product, profile_product, weight_gradient
from scmvp_scvi._wide_gradients import CollectedGradient

N_ROWS, WIDTH, N_COLUMNS = 7, 5, 11
DTYPES = {"single": torch.float32, "double": torch.float64}
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 0, "atol": 1e-12}}


@pytest.fixture(params=[True, False], ids=["oneDNN", "no oneDNN"])
def has_onednn(request, monkeypatch) -> None:
    """With oneDNN, whatever the processor, and without it."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    onednn_linear = torch.ops.mkldnn._linear_pointwise if request.param else None
    monkeypatch.setattr(_products, "_onednn_linear", onednn_linear)


def draw(rng, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.as_tensor(rng.normal(size=shape), dtype=dtype)


def assert_is(found: torch.Tensor, expected: np.ndarray, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), expected, **CLOSE[dtype])


@pytest.mark.usefixtures("has_onednn")
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("n_rows", [0, 1, N_ROWS])
def test_product_is_that_of_numpy(rng, dtype, n_rows):
    inputs = draw(rng, n_rows, WIDTH, dtype=dtype)
    weight = draw(rng, N_COLUMNS, WIDTH, dtype=dtype)
    bias = draw(rng, N_COLUMNS, dtype=dtype)
    expected = inputs.double().numpy() @ weight.double().numpy().T
    assert_is(product(inputs, weight), expected, dtype)
    assert_is(product(inputs, weight, bias), expected + bias.double().numpy(), dtype)


@pytest.mark.usefixtures("has_onednn")
def test_product_reads_transposed_and_strided_matrices(rng):
    inputs, weight = draw(rng, WIDTH, N_ROWS).T, draw(rng, 2 * N_COLUMNS, 3 * WIDTH)[::2, ::3]
    assert_is(product(inputs, weight), inputs.numpy() @ weight.numpy().T, torch.float32)


def test_onednn_is_not_given_some_columns_of_a_wide_matrix(rng, monkeypatch):
    def onednn_linear(*args: object) -> None:
        raise AssertionError("took seconds where milliseconds do")

    monkeypatch.setattr(_products, "_onednn_linear", onednn_linear)
    wide, weight = draw(rng, N_ROWS, 3 * WIDTH)[:, :WIDTH], draw(rng, N_COLUMNS, WIDTH)
    assert_is(product(wide, weight), wide.numpy() @ weight.numpy().T, torch.float32)
    gradient = weight_gradient(wide, draw(rng, N_ROWS, N_COLUMNS))
    assert gradient.shape == (WIDTH, N_COLUMNS)


@pytest.mark.usefixtures("has_onednn")
def test_weight_gradient_sums_the_outer_products_of_the_rows(rng):
    upstream, inputs = draw(rng, N_ROWS, N_COLUMNS), draw(rng, N_ROWS, WIDTH)
    expected = sum(np.outer(u, x) for u, x in zip(upstream.numpy(), inputs.numpy(), strict=True))
    assert_is(weight_gradient(upstream, inputs), expected, torch.float32)


@pytest.mark.usefixtures("has_onednn")
@pytest.mark.parametrize("learned", ["inputs", "weight", "bias", "all"])
def test_linear_has_the_gradients_that_torch_finds(rng, learned):
    tensors = {
        "inputs": draw(rng, N_ROWS, WIDTH),
        "weight": draw(rng, N_COLUMNS, WIDTH),
        "bias": draw(rng, N_COLUMNS),
    }
    upstream = draw(rng, N_ROWS, N_COLUMNS)
    wanted = list(tensors) if learned == "all" else [learned]
    leaves = [tensors[name].requires_grad_() for name in wanted]
    found = torch.autograd.grad(linear(**tensors), leaves, upstream)
    plain = torch.autograd.grad(F.linear(*tensors.values()), leaves, upstream)
    for gradient, expected in zip(found, plain, strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_profile_product_is_the_dense_one_with_its_gradient(rng, dtype):
    dense = draw(rng, N_ROWS, N_COLUMNS, dtype=dtype) * (draw(rng, N_ROWS, N_COLUMNS) > 0.5)
    dense[2], dense[:, 4] = 0, 0  # a cell and a feature without any entry
    weight = draw(rng, N_COLUMNS, WIDTH, dtype=dtype).requires_grad_()
    upstream = draw(rng, N_ROWS, WIDTH, dtype=dtype)
    found = profile_product(SparseCounts.from_tensor(dense), weight)
    assert_is(found.detach(), dense.numpy() @ weight.detach().numpy(), dtype)
    (gradient,) = torch.autograd.grad(found, weight, upstream)
    assert_is(gradient, dense.numpy().T @ upstream.numpy(), dtype)


@pytest.mark.parametrize("block_size", [1, 4, 100])
def test_profile_product_hands_on_its_gradient_in_blocks(monkeypatch, rng, block_size):
    monkeypatch.setattr("scmvp_scvi._products._FEATURES_PER_BLOCK", block_size)
    dense = draw(rng, N_ROWS, N_COLUMNS) * (draw(rng, N_ROWS, N_COLUMNS) > 0.5)
    dense[2], dense[:, 4] = 0, 0
    weight = draw(rng, N_COLUMNS, WIDTH).requires_grad_()
    upstream = draw(rng, N_ROWS, WIDTH)

    class OneCollected:
        def of(self, parameter: torch.Tensor) -> CollectedGradient:
            assert parameter.data_ptr() == weight.data_ptr()
            return CollectedGradient(parameter)

        def hold(self, rows: torch.Tensor, weights: Iterable[torch.Tensor]) -> None:
            raise AssertionError

    found = profile_product(SparseCounts.from_tensor(dense), weight, OneCollected())
    (gradient,) = torch.autograd.grad(found, weight, upstream)
    assert_is(gradient, dense.numpy().T @ upstream.numpy(), torch.float32)


def test_profile_product_takes_a_weight_in_half_precision(rng):
    profile = SparseCounts.from_tensor(torch.eye(N_COLUMNS, dtype=torch.bfloat16)[:3])
    weight = draw(rng, N_COLUMNS, WIDTH, dtype=torch.bfloat16).requires_grad_()
    found = profile_product(profile, weight)
    found.sum().backward()
    assert torch.equal(found, weight[:3])
    assert weight.grad.sum() == 3 * WIDTH


def test_profile_product_of_a_minibatch_without_entries_moves_no_weight():
    weight = torch.ones(N_COLUMNS, WIDTH, requires_grad=True)
    nothing = SparseCounts.from_tensor(torch.zeros(N_ROWS, N_COLUMNS))
    found = profile_product(nothing, weight)
    found.sum().backward()
    assert found.shape == (N_ROWS, WIDTH)
    assert not found.any()
    assert not weight.grad.any()
