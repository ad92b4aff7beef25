"""The parts of the objective over the epochs, in training and validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from scmvp_scvi._keys import LOSS
from scmvp_scvi._panels import given_or_new_panels
from scmvp_scvi._validate import did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

_SUBSETS = ("train", "validation")
_COLUMNS = 4


def training_curves(
    history: Mapping[str, pd.DataFrame] | Any,
    *,
    parts: Sequence[str] | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw one panel for each part of the loss, training and validation in it.

    Parameters
    ----------
    history
        A trained model, or its ``history``.
    parts
        Parts to draw, without ``_train`` and ``_validation``: by default the ELBO and the parts
        of the objective that are not 0 throughout.
    axes
        Where to draw, one for each part; a new figure by default.

    Returns
    -------
    The axes, one for each part.

    Raises
    ------
    KeyError
        If a part was not recorded.
    TypeError
        If something else than axes is given.
    ValueError
        If nothing was recorded, no part is asked for, or there are too few or too many axes.

    Examples
    --------
    >>> axes = pl.training_curves(model)  # doctest: +SKIP
    >>> axes[0].figure.savefig("training.png")  # doctest: +SKIP
    """
    curves = _read_curves(getattr(history, "history", history) or {})  # None before training
    if not curves:
        way_out = "Train the model first."
        if getattr(history, "is_trained", False):
            way_out = (
                "The model was trained with a `logger` of its own: leave it out of `train`, or "
                "pass what it has logged as a mapping."
            )
        raise ValueError(
            "`history` must have curves that end with `_train` or `_validation`, got none. "
            f"{way_out}"
        )
    chosen = _chosen_parts(parts, curves)
    panels = given_or_new_panels(
        axes,
        len(chosen),
        needed=f"{len(chosen)} axes, one for each part",
        max_columns=_COLUMNS,
        panel_size=(2.8, 2.2),
    )
    for ax, part in zip(panels, chosen, strict=True):
        for i, subset in enumerate(_SUBSETS):
            if subset in curves[part]:
                # a colour for each of the two, whether or not both were recorded
                curve = curves[part][subset].dropna()
                ax.plot(curve.index, curve, color=f"C{i}", label=subset)
        ax.set_title(part.replace("_", " "), fontsize="medium")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.spines[["top", "right"]].set_visible(False)
    for ax in panels[-_COLUMNS:]:
        ax.set_xlabel("epoch")
    panels[0].set_ylabel("nats per cell")
    panels[0].legend(frameon=False)
    return panels


def _read_curves(history: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, pd.Series]]:
    """Each part, and in it each of the sets it was recorded for."""
    curves: dict[str, dict[str, pd.Series]] = {}
    for name, table in history.items():
        part, _, subset = name.rpartition("_")
        if subset in _SUBSETS:
            # scvi-tools keeps them as objects
            curves.setdefault(part, {})[subset] = table.iloc[:, 0].astype(float)
    return curves


def _chosen_parts(
    parts: Sequence[str] | None, curves: Mapping[str, Mapping[str, pd.Series]]
) -> list[str]:
    """Parts to draw, those that are asked for or else those that move."""
    if parts is None:
        return _default_parts(curves)
    if isinstance(parts, str) or len(parts) == 0:
        raise ValueError(
            f"`parts` must list one part or more, got {parts!r}. Pass None for those that move."
        )
    unknown = [part for part in parts if part not in curves]
    if unknown:
        raise KeyError(
            f"`parts`: {shown(unknown)} was not recorded, only {shown(curves)}."
            f"{did_you_mean(unknown[0], curves)}"
        )
    return list(parts)


def _default_parts(curves: Mapping[str, Mapping[str, pd.Series]]) -> list[str]:
    known = [part for part in ("elbo", *LOSS) if part in curves] or list(curves)
    moving = [part for part in known if any((c != 0).any() for c in curves[part].values())]
    return moving or known
