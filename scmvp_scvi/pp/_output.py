"""New MuData from given ones, and the account of what they no longer hold."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from mudata import MuData

from scmvp_scvi._mudata import without_pulling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
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
    A MuData that shares nothing with `mdata`.
    """
    cells = mdata.obs_names if cells is None else cells
    masks = {
        key: (features or {}).get(key, np.ones(adata.n_vars, bool))
        for key, adata in mdata.mod.items()
    }
    mod = {
        key: adata[cells[cells.isin(adata.obs_names)], masks[key]].copy()
        for key, adata in mdata.mod.items()
    }
    return assemble(mdata, mod, cells, np.concatenate(list(masks.values())))


def assemble(
    mdata: MuData,
    mod: Mapping[str, AnnData],
    cells: pd.Index,
    features: NDArray[np.bool_] | None = None,
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
        ``(features,)`` of all modalities in turn, true for those that are left; all by default.

    Returns
    -------
    A MuData of `mod`, which shares nothing with `mdata`.
    """
    rows = mdata.obs_names.get_indexer(cells)
    columns = np.arange(mdata.n_vars) if features is None else np.flatnonzero(features)
    with without_pulling():
        assembled = MuData(
            mod,
            obs=mdata.obs.iloc[rows].copy(),
            var=mdata.var.iloc[columns].copy(),
            uns=deepcopy(dict(mdata.uns)),
        )
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
