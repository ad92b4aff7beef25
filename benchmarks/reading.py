"""Seconds and memory of reading 10,000 cells x 250,000 peaks, as an .h5 of 10x and as text.

One matrix is drawn, as sparse as real ones, and written in the two layouts into a folder that is
removed afterwards. Each is read in a process of its own, so that neither the drawing nor the other
reading counts. The result goes to ``benchmarks/results/reading.json``.

    python benchmarks/reading.py
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from scipy.io import mmwrite

from harness.runner import forget_peak_memory, machine, peak_memory
from scmvp_scvi import datasets

RESULTS = Path(__file__).parent / "results"
N_CELLS, N_GENES, N_PEAKS = 10_000, 30_000, 250_000
GENES_PER_CELL, PEAKS_PER_CELL = 2_000, 6_000
BLOCK_OF_CELLS = 500
PACKAGES = ("anndata", "h5py", "mudata", "muon", "numpy", "pandas", "scanpy", "scipy")


def draw(n_cells: int, n_features: int, per_cell: int, seed: int) -> sp.csr_matrix:
    """``(cells, features)``, some features far more frequent than others."""
    rng = np.random.default_rng(seed)
    abundance = rng.gamma(0.5, size=n_features).cumsum()
    blocks = []
    for start in range(0, n_cells, BLOCK_OF_CELLS):
        size = (min(BLOCK_OF_CELLS, n_cells - start), per_cell)
        columns = np.searchsorted(abundance, rng.uniform(0, abundance[-1], size))
        ends = np.arange(0, columns.size + 1, per_cell)
        values = np.ones(columns.size, np.int32)
        block = sp.csr_matrix((values, columns.ravel(), ends), shape=(size[0], n_features))
        block.sum_duplicates()
        blocks.append(block)
    return sp.vstack(blocks, format="csr")


def names_of(counts: sp.csr_matrix, name: Callable[[int], str], axis: int) -> list[str]:
    """A name for each cell (axis 0) or feature (axis 1)."""
    return [name(i) for i in range(counts.shape[axis])]


def gene(i: int) -> str:
    """Name of a gene."""
    return f"GENE{i}"


def peak(i: int) -> str:
    """Name of a peak."""
    return f"chr{1 + i % 19}:{500 * i}-{500 * i + 400}"


def write_h5(rna: sp.csr_matrix, atac: sp.csr_matrix, folder: Path) -> Path:
    """Write the layout of Cell Ranger ARC, compressed as there."""
    # the rows of cells by features are the columns of features by cells, which 10x stores
    counts = sp.hstack([rna, atac], format="csr")
    genes, peaks = names_of(rna, gene, 1), names_of(atac, peak, 1)
    features = {
        "id": [f"ENSG{i:011d}" for i in range(len(genes))] + peaks,
        "name": genes + peaks,
        "feature_type": ["Gene Expression"] * len(genes) + ["Peaks"] * len(peaks),
        "genome": ["GRCh38"] * counts.shape[1],
    }
    path = folder / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["shape"] = np.array(counts.shape[::-1], dtype="int32")
        group["indptr"] = counts.indptr.astype("int64")
        for name, values in (("data", counts.data), ("indices", counts.indices.astype("int64"))):
            group.create_dataset(name, data=values, chunks=True, compression=1)
        barcodes = names_of(counts, lambda i: f"CELL{i}-1", 0)
        group["barcodes"] = np.array(barcodes, dtype="S")
        for name, column in features.items():
            group[f"features/{name}"] = np.array(column, dtype="S")
    return path


def write_text(rna: sp.csr_matrix, atac: sp.csr_matrix, folder: Path) -> Path:
    """Write the layout of SNARE-seq, six compressed files of text."""
    for assay, counts, table, name in (
        ("cDNA", rna, "genes", gene),
        ("chromatin", atac, "peaks", peak),
    ):
        start = f"GSE126074_AdBrainCortex_SNAREseq_{assay}"
        for ending, lines in (
            ("barcodes", names_of(counts, lambda i: f"09A_{i}", 0)),
            (table, names_of(counts, name, 1)),
        ):
            text = "".join(f"{line}\n" for line in lines).encode()
            (folder / f"{start}.{ending}.tsv.gz").write_bytes(gzip.compress(text, 1))
        stream = BytesIO()
        mmwrite(stream, counts.T.tocoo(), field="integer", symmetry="general")
        compressed = gzip.compress(stream.getbuffer(), 1)
        (folder / f"{start}.counts.mtx.gz").write_bytes(compressed)
    return folder


READERS: dict[str, Callable[[Path], Any]] = {
    "10x .h5": lambda path: datasets.read_10x_multiome(path, progress=False),
    "SNARE-seq text": lambda path: datasets.read_snare_seq(path, progress=False),
}
WRITERS = {"10x .h5": write_h5, "SNARE-seq text": write_text}


def measure(layout: str, path: Path) -> dict[str, Any]:
    """Read once; the peak is that of the reading and of all that was in memory before it."""
    import muon  # noqa: F401  the reader imports it late

    warnings.simplefilter("ignore")
    forget_peak_memory()
    before, start = peak_memory(), time.perf_counter()
    mdata = READERS[layout](path)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "libraries_gb": round(before / 1e9, 2),
        "peak_memory_gb": round(peak_memory() / 1e9, 2),
        "cells": mdata.n_obs,
        "genes": mdata["rna"].n_vars,
        "peaks": mdata["atac"].n_vars,
        "stored_counts": int(mdata["rna"].X.nnz + mdata["atac"].X.nnz),
    }


def measure_apart(layout: str, path: Path) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", layout, "--path", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Draw, write, and read in each layout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.path)))
        return
    rna = draw(N_CELLS, N_GENES, GENES_PER_CELL, seed=0)
    atac = draw(N_CELLS, N_PEAKS, PEAKS_PER_CELL, seed=1)
    rows = []
    for layout, write in WRITERS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write(rna, atac, Path(folder))
            files = [file.stat().st_size for file in Path(folder).iterdir()]
            size = {"layout": layout, "file_gb": round(sum(files) / 1e9, 2)}
            rows.append(size | measure_apart(layout, path))
        print(rows[-1], flush=True)
    record = {
        "rows": rows,
        "machine": machine(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    (RESULTS / "reading.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
