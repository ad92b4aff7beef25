"""The main job from end to end: train scMVP, embed, cluster, impute, and write what came of it.

    python examples/demo.py                          on generated data with planted cell types
    python examples/demo.py --data file.h5mu         on your own MuData of raw counts

Written to the output folder: ``demo.h5mu`` with the embedding in ``obsm["X_scmvp"]`` and the
clusters in ``obs``, ``umap.png``, ``training.png``, and the model.
"""

import argparse
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from sklearn.metrics import adjusted_rand_score

import scmvp_scvi
from scmvp_scvi import SCMVPModel

GENERATED_EPOCHS = 60  # enough for the generated data, and quick; the default would be 100
N_IMPUTED = 20  # features of each modality whose denoised values are written


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="MuData file; generated data without it")
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--rna", default="rna", help="modality with the RNA counts")
    parser.add_argument("--atac", default="atac", help="modality with the ATAC counts")
    parser.add_argument("--batch-key", help="column of `.obs` with the batch of each cell")
    parser.add_argument("--color", help="column of `.obs` to show beside the clusters")
    parser.add_argument("--max-epochs", type=int, help="default: by the number of cells")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read(arguments: argparse.Namespace) -> mudata.MuData:
    """Read the data of the user, or generate some."""
    if arguments.data is None:
        arguments.batch_key, arguments.color = "batch", "cell_type"
        arguments.max_epochs = arguments.max_epochs or GENERATED_EPOCHS
        return scmvp_scvi.datasets.synthetic(n_cells=1500, seed=arguments.seed)
    mdata = mudata.read_h5mu(arguments.data)
    # it is shown after the training, which would be for nothing
    if arguments.color is not None and arguments.color not in mdata.obs:
        raise SystemExit(
            f"`--color {arguments.color}` must be a column of `mdata.obs`, which has "
            f"{', '.join(mdata.obs) or 'none'}."
        )
    return mdata


def add_results(mdata: mudata.MuData, model: SCMVPModel, arguments: argparse.Namespace) -> None:
    """Write embedding, UMAP, clusters and some denoised profiles into the MuData."""
    mdata.obsm["X_scmvp"] = model.get_latent_representation()
    cells = sc.AnnData(obs=mdata.obs[[]], obsm={"X_scmvp": mdata.obsm["X_scmvp"]})
    sc.pp.neighbors(cells, use_rep="X_scmvp")
    sc.tl.umap(cells)
    mdata.obsm["X_umap"] = cells.obsm["X_umap"]
    probs = model.get_cluster_probabilities()
    mdata.obs["scmvp_cluster"] = model.predict_clusters()
    mdata.obs["scmvp_cluster_prob"] = probs.max(axis=1)
    for modality, denoised in (
        (arguments.rna, model.get_normalized_expression),
        (arguments.atac, model.get_normalized_accessibility),
    ):
        names = "gene_list" if modality == arguments.rna else "region_list"
        totals = pd.Series(
            np.asarray(mdata[modality].X.sum(axis=0)).ravel(), index=mdata[modality].var_names
        ).nlargest(N_IMPUTED)
        mdata[modality].obsm["scmvp_denoised"] = denoised(**{names: list(totals.index)})


def plot_umap(mdata: mudata.MuData, color: str | None, file: Path) -> None:
    """Draw the UMAP, coloured by cluster and by what else is known."""
    cells = sc.AnnData(obs=mdata.obs.copy(), obsm={"X_umap": mdata.obsm["X_umap"]})
    shown = ["scmvp_cluster", "scmvp_cluster_prob", *([color] if color else [])]
    sc.pl.umap(cells, color=shown, show=False, frameon=False, wspace=0.35)
    plt.savefig(file, dpi=120, bbox_inches="tight")
    plt.close()


def plot_training(model: SCMVPModel, file: Path) -> None:
    """Draw each part of the objective over the epochs, training and validation."""
    names = [name.removesuffix("_train") for name in model.history if name.endswith("_train")]
    names = [name for name in names if model.history[f"{name}_train"].iloc[:, 0].abs().max() > 0]
    figure, axes = plt.subplots(3, -(-len(names) // 3), figsize=(14, 8), layout="constrained")
    for axis, name in zip(axes.flat, names, strict=False):
        for part in ("train", "validation"):
            if f"{name}_{part}" in model.history:
                axis.plot(model.history[f"{name}_{part}"].iloc[:, 0].astype(float), label=part)
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xlabel("epoch")
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    axes.flat[0].set_ylabel("nats per cell")
    axes.flat[0].legend(frameon=False)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the demo."""
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    scvi.settings.seed = arguments.seed
    if hasattr(mudata, "set_options"):  # mudata 0.3, which warns of what 0.4 does
        mudata.set_options(pull_on_update=False)
    mdata = read(arguments)
    print(mdata)

    SCMVPModel.setup_mudata(
        mdata,
        batch_key=arguments.batch_key,
        modalities={"rna_layer": arguments.rna, "atac_layer": arguments.atac},
    )
    model = SCMVPModel(mdata)
    model.train(max_epochs=arguments.max_epochs)
    model.save(str(arguments.output / "model"), overwrite=True)

    add_results(mdata, model, arguments)
    # strings of a file that pandas 3 wrote, which older versions of anndata write only if told so
    with anndata.settings.override(allow_write_nullable_strings=True):
        mdata.write(arguments.output / "demo.h5mu")
    plot_umap(mdata, arguments.color, arguments.output / "umap.png")
    plot_training(model, arguments.output / "training.png")

    print(mdata.obs["scmvp_cluster"].value_counts().to_string())
    if arguments.data is None:
        agreement = adjusted_rand_score(mdata.obs["cell_type"], mdata.obs["scmvp_cluster"])
        print(f"agreement of the clusters with the planted cell types (ARI): {agreement:.2f}")
    print(f"written to {arguments.output}/: demo.h5mu, umap.png, training.png, model/")


if __name__ == "__main__":
    main()
