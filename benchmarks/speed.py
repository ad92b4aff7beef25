"""Speed and memory of training beside MultiVI, on one generated matrix, interleaved.

Training is on the GPU where there is one, else on the CPU. Each run trains one method on one
matrix and measures the wall time of an epoch after the first ones, and the memory above what was
held before training, after a small training has loaded the libraries. On a CPU it is a process of
its own, whose memory is nobody else's; a GPU counts that of each run by itself. Rounds interleave
the methods, so that whatever else the machine does falls on all of them. On a GPU the time of a
step stands beside its floor, the time in which the device could move the bytes that the step has
to move. What has a result file below ``benchmarks/results/speed/``, or ``speed_gpu/``, is not run
again.

    python benchmarks/speed.py [--rounds 1]
    python benchmarks/speed.py --summarise
    python benchmarks/speed.py --large
    python benchmarks/speed.py --quality

The first form adds rounds to those that are committed. The second rewrites the tables and figures
of both devices, and the table in the README, as the first does at its end. The third trains on
20,000 cells x 100,000 peaks with planted types, on 8,192 sampled peaks a step, and reports how
long it took and what was recovered. The fourth trains on the mouse cortex, of the folder that
``SCMVP_DATA`` names, for more and more epochs, and reports after how many seconds clusters agree
with the labels as those of WNN do.
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import count
from pathlib import Path

import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
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
from harness.report import README, fill_in
from harness.runner import forget_peak_memory, machine, peak_memory
from harness.scores.embedding import leiden_scores, leiden_scores_of_graph
from scmvp_scvi import SCMVPModel, datasets
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._neighbors import leiden_partitions, preserved_torch_threads
from scmvp_scvi.metrics import leiden_agreement

HERE = Path(__file__).parent
RESULTS = HERE / "results"
N_GENES, BATCH_SIZE = 10_000, 128
GENES_PER_CELL, PEAK_DENSITY = 2_000, 0.04
PEAKS_PER_STEP, PEAKS_PER_STEP_LARGE = 2_048, 8_192
QUALITY_EPOCHS, QUALITY_ROUNDS = (10, 15), 2
# cells x peaks: the three widths, and twice and four times the cells at the middle one
SIZES = ((1_024, 25_000), (1_024, 100_000), (1_024, 200_000), (2_048, 100_000), (4_096, 100_000))
# the size of which the README tells, and the columns of the CPU's table that it does without
IN_README = SIZES[1]
NOT_IN_README = ("peaks", "cells", "of it gradients, MB")
METHODS = ("scmvp", f"scmvp, {PEAKS_PER_STEP:,} peaks per step", "MultiVI")

# heading of a column to the form of its cells
COLUMNS = {
    "peaks": "{n_peaks:,}",
    "cells": "{n_cells:,}",
    "method": "{method}",
    "ms per cell and epoch": "{ms:.2f}",
    "times as fast as MultiVI": "{ratio:.1f}",
}


@dataclass(frozen=True, eq=False)
class Device:
    """What is trained on, and where the results of it stand."""

    accelerator: str  # as Lightning calls it
    name: str  # of the folder of results, and what the files of the summary begin with
    added_copies: int  # of the parameters that training brings to the device
    columns: dict[str, str]  # of the table

    @property
    def runs(self) -> Path:
        """Folder with a result file for each run."""
        return RESULTS / self.name

    def file(self, ending: str) -> Path:
        """File of the summary, or of another form of this script."""
        return RESULTS / f"{self.name}{ending}"


# the two moments of the optimiser; the parameters are there before the start
CPU = Device(
    "cpu",
    "speed",
    2,
    {
        **COLUMNS,
        "memory over data, parameters and optimiser, MB": "{memory_mb:.0f}",
        "of it gradients, MB": "{gradient_mb:.0f}",
    },
)
# the two moments, and the parameters, which a training moves there
GPU = Device(
    "gpu",
    "speed_gpu",
    3,
    {
        **COLUMNS,
        "ms per cell and epoch": "{ms:.4f}",
        "memory over parameters and optimiser, MB": "{memory_mb:.0f}",
        "floor, ms per cell": "{floor:.4f}",
        "measured over floor": "{over_floor:.1f}",
    },
)


def present_device() -> Device:
    """Return the GPU where there is one."""
    return GPU if torch.cuda.is_available() else CPU


def is_sampled(method: str) -> bool:
    """Whether a method takes a sample of the peaks in each step."""
    return "per step" in method


def epochs_of(method: str, device: Device) -> tuple[int, int]:
    """Epochs of a training, and how many of the first are not timed.

    On a GPU an epoch takes a moment, so that it takes more of them; not so those of MultiVI, whose
    minibatches the host writes out.
    """
    return (8, 2) if device is GPU and method != "MultiVI" else (3, 1)


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
    with without_pulling():
        return mudata.MuData({"rna": rna, "atac": atac})


class Meter(Callback):
    """Seconds of each epoch from the end of its first step, and bytes of the gradients.

    Every step that is timed has loaded its own minibatch so, and the fit of the mixture, which
    comes between the start of an epoch and its first minibatch, is not timed.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.gradient_bytes = 0
        self._start = 0.0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Start the clock of an epoch."""
        del trainer, outputs, batch
        if batch_idx == 0:
            self._start = time_when_done(pl_module.device)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add up what the gradients of a step take, of sparse ones the rows that they hold."""
        del optimizer
        if trainer.current_epoch > 0:  # to look takes time, and the first epoch is not timed
            return
        parts = []
        for parameter in pl_module.parameters():
            if parameter.grad is not None and parameter.grad.is_sparse:
                parts += [parameter.grad._values(), parameter.grad._indices()]
            elif parameter.grad is not None:
                parts.append(parameter.grad)
        self.gradient_bytes = max(self.gradient_bytes, sum(part.nbytes for part in parts))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        del trainer
        self.seconds.append(time_when_done(pl_module.device) - self._start)


