"""What versions of mudata and anndata do differently; what scipy and pandas do not store."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import mudata
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse


def without_pulling() -> AbstractContextManager[object]:
    """Context in which columns of the modalities are not copied into the joint tables.

    mudata 0.4 does not copy them unless asked; 0.3 does, and warns that this will end.
    """
    if hasattr(mudata, "settings"):
        return mudata.settings.override(pull_on_update=False)
    return mudata.set_options(pull_on_update=False)


def mudata_of(modalities: Mapping[str, AnnData], obs: pd.DataFrame, **kwargs: Any) -> MuData:
    """MuData of the cells of ``obs``, in their order, with these columns as they are.

    Without names of cells mudata orders them by the first modality; of columns that are given to
    its constructor it changes the types.

    Parameters
    ----------
    modalities
        The modalities; they need not hold all cells.
    obs
        Columns of the cells, which are copied.
    **kwargs
        Passed to :class:`mudata.MuData`.
    """
    with without_pulling():
        mdata = MuData(dict(modalities), obs=obs[[]], **kwargs)
    mdata.obs = obs.copy()
    return mdata


def layer_names(adata: AnnData) -> list[str]:
    """Names of the layers, without that of ``.X``, which anndata 0.13 calls the layer ``None``.

    Parameters
    ----------
    adata
        One modality.
    """
    return [name for name in adata.layers if name is not None]


def as_csr(matrix: Any) -> sparse.csr_matrix:
    """CSR form of a matrix; the stored one where it is that.

    Parameters
    ----------
    matrix
        ``(cells, features)``, dense or sparse. Values of half precision, which scipy does not
        compute with in sparse form, become single ones.
    """
    if matrix.dtype == np.float16:
        is_sparse = sparse.issparse(matrix)
        matrix = matrix.astype("f4") if is_sparse else np.asarray(matrix, dtype="f4")
    return sparse.csr_matrix(matrix)


def reindexed(table: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    """Rows of a table by name, missing values for names that it has not.

    Parameters
    ----------
    table
        Columns of cells or of features.
    names
        The rows, in their order.
    """
    # a column of truth values with missing ones fits no plain boolean
    nullable = dict.fromkeys(table.select_dtypes("bool"), "boolean")
    return table.astype(nullable).reindex(names)
