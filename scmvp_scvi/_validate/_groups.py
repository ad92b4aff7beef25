"""Groups of cells that a user asks to compare, as rows of the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_scalar

from scmvp_scvi._validate._messages import did_you_mean, shown, warn_user
from scmvp_scvi._validate._names import check_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

Cells = str | Sequence[int] | Sequence[bool] | np.ndarray

REST = "Rest"
_MIN_CELLS = 2  # a lone cell says nothing of the spread in its group


class Comparison(NamedTuple):
    """Two disjoint groups of cells: their names, and their rows in ascending order."""

    group1: Any
    group2: Any  # "Rest" for all other cells
    rows1: NDArray[np.int64]
    rows2: NDArray[np.int64]


def compare_groups(
    column: pd.Series, group1: Any | Sequence[Any] | None, group2: Any | None
) -> list[Comparison]:
    """Pair groups of a column of `.obs`: each of some with one other, or with all other cells.

    Parameters
    ----------
    column
        ``(cells,)``, without missing values.
    group1
        Group, or groups, to compare; None for all of them.
    group2
        Group to compare with; None for the rest of the cells.

    Returns
    -------
    A comparison for each group in ``group1``.

    Raises
    ------
    ValueError
        If a group does not exist, is compared with itself, or has a single cell, or the cells
        that it is compared with are a single one; or if the column has only one group.
    TypeError
        If ``group2``, or one of those in ``group1``, is several groups.

    Warns
    -----
    UserWarning
        If ``group1`` is None and groups of a single cell are left out.
    """
    grouped = column.astype("category").cat.remove_unused_categories()
    names, sizes = list(grouped.cat.categories), grouped.value_counts()
    if len(names) < 2:
        raise ValueError(
            f'`groupby="{column.name}"` must have at least two groups, got {shown(names)} alone.'
        )
    if group2 is not None:
        if not is_scalar(group2):
            raise TypeError(
                f"`group2` must be one group, got {group2!r}. Leave it out to compare with the "
                "rest of the cells, or make a column in which these groups are one."
            )
        group2 = _check_group(group2, sizes, column.name, "group2")
    elif REST in names:
        warn_user(
            f'`groupby="{column.name}"` has a group {REST!r}, which is also what all cells but '
            "those of a group are called in the results. Give it another name, or pass it as "
            "`group2` to compare with it.",
        )
    if group1 is None:
        asked = _all_groups(sizes, names, group2, column.name)
    else:
        asked = _named_groups(sizes, group1, group2, column.name)
    if group2 is not None and group2 in asked:
        raise ValueError(f"`group1` and `group2` must be different groups, got {group2!r} twice.")
    return [_of_column(column, name, group2) for name in asked]


def _all_groups(sizes: pd.Series, names: list[Any], group2: Any | None, key: Any) -> list[Any]:
    """Groups of several cells, and of no one where the rest is a single cell."""
    _warn_about_left_out([name for name in names if sizes[name] < _MIN_CELLS])
    most = sizes.sum() - (_MIN_CELLS if group2 is None else 0)
    asked = [name for name in names if name != group2 and _MIN_CELLS <= sizes[name] <= most]
    if not asked:
        raise ValueError(
            f'`groupby="{key}"` must have groups of at least {_MIN_CELLS} cells to '
            f"compare, got none among {len(names)}: name a column of groups, not of values."
        )
    return asked


def _named_groups(sizes: pd.Series, group1: Any, group2: Any | None, key: Any) -> list[Any]:
    """Groups that the user names, as the column has them."""
    asked = [group1] if is_scalar(group1) else list(group1)
    for name in asked:
        if not is_scalar(name):
            raise TypeError(
                f"`group1` must be a group or a list of groups, got {name!r} in the list. To "
                "compare each of several in turn, list them alone; to compare them as one, "
                "make a column in which they are."
            )
    asked = [_check_group(name, sizes, key, "group1") for name in asked]
    for name in asked:
        if group2 is None and sizes.sum() - sizes[name] < _MIN_CELLS:
            raise ValueError(
                f"`group1` must leave at least {_MIN_CELLS} other cells to compare with, but "
                f'all but one are {name!r} of `groupby="{key}"`.'
            )
    again = {name for name in asked if asked.count(name) > 1}
    if again:
        raise ValueError(f"`group1` must name each group once, got {shown(again)} again.")
    if not asked:
        raise ValueError("`group1` must name at least one group of several cells, got none.")
    return asked


def compare_rows(
    rows1: NDArray[np.int64], rows2: NDArray[np.int64] | None, n_obs: int
) -> Comparison:
    """Pair two sets of cells, or one with all other cells.

    Parameters
    ----------
    rows1, rows2
        Positions of the cells; None for all that are not in ``rows1``.
    n_obs
        Number of cells.

    Raises
    ------
    ValueError
        If the sets overlap, or one has fewer than two cells.
    """
    rows1, group2 = np.unique(rows1), REST if rows2 is None else "idx2"
    rows2 = np.setdiff1d(np.arange(n_obs), rows1) if rows2 is None else np.unique(rows2)
    shared = np.intersect1d(rows1, rows2)
    if len(shared) > 0:
        raise ValueError(
            f"`idx1` and `idx2` must not share cells, but {len(shared)} are in both: rows "
            f"{shown(shared)}."
        )
    for rows, name in ((rows1, "idx1"), (rows2, "idx2")):
        if len(rows) < _MIN_CELLS:
            raise ValueError(
                f"`{name}` must choose at least {_MIN_CELLS} cells to compare, got {len(rows)}."
            )
    return Comparison("idx1", group2, rows1, rows2)


def chosen_rows(obs: pd.DataFrame, cells: Cells, *, argument: str) -> NDArray[np.int64]:
    """Positions of cells given by positions, by a mask, or by a query of ``.obs``.

    Parameters
    ----------
    obs
        Table of the cells.
    cells
        Those that are chosen.
    argument
        What the user calls them.

    Raises
    ------
    KeyError
        If a query names a column that does not exist.
    TypeError, ValueError
        If a query is no condition of the columns; as in `check_indices`.
    """
    if isinstance(cells, str):
        cells = _where_true(obs, cells, argument)
    return check_indices(cells, len(obs), argument=argument, cells=obs.index)


def leave_out_unmeasured(
    comparisons: list[Comparison],
    is_measured: NDArray[np.bool_],
    *,
    modality: str,
    all_groups: bool,
) -> list[Comparison]:
    """Leave out groups that were not measured, where all are compared in turn.

    Parameters
    ----------
    comparisons
        Those that are asked for.
    is_measured
        ``(cells,)``, true where a cell has counts in the modality that is compared.
    modality
        Its name.
    all_groups
        Whether groups are compared because they are there, and none was named.

    Returns
    -------
    The comparisons of which both groups have counts.

    Raises
    ------
    ValueError
        If a group that is named, or what groups are compared with, has none, or if none is left.

    Warns
    -----
    UserWarning
        If groups are left out.
    """
    kept, left_out = [], []
    for compared in comparisons:
        has_counts1 = is_measured[compared.rows1].any()
        has_counts2 = is_measured[compared.rows2].any()
        if has_counts1 and has_counts2:
            kept.append(compared)
        elif all_groups and has_counts2:
            left_out.append(compared.group1)
        else:
            name = compared.group2 if has_counts1 else compared.group1
            raise ValueError(
                f"Groups that are compared must have counts in `{modality}`, but no cell of "
                f"{name!r} has: their values would be those of the prior. Compare groups whose "
                "cells were measured."
            )
    if not kept:
        raise ValueError(
            f"Groups that are compared must have counts in `{modality}`, but of all only "
            f"{comparisons[0].group2!r}, which they are compared with, has."
        )
    if left_out:
        warn_user(
            f"Groups without a count in `{modality}` are not compared: {shown(left_out)}.",
        )
    return kept


def _where_true(table: pd.DataFrame, query: str, argument: str) -> NDArray[np.bool_]:
    """``(cells,)``, where a query of the columns is true."""
    rule = f"`{argument}={query!r}` must be a query of the columns of `adata.obs`"
    try:
        chosen = table.eval(query, local_dict={}, global_dict={})
    except pd.errors.UndefinedVariableError as error:
        [name] = re.findall("'(.*)'", str(error))
        name = name.removeprefix("BACKTICK_QUOTED_STRING_")  # what pandas makes of a name
        raise KeyError(
            f"{rule}, {shown(table.columns)}, got `{name}`.{did_you_mean(name, table.columns)} "
            "For columns of a modality and variables of your own, pass a mask: "
            f'`{argument}=mdata["rna"].obs[...] > ...`.'
        ) from error
    except Exception as error:  # pandas' parser and whatever the query calls
        raise ValueError(
            f"{rule}, but pandas cannot evaluate it: {type(error).__name__}, {error}. Write a "
            "condition such as `\"batch == 'a'\"`, or pass a mask."
        ) from error
    if isinstance(chosen, pd.Series) and chosen.dtype == "boolean":
        chosen = chosen.fillna(False).astype(bool)  # what is missing is not chosen
    if np.shape(chosen) != (len(table),) or np.asarray(chosen).dtype.kind != "b":
        raise ValueError(
            f"{rule} that is true or false of each cell, got values of another kind: write a "
            "condition, such as `\"batch == 'a'\"`."
        )
    return np.asarray(chosen)


def _check_group(name: Any, sizes: pd.Series, key: Any, argument: str) -> Any:
    """Return the group as the column has it: 2 for 2.0."""
    groups = sizes.index
    if name not in groups:
        alike = [group for group in groups if str(group) == str(name)]
        hint = (
            f" Pass {alike[0]!r}: the groups are of type {type(alike[0]).__name__}."
            if alike
            else did_you_mean(str(name), groups)
        )
        raise ValueError(
            f'`{argument}` must be a group of `groupby="{key}"`, got {name!r}; there are '
            f"{shown(groups)}.{hint}"
        )
    if sizes[name] < _MIN_CELLS:
        raise ValueError(
            f"`{argument}` must be a group of at least {_MIN_CELLS} cells, but {name!r} of "
            f'`groupby="{key}"` has {sizes[name]}.'
        )
    return groups.to_list()[groups.get_loc(name)]


def _warn_about_left_out(names: list[Any]) -> None:
    if names:
        warn_user(
            f"Groups of a single cell are not compared: {shown(names)}. They still count among "
            "the rest of the cells.",
        )


def _of_column(column: pd.Series, group1: Any, group2: Any | None) -> Comparison:
    is_first = (column == group1).to_numpy()
    is_second = ~is_first if group2 is None else (column == group2).to_numpy()
    name = REST if group2 is None else group2
    return Comparison(group1, name, np.flatnonzero(is_first), np.flatnonzero(is_second))
