"""Values to correlate or average: counts, a layer or denoised ones, read by columns."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scmvp_scvi._keys import MODALITIES, Kind
from scmvp_scvi._mudata import as_csr
from scmvp_scvi._validate import (
    check_counts,
    check_has_cells,
    check_in_memory,
    check_keys_of_pair,
    check_paired,
    check_unique_features,
    find_counts,
    find_grouping,
    has_views,
    seen_cells_and_features,
    shown,
    spelled_matrix,
    warn_about_reads,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mudata import MuData
    from numpy.typing import NDArray

    Read = Callable[[NDArray[np.int64]], NDArray[np.float64]]

# Denoised profiles are shares of a cell's counts; this depth brings them to the scale of counts.
_DENOISED_DEPTH = 1e4
_DENOISED = {"rna": "get_normalized_expression", "atac": "get_normalized_accessibility"}


class PairedValues(NamedTuple):
    """Values of both modalities in the same cells, or groups of cells.

    ``rna`` and ``atac`` take positions of features, and return ``(rows, features)``.
    """

    rows: pd.Index
    rna: Read
    atac: Read

    def of(self, modality: Kind) -> Read:
        """Return what reads the values of a modality."""
        return self.rna if modality == "rna" else self.atac


def check_pair(mdata: MuData, rna_key: str, atac_key: str) -> None:
    """Refuse data without two modalities of the same cells in the same order.

    Parameters
    ----------
    mdata
        The data.
    rna_key, atac_key
        Keys of the two modalities.

    Raises
    ------
    TypeError, KeyError, ValueError
        If these are not paired data in memory, or features share a name.
    """
    check_keys_of_pair(mdata, rna_key, atac_key)
    check_in_memory(mdata, rna_key, atac_key)
    for key in (rna_key, atac_key):
        check_unique_features(mdata[key], key)
    check_paired(mdata, rna_key, atac_key)


def find_values(mdata: MuData, key: str, layer: str | None, *, argument: str) -> Any:
    """Look up the matrix of a modality, one that holds values.

    Parameters
    ----------
    mdata
        The data.
    key
        The modality.
    layer, argument
        Name of the layer, None for ``.X``, and the argument that gives it.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If it has no cell, or holds no value but zeros, as in minified data.
    """
    matrix = find_counts(mdata[key], layer, argument=argument, modality=key)
    check_has_cells(matrix, key)
    if sp.issparse(matrix) and matrix.nnz == 0:
        raise ValueError(
            f"`{argument}`: the matrix of `{key}` must hold values, but all are zero. Minified "
            "data no longer have counts: pass the data with counts."
        )
    return matrix


def check_finite(
    mdata: MuData,
    key: str,
    layer: str | None,
    values: Any,
    columns: NDArray[np.int64],
    *,
    argument: str,
) -> None:
    """Refuse values of a matrix that are NaN or infinite: scores and means would be missing.

    Parameters
    ----------
    mdata, key, layer, argument
        As in `find_values`.
    values, columns
        ``(cells, columns)``, some columns of the matrix, and which these are.

    Raises
    ------
    ValueError
        If there is such a value.
    """
    is_sparse = sp.issparse(values)
    lost = ~np.isfinite(values.data if is_sparse else values)
    if lost.any():
        features = np.unique(columns[values.tocoo().col[lost] if is_sparse else lost.nonzero()[1]])
        place = spelled_matrix(key, layer)
        stored = "values.data" if is_sparse else "values"
        raise ValueError(
            f"`{argument}`: `{place}` must hold finite values, but {lost.sum()} are NaN or "
            f"infinite, of {shown(mdata[key].var_names[features])}. Leave out these "
            f"features, or fill them: `values = {place}; {stored}[~numpy.isfinite({stored})] = 0`."
        )


def find_groups(
    mdata: MuData, key: str, *, argument: str, modality_keys: Iterable[str]
) -> pd.Series:
    """``(cells,)``, what `find_grouping` returns, as categories of which none is empty."""
    column = find_grouping(mdata, key, argument=argument, modality_keys=modality_keys)
    return column.astype("category").cat.remove_unused_categories()


def read_values(
    mdata: MuData,
    *,
    model: Any,
    rna_layer: str | None,
    atac_layer: str | None,
    normalize: bool,
    groupby: str | None,
    rna_key: str,
    atac_key: str,
) -> PairedValues:
    r"""Prepare the values of both modalities, to be read by columns.

    Parameters
    ----------
    mdata
        Paired data.
    model
        Its denoised values are read, as :math:`\log(1 + 10^4 s)` of shares :math:`s`; None for
        the matrices of `mdata`.
    rna_layer, atac_layer
        Layers; None for ``.X``.
    normalize
        Whether the matrices hold counts, which become :math:`\log(1 + x d / d_i)` with the depth
        :math:`d_i` of a cell and the median depth :math:`d`, or values to be taken as they are.
    groupby
        Column, as `find_grouping` finds it, whose groups take the place of cells: counts are
        summed, other values averaged.
    rna_key, atac_key
        The two modalities.

    Returns
    -------
    The values. Cells (groups) without a count in one of the modalities are left out where counts
    are read. A modality is prepared, and refused if it should hold counts and does not, when it is
    first read: one that is not read may hold values that are no counts. ATAC counts that look
    like reads are warned about then.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there are no such values; while reading, if values taken as they are are not finite.
    """
    groups = (
        None
        if groupby is None
        else find_groups(mdata, groupby, argument="groupby", modality_keys=(rna_key, atac_key))
    )
    rows = mdata.obs_names if groups is None else pd.Index(groups.cat.categories)
    if model is not None:
        _check_denoises(model)
        if has_views(mdata):  # which the model would copy for each block
            mdata = mdata.copy()
        return PairedValues(
            rows,
            _read_denoised(mdata, model, "rna", mdata[rna_key].var_names, groups),
            _read_denoised(mdata, model, "atac", mdata[atac_key].var_names, groups),
        )
    sides = (("rna_layer", rna_key, rna_layer), ("atac_layer", atac_key, atac_layer))
    matrices = [find_values(mdata, key, layer, argument=name) for name, key, layer in sides]
    if not normalize:
        of_rna, of_atac = (
            _read_as_it_is(matrix, groups, partial(check_finite, mdata, key, layer, argument=name))
            for matrix, (name, key, layer) in zip(matrices, sides, strict=True)
        )
        return PairedValues(rows, of_rna, of_atac)
    has_both = _has_values(matrices[0], groups) & _has_values(matrices[1], groups)

    def normalized(matrix: Any, argument: str, key: str, layer: str | None) -> sp.csc_matrix:
        check_counts(matrix, argument=argument, modality=key, layer=layer, adata=mdata[key])
        if argument == "atac_layer":
            warn_about_reads(matrix, modality=key, layer=layer)
        return _log_normalize(_sum(as_csr(matrix), groups)[has_both])

    of_rna, of_atac = (
        _read_matrix(partial(normalized, matrix, *side))
        for matrix, side in zip(matrices, sides, strict=True)
    )
    return PairedValues(rows[has_both], of_rna, of_atac)


def _check_denoises(model: Any) -> None:
    missing = [name for name in _DENOISED.values() if not hasattr(model, name)]
    if missing:
        raise TypeError(
            "`model` must give denoised values, as a trained `SCMVPModel` does, but "
            f"{type(model).__name__} has no {' and no '.join(f'`{name}`' for name in missing)}."
        )


def _read_denoised(
    mdata: MuData, model: Any, modality: Kind, names: pd.Index, groups: pd.Series | None
) -> Read:
    denoise = getattr(model, _DENOISED[modality])

    def read(columns: NDArray[np.int64]) -> NDArray[np.float64]:
        asked = {MODALITIES[modality].features: list(names[columns])}
        values = denoise(mdata, library_size=_DENOISED_DEPTH, return_numpy=True, **asked)
        averaged: NDArray[np.float64] = _average(np.log1p(values, dtype=np.float64), groups)
        return averaged

    return read


def _read_matrix(prepare: Callable[[], Any]) -> Read:
    """Read a matrix that is prepared once, and not before it is needed."""
    prepared = cache(prepare)

    def read(columns: NDArray[np.int64]) -> NDArray[np.float64]:
        return _as_array(prepared()[:, columns])

    return read


def _read_as_it_is(
    matrix: Any, groups: pd.Series | None, check: Callable[[Any, NDArray[np.int64]], None]
) -> Read:
    """Read values of a matrix, or their averages over groups, and check those that are read."""
    by_column = cache(lambda: matrix.tocsc() if sp.issparse(matrix) else matrix)

    def read(columns: NDArray[np.int64]) -> NDArray[np.float64]:
        values = by_column()[:, columns]
        check(values, columns)
        return _as_array(_average(values, groups))

    return read


def _as_array(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float64)


def _membership(groups: pd.Series) -> sp.csr_matrix:
    """``(groups, cells)``, 1 where a cell is in a group."""
    codes = groups.cat.codes.to_numpy()
    ones = np.ones(codes.size, np.float32)
    return sp.csr_matrix((ones, (codes, np.arange(codes.size))))


def _has_values(matrix: Any, groups: pd.Series | None) -> NDArray[np.bool_]:
    """``(rows,)``, true where a cell, or one of the group, has a value other than zero."""
    cells, _ = seen_cells_and_features(matrix)
    return cells if groups is None else np.asarray(_membership(groups) @ cells > 0)


def _sum(counts: sp.csr_matrix, groups: pd.Series | None) -> sp.csr_matrix:
    return counts if groups is None else _membership(groups) @ counts


def _average(values: Any, groups: pd.Series | None) -> Any:
    if groups is None:
        return values
    members = _membership(groups)
    size = members.sum(axis=1, dtype=np.float64).A1
    return sp.diags(1 / size) @ members @ values


def _log_normalize(counts: sp.csr_matrix) -> sp.csc_matrix:
    depth = counts.sum(axis=1, dtype=np.float64).A1
    factor = np.median(depth) / depth if depth.size > 0 else depth
    # Single precision comes after the product: equal ratios then stay ties among ranks.
    scaled = (sp.diags(factor) @ counts).astype(np.float32)
    # by columns, as it will be read
    return scaled.log1p().tocsc()
