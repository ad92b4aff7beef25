"""Checks of the MuData object: its modalities, their count matrices, the pairing of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anndata import AnnData
from mudata import MuData

from scmvp_scvi._mudata import layer_names
from scmvp_scvi._validate._messages import did_you_mean, shown, warn_user
from scmvp_scvi._validate._names import check_is_among, same_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

# Below this share of the smaller modality, pairs may be there by accident.
_EXPECTED_SHARE = 0.5


def check_is_mudata(data: object, *, allow_view: bool = False) -> None:
    """Refuse anything but a MuData of shared cells, itself and its modalities no views.

    Parameters
    ----------
    data
        What the user passed.
    allow_view
        Whether views pass: where nothing is written to the data, or a copy is made.

    Raises
    ------
    TypeError
        If `data` is not a MuData.
    ValueError
        If its modalities do not share cells; or if it, or one of them, is a view, and views do not
        pass.
    """
    if not isinstance(data, MuData):
        found = "an AnnData" if isinstance(data, AnnData) else f"a {type(data).__name__}"
        raise TypeError(
            f"`mdata` must be a MuData with one modality per assay, got {found}. "
            'Build one from two AnnData: `mudata.MuData({"rna": rna, "atac": atac})`.'
        )
    if data.axis != 0:
        raise ValueError(
            f"`mdata` must share its cells between modalities (`axis=0`), got axis={data.axis}. "
            'Build it again: `mudata.MuData({"rna": rna, "atac": atac})`.'
        )
    if allow_view:
        return
    views = ["`mdata` itself"] if data.is_view else []
    views += [f'`mdata["{key}"]`' for key, adata in data.mod.items() if adata.is_view]
    if views:
        raise ValueError(
            f"`mdata` must not be a view, got a view in {', '.join(views)}. "
            "Run `mdata = mdata.copy()` first."
        )


def check_in_memory(mdata: MuData, *keys: str) -> None:
    """Refuse modalities whose matrices are on disk.

    Parameters
    ----------
    mdata
        The data.
    *keys
        The modalities.

    Raises
    ------
    ValueError
        If one is on disk.
    """
    on_disk = [key for key in keys if mdata[key].isbacked]
    if on_disk:
        way_out = f'`mdata = mudata.read_h5mu("{mdata.filename}")`'
        if mdata.filename is None:  # built of modalities that are each in a file of their own
            way_out = "`for key in mdata.mod: mdata.mod[key] = mdata[key].to_memory()`"
        raise ValueError(
            f"`{on_disk[0]}` must be in memory, but its matrix is on disk. Read it: {way_out}."
        )


def check_keys_of_pair(mdata: MuData, rna_key: str, atac_key: str) -> None:
    """Refuse anything but a MuData that has both modalities, which are two.

    Parameters
    ----------
    mdata
        What the user passed; it may be a view.
    rna_key, atac_key
        The modalities of gene expression and of accessibility.

    Raises
    ------
    TypeError
        If `mdata` is not a MuData.
    KeyError
        If it lacks a modality.
    ValueError
        If both keys are the same.
    """
    check_is_mudata(mdata, allow_view=True)
    for argument, key in (("rna_key", rna_key), ("atac_key", atac_key)):
        check_is_among(key, mdata.mod, argument=argument, what="a modality of `mdata`")
    if rna_key == atac_key:
        raise ValueError(
            f'`rna_key` and `atac_key` must be different modalities, got "{rna_key}" for both. '
            f"`mdata` has {shown(mdata.mod)}."
        )


def has_views(mdata: MuData) -> bool:
    """Whether the data or one of their modalities are a view of others."""
    return mdata.is_view or any(adata.is_view for adata in mdata.mod.values())


def check_modalities(
    mdata: MuData,
    modalities: Mapping[str, str | None],
    layers: Mapping[str, str | None],
) -> None:
    """Refuse modalities or layers that `mdata` does not have.

    Parameters
    ----------
    mdata
        The data.
    modalities
        Argument of the setup to the modality it is looked up in, such as
        ``{"rna_layer": "rna", "atac_layer": "atac"}``. None stands for `mdata` itself.
    layers
        The arguments that name a count matrix, such as
        ``{"rna_layer": None, "atac_layer": "counts"}``. None stands for `.X`. Each needs its own
        modality.

    Raises
    ------
    KeyError
        If a modality or a layer does not exist.
    ValueError
        If a count matrix has no modality, two of them share one, or `.X` is empty.
    """
    keys = list(mdata.mod)
    for argument, modality in modalities.items():
        if modality is not None and modality not in keys:
            raise KeyError(
                f"`modalities` maps `{argument}` to `{modality}`, which is not a modality of "
                f"`mdata`: it has {shown(keys)}.{did_you_mean(modality, keys)} To rename "
                f'one, build the data anew: `mudata.MuData({{"{modality}": mdata[...], ...}})`.'
            )
    taken: dict[str, str] = {}
    for argument, layer in layers.items():
        modality = modalities.get(argument)
        if modality is None:
            raise ValueError(
                f"`modalities` must name the modality of `{argument}`, got {dict(modalities)}. "
                f'Add `"{argument}": ...` with one of {shown(keys)}.'
            )
        if modality in taken:
            raise ValueError(
                f"`modalities` must give `{taken[modality]}` and `{argument}` different "
                f"modalities, got `{modality}` for both. `mdata` has {shown(keys)}."
            )
        taken[modality] = argument
        find_counts(mdata.mod[modality], layer, argument=argument, modality=modality)


def find_counts(adata: AnnData, layer: str | None, *, argument: str, modality: str) -> Any:
    """Look up a count matrix.

    Parameters
    ----------
    adata, modality
        One modality and its key.
    layer, argument
        Name of the layer, or None for `.X`, and the argument that gives it.

    Returns
    -------
    ``(cells, features)``, the matrix as it is stored.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If `.X` is empty.
    """
    names = layer_names(adata)
    if layer is not None and layer not in names:
        raise KeyError(
            f'`{argument}="{layer}"` is not a layer of `mdata["{modality}"]`, which has '
            f"{shown(names)}. Leave `{argument}` out to use `.X`.{did_you_mean(layer, names)}"
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(
            f'`mdata["{modality}"].X` is empty. Name the layer that holds the raw counts with '
            f"`{argument}`: there are {shown(names)}."
        )
    return matrix


def check_paired(mdata: MuData, rna_key: str, atac_key: str) -> None:
    """Refuse modalities that do not hold the same cells in the same order.

    scvi-tools pairs the modalities row by row, without a look at the names of the cells.

    Parameters
    ----------
    mdata
        The data.
    rna_key, atac_key
        The modalities of gene expression and of accessibility.

    Raises
    ------
    ValueError
        If cell names are duplicated, cells are unpaired, or the order differs between the two
        modalities and `mdata.obs`.
    """
    rna, atac = mdata.mod[rna_key].obs_names, mdata.mod[atac_key].obs_names
    for modality, names in ((rna_key, rna), (atac_key, atac)):
        check_unique_cells(names, modality)
    if same_names(rna, atac) and same_names(rna, mdata.obs_names):
        return
    shared = rna.intersection(atac, sort=False)
    if len(shared) == 0 and len(rna) > 0 and len(atac) > 0:
        raise ValueError(
            f"`{rna_key}` and `{atac_key}` must hold the same cells, but no cell name is in both: "
            f"`{rna[0]}` is one in `{rna_key}`, `{atac[0]}` one in `{atac_key}`. Give a cell the "
            "same name in both and build the MuData again."
        )
    if not shared.isin(mdata.obs_names).all():
        raise ValueError(
            "`mdata.obs` does not know all cells of its modalities: they were changed after "
            "`mdata` was built. Run `mdata.update()` first."
        )
    intersection, union = (
        f'`mdata = scmvp_scvi.pp.{name}(mdata, rna_key="{rna_key}", atac_key="{atac_key}")`'
        for name in ("intersect_cells", "union_cells")
    )
    if len(shared) == len(rna) == len(atac) == mdata.n_obs:
        raise ValueError(
            f"`{rna_key}`, `{atac_key}` and `mdata.obs` hold the same {mdata.n_obs} cells in "
            f"different orders, which would pair one cell with the accessibility of another. "
            f"Bring them into one order: {intersection}."
        )
    raise ValueError(
        f"scMVP needs paired cells, measured in both modalities: of the {mdata.n_obs} cells in "
        f"`mdata.obs`, {mdata.n_obs - len(rna)} are missing in `{rna_key}` and "
        f"{mdata.n_obs - len(atac)} in `{atac_key}`. Keep the {len(shared)} shared ones: "
        f"{intersection}; or keep all, with zeros in the modality that they lack: {union}."
    )


def warn_about_few_pairs(
    n_pairs: int, n_rna: int, n_atac: int, *, examples: str, way_out: str
) -> None:
    """Warn where so few cells have both modalities that their names may match by accident.

    Parameters
    ----------
    n_pairs, n_rna, n_atac
        Cells of both modalities, and of each.
    examples
        Names of cells of either side, a part of a sentence.
    way_out
        What to do, a sentence.

    Warns
    -----
    UserWarning
        If less than half of the smaller modality is in both.
    """
    if n_pairs < _EXPECTED_SHARE * min(n_rna, n_atac):
        warn_user(
            f"Only {n_pairs} cells have both modalities, of {n_rna} with RNA and {n_atac} with "
            f"ATAC: {examples}. If you expect more: {way_out[0].lower()}{way_out[1:]}",
        )


def check_unique_cells(names: pd.Index, modality: str) -> None:
    """Refuse cells that share a name.

    Parameters
    ----------
    names, modality
        ``(cells,)``, the names of one modality's cells, and its key.

    Raises
    ------
    ValueError
        If a name occurs more than once.
    """
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(
            f"Cell names must be unique, but {len(twice)} are duplicated in `{modality}`: "
            f"{shown(twice)}. Put the sample in front of the name in both AnnData, "
            '`adata.obs_names = adata.obs["sample"].astype(str) + "_" + adata.obs_names`, and '
            "build the MuData again."
        )
