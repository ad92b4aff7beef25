"""What every function here asks of its input, and how it reads the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scipy.sparse as sp

from scmvp_scvi._validate import (
    PEAK_NAME,
    check_counts,
    check_is_among,
    check_is_mudata,
    check_unique_cells,
    check_unique_features,
    find_counts,
    shown,
)

if TYPE_CHECKING:
    import pandas as pd
    from mudata import MuData


def check_modality(mdata: MuData, key: str, *, argument: str) -> None:
    """Refuse data in which one modality cannot be worked on.

    Parameters
    ----------
    mdata
        The data.
    key, argument
        Key of the modality, and the argument that gives it, such as ``"atac_key"``.

    Raises
    ------
    TypeError
        If `mdata` is not a MuData.
    KeyError
        If it has no such modality.
    ValueError
        If it is on disk, its tables are out of date, or cells or features of a modality share
        names.
    """
    check_is_mudata(mdata, allow_view=True)
    if any(adata.isbacked for adata in mdata.mod.values()):
        raise ValueError(
            "`mdata` must be in memory, but its matrices are on disk. Read them: "
            f'`mdata = mudata.read_h5mu("{mdata.filename}")`.'
        )
    check_is_among(key, mdata.mod, argument=argument, what="a modality of `mdata`")
    for name, adata in mdata.mod.items():
        check_unique_cells(adata.obs_names, name)
        check_unique_features(adata, name)
    names = [name for adata in mdata.mod.values() for name in adata.var_names]
    if not mdata[key].obs_names.isin(mdata.obs_names).all() or list(mdata.var_names) != names:
        raise ValueError(
            "`mdata.obs` and `mdata.var` must describe its modalities, but those were changed "
            "after `mdata` was built. Run `mdata.update()` first."
        )


def check_modalities_of_pair(mdata: MuData, rna_key: str, atac_key: str) -> None:
    """Refuse data without an RNA and an ATAC modality, or with the two swapped.

    Parameters
    ----------
    mdata
        The data.
    rna_key, atac_key
        Keys of the two modalities.

    Raises
    ------
    TypeError, KeyError, ValueError
        As `check_modality` does; ValueError also if both keys are the same, or if most features
        of the RNA modality are named like peaks.
    """
    check_modality(mdata, rna_key, argument="rna_key")
    check_modality(mdata, atac_key, argument="atac_key")
    if rna_key == atac_key:
        raise ValueError(
            f'`rna_key` and `atac_key` must be different modalities, got "{rna_key}" for both. '
            f"`mdata` has {shown(mdata.mod)}."
        )
    genes = mdata[rna_key].var_names
    if _share_of_peak_names(genes) > 0.5:
        way_out = "Build the MuData with genes in one modality and peaks in the other."
        if _share_of_peak_names(mdata[atac_key].var_names) < 0.5:
            way_out = f'Swap them: `rna_key="{atac_key}", atac_key="{rna_key}"`.'
        raise ValueError(
            f'`rna_key="{rna_key}"` must be the modality of the genes, but its features are named '
            f"like peaks: {shown(genes)}. {way_out}"
        )


def check_not_empty(mdata: MuData, *keys: str) -> None:
    """Refuse modalities without cells or features.

    Parameters
    ----------
    mdata
        The data.
    *keys
        Keys of the modalities.

    Raises
    ------
    ValueError
        If one has none.
    """
    for key in keys:
        n_cells, n_features = mdata[key].shape
        if n_cells == 0 or n_features == 0:
            raise ValueError(
                f"`{key}` must have cells and features, got {n_cells} cells and {n_features} "
                "features. Look at what an earlier step removed."
            )


def read_counts(mdata: MuData, key: str, layer: str | None, *, argument: str) -> sp.csr_matrix:
    """Read the raw counts of one modality.

    Parameters
    ----------
    mdata
        The data.
    key
        Key of the modality.
    layer, argument
        Layer with the counts, None for `.X`, and the argument that gives it.

    Returns
    -------
    ``(cells, features)``, in canonical format; the stored matrix itself where it is that: not to
    be written to.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there is no such matrix, or it does not hold counts.
    """
    adata = mdata[key]
    matrix = find_counts(adata, layer, argument=argument, modality=key)
    check_counts(matrix, argument=argument, modality=key, layer=layer, layers=adata.layers)
    counts = sp.csr_matrix(matrix)
    if not counts.has_canonical_format:
        # what compares it would sort the user's own in place, and columns that layers share
        counts = counts.copy()
        counts.sum_duplicates()
    return counts


def _share_of_peak_names(names: pd.Index) -> float:
    return float(names.astype(str).str.match(PEAK_NAME).mean()) if len(names) > 0 else 0.0
