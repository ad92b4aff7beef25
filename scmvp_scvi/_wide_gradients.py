"""Where the gradient of a wide weight goes, as a sweep over the features forms it by blocks."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class BlockGradient(Protocol):
    """Takes the gradient of one weight, a block of rows at a time."""

    def put(self, rows: slice, gradient: Float[Tensor, "block width"]) -> None:
        """Take the gradient of some rows, each once and after the last use of it in the step."""

    def result(self) -> Tensor | None:
        """Return what autograd hands on to the optimiser, None where it has it already."""


@runtime_checkable
class WideGradients(Protocol):
    """Decides what becomes of the gradients of wide weights, which may be views of parameters."""

    def of(self, weight: Tensor) -> BlockGradient:
        """Return what takes the gradient of this weight in this step."""

    def hold(self, rows: Int[Tensor, "held"], weights: Iterable[Tensor]) -> None:
        """Tell, before `of`, of rows that get a gradient elsewhere as well; ascending."""


class CollectedGradient:
    """Holds the gradient of all rows until the optimiser asks for it.

    Parameters
    ----------
    weight
        ``(features, width)``.
    """

    def __init__(self, weight: Tensor) -> None:
        self._all = wide_empty_like(weight)

    def put(self, rows: slice, gradient: Float[Tensor, "block width"]) -> None:
        """Take the gradient of some rows."""
        self._all[rows] = gradient

    def result(self) -> Tensor:
        """Return the gradient of all rows."""
        return self._all


def gradient_of(weight: Tensor, wide_gradients: WideGradients | None) -> BlockGradient:
    """Return what takes the gradient of a weight in this step.

    Parameters
    ----------
    weight
        ``(features, width)``.
    wide_gradients
        Decides it; None to hold the gradient until the optimiser asks for it.
    """
    return CollectedGradient(weight) if wide_gradients is None else wide_gradients.of(weight)


def wide_empty_like(parameter: Tensor) -> Tensor:
    """Memory for the gradient of a wide layer, with unspecified values.

    On a CPU NumPy allocates it, which asks the system for huge pages. To touch tens of megabytes
    anew in each step for the first time took as long, by small pages, as to compute them.
    """
    if parameter.device.type != "cpu" or parameter.dtype not in (torch.float32, torch.float64):
        return torch.empty_like(parameter)
    dtype = np.float32 if parameter.dtype == torch.float32 else np.float64
    return torch.from_numpy(np.empty(parameter.shape, dtype))