def time_when_done(device: torch.device) -> float:
    """Time in seconds, when all that a device was told to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def build(method: str, mdata: mudata.MuData) -> tuple[object, dict[str, object]]:
    """Return a model with its own defaults, and what its plan is told."""
    if method.startswith("MultiVI"):
        layers = {"rna_layer": None, "atac_layer": None}
        modalities = {"rna_layer": "rna", "atac_layer": "atac"}
        scvi.model.MULTIVI.setup_mudata(mdata, modalities=modalities, **layers)
        return scvi.model.MULTIVI(mdata, n_genes=N_GENES, n_regions=mdata["atac"].n_vars), {}
    SCMVPModel.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    plan = {"n_peaks_per_step": PEAKS_PER_STEP} if is_sampled(method) else {}
    return SCMVPModel(mdata), plan


def resident_memory() -> int:
    """Resident memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_before(device: Device) -> int:
    """Forget the peak of the memory, and return what is held now, in bytes."""
    gc.collect()
    if device is GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    # what imports and set-up touched and gave back must not hide what training takes
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    forget_peak_memory()
    return resident_memory()


def most_memory(device: Device) -> int:
    """Peak of the memory since `memory_before`, in bytes."""
    return torch.cuda.max_memory_allocated() if device is GPU else peak_memory()


@cache
def warm_up(method: str, device: Device) -> None:
    """Load and compile what training takes, so that libraries do not count as memory of data."""
    if device is CPU:  # the fit of the mixture takes neither memory of a GPU nor time of an epoch
        cells = np.random.default_rng(0).normal(size=(200, 30)).astype(np.float32)
        leiden_partitions(cells, [1.0])
    train(*build(method, generate(2 * BATCH_SIZE, 2 * PEAKS_PER_STEP)), device, epochs=1)


def train(
    model: scvi.model.MULTIVI | SCMVPModel,
    plan: dict[str, object],
    device: Device,
    epochs: int,
    **kwargs: object,
) -> None:
    """Train on all cells, without validation."""
    model.train(
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        train_size=1.0,
        accelerator=device.accelerator,
        early_stopping=False,
        check_val_every_n_epoch=None,
        enable_progress_bar=False,
        plan_kwargs=plan,
        **kwargs,
    )


