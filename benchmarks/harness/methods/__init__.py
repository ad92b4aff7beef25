"""The methods of the benchmark by name."""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from harness.methods.base import Method
from harness.methods.factors import MOFA
from harness.methods.integration import Harmony
from harness.methods.models import SCANVI, SCMVP, SCVI, MultiVI
from harness.methods.original import PYTHON, OriginalSCMVP
from harness.methods.simple import WNN, Components, Linear, Mean, MeanOfLogs, Neighbors, Raw

Change = dict[str, Any]


def joined(first: Change, second: Change) -> Change:
    """Both changes, of the arguments of the model and of the plan too."""
    nested = {
        key: {**first.get(key, {}), **second.get(key, {})}
        for key in ("model", "plan")
        if key in first or key in second
    }
    return {**first, **second, **nested}


# forms of the model with one thing changed: arguments of `SCMVP`
PARTS: dict[str, Change] = {
    "2,048 peaks per step": {"plan": {"n_peaks_per_step": 2048}},
    "no cycle": {"plan": {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}},
    "no cluster attention": {"model": {"cluster_attention": False}},
    "one Gaussian": {"model": {"n_clusters": 1}},
    "scalar self attention": {"model": {"self_attention": "scalar"}},
    "128 wide ATAC": {"model": {"n_hidden_atac": 128}},
}
KL_WEIGHT_1: Change = {"plan": {"gaussian_kl_weight": 1.0}}
# one low weight of the KL for all of the training, with one fit of the mixture
LOW_KL: Change = {
    "plan": {
        "gaussian_kl_weight": 0.3,
        "max_kl_weight": 0.3,
        "mixture_start": 0.6,
        "mixture_refit": None,
    }
}
# the sizes, the target and the optimiser of the paper and of its notebooks, none of its defects:
# nothing holds the output weights back, and the KL has its full weight from the first step
AS_PUBLISHED: Change = {
    "epochs": 15,
    "model": {
        "n_latent": 20,
        "n_hidden_atac": 128,
        "atac_target": "tfidf",
        "dropout_rate": 0.1,
        "rna_input_dropout": 0.0,
        "atac_input_dropout": 0.0,
    },
    "plan": {
        "lr": 5e-3,
        "lr_schedule": "constant",
        "eps": 0.01,
        "kl_warmup": 0.0,
        "gaussian_kl_weight": 1.0,
        "mixture_refit": None,
        "rna_output_scale": 1e3,
        "atac_output_scale": 1e3,
        "fit_dispersions": False,
        "calibrate_channels": False,
    },
}
CENTRED: dict[str, Change] = {
    "15 dimensions": {"model": {"n_latent": 15}},
    "centred batches": {"model": {"center_batches": True}},
    "centred batches, 15 dimensions": {"model": {"center_batches": True, "n_latent": 15}},
}
# the default of the package, where the benchmark has the model learn from all cells
HELD_OUT: Change = {"train_size": 0.9}
NO_DROPOUT: Change = {"model": {"dropout_rate": 0.0}}
DROPOUT_3: Change = {"model": {"dropout_rate": 0.3}}
# imputed values that a gene's count in the cell has a part in
OWN_COUNTS: Change = {"own_counts": True}
# changes to the default of up to 5,000 cells when that had the prior of more, and the dispersions
# that the last step left, first with hidden dropout, and before that without; 200 epochs were the
# default once
EARLIER: dict[str, Change] = {
    "own counts": OWN_COUNTS,
    "hidden dropout .3": DROPOUT_3,
    "no dropout": NO_DROPOUT,
    "no dropout, 200 epochs": {**NO_DROPOUT, "epochs": 200},
    "no dropout, KL weight 1": joined(NO_DROPOUT, KL_WEIGHT_1),
    **{f"no dropout, {name}": joined(NO_DROPOUT, change) for name, change in CENTRED.items()},
}
AS_TRAINED: Change = {"plan": {"fit_dispersions": False}}
RNA_SCALE_34: Change = joined({"plan": {"rna_output_scale": 3.4}}, AS_TRAINED)
CHANGES: dict[str, Change] = {
    **PARTS,
    "KL weight 1": KL_WEIGHT_1,
    "KL weight .3": LOW_KL,
    **{f"KL weight .3, {name}": joined(LOW_KL, change) for name, change in PARTS.items()},
    "as published": AS_PUBLISHED,
    "as published, counts": joined(AS_PUBLISHED, {"model": {"atac_target": "counts"}}),
    # widths, and which of the two terms of the cycle does what
    "256 wide RNA": {"model": {"n_hidden": 256}},
    "no cycle of the latent": {"plan": {"cycle_weight": 0.0}},
    "no cycle of the clusters": {"plan": {"cycle_cluster_weight": 0.0}},
    # what is the default of fewer or of more cells
    "hidden dropout .1": {"model": {"dropout_rate": 0.1}},
    "no dropout": NO_DROPOUT,
    "RNA scale 1": {"plan": {"rna_output_scale": 1.0}},
    **CENTRED,
    "own counts": OWN_COUNTS,
    "a tenth held out": HELD_OUT,
    "a tenth held out, channels as trained": {**HELD_OUT, "plan": {"calibrate_channels": False}},
    "labels seed alone": {"plan": {"label_weight": 0.0}},
    "dispersions as trained": AS_TRAINED,
    "dispersions as trained, own counts": joined(AS_TRAINED, OWN_COUNTS),
    "fitted rates": {"plan": {"fit_rates": True}},
    "RNA scale 3.4": RNA_SCALE_34,
    **{f"RNA scale 3.4, {name}": joined(RNA_SCALE_34, change) for name, change in EARLIER.items()},
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
    "RNA PCA, Harmony": partial(Harmony, "rna"),
    "PCA + LSI, Harmony": partial(Harmony, "joint"),
    "WNN": WNN,
    "MOFA+": MOFA,
    "scVI": SCVI,
    "scANVI": SCANVI,
    "scmvp": SCMVP,
    "MultiVI": MultiVI,
    **{f"scmvp, {name}": partial(SCMVP, **change) for name, change in CHANGES.items()},
    "original scMVP": OriginalSCMVP,
}
ABLATIONS = tuple(name for name in METHODS if name.startswith("scmvp, "))
OF_EXTRA = ("harmonypy", "mofapy2")  # packages of the extra `bench` that methods need
# run only when named: they take long, or another package
ONLY_NAMED = ("MultiVI", *ABLATIONS, "original scMVP")


def what_is_missing(name: str) -> str | None:
    """What a method needs and is not there, in words."""
    for package in METHODS[name]().packages:
        if package in OF_EXTRA and find_spec(package) is None:
            return f"the package {package}"
    if name == "original scMVP" and not os.environ.get(PYTHON):
        return f"{PYTHON}, an interpreter that has it"
    return None
