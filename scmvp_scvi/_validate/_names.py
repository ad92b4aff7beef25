"""Names of features, and the choice of features by name and of cells by position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmvp_scvi._validate._messages import did_you_mean, folded, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray


def check_unique_features(adata: AnnData, modality: str) -> None:
    """Refuse features that share a name.

    Parameters
    ----------
    adata, modality
        One modality and its key.

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
            f'{shown(twice)}. Run `mdata["{modality}"].var_names_make_unique(); mdata.update()`.'
        )


def same_names(names: pd.Index, others: pd.Index) -> bool:
    """Whether names are the same in the same order, whatever type of strings holds them.

    Parameters
    ----------
    names, others
        Files that newer versions of anndata have written hold strings of another type.
    """
    if names.equals(others):
        return True
    return np.array_equal(names.to_numpy(dtype=object), others.to_numpy(dtype=object))


def check_feature_names(
    expected: Sequence[str] | pd.Index | NDArray[Any],
    found: Sequence[str] | pd.Index | NDArray[Any],
    *,
    modality: str,
) -> None:
    """Refuse new data whose features are not those of the model, in the same order.

    scvi-tools compares their number alone, and a permuted axis gives other results in silence.

    Parameters
    ----------
    expected, found
        The features of the model and of the new data.
    modality
        Key of the modality.

    Raises
    ------
    ValueError
        If features are duplicated, missing, added, or in another order.
    """
    model_names, new_names = pd.Index(expected), pd.Index(found)
    if same_names(model_names, new_names):
        return
    way_out = (
        "`mdata = SCMVPModel.prepare_query_mudata(mdata, model)`, with the model or the folder it "
        "was saved in"
    )
    if not new_names.is_unique:
        twice = new_names[new_names.duplicated()].unique()
        raise ValueError(
            f"`{modality}` must have the features of the model, each once, but {len(twice)} names "
            f"are duplicated: {shown(twice)}. Keep one of each."
        )
    missing = model_names[~model_names.isin(new_names)]
    extra = new_names[~new_names.isin(model_names)]
    if len(missing) > 0:
        raise ValueError(
            f"`{modality}` must have the {len(model_names)} features of the model, but "
            f"{len(missing)} are missing: {shown(missing)}"
            f"{f'; {len(extra)} others are there: {shown(extra)}' if len(extra) > 0 else ''}. "
            f"{_spelling_hint(missing, extra)}"
        )
    if len(extra) > 0:
        raise ValueError(
            f"`{modality}` must have the {len(model_names)} features of the model and no others, "
            f"but {len(extra)} were added: {shown(extra)}. Leave them out: {way_out}."
        )
    raise ValueError(
        f"`{modality}` has the features of the model in another order. Bring them into the order "
        f"of the model: {way_out}."
    )


def _spelling_hint(missing: pd.Index, extra: pd.Index) -> str:
    spelled = {folded(name): name for name in extra}
    if all(folded(name) in spelled for name in missing):
        return (
            "They are there in another spelling, with other capitals or separators: "
            f"`{spelled[folded(missing[0])]}` for `{missing[0]}`. If they mean the same, in the "
            "same species and genome, rename the features of the new data."
        )
    return (
        "Count the new cells on the features of the model, have missing ones count as zero by "
        "`SCMVPModel.prepare_query_mudata`, or train on the shared ones."
    )


def check_is_among(
    key: str, known: Collection[str], *, argument: str, what: str, way_out: str = ""
) -> None:
    """Refuse a key of a modality or of a column that is not there.

    Parameters
    ----------
    key, argument
        The key, and the argument that gives it, such as ``"atac_key"``.
    known
        The keys that are there.
    what
        What the key must be, such as ``"a modality of `mdata`"``.
    way_out
        What else can be done, a sentence.

    Raises
    ------
    KeyError
        If `key` is not one of `known`; near matches are named.
    """
    if key not in known:
        raise KeyError(
            f'`{argument}="{key}"` is not {what}, which has {shown(known)}.'
            f"{did_you_mean(key, known)}{f' {way_out}' if way_out else ''}"
        )


