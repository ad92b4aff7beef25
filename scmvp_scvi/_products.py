"""The two products of wide matrices that most of a step's time goes to, by the faster library.

On a CPU, torch hands products of float32 matrices to MKL, which runs them at half speed on
processors with AVX-512 that are not Intel's, and the gradient of a sparse product to a loop over
entries in their own order. Here oneDNN, which torch has too, and the product of the transposed
profile take their place; values are the same up to rounding.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from scmvp_scvi._counts import Counts, DenseCounts, SparseCounts, slices
from scmvp_scvi._side_by_side import side_by_side
from scmvp_scvi._wide_gradients import WideGradients

_FEATURES_PER_BLOCK = 2048  # whose gradient is formed at once, where it does not stay

# What torch's compiler calls for a linear layer; a build without oneDNN has none. With AVX2, MKL
# is as fast, and gives the gradient of a weight row by row as the weight is.
_onednn_linear = (
    torch.ops.mkldnn._linear_pointwise
    if torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    else None
)


def product(
    inputs: Float[Tensor, "rows width"],
    weight: Float[Tensor, "columns width"],
    bias: Float[Tensor, "columns"] | None = None,
) -> Float[Tensor, "rows columns"]:
    """``inputs @ weight.T + bias``, of which no gradient is recorded.

    Parameters
    ----------
    inputs, weight
        Of any strides.
    bias
        None for zeros.
    """
    if _onednn_linear is None or not _suits_onednn(inputs, weight):
        return F.linear(inputs, weight, bias)
    return _onednn_linear(inputs, weight, bias, "none", [], "")  # nothing follows the product


def weight_gradient(
    upstream: Float[Tensor, "rows columns"], inputs: Float[Tensor, "rows width"]
) -> Float[Tensor, "columns width"]:
    """``upstream.T @ inputs``, the gradient of the weight of a product.

    Parameters
    ----------
    upstream
        Gradient of the product.
    inputs
        What was multiplied by the weight.
    """
    if not _suits_onednn(inputs, upstream):
        return upstream.T @ inputs
    # to read the wide matrix along its rows and turn the result takes two thirds of the time
    return product(inputs.T, upstream.T).T


def _suits_onednn(*matrices: Tensor) -> bool:
    """Whether there is oneDNN and it is quick: some columns of a wide matrix took it seconds."""
    return _onednn_linear is not None and all(
        m.device.type == "cpu"
        and m.dtype == torch.float32
        and m.numel() > 0
        and (m.is_contiguous() or m.T.is_contiguous())
        for m in matrices
    )


class _Linear(torch.autograd.Function):
    """`product` with its gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        # as precise as the product was, whatever surrounds the backward pass
        with torch.autocast(upstream.device.type, enabled=False):
            return (
                product(upstream, weight.T) if needs_inputs else None,
                weight_gradient(upstream, inputs) if needs_weight else None,
                upstream.sum(0) if needs_bias else None,
            )


def linear(
    inputs: Float[Tensor, "rows width"],
    weight: Float[Tensor, "columns width"],
    bias: Float[Tensor, "columns"] | None = None,
) -> Float[Tensor, "rows columns"]:
    """`product` with its gradient, found once, which is as precise as the product.

    Under autocast, what does not go to oneDNN is torch's own layer in half precision.
    """
    if torch.is_autocast_enabled(inputs.device.type) and not _suits_onednn(inputs, weight):
        return F.linear(inputs, weight, bias)
    return _Linear.apply(inputs, weight, bias)


class _SparseProduct(torch.autograd.Function):
    """Product of a sparse profile with a wide weight, on a CPU."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, profile: SparseCounts, wide_gradients: WideGradients | None
    ) -> Tensor:
        ctx.profile, ctx.wide_gradients = profile, wide_gradients
        ctx.weight = weight.detach()  # its place; the gradient asks for no values
        return _embedding_bag(profile, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None]:
        by_feature = ctx.profile.transposed()
        if ctx.wide_gradients is None:
            return _embedding_bag(by_feature, upstream), None, None
        gradient = ctx.wide_gradients.of(ctx.weight)

        def put_block(rows: slice) -> None:
            gradient.put(rows, _embedding_bag(by_feature.of_cells(rows), upstream))

        blocks = slices(by_feature.n_cells, _FEATURES_PER_BLOCK)
        side_by_side(put_block, blocks, upstream.device)
        return gradient.result(), None, None


def _embedding_bag(profile: SparseCounts, weight: Tensor) -> Tensor:
    # on a CPU six times as fast as torch's product of a CSR matrix, at 4 % of 100,000 peaks, and
    # in the gradient three times as fast as SciPy's on one thread
    return F.embedding_bag(
        profile.columns,
        weight,
        profile.offsets,
        mode="sum",
        per_sample_weights=profile.values,
        include_last_offset=True,
    )


def profile_product(
    profile: Counts,
    weight: Float[Tensor, "features width"],
    wide_gradients: WideGradients | None = None,
) -> Float[Tensor, "cells width"]:
    """``profile @ weight``, of which only the weight takes a gradient, once.

    Parameters
    ----------
    profile
        ``(cells, features)``.
    weight
        One row a feature.
    wide_gradients
        What becomes of the gradient of the weight; None holds it. On a CPU alone.
    """
    if isinstance(profile, DenseCounts):
        # as precise as the product of a sparse profile
        with torch.autocast(weight.device.type, enabled=False):
            return profile.values @ weight
    # SciPy, which transposes the profile, knows no half precision
    if weight.dtype in (torch.float32, torch.float64):
        return _SparseProduct.apply(weight, profile, wide_gradients)
    return _embedding_bag(profile, weight)
