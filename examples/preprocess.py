"""From counts as they come to a trained model: quality, filters, set-up, a short training.

    python examples/preprocess.py                    on both data sets of $SCMVP_DATA
    python examples/preprocess.py --max-epochs 100   and train for longer

The folder $SCMVP_DATA is ``../shared/data`` by default, seen from the checkout. Written to the
output folder, for each data set: ``<name>_qc.csv`` and ``<name>_qc.png``, the quality of the data
as they come, and ``<name>.h5mu``, the filtered counts with the embedding.
"""

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import mudata
import scvi

from scmvp_scvi import SCMVPModel, pp

DATA = Path(os.environ.get("SCMVP_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Recipe(NamedTuple):
    """A data set and what is done with it."""

    file: str
    keys: dict[str, str]  # columns of `.obs` that the report counts
    thresholds: dict[str, Any]  # of the filter


# Both files hold a small part of the genes and peaks, on which `preset="sci-car"`, 200 of each in
# a cell, would leave nothing. Choose such thresholds from the figure.
RECIPES = (
    Recipe(
        "scicar_kidney_sample.h5mu",
        {"batch_key": "batch", "labels_key": "cell_type"},
        {"min_genes": 20, "min_peaks": 2, "min_cells": 3, "until_stable": True},
    ),
    # 19 cells have no ATAC count. The model could use them; here they are left out.
    Recipe("pbmc_multiome_tiny.h5mu", {}, {"min_genes": 5, "min_peaks": 2, "min_cells": 1}),
)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("preprocess_output"))
    parser.add_argument("--max-epochs", type=int, default=5, help="enough to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def look(mdata: mudata.MuData, recipe: Recipe, output: Path) -> None:
    """Write the quality report, with the thresholds that the filter will apply."""
    name = Path(recipe.file).stem
    report = pp.qc(mdata, **recipe.keys)
    report.summary.to_csv(output / f"{name}_qc.csv", index=False)
    axes = pp.plot_qc(
        report,
        min_genes=recipe.thresholds["min_genes"],
        min_peaks=recipe.thresholds["min_peaks"],
    )
    axes[0].figure.savefig(output / f"{name}_qc.png", dpi=120)
    plt.close(axes[0].figure)


def fit(mdata: mudata.MuData, batch_key: str | None, max_epochs: int) -> SCMVPModel:
    """Register the filtered counts and train."""
    SCMVPModel.setup_mudata(mdata, batch_key=batch_key)
    model = SCMVPModel(mdata)
    model.train(max_epochs=max_epochs)
    return model


def main() -> None:
    """Run each recipe."""
    arguments = parse_arguments()
    if not DATA.is_dir():
        raise SystemExit(f"There is no folder {DATA}: name that of the data in SCMVP_DATA.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    scvi.settings.seed = arguments.seed
    if hasattr(mudata, "set_options"):  # mudata 0.3, which warns of what 0.4 does
        mudata.set_options(pull_on_update=False)

    for recipe in RECIPES:
        mdata = mudata.read_h5mu(DATA / recipe.file)
        look(mdata, recipe, arguments.output)
        mdata = pp.intersect_cells(mdata)
        mdata = pp.filter_cells_and_features(mdata, **recipe.thresholds)
        print(f"\n{recipe.file}: {mdata.n_obs} cells, {mdata['rna'].n_vars} genes,")
        print(f"{mdata['atac'].n_vars} peaks left; removed:")
        print(mdata.uns["scmvp_removed"].to_string(index=False))

        model = fit(mdata, recipe.keys.get("batch_key"), arguments.max_epochs)
        mdata.obsm["X_scmvp"] = model.get_latent_representation()
        print(f"ELBO after {arguments.max_epochs} epochs: {model.get_elbo():.1f} nats per cell")
        mdata.write(arguments.output / recipe.file)
    print(f"\nwritten to {arguments.output}/")


if __name__ == "__main__":
    main()
