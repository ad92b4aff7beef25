"""Mean expression and accessibility of groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from scmvp_scvi._validate import (
    check_integer_at_least,
    check_names,
    check_one_of,
    shown,
    warn_user,
)
from scmvp_scvi.tl._values import check_pair, find_groups, read_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

    from scmvp_scvi._keys import Kind


def group_means(
    mdata: MuData,
    groupby: str,
    features: Sequence[str] | pd.Index,
    *,
    modality: Kind,
    model: Any = None,
    normalize: bool = True,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    block_size: int = 1_000,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> pd.DataFrame:
    """Average features over the cells of each group, as the figures of `pl` take them.

    Parameters
    ----------
    mdata
        Paired cells in one order.
    groupby
        Column of ``mdata.obs``, or of the ``.obs`` of a modality, such as a cell type or a
        cluster.
    features
        Genes, or peaks.
    modality
        Which of the two they are.
    model, normalize, rna_layer, atac_layer, rna_key, atac_key
        What is averaged, as in `peak_gene_links`.
    block_size
        Features held dense at a time.

    Returns
    -------
    ``(groups, features)``. Counts are averaged as log-normalised values of the cells that have
    both modalities; groups without such a cell are left out, with a warning.

    Raises
    ------
    TypeError, KeyError, ValueError
        If there are no such values, features or groups.

    Examples
    --------
    >>> from scmvp_scvi import datasets, tl
    >>> mdata = datasets.synthetic(n_cells=300)
    >>> means = tl.group_means(mdata, "cell_type", ["gene_0", "gene_1"], modality="rna")
    """
    check_one_of(modality, ("rna", "atac"), name="modality")
    check_integer_at_least(block_size, 1, name="block_size")
    check_pair(mdata, rna_key, atac_key)
    groups = find_groups(mdata, groupby, argument="groupby", modality_keys=(rna_key, atac_key))
    names = mdata[rna_key if modality == "rna" else atac_key].var_names
    columns = check_names(features, names, argument="features", way_out="Name one.")
    values = read_values(
        mdata,
        model=model,
        rna_layer=rna_layer,
        atac_layer=atac_layer,
        normalize=normalize,
        groupby=None,
        rna_key=rna_key,
        atac_key=atac_key,
    )
    read = values.of(modality)
    averaged = groups.loc[values.rows].cat.remove_unused_categories()
    lost = groups.cat.categories.difference(averaged.cat.categories, sort=False)
    if len(lost) > 0:
        warn_user(
            f"{len(lost)} of {len(groups.cat.categories)} groups of `{groupby}` have no cell "
            f"with both modalities and are left out: {shown(lost)}.",
        )
    of_row = averaged.array
    blocks = (columns[start : start + block_size] for start in range(0, columns.size, block_size))
    means = [pd.DataFrame(read(b)).groupby(of_row, observed=False).mean() for b in blocks]
    table = pd.concat(means, axis=1).set_axis(names[columns], axis=1)
    return table.rename_axis(groupby)
