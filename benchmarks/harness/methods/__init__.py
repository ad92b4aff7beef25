"""The methods of the benchmark by name."""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from harness.methods.base import Method
from harness.methods.factors import MOFA
from harness.methods.models import SCMVP, SCVI, MultiVI
from harness.methods.original import PYTHON, OriginalSCMVP
from harness.methods.simple import WNN, Components, Linear, Mean, MeanOfLogs, Neighbors, Raw

# forms of the model with one thing changed: arguments of `SCMVP`
CHANGES: dict[str, dict[str, Any]] = {
    "2,048 peaks per step": {"plan": {"n_peaks_per_step": 2048}},
    "no cycle": {"plan": {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}},
    "no cluster attention": {"model": {"cluster_attention": False}},
    "one Gaussian": {"model": {"n_clusters": 1}},
    "scalar self attention": {"model": {"self_attention": "scalar"}},
    "128 wide ATAC": {"model": {"n_hidden_atac": 128}},
    "KL weight 1": {"plan": {"gaussian_kl_weight": 1.0}},
}
# one low weight of the KL for all of the training, with one fit of the mixture, and most of the
# changes to that form
LOW_KL: dict[str, object] = {
    "gaussian_kl_weight": 0.3,
    "max_kl_weight": 0.3,
    "mixture_start": 0.6,
    "mixture_refit": None,
}
CHANGES |= {
    "KL weight .3": {"plan": LOW_KL},
    **{
        f"KL weight .3, {name}": {**change, "plan": {**LOW_KL, **change.get("plan", {})}}
        for name, change in CHANGES.items()
        if "KL weight" not in name
    },
}
# widths, batches, and which of the two terms of the cycle does what
CHANGES |= {
    "256 wide RNA": {"model": {"n_hidden": 256}},
    "15 dimensions": {"model": {"n_latent": 15}},
    "centred batches": {"model": {"center_batches": True}},
    "centred batches, 15 dimensions": {"model": {"center_batches": True, "n_latent": 15}},
    "no cycle of the latent": {"plan": {"cycle_weight": 0.0}},
    "no cycle of the clusters": {"plan": {"cycle_cluster_weight": 0.0}},
}
# up to 5,000 cells a tenth is the default; more, and fewer on more cells
CHANGES |= {
    "hidden dropout .1": {"model": {"dropout_rate": 0.1}},
    "hidden dropout .3": {"model": {"dropout_rate": 0.3}},
}
# imputed values that a gene's count in the cell has a part in
CHANGES |= {"own counts": {"own_counts": True}}
# the default up to 5,000 cells before there was hidden dropout, and changes to it; 200 epochs were
# the default once
NO_DROPOUT: dict[str, Any] = {"dropout_rate": 0.0}
CHANGES |= {
    "no dropout": {"model": NO_DROPOUT},
    "no dropout, 200 epochs": {"model": NO_DROPOUT, "epochs": 200},
    **{
        f"no dropout, {name}": {**change, "model": {**NO_DROPOUT, **change.get("model", {})}}
        for name, change in CHANGES.items()
        if name in ("KL weight 1", "15 dimensions") or name.startswith("centred batches")
    },
}

METHODS: dict[str, Callable[..., Method]] = {
    "raw": Raw,
    "mean": Mean,
    "mean of logs": MeanOfLogs,
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
    **{f"scmvp, {name}": partial(SCMVP, **change) for name, change in CHANGES.items()},
    "original scMVP": OriginalSCMVP,
}
ABLATIONS = tuple(name for name in METHODS if name.startswith("scmvp, "))
# run only when named: they take long, or another package
ONLY_NAMED = ("MultiVI", *ABLATIONS, "original scMVP")


def what_is_missing(name: str) -> str | None:
    """What a method needs and is not there, in words."""
    if name == "MOFA+" and find_spec("mofapy2") is None:
        return "the package mofapy2"
    if name == "original scMVP" and not os.environ.get(PYTHON):
        return f"{PYTHON}, an interpreter that has it"
    return None
