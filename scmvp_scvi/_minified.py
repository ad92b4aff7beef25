"""Minified data: a MuData that holds the posterior of each cell in place of its counts."""

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from hashlib import sha256
from typing import Final, Literal, NamedTuple

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scvi.data import fields
from torch import Tensor

from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._mudata import layer_names, mudata_of
from scmvp_scvi._scvi import DATA_UUID_KEY, MANAGER_UUID_KEY, MINIFY_TYPE_UNS_KEY
from scmvp_scvi._validate import check_is_among

MinifiedDataType = Literal["latent_posterior_parameters"]
MINIFIED: Final[MinifiedDataType] = "latent_posterior_parameters"  # scvi-tools' name of the kind

_LATENT_MEAN_KEY = "scmvp_latent_qzm"
_LATENT_VARIANCE_KEY = "scmvp_latent_qzv"
_RNA_DEPTH_KEY = "scmvp_rna_depth"
_ATAC_DEPTH_KEY = "scmvp_atac_depth"
_MODEL_KEY = "scmvp_minified_by"

_TOLERANCE = 1e-3  # of a given posterior, that another device may have computed

_PASS_COUNTS = (
    "pass the data with counts as `adata`, or load the saved model with them, "
    "`SCMVPModel.load(folder, adata=mdata)`"
)
LOAD_WITH_COUNTS = (
    "load the saved model with the data with counts, `SCMVPModel.load(folder, adata=mdata)`"
)


class CachedCells(NamedTuple):
    """All that decoding needs of each cell besides its covariates and size factors."""

    latent_mean: np.ndarray  # (cells, latent)
    latent_variance: np.ndarray  # (cells, latent)
    rna_depth: np.ndarray  # (cells,), 0 where RNA was not observed
    atac_depth: np.ndarray  # (cells,), of what the decoder reconstructs, 0 where not observed


def is_minified(mdata: MuData) -> bool:
    """Whether the data hold posteriors in place of counts."""
    return MINIFY_TYPE_UNS_KEY in mdata.uns


def check_has_counts(mdata: MuData, *, needed_by: str, way_out: str = _PASS_COUNTS) -> None:
    """Refuse minified data where counts are read.

    Parameters
    ----------
    mdata
        The data.
    needed_by, way_out
        What reads counts, as the user spells it, and what to do.

    Raises
    ------
    ValueError
        If the data are minified.
    """
    if is_minified(mdata):
        raise _needs_counts(needed_by, way_out)


def batches_with_counts(
    loader: Iterable[dict[str, Tensor]], *, needed_by: str
) -> Iterator[dict[str, Tensor]]:
    """Pass minibatches on; refuse those of minified data as `check_has_counts` does."""
    for tensors in loader:
        if REGISTRY.LATENT_MEAN in tensors:
            raise _needs_counts(needed_by, _PASS_COUNTS)
        yield tensors


