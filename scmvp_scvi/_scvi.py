"""The one door to private names of scvi-tools: what its next version may break."""

import warnings
from copy import deepcopy
from typing import Any

from scvi.data import AnnDataManager
from scvi.data._constants import _ADATA_MINIFY_TYPE_UNS_KEY as MINIFY_TYPE_UNS_KEY
from scvi.data._constants import _MANAGER_UUID_KEY as MANAGER_UUID_KEY
from scvi.data._constants import _SCVI_UUID_KEY as DATA_UUID_KEY
from scvi.model._utils import parse_device_args
from scvi.model.base._constants import SAVE_KEYS

__all__ = [
    "DATA_UUID_KEY",
    "MANAGER_UUID_KEY",
    "MINIFY_TYPE_UNS_KEY",
    "MuDataManager",
    "SAVE_KEYS",
    "is_latest",
    "keep_codes",
    "parse_device_args",
    "register_again",
]


class MuDataManager(AnnDataManager):
    """Scvi-tools' manager, which warns of categories of few cells only where a model learns them.

    Of data that are registered with the registry of a model it has nothing to learn, unless they
    extend its categories.
    """

    def register_fields(
        self, adata: Any, source_registry: dict[str, Any] | None = None, **transfer_kwargs: Any
    ) -> None:
        """Register the data, as of the super class."""
        with warnings.catch_warnings():
            if source_registry is not None and not transfer_kwargs.get("extend_categories"):
                warnings.filterwarnings("ignore", message="Category .* has fewer than 3 cells")
            super().register_fields(adata, source_registry, **transfer_kwargs)


def is_latest(manager: AnnDataManager) -> bool:
    """Whether nothing else has registered the data since, and put its codes into them."""
    return bool(manager.adata.uns.get(MANAGER_UUID_KEY) == manager.id)


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


def register_again(manager: AnnDataManager) -> None:
    """Write the codes of a manager into its data once more, whatever has become of them.

    Parameters
    ----------
    manager
        Of the data, whose columns are as the model knows them.
    """
    mdata, manager.adata = manager.adata, None  # scvi-tools refuses to register data twice
    try:
        mdata.uns[DATA_UUID_KEY] = manager.registry[DATA_UUID_KEY]
        manager.register_fields(mdata, manager._source_registry, **manager._transfer_kwargs)
    finally:
        manager.adata = mdata
    for adata in mdata.mod.values():
        # models of a modality alone write where this one does: they are to register theirs again
        if MANAGER_UUID_KEY in adata.uns:
            adata.uns[MANAGER_UUID_KEY] = manager.id