def measure(method: str, mdata: mudata.MuData, device: Device) -> dict[str, object]:
    """Train one method; what was measured, and the sizes that the floor of a step follows from."""
    scvi.settings.seed = 0
    model, plan = build(method, mdata)
    epochs, skipped = epochs_of(method, device)
    before = memory_before(device)
    meter = Meter()
    train(model, plan, device, epochs, callbacks=[meter])
    n_timed = mdata.n_obs - BATCH_SIZE  # cells of an epoch
    n_peaks = mdata["atac"].n_vars
    parameters = list(model.module.parameters())
    return {
        "ms_per_cell": [s * 1e3 / n_timed for s in meter.seconds[skipped:]],
        "parameter_bytes": sum(p.nbytes for p in parameters),
        "peak_parameter_bytes": sum(p.nbytes for p in parameters if p.shape[:1] == (n_peaks,)),
        "non_zeros_per_cell": sum(mdata[m].X.nnz for m in ("rna", "atac")) / mdata.n_obs,
        "gradient_bytes": meter.gradient_bytes,
        "peak_over_start_bytes": most_memory(device) - before,
    }


def measure_file(method: str, file: str) -> None:
    """Train one method on the matrix in ``file``, on the CPU, and print what was measured."""
    warnings.simplefilter("ignore")
    warm_up(method, CPU)
    print(json.dumps(measure(method, mudata.read_h5mu(file), CPU)))


def bytes_of_step(
    parameter_bytes: int,
    peak_parameter_bytes: int,
    non_zeros_per_cell: float,
    share_of_peaks: float = 1.0,
) -> float:
    """Bytes that a step has to move, were everything else to stay on the chip.

    Each parameter is read in the forward pass and in the backward pass, and its gradient is
    written; the optimiser reads the parameter, its gradient and both moments, and writes the
    parameter and both moments. These are ten times the bytes of the parameters. The counts are
    read once, as CSR: four bytes of a value and eight of a column for each that is not zero.

    On sampled peaks, of the three weights over the peaks, with the biases of two of them, only the
    rows of the sample count. The encoder reads its rows of all peaks that are open in some cell of
    the minibatch, and its gradient is dense: for sampled peaks this is less than a step of the
    present implementation could do with.

    Parameters
    ----------
    parameter_bytes
        Of all parameters.
    peak_parameter_bytes
        Of those that have a row for each peak.
    non_zeros_per_cell
        Counts of both modalities.
    share_of_peaks
        Of the peaks that a step is about.
    """
    moved = parameter_bytes - (1 - share_of_peaks) * peak_parameter_bytes
    return 10 * moved + 12 * non_zeros_per_cell * BATCH_SIZE


def copy_bandwidth() -> float:
    """Bytes a second that a copy within the GPU reads and writes, the median of 20 copies."""
    source = torch.zeros(2**28, device="cuda")  # 1 GiB
    target = torch.empty_like(source)
    seconds = []
    for _ in range(25):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return float(2 * source.nbytes / np.median(seconds[5:]))


