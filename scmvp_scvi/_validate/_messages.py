"""Names in messages: the first few of a list, and near matches of a misspelled one."""

from __future__ import annotations

import bisect
import difflib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# `difflib` compares one pair of names in microseconds: this many pairs stay below a blink.
_MAX_COMPARED_NAMES = 2_000

_N_SHOWN = 5


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
