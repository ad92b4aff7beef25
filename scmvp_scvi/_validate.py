"""Checks of what users pass in: an error names the argument, the rule, the find, the way out."""

from __future__ import annotations

import bisect
import difflib
import math
import re
import warnings
from itertools import pairwise
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from mudata import MuData

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

# Values looked at in one go: small enough for the processor's cache, so that five passes over a
# block cost one pass over memory.
_BLOCK_SIZE = 1 << 18

# Above this share of fractional values the matrix is taken for a transformed one.
_MAX_FRACTIONAL_SHARE = 0.1

# `difflib` compares one pair of names in microseconds: this many pairs stay below a blink.
_MAX_COMPARED_NAMES = 2_000

_N_SHOWN = 5


# --- scalars -----------------------------------------------------------------------------------


def check_one_of(value: object, options: Collection[Any], *, name: str) -> None:
    """Refuse a value that is not among the options.

    Parameters
    ----------
    value
        What the user passed.
    options
        What is accepted.
    name
        The argument, as the user spells it.

    Raises
    ------
    ValueError
        If `value` is not one of `options`.
    """
    if value not in options:
        accepted = ", ".join(repr(option) for option in options)
        raise ValueError(f"`{name}` must be one of {accepted}, got {value!r}.")


def check_positive(value: object, *, name: str) -> None:
    """Refuse anything but a finite number above zero.

    Parameters
    ----------
    value
        What the user passed.
    name
        The argument, as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is zero, negative, infinite or NaN.
    """
    number = _as_number(value, name)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"`{name}` must be a finite number above 0, got {value!r}.")


def check_fraction(value: object, *, name: str) -> None:
    """Refuse anything but a number in [0, 1).

    Parameters
    ----------
    value
        What the user passed.
    name
        The argument, as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is below 0, not below 1, or NaN.
    """
    if not 0 <= _as_number(value, name) < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1, got {value!r}.")