def _needs_counts(needed_by: str, way_out: str) -> ValueError:
    return ValueError(
        f"{needed_by} needs the counts, which minified data no longer hold: {way_out}."
    )


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Digest of the weights of a model, the same for the same weights alone.

    Parameters
    ----------
    state
        Of the module.
    """
    digest = sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_minified_by(mdata: MuData, state: Mapping[str, Tensor]) -> None:
    """Refuse minified data whose posteriors are those of another model.

    Parameters
    ----------
    mdata
        The data, minified or not.
    state
        Of the module of the model that is to read them.

    Raises
    ------
    ValueError
        If the data say that another model minified them.
    """
    if is_minified(mdata) and mdata.uns.get(_MODEL_KEY) not in (None, fingerprint(state)):
        raise ValueError(
            "The data hold the posteriors of another model, which this one decodes otherwise. "
            "Load the model that minified them, or pass the data with counts: "
            "`SCMVPModel.load(folder, adata=mdata)`."
        )


def minified_copy(
    mdata: MuData, emptied: tuple[str, str], cells: CachedCells, model: str
) -> MuData:
    """Return the data with the cached cells in place of the counts; nothing is changed in place.

    Parameters
    ----------
    mdata
        The data.
    emptied
        The two modalities of the model: their ``.X`` and layers become empty sparse matrices,
        their ``.raw`` goes. Further modalities, read if on disk, and all annotations stay.
    cells
        What is cached, in the order of ``mdata``.
    model
        Fingerprint of the model that the posteriors are of.
    """
    modalities = {
        # one on disk has no copy but in memory
        key: _without_counts(adata) if key in emptied else adata.to_memory(copy=True)
        for key, adata in mdata.mod.items()
    }
    # with the features where they are, which need not be the order of the modalities; the map
    # tells those of one name in two modalities apart
    minified = mudata_of(
        modalities, mdata.obs, var=mdata.var[[]].copy(), varmap=dict(mdata.varmap)
    )
    minified.var = mdata.var.copy()
    for name in ("obsm", "varm", "obsp", "varp", "uns"):
        getattr(minified, name).update(deepcopy(dict(getattr(mdata, name))))
    forget_registration(minified)
    minified.uns[MINIFY_TYPE_UNS_KEY] = MINIFIED
    minified.uns[_MODEL_KEY] = model
    minified.obsm[_LATENT_MEAN_KEY] = cells.latent_mean
    minified.obsm[_LATENT_VARIANCE_KEY] = cells.latent_variance
    minified.obs[_RNA_DEPTH_KEY] = cells.rna_depth
    minified.obs[_ATAC_DEPTH_KEY] = cells.atac_depth
    return minified


def _without_counts(adata: AnnData) -> AnnData:
    """Copy everything but ``.X``, the layers and ``.raw``, which may be larger than memory."""
    empty = sparse.csr_matrix(adata.shape, dtype=np.float32)
    copied = {
        name: deepcopy(dict(getattr(adata, name)))
        for name in ("obsm", "varm", "obsp", "varp", "uns")
    }
    return AnnData(
        empty,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        layers={name: empty.copy() for name in layer_names(adata)},
        **copied,
    )


def minified_fields() -> list[fields.BaseAnnDataField]:
    """Fields that minified data have besides those of data with counts."""
    return [
        fields.MuDataObsmField(REGISTRY.LATENT_MEAN, _LATENT_MEAN_KEY),
        fields.MuDataObsmField(REGISTRY.LATENT_VARIANCE, _LATENT_VARIANCE_KEY),
        fields.MuDataNumericalObsField(REGISTRY.RNA_DEPTH, _RNA_DEPTH_KEY),
        fields.MuDataNumericalObsField(REGISTRY.ATAC_DEPTH, _ATAC_DEPTH_KEY),
        fields.StringUnsField(REGISTRY.MINIFY_TYPE, MINIFY_TYPE_UNS_KEY),
    ]


def forget_registration(mdata: MuData) -> None:
    """Remove what ties the data to a registration of scvi-tools, which a copy inherits."""
    for key in (DATA_UUID_KEY, MANAGER_UUID_KEY):
        mdata.uns.pop(key, None)


def check_given_posterior(
    mdata: MuData, keys: Mapping[str, str | None], cells: CachedCells
) -> None:
    """Compare a posterior in ``mdata.obsm`` with the one the model has just computed.

    Parameters
    ----------
    mdata
        The data.
    keys
        ``use_latent_qzm_key`` and ``use_latent_qzv_key`` to their keys; None where there is none.
    cells
        What is cached.

    Raises
    ------
    KeyError
        If ``mdata.obsm`` has no such key.
    ValueError
        If it holds something else, such as a standard deviation or the embedding of an earlier
        training.
    """
    for (argument, key), (what, computed) in zip(
        keys.items(),
        (("mean", cells.latent_mean), ("variance", cells.latent_variance)),
        strict=True,
    ):
        if key is None:
            continue
        check_is_among(key, list(mdata.obsm), argument=argument, what="in `mdata.obsm`")
        given = np.asarray(mdata.obsm[key])
        if given.shape != computed.shape or not np.allclose(
            given, computed, rtol=_TOLERANCE, atol=_TOLERANCE
        ):
            raise ValueError(
                f'`{argument}="{key}"` must hold the {what} of the posterior, as '
                "`get_latent_representation(return_dist=True)` returns it, but does not. Leave "
                "it out: the model computes its posterior itself."
            )
