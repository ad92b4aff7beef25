"""Encoders: a channel for each modality and the joint one (sections 3.1 to 3.3)."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from scmvp_scvi._counts import Counts
from scmvp_scvi._products import linear, profile_product
from scmvp_scvi._rows import take_rows
from scmvp_scvi._wide_gradients import WideGradients
from scmvp_scvi.nn._attention import MaskAttention, SelfAttention, SelfAttentionForm
from scmvp_scvi.nn._covariates import (
    BatchCentering,
    Covariates,
    CovariateShift,
    CovariateSizes,
)

# Columns of a dense profile and its values there, ``(cells, columns)``.
ProfileBlock = tuple[slice | Tensor, Tensor]
# From counts, all of a cell's or some, to what the channel reads of these.
Transform = Callable[[Counts], Counts]

_VARIANCE_FLOOR = 1e-4  # equation 5: exp(.) + 1e-4
_MAX_LOG_VARIANCE = 5.0  # the published description clamps the exponent to [-5, 5]


class ProfileLinear(nn.Module):
    """First layer of a channel: a linear map of a profile and of the covariates.

    Parameters
    ----------
    n_features, n_hidden
        Input and output width.
    sizes
        Covariates that enter here; none if their sizes say so.
    input_dropout
        Share of the input values that are dropped in training, the others scaled up.
    """

    def __init__(
        self, n_features: int, n_hidden: int, sizes: CovariateSizes, input_dropout: float
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_features, n_hidden))
        self.bias = nn.Parameter(torch.zeros(n_hidden))
        bound = 1 / math.sqrt(n_features)  # as nn.Linear starts its weights
        nn.init.uniform_(self.weight, -bound, bound)
        self.input_dropout = input_dropout
        self.shift = CovariateShift(sizes, n_hidden)

    def forward(
        self,
        counts: Counts,
        covariates: Covariates,
        weight: Tensor | None = None,
        wide_gradients: WideGradients | None = None,
        transform: Transform | None = None,
    ) -> Float[Tensor, "cells hidden"]:
        """Map a profile; where it is sparse, zeros are free.

        Parameters
        ----------
        counts
            ``(cells, features)``.
        covariates
            Batch and other covariates.
        weight
            View of the weight, as `split_uses` gives it; None for the weight itself.
        wide_gradients
            What becomes of the gradient of the weight; None holds it.
        transform
            What makes the profile of the counts; None takes them as they are.
        """
        weight = self.weight if weight is None else weight
        # dropped values are taken out first, so that they cost nothing either
        drops = self.training and self.input_dropout > 0
        kept = counts.keep(_survivors(counts.values, self.input_dropout)) if drops else counts
        profile = kept if transform is None else transform(kept)
        hidden = profile_product(profile, weight, wide_gradients)
        if drops:
            hidden = hidden / (1 - self.input_dropout)
        return self.shift(hidden + self.bias, covariates)

    def of_blocks(
        self,
        blocks: Iterable[ProfileBlock],
        covariates: Covariates,
        weight: Tensor | None = None,
    ) -> Float[Tensor, "cells hidden"]:
        """Map a dense profile that comes in blocks of columns, or at chosen columns alone.

        Nothing is dropped: an imputed profile has no single entry to memorise.

        Parameters
        ----------
        blocks
            Columns and the values there.
        covariates, weight
            As in `forward`.
        """
        weight = self.weight if weight is None else weight
        parts = [linear(values, take_rows(weight, columns).T) for columns, values in blocks]
        return self.shift(torch.stack(parts).sum(0) + self.bias, covariates)


def _survivors(values: Tensor, share_dropped: float) -> Tensor:
    """Draw which of these values a dropout keeps, by 16 random bits for each.

    Torch draws uniform numbers one after another, on one thread; these take a third of the time.
    """
    n_values = values.numel()
    words = torch.empty(-(-n_values // 4), dtype=torch.int64, device=values.device)
    bits = words.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[:n_values]
    return bits.view(values.shape) >= min(
        round(share_dropped * 2**16) - 2**15, torch.iinfo(torch.int16).max
    )


class PosteriorHead(nn.Module):
    """Mean and variance of a diagonal Gaussian over the latent space (equations 4 to 6).

    Parameters
    ----------
    n_in, n_latent
        Widths.
    """

    def __init__(self, n_in: int, n_latent: int) -> None:
        super().__init__()
        self.mean = nn.Linear(n_in, n_latent)
        self.log_variance = nn.Linear(n_in, n_latent)

    def forward(self, features: Float[Tensor, "cells features"]) -> Normal:
        """Return q(z | .), batch shape ``(cells, latent)``."""
        exponent = self.log_variance(features).clamp(-_MAX_LOG_VARIANCE, _MAX_LOG_VARIANCE)
        variance = exponent.exp() + _VARIANCE_FLOOR
        # no check for NaN, which would synchronise with the device: the posterior chosen of these
        # is checked outside of training, and the loss at the end of an epoch
        return Normal(self.mean(features), variance.sqrt(), validate_args=False)


@contextmanager
def _without_running_statistics(module: nn.Module) -> Iterator[None]:
    """Context in which BatchNorm layers of ``module`` leave their running statistics alone.

    The cycle passes imputed profiles through the encoders; their statistics are not those of the
    observed profiles that the encoders see in use.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm1d)]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


