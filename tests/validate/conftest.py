"""What the checks are tried on: MuData objects, matrices in all containers, real data."""

import os
import re
from pathlib import Path

import anndata
import mudata
import numpy as np
import pytest
import scipy
import scipy.sparse as sp

import scmvp_scvi
from scmvp_scvi._validate import _blocks


@pytest.fixture(
    params=["csr", "csc", "dense", "column_major", "disk_csr", "disk_csc", "disk_dense"]
)
def container(request):
    """What `store` puts a matrix into."""
    return request.param


@pytest.fixture(params=[5, 1 << 18], ids=["small_blocks", "one_block"])
def block_size(request, monkeypatch):
    monkeypatch.setattr(_blocks, "_BLOCK_SIZE", request.param)
    return request.param


@pytest.fixture
def store(tmp_path):
    """Return a function that puts a dense array into a container."""

    def store(values, container):
        if container == "column_major":
            return np.asfortranarray(values)
        make = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}
        matrix = make[container.removeprefix("disk_")](values)
        if not container.startswith("disk_"):
            return matrix
        anndata.AnnData(matrix).write_h5ad(tmp_path / "matrix.h5ad")
        return anndata.read_h5ad(tmp_path / "matrix.h5ad", backed="r").X

    return store


@pytest.fixture
def cells():
    return [f"cell{i}" for i in range(6)]


@pytest.fixture
def make_modality():
    def make_modality(cells, prefix, n_features=4):
        # A value tells its cell and feature, so that a mix-up shows.
        number = [int(re.sub(r"\D", "", cell)) for cell in cells]
        values = 10 * np.array(number)[:, None] + np.arange(1, n_features + 1)
        adata = anndata.AnnData(sp.csr_matrix(values.astype("float32")))
        adata.obs_names = cells
        adata.var_names = [f"{prefix}{i}" for i in range(n_features)]
        return adata

    return make_modality


@pytest.fixture
def make_mdata(cells, make_modality):
    def make_mdata(rna_cells=cells, atac_cells=cells):
        rna, atac = make_modality(rna_cells, "gene"), make_modality(atac_cells, "peak")
        mdata = mudata.MuData({"rna": rna, "atac": atac})
        mdata.obs["name"] = list(mdata.obs_names)
        return mdata

    return make_mdata


@pytest.fixture
def run_way_out():
    """Return a function that runs the code a message proposes, and gives `mdata` after it."""

    def run_way_out(error, mdata, starts_with, **names):
        lines = re.findall(rf"`({re.escape(starts_with)}[^`]*)`", error.value.args[0])
        packages = {"mudata": mudata, "numpy": np, "scipy": scipy, "scmvp_scvi": scmvp_scvi}
        scope = {"mdata": mdata, **packages, **names}
        exec(lines[0], scope)
        return scope["mdata"]

    return run_way_out


@pytest.fixture
def read_real():
    """Return a function that reads a real data set, or skips the test."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SCMVP_DATA", default))

    def read(name):
        if not (folder / name).exists():
            pytest.skip(f"{name} is not in {folder}: set SCMVP_DATA to the folder that has it")
        return mudata.read_h5mu(folder / name)

    return read
