"""Covariates as one bundle, and what they add to a layer of the encoders and decoders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

BatchRepresentation = Literal["one-hot", "embedding"]

_WINDOW = 640  # cells that a running mean of a batch remembers


@dataclass(frozen=True)
class Covariates:
    """What is known of each cell besides its counts.

    Parameters
    ----------
    categorical
        One ``(cells, 1)`` tensor of codes each: the batch first, then the other keys.
    continuous
        ``(cells, covariates)``, or None.
    batch_vectors
        ``(batches, dims)``, the learned vector of each batch; None where batches have none.
    """

    categorical: tuple[Int[Tensor, "cells 1"], ...]
    continuous: Float[Tensor, "cells covariates"] | None
    batch_vectors: Float[Tensor, "batches dims"] | None = None

    @property
    def batch(self) -> Int[Tensor, "cells 1"]:
        """Batch codes."""
        return self.categorical[0]

    def with_batch(self, batch: int) -> "Covariates":
        """Return the same covariates, every cell moved to batch number ``batch``."""
        moved = torch.full_like(self.batch, batch)
        return replace(self, categorical=(moved, *self.categorical[1:]))

    def at(self, cells: Int[Tensor, "chosen"]) -> "Covariates":
        """Return the covariates of the cells at these positions, repeats included."""
        return replace(
            self,
            categorical=tuple(codes[cells] for codes in self.categorical),
            continuous=None if self.continuous is None else self.continuous[cells],
        )


def concatenate_covariates(parts: Sequence[Covariates]) -> Covariates:
    """Join the covariates of minibatches, in their order."""
    continuous = [part.continuous for part in parts if part.continuous is not None]
    return Covariates(
        tuple(torch.cat(codes) for codes in zip(*(p.categorical for p in parts), strict=True)),
        torch.cat(continuous) if continuous else None,
        parts[0].batch_vectors,
    )


@dataclass(frozen=True)
class CovariateSizes:
    """Number of categories of each categorical covariate, and of continuous covariates.

    Parameters
    ----------
    n_categories
        Of each categorical covariate, the batch first.
    n_continuous
        Continuous covariates.
    n_batch_dims
        Length of the vector that each batch is represented by; 0 where batches have none.
    """

    n_categories: tuple[int, ...]
    n_continuous: int
    n_batch_dims: int = 0


class CovariateShift(nn.Module):
    """What the covariates add to a hidden layer: a row for a category, a slope for a number.

    Rows are looked up, not multiplied with one-hot columns: what a known category adds stays the
    same to the bit when rows of new categories are appended. They start as the weights of such
    columns would in `nn.Linear`: from zero, differences between batches take many epochs to learn.
    A covariate of one category says nothing and has no rows.

    Parameters
    ----------
    sizes
        The covariates that enter here.
    n_hidden
        Width of the layer.
    n_in
        Other inputs of the layer, on whose number the scale of the start depends, as in
        `nn.Linear`; none in the encoders, whose other inputs are counts.
    """

    def __init__(self, sizes: CovariateSizes, n_hidden: int, n_in: int = 0) -> None:
        super().__init__()
        by_vector = sizes.n_batch_dims > 0
        self.categories = nn.ParameterDict(
            {
                str(number): nn.Parameter(torch.zeros(n_categories, n_hidden))
                for number, n_categories in enumerate(sizes.n_categories)
                if n_categories > 1 and not (number == 0 and by_vector)
            }
        )
        self.batch_directions, self.slopes = (
            nn.Parameter(torch.zeros(n_rows, n_hidden)) if n_rows > 0 else None
            for n_rows in (sizes.n_batch_dims, sizes.n_continuous)
        )
        n_rows = sum(len(rows) for rows in self.parameters())
        for rows in self.parameters():
            bound = 1 / math.sqrt(n_in + n_rows)
            nn.init.uniform_(rows, -bound, bound)

    def forward(
        self, hidden: Float[Tensor, "cells hidden"], covariates: Covariates
    ) -> Float[Tensor, "cells hidden"]:
        """Shift the hidden layer of each cell by its covariates."""
        for number, rows in self.categories.items():
            hidden = hidden + F.embedding(covariates.categorical[int(number)][:, 0], rows)
        if self.batch_directions is not None and covariates.batch_vectors is not None:
            vectors = F.embedding(covariates.batch[:, 0], covariates.batch_vectors)
            hidden = hidden + vectors @ self.batch_directions
        if self.slopes is not None and covariates.continuous is not None:
            hidden = hidden + covariates.continuous @ self.slopes
        return hidden


class BatchCentering(nn.Module):
    """Take off a hidden layer what the cells of a batch have in common beyond all cells.

    The means are running ones, in training as in use, and constants to the gradient. A batch is
    known by its mean alone: what differs because its cells are of other types is taken off too.

    Parameters
    ----------
    n_batch
        Number of batches.
    n_hidden
        Width of the layer.
    """

    means: Tensor
    n_cells: Tensor

    def __init__(self, n_batch: int, n_hidden: int) -> None:
        super().__init__()
        # of all cells, and of each batch
        self.register_buffer("means", torch.zeros(1 + n_batch, n_hidden))
        self.register_buffer("n_cells", torch.zeros(1 + n_batch, 1, dtype=torch.long))
        self.n_held = 0  # first rows that training leaves alone, as queries do with known ones

    def forward(
        self, hidden: Float[Tensor, "cells hidden"], covariates: Covariates
    ) -> Float[Tensor, "cells hidden"]:
        """Centre the cells of each batch by the means as they are; those of a new batch stay."""
        shifts = (self.means[1:] - self.means[0]) * (self.n_cells[1:] > 0)
        return hidden - F.embedding(covariates.batch[:, 0], shifts)

    @torch.no_grad()
    def learn(
        self,
        hidden: Float[Tensor, "cells hidden"],
        covariates: Covariates,
        observed: Float[Tensor, "cells"],
    ) -> None:
        """Take the cells of a minibatch into the running means.

        A mean is that of all cells so far, or about the last `_WINDOW` of them: the more of a
        minibatch are of a batch, the more they move it. It is formed in full precision under
        autocast too, and without synchronising with the device.

        Parameters
        ----------
        hidden
            The layer before it is centred.
        covariates
            Of the cells.
        observed
            1 for the cells that count, else 0.
        """
        rows = torch.arange(len(self.means), device=hidden.device)
        is_member = (rows == 0) | (covariates.batch + 1 == rows)
        is_member &= (rows >= self.n_held) & (observed > 0).unsqueeze(-1)
        sizes = is_member.sum(0).unsqueeze(-1)
        self.n_cells += sizes
        share = (sizes / self.n_cells.clamp(1, _WINDOW)).clamp_max(1)
        with torch.autocast(hidden.device.type, enabled=False):
            full = hidden.to(self.means)
            sums = is_member.to(full).T @ full
            self.means += share * (sums / sizes.clamp_min(1) - self.means)


class ConditionedLinear(nn.Module):
    """Linear layer whose output the covariates shift.

    Parameters
    ----------
    n_in, n_out
        Widths.
    sizes
        The covariates.
    """

    def __init__(self, n_in: int, n_out: int, sizes: CovariateSizes) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.shift = CovariateShift(sizes, n_out, n_in)

    def forward(
        self, inputs: Float[Tensor, "cells n_in"], covariates: Covariates
    ) -> Float[Tensor, "cells n_out"]:
        """Map the inputs and add what the covariates add."""
        return self.shift(self.linear(inputs), covariates)