def check_indices(
    indices: ArrayLike | None,
    n_obs: int,
    *,
    argument: str = "indices",
    cells: pd.Index | None = None,
    cells_are: str = "mdata.obs_names",
) -> NDArray[np.int64]:
    """Turn a choice of cells into their positions.

    Parameters
    ----------
    indices
        Integers in ``[0, n_obs)``, a boolean mask of ``(n_obs,)``, or None for all cells.
    n_obs
        Number of cells.
    argument
        The argument, as the user spells it.
    cells
        Names of the cells, which the index of a boolean column is compared with; None for no look.
    cells_are
        These names, as the user spells them.

    Returns
    -------
    The positions, in the order asked for.

    Raises
    ------
    TypeError
        If `indices` are neither integers nor booleans.
    ValueError
        If none is left, a mask has another length or names the cells in another order, or a
        position does not exist.
    """
    if indices is None:
        return np.arange(n_obs)
    array = np.asarray(indices)
    if array.ndim == 0:  # as NumPy makes of a string, a slice, a set or a generator
        raise TypeError(
            f"`{argument}` must be integers or a boolean mask, got {indices!r}: pass a list, or "
            "`range(start, stop)`."
        )
    if array.ndim != 1:
        raise ValueError(f"`{argument}` must be one-dimensional, got shape {array.shape}.")
    if array.size > 0 and array.dtype.kind not in "biu":
        raise TypeError(
            f"`{argument}` must be integers or a boolean mask, got dtype {array.dtype}. For cell "
            f"names, pass `{cells_are}.get_indexer(names)`."
        )
    if array.dtype.kind == "b":
        if array.size != n_obs:
            raise ValueError(
                f"`{argument}` as a boolean mask must have one value per cell ({n_obs}), got "
                f"{array.size}."
            )
        if cells is not None and _names_others(indices, cells):
            raise ValueError(
                f"`{argument}` as a boolean column must name the cells in the order of the data, "
                "but its index is another. Bring it into that order, "
                f"`{argument}.loc[{cells_are}]`, or pass an array."
            )
        array = np.flatnonzero(array)
    if array.size == 0:
        raise ValueError(f"`{argument}` must choose at least one cell, got none.")
    if array.min() < 0 or array.max() >= n_obs:
        raise ValueError(
            f"`{argument}` must lie between 0 and {n_obs - 1}, got values from {array.min()} to "
            f"{array.max()}."
        )
    return array.astype(np.int64, copy=False)


def check_names(
    requested: Sequence[str] | pd.Index | NDArray[Any],
    available: Sequence[str] | pd.Index | NDArray[Any],
    *,
    argument: str,
    way_out: str = "Pass None for all of them.",
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
    way_out
        What to do where no name is asked for.

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
        raise ValueError(f"`{argument}` must have at least one name. {way_out}")
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(f"`{argument}` must have each name once, got {shown(twice)} again.")
    positions = options.get_indexer(names)
    unknown = names[positions < 0]
    if len(unknown) > 0:
        as_string = str(unknown[0])
        way_out = did_you_mean(as_string, options)
        if as_string in options:  # though not as what was passed
            way_out = f" Names are strings: pass {as_string!r}."
        raise KeyError(
            f"`{argument}`: {len(unknown)} of {len(names)} names are unknown: {shown(unknown)}."
            f"{way_out}"
        )
    return np.asarray(positions, dtype=np.int64)


def _names_others(table: Any, cells: pd.Index) -> bool:
    """Whether a column or a table names cells, and not these in this order."""
    named = _named_by(table)
    return named is not None and not same_names(named, cells)


def _named_by(table: Any) -> pd.Index | None:
    """Names of the rows; None for an array, and for rows that are only numbered."""
    if isinstance(table, pd.Series | pd.DataFrame) and not isinstance(table.index, pd.RangeIndex):
        return table.index
    return None


def check_same_cells(values: Any, others: Any, *, argument: str, other: str) -> None:
    """Refuse values that have not one row for each cell of others, or name the cells otherwise.

    Parameters
    ----------
    values, argument
        A row a cell, and the argument as the user spells it.
    others, other
        What it is paired with, row by row, and the argument that gives this.

    Raises
    ------
    ValueError
        If the numbers of rows differ, or both are tables or columns whose index names cells, and
        not the same in the same order.
    """
    if len(values) != len(others):
        raise ValueError(
            f"`{argument}` must have one row a cell, got {len(values)} rows for {len(others)} "
            f"cells of `{other}`."
        )
    cells = _named_by(others)
    if cells is not None and _names_others(values, cells):
        way_out = f"Bring it into that order: `{argument} = {argument}.loc[{other}.index]`"
        alone = values.index.symmetric_difference(cells, sort=False)
        if len(alone) > 0:
            way_out = f"Give a cell the same name in both: one alone has {shown(alone)}"
        raise ValueError(
            f"`{argument}` must name the cells as `{other}` does, in the same order, but its "
            f"index is another. {way_out}; or pass an array, to go by the order of its rows."
        )
