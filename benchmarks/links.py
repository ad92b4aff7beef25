"""Planted peak-gene links found by distance and by correlations of cells, metacells and a model.

Each data set is drawn by the generator of the package with another seed. Every method scores the
same pairs, and does so again with the cells permuted within type and batch, where what is left of
the links is that of types; the model is trained anew on permuted data. What stands in
``benchmarks/results/links.json`` is not run again.

    OMP_NUM_THREADS=1 python benchmarks/links.py [--seeds 5] [--without-model]
"""

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from mudata import MuData
from sklearn.metrics import average_precision_score, roc_auc_score

from scmvp_scvi import SCMVPModel, datasets, tl

RESULTS = Path(__file__).parent / "results"
N_CELLS, WINDOW, MAX_Q_VALUE = 1_000, 100_000, 0.05
EPOCHS, ARCHITECTURE = 60, {"n_latent": 10, "n_hidden": 64, "n_shared": 128}
MODALITIES = {"rna_layer": "rna", "atac_layer": "atac"}
MODEL = "denoised by the model"


def train(mdata: MuData, seed: int) -> SCMVPModel:
    """Train a small model for a short time."""
    scvi.settings.seed = seed
    SCMVPModel.setup_mudata(mdata, batch_key="batch", modalities=MODALITIES)
    model = SCMVPModel(mdata, **ARCHITECTURE)
    model.train(EPOCHS, batch_size=64, accelerator="cpu", devices=1, enable_progress_bar=False)
    return model


def group_by_expression(mdata: MuData, seed: int) -> np.ndarray:
    """Metacells of ten cells on average, on principal components of RNA."""
    rna = mdata["rna"].copy()
    sc.pp.normalize_total(rna)
    sc.pp.log1p(rna)
    sc.pp.pca(rna, n_comps=20, random_state=seed)
    return tl.metacells(rna.obsm["X_pca"], cells_per_metacell=10, seed=seed)


def metacell_arguments(mdata: MuData, seed: int) -> dict[str, Any]:
    """Have sums of metacells correlated; they go into a column of ``mdata``."""
    mdata.obs["metacell"] = group_by_expression(mdata, seed)
    return {"groupby": "metacell"}


# What each method passes on to `peak_gene_links`.
METHODS: dict[str, Callable[[MuData, int], dict[str, Any]]] = {
    "cells, Pearson": lambda mdata, seed: {},
    "cells, Spearman": lambda mdata, seed: {"method": "spearman"},
    "metacells, Pearson": metacell_arguments,
    MODEL: lambda mdata, seed: {"model": train(mdata, seed)},
}


def find_links(mdata: MuData, method: str, seed: int) -> pd.DataFrame:
    """Score all pairs by one method."""
    arguments = METHODS[method](mdata, seed)
    return tl.peak_gene_links(mdata, window=WINDOW, gc_key="gc", **arguments)


def plantedness(mdata: MuData, links: pd.DataFrame) -> np.ndarray:
    """Tell which pairs are planted links."""
    truth = set(map(tuple, mdata.uns["truth"]["links"][["gene", "peak"]].to_numpy()))
    return np.array([pair in truth for pair in zip(links["gene"], links["peak"], strict=True)])


def rank(is_planted: np.ndarray, score: pd.Series) -> dict[str, float]:
    """How far above the other pairs the planted links stand."""
    return {
        "auroc": float(roc_auc_score(is_planted, score)),
        "average_precision": float(average_precision_score(is_planted, score)),
    }


def measure(method: str, seed: int) -> dict[str, Any]:
    """Measure one method on one data set, and on the same with cells permuted."""
    mdata = datasets.synthetic(n_cells=N_CELLS, seed=seed)
    start = time.perf_counter()
    links = find_links(mdata, "cells, Pearson" if method == "distance" else method, seed)
    seconds = time.perf_counter() - start
    is_planted = plantedness(mdata, links)
    size = {"method": method, "seed": seed, "pairs": len(links), "planted": int(is_planted.sum())}
    if method == "distance":
        return {**size, **rank(is_planted, -links["distance"].abs())}
    permuted = tl.permute_pairing(mdata, ["cell_type", "batch"], seed=seed)
    n_permuted = (find_links(permuted, method, seed)["q_value"] <= MAX_Q_VALUE).sum()
    called = (links["q_value"] <= MAX_Q_VALUE).to_numpy()
    return {
        **size,
        **rank(is_planted, links["score"].fillna(0)),
        "called": int(called.sum()),
        "recall": float((called & is_planted).sum() / is_planted.sum()),
        "false_share": float((~is_planted[called]).mean()) if called.any() else None,
        "called_permuted": int(n_permuted),
        "seconds": round(seconds, 1),
    }


def to_markdown(rows: pd.DataFrame) -> str:
    """Means over the data sets."""
    columns = {
        "auroc": ("AUROC", ".3f"),
        "average_precision": ("average precision", ".3f"),
        "called": (f"called at q ≤ {MAX_Q_VALUE}", ".0f"),
        "recall": ("recall", ".2f"),
        "false_share": ("false among them", ".2f"),
        "called_permuted": ("called, cells permuted", ".0f"),
    }
    means = rows.groupby("method", sort=False).mean(numeric_only=True).reindex(columns=[*columns])
    lines = ["| method | " + " | ".join(head for head, _ in columns.values()) + " |"]
    lines.append("|---" * (1 + len(columns)) + "|")
    for method, row in means.iterrows():
        cells = [
            "" if np.isnan(row[name]) else format(row[name], style)
            for name, (_, style) in columns.items()
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    note = (
        f"Means over {rows['seed'].nunique()} generated data sets of {N_CELLS:,} cells, 500 genes "
        f"and 2,000 peaks, with {_span(rows['pairs'])} pairs within "
        f"{WINDOW // 1000} kb, of which {_span(rows['planted'])} are planted links.\n"
    )
    return "\n".join([note, *lines]) + "\n"


def _span(numbers: pd.Series) -> str:
    """Least and largest number, or the one that they all are."""
    return " to ".join(f"{n:,}" for n in sorted({numbers.min(), numbers.max()}))


def main() -> None:
    """Run what is missing, each kept in ``links.json`` as it is done, and write ``links.md``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--without-model", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*have no counts")
    methods = ["distance", *METHODS]
    if arguments.without_model:
        methods.remove(MODEL)
    file = RESULTS / "links.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    done = {(row["method"], row["seed"]) for row in rows}
    packages = ("scmvp-scvi", "scvi-tools", "torch", "numpy", "scipy")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    for method in methods:
        for seed in range(arguments.seeds):
            if (method, seed) in done:
                continue
            rows.append({**measure(method, seed), "versions": versions})
            file.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    (RESULTS / "links.md").write_text(to_markdown(pd.DataFrame(rows)))
    print((RESULTS / "links.md").read_text())


if __name__ == "__main__":
    main()
