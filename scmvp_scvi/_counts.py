"""Minibatches of counts in the form that their device is quick at: flat arrays, or written out.

On a CPU the entries that are not zero are worth looking for. An accelerator moves an array of
128 x 100,000 in some ten microseconds; there the kernels count, which the host launches one by
one, and sizes that only the values tell, for which host and device synchronise. Layers ask both
forms for the same.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor


def positions_of(mask: Tensor) -> Tensor:
    """Positions of the true entries of a flat mask on a CPU, ascending."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))  # in a ninth of torch's time


def repeat_each(values: Tensor, times: Tensor, n_all: int) -> Tensor:
    """Repeat each value as often as ``times`` says, ``n_all`` times altogether; no gradient."""
    if values.device.type == "cpu":  # NumPy takes an eighth of torch's time
        return torch.from_numpy(np.repeat(values.numpy(), times.numpy()))
    return values.repeat_interleave(times, output_size=n_all)


def slices(n_all: int, size: int) -> list[slice]:
    """Slices of so many, the last of what is left."""
    return [slice(start, min(start + size, n_all)) for start in range(0, n_all, size)]


@dataclass(frozen=True)
class ColumnBlock:
    """Some columns of sparse counts, their entries that are not zero column by column.

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


@dataclass(frozen=True)
class SparseCounts:
    """Non-zero entries of a ``(cells, features)`` matrix, row by row.

    Parameters
    ----------
    values
        ``(nonzeros,)``, counts or a transform of them, of a floating type.
    columns
        ``(nonzeros,)``, the feature of each value, in any order but once in a row.
    offsets
        ``(cells + 1,)``, row ``i`` owns the entries ``offsets[i]:offsets[i + 1]``; of the same
        type as the columns.
    n_features
        Number of columns of the matrix.
    """

    values: Tensor
    columns: Tensor
    offsets: Tensor
    n_features: int

    @classmethod
    def from_tensor(cls, counts: Tensor) -> "SparseCounts":
        """Read a dense, a CSR or a CSC tensor.

        Parameters
        ----------
        counts
            ``(cells, features)``.
        """
        if counts.layout == torch.sparse_csc:
            counts = counts.to_sparse_csr()
        if counts.layout == torch.sparse_csr:
            # as short as they come: half of a minibatch's memory is its indices
            return cls(
                counts.values(), counts.col_indices(), counts.crow_indices(), counts.shape[1]
            )
        rows, columns = counts.nonzero(as_tuple=True)
        offsets = torch.zeros(counts.shape[0] + 1, dtype=torch.long, device=counts.device)
        offsets[1:] = torch.bincount(rows, minlength=counts.shape[0]).cumsum(0)
        return cls(counts[rows, columns], columns, offsets, counts.shape[1])

    @property
    def n_cells(self) -> int:
        """Number of rows."""
        return self.offsets.shape[0] - 1

    @cached_property
    def rows(self) -> Tensor:
        """``(nonzeros,)``, the cell of each value."""
        cells = torch.arange(self.n_cells, dtype=self.offsets.dtype, device=self.offsets.device)
        return self.spread(cells)

    @cached_property
    def depth(self) -> Tensor:
        """``(cells, 1)``, the sum of each row."""
        # in a sixth of the time of `index_add_`
        return torch.segment_reduce(self.values, "sum", offsets=self.offsets.long()).unsqueeze(-1)

    def spread(self, of_cells: Tensor) -> Tensor:
        """Give each entry, ``(nonzeros,)``, the value of its cell, ``(cells,)``; no gradient."""
        return repeat_each(of_cells, self.offsets.diff(), self.values.shape[0])

    def of_features(self, per_feature: Tensor) -> Tensor:
        """Give each entry, ``(nonzeros,)``, the value of its feature, ``(features,)``."""
        return per_feature.index_select(0, self.columns)

    def of_entries(self, matrix: Tensor) -> Tensor:
        """Read the entries, ``(nonzeros,)``, of another ``(cells, features)`` matrix."""
        places = self.rows.long() * self.n_features + self.columns
        return matrix.reshape(-1).index_select(0, places)

    def with_values(self, values: Tensor) -> "SparseCounts":
        """Return the same pattern with other values, ``(nonzeros,)``."""
        return SparseCounts(values, self.columns, self.offsets, self.n_features)

    def keep(self, kept: Tensor) -> "SparseCounts":
        """Return some of the entries, the others become zeros that are not stored.

        Parameters
        ----------
        kept
            ``(nonzeros,)``, boolean.
        """
        positions = positions_of(kept)
        # entries that are kept before each offset
        offsets = torch.searchsorted(positions, self.offsets.to(positions)).to(self.offsets)
        # several times as fast as to index by the positions, here and wherever entries are chosen
        values, columns = (t.index_select(0, positions) for t in (self.values, self.columns))
        return SparseCounts(values, columns, offsets, self.n_features)

    def of_cells(self, cells: slice) -> "SparseCounts":
        """Return the counts of some rows, from ``cells.start`` to ``cells.stop``."""
        offsets = self.offsets[cells.start : cells.stop + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        return SparseCounts(
            self.values[entries], self.columns[entries], offsets - offsets[0], self.n_features
        )

    def select_columns(self, columns: Tensor) -> "SparseCounts":
        """Return the counts of some features.

        Parameters
        ----------
        columns
            ``(chosen,)``, without repeats; they become the columns 0, 1, 2, ... in this order.
        """
        new_column = self.columns.new_full((self.n_features,), -1)
        new_column[columns] = torch.arange(len(columns), device=columns.device).to(new_column)
        moved = SparseCounts(
            self.values, new_column.index_select(0, self.columns), self.offsets, len(columns)
        )
        return moved.keep(moved.columns >= 0)

    def transposed(self) -> "SparseCounts":
        """Return the ``(features, cells)`` matrix, its entries feature by feature."""
        entries = (t.numpy() for t in (self.values, self.columns, self.offsets))
        by_row = sparse.csr_array(tuple(entries), shape=(self.n_cells, self.n_features))
        by_column = by_row.tocsc()  # in a quarter of the time of a sort
        return SparseCounts(
            values=torch.from_numpy(by_column.data),
            columns=torch.from_numpy(by_column.indices),
            offsets=torch.from_numpy(by_column.indptr),
            n_features=self.n_cells,
        )

    def column_blocks(self, size: int) -> list[ColumnBlock]:
        """Cut the matrix into blocks of so many columns; stored zeros belong to none.

        Parameters
        ----------
        size
            Columns of a block; the last may have fewer.
        """
        not_zero = self.values > 0
        by_column = (self if bool(not_zero.all()) else self.keep(not_zero)).transposed()
        blocks = slices(self.n_features, size)
        bounds = [*by_column.offsets[::size].tolist()[: len(blocks)], len(by_column.values)]
        return [
            ColumnBlock(
                columns,
                by_column.columns[bounds[i] : bounds[i + 1]],
                by_column.values[bounds[i] : bounds[i + 1]],
                by_column.offsets[columns.start : columns.stop + 1].diff(),
            )
            for i, columns in enumerate(blocks)
        ]

    def to_dense(self, out: Tensor | None = None) -> Tensor:
        """``(cells, features)``, the zeros written out, into an array if there is one."""
        shape = self.n_cells, self.n_features
        dense = self.values.new_zeros(shape) if out is None else out.zero_()
        return dense.index_put_((self.rows, self.columns), self.values)


@dataclass(frozen=True)
class DenseCounts:
    """All entries of a ``(cells, features)`` matrix, which answer as `SparseCounts` do.

    Parameters
    ----------
    values
        ``(cells, features)``, counts or a transform of them, of a floating type.
    """

    values: Tensor

    @property
    def n_cells(self) -> int:
        """Number of rows."""
        return self.values.shape[0]

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return self.values.shape[1]

    @cached_property
    def depth(self) -> Tensor:
        """``(cells, 1)``, the sum of each row."""
        return self.values.sum(-1, keepdim=True)

    def spread(self, of_cells: Tensor) -> Tensor:
        """Give the entries the value of their cell, ``(cells,)``: a column."""
        return of_cells.unsqueeze(-1)

    def of_features(self, per_feature: Tensor) -> Tensor:
        """Give the entries the value of their feature, ``(features,)``: a row."""
        return per_feature

    def with_values(self, values: Tensor) -> "DenseCounts":
        """Return other values, ``(cells, features)``."""
        return DenseCounts(values)

    def keep(self, kept: Tensor) -> "DenseCounts":
        """Return some of the entries, the others become zeros.

        Parameters
        ----------
        kept
            ``(cells, features)``, boolean.
        """
        return DenseCounts(self.values * kept)

    def select_columns(self, columns: Tensor) -> "DenseCounts":
        """Return the counts of some features.

        Parameters
        ----------
        columns
            ``(chosen,)``; they become the columns 0, 1, 2, ... in this order.
        """
        return DenseCounts(self.values.index_select(1, columns))

    def column_blocks(self, size: int) -> list[DenseColumnBlock]:
        """Cut the matrix into blocks of so many columns; as of `SparseCounts`."""
        blocks = slices(self.n_features, size)
        return [DenseColumnBlock(columns, self.values[:, columns]) for columns in blocks]

    def to_dense(self) -> Tensor:
        """``(cells, features)``."""
        return self.values


Counts = SparseCounts | DenseCounts


def written_out(tensor: Tensor, out: Tensor | None = None) -> Tensor:
    """Return a tensor as a dense one, of its own values if it is dense and nothing else is asked.

    Parameters
    ----------
    tensor
        Dense or a matrix in CSR or CSC form.
    out
        Where to write it; None for a new array.
    """
    if tensor.layout == torch.strided:
        return tensor if out is None else out.copy_(tensor)
    # on an accelerator torch's `to_dense` takes several times as long
    return SparseCounts.from_tensor(tensor).to_dense(out)


def read_counts(counts: Tensor) -> Counts:
    """Read the counts of a minibatch in the form that their device is quick at.

    Parameters
    ----------
    counts
        ``(cells, features)``, a dense, a CSR or a CSC tensor.
    """
    if counts.device.type == "cpu":
        return SparseCounts.from_tensor(counts)
    return DenseCounts(written_out(counts))
