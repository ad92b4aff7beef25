"""SNARE-seq adult cortex: embedding, held-out cells, cluster posterior and ablations.

Reads ``snareseq_adult_cortex.h5mu`` from the folder that ``SCMVP_DATA`` names. Each run (method,
protocol, seed) is one file below ``benchmarks/results/cortex/``; what is there is not run again.
The summary, ``benchmarks/results/cortex.json`` and ``cortex.md``, and the tables of the README are
made from all of them.

    python benchmarks/cortex.py [--seeds 0 1 2] [--epochs 20] [--only NAME ...] [--summarise]
"""

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import mudata
import muon
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from scipy import sparse
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.utils.extmath import randomized_svd

from scmvp_scvi import SCMVPModel
from scmvp_scvi.metrics import (
    LEIDEN_RESOLUTIONS,
    label_transfer_f1,
    leiden_agreement,
    mean_entropy,
)

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FILE = "snareseq_adult_cortex.h5mu"
UNASSIGNED = "Mis"
TRAIN_SHARE = 0.8
Embedding = dict[str, np.ndarray]
Result = dict[str, object]

ABLATIONS: dict[str, dict[str, dict[str, object]]] = {
    "scmvp": {},
    "scmvp, 2,048 peaks per step": {"plan": {"n_peaks_per_step": 2048}},
    "scmvp, no cycle": {"plan": {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}},
    "scmvp, no cluster attention": {"model": {"cluster_attention": False}},
    "scmvp, one Gaussian": {"model": {"n_clusters": 1}},
    "scmvp, scalar self attention": {"model": {"self_attention": "scalar"}},
}