class ChannelEncoder(nn.Module):
    """One modality's channel: first layer, attention, and its own posterior q(z | modality).

    Parameters
    ----------
    first_layer
        Maps the profile to the hidden width.
    attention
        `MaskAttention` for RNA, `SelfAttention` for ATAC.
    n_hidden, n_latent
        Widths.
    dropout_rate
        Dropout on the channel's features, in training.
    n_centered
        Batches that the first layer is centred by; 0 where it is not.
    """

    def __init__(
        self,
        first_layer: ProfileLinear,
        attention: nn.Module,
        n_hidden: int,
        n_latent: int,
        dropout_rate: float,
        n_centered: int = 0,
    ) -> None:
        super().__init__()
        self.first_layer = first_layer
        self.centering = BatchCentering(n_centered, n_hidden) if n_centered > 0 else None
        self.attention = attention
        self.dropout = nn.Dropout(dropout_rate)
        self.head = PosteriorHead(n_hidden, n_latent)
        # whether training cells may lack the modality; to look synchronises with the device
        self.some_unobserved = True

    def forward(
        self,
        counts: Counts,
        covariates: Covariates,
        observed: Float[Tensor, "cells"],
        weight: Tensor | None = None,
        wide_gradients: WideGradients | None = None,
        transform: Transform | None = None,
    ) -> Float[Tensor, "cells hidden"]:
        """Features of the channel, zero for cells whose modality was not measured.

        Parameters
        ----------
        counts
            ``(cells, features)``.
        covariates
            Batch and other covariates.
        observed
            1 where the modality was measured, else 0. Other cells stay out of the statistics of
            the BatchNorm.
        weight, wide_gradients, transform
            As in `ProfileLinear.forward`.
        """
        hidden = self.first_layer(counts, covariates, weight, wide_gradients, transform)
        if self.centering is not None:
            if self.training:
                self.centering.learn(hidden, covariates, observed)
            hidden = self.centering(hidden, covariates)
        if not self.training or not self.some_unobserved:
            return self.dropout(self.attention(hidden)) * observed.unsqueeze(-1)
        keep = observed > 0
        n_observed = int(keep.sum())
        if n_observed < 2:  # too few for BatchNorm by themselves; all take part, none is counted
            with _without_running_statistics(self):
                return self.dropout(self.attention(hidden)) * observed.unsqueeze(-1)
        features = torch.zeros_like(hidden)
        of_observed = self.dropout(self.attention(hidden[keep]))
        features[keep] = of_observed.to(features.dtype)  # which autocast may have lowered
        return features

    def of_imputed(
        self,
        blocks: Iterable[ProfileBlock],
        covariates: Covariates,
        weight: Tensor | None = None,
    ) -> Float[Tensor, "cells hidden"]:
        """Features of an imputed profile, which leaves all running statistics alone.

        Parameters
        ----------
        blocks
            Columns of the profile and its values there.
        covariates
            Batch and other covariates.
        weight
            As in `ProfileLinear.forward`.
        """
        hidden = self.first_layer.of_blocks(blocks, covariates, weight)
        if self.centering is not None:
            hidden = self.centering(hidden, covariates)
        with _without_running_statistics(self):
            return self.dropout(self.attention(hidden))


def rna_encoder(
    n_genes: int,
    n_hidden: int,
    n_latent: int,
    sizes: CovariateSizes,
    dropout_rate: float,
    input_dropout: float,
    n_centered: int = 0,
) -> ChannelEncoder:
    """Build the RNA channel: mask attention (equations 1 to 6).

    Parameters
    ----------
    n_genes, n_hidden, n_latent
        Widths.
    sizes
        Covariates that enter.
    dropout_rate, input_dropout
        Shares of the channel's features and of the input values dropped, in training.
    n_centered
        Batches that the first layer is centred by; 0 where it is not.
    """
    first_layer = ProfileLinear(n_genes, n_hidden, sizes, input_dropout)
    attention = MaskAttention(n_hidden)
    return ChannelEncoder(first_layer, attention, n_hidden, n_latent, dropout_rate, n_centered)


def atac_encoder(
    n_peaks: int,
    n_hidden: int,
    n_latent: int,
    sizes: CovariateSizes,
    dropout_rate: float,
    input_dropout: float,
    n_heads: int,
    form: SelfAttentionForm,
    n_centered: int = 0,
) -> ChannelEncoder:
    """Build the ATAC channel: multi-head self attention (equations 7 to 10).

    Parameters
    ----------
    n_peaks, n_hidden, n_latent
        Widths.
    sizes
        Covariates that enter.
    dropout_rate, input_dropout
        Shares of the channel's features and of the input values dropped, in training.
    n_heads, form
        See `SelfAttention`.
    n_centered
        Batches that the first layer is centred by; 0 where it is not.
    """
    first_layer = ProfileLinear(n_peaks, n_hidden, sizes, input_dropout)
    attention = SelfAttention(n_hidden, n_heads, form, dropout_rate)
    return ChannelEncoder(first_layer, attention, n_hidden, n_latent, dropout_rate, n_centered)


class JointEncoder(nn.Module):
    """The shared layer over both channels' features and q(z | x, y) (section 3.3).

    Parameters
    ----------
    n_hidden, n_hidden_atac
        Widths of the features of the RNA and of the ATAC channel.
    n_shared, n_latent
        Widths of the shared layer and of the latent space.
    """

    def __init__(self, n_hidden: int, n_hidden_atac: int, n_shared: int, n_latent: int) -> None:
        super().__init__()
        self.shared = nn.Linear(n_hidden + n_hidden_atac, n_shared)
        self.layer_norm = nn.LayerNorm(n_shared)
        self.head = PosteriorHead(n_shared, n_latent)

    def forward(
        self, rna: Float[Tensor, "cells rna_hidden"], atac: Float[Tensor, "cells atac_hidden"]
    ) -> Normal:
        """Return q(z | x, y), batch shape ``(cells, latent)``."""
        return self.head(self.layer_norm(self.shared(torch.cat((rna, atac), dim=-1))))
