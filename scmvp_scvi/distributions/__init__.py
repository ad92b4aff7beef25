"""Probability laws: of ATAC counts, of whole decoded profiles, and of the latent space."""

from scmvp_scvi.distributions._factored import (
    FactoredNegativeBinomial,
    FactoredZeroInflatedPoisson,
    UpdatedNegativeBinomial,
)
from scmvp_scvi.distributions._gaussian_mixture import GaussianMixture, MixtureFit
from scmvp_scvi.distributions._zero_inflated_poisson import ZeroInflatedPoisson

__all__ = [
    "FactoredNegativeBinomial",
    "FactoredZeroInflatedPoisson",
    "GaussianMixture",
    "MixtureFit",
    "UpdatedNegativeBinomial",
    "ZeroInflatedPoisson",
]
