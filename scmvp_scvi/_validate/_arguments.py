"""Checks of single values: options, numbers, fractions, integers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from scmvp_scvi._validate._messages import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Collection


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


def check_positive(value: object, *, name: str) -> None:
    """Refuse anything but a finite number above zero.

    Parameters
    ----------
    value, name
        What the user passed, and the argument as the user spells it.

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


def check_not_negative(value: object, *, name: str) -> None:
    """Refuse anything but a finite number that is not below zero.

    Parameters
    ----------
    value, name
        What the user passed, and the argument as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is negative, infinite or NaN.
    """
    number = _as_number(value, name)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")


def check_fraction(value: object, *, name: str) -> None:
    """Refuse anything but a number in [0, 1).

    Parameters
    ----------
    value, name
        What the user passed, and the argument as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is below 0, not below 1, or NaN.
    """
    if not 0 <= _as_number(value, name) < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1, got {value!r}.")


def check_share(value: object, *, name: str) -> None:
    """Refuse anything but a number in [0, 1].

    Parameters
    ----------
    value, name
        What the user passed, and the argument as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is below 0, above 1, or NaN.
    """
    if not 0 <= _as_number(value, name) <= 1:
        raise ValueError(f"`{name}` must be at least 0 and at most 1, got {value!r}.")


def check_positive_share(value: object, *, name: str) -> None:
    """Refuse anything but a number in (0, 1].

    Parameters
    ----------
    value, name
        What the user passed, and the argument as the user spells it.

    Raises
    ------
    TypeError
        If `value` is not a number.
    ValueError
        If it is not above 0, above 1, or NaN.
    """
    if not 0 < _as_number(value, name) <= 1:
        raise ValueError(f"`{name}` must be above 0 and at most 1, got {value!r}.")


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


def mapping_of(config: Any, *, name: str) -> dict[str, Any]:
    """Return what a ``plan_config`` or ``trainer_config`` says, nothing for None.

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
        raise TypeError(
            f"`{name}` must be a mapping, got {type(config).__name__}, which would put the "
            "defaults of scvi-tools in the place of this model's: pass a dict of what is to be "
            "set."
        )
    return dict(config)
