"""What the encoders read of observed counts, and the same of the profiles that are imputed."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from scmvp_scvi._counts import Counts

_TF_SCALE = 1e4  # term frequencies are counts per ten thousand


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


def _scaled(
    counts: Counts, depth: Float[Tensor, "cells 1"] | None, to_depth: float | Tensor
) -> Tensor:
    """Counts scaled to a depth, as they are stored; those of an empty cell stay zero."""
    depth = counts.depth if depth is None else depth
    return counts.values * counts.spread(to_depth / depth.clamp_min(1e-8).view(-1))