def check_integer_at_least(value: object, minimum: int, *, name: str) -> None:
    """Refuse anything but an integer that is not below the minimum.

    Parameters
    ----------
    value
        What the user passed; a bool is no integer here.
    minimum
        The smallest value accepted.
    name
        The argument, as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If it is below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer, got {value!r} ({type(value).__name__}).")
    if int(value) < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value!r}.")


def _as_number(value: object, name: str) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number, got {value!r} ({type(value).__name__}).")
    return float(value)


# --- the MuData object -------------------------------------------------------------------------


def check_is_mudata(data: object) -> None:
    """Refuse anything but a MuData of shared cells, itself and its modalities no views.

    Parameters
    ----------
    data
        What the user passed.

    Raises
    ------
    TypeError
        If `data` is not a MuData.
    ValueError
        If it, or one of its modalities, is a view, or if its modalities do not share cells.
    """
    if not isinstance(data, MuData):
        found = "an AnnData" if isinstance(data, AnnData) else f"a {type(data).__name__}"
        raise TypeError(
            f"`mdata` must be a MuData with one modality per assay, got {found}. "
            'Build one from two AnnData: `mudata.MuData({"rna": rna, "atac": atac})`.'
        )
    if data.axis != 0:
        raise ValueError(
            f"`mdata` must share its cells between modalities (`axis=0`), got axis={data.axis}. "
            'Build it again: `mudata.MuData({"rna": rna, "atac": atac})`.'
        )
    views = ["`mdata` itself"] if data.is_view else []
    views += [f'`mdata["{key}"]`' for key, adata in data.mod.items() if adata.is_view]
    if views:
        raise ValueError(
            f"`mdata` must not be a view, got a view in {', '.join(views)}. "
            "Run `mdata = mdata.copy()` first."
        )


def check_modalities(
    mdata: MuData,
    modalities: Mapping[str, str | None],
    layers: Mapping[str, str | None],
) -> None:
    """Refuse modalities or layers that `mdata` does not have.

    Parameters
    ----------
    mdata
        The data.
    modalities
        Argument of the setup to the modality it is looked up in, such as
        ``{"rna_layer": "rna", "atac_layer": "atac"}``. None stands for `mdata` itself.
    layers
        The arguments that name a count matrix, such as
        ``{"rna_layer": None, "atac_layer": "counts"}``. None stands for `.X`. Each needs its own
        modality.

    Raises
    ------
    KeyError
        If a modality or a layer does not exist.
    ValueError
        If a count matrix has no modality, two of them share one, or `.X` is empty.
    """
    keys = list(mdata.mod)
    for argument, modality in modalities.items():
        if modality is not None and modality not in keys:
            raise KeyError(
                f"`modalities` maps `{argument}` to `{modality}`, which is not a modality of "
                f"`mdata`: it has {_shown(keys)}.{_did_you_mean(modality, keys)}"
            )
    taken: dict[str, str] = {}
    for argument, layer in layers.items():
        modality = modalities.get(argument)
        if modality is None:
            raise ValueError(
                f"`modalities` must name the modality of `{argument}`, got {dict(modalities)}. "
                f'Add `"{argument}": ...` with one of {_shown(keys)}.'
            )
        if modality in taken:
            raise ValueError(
                f"`modalities` must give `{taken[modality]}` and `{argument}` different "
                f"modalities, got `{modality}` for both. `mdata` has {_shown(keys)}."
            )
        taken[modality] = argument
        find_counts(mdata.mod[modality], layer, argument=argument, modality=modality)


def find_counts(adata: AnnData, layer: str | None, *, argument: str, modality: str) -> Any:
    """Look up a count matrix.

    Parameters
    ----------
    adata
        One modality.
    layer
        Name of the layer, or None for `.X`.
    argument
        The argument that names the layer.
    modality
        Key of the modality.

    Returns
    -------
    ``(cells, features)``, the matrix as it is stored.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If `.X` is empty.
    """
    names = list(adata.layers)
    if layer is not None and layer not in names:
        raise KeyError(
            f'`{argument}="{layer}"` is not a layer of `mdata["{modality}"]`, which has '
            f"{_shown(names)}. Leave `{argument}` out to use `.X`.{_did_you_mean(layer, names)}"
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(
            f'`mdata["{modality}"].X` is empty. Name the layer that holds the raw counts with '
            f"`{argument}`: there are {_shown(names)}."
        )
    return matrix


def check_paired(mdata: MuData, rna_key: str, atac_key: str) -> None:
    """Refuse modalities that do not hold the same cells in the same order.

    scvi-tools pairs the modalities row by row, without a look at the names of the cells.

    Parameters
    ----------
    mdata
        The data.
    rna_key
        Modality of the gene expression.
    atac_key
        Modality of the accessibility.

    Raises
    ------
    ValueError
        If cell names are duplicated, cells are unpaired, or the order differs between the two
        modalities and `mdata.obs`.
    """
    rna, atac = mdata.mod[rna_key].obs_names, mdata.mod[atac_key].obs_names
    for modality, names in ((rna_key, rna), (atac_key, atac)):
        _check_unique_cells(names, modality)
    if rna.equals(atac) and rna.equals(mdata.obs_names):
        return
    shared = rna.intersection(atac, sort=False)
    if len(shared) == 0 and len(rna) > 0 and len(atac) > 0:
        raise ValueError(
            f"`{rna_key}` and `{atac_key}` must hold the same cells, but no cell name is in both: "
            f"`{rna[0]}` is one in `{rna_key}`, `{atac[0]}` one in `{atac_key}`. Give a cell the "
            "same name in both and build the MuData again."
        )
    if not shared.isin(mdata.obs_names).all():
        raise ValueError(
            "`mdata.obs` does not know all cells of its modalities: they were changed after "
            "`mdata` was built. Run `mdata.update()` first."
        )
    # Written with the modalities alone: `mdata[shared]` trusts a map of rows that is out of date
    # when a modality was replaced without `mdata.update()`.
    way_out = (
        f'`shared = mdata["{rna_key}"].obs_names.intersection(mdata["{atac_key}"].obs_names); '
        f'mdata = mudata.MuData({{key: mdata[key][shared].copy() for key in ("{rna_key}", '
        f'"{atac_key}")}}, obs=mdata.obs.loc[shared])`'
    )
    if len(shared) == len(rna) == len(atac) == mdata.n_obs:
        raise ValueError(
            f"`{rna_key}`, `{atac_key}` and `mdata.obs` hold the same {mdata.n_obs} cells in "
            f"different orders, which would pair one cell with the accessibility of another. "
            f"Bring them into one order: {way_out}."
        )
    raise ValueError(
        f"scMVP needs paired cells, measured in both modalities: of the {mdata.n_obs} cells in "
        f"`mdata.obs`, {mdata.n_obs - len(rna)} are missing in `{rna_key}` and "
        f"{mdata.n_obs - len(atac)} in `{atac_key}`. Keep the {len(shared)} shared ones: "
        f"{way_out}."
    )


def _check_unique_cells(names: pd.Index, modality: str) -> None:
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(
            f"Cell names must be unique, but {len(twice)} are duplicated in `{modality}`: "
            f"{_shown(twice)}. Put the sample in front of the name in both AnnData, "
            '`adata.obs_names = adata.obs["sample"].astype(str) + "_" + adata.obs_names`, and '
            "build the MuData again."
        )


def check_unique_features(adata: AnnData, modality: str) -> None:
    """Refuse features that share a name.

    Parameters
    ----------
    adata
        One modality.
    modality
        Its key in the MuData.

    Raises
    ------
    ValueError
        If a name occurs more than once.
    """
    names = adata.var_names
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(
            f"Feature names must be unique, but {len(twice)} are duplicated in `{modality}`: "
            f'{_shown(twice)}. Run `mdata["{modality}"].var_names_make_unique(); mdata.update()`.'
        )


# --- counts ------------------------------------------------------------------------------------


class _ValueSummary(NamedTuple):
    """What the values of a matrix are like; zeros, stored or not, are left out of every count."""

    n_nonzero: int = 0
    n_not_finite: int = 0
    minimum: float = 0.0
    n_fractional: int = 0
    n_half: int = 0
    fractional_example: float = 0.0

    @property
    def is_counts(self) -> bool:
        """Whether all values are integers of zero or more."""
        return self.n_not_finite == 0 and self.n_fractional == 0 and self.minimum >= 0


def check_counts(
    matrix: Any,
    *,
    argument: str,
    modality: str,
    layer: str | None = None,
    layers: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a matrix that does not hold counts; every value is read, block by block.

    Binary values pass in silence, and so does a matrix of zeros. Up to a tenth of fractional
    values is warned about, as some protocols give half counts.

    Parameters
    ----------
    matrix
        ``(cells, features)``: CSR or CSC matrix, dense array, or one of these on disk.
    argument
        The argument that names the layer, such as ``"atac_layer"``.
    modality
        Key of the modality.
    layer
        Where the matrix comes from: the name of a layer, or None for `.X`.
    layers
        All layers of the modality. Those that hold counts are named in the error.

    Raises
    ------
    TypeError
        If the matrix is of a kind that scvi-tools cannot register.
    ValueError
        If values are NaN, infinite or negative, or more than a tenth of them is fractional.
    """
    place = f'mdata["{modality}"].' + ("X" if layer is None else f'layers["{layer}"]')
    _check_matrix_type(matrix, argument, place)
    summary = _summarize_values(matrix)
    if summary.is_counts:
        return
    subject = f"`{argument}`: `{place}` must hold raw counts, but"
    share = f"{summary.n_fractional / max(summary.n_nonzero, 1):.1%}"
    if summary.n_not_finite > 0:
        raise ValueError(
            f"{subject} {summary.n_not_finite} values are NaN or infinite. "
            f"{_where_counts_are(argument, layer, layers)}"
        )
    if summary.minimum < 0:
        raise ValueError(
            f"{subject} there are negative values, down to {summary.minimum:.4g}: the data look "
            f"scaled or centred. {_where_counts_are(argument, layer, layers)}"
        )
    if summary.n_fractional > _MAX_FRACTIONAL_SHARE * summary.n_nonzero:
        rounding = "round" if _is_dense(matrix) else "rint"
        raise ValueError(
            f"{subject} {share} of the non-zero values are not integers, such as "
            f"{summary.fractional_example:.4g}: the data look log-normalized, TF-IDF or otherwise "
            f"transformed. {_where_counts_are(argument, layer, layers)} If they are estimated "
            f"counts, round them: `{place} = {place}.{rounding}()`."
        )
    halves = "all of them half counts (n + 0.5)" if summary.n_half == summary.n_fractional else ""
    warnings.warn(
        f"`{argument}`: {summary.n_fractional} of {summary.n_nonzero} non-zero values ({share}) "
        f"of `{place}` are not integers, "
        f"{halves or f'such as {summary.fractional_example:.4g}'}. "
        "The likelihoods accept them as they are; to have integers, round them first.",
        UserWarning,
        stacklevel=3,
    )


