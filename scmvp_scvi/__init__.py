"""scMVP, a deep generative model of RNA and ATAC measured in the same cells, for scvi-tools."""

from importlib.metadata import version

import rich.pretty  # noqa: F401  scvi-tools 1.4 prints its registries through it unimported

from scmvp_scvi import datasets, distributions, hub, metrics, nn, pl, pp, tl
from scmvp_scvi._model import SCMVPModel
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._training_plan import SCMVPTrainingPlan

__version__ = version("scmvp-scvi")

__all__ = [
    "SCMVPModel",
    "SCMVPModule",
    "SCMVPTrainingPlan",
    "datasets",
    "distributions",
    "hub",
    "metrics",
    "nn",
    "pl",
    "pp",
    "tl",
]
