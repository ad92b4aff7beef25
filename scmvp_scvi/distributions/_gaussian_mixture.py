"""The Gaussian-mixture prior of the latent space (equations 11 and 12)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

_MIN_VARIANCE = 1e-4
# far below any probability that matters, and above the denormal range, which CPUs compute slowly
MIN_LOG_PROB = -60.0


@dataclass(frozen=True)
class MixtureFit:
    """A mixture of diagonal Gaussians as plain arrays: what a fit returns and a prior copies.

    Parameters
    ----------
    weights
        ``(clusters,)``, positive, summing to one.
    means
        ``(clusters, latent)``.
    variances
        ``(clusters, latent)``, positive.
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def __post_init__(self) -> None:
        n_clusters = len(self.weights)
        if self.means.shape != self.variances.shape or len(self.means) != n_clusters:
            raise ValueError(
                "`weights`, `means` and `variances` must describe the same clusters, got shapes "
                f"{self.weights.shape}, {self.means.shape} and {self.variances.shape}."
            )
        if not ((self.variances > 0).all() and (self.weights > 0).all()):
            raise ValueError("`weights` and `variances` must be positive and not NaN.")


def component_log_probs(
    z: Float[Tensor, "*draws cells latent"],
    means: Float[Tensor, "clusters latent"],
    variances: Float[Tensor, "clusters latent"],
) -> Float[Tensor, "*draws cells clusters"]:
    """Log-density of ``z`` under each component, log N(z | mu_c, sigma_c) (equation 12).

    Parameters
    ----------
    z
        Points of the latent space.
    means, variances
        One row a component.

    Returns
    -------
    Log-densities, in nats.
    """
    squared = (z.unsqueeze(-2) - means).square() / variances
    log_norm = variances.log().sum(-1) + means.shape[-1] * math.log(2 * math.pi)
    return -0.5 * (squared.sum(-1) + log_norm)


class GaussianMixture(nn.Module):
    """Mixture prior p(z) = sum_c pi_c N(z | mu_c, sigma_c) with its exact posterior p(c | z).

    Until `copy_fit` is called the prior is the broad Gaussian N(0, I) and knows no cluster. The
    parameters are allocated for ``max_clusters`` components from the start, so that a fit changes
    values and never shapes: optimiser states and distributed reducers stay valid.

    Parameters
    ----------
    max_clusters
        Largest number of components a fit may have.
    n_latent
        Dimensions of the latent space.
    """

    active: Bool[Tensor, "clusters"]
    is_fitted: Bool[Tensor, ""]

    def __init__(self, max_clusters: int, n_latent: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(max_clusters))
        self.means = nn.Parameter(torch.zeros(max_clusters, n_latent))
        self.raw_variances = nn.Parameter(torch.zeros(max_clusters, n_latent))
        self.register_buffer("active", torch.ones(max_clusters, dtype=torch.bool))
        self.register_buffer("is_fitted", torch.tensor(False))

    @property
    def variances(self) -> Float[Tensor, "clusters latent"]:
        """Variances sigma_c, kept above a floor by a softplus."""
        return F.softplus(self.raw_variances) + _MIN_VARIANCE

    @property
    def log_weights(self) -> Float[Tensor, "clusters"]:
        """Log pi: a softmax over the active components, minus infinity for the others."""
        return self.logits.masked_fill(~self.active, -torch.inf).log_softmax(-1)

    @property
    def n_clusters(self) -> int:
        """Number of components in use; 0 before the fit."""
        return int(self.active.sum()) if bool(self.is_fitted) else 0

    @torch.no_grad()
    def copy_fit(self, fit: MixtureFit) -> None:
        """Take over the components of a fit.

        Parameters
        ----------
        fit
            At most ``max_clusters`` components of ``n_latent`` dimensions.

        Raises
        ------
        ValueError
            If the fit has more components than the prior has room for, or other dimensions.
        """
        self.check_has_room_for(fit)
        n_clusters = len(fit.weights)
        used = slice(0, n_clusters)
        variances = torch.as_tensor(fit.variances).clamp_min(2 * _MIN_VARIANCE) - _MIN_VARIANCE
        self.active.zero_()
        self.active[used] = True
        self.logits[used] = torch.as_tensor(fit.weights).log().to(self.logits)
        self.means[used] = torch.as_tensor(fit.means).to(self.means)
        # the inverse of softplus, in a form that does not overflow
        raw = variances + torch.log(-torch.expm1(-variances))
        self.raw_variances[used] = raw.to(self.raw_variances)
        self.is_fitted.fill_(True)

    def check_has_room_for(self, fit: MixtureFit) -> None:
        """Refuse a fit of more components than there is room for, or of other dimensions.

        Parameters
        ----------
        fit
            The fit.

        Raises
        ------
        ValueError
            If it does not fit in.
        """
        n_clusters, max_clusters = len(fit.weights), len(self.logits)
        if fit.means.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"`fit` must have the {self.means.shape[1]} dimensions of the prior, got "
                f"{fit.means.shape[1]}."
            )
        if n_clusters > max_clusters:
            raise ValueError(
                f"`fit` has {n_clusters} components and the prior has room for {max_clusters}; "
                "build the model with a larger `n_clusters`."
            )

    def _joint_log_probs(
        self, z: Float[Tensor, "*draws cells latent"]
    ) -> Float[Tensor, "*draws cells clusters"]:
        """Log of pi_c N(z | mu_c, sigma_c)."""
        return component_log_probs(z, self.means, self.variances) + self.log_weights

    def log_prob(self, z: Float[Tensor, "*draws cells latent"]) -> Float[Tensor, "*draws cells"]:
        """Log-density of the prior: logsumexp over the components, or N(0, I) before the fit."""
        mixture = self._joint_log_probs(z).logsumexp(-1)
        standard_normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
        return torch.where(self.is_fitted, mixture, standard_normal)

    def cluster_log_probs(
        self, z: Float[Tensor, "*draws cells latent"]
    ) -> Float[Tensor, "*draws cells clusters"]:
        """Log of the exact cluster posterior p(c | z), minus infinity for unused components."""
        return self._joint_log_probs(z).log_softmax(-1)

    def cluster_probs(
        self, z: Float[Tensor, "*draws cells latent"]
    ) -> Float[Tensor, "*draws cells clusters"]:
        """Exact cluster posterior p(c | z), by Bayes' rule on equations 11 and 12.

        Rows sum to one; before the fit no cluster is known and every entry is zero.
        """
        probs = self.cluster_log_probs(z).clamp_min(MIN_LOG_PROB).exp()
        return probs * (self.active & self.is_fitted)

    def kl(self, qz: Normal, z: Float[Tensor, "*draws cells latent"]) -> Float[Tensor, "cells"]:
        """KL(q(z) || p(z)) by reparameterised draws; no closed form exists for a mixture.

        Parameters
        ----------
        qz
            Posterior of each cell, ``(cells, latent)``.
        z
            Draws from ``qz``; leading axes are averaged.

        Returns
        -------
        One estimate a cell, in nats. Unbiased, so it may be negative for single draws.
        """
        divergence = qz.log_prob(z).sum(-1) - self.log_prob(z)
        return divergence.reshape(-1, divergence.shape[-1]).mean(0)

    @torch.no_grad()
    def sample(self, n_samples: int) -> Float[Tensor, "{n_samples} latent"]:
        """Draw points of the latent space from the prior."""
        if not bool(self.is_fitted):
            return torch.randn_like(self.means[:1].expand(n_samples, -1))
        component = torch.multinomial(self.log_weights.exp(), n_samples, replacement=True)
        return torch.normal(self.means[component], self.variances[component].sqrt())
