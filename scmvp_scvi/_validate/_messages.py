"""What messages name, and where warnings are shown."""

from __future__ import annotations

import bisect
import difflib
import inspect
import re
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# `difflib` compares one pair of names in microseconds: this many pairs stay below a blink.
_MAX_COMPARED_NAMES = 2_000

_N_SHOWN = 5
# packages whose frames lie between what a user wrote and a warning
_NOT_THE_USERS = {__name__.partition(".")[0], "scvi", "lightning", "torch"}


def warn_user(message: str) -> None:
    """Warn of the nearest line that is the user's, however many of ours lie in between."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals["__name__"].partition(".")[0] in _NOT_THE_USERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def spelled(modality: str | None) -> str:
    """Spell the data as the user does, or a modality of them: ``mdata``, ``mdata["rna"]``."""
    return "mdata" if modality is None else f'mdata["{modality}"]'


def spelled_matrix(modality: str, layer: str | None) -> str:
    """Spell ``.X`` of a modality as the user does, or one of its layers."""
    return f"{spelled(modality)}." + ("X" if layer is None else f'layers["{layer}"]')


def shown(names: Iterable[Any]) -> str:
    """List the first few names, and say how many more there are."""
    listed = list(names)
    rest = f" and {len(listed) - _N_SHOWN} more" if len(listed) > _N_SHOWN else ""
    return (", ".join(f"`{name}`" for name in listed[:_N_SHOWN]) or "none") + rest


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Ask for the options spelled most like the name; empty if none is near."""
    near = _near_matches(name, [str(option) for option in options])
    return f" Did you mean {' or '.join(f'`{match}`' for match in near)}?" if near else ""


def _near_matches(name: str, options: list[str]) -> list[str]:
    folded_name = folded(name)
    spellings = sorted((folded(option), option) for option in options)
    # Among very many names, those that begin alike stand next to it in alphabetic order.
    middle, reach = bisect.bisect_left(spellings, (folded_name, "")), _MAX_COMPARED_NAMES // 2
    neighbours = dict(spellings[max(0, middle - reach) : middle + reach])
    close = difflib.get_close_matches(folded_name, list(neighbours), n=3)
    return [neighbours[match] for match in close]


def folded(name: str) -> str:
    """Drop capitals and unify separators, so that two spellings of a name become equal."""
    return re.sub(r"[^0-9a-z]+", "-", str(name).casefold())