def _check_matrix_type(matrix: Any, argument: str, place: str) -> None:
    kind = type(matrix).__name__
    if sp.issparse(matrix) and not isinstance(matrix, sp.csr_matrix | sp.csc_matrix):
        target = "csc_matrix" if matrix.format == "csc" else "csr_matrix"
        raise TypeError(
            f"`{argument}`: `{place}` is a {kind}, which scvi-tools cannot register. Convert it: "
            f"`{place} = scipy.sparse.{target}({place})`."
        )
    if not (sp.issparse(matrix) or _is_backed_sparse(matrix) or _is_dense(matrix)):
        raise TypeError(
            f"`{argument}`: `{place}` must be a `scipy.sparse.csr_matrix`, a `csc_matrix` or a "
            f"two-dimensional NumPy array, got {kind}. Convert it, for instance "
            f"`{place} = scipy.sparse.csr_matrix({place})`."
        )
    if matrix.dtype.kind not in "biuf":
        raise TypeError(
            f"`{argument}`: `{place}` must hold numbers, got dtype {matrix.dtype}. Convert it: "
            f'`{place} = {place}.astype("float32")`.'
        )


def _is_backed_sparse(matrix: Any) -> bool:
    return isinstance(matrix, CSRDataset | CSCDataset)


def _is_dense(matrix: Any) -> bool:
    # A dense matrix on disk is told by its slices: they are NumPy arrays.
    if isinstance(matrix, np.ndarray):
        return matrix.ndim == 2
    return getattr(matrix, "ndim", None) == 2 and isinstance(matrix[:0], np.ndarray)