def train_large(device: Device) -> None:
    """Train on 20,000 cells x 100,000 peaks with planted types, on sampled peaks."""
    with preserved_torch_threads():
        mdata = datasets.synthetic(20_000, 5_000, 100_000, n_types=20, n_batches=1, seed=0)
    scvi.settings.seed = 0
    SCMVPModel.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    model = SCMVPModel(mdata)
    start = time.perf_counter()
    model.train(
        accelerator=device.accelerator,
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
    device.file("_large.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def reach_quality(device: Device) -> None:
    """Fit WNN and ever longer trainings to the cortex, in turn, and score the clusters of each."""
    mdata = DATA["cortex"].load()
    labels = labels_of(mdata)
    plan = {"n_peaks_per_step": PEAKS_PER_STEP}
    methods: dict[str, Callable[[], WNN | SCMVP]] = {
        "WNN": WNN,
        **{f"scmvp, {n} epochs": partial(SCMVP, epochs=n, plan=plan) for n in QUALITY_EPOCHS},
    }
    # libraries are loaded and compiled, as they are not for the first of a process
    few = mdata[:500].copy()
    WNN().fit(few, seed=0)
    SCMVP(epochs=2, plan=plan).fit(few, seed=0)
    rows: dict[str, dict[str, object]] = {}
    for _ in range(QUALITY_ROUNDS):
        for name, make in methods.items():
            method = make()
            start = time.perf_counter()
            method.fit(mdata, seed=0)
            seconds = round(time.perf_counter() - start, 1)
            if name in rows:  # the same seed gives the same clusters
                rows[name]["seconds"].append(seconds)
                continue
            if isinstance(method, WNN):
                scores = leiden_scores_of_graph(method.graph(), labels, seed=0)
            else:
                scores = leiden_scores(method.embed("joint"), labels, seed=0)
            settings = method.settings
            rows[name] = {"method": name, "settings": settings, "seconds": [seconds], **scores}
            print(rows[name], flush=True)
    record = {
        "data": DATA["cortex"].caption,
        "rows": list(rows.values()),
        "machine": measured_on(),
    }
    device.file("_quality.json").write_text(json.dumps(record, indent=1) + "\n")


def measured_on() -> dict[str, object]:
    """Machine and versions of the packages."""
    packages = ("scmvp-scvi", "scvi-tools", "torch", "lightning")
    return {**machine(), "versions": {name: version(name) for name in packages}}


def slug(method: str) -> str:
    """File name of a method."""
    return method.replace(", ", "-").replace(",", "").replace(" ", "_")


def in_processes(n_cells: int, n_peaks: int, methods: Iterable[str]) -> Iterator[dict]:
    """Measure on the CPU, each run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.h5mu"
        generate(n_cells, n_peaks).write(data)
        for method in methods:
            command = [sys.executable, __file__, "--measure", method, str(data)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{method} at {n_peaks} peaks failed:\n{done.stderr}")
            yield json.loads(done.stdout.splitlines()[-1])


def in_this_process(n_cells: int, n_peaks: int, methods: Iterable[str]) -> Iterator[dict]:
    """Measure on the GPU, all runs on the same matrix, and how fast the GPU copies."""
    warnings.simplefilter("ignore")
    mdata = generate(n_cells, n_peaks)
    bandwidth = copy_bandwidth()
    for method in methods:
        warm_up(method, GPU)
        yield {**measure(method, mdata, GPU), "copied_bytes_per_second": bandwidth}


def result_file(device: Device, n_cells: int, n_peaks: int, method: str, i: int) -> Path:
    """File of the result of a method in one round."""
    return device.runs / f"{slug(method)}.{n_cells}x{n_peaks}.{i}.json"


def run_all(rounds: int, sizes: list[tuple[int, int]], device: Device) -> None:
    """Measure further rounds, the methods in turn within each; one that was begun is the first."""
    for n_cells, n_peaks in sizes:
        file_of = partial(result_file, device, n_cells, n_peaks)
        begun = next(i for i in count() if not all(file_of(m, i).exists() for m in METHODS))
        missing = [
            (method, i, file_of(method, i))
            for i in range(begun, begun + rounds)
            for method in METHODS
            if not file_of(method, i).exists()
        ]
        measured = (in_this_process if device is GPU else in_processes)(
            n_cells, n_peaks, [method for method, _, _ in missing]
        )
        for (method, i, result), figures in zip(missing, measured, strict=True):
            record = {
                "method": method,
                "n_cells": n_cells,
                "n_peaks": n_peaks,
                "round": i,
                **figures,
                "machine": measured_on(),
            }
            result.parent.mkdir(parents=True, exist_ok=True)
            result.write_text(json.dumps(record, indent=1) + "\n")
            fastest = min(record["ms_per_cell"])
            print(f"{method} | {n_cells} x {n_peaks} | {fastest:.4f} ms", flush=True)


def floor_of(record: dict) -> float:
    """Time in which the GPU could move the bytes of a step, in ms per cell."""
    n_bytes = bytes_of_step(
        record["parameter_bytes"],
        record["peak_parameter_bytes"],
        record["non_zeros_per_cell"],
        PEAKS_PER_STEP / record["n_peaks"] if is_sampled(record["method"]) else 1.0,
    )
    return n_bytes / record["copied_bytes_per_second"] * 1e3 / BATCH_SIZE


def summarise(device: Device) -> None:
    """Table and plot of the medians over epochs and rounds, and ratios within a round."""
    records = [json.loads(file.read_text()) for file in sorted(device.runs.glob("*.json"))]
    figures = ["ms", "ratio", "memory", "gradient_bytes", "parameter_bytes"]
    for record in records:
        record["ms"] = float(np.median(record.pop("ms_per_cell")))
        copies = device.added_copies * record["parameter_bytes"]
        record["memory"] = record["peak_over_start_bytes"] - copies
        if device is GPU:
            record["floor"] = floor_of(record)
            record["over_floor"] = record["ms"] / record["floor"]
    if device is GPU:
        figures += ["floor", "over_floor", "copied_bytes_per_second"]
    frame = pd.DataFrame(records)
    keys = ["n_cells", "n_peaks", "round"]
    theirs = frame[frame["method"] == "MultiVI"].set_index(keys)["ms"]
    frame["ratio"] = theirs.reindex(pd.MultiIndex.from_frame(frame[keys])).to_numpy() / frame["ms"]
    medians = frame.groupby(["n_peaks", "n_cells", "method"])[figures].median().reset_index()
    device.file(".json").write_text(
        json.dumps(
            {"machine": records[-1]["machine"], "medians": medians.to_dict("records")}, indent=1
        )
        + "\n"
    )
    written = table(medians, device.columns)
    device.file(".md").write_text(written)
    draw(medians, device.file(".png"))
    if device is CPU:
        put_into_readme(medians)
    print(written)


def put_into_readme(medians: pd.DataFrame, readme: Path = README) -> None:
    """Replace the table of the README, which is of one size and has the columns of speed."""
    n_cells, n_peaks = IN_README
    rows = medians[(medians["n_cells"] == n_cells) & (medians["n_peaks"] == n_peaks)]
    columns = {name: form for name, form in CPU.columns.items() if name not in NOT_IN_README}
    fill_in(readme, "speed table", table(rows, columns) + "\n")


def table(medians: pd.DataFrame, columns: dict[str, str]) -> str:
    """Markdown table of the medians, its columns by heading and form of the cells."""
    in_megabytes = medians.assign(
        memory_mb=medians["memory"] / 1e6, gradient_mb=medians["gradient_bytes"] / 1e6
    )
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in in_megabytes.to_dict("records"):
        lines.append("| " + " | ".join(form.format(**row) for form in columns.values()) + " |")
    return "\n".join(lines) + "\n"


def draw(medians: pd.DataFrame, file: Path) -> None:
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
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run what has no result yet, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="how many to add")
    parser.add_argument("--summarise", action="store_true", help="only rewrite the summary")
    parser.add_argument("--peaks", type=int, nargs="+", help="only these numbers of peaks")
    parser.add_argument("--large", action="store_true", help="only 20,000 cells x 100,000 peaks")
    parser.add_argument("--quality", action="store_true", help="only seconds to WNN's quality")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = present_device()
    if arguments.measure:
        measure_file(*arguments.measure)
    elif arguments.large:
        train_large(device)
    elif arguments.quality:
        reach_quality(device)
    elif arguments.summarise:
        for measured in (CPU, GPU):
            if measured.runs.exists():
                summarise(measured)
    else:
        sizes = [s for s in SIZES if not arguments.peaks or s[1] in arguments.peaks]
        run_all(arguments.rounds, sizes, device)
        summarise(device)


if __name__ == "__main__":
    main()
