"""Counts where the model looks for them, and in its unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scvi import data as scvi_data

from scmvp_scvi.pp._input import FRAGMENT_LAYER, check_modality, read_counts
from scmvp_scvi.pp._output import take

if TYPE_CHECKING:
    from mudata import MuData


def promote_counts(
    mdata: MuData,
    *,
    rna_layer: str | None = None,
    atac_layer: str | None = None,
    former_layer: str | None = None,
    rna_key: str = "rna",
    atac_key: str = "atac",
) -> MuData:
    """Put the raw counts of a layer into ``.X``, where scanpy and muon look for them.

    The model itself does not need this: ``SCMVPModel.setup_mudata`` takes the same layers.

    Parameters
    ----------
    mdata
        The data.
    rna_layer, atac_layer
        Layer with the raw counts; the modality is left as it is without one.
    former_layer
        Layer that the former ``.X`` goes to; without it, the new object does not hold it.
    rna_key, atac_key
        The two modalities.

    Returns
    -------
    A new MuData; the layers are still there.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If no layer is given, the layer does not hold counts, or `former_layer` is taken.
    """
    layers = {
        kind: (key, layer)
        for kind, key, layer in (("rna", rna_key, rna_layer), ("atac", atac_key, atac_layer))
        if layer is not None
    }
    if not layers:
        raise ValueError(
            "`promote_counts` needs the layer that holds the raw counts, got none. Pass "
            "`rna_layer`, `atac_layer` or both."
        )
    for kind, (key, layer) in layers.items():
        check_modality(mdata, key, argument=f"{kind}_key")
        read_counts(mdata, key, layer, argument=f"{kind}_layer")
        if former_layer is not None and former_layer in mdata[key].layers:
            raise ValueError(
                f'`former_layer="{former_layer}"` must be a new layer, but `mdata["{key}"]` has '
                "one of this name. Choose another."
            )
    promoted = take(mdata)
    for key, layer in layers.values():
        adata = promoted[key]
        if former_layer is not None and adata.X is not None:
            adata.layers[former_layer] = adata.X
        adata.X = adata.layers[layer].copy()
    return promoted


def reads_to_fragments(
    mdata: MuData,
    *,
    read_layer: str | None = None,
    fragment_layer: str = FRAGMENT_LAYER,
    atac_key: str = "atac",
) -> MuData:
    """Estimate fragments from reads: half of them, rounded up.

    Each fragment gives two reads, one for each end, which may fall into different peaks
    :cite:p:`Martens2024`. The result is that of :func:`scvi.data.reads_to_fragments`, in a new
    object.

    Parameters
    ----------
    mdata
        The data.
    read_layer
        Layer with the reads; None for ``.X``.
    fragment_layer
        Layer that the fragments go to, to be passed on as ``atac_layer``.
    atac_key
        The modality.

    Returns
    -------
    A new MuData.

    Raises
    ------
    KeyError
        If the layer does not exist.
    ValueError
        If it does not hold counts, or if `fragment_layer` is taken.
    """
    check_modality(mdata, atac_key, argument="atac_key")
    read_counts(mdata, atac_key, read_layer, argument="read_layer")
    if fragment_layer in mdata[atac_key].layers:
        raise ValueError(
            f'`fragment_layer="{fragment_layer}"` must be a new layer, but `mdata["{atac_key}"]` '
            "has one of this name: halving it again would be wrong. Use it, or choose another "
            "name."
        )
    converted = take(mdata)
    scvi_data.reads_to_fragments(converted[atac_key], read_layer, fragment_layer)
    return converted
