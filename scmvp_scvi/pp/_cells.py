"""Cells that both modalities measured, in one order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scmvp_scvi.pp._input import check_modalities_of_pair
from scmvp_scvi.pp._output import Removal, account_for, take

if TYPE_CHECKING:
    from mudata import MuData


def intersect_cells(mdata: MuData, *, rna_key: str = "rna", atac_key: str = "atac") -> MuData:
    """Keep the cells that are in both modalities, and bring both into the order of `mdata.obs`.

    Cells are matched by name. ``muon.pp.intersect_obs`` keeps the same cells, but leaves each
    modality in its own order.

    Parameters
    ----------
    mdata
        The data.
    rna_key, atac_key
        The two modalities. Others keep those of the shared cells that they have.

    Returns
    -------
    A new MuData. ``.uns["scmvp_removed"]`` says how many cells were missing in which modality;
    a cell that is in neither is counted as missing in the first.

    Raises
    ------
    ValueError
        If no cell is in both, a name is not unique, or the modalities are swapped.
    """
    check_modalities_of_pair(mdata, rna_key, atac_key)
    rna, atac = mdata[rna_key].obs_names, mdata[atac_key].obs_names
    in_rna = mdata.obs_names[mdata.obs_names.isin(rna)]
    shared = in_rna[in_rna.isin(atac)]
    if len(shared) == 0:
        examples = " and ".join(
            f"`{names[0]}` is one in `{key}`" if len(names) > 0 else f"`{key}` has no cells"
            for key, names in ((rna_key, rna), (atac_key, atac))
        )
        raise ValueError(
            f"`{rna_key}` and `{atac_key}` must share cells, but no cell name is in both: "
            f"{examples}. Give a cell the same name in both `.obs_names`, for instance without "
            "the suffix of the library, and build the MuData again."
        )
    paired = take(mdata, shared)
    account_for(
        paired,
        [
            Removal("intersect_cells", 1, "cells", f"not in `{key}`", before - after, after)
            for key, before, after in (
                (rna_key, mdata.n_obs, len(in_rna)),
                (atac_key, len(in_rna), len(shared)),
            )
        ],
    )
    return paired
