"""What versions of mudata and anndata do differently."""

from contextlib import AbstractContextManager

import mudata
from anndata import AnnData


def without_pulling() -> AbstractContextManager[object]:
    """Context in which columns of the modalities are not copied into the joint tables.

    mudata 0.4 does not copy them unless asked; 0.3 does, and warns that this will end.
    """
    if hasattr(mudata, "settings"):
        return mudata.settings.override(pull_on_update=False)
    return mudata.set_options(pull_on_update=False)


def layer_names(adata: AnnData) -> list[str]:
    """Names of the layers, without that of ``.X``, which anndata 0.13 calls the layer ``None``.

    Parameters
    ----------
    adata
        One modality.
    """
    return [name for name in adata.layers if name is not None]
