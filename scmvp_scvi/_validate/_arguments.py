"""Checks of single values, options, numbers, fractions, integers, and of tables of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray


def check_one_of(value: object, options: Collection[Any], *, name: str) -> None:
    """Refuse a value that is not among the options.

    Parameters
    ----------
    value, name
        What the user passed, and the argument as the user spells it.
    options
        What is accepted.

    Raises
    ------
    ValueError
        If `value` is not one of `options`.
    """
    if value not in options:
        accepted = ", ".join(repr(option) for option in options)
        raise ValueError(f"`{name}` must be one of {accepted}, got {value!r}.")


def check_in(value: object, interval: str, *, name: str) -> None:
    """Refuse anything but a number in an interval.

    Parameters
    ----------
    value
        What the user passed.
    interval
        As it is written in mathematics: ``"[0, 1)"`` with 0 and without 1, ``"(0, inf)"`` of
        finite numbers.
    name
        The argument as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is outside of the interval, or NaN.
    """
    number = _as_number(value, name)
    low, high = (float(end) for end in interval[1:-1].split(","))
    is_above = low < number if interval[0] == "(" else low <= number
    is_below = number < high if interval[-1] == ")" else number <= high
    if is_above and is_below:
        return
    below = "below" if interval[-1] == ")" else "at most"
    above = "above" if interval[0] == "(" else "at least"
    end = "finite" if high == math.inf else f"{below} {high:g}"
    raise ValueError(f"`{name}` must be {above} {low:g} and {end}, got {value!r}.")


def check_integer_at_least(value: object, minimum: int, *, name: str) -> None:
    """Refuse anything but an integer that is not below the minimum.

    Parameters
    ----------
    value, name
        What the user passed, a bool being no integer here, and the argument as the user spells it.
    minimum
        The smallest value accepted.

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


def finite_table(values: ArrayLike, *, name: str) -> NDArray[np.float64]:
    """Return a table of finite numbers as an array.

    Parameters
    ----------
    values, name
        ``(cells, dimensions)``, what the user passed, and the argument as the user spells it.

    Raises
    ------
    TypeError
        If it is a sparse matrix, an AnnData or a MuData.
    ValueError
        If it has not two dimensions, or values are NaN or infinite.
    """
    if sparse.issparse(values):
        raise TypeError(f"`{name}` must be a dense table, got a sparse one: `{name}.toarray()`?")
    if isinstance(values, AnnData | MuData):  # which NumPy would read cell by cell
        raise TypeError(
            f"`{name}` must be a table, `(cells, dimensions)`, got {type(values).__name__}: "
            f'`{name}.obsm["X_scmvp"]`?'
        )
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(
            f"`{name}` must be a table of finite numbers, `(cells, dimensions)`, got shape "
            f"{table.shape}{'' if table.ndim != 2 else ' with NaN or infinite values'}."
        )
    return table


def check_probabilities(probs: NDArray[Any], *, name: str, way_out: str) -> None:
    """Refuse anything but a table whose rows are probabilities.

    Parameters
    ----------
    probs, name
        ``(cells, clusters)``, and the argument as the user spells it.
    way_out
        What to pass instead, a sentence.

    Raises
    ------
    ValueError
        If it is no table, a value is negative or NaN, or a row does not sum to one.
    """
    is_table = probs.ndim == 2
    if not is_table or (probs < 0).any() or not np.allclose(probs.sum(axis=1), 1, atol=1e-3):
        found = "" if is_table else f", got shape {probs.shape}"
        raise ValueError(
            f"`{name}` must be probabilities, `(cells, clusters)`, no value negative and each row "
            f"summing to 1{found}. {way_out}"
        )


def mapping_of(config: Any, *, name: str) -> dict[str, Any]:
    """Return what a ``plan_config`` or the like says, nothing for None.

    Scvi-tools' own config objects name every argument there is, and cannot tell which of them
    the user set.

    Parameters
    ----------
    config
        What was passed.
    name
        Of the argument.

    Raises
    ------
    TypeError
        If it is no mapping.
    """
    if config is None:
        return {}
    if not isinstance(config, Mapping):
        reason = ""
        if hasattr(config, "to_kwargs"):  # scvi-tools' own
            reason = ", which would put the defaults of scvi-tools in the place of this model's"
        raise TypeError(
            f"`{name}` must be a mapping, got {type(config).__name__}{reason}: pass a dict of "
            "what is to be set."
        )
    return dict(config)
