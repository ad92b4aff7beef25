"""The three attentions against numpy loops written from the paper's equations."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from scmvp_scvi.nn import ClusterAttention, MaskAttention, SelfAttention
from scmvp_scvi.nn._attention import attention

N_CELLS, N_HIDDEN, N_HEADS = 7, 12, 3
WIDTH = N_HIDDEN // N_HEADS
EXACT = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def randomised(module: nn.Module) -> nn.Module:
    """Put random numbers in all parameters and statistics, so that none is at a neutral value."""
    module = module.double()
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter)
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return module


def numpy_linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def numpy_layer_norm(layer: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    normalised = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normalised * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def numpy_batch_norm(layer: nn.BatchNorm1d, x: np.ndarray) -> np.ndarray:
    if layer.training:
        mean, variance = x.mean(0), x.var(0)
    else:
        mean, variance = layer.running_mean.numpy(), layer.running_var.numpy()
    normalised = (x - mean) / np.sqrt(variance + 1e-3)
    return normalised * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def numpy_hidden(layer: MaskAttention | SelfAttention, linear: np.ndarray) -> np.ndarray:
    """ReLU(BatchNorm(LayerNorm(h))), with which both channels start."""
    return np.maximum(
        numpy_batch_norm(layer.batch_norm, numpy_layer_norm(layer.layer_norm, linear)), 0
    )


def numpy_softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def numpy_token_attention(layer: SelfAttention, linear: np.ndarray) -> np.ndarray:
    """Heads are tokens of ``WIDTH`` features; W^O, residual and LayerNorm follow."""
    e = numpy_hidden(layer, linear)
    query, key, value = (numpy_linear(part, e) for part in (layer.query, layer.key, layer.value))
    pieces = [slice(h * WIDTH, (h + 1) * WIDTH) for h in range(N_HEADS)]
    attended = np.zeros_like(e)
    for i in range(len(e)):
        for to in pieces:
            logits = np.array([query[i, to] @ key[i, of] for of in pieces]) / np.sqrt(WIDTH)
            for weight, of in zip(numpy_softmax(logits), pieces, strict=True):
                attended[i, to] += weight * value[i, of]
    return numpy_layer_norm(layer.output_norm, e + numpy_linear(layer.project, attended))


def numpy_scalar_attention(layer: SelfAttention, linear: np.ndarray) -> np.ndarray:
    """Within a head, features are tokens of width one with unscaled logits; LayerNorm follows."""
    e = numpy_hidden(layer, linear)
    query, key, value = (numpy_linear(part, e) for part in (layer.query, layer.key, layer.value))
    attended = np.zeros_like(e)
    for i in range(len(e)):
        for start in range(0, N_HIDDEN, WIDTH):
            head = slice(start, start + WIDTH)
            for token in range(start, start + WIDTH):
                weights = numpy_softmax(query[i, token] * key[i, head])
                attended[i, token] = weights @ value[i, head]
    return numpy_layer_norm(layer.output_norm, attended)


IN_NUMPY = {"token": numpy_token_attention, "scalar": numpy_scalar_attention}


@pytest.fixture
def linear(rng) -> torch.Tensor:
    """Output of a channel's first linear layer."""
    return torch.as_tensor(rng.normal(size=(N_CELLS, N_HIDDEN)))


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("form", ["token", "scalar"])
def test_self_attention_equals_a_plain_loop_over_heads_and_tokens(linear, form, is_training):
    layer = randomised(SelfAttention(N_HIDDEN, N_HEADS, form, dropout_rate=0.0)).train(is_training)
    expected = IN_NUMPY[form](layer, linear.numpy())
    np.testing.assert_allclose(layer(linear).detach(), expected, **EXACT)


@pytest.mark.parametrize("is_training", [True, False])
def test_mask_attention_follows_equations_1_to_3_in_numpy(linear, is_training):
    layer = randomised(MaskAttention(N_HIDDEN)).train(is_training)
    mask = expit(numpy_linear(layer.mask, linear.numpy()))
    expected = numpy_hidden(layer, linear.numpy()) * mask
    np.testing.assert_allclose(layer(linear).detach(), expected, **EXACT)


