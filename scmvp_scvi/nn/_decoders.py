"""Decoders: from the latent space to the laws of RNA and ATAC counts (equations 13 to 19)."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scmvp_scvi.distributions._factored import (
    FactoredNegativeBinomial,
    FactoredZeroInflatedPoisson,
)
from scmvp_scvi.nn._attention import MaskAttention, SelfAttention, SelfAttentionForm
from scmvp_scvi.nn._covariates import ConditionedLinear, Covariates, CovariateSizes

ATACTarget = Literal["counts", "tfidf"]
Dispersion = Literal["gene", "gene-batch", "gene-label"]

_INITIAL_INCLUSION_LOGIT = 3.0  # tau = .95: peaks start nearly Poisson
_INITIAL_OUTPUT_SCALE = 0.01  # decoded profiles start at the mean profile, not at noise around it


class RNADecoder(nn.Module):
    """Mask attention on z, cluster attention, softmax over genes (equations 13 to 15).

    Parameters
    ----------
    n_latent, n_hidden, n_genes
        Widths.
    sizes
        Covariates that condition the decoder.
    dropout_rate
        Dropout on the hidden layer, in training.
    n_dispersions
        Rows of the inverse dispersion: 1, or the number of batches or labels it depends on.
    """

    def __init__(
        self,
        n_latent: int,
        n_hidden: int,
        n_genes: int,
        sizes: CovariateSizes,
        dropout_rate: float,
        n_dispersions: int,
    ) -> None:
        super().__init__()
        self.first_layer = ConditionedLinear(n_latent, n_hidden, sizes)
        self.attention = MaskAttention(n_hidden)
        self.dropout = nn.Dropout(dropout_rate)
        self.output = nn.Linear(n_hidden, n_genes)
        nn.init.normal_(self.output.weight, std=_INITIAL_OUTPUT_SCALE)
        self.log_inverse_dispersion = nn.Parameter(torch.zeros(n_dispersions, n_genes))

    def forward(
        self,
        z: Float[Tensor, "cells latent"],
        cluster_weights: Float[Tensor, "cells #hidden"],
        covariates: Covariates,
        dispersion_index: Tensor | None,
        library: Float[Tensor, "cells 1"],
        observed: Float[Tensor, "cells"],
    ) -> FactoredNegativeBinomial:
        """Return the law of the RNA counts.

        Parameters
        ----------
        z
            Points of the latent space.
        cluster_weights
            Output of the cluster attention; one column of ones without it.
        covariates
            Batch and other covariates.
        dispersion_index
            ``(cells,)``, row of the dispersion of each cell; None if all share one.
        library
            Depth of each cell.
        observed
            1 where RNA was measured.
        """
        hidden = self.dropout(self.attention(self.first_layer(z, covariates)))
        dispersion = self.log_inverse_dispersion
        return FactoredNegativeBinomial(
            hidden * cluster_weights,
            self.output.weight,
            self.output.bias,
            dispersion[0]
            if dispersion_index is None
            else dispersion.index_select(0, dispersion_index),
            library,
            observed,
        )

    @torch.no_grad()
    def start_at(self, mean_share: Float[Tensor, "genes"]) -> None:
        """Start the output bias at the mean profile of the data, which saves it from learning it.

        Parameters
        ----------
        mean_share
            Share of each gene in all counts, positive.
        """
        self.output.bias.copy_(mean_share.log())


class ATACDecoder(nn.Module):
    """Self attention on z, cluster attention, rate and inclusion of each peak (16 to 19).

    Parameters
    ----------
    n_latent, n_hidden, n_peaks
        Widths.
    sizes
        Covariates that condition the decoder.
    dropout_rate
        Dropout on the hidden layer and in the attention, in training.
    n_heads, form
        See `SelfAttention`.
    """

    def __init__(
        self,
        n_latent: int,
        n_hidden: int,
        n_peaks: int,
        sizes: CovariateSizes,
        dropout_rate: float,
        n_heads: int,
        form: SelfAttentionForm,
    ) -> None:
        super().__init__()
        self.first_layer = ConditionedLinear(n_latent, n_hidden, sizes)
        self.attention = SelfAttention(n_hidden, n_heads, form, dropout_rate)
        self.dropout = nn.Dropout(dropout_rate)
        self.rate = nn.Linear(n_hidden, n_peaks)
        self.inclusion = nn.Linear(n_hidden, n_peaks)
        for layer in (self.rate, self.inclusion):
            nn.init.normal_(layer.weight, std=_INITIAL_OUTPUT_SCALE)
        nn.init.constant_(self.inclusion.bias, _INITIAL_INCLUSION_LOGIT)
        nn.init.constant_(self.rate.bias, -math.log(n_peaks))

    def forward(
        self,
        z: Float[Tensor, "cells latent"],
        cluster_weights: Float[Tensor, "cells #hidden"],
        covariates: Covariates,
        library: Float[Tensor, "cells 1"],
        observed: Float[Tensor, "cells"],
    ) -> FactoredZeroInflatedPoisson:
        """Return the law of the ATAC counts; parameters as in `RNADecoder.forward`."""
        hidden = self.dropout(self.attention(self.first_layer(z, covariates)))
        return FactoredZeroInflatedPoisson(
            hidden * cluster_weights,
            self.rate.weight,
            self.rate.bias,
            self.inclusion.weight,
            self.inclusion.bias,
            library,
            observed,
        )

    @torch.no_grad()
    def start_at(self, mean_share: Float[Tensor, "peaks"]) -> None:
        """Start the rate's bias at the mean profile of the data.

        Parameters
        ----------
        mean_share
            Share of each peak in all counts, positive. One that holds nearly all counts rounds
            to 1, whose logit is infinite: it starts at the share just below.
        """
        most = 1 - torch.finfo(mean_share.dtype).eps
        self.rate.bias.copy_(mean_share.clamp_max(most).logit())
