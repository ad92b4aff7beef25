"""What every function here asks of its input, and how it reads the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scmvp_scvi._mudata import as_csr
from scmvp_scvi._validate import (
    check_are_genes,
    check_counts,
    check_in_memory,
    check_is_among,
    check_is_mudata,
    check_keys_of_pair,
    check_unique_cells,
    check_unique_features,
    find_counts,
    same_names,
    warn_about_reads,
)

if TYPE_CHECKING:
    import scipy.sparse as sp
    from mudata import MuData
    from numpy.typing import NDArray

FRAGMENT_LAYER = "fragments"  # where `reads_to_fragments` puts them by default


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
    check_is_among(key, mdata.mod, argument=argument, what="a modality of `mdata`")
    _check_is_up_to_date(mdata, key)


def _check_is_up_to_date(mdata: MuData, *keys: str, allow_lost_cells: bool = False) -> None:
    """Refuse modalities on disk, names that are not unique, and tables that are out of date."""
    check_in_memory(mdata, *mdata.mod)
    for name, adata in mdata.mod.items():
        check_unique_cells(adata.obs_names, name)
        check_unique_features(adata, name)
    held = np.any([mdata.obs_names.isin(adata.obs_names) for adata in mdata.mod.values()], axis=0)
    if (
        not all(mdata[key].obs_names.isin(mdata.obs_names).all() for key in keys)
        or not (held.all() or allow_lost_cells)
        or not _describes_features(mdata)
    ):
        raise ValueError(
            "`mdata.obs` and `mdata.var` must describe its modalities, but those were changed "
            "after `mdata` was built. Run `mdata.update()` first."
        )


def feature_rows(mdata: MuData) -> dict[str, NDArray[np.intp]]:
    """Find the features of each modality in `mdata.var`, which holds them in any order.

    After new features, `mdata.update()` leaves the known ones where they were.

    Parameters
    ----------
    mdata
        The data.

    Returns
    -------
    Modality to ``(features,)``, the rows of its features in their order.
    """
    names = mdata.var_names
    if names.is_unique:
        return {key: names.get_indexer(adata.var_names) for key, adata in mdata.mod.items()}
    rows = {}
    for key in mdata.mod:  # by mudata's map, for a name may be that of features of two modalities
        places = np.asarray(mdata.varmap.get(key, []))  # from 1, and 0 for those of another
        here = np.flatnonzero(places)
        rows[key] = here[np.argsort(places[here])]
    return rows


def _describes_features(mdata: MuData) -> bool:
    """Whether each row of `mdata.var` is that of one feature, by its name."""
    rows = feature_rows(mdata)
    all_rows = np.sort(np.concatenate(list(rows.values())))
    return np.array_equal(all_rows, np.arange(mdata.n_vars)) and all(
        same_names(mdata.var_names[rows[key]], adata.var_names) for key, adata in mdata.mod.items()
    )


def check_modalities_of_pair(
    mdata: MuData, rna_key: str, atac_key: str, *, allow_lost_cells: bool = False
) -> None:
    """Refuse data without an RNA and an ATAC modality, or with the two swapped.

    Parameters
    ----------
    mdata
        The data.
    rna_key, atac_key
        Keys of the two modalities.
    allow_lost_cells
        Whether `mdata.obs` may have cells that no modality holds any more.

    Raises
    ------
    TypeError, KeyError, ValueError
        As `check_modality` does; ValueError also if both keys are the same, or if most features
        of the RNA modality are named like peaks.
    """
    check_keys_of_pair(mdata, rna_key, atac_key)
    _check_is_up_to_date(mdata, rna_key, atac_key, allow_lost_cells=allow_lost_cells)
    check_are_genes(
        mdata[rna_key].var_names,
        mdata[atac_key].var_names,
        subject=f'`rna_key="{rna_key}"`',
        swap=f'rna_key="{atac_key}", atac_key="{rna_key}"',
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
    check_counts(matrix, argument=argument, modality=key, layer=layer, adata=adata)
    counts = as_csr(matrix)
    if not counts.has_canonical_format:
        # what compares it would sort the user's own in place, and columns that layers share
        counts = counts.copy()
        counts.sum_duplicates()
    return counts


def read_atac_counts(mdata: MuData, atac_key: str, atac_layer: str | None) -> sp.csr_matrix:
    """Read the ATAC counts as `read_counts` does, with a look for reads in them.

    Parameters
    ----------
    mdata, atac_key, atac_layer
        The data, the modality, and its layer; None for ``.X``.

    Warns
    -----
    UserWarning
        If they look like reads and `reads_to_fragments` has estimated fragments.
    """
    counts = read_counts(mdata, atac_key, atac_layer, argument="atac_layer")
    if FRAGMENT_LAYER in mdata[atac_key].layers:  # beside which reads are hardly meant
        warn_about_reads(counts, modality=atac_key, layer=atac_layer)
    return counts
