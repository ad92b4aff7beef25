"""TF-IDF of the ATAC counts, as the model reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scmvp_scvi._validate import check_indices
from scmvp_scvi.pp._input import check_modality, read_atac_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

_TF_SCALE = 1e4  # as in the module: term frequencies are counts per ten thousand


def tfidf(
    mdata: MuData,
    *,
    idf_indices: Sequence[int] | np.ndarray | None = None,
    atac_layer: str | None = None,
    atac_key: str = "atac",
) -> sp.csr_matrix:
    r"""Logarithm of TF-IDF, the form in which the model's encoder reads the ATAC counts.

    .. math::
        \log\Big(1 + 10^4 \, \frac{y_{ip}}{\sum_{p'} y_{ip'}} \,
        \frac{N}{\max(\sum_{j} y_{jp}, 1/2)}\Big),

    where :math:`j` runs over the :math:`N` cells of `idf_indices`. The model does this by itself,
    from raw counts: the result is for other methods, and not to be registered with the model.
    It is that of ``muon.atac.pp.tfidf`` with ``log_tf=False, log_idf=False,
    log_tfidf=True``, where every cell and every peak has a count.

    Parameters
    ----------
    mdata
        The data.
    idf_indices
        Cells of the modality that the document frequency is taken from: positions or a mask. All
        by default; the model uses its training cells, ``model.train_indices``.
    atac_layer
        Layer with the raw counts; None for ``.X``.
    atac_key
        The modality.

    Returns
    -------
    ``(cells, peaks)``, CSR of float32, with the zeros of the counts. Cells without a count stay
    empty.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is no such matrix, it does not hold counts, or `idf_indices` are no cells.

    Warns
    -----
    UserWarning
        If reads are read where `reads_to_fragments` has estimated fragments.

    Examples
    --------
    >>> from scmvp_scvi import datasets, pp
    >>> mdata = datasets.synthetic(n_cells=300)
    >>> mdata["atac"].layers["tfidf"] = pp.tfidf(mdata)
    """
    check_modality(mdata, atac_key, argument="atac_key")
    counts = read_atac_counts(mdata, atac_key, atac_layer).astype(np.float32)
    cells = check_indices(
        idf_indices,
        counts.shape[0],
        argument="idf_indices",
        cells=mdata[atac_key].obs_names,
        cells_are=f'mdata["{atac_key}"].obs_names',
    )
    weight = np.zeros(counts.shape[0], np.float32)
    weight[cells] = 1
    # as in the module, a peak without a count is treated as if it had been seen in half a cell
    idf = (weight.sum() / np.maximum(counts.T @ weight, 0.5)).astype(np.float32)
    depth = np.maximum(counts.sum(axis=1).A1, 1e-8, dtype=np.float32)
    tf = counts.data / np.repeat(depth, np.diff(counts.indptr)) * np.float32(_TF_SCALE)
    values = np.log1p(tf * idf[counts.indices])
    return sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
