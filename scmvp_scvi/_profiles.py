"""What the encoders read of observed counts, and the same of the profiles that are imputed."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi._counts import Counts
from scmvp_scvi._feature_sample import FeatureSample
from scmvp_scvi.distributions._factored import FactoredZeroInflatedPoisson
from scmvp_scvi.nn._decoders import ATACTarget
from scmvp_scvi.nn._encoders import ProfileBlock

_TF_SCALE = 1e4  # term frequencies are counts per ten thousand
_PEAKS_PER_BLOCK = 8192  # of an imputed profile that is read whole


def log_normalized(
    counts: Counts, to_depth: Float[Tensor, ""], depth: Float[Tensor, "cells 1"] | None = None
) -> Counts:
    """log1p of counts that are scaled to a depth, zero stays zero.

    Parameters
    ----------
    counts
        ``(cells, genes)``, the counts, or some of them.
    to_depth
        The depth.
    depth
        Of the cells; None for the sum of these counts.
    """
    return counts.with_values(_scaled(counts, depth, to_depth).log1p_())


def log_normalized_of_shares(
    log_share: Float[Tensor, "cells genes"], to_depth: Float[Tensor, ""]
) -> Float[Tensor, "cells genes"]:
    """`log_normalized` of counts that are as many as the shares say.

    Parameters
    ----------
    log_share
        Logarithm of the share of each gene in the cell's counts.
    to_depth
        As in `log_normalized`.
    """
    return F.softplus(log_share + to_depth.log())  # log1p(share * depth)


def log_tfidf(
    counts: Counts, idf: Float[Tensor, "peaks"], depth: Float[Tensor, "cells 1"] | None = None
) -> Counts:
    """log1p of TF-IDF, zero stays zero.

    Parameters
    ----------
    counts
        ``(cells, peaks)``, the counts, or some of them.
    idf
        Inverse document frequency of each peak.
    depth
        Of the cells; None for the sum of these counts.
    """
    tfidf = _scaled(counts, depth, _TF_SCALE).mul_(counts.of_features(idf))
    return counts.with_values(tfidf.log1p_())


def log_tfidf_of_shares(
    share: Float[Tensor, "*cells peaks"], idf: Float[Tensor, "peaks"]
) -> Float[Tensor, "*cells peaks"]:
    """`log_tfidf` of counts that are as many as the shares say.

    Parameters
    ----------
    share
        Share of each peak in the cell's counts.
    idf
        As in `log_tfidf`.
    """
    return torch.log1p(share * (_TF_SCALE * idf))


def imputed_rna(
    log_share: Float[Tensor, "cells genes"],
    to_depth: Float[Tensor, ""],
    sample: FeatureSample | None = None,
) -> Iterator[ProfileBlock]:
    """Yield the imputed RNA profile in the encoder's units, whole or at some genes.

    Parameters
    ----------
    log_share
        Logarithm of the share that the decoder gives each gene.
    to_depth
        As in `log_normalized`.
    sample
        Genes that stand for all, by their weights.
    """
    if sample is None:
        yield slice(None), log_normalized_of_shares(log_share, to_depth)
        return
    # by rows: the gradient of a choice of columns takes several times as long
    chosen = log_share.gather(1, sample.columns.expand(len(log_share), -1))
    yield sample.columns, log_normalized_of_shares(chosen, to_depth) * sample.weights


def imputed_atac(
    py: FactoredZeroInflatedPoisson,
    idf: Float[Tensor, "peaks"],
    target: ATACTarget,
    sample: FeatureSample | None = None,
) -> Iterator[ProfileBlock]:
    """Yield the imputed ATAC profile in the encoder's units, block by block or at some peaks.

    Parameters
    ----------
    py
        Law of the ATAC counts, of the sampled peaks alone if there is a sample.
    idf
        Inverse document frequency of each peak, sampled or not.
    target
        What the law is of.
    sample
        Peaks that stand for all, by their weights.
    """
    if sample is not None:
        yield sample.columns, _encoder_units(py, idf[sample.columns], target) * sample.weights
        return
    for start in range(0, len(idf), _PEAKS_PER_BLOCK):
        block = slice(start, start + _PEAKS_PER_BLOCK)
        yield block, _encoder_units(py.at(block), idf[block], target)


def _encoder_units(
    py: FactoredZeroInflatedPoisson, idf: Float[Tensor, "peaks"], target: ATACTarget
) -> Float[Tensor, "cells peaks"]:
    if target == "counts":
        return log_tfidf_of_shares(py.scale(), idf)
    # the decoder's mean is the encoder's input already
    seen = py.observed[:, None]
    # of a cell without counts the library is no more than a placeholder
    typical = (seen * py.library).sum() / seen.sum().clamp(min=1)
    return py.scale() * torch.where(seen > 0, py.library, typical)


def _scaled(
    counts: Counts, depth: Float[Tensor, "cells 1"] | None, to_depth: float | Tensor
) -> Tensor:
    """Counts scaled to a depth, as they are stored; those of an empty cell stay zero."""
    depth = counts.depth if depth is None else depth
    return counts.values * counts.spread(to_depth / depth.clamp_min(1e-8).view(-1))