def load() -> mudata.MuData:
    """Read the cells that have a label."""
    folder = Path(os.environ.get("SCMVP_DATA", HERE.parent / ".." / "shared" / "data"))
    with mudata.set_options(pull_on_update=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        mdata = mudata.read_h5mu(folder / FILE)
        return mdata[(mdata.obs["cell_type"] != UNASSIGNED).to_numpy()].copy()


def split(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the held-out cells."""
    order = np.random.default_rng(seed).permutation(n_cells)
    n_train = int(TRAIN_SHARE * n_cells)
    return np.sort(order[:n_train]), np.sort(order[n_train:])


def scmvp(
    mdata: mudata.MuData, train: np.ndarray, seed: int, epochs: int, name: str
) -> tuple[Embedding, Result]:
    """Train on some cells and embed all of them."""
    options = ABLATIONS[name]
    scvi.settings.seed = seed
    SCMVPModel.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    model = SCMVPModel(mdata, **options.get("model", {}))
    nothing = np.array([], dtype=int)
    rest = np.setdiff1d(np.arange(mdata.n_obs), train)
    model.train(
        max_epochs=epochs,
        accelerator="cpu",
        check_val_every_n_epoch=None,
        datasplitter_kwargs={"external_indexing": [train, nothing, rest]},
        plan_kwargs=options.get("plan"),
        enable_progress_bar=False,
    )
    latent = {
        modality: model.get_latent_representation(modality=modality)
        for modality in ("joint", "rna", "atac")
    }
    probs = model.get_cluster_probabilities().to_numpy()
    labels = mdata.obs["cell_type"].astype(str).to_numpy()
    hard = probs.argmax(1)
    shares = np.bincount(hard, minlength=probs.shape[1]) / len(hard)
    clusters = {
        "cluster_ari": adjusted_rand_score(labels, hard),
        "cluster_nmi": normalized_mutual_info_score(labels, hard),
        "n_components": probs.shape[1],
        "n_components_used": int((shares > 0).sum()),
        "cell_entropy": mean_entropy(probs),
        "marginal_entropy": mean_entropy(probs.mean(0, keepdims=True)),
    }
    final = {key: float(values.iloc[-1, 0]) for key, values in model.history.items()}
    return latent, {**clusters, "clusters": hard.tolist(), "history": final}


def pca(counts: sparse.spmatrix, seed: int) -> np.ndarray:
    """Scores of 30 principal components of log-normalised, scaled counts."""
    adata = sc.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.scale(adata, max_value=10)
    return sc.pp.pca(adata.X, n_comps=30, random_state=seed)


def lsi(counts: sparse.spmatrix, seed: int) -> np.ndarray:
    """Scores of 30 singular vectors of TF-IDF after the first, which follows depth."""
    adata = sc.AnnData(counts.copy())
    muon.atac.pp.tfidf(adata, scale_factor=1e4)
    left, values, _ = randomized_svd(adata.X, 31, random_state=seed)
    scores = left[:, 1:] * values[1:]
    return (scores - scores.mean(0)) / scores.std(0)


def baselines(mdata: mudata.MuData, seed: int) -> dict[str, Embedding]:
    """Embeddings of all cells without a model."""
    rna, atac = pca(mdata["rna"].X, seed), lsi(mdata["atac"].X, seed)
    joined = np.hstack([part / part.std() for part in (rna, atac)])
    return {
        "RNA PCA(30)": {"joint": rna},
        "ATAC LSI(30)": {"joint": atac},
        "PCA + LSI": {"joint": joined},
    }


def wnn_agreement(mdata: mudata.MuData, seed: int) -> Result:
    """Leiden on the weighted nearest neighbour graph, which is no embedding."""
    parts = {
        "rna": sc.AnnData(obsm={"X": pca(mdata["rna"].X, seed)}),
        "atac": sc.AnnData(obsm={"X": lsi(mdata["atac"].X, seed)}),
    }
    for part in parts.values():
        part.obs_names = mdata.obs_names
        sc.pp.neighbors(part, n_neighbors=15, use_rep="X", random_state=seed)
    with mudata.set_options(pull_on_update=False):
        both = mudata.MuData(parts)
        muon.pp.neighbors(both, n_neighbors=15, random_state=seed)
    labels = mdata.obs["cell_type"].astype(str).to_numpy()
    rows = []
    for resolution in LEIDEN_RESOLUTIONS:
        found = sc.AnnData(obsp={"graph": both.obsp["connectivities"]})
        sc.tl.leiden(
            found,
            resolution=resolution,
            obsp="graph",
            flavor="igraph",
            n_iterations=2,
            directed=False,
            random_state=seed,
        )
        partition = found.obs["leiden"]
        rows.append(
            {
                "resolution": resolution,
                "n_clusters": partition.nunique(),
                "nmi": normalized_mutual_info_score(labels, partition),
                "ari": adjusted_rand_score(labels, partition),
            }
        )
    return agreement(pd.DataFrame(rows))


def agreement(sweep: pd.DataFrame) -> Result:
    """Best values over the resolutions, as the field reports them."""
    return {
        "nmi": float(sweep["nmi"].max()),
        "ari": float(sweep["ari"].max()),
        "best_resolution": float(sweep.loc[sweep["ari"].idxmax(), "resolution"]),
        "best_n_clusters": int(sweep.loc[sweep["ari"].idxmax(), "n_clusters"]),
    }


def all_cells(mdata: mudata.MuData, latent: Embedding, seed: int) -> Result:
    """Agreement of clusterings of all cells with the labels."""
    labels = mdata.obs["cell_type"].astype(str).to_numpy()
    return agreement(leiden_agreement(latent["joint"], labels, seed=seed))


def held_out(
    mdata: mudata.MuData, latent: Embedding, train: np.ndarray, test: np.ndarray
) -> Result:
    """Macro-F1 of labels transferred to held-out cells, by each embedding there is."""
    labels = mdata.obs["cell_type"].astype(str).to_numpy()
    return {
        f"f1_{modality}": label_transfer_f1(z[train], labels[train], z[test], labels[test])
        for modality, z in latent.items()
    }


def machine() -> Result:
    """What the numbers were measured on and with."""
    packages = ("scmvp-scvi", "scvi-tools", "torch", "scanpy", "muon", "scikit-learn")
    return {
        "python": platform.python_version(),
        "processor": platform.machine(),
        "torch_threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in packages},
    }


def draw(mdata: mudata.MuData, latent: np.ndarray, clusters: np.ndarray, file: Path) -> None:
    """UMAP of an embedding, coloured by the authors' cell types and by the mixture's clusters."""
    cells = sc.AnnData(
        obs=pd.DataFrame(
            {
                "cell type (authors)": mdata.obs["cell_type"].astype(str).to_numpy(),
                "scMVP cluster": pd.Categorical(clusters),
            },
            index=mdata.obs_names,
        ),
        obsm={"X_scmvp": latent},
    )
    sc.pp.neighbors(cells, n_neighbors=15, use_rep="X_scmvp")
    sc.tl.umap(cells)
    sc.pl.umap(cells, color=list(cells.obs), show=False, frameon=False, wspace=0.5, size=5)
    plt.savefig(file, dpi=130, bbox_inches="tight")
    plt.close()


def run(name: str, protocol: str, seed: int, compute: Callable[[], Result]) -> None:
    """Compute one result unless its file is there."""
    slug = name.replace(", ", "-").replace(" + ", "-").replace(" ", "_").replace("(30)", "")
    slug = slug.replace(",", "")
    file = RESULTS / "cortex" / f"{slug}.{protocol}.{seed}.json"
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    result = compute()
    seconds = round(time.perf_counter() - start, 1)
    record = {"method": name, "protocol": protocol, "seed": seed, "seconds": seconds}
    file.write_text(json.dumps({**record, **result, "machine": machine()}, indent=1) + "\n")
    print(f"{name} | {protocol} | seed {seed} | {seconds} s", flush=True)


def run_model(mdata: mudata.MuData, name: str, seed: int, epochs: int) -> None:
    """Both protocols of one form of the model."""
    rows = np.arange(mdata.n_obs)
    train, test = split(mdata.n_obs, seed)

    def held_out_run() -> Result:
        latent, result = scmvp(mdata, train, seed, epochs, name)
        result.pop("clusters")
        scores = {**held_out(mdata, latent, train, test), **all_cells(mdata, latent, seed)}
        return {"epochs": epochs, **scores, **result}

    def all_cells_run() -> Result:
        latent, result = scmvp(mdata, rows, seed, epochs, name)
        clusters = np.asarray(result.pop("clusters"))
        if seed == 0:
            draw(mdata, latent["joint"], clusters, RESULTS / "cortex_umap.png")
        return {"epochs": epochs, **all_cells(mdata, latent, seed), **result}

    run(name, "held-out", seed, held_out_run)
    if name == "scmvp":
        run(name, "all cells", seed, all_cells_run)


def run_baselines(mdata: mudata.MuData, seed: int) -> None:
    """Embeddings without a model. They see all cells: held-out labels, not held-out counts."""
    train, test = split(mdata.n_obs, seed)
    embeddings = baselines(mdata, seed)
    for name, latent in embeddings.items():
        run(name, "all cells", seed, lambda latent=latent: all_cells(mdata, latent, seed))
        run(
            name,
            "held-out",
            seed,
            lambda latent=latent: held_out(mdata, latent, train, test),
        )
    run("WNN", "all cells", seed, lambda: wnn_agreement(mdata, seed))


def summarise() -> None:
    """Mean and standard deviation over the seeds of every figure, as JSON and as a table."""
    records = [json.loads(f.read_text()) for f in sorted((RESULTS / "cortex").glob("*.json"))]
    for record in records:
        record.pop("history", None)
    machines = [record.pop("machine") for record in records]
    frame = pd.DataFrame(records)
    figures = frame.select_dtypes("number").columns.drop(["seed", "best_resolution"])
    groups = frame.groupby(["protocol", "method"])
    summary = {
        protocol: {
            method: {
                "seeds": sorted(int(seed) for seed in rows["seed"]),
                **{
                    key: {
                        "mean": round(float(rows[key].mean()), 4),
                        "sd": round(float(rows[key].std(ddof=0)), 4),
                    }
                    for key in figures
                    if rows[key].notna().any()
                },
            }
            for (of, method), rows in groups
            if of == protocol
        }
        for protocol in frame["protocol"].unique()
    }
    output = {"data": FILE, "machine": machines[-1], "results": summary}
    (RESULTS / "cortex.json").write_text(json.dumps(output, indent=1) + "\n")
    (RESULTS / "cortex.md").write_text(tables(summary))
    start, end = "<!-- cortex tables -->\n", "<!-- end of cortex tables -->"
    readme = HERE.parent / "README.md"
    before, rest = readme.read_text().split(start)
    readme.write_text(before + start + "\n" + tables(summary) + end + rest.split(end)[1])
    print(tables(summary))


COLUMNS = {
    "all cells": {
        "nmi": "Leiden NMI",
        "ari": "Leiden ARI",
        "cluster_ari": "ARI of argmax p(c\\|z)",
        "n_components_used": "components used",
        "cell_entropy": "entropy of p(c\\|z), nats",
        "seconds": "seconds",
    },
    "held-out": {
        "f1_joint": "F1 joint",
        "f1_rna": "F1 RNA channel",
        "f1_atac": "F1 ATAC channel",
        "nmi": "Leiden NMI",
        "ari": "Leiden ARI",
        "cluster_ari": "ARI of argmax p(c\\|z)",
    },
}
CAPTIONS = {
    "all cells": (
        "Trained on all cells; Leiden at the resolution of .05 to 2 that agrees best with the "
        "labels, 15 neighbours."
    ),
    "held-out": (
        "Trained on 80 % of the cells; macro-F1 of the other 20 %, labelled by their 15 nearest "
        "training cells. PCA and LSI are fitted to all cells, and stand in the first column."
    ),
}


def tables(summary: dict[str, dict[str, dict]]) -> str:
    """Markdown tables of the main figures."""
    text = ""
    for protocol, names in COLUMNS.items():
        text += f"{CAPTIONS[protocol]}\n\n| method | seeds | {' | '.join(names.values())} |\n"
        text += "|---" * (len(names) + 2) + "|\n"
        for method, values in summary.get(protocol, {}).items():
            cells = [
                f"{values[key]['mean']:.3g} ± {values[key]['sd']:.2g}" if key in values else ""
                for key in names
            ]
            text += f"| {method} | {len(values['seeds'])} | {' | '.join(cells)} |\n"
        text += "\n"
    return text


def main() -> None:
    """Run what has no result yet, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=[*ABLATIONS, "baselines"])
    parser.add_argument("--summarise", action="store_true", help="only rewrite the summary")
    arguments = parser.parse_args()
    if not arguments.summarise:
        mdata = load()
        chosen = arguments.only or ["baselines", *ABLATIONS]
        for seed in arguments.seeds:
            for name in chosen:
                if name == "baselines":
                    run_baselines(mdata, seed)
                else:
                    run_model(mdata, name, seed, arguments.epochs)
    summarise()


if __name__ == "__main__":
    main()
