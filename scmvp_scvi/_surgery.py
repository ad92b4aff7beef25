"""Architecture surgery :cite:p:`Lotfollahi2022`: rows for new categories, all else held still."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scmvp_scvi.nn._covariates import BatchCentering
from scmvp_scvi.nn._encoders import ProfileLinear


class Surgery(NamedTuple):
    """What a query may change in the module of its reference."""

    known_rows: dict[str, int]  # parameter or buffer to its first rows, of known categories
    learned: tuple[str, ...]  # blocks and parameters that learn as a whole, by their names
    freeze_dropout: bool

    def learns(self, name: str) -> bool:
        """Whether the block or parameter learns as a whole."""
        return any(f"{name}.".startswith(f"{block}.") for block in self.learned)


def extend_state(
    reference: Mapping[str, Tensor], blank: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Fill the state of a module with more categories from that of its reference.

    Categories are rows, and new ones come last. A new row starts at the mean of the known ones,
    and a counter at zero.

    Parameters
    ----------
    reference
        State of the module that has been trained.
    blank
        State of a new module, which differs in the number of categories alone.

    Returns
    -------
    The state to load, and the number of known rows of each parameter that has new ones.
    """
    state, known_rows = {}, {}
    for name, fresh in blank.items():
        known = reference.get(name)
        if known is None:  # a covariate of one category had no rows, and added nothing
            known = torch.zeros_like(fresh[:1])
        state[name] = known
        if known.shape != fresh.shape:
            new = fresh[len(known) :]
            start = known.mean(0) if known.is_floating_point() else torch.zeros_like(known[0])
            state[name] = torch.cat((known, start.expand_as(new)))
            known_rows[name] = len(known)
    return state, known_rows


def freeze_parameters(module: nn.Module, surgery: Surgery) -> None:
    """Give gradients to what the query learns, and to nothing else.

    Parameters
    ----------
    module
        The module, before its optimiser is made.
    surgery
        What the query learns.
    """
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in surgery.known_rows or surgery.learns(name))


def freeze_layers(module: nn.Module, surgery: Surgery) -> None:
    """Keep BatchNorm layers that do not learn, and dropout on request, out of train mode.

    A BatchNorm in train mode normalises by the minibatch, whatever its running statistics. The
    running means of all cells and of known batches stay.

    Parameters
    ----------
    module
        The module, in train mode.
    surgery
        What the query learns.
    """
    for name, layer in module.named_modules():
        holds_still = isinstance(layer, nn.BatchNorm1d) and not surgery.learns(name)
        drops = isinstance(layer, nn.Dropout | ProfileLinear)
        if holds_still or (drops and surgery.freeze_dropout):
            layer.eval()
        if isinstance(layer, BatchCentering):
            layer.n_held = surgery.known_rows.get(f"{name}.means", len(layer.means))


class KnownRows:
    """Rows of known categories as they were, to put back after each step of an optimiser.

    They stand in one parameter with the new rows, so that momentum or weight decay would move
    them even without a gradient.

    Parameters
    ----------
    module
        The module, on the device it is trained on.
    surgery
        What the query learns.
    """

    def __init__(self, module: nn.Module, surgery: Surgery) -> None:
        state = module.state_dict(keep_vars=True)
        self._kept = [
            (state[name], state[name][:n_rows].detach().clone())
            for name, n_rows in surgery.known_rows.items()
            if isinstance(state[name], nn.Parameter) and not surgery.learns(name)
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what a step did to the rows."""
        for parameter, rows in self._kept:
            parameter[: len(rows)] = rows


def surgery_from(record: Mapping[str, Any] | None) -> Surgery | None:
    """Read what a model keeps of its surgery; None for a model that learns everything."""
    return None if record is None else Surgery(**record)
