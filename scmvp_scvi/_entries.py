"""Entries of matrices of the shape of the counts: those of sparse counts, or all of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def positions_of(mask: Tensor) -> Tensor:
    """Positions of the true entries of a flat mask on a CPU, ascending."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))  # in a ninth of torch's time


def repeat_each(values: Tensor, times: Tensor, n_all: int) -> Tensor:
    """Repeat each value as often as ``times`` says, ``n_all`` times altogether; no gradient."""
    if values.device.type == "cpu":  # NumPy takes an eighth of torch's time
        return torch.from_numpy(np.repeat(values.numpy(), times.numpy()))
    return values.repeat_interleave(times, output_size=n_all)


class Entries:
    """Some entries of matrices of one width, read and written by their place in memory.

    Parameters
    ----------
    rows, columns
        ``(entries,)``, without repeats.
    width
        Columns of the matrices, which are contiguous.
    """

    def __init__(self, rows: Tensor, columns: Tensor, width: int) -> None:
        self._places = rows.long() * width + columns

    def of(self, matrix: Tensor) -> Tensor:
        """Read the entries, ``(entries,)``."""
        return matrix.view(-1).index_select(0, self._places)

    def put(self, matrix: Tensor, values: Tensor) -> None:
        """Write the entries."""
        matrix.view(-1).index_copy_(0, self._places, values)

    def add(self, matrix: Tensor, values: Tensor) -> None:
        """Add to the entries."""
        matrix.view(-1).index_add_(0, self._places, values)


class WrittenOut:
    """The entries of matrices where `DenseCounts` are positive, with the methods of `Entries`.

    Values stand for all entries, ``(rows, columns)``, those without a count among them, which are
    made up: to pick the others out would halt an accelerator.

    Parameters
    ----------
    counts
        ``(rows, columns)``.
    """

    def __init__(self, counts: Tensor) -> None:
        self._are_positive = counts > 0

    def of(self, matrix: Tensor) -> Tensor:
        """Read the entries, before the matrix changes: no copy."""
        return matrix

    def put(self, matrix: Tensor, values: Tensor) -> None:
        """Write the entries that have a count."""
        torch.where(self._are_positive, values, matrix, out=matrix)

    def add(self, matrix: Tensor, values: Tensor) -> None:
        """Add to the entries; what is added to those without a count is zero."""
        matrix.add_(values)


@dataclass(frozen=True)
class ColumnBlock:
    """Some columns of the counts, and their entries that are not zero, column by column.

    Parameters
    ----------
    columns
        Which columns.
    rows, values
        ``(entries,)``, of each entry.
    per_column
        ``(columns,)``, number of entries.
    """

    columns: slice
    rows: Tensor
    values: Tensor
    per_column: Tensor

    @property
    def entries(self) -> Entries:
        """The entries of matrices of these columns."""
        n_columns = len(self.per_column)
        within = torch.arange(n_columns, device=self.values.device)
        columns = repeat_each(within, self.per_column, len(self.values))
        return Entries(self.rows, columns, n_columns)


@dataclass(frozen=True)
class DenseColumnBlock:
    """Some columns of counts that are written out.

    Parameters
    ----------
    columns
        Which columns.
    values
        ``(cells, columns)``.
    """

    columns: slice
    values: Tensor

    @property
    def entries(self) -> WrittenOut:
        """The entries of matrices of these columns."""
        return WrittenOut(self.values)
