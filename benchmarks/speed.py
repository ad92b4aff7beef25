"""Speed and memory of training beside MultiVI, on one generated matrix, interleaved.

Each run is a process of its own that trains one method on one matrix and measures the wall time of
an epoch after the first, and the memory above what it held before training, after a small training
has loaded the libraries. Rounds interleave the methods, so that whatever else the machine does
falls on all of them. What has a result file below ``benchmarks/results/speed/`` is not run again.

    python benchmarks/speed.py [--rounds 2] [--summarise]
    python benchmarks/speed.py --large
    python benchmarks/speed.py --quality

The second form trains on 20,000 cells x 100,000 peaks with planted types, on 8,192 sampled peaks a
step, and reports how long it took and what was recovered. The third trains on the mouse cortex, of
the folder that ``SCMVP_DATA`` names, for more and more epochs, and reports after how many seconds
clusters agree with the labels as those of WNN do.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import Callback, LightningModule, Trainer
from sklearn.metrics import adjusted_rand_score

from harness.data import DATA
from harness.methods.models import SCMVP
from harness.methods.simple import WNN
from harness.protocols import labels_of
from harness.runner import forget_peak_memory, machine, peak_memory
from harness.scores.embedding import leiden_scores, leiden_scores_of_graph
from scmvp_scvi import SCMVPModel, datasets
from scmvp_scvi.metrics import leiden_agreement

HERE = Path(__file__).parent
RESULTS = HERE / "results"
N_GENES, BATCH_SIZE, EPOCHS = 10_000, 128, 3
GENES_PER_CELL, PEAK_DENSITY = 2_000, 0.04
PEAKS_PER_STEP, PEAKS_PER_STEP_LARGE = 2_048, 8_192
QUALITY_EPOCHS = (5, 10, 15)
# cells x peaks: the three widths, and twice and four times the cells at the middle one
SIZES = ((1_024, 25_000), (1_024, 100_000), (1_024, 200_000), (2_048, 100_000), (4_096, 100_000))
METHODS = ("scmvp", f"scmvp, {PEAKS_PER_STEP:,} peaks per step", "MultiVI")


def draw_counts(n_cells: int, n_features: int, per_cell: int, seed: int) -> sp.csr_matrix:
    """Counts of about ``per_cell`` features a cell, a few features far above the others."""
    rng = np.random.default_rng(seed)
    abundance = rng.gamma(0.5, size=n_features)
    columns = rng.choice(n_features, size=(n_cells, per_cell), p=abundance / abundance.sum())
    rows = np.repeat(np.arange(n_cells), per_cell)
    counts = sp.coo_matrix(
        (np.ones(rows.size, np.float32), (rows, columns.ravel())), shape=(n_cells, n_features)
    ).tocsr()
    counts.sum_duplicates()
    return counts


def generate(n_cells: int, n_peaks: int) -> mudata.MuData:
    """Paired counts without structure, of the sparsity of real ones: speed does not see types."""
    rna = AnnData(draw_counts(n_cells, N_GENES, GENES_PER_CELL, seed=0))
    atac = AnnData(draw_counts(n_cells, n_peaks, int(PEAK_DENSITY * n_peaks), seed=1))
    rna.var_names = [f"gene{i}" for i in range(N_GENES)]
    atac.var_names = [f"chr1:{500 * i}-{500 * i + 400}" for i in range(n_peaks)]
    with mudata.set_options(pull_on_update=False):
        return mudata.MuData({"rna": rna, "atac": atac})


class Meter(Callback):
    """Seconds from the first minibatch of each epoch to its end, and bytes of the gradients."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.gradient_bytes = 0
        self._start = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Start the clock of an epoch."""
        del trainer, pl_module, batch
        if batch_idx == 0:
            self._start = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add up what the gradients of this step take, of sparse ones the rows that they hold."""
        del trainer, optimizer
        parts = []
        for parameter in pl_module.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parts += [parameter.grad._values(), parameter.grad._indices()]
            elif parameter.grad is not None:
                parts.append(parameter.grad)
        self.gradient_bytes = max(self.gradient_bytes, sum(part.nbytes for part in parts))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        del trainer, pl_module
        self.seconds.append(time.perf_counter() - self._start)


def build(method: str, mdata: mudata.MuData) -> tuple[object, dict[str, object]]:
    """Return a model with its own defaults, and what its plan is told."""
    if method.startswith("MultiVI"):
        layers = {"rna_layer": None, "atac_layer": None}
        modalities = {"rna_layer": "rna", "atac_layer": "atac"}
        scvi.model.MULTIVI.setup_mudata(mdata, modalities=modalities, **layers)
        return scvi.model.MULTIVI(mdata, n_genes=N_GENES, n_regions=mdata["atac"].n_vars), {}
    SCMVPModel.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    plan = {"n_peaks_per_step": PEAKS_PER_STEP} if "per step" in method else {}
    return SCMVPModel(mdata), plan


