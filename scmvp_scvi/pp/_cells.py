"""Cells that both modalities measured, or either, in one order."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scmvp_scvi._mudata import as_csr, layer_names, reindexed
from scmvp_scvi._validate import shown, warn_about_few_pairs
from scmvp_scvi.pp._input import check_modalities_of_pair
from scmvp_scvi.pp._output import Removal, account_for, assemble, take

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import NDArray

MEASURED_KEY = "scmvp_measured"
BOTH = "both"
_MEASURED = f'mdata.obs["{MEASURED_KEY}"]'
_WAY_OUT = (
    "Give a cell the same name in both `.obs_names`, for instance without the suffix of the "
    "library, and build the MuData again."
)


def intersect_cells(mdata: MuData, *, rna_key: str = "rna", atac_key: str = "atac") -> MuData:
    """Keep the cells that both modalities measured, and bring both into the order of `mdata.obs`.

    Cells are matched by name, and those that `union_cells` has padded are left out again.
    ``muon.pp.intersect_obs`` keeps the cells that are in both, but leaves each modality in its own
    order.

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
        If no cell is in both, a name is not unique, the modalities are swapped, or `union_cells`
        has padded another pair, or they were renamed since.

    Warns
    -----
    UserWarning
        If less than half of the smaller modality is in both.
    """
    check_modalities_of_pair(mdata, rna_key, atac_key, allow_lost_cells=True)
    _check_share_cells(mdata, rna_key, atac_key)
    all_cells = mdata.obs_names
    rna = all_cells[_is_in(mdata, rna_key) & measured_by(mdata, rna_key, atac_key)]
    atac = all_cells[_is_in(mdata, atac_key) & measured_by(mdata, atac_key, rna_key)]
    shared = rna[rna.isin(atac)]
    if len(shared) == 0:
        raise ValueError(
            f"Both `{rna_key}` and `{atac_key}` must have measured some cells, but by "
            f"`{_MEASURED}` one of them is padded in each of the {mdata.n_obs} cells. Go back to "
            "data that have cells with both."
        )
    warn_about_few_pairs(
        len(shared),
        len(rna),
        len(atac),
        examples=f"`{rna_key}` has {shown(rna)}, `{atac_key}` {shown(atac)}",
        way_out=_WAY_OUT,
    )
    paired = take(mdata, shared)
    account_for(
        paired,
        [
            Removal("intersect_cells", 1, "cells", f"not in `{key}`", before - after, after)
            for key, before, after in (
                (rna_key, mdata.n_obs, len(rna)),
                (atac_key, len(rna), len(shared)),
            )
        ],
    )
    return paired


def union_cells(mdata: MuData, *, rna_key: str = "rna", atac_key: str = "atac") -> MuData:
    """Keep the cells of either modality, without counts in the one that did not measure them.

    The model embeds such cells from the modality that they have, and predicts the other.

    Parameters
    ----------
    mdata
        The data.
    rna_key, atac_key
        The two modalities. Others keep those of the cells that they have.

    Returns
    -------
    A new MuData, both modalities in the order of `mdata.obs`. ``.obs["scmvp_measured"]`` says
    ``"both"``, or the modality that alone measured a cell. In the other, the values of such a cell
    are zero in ``.X``, ``.raw`` and all layers, as CSR matrices, and missing in ``.obs`` and
    ``.obsm``; filters by genes or peaks do not ask for them there. ``.uns["scmvp_removed"]`` says
    how many cells were in neither.

    Raises
    ------
    ValueError
        If no cell is in both, a name is not unique, or the modalities are swapped.
    """
    check_modalities_of_pair(mdata, rna_key, atac_key, allow_lost_cells=True)
    _check_share_cells(mdata, rna_key, atac_key)
    in_rna, in_atac = _is_in(mdata, rna_key), _is_in(mdata, atac_key)
    cells = mdata.obs_names[in_rna | in_atac]
    mod = dict(take(mdata, cells).mod)
    for key in (rna_key, atac_key):
        mod[key] = _padded(mod[key], cells)
    united = assemble(mdata, mod, cells)
    places = np.select([in_rna & in_atac, in_rna], [BOTH, rna_key], default=atac_key)
    measured = pd.Series(places, index=mdata.obs_names)[cells]
    if MEASURED_KEY in united.obs:  # cells that were padded before are in both by now
        known = united.obs[MEASURED_KEY].astype(object)
        measured = known.where((measured == BOTH) & known.notna(), measured)
    united.obs[MEASURED_KEY] = pd.Categorical(measured, categories=[BOTH, rna_key, atac_key])
    n_neither = mdata.n_obs - len(cells)
    reason = f"in neither `{rna_key}` nor `{atac_key}`"
    account_for(united, [Removal("union_cells", 1, "cells", reason, n_neither, len(cells))])
    return united


def measured_by(mdata: MuData, key: str, other: str) -> NDArray[np.bool_]:
    """Find the cells that a modality measured, by the account of `union_cells`.

    Parameters
    ----------
    mdata
        The data.
    key, other
        The modality, and the other of the pair.

    Returns
    -------
    ``(cells,)``, false for those that `other` alone measured; all true without an account.

    Raises
    ------
    ValueError
        If the account is of another pair, or of modalities that had other names.
    """
    if MEASURED_KEY not in mdata.obs:
        return np.ones(mdata.n_obs, bool)
    unknown = pd.Index(mdata.obs[MEASURED_KEY].dropna().unique()).difference([BOTH, key, other])
    if len(unknown) > 0:
        way_out = (
            f"If modalities were renamed since, rename them there: `{_MEASURED} = {_MEASURED}.cat"
            f'.rename_categories({{"{unknown[0]}": ...}})`.'
        )
        if unknown.isin(list(mdata.mod)).any():
            way_out = (
                "`union_cells` has padded another pair of modalities: pass that one, or remove "
                f"the account, `del {_MEASURED}`, if padded cells may count as measured."
            )
        raise ValueError(
            f"`{_MEASURED}` says what measured each cell, {BOTH}, `{key}` or `{other}`, but has "
            f"{shown(unknown)}. {way_out}"
        )
    return (mdata.obs[MEASURED_KEY] != other).to_numpy(dtype=bool, na_value=True)


def _is_in(mdata: MuData, key: str) -> NDArray[np.bool_]:
    """``(cells,)``, whether a cell is in the modality, measured or padded."""
    return mdata.obs_names.isin(mdata[key].obs_names)


def _padded(adata: AnnData, cells: pd.Index) -> AnnData:
    """All cells, in their order, with zeros in place of the counts that the modality lacks."""
    rows = adata.obs_names.get_indexer(cells)
    if (rows >= 0).all():  # in this order already
        return adata
    padded = AnnData(
        None if adata.X is None else _with_empty_rows(adata.X, rows),
        obs=_with_missing_rows(adata.obs, rows, cells),
        var=adata.var.copy(),
        uns=deepcopy(dict(adata.uns)),
        obsm={key: _with_missing_rows(array, rows, cells) for key, array in adata.obsm.items()},
        varm={key: array.copy() for key, array in adata.varm.items()},
        layers={name: _with_empty_rows(adata.layers[name], rows) for name in layer_names(adata)},
        varp={key: array.copy() for key, array in adata.varp.items()},
    )
    for key, pairwise in adata.obsp.items():
        padded.obsp[key] = _with_empty_rows(_with_empty_rows(pairwise, rows).T, rows).T.tocsr()
    if adata.raw is not None:
        raw = adata.raw
        padded.raw = AnnData(
            _with_empty_rows(raw.X, rows),
            obs=padded.obs[[]],
            var=raw.var.copy(),
            varm={key: array.copy() for key, array in raw.varm.items()},
        )
    return padded


def _with_empty_rows(matrix: Any, rows: NDArray[np.int64]) -> sp.csr_matrix:
    """Rows of a matrix by position, empty ones for -1."""
    matrix = as_csr(matrix)
    empty = sp.csr_matrix((1, matrix.shape[1]), dtype=matrix.dtype)
    return sp.vstack([matrix, empty], format="csr")[rows]


def _with_missing_rows(array: Any, rows: NDArray[np.int64], cells: pd.Index) -> Any:
    """Rows of a table or array by position, missing values for -1, or zeros if it is sparse."""
    if isinstance(array, pd.DataFrame):
        return reindexed(array, cells)
    if sp.issparse(array):
        return _with_empty_rows(array, rows)
    spread = np.full((len(rows), *array.shape[1:]), np.nan, np.result_type(array, np.float32))
    spread[rows >= 0] = array[rows[rows >= 0]]
    return spread


def _check_share_cells(mdata: MuData, rna_key: str, atac_key: str) -> None:
    """Refuse modalities that name no cell alike."""
    rna, atac = mdata[rna_key].obs_names, mdata[atac_key].obs_names
    if not rna.isin(atac).any():
        examples = " and ".join(
            f"`{names[0]}` is one in `{key}`" if len(names) > 0 else f"`{key}` has no cells"
            for key, names in ((rna_key, rna), (atac_key, atac))
        )
        raise ValueError(
            f"`{rna_key}` and `{atac_key}` must share cells, but no cell name is in both: "
            f"{examples}. {_WAY_OUT}"
        )
