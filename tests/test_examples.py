"""The examples run from data to results, and what was computed is kept."""

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest

from scmvp_scvi import datasets

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SCMVP_DATA", ROOT.parent / "shared" / "data"))
# the thresholds of the example: genes in a cell
MIN_GENES = {"scicar_kidney_sample": 20, "pbmc_multiome_tiny": 5}


def run(example: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # a process of its own, as it sets seeds and options for all that follows
    command = [sys.executable, f"examples/{example}.py", "--max-epochs", "1", *arguments]
    environment = {**os.environ, "SCMVP_DATA": str(DATA.resolve()), "MPLBACKEND": "agg"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Folder of one run of a single epoch."""
    for name in MIN_GENES:
        if not (DATA / f"{name}.h5mu").exists():
            pytest.skip(f"needs {DATA / name}.h5mu: set SCMVP_DATA to the folder of the real data")
    folder = tmp_path_factory.mktemp("preprocess")
    done = run("preprocess", "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", MIN_GENES)
def test_preprocessing_ends_in_filtered_counts_with_an_embedding(output, name):
    before, after = (mudata.read_h5mu(place / f"{name}.h5mu") for place in (DATA, output))
    assert 0 < after.n_obs < before.n_obs
    assert (after["rna"].X > 0).sum(axis=1).A1.min() >= MIN_GENES[name]
    assert (after["rna"].X != before["rna"][after.obs_names, after["rna"].var_names].X).nnz == 0
    assert np.isfinite(after.obsm["X_scmvp"]).all()
    assert after.uns["scmvp_removed"]["removed"].sum() > 0


@pytest.mark.parametrize("name", MIN_GENES)
def test_preprocessing_reports_the_data_as_they_came(output, name):
    before = mudata.read_h5mu(DATA / f"{name}.h5mu")
    summary = pd.read_csv(output / f"{name}_qc.csv").set_index(["group", "quantity"])["value"]
    assert summary["rna", "cells"] == before["rna"].n_obs
    assert summary["atac", "features"] == before["atac"].n_vars
    assert (output / f"{name}_qc.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def counts(tmp_path) -> Path:
    """File of a few generated cells."""
    datasets.synthetic(n_cells=120, n_genes=40, n_peaks=60).write(tmp_path / "counts.h5mu")
    return tmp_path / "counts.h5mu"


def test_demo_refuses_an_unknown_column_as_it_reads(counts):
    read = runpy.run_path(str(ROOT / "examples" / "demo.py"))["read"]
    known, unknown = (argparse.Namespace(data=counts, color=c) for c in ("batch", "bach"))
    assert read(known).n_obs == 120
    with pytest.raises(SystemExit, match="`--color bach` must be a column .*, batch,"):
        read(unknown)


@pytest.mark.slow
def test_demo_keeps_its_results_where_it_cannot_draw(counts, tmp_path):
    folder = tmp_path / "demo"
    (folder / "umap.png").mkdir(parents=True)  # where the drawing would go
    done = run("demo", "--data", counts, "--output", folder, "--color", "cell_type")
    assert "Is a directory" in done.stderr
    mdata = mudata.read_h5mu(folder / "demo.h5mu")
    for name in ("X_scmvp", "X_umap"):
        assert np.isfinite(mdata.obsm[name]).all()
