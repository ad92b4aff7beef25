"""Matrices in memory and on disk, read block by block and never copied whole."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata.abc import CSCDataset, CSRDataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Values looked at in one go: small enough for the processor's cache, so that five passes over a
# block cost one pass over memory.
_BLOCK_SIZE = 1 << 18


def is_backed_sparse(matrix: Any) -> bool:
    """Whether this is a CSR or CSC matrix on disk."""
    return isinstance(matrix, CSRDataset | CSCDataset)


def is_dense(matrix: Any) -> bool:
    """Whether this is a two-dimensional array, in memory or on disk."""
    # A dense matrix on disk is told by its slices: they are NumPy arrays.
    if isinstance(matrix, np.ndarray):
        return matrix.ndim == 2
    return getattr(matrix, "ndim", None) == 2 and isinstance(matrix[:0], np.ndarray)


def value_blocks(matrix: Any) -> Iterator[NDArray[Any]]:
    """All values but the zeros that are not stored, in no order of cells or features."""
    if is_dense(matrix):
        # The transpose of a column-major array is row-major, and its values are the same.
        is_column_major = isinstance(matrix, np.ndarray) and matrix.flags.f_contiguous
        for _, block in _row_blocks(matrix.T if is_column_major else matrix):
            yield block
        return
    data, _, indptr = _sparse_parts(matrix)
    # scipy allows arrays longer than the last pointer; what lies behind it is not in the matrix.
    n_stored = int(indptr[-1])
    for start in range(0, n_stored, _BLOCK_SIZE):
        yield data[start : min(start + _BLOCK_SIZE, n_stored)]


def seen_cells_and_features(matrix: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """``(cells,)`` and ``(features,)``, true where a value is not zero."""
    cells, features = np.zeros(matrix.shape[0], bool), np.zeros(matrix.shape[1], bool)
    if is_dense(matrix):
        for start, block in _row_blocks(matrix):
            cells[start : start + len(block)] = (block != 0).any(axis=1)
            features |= (block != 0).any(axis=0)
        return cells, features
    data, indices, indptr = _sparse_parts(matrix)
    major, minor = (cells, features) if matrix.format == "csr" else (features, cells)
    for entries, owner in _entry_blocks(indptr):
        # Stored zeros are no counts: they are masked, never removed from the user's matrix.
        is_count = np.asarray(data[entries] != 0)
        major[owner[is_count]] = True
        minor[indices[entries][is_count]] = True
    return cells, features


def has_repeated_entries(matrix: Any) -> bool:
    """Whether a sparse matrix stores an entry more than once, which stands for the sum."""
    if is_dense(matrix) or (sp.issparse(matrix) and matrix.has_canonical_format):
        return False
    _, indices, indptr = _sparse_parts(matrix)
    n_minor = matrix.shape[1] if matrix.format == "csr" else matrix.shape[0]
    for entries, owner in _entry_blocks(indptr):
        places = owner * n_minor + indices[entries]
        if (np.diff(places) <= 0).any() and len(np.unique(places)) < len(places):
            return True
    return False


def _entry_blocks(indptr: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """Stored entries of whole rows (columns in CSC), cut where they fill a block, and the rows."""
    cuts = np.searchsorted(indptr, np.arange(0, int(indptr[-1]), _BLOCK_SIZE))
    for first, last in pairwise([*cuts, len(indptr) - 1]):
        owner = np.repeat(np.arange(first, last), np.diff(indptr[first : last + 1]))
        yield slice(int(indptr[first]), int(indptr[last])), owner


def _row_blocks(matrix: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    n_rows, n_columns = matrix.shape
    step = max(1, _BLOCK_SIZE // max(n_columns, 1))
    for start in range(0, n_rows, step):
        yield start, np.asarray(matrix[start : start + step])


def _sparse_parts(matrix: Any) -> tuple[Any, Any, NDArray[Any]]:
    """Values, indices and pointers of a compressed matrix; the first two stay on disk if there."""
    if sp.issparse(matrix):
        return matrix.data, matrix.indices, matrix.indptr
    return matrix.group["data"], matrix.group["indices"], matrix.group["indptr"][:]