def resident_memory() -> int:
    """Resident memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def warm_up(method: str) -> None:
    """Load and compile what training takes, so that libraries do not count as memory of data."""
    threads = torch.get_num_threads()
    cells = AnnData(np.random.default_rng(0).normal(size=(200, 30)).astype(np.float32))
    sc.pp.neighbors(cells, use_rep="X")
    sc.tl.leiden(cells, flavor="igraph", n_iterations=2, directed=False)
    torch.set_num_threads(threads)
    train(*build(method, generate(2 * BATCH_SIZE, 2 * PEAKS_PER_STEP)), epochs=1)


def train(
    model: scvi.model.MULTIVI | SCMVPModel, plan: dict[str, object], epochs: int, **kwargs: object
) -> None:
    """Train on all cells, without validation."""
    model.train(
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        train_size=1.0,
        accelerator="cpu",
        early_stopping=False,
        check_val_every_n_epoch=None,
        enable_progress_bar=False,
        plan_kwargs=plan,
        **kwargs,
    )


def measure(method: str, file: str) -> None:
    """Train one method on the matrix in ``file`` and print what was measured."""
    warnings.simplefilter("ignore")
    warm_up(method)
    mdata = mudata.read_h5mu(file)
    scvi.settings.seed = 0
    model, plan = build(method, mdata)
    # what imports and set-up touched and gave back must not hide what training takes
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    forget_peak_memory()
    before = resident_memory()
    meter = Meter()
    train(model, plan, EPOCHS, callbacks=[meter])
    parameters = sum(p.numel() * p.element_size() for p in model.module.parameters())
    print(
        json.dumps(
            {
                "ms_per_cell": [s * 1e3 / mdata.n_obs for s in meter.seconds[1:]],
                "parameter_bytes": parameters,
                "gradient_bytes": meter.gradient_bytes,
                "peak_over_start_bytes": peak_memory() - before,
            }
        )
    )


def train_large(file: Path) -> None:
    """Train on 20,000 cells x 100,000 peaks with planted types, on sampled peaks."""
    threads = torch.get_num_threads()
    mdata = datasets.synthetic(20_000, 5_000, 100_000, n_types=20, n_batches=1, seed=0)
    torch.set_num_threads(threads)
    scvi.settings.seed = 0
    SCMVPModel.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    model = SCMVPModel(mdata)
    start = time.perf_counter()
    model.train(
        accelerator="cpu",
        enable_progress_bar=False,
        plan_kwargs={"n_peaks_per_step": PEAKS_PER_STEP_LARGE},
    )
    minutes = (time.perf_counter() - start) / 60
    latent = model.get_latent_representation()
    types = mdata.obs["cell_type"].astype(str).to_numpy()
    sweep = leiden_agreement(latent, types)
    elbo = model.history["elbo_validation"].to_numpy(dtype=float).ravel()
    record = {
        "n_cells": mdata.n_obs,
        "n_genes": mdata["rna"].n_vars,
        "n_peaks": mdata["atac"].n_vars,
        "share_of_peaks_non_zero": mdata["atac"].X.nnz / np.prod(mdata["atac"].shape),
        "epochs": len(elbo),
        "peaks_per_step": PEAKS_PER_STEP_LARGE,
        "minutes": minutes,
        "leiden_nmi": float(sweep["nmi"].max()),
        "leiden_ari": float(sweep["ari"].max()),
        "cluster_ari": adjusted_rand_score(types, model.predict_clusters()),
        "validation_elbo": elbo.tolist(),
        "peak_memory_gb": peak_memory() / 1e9,
        "machine": measured_on(),
    }
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def reach_quality(file: Path) -> None:
    """Fit WNN and ever longer trainings to the cortex, and score the clusters of each."""
    mdata = DATA["cortex"].load()
    labels = labels_of(mdata)
    plan = {"n_peaks_per_step": 2048}
    methods = {f"scmvp, {n} epochs": SCMVP(epochs=n, plan=plan) for n in QUALITY_EPOCHS}
    rows = []
    for name, method in {"WNN": WNN(), **methods}.items():
        start = time.perf_counter()
        method.fit(mdata, seed=0)
        seconds = round(time.perf_counter() - start, 1)
        if isinstance(method, WNN):
            scores = leiden_scores_of_graph(method.graph(), labels, seed=0)
        else:
            scores = leiden_scores(method.embed("joint"), labels, seed=0)
        rows.append({"method": name, "settings": method.settings, "seconds": seconds, **scores})
        print(rows[-1], flush=True)
    record = {"data": DATA["cortex"].caption, "rows": rows, "machine": measured_on()}
    file.write_text(json.dumps(record, indent=1) + "\n")


def measured_on() -> dict[str, object]:
    """Machine and versions of the packages."""
    packages = ("scmvp-scvi", "scvi-tools", "torch", "lightning")
    return {**machine(), "versions": {name: version(name) for name in packages}}


def slug(method: str) -> str:
    """File name of a method."""
    return method.replace(", ", "-").replace(",", "").replace(" ", "_")


def run_all(rounds: int, sizes: list[tuple[int, int]]) -> None:
    """Measure whatever has no result yet, the methods in turn within each round."""
    for n_cells, n_peaks in sizes:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data.h5mu"
            for i in range(rounds):
                for method in METHODS:
                    name = f"{slug(method)}.{n_cells}x{n_peaks}.{i}.json"
                    result = RESULTS / "speed" / name
                    if result.exists():
                        continue
                    if not data.exists():
                        generate(n_cells, n_peaks).write(data)
                    command = [sys.executable, __file__, "--measure", method, str(data)]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode != 0:
                        raise RuntimeError(f"{method} at {n_peaks} peaks failed:\n{done.stderr}")
                    record = {
                        "method": method,
                        "n_cells": n_cells,
                        "n_peaks": n_peaks,
                        "round": i,
                        **json.loads(done.stdout.splitlines()[-1]),
                        "machine": measured_on(),
                    }
                    result.parent.mkdir(parents=True, exist_ok=True)
                    result.write_text(json.dumps(record, indent=1) + "\n")
                    fastest = min(record["ms_per_cell"])
                    print(f"{method} | {n_cells} x {n_peaks} | {fastest:.2f} ms", flush=True)


def summarise() -> None:
    """Table and plot of the medians over epochs and rounds, and ratios within a round."""
    files = sorted((RESULTS / "speed").glob("*.json"))
    records = [json.loads(file.read_text()) for file in files]
    for record in records:
        record["ms"] = float(np.median(record.pop("ms_per_cell")))
        # the two moments of the optimiser; the parameters are there before the start
        record["memory"] = record["peak_over_start_bytes"] - 2 * record["parameter_bytes"]
    frame = pd.DataFrame(records)
    keys = ["n_cells", "n_peaks", "round"]
    theirs = frame[frame["method"] == "MultiVI"].set_index(keys)["ms"]
    frame["ratio"] = theirs.reindex(pd.MultiIndex.from_frame(frame[keys])).to_numpy() / frame["ms"]
    figures = ["ms", "ratio", "memory", "gradient_bytes", "parameter_bytes"]
    medians = frame.groupby(["n_peaks", "n_cells", "method"])[figures].median().reset_index()
    (RESULTS / "speed.json").write_text(
        json.dumps(
            {"machine": records[-1]["machine"], "medians": medians.to_dict("records")}, indent=1
        )
        + "\n"
    )
    (RESULTS / "speed.md").write_text(table(medians))
    draw(medians)
    start, end = "<!-- speed table -->\n", "<!-- end of speed table -->"
    readme = HERE.parent / "README.md"
    before, rest = readme.read_text().split(start)
    readme.write_text(before + start + "\n" + table(medians) + "\n" + end + rest.split(end)[1])
    print(table(medians))


def table(medians: pd.DataFrame) -> str:
    """Markdown table of the medians."""
    lines = [
        "| peaks | cells | method | ms per cell and epoch | times as fast as MultiVI "
        "| memory over data, parameters and optimiser, MB | of it gradients, MB |",
        "|---" * 7 + "|",
    ]
    for row in medians.itertuples():
        lines.append(
            f"| {row.n_peaks:,} | {row.n_cells:,} | {row.method} | {row.ms:.2f} | "
            f"{row.ratio:.1f} | {row.memory / 1e6:.0f} | {row.gradient_bytes / 1e6:.0f} |"
        )
    return "\n".join(lines) + "\n"


def draw(medians: pd.DataFrame) -> None:
    """Cost against peaks and against cells: both are straight lines through the origin."""
    fewest, middle = medians["n_cells"].min(), 100_000
    figure, (by_peaks, by_cells) = plt.subplots(1, 2, figsize=(9, 3.5))
    for method, rows in medians.groupby("method"):
        wide = rows[rows["n_cells"] == fewest].sort_values("n_peaks")
        by_peaks.plot(wide["n_peaks"], wide["ms"], "o-", label=method)
        long = rows[rows["n_peaks"] == middle].sort_values("n_cells")
        by_cells.plot(long["n_cells"], long["ms"] * long["n_cells"] / 1e3, "o-", label=method)
    by_peaks.set(xlabel="peaks", ylabel="ms per cell and epoch", ylim=(0, None), xlim=(0, None))
    by_cells.set(xlabel="cells", ylabel="seconds per epoch", ylim=(0, None), xlim=(0, None))
    by_peaks.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(RESULTS / "speed.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """Run what has no result yet, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--summarise", action="store_true", help="only rewrite the summary")
    parser.add_argument("--peaks", type=int, nargs="+", help="only these numbers of peaks")
    parser.add_argument("--large", action="store_true", help="only 20,000 cells x 100,000 peaks")
    parser.add_argument("--quality", action="store_true", help="only seconds to WNN's quality")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    if arguments.large:
        train_large(RESULTS / "speed_large.json")
        return
    if arguments.quality:
        reach_quality(RESULTS / "speed_quality.json")
        return
    if not arguments.summarise:
        sizes = [s for s in SIZES if not arguments.peaks or s[1] in arguments.peaks]
        run_all(arguments.rounds, sizes)
    summarise()


if __name__ == "__main__":
    main()