def _summarize_values(matrix: Any) -> _ValueSummary:
    summary = _ValueSummary()
    for block in _value_blocks(matrix):
        if block.size > 0:
            summary = _add_block(summary, block)
    return summary


def _add_block(summary: _ValueSummary, block: NDArray[Any]) -> _ValueSummary:
    # NaN and infinity show in the extremes, so that clean blocks need no mask for them.
    low, high = float(block.min()), float(block.max())
    n_not_finite = 0
    if not (math.isfinite(low) and math.isfinite(high)):
        n_not_finite = int(np.count_nonzero(~np.isfinite(block)))
    n_fractional = n_half = 0
    example = summary.fractional_example
    if block.dtype.kind == "f":
        is_fractional = np.floor(block) != block
        n_fractional = int(np.count_nonzero(is_fractional))
        if n_fractional > 0:
            fractional = block[is_fractional]
            n_half = int(np.count_nonzero(fractional % 1 == 0.5))
            example = example if summary.n_fractional > 0 else float(fractional[0])
    return _ValueSummary(
        summary.n_nonzero + int(np.count_nonzero(block)),
        summary.n_not_finite + n_not_finite,
        min(summary.minimum, low),
        summary.n_fractional + n_fractional,
        summary.n_half + n_half,
        example,
    )


