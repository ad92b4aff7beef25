"""Columns of tables, mostly `.obs`: where they are, and whether their values can be used."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scmvp_scvi._validate._messages import did_you_mean, shown, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mudata import MuData


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
    key, argument
        Name of the column, and the argument that gives it, such as ``"batch_key"``.
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
    ValueError
        If it has several of this name.
    """
    tables: dict[str | None, pd.DataFrame] = {None: mdata.obs}
    tables |= {name: mdata.mod[name].obs for name in (*modality_keys, modality) if name}
    places = {name: f"{spelled(name)}.obs" for name in tables}
    wanted = places[modality]
    if key in tables[modality].columns:
        column = tables[modality][key]
        if isinstance(column, pd.DataFrame):
            raise ValueError(
                f'`{argument}="{key}"` must be one column of `{wanted}`, but {column.shape[1]} '
                "have this name. Rename them, or keep the first of each name: "
                f"`{wanted} = {wanted}.loc[:, ~{wanted}.columns.duplicated()]`."
            )
        return column

    holders = [name for name, table in tables.items() if key in table.columns]
    if not holders:
        names = [str(column) for table in tables.values() for column in table.columns]
        raise KeyError(
            f'`{argument}="{key}"` is not a column of `{wanted}`, nor of any other table of '
            f"`mdata`. `{wanted}` has {shown(tables[modality].columns)}."
            f"{did_you_mean(key, list(dict.fromkeys(names)))}"
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


def find_grouping(
    mdata: MuData,
    key: str,
    *,
    argument: str,
    modality_keys: Iterable[str],
    allow_missing: bool = False,
) -> pd.Series:
    """Look up a column that groups the cells: in `mdata.obs`, or else in the modalities.

    Parameters
    ----------
    mdata
        The data. Modalities may hold different cells, each once; of a cell whose value is missing
        in one, that of the other counts.
    key, argument
        Name of the column, and the argument that gives it, such as ``"groupby"``.
    modality_keys
        The modalities to search when the column is not in `mdata.obs`.
    allow_missing
        Whether cells may be without a group.

    Returns
    -------
    ``(cells,)``, the column.

    Raises
    ------
    TypeError
        If `key` is a list.
    KeyError
        If there is no such column.
    ValueError
        If several columns have this name, modalities disagree about the column, or values are
        missing that must not.
    """
    if not isinstance(key, Hashable):
        raise TypeError(
            f"`{argument}` must name one column, got {key!r}. To group by several, join them into "
            'one: `mdata.obs["group"] = mdata.obs["a"].astype(str) + "_" + '
            'mdata.obs["b"].astype(str)`.'
        )
    modality_keys = list(modality_keys)
    holders = [name for name in modality_keys if key in mdata.mod[name].obs.columns]
    if key in mdata.obs.columns or not holders:
        column = find_obs_column(
            mdata, key, argument=argument, modality=None, modality_keys=modality_keys
        )
    else:
        # where one modality says nothing of a cell, as of one not measured, the other may
        columns = [
            find_obs_column(
                mdata, key, argument=argument, modality=name, modality_keys=modality_keys
            )
            for name in holders
        ]
        found = pd.concat([column.dropna() for column in columns])
        column = found[~found.index.duplicated()]
        if (found.astype(object).map(str).groupby(level=0).nunique() > 1).any():
            places = " and ".join(f"`{spelled(name)}.obs`" for name in holders)
            raise ValueError(
                f'`{argument}="{key}"` is a column of {places}, with different values. Say '
                f'which is meant: `mdata.obs["{key}"] = {spelled(holders[0])}.obs["{key}"]`.'
            )
        column = column.reindex(mdata.obs_names)
    if not allow_missing:
        check_no_missing(column, argument=argument)
    return column


def check_no_missing(series: pd.Series, *, argument: str) -> None:
    """Refuse a categorical column with missing values.

    Parameters
    ----------
    series, argument
        ``(cells,)``, a column of `.obs`, and the argument that names it.

    Raises
    ------
    ValueError
        If a value is missing.
    """
    n_missing = int(series.isna().sum())
    if n_missing > 0:
        is_label = argument == "labels_key"
        name = "Unknown" if is_label else "unknown"
        meant = ", as the model calls cells without a label" if is_label else ""
        raise ValueError(
            f'`{argument}`: the column "{series.name}" must have a category for each cell, but '
            f"{n_missing} of {len(series)} are missing. Name them{meant}, for instance with "
            f'`obs["{series.name}"] = obs["{series.name}"].astype(object).fillna("{name}")`, or '
            "remove these cells."
        )


def check_categories(series: pd.Series, *, argument: str) -> None:
    """Refuse a column of missing values, of names and numbers, or of categories without a cell.

    Names and numbers cannot be put in order, as scvi-tools puts categories. To a category without
    a cell it would give weights, which no cell trains.

    Parameters
    ----------
    series, argument
        ``(cells,)``, a column of `.obs`, and the argument that names it.

    Raises
    ------
    TypeError
        If some values are strings and others are not.
    ValueError
        If a value is missing, or a category is not used.
    """
    check_no_missing(series, argument=argument)
    values = list(series.unique())
    if len({isinstance(value, str) for value in values}) > 1:
        kinds = sorted({type(value).__name__ for value in values})
        raise TypeError(
            f'`{argument}`: the column "{series.name}" must hold values of one type, got '
            f"{shown(kinds)}. Make strings of all: "
            f'`obs["{series.name}"] = obs["{series.name}"].astype(str)`.'
        )
    if not isinstance(series.dtype, pd.CategoricalDtype):
        return
    unused = series.cat.categories.difference(series.unique(), sort=False)
    if len(unused) > 0:
        raise ValueError(
            f'`{argument}`: each category of the column "{series.name}" must have a cell, but '
            f"{shown(unused)} have none, as after taking some of the cells. Drop them: "
            f'`obs["{series.name}"] = obs["{series.name}"].cat.remove_unused_categories()`.'
        )


def check_column_names(names: object, *, argument: str) -> None:
    """Refuse anything but a list of different names, where several columns can be named.

    Parameters
    ----------
    names, argument
        What the user passed, None for no columns, and the argument.

    Raises
    ------
    TypeError
        If it is no list.
    ValueError
        If a name is repeated.
    """
    if names is None:
        return
    if not isinstance(names, list):
        way_out = [names] if isinstance(names, str) else "[...]"
        raise TypeError(
            f"`{argument}` must be a list of columns, got {names!r}. Pass `{argument}={way_out}`."
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(
            f"`{argument}` must name each column once, got {shown(sorted(twice))} more than once."
        )


def check_table_of_features(table: Any, *, argument: str, made_by: str) -> None:
    """Refuse anything but a table with a column for each of its features.

    Parameters
    ----------
    table, argument
        What the user passed, and the argument.
    made_by
        The function that makes such tables.

    Raises
    ------
    TypeError
        If it is no table.
    ValueError
        If a name is there more than once.
    """
    check_has_columns(table, (), argument=argument, made_by=made_by)
    names = table.columns
    is_again = names.duplicated()
    if is_again.any():
        raise ValueError(
            f"`{argument}` must have one column for each name, but {is_again.sum()} are there "
            f"again: {shown(names[is_again].unique())}. Ask `{made_by}` for each once, or keep "
            f"the first: `{argument} = {argument}.loc[:, ~{argument}.columns.duplicated()]`."
        )


def check_has_columns(
    table: object, columns: Iterable[str], *, argument: str, made_by: str
) -> None:
    """Refuse anything but a table that has certain columns.

    Parameters
    ----------
    table, argument
        What the user passed, and the argument.
    columns
        The columns that are needed.
    made_by
        The function that makes such tables.

    Raises
    ------
    TypeError
        If it is no table.
    KeyError
        If a column is missing.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"`{argument}` must be a table, as `{made_by}` returns it, got a "
            f"{type(table).__name__}."
        )
    missing = [name for name in columns if name not in table]
    if missing:
        raise KeyError(
            f"`{argument}` must have the columns of `{made_by}`, but has no {shown(missing)}: it "
            f"has {shown(table.columns)}."
        )


def check_numeric_finite(
    series: pd.Series,
    *,
    argument: str,
    table: str = "obs",
    rows: str = "cells",
    otherwise: str = "use it as a categorical covariate",
) -> None:
    """Refuse a continuous column that is not made of finite numbers.

    Parameters
    ----------
    series, argument
        ``(cells,)``, a column of `.obs`, and the argument that names it.
    table, rows, otherwise
        The table, as the user spells it, what its rows are, and what else can be done with a
        column that is not numeric.

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
            f'Convert it, `{table}["{series.name}"] = {table}["{series.name}"].astype(float)`, or '
            f"{otherwise}."
        )
    values = series.to_numpy(dtype=float, na_value=np.nan)
    n_not_finite = int(np.count_nonzero(~np.isfinite(values)))
    if n_not_finite > 0:
        raise ValueError(
            f'`{argument}`: the column "{series.name}" must be finite, but {n_not_finite} of '
            f"{len(series)} values are NaN or infinite. Fill them, for instance with the median, "
            f"or remove these {rows}."
        )


def check_positive_column(series: pd.Series, *, argument: str) -> None:
    """Refuse a column that is not made of finite numbers above zero, as size factors are.

    Parameters
    ----------
    series, argument
        ``(cells,)``, a column of `.obs`, and the argument that names it.

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