def test_attention_rows_sum_to_one(rng):
    query, key = (torch.as_tensor(rng.normal(size=(5, 4, 3))) for _ in range(2))
    identity = torch.eye(4, dtype=torch.float64).expand(5, 4, 4)
    rows = attention(query.repeat(1, 1, 2)[..., :4], key.repeat(1, 1, 2)[..., :4], identity, 0.5)
    torch.testing.assert_close(rows.sum(-1), torch.ones(5, 4, dtype=torch.float64))
    assert (rows > 0).all()


def test_attention_matches_the_one_of_torch(rng):
    parts = [torch.as_tensor(rng.normal(size=(5, 4, 3))) for _ in range(3)]
    expected = nn.functional.scaled_dot_product_attention(*parts, scale=0.7)
    torch.testing.assert_close(attention(*parts, scale=0.7), expected)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_attention_averages_all_values_or_takes_the_closest_key(scale):
    query, key = torch.tensor([[[1.0]]]), torch.tensor([[[-1.0], [0.5], [2.0]]])
    value = torch.tensor([[[3.0], [5.0], [10.0]]])
    padded = attention(query.expand(1, 3, 1), key, value, scale)
    torch.testing.assert_close(padded, torch.full((1, 3, 1), 6.0 if scale == 0 else 10.0))


@pytest.mark.parametrize("size", [1.0, 1e6])
@pytest.mark.parametrize("form", ["token", "scalar"])
def test_self_attention_has_finite_gradients(linear, form, size):
    layer, inputs = SelfAttention(N_HIDDEN, N_HEADS, form, 0.1), (size * linear).float()
    (layer(inputs.requires_grad_()) ** 3).sum().backward()
    assert inputs.grad.isfinite().all()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_mask_attention_has_finite_gradients(linear, size):
    layer, inputs = MaskAttention(N_HIDDEN), (size * linear).float()
    layer(inputs.requires_grad_()).square().sum().backward()
    assert inputs.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())  # zero where it saturates
    assert layer.batch_norm.weight.grad.any()


@pytest.mark.parametrize("form", ["token", "scalar"])
def test_self_attention_drops_values_in_training_alone(linear, form):
    layer = randomised(SelfAttention(N_HIDDEN, N_HEADS, form, dropout_rate=0.5))
    assert not torch.equal(layer(linear), layer(linear))
    layer.eval()
    assert torch.equal(layer(linear), layer(linear))


def test_cluster_attention_is_one_at_the_start(rng):
    probs = torch.as_tensor(rng.dirichlet(np.ones(5), N_CELLS), dtype=torch.float32)
    torch.testing.assert_close(ClusterAttention(5, 8)(probs), torch.ones(N_CELLS, 8))


def test_cluster_attention_follows_its_equation_and_has_mean_one(rng):
    layer, probs = randomised(ClusterAttention(5, 8)), rng.dirichlet(np.ones(5), N_CELLS)
    scores = numpy_linear(layer.linear, probs)
    expected = 8 * np.array([numpy_softmax(row) for row in scores])
    weights = layer(torch.as_tensor(probs)).detach()
    np.testing.assert_allclose(weights, expected, **EXACT)
    np.testing.assert_allclose(weights.mean(-1), 1, rtol=1e-12)


def test_cluster_attention_tells_clusters_apart_once_it_has_weights():
    layer = randomised(ClusterAttention(3, 8))
    first, second, third = layer(torch.eye(3, dtype=torch.float64))
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


def test_cluster_attention_learns_from_its_zero_start(rng):
    layer = ClusterAttention(3, 8)
    probs = torch.eye(3).requires_grad_()
    layer(probs).mul(torch.randn(3, 8)).sum().backward()
    assert layer.linear.weight.grad.any()
    assert layer.linear.weight.grad.isfinite().all()
    assert probs.grad.isfinite().all()


def test_cluster_attention_keeps_leading_draws(rng):
    layer = randomised(ClusterAttention(5, 8))
    probs = torch.as_tensor(rng.dirichlet(np.ones(5), (2, 4)))
    torch.testing.assert_close(layer(probs), torch.stack([layer(draw) for draw in probs]))


def test_cluster_attention_weighs_a_new_cluster_by_the_old_ones_it_comes_from(rng):
    layer, shares = randomised(ClusterAttention(5, 8)), rng.dirichlet(np.ones(5), 2)
    expected = layer(torch.as_tensor(shares))
    layer.hand_over(torch.as_tensor(shares))
    torch.testing.assert_close(layer(torch.eye(5, dtype=torch.float64)[:2]), expected)
    assert not layer.linear.weight[:, 2:].any()
