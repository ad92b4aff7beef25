"""The example of preprocessing runs from real data to a trained model."""

import os
import subprocess
import sys
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SCMVP_DATA", ROOT.parent / "shared" / "data"))
# the thresholds of the example: genes in a cell
MIN_GENES = {"scicar_kidney_sample": 20, "pbmc_multiome_tiny": 5}


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Folder of one run of a single epoch."""
    for name in MIN_GENES:
        if not (DATA / f"{name}.h5mu").exists():
            pytest.skip(f"needs {DATA / name}.h5mu: set SCMVP_DATA to the folder of the real data")
    folder = tmp_path_factory.mktemp("preprocess")
    # a process of its own, as it sets seeds and options for all that follows
    command = [sys.executable, "examples/preprocess.py", "--max-epochs", "1", "--output", folder]
    environment = {**os.environ, "SCMVP_DATA": str(DATA.resolve()), "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
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