def _value_blocks(matrix: Any) -> Iterator[NDArray[Any]]:
    if _is_dense(matrix):
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


def _where_counts_are(argument: str, layer: str | None, layers: Mapping[str, Any] | None) -> str:
    named = [
        name
        for name, matrix in (layers or {}).items()
        if name != layer and _is_counts_matrix(matrix)
    ]
    if named:
        choices = " or ".join(f'`{argument}="{name}"`' for name in named)
        return f"These layers hold integer counts: pass {choices}."
    return f"Store the raw counts in a layer and name it with `{argument}`."


def _is_counts_matrix(matrix: Any) -> bool:
    try:
        _check_matrix_type(matrix, "", "")
    except TypeError:
        return False
    return _summarize_values(matrix).is_counts


def warn_about_empty(matrix: Any, *, modality: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Warn about cells and features without a single count.

    Parameters
    ----------
    matrix
        ``(cells, features)``, counts that `check_counts` accepts.
    modality
        Key of the modality.

    Returns
    -------
    ``(cells,)`` and ``(features,)``, true where there is no count.
    """
    cells, features = _seen(matrix)
    n_cells, n_features = int((~cells).sum()), int((~features).sum())
    if n_cells > 0:
        warnings.warn(
            f"{n_cells} of {cells.size} cells have no counts in `{modality}`. They are kept, and "
            "embedded from the other modality alone. To leave them out, filter the cells by "
            "depth first.",
            UserWarning,
            stacklevel=3,
        )
    if n_features > 0:
        warnings.warn(
            f"{n_features} of {features.size} features have no counts in `{modality}`. They carry "
            "no information and cost time. Remove them: "
            f'`scanpy.pp.filter_genes(mdata["{modality}"], min_cells=1); mdata.update()`.',
            UserWarning,
            stacklevel=3,
        )
    return ~cells, ~features


def _seen(matrix: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """``(cells,)`` and ``(features,)``, true where a value is not zero."""
    cells, features = np.zeros(matrix.shape[0], bool), np.zeros(matrix.shape[1], bool)
    if _is_dense(matrix):
        for start, block in _row_blocks(matrix):
            cells[start : start + len(block)] = (block != 0).any(axis=1)
            features |= (block != 0).any(axis=0)
        return cells, features
    data, indices, indptr = _sparse_parts(matrix)
    major, minor = (cells, features) if matrix.format == "csr" else (features, cells)
    # Whole rows (columns in CSC), cut where they fill a block.
    cuts = np.searchsorted(indptr, np.arange(0, int(indptr[-1]), _BLOCK_SIZE))
    for first, last in pairwise([*cuts, major.size]):
        start, stop = int(indptr[first]), int(indptr[last])
        # Stored zeros are no counts: they are masked, never removed from the user's matrix.
        is_count = np.asarray(data[start:stop] != 0)
        owner = np.repeat(np.arange(first, last), np.diff(indptr[first : last + 1]))
        major[owner[is_count]] = True
        minor[indices[start:stop][is_count]] = True
    return cells, features


def check_no_cell_is_empty_in_both(
    rna_empty: NDArray[np.bool_],
    atac_empty: NDArray[np.bool_],
    *,
    cell_names: pd.Index,
    modality_keys: tuple[str, str] = ("rna", "atac"),
) -> None:
    """Refuse cells that have no count in either modality.

    Parameters
    ----------
    rna_empty
        ``(cells,)``, true where a cell has no RNA count.
    atac_empty
        ``(cells,)``, true where a cell has no ATAC count.
    cell_names
        ``(cells,)``, to name the cells in the error.
    modality_keys
        Keys of the two modalities, for the way out in the error.

    Raises
    ------
    ValueError
        If there is such a cell.
    """
    empty = np.asarray(rna_empty) & np.asarray(atac_empty)
    if empty.any():
        depths = " + ".join(f'mdata["{key}"].X.sum(axis=1)' for key in modality_keys)
        raise ValueError(
            f"Each cell needs a count in at least one modality, but {int(empty.sum())} have none "
            f"in either: {_shown(cell_names[empty])}. Remove them: "
            f"`mdata = mdata[numpy.asarray({depths}).ravel() > 0].copy()`."
        )


# --- columns of obs ----------------------------------------------------------------------------


def find_obs_column(
    mdata: MuData,
    key: str,
    *,
    argument: str,
    modality: str | None,
    modality_keys: Iterable[str],
) -> pd.Series:
    """Look up a column of `.obs`; when it is elsewhere, say where.

    Parameters
    ----------
    mdata
        The data.
    key
        Name of the column.
    argument
        The argument that names it, such as ``"batch_key"``.
    modality
        The modality whose `.obs` is meant, or None for `mdata.obs`.
    modality_keys
        The modalities to search when the column is not there.

    Returns
    -------
    ``(cells,)``, the column.

    Raises
    ------
    KeyError
        If the table that is meant has no such column.
    """
    tables: dict[str | None, pd.DataFrame] = {None: mdata.obs}
    tables |= {name: mdata.mod[name].obs for name in (*modality_keys, modality) if name}
    if key in tables[modality].columns:
        return tables[modality][key]

    places = {name: _obs_of(name) for name in tables}
    wanted = places[modality]
    holders = [name for name, table in tables.items() if key in table.columns]
    if not holders:
        names = [str(column) for table in tables.values() for column in table.columns]
        raise KeyError(
            f'`{argument}="{key}"` is not a column of `{wanted}`, nor of any other table of '
            f"`mdata`. `{wanted}` has {_shown(tables[modality].columns)}."
            f"{_did_you_mean(key, list(dict.fromkeys(names)))}"
        )
    holder = holders[0]
    rule = (
        f'leave `"{argument}"` out of `modalities`'
        if holder is None
        else f'pass `modalities={{..., "{argument}": "{holder}"}}`'
    )
    raise KeyError(
        f'`{argument}="{key}"` is not a column of `{wanted}`, but of '
        f"{' and '.join(f'`{places[name]}`' for name in holders)}. Either {rule}, or copy the "
        f'column: `{wanted}["{key}"] = {places[holder]}["{key}"]`.'
    )


def _obs_of(modality: str | None) -> str:
    return "mdata.obs" if modality is None else f'mdata["{modality}"].obs'


def check_no_missing(series: pd.Series, *, argument: str) -> None:
    """Refuse a categorical column with missing values.

    Parameters
    ----------
    series
        ``(cells,)``, a column of `.obs`.
    argument
        The argument that names it.

    Raises
    ------
    ValueError
        If a value is missing.
    """
    n_missing = int(series.isna().sum())
    if n_missing > 0:
        raise ValueError(
            f'`{argument}`: the column "{series.name}" must have a category for each cell, but '
            f"{n_missing} of {len(series)} are missing. Name them, for instance with "
            f'`obs["{series.name}"] = obs["{series.name}"].astype(object).fillna("unknown")`, or '
            "remove these cells."
        )


def check_numeric_finite(series: pd.Series, *, argument: str) -> None:
    """Refuse a continuous column that is not made of finite numbers.

    Parameters
    ----------
    series
        ``(cells,)``, a column of `.obs`.
    argument
        The argument that names it.

    Raises
    ------
    TypeError
        If the column is not numeric.
    ValueError
        If a value is missing or infinite.
    """
    if not pd.api.types.is_numeric_dtype(series.dtype):
        raise TypeError(
            f'`{argument}`: the column "{series.name}" must be numeric, got dtype {series.dtype}. '
            f'Convert it, `obs["{series.name}"] = obs["{series.name}"].astype(float)`, or use it '
            "as a categorical covariate."
        )
    values = series.to_numpy(dtype=float, na_value=np.nan)
    n_not_finite = int(np.count_nonzero(~np.isfinite(values)))
    if n_not_finite > 0:
        raise ValueError(
            f'`{argument}`: the column "{series.name}" must be finite, but {n_not_finite} of '
            f"{len(series)} values are NaN or infinite. Fill them, for instance with the median, "
            "or remove these cells."
        )


def check_positive_column(series: pd.Series, *, argument: str) -> None:
    """Refuse a column that is not made of finite numbers above zero, as size factors are.

    Parameters
    ----------
    series
        ``(cells,)``, a column of `.obs`.
    argument
        The argument that names it.

    Raises
    ------
    TypeError
        If the column is not numeric.
    ValueError
        If a value is missing, infinite, zero or negative.
    """
    check_numeric_finite(series, argument=argument)
    n_not_positive = int((series <= 0).sum())
    if n_not_positive > 0:
        raise ValueError(
            f'`{argument}`: the column "{series.name}" must be above 0, but {n_not_positive} of '
            f"{len(series)} values are not, down to {series.min():.4g}. Size factors scale the "
            "expected counts: pass them as they are, not their logarithms."
        )


# --- names and positions -----------------------------------------------------------------------


def check_feature_names(
    expected: Sequence[str] | pd.Index | NDArray[Any],
    found: Sequence[str] | pd.Index | NDArray[Any],
    *,
    modality: str,
    expected_from: str | None = None,
) -> None:
    """Refuse new data whose features are not those of the model, in the same order.

    scvi-tools compares their number alone, and a permuted axis gives other results in silence.

    Parameters
    ----------
    expected
        The features of the model.
    found
        The features of the new data.
    modality
        Key of the modality.
    expected_from
        The expression that gives `expected` to the user, for the way out in the error. By
        default ``model.adata["<modality>"].var_names``.

    Raises
    ------
    ValueError
        If features are duplicated, missing, added, or in another order.
    """
    model_names, new_names = pd.Index(expected), pd.Index(found)
    if model_names.equals(new_names):
        return
    names_from = expected_from or f'model.adata["{modality}"].var_names'
    way_out = (
        f"`names = {names_from}; mdata = mudata.MuData({{**mdata.mod, "
        f'"{modality}": mdata["{modality}"][:, names].copy()}}, obs=mdata.obs)`'
    )
    if not new_names.is_unique:
        twice = new_names[new_names.duplicated()].unique()
        raise ValueError(
            f"`{modality}` must have the features of the model, each once, but {len(twice)} names "
            f"are duplicated: {_shown(twice)}. Keep one of each."
        )
    missing = model_names[~model_names.isin(new_names)]
    extra = new_names[~new_names.isin(model_names)]
    if len(missing) > 0:
        raise ValueError(
            f"`{modality}` must have the {len(model_names)} features of the model, but "
            f"{len(missing)} are missing: {_shown(missing)}"
            f"{f'; {len(extra)} others are there: {_shown(extra)}' if len(extra) > 0 else ''}. "
            f"{_spelling_hint(missing, extra)}"
        )
    if len(extra) > 0:
        raise ValueError(
            f"`{modality}` must have the {len(model_names)} features of the model and no others, "
            f"but {len(extra)} were added: {_shown(extra)}. Leave them out: {way_out}."
        )
    raise ValueError(
        f"`{modality}` has the features of the model in another order. Bring them into the order "
        f"of the model: {way_out}."
    )


def _spelling_hint(missing: pd.Index, extra: pd.Index) -> str:
    spelled = {_folded(name): name for name in extra}
    if all(_folded(name) in spelled for name in missing):
        return (
            "They are there in another spelling, with other capitals or separators: "
            f"`{spelled[_folded(missing[0])]}` for `{missing[0]}`. If they mean the same, in the "
            "same species and genome, rename the features of the new data."
        )
    return "Count the new cells on the features of the model, or train on the shared ones."


def check_indices(indices: ArrayLike | None, n_obs: int) -> NDArray[np.int64]:
    """Turn a choice of cells into their positions.

    Parameters
    ----------
    indices
        Integers in ``[0, n_obs)``, a boolean mask of ``(n_obs,)``, or None for all cells.
    n_obs
        Number of cells.

    Returns
    -------
    The positions, in the order asked for.

    Raises
    ------
    TypeError
        If `indices` are neither integers nor booleans.
    ValueError
        If none is left, a mask has another length, or a position does not exist.
    """
    if indices is None:
        return np.arange(n_obs)
    array = np.asarray(indices)
    if array.ndim != 1:
        raise ValueError(f"`indices` must be one-dimensional, got shape {array.shape}.")
    if array.size > 0 and array.dtype.kind not in "biu":
        raise TypeError(
            f"`indices` must be integers or a boolean mask, got dtype {array.dtype}. For cell "
            "names, pass `mdata.obs_names.get_indexer(names)`."
        )
    if array.dtype.kind == "b":
        if array.size != n_obs:
            raise ValueError(
                f"`indices` as a boolean mask must have one value per cell ({n_obs}), got "
                f"{array.size}."
            )
        array = np.flatnonzero(array)
    if array.size == 0:
        raise ValueError("`indices` must choose at least one cell, got none.")
    if array.min() < 0 or array.max() >= n_obs:
        raise ValueError(
            f"`indices` must lie between 0 and {n_obs - 1}, got values from {array.min()} to "
            f"{array.max()}."
        )
    return array.astype(np.int64, copy=False)


def check_names(
    requested: Sequence[str] | pd.Index | NDArray[Any],
    available: Sequence[str] | pd.Index | NDArray[Any],
    *,
    argument: str,
) -> NDArray[np.int64]:
    """Turn names of features into their positions.

    Parameters
    ----------
    requested
        The names the user asks for.
    available
        All names, each once.
    argument
        The argument, such as ``"gene_list"``.

    Returns
    -------
    ``(requested,)``, positions in `available`, in the order asked for.

    Raises
    ------
    TypeError
        If a single string is passed.
    KeyError
        If a name does not exist.
    ValueError
        If no name is asked for, or one is asked for twice.
    """
    if isinstance(requested, str):
        raise TypeError(f'`{argument}` must be a list of names, got a string: ["{requested}"]?')
    names, options = pd.Index(requested), pd.Index(available)
    if len(names) == 0:
        raise ValueError(f"`{argument}` must have at least one name. Pass None for all of them.")
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(f"`{argument}` must have each name once, got {_shown(twice)} again.")
    positions = options.get_indexer(names)
    unknown = names[positions < 0]
    if len(unknown) > 0:
        raise KeyError(
            f"`{argument}`: {len(unknown)} of {len(names)} names are unknown: {_shown(unknown)}."
            f"{_did_you_mean(str(unknown[0]), options)}"
        )
    return np.asarray(positions, dtype=np.int64)


def _shown(names: Iterable[Any]) -> str:
    """List the first few names, and say how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - _N_SHOWN} more" if len(listed) > _N_SHOWN else ""
    return (", ".join(f"`{name}`" for name in listed[:_N_SHOWN]) or "none") + rest


def _did_you_mean(name: str, options: Iterable[str]) -> str:
    near = _near_matches(name, [str(option) for option in options])
    return f" Did you mean {' or '.join(f'`{match}`' for match in near)}?" if near else ""


def _near_matches(name: str, options: list[str]) -> list[str]:
    folded_name = _folded(name)
    folded = sorted((_folded(option), option) for option in options)
    # Among very many names, those that begin alike stand next to it in alphabetic order.
    middle, reach = bisect.bisect_left(folded, (folded_name, "")), _MAX_COMPARED_NAMES // 2
    neighbours = dict(folded[max(0, middle - reach) : middle + reach])
    close = difflib.get_close_matches(folded_name, list(neighbours), n=3)
    return [neighbours[match] for match in close]


def _folded(name: str) -> str:
    """Drop capitals and unify separators, so that two spellings of a name become equal."""
    return re.sub(r"[^0-9a-z]+", "-", str(name).casefold())
