"""New MuData from given ones, and the account of what they no longer hold."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from scmvp_scvi._mudata import mudata_of
from scmvp_scvi.pp._input import feature_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

REMOVED_KEY = "scmvp_removed"


class Removal(NamedTuple):
    """One row of the account: a rule, and what it did."""

    step: str  # the function
    round: int  # from 1; above it only where a function repeats itself
    of: str  # "cells", "genes" or "peaks"
    reason: str
    removed: int
    kept: int  # after this rule and all before it


def take(
    mdata: MuData,
    cells: pd.Index | None = None,
    features: Mapping[str, NDArray[np.bool_]] | None = None,
) -> MuData:
    """Copy cells and features of all modalities, with all that is known of them.

    mudata's own slices go by a map of rows that is out of date once a modality was changed, and
    its `update`, in 0.3, fails on integers in `.obsm` and `.varm`. Neither is used here.

    Parameters
    ----------
    mdata
        The data, its `.obs` and `.var` up to date.
    cells
        Names of the cells, in the order wanted; all by default.
    features
        Modality to ``(features,)``, true for those to copy; all where a modality is left out.

    Returns
    -------
    A MuData that shares nothing with `mdata`, its `.var` in the order of the modalities.
    """
    cells = mdata.obs_names if cells is None else cells
    features = features or {}
    mod = {
        key: adata[cells[cells.isin(adata.obs_names)], features.get(key, slice(None))].copy()
        for key, adata in mdata.mod.items()
    }
    return assemble(mdata, mod, cells, features)


def assemble(
    mdata: MuData,
    mod: Mapping[str, AnnData],
    cells: pd.Index,
    features: Mapping[str, NDArray[np.bool_]] | None = None,
) -> MuData:
    """Join modalities that were made from those of the data, with what the data know of them.

    Parameters
    ----------
    mdata
        The data, its `.obs` and `.var` up to date.
    mod
        Key to modality, with the keys of `mdata`, in the same order.
    cells
        Names of the cells, in the order wanted.
    features
        As in `take`: those that `mod` still has.

    Returns
    -------
    A MuData of `mod`, which shares nothing with `mdata`.
    """
    features = features or {}
    rows = mdata.obs_names.get_indexer(cells)
    columns = np.concatenate(
        [found[features.get(key, slice(None))] for key, found in feature_rows(mdata).items()]
    )
    assembled = mudata_of(mod, mdata.obs.iloc[rows], uns=deepcopy(dict(mdata.uns)))
    assembled.var = mdata.var.iloc[columns].copy()
    for axis, index in (("obs", rows), ("var", columns)):
        arrays, pairwise = getattr(mdata, f"{axis}m"), getattr(mdata, f"{axis}p")
        for key, array in arrays.items():
            if key not in mod:  # those are mudata's own: which rows each modality has
                taken = array.iloc[index] if isinstance(array, pd.DataFrame) else array[index]
                getattr(assembled, f"{axis}m")[key] = taken
        for key, array in pairwise.items():
            getattr(assembled, f"{axis}p")[key] = array[index][:, index]
    return assembled


def account_for(mdata: MuData, removals: Iterable[Removal]) -> None:
    """Append to the account in `mdata.uns`, in place.

    Parameters
    ----------
    mdata
        The data, made by `take`.
    removals
        What was removed and why, in order.
    """
    table = pd.DataFrame(list(removals), columns=Removal._fields)
    earlier = mdata.uns.get(REMOVED_KEY)
    mdata.uns[REMOVED_KEY] = (
        table if earlier is None else pd.concat([earlier, table], ignore_index=True)
    )
