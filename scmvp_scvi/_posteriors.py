"""Posteriors of several channels, side by side or each where it is the one to read."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Normal


def stack_posteriors(*posteriors: Normal) -> Normal:
    """Posteriors of several channels as one, ``(channels, cells, latent)``.

    Parameters
    ----------
    *posteriors
        Of the same cells, batch shape ``(cells, latent)``.
    """
    return Normal(
        torch.stack([p.loc for p in posteriors]),
        torch.stack([p.scale for p in posteriors]),
        validate_args=False,
    )


def choose_posterior(
    joint: Normal,
    rna: Normal,
    atac: Normal,
    rna_observed: Float[Tensor, "cells"],
    atac_observed: Float[Tensor, "cells"],
    validate: bool,
) -> Normal:
    """Joint posterior where both modalities were measured, else that of the one that was.

    Parameters
    ----------
    joint, rna, atac
        Posteriors of the same cells, batch shape ``(cells, latent)``.
    rna_observed, atac_observed
        1 where the modality was measured, else 0.
    validate
        As in `posterior_where`.
    """
    both = (rna_observed * atac_observed).bool().unsqueeze(-1)
    has_rna = rna_observed.bool().unsqueeze(-1)
    return posterior_where(both, joint, posterior_where(has_rna, rna, atac), validate)


def posterior_where(
    chosen: Bool[Tensor, "cells 1"], posterior: Normal, other: Normal, validate: bool = False
) -> Normal:
    """Take the posterior of the cells that are chosen, and another one of the rest.

    Parameters
    ----------
    chosen
        The cells.
    posterior, other
        Batch shape ``(cells, latent)``.
    validate
        Have torch look for NaN in the result, which synchronises with the device.
    """
    loc = torch.where(chosen, posterior.loc, other.loc)
    return Normal(loc, torch.where(chosen, posterior.scale, other.scale), validate_args=validate)
