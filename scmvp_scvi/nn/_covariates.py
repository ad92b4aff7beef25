"""Covariates as one bundle, and the linear layer by which they enter encoders and decoders."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scvi.nn import FCLayers
from torch import Tensor, nn


@dataclass(frozen=True)
class Covariates:
    """What is known of each cell besides its counts.

    Parameters
    ----------
    categorical
        One ``(cells, 1)`` tensor of codes each: the batch first, then the other keys.
    continuous
        ``(cells, covariates)``, or None.
    """

    categorical: tuple[Int[Tensor, "cells 1"], ...]
    continuous: Float[Tensor, "cells covariates"] | None

    @property
    def batch(self) -> Int[Tensor, "cells 1"]:
        """Batch codes."""
        return self.categorical[0]

    def with_batch(self, batch: int) -> "Covariates":
        """Return the same covariates, every cell moved to batch number ``batch``."""
        moved = torch.full_like(self.batch, batch)
        return Covariates((moved, *self.categorical[1:]), self.continuous)

    def at(self, cells: Int[Tensor, "chosen"]) -> "Covariates":
        """Return the covariates of the cells at these positions, repeats included."""
        return Covariates(
            tuple(codes[cells] for codes in self.categorical),
            None if self.continuous is None else self.continuous[cells],
        )

    def repeat(self, n_samples: int) -> "Covariates":
        """Repeat all rows ``n_samples`` times, sample by sample."""
        return Covariates(
            tuple(codes.repeat(n_samples, 1) for codes in self.categorical),
            None if self.continuous is None else self.continuous.repeat(n_samples, 1),
        )


def concatenate_covariates(parts: Sequence[Covariates]) -> Covariates:
    """Join the covariates of minibatches, in their order."""
    continuous = [part.continuous for part in parts if part.continuous is not None]
    return Covariates(
        tuple(torch.cat(codes) for codes in zip(*(p.categorical for p in parts), strict=True)),
        torch.cat(continuous) if continuous else None,
    )


@dataclass(frozen=True)
class CovariateSizes:
    """Number of categories of each categorical covariate, and of continuous covariates."""

    n_categories: tuple[int, ...]
    n_continuous: int

    @property
    def any(self) -> bool:
        """Whether there is anything to condition on; one category says nothing."""
        return self.n_continuous > 0 or any(n > 1 for n in self.n_categories)


def bare_linear(n_in: int, n_out: int, sizes: CovariateSizes) -> FCLayers:
    """Linear layer on the input and the covariates, as scvi-tools builds it.

    `FCLayers` without normalisation and activation: its weight columns of new categories are the
    ones that scArches surgery trains.
    """
    return FCLayers(
        n_in=n_in,
        n_out=n_out,
        n_cat_list=sizes.n_categories,
        n_cont=sizes.n_continuous,
        n_layers=1,
        dropout_rate=0.0,
        use_batch_norm=False,
        use_activation=False,
    )


def apply_linear(
    layer: nn.Module, inputs: Float[Tensor, "cells n_in"], covariates: Covariates
) -> Float[Tensor, "cells n_out"]:
    """Call a `bare_linear` layer."""
    return layer(inputs, *covariates.categorical, cont=covariates.continuous)
