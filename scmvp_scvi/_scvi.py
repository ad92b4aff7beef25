"""The one door to private names of scvi-tools: what its next version may break."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from scvi.data import AnnDataManager
from scvi.data._constants import _ADATA_MINIFY_TYPE_UNS_KEY as MINIFY_TYPE_UNS_KEY
from scvi.data._constants import _MANAGER_UUID_KEY as MANAGER_UUID_KEY
from scvi.data._constants import _SCVI_UUID_KEY as DATA_UUID_KEY
from scvi.model._utils import parse_device_args
from scvi.model.base._constants import SAVE_KEYS
from scvi.model.base._de_core import _fdr_de_prediction as tag_by_expected_fdr

__all__ = [
    "DATA_UUID_KEY",
    "MANAGER_UUID_KEY",
    "MINIFY_TYPE_UNS_KEY",
    "SAVE_KEYS",
    "is_latest",
    "keep_codes",
    "mapping_of",
    "parse_device_args",
    "tag_by_expected_fdr",
]


def is_latest(manager: AnnDataManager) -> bool:
    """Whether nothing else has registered the data since, and put its codes into them."""
    return bool(manager.adata.uns[MANAGER_UUID_KEY] == manager.id)


def keep_codes(manager: AnnDataManager) -> None:
    """Make a later registration of the same data keep the codes that they have now.

    Scvi-tools registers data anew that another set-up has registered in between. It would read
    categories from the columns as they are by then, perhaps in another order, and change the
    registry of a model by them.

    Parameters
    ----------
    manager
        Of the data a model is built on.
    """
    manager._source_registry = deepcopy(manager.registry)
    manager._transfer_kwargs = {}


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
