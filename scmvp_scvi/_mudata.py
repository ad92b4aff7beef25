"""What versions of mudata and anndata do differently."""

from contextlib import AbstractContextManager
from typing import Any

import mudata
from anndata import AnnData


def without_pulling() -> AbstractContextManager[object]:
    """Context in which columns of the modalities are not copied into the joint tables.

    mudata 0.4 does not copy them unless asked; 0.3 does, and warns that this will end.
    """
    if hasattr(mudata, "settings"):
        return mudata.settings.override(pull_on_update=False)
    return mudata.set_options(pull_on_update=False)


def named_layers(adata: AnnData) -> dict[str, Any]:
    """Layers by their names, without ``.X``, which anndata 0.13 has among them as ``None``.

    Parameters
    ----------
    adata
        One modality.
    """
    return {name: layer for name, layer in adata.layers.items() if name is not None}
