"""The methods of the benchmark by name."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from harness.methods.base import Method
from harness.methods.factors import MOFA
from harness.methods.models import SCMVP, SCVI, MultiVI
from harness.methods.original import OriginalSCMVP
from harness.methods.simple import WNN, Components, Linear, Mean, Neighbors, Raw

METHODS: dict[str, Callable[..., Method]] = {
    "raw": Raw,
    "mean": Mean,
    "kNN 15": partial(Neighbors, 15),
    "kNN 100": partial(Neighbors, 100),
    "linear": Linear,
    "RNA PCA": partial(Components, "rna"),
    "ATAC LSI": partial(Components, "atac"),
    "PCA + LSI": partial(Components, "joint", "rna", "atac"),
    "WNN": WNN,
    "MOFA+": MOFA,
    "scVI": SCVI,
    "scmvp": SCMVP,
    "MultiVI": MultiVI,
    "scmvp, 2,048 peaks per step": partial(SCMVP, plan={"n_peaks_per_step": 2048}),
    "scmvp, no cycle": partial(SCMVP, plan={"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}),
    "scmvp, no cluster attention": partial(SCMVP, model={"cluster_attention": False}),
    "scmvp, one Gaussian": partial(SCMVP, model={"n_clusters": 1}),
    "scmvp, scalar self attention": partial(SCMVP, model={"self_attention": "scalar"}),
    "scmvp, 128 wide ATAC": partial(SCMVP, model={"n_hidden_atac": 128}),
    "scmvp, KL weight .3": partial(
        SCMVP, plan={"gaussian_kl_weight": 0.3, "max_kl_weight": 0.3, "mixture_start": 0.6}
    ),
    "scmvp, KL weight 1": partial(SCMVP, plan={"gaussian_kl_weight": 1.0}),
    "original scMVP": OriginalSCMVP,
}
ABLATIONS = tuple(name for name in METHODS if name.startswith("scmvp, "))
# run only when named: they take long, or another package
ONLY_NAMED = ("MultiVI", *ABLATIONS, "original scMVP")
NEEDS = {"MOFA+": "mofapy2", "original scMVP": "scMVP"}


def missing_package(name: str) -> str | None:
    """Package that a method needs and that is not installed."""
    package = NEEDS.get(name)
    return package if package is not None and find_spec(package) is None else None
