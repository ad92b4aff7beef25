"""Paired counts written out by hand, and real data."""

import os
from pathlib import Path

import mudata
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData
from pandas.testing import assert_frame_equal

DATA = Path(os.environ.get("SCMVP_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(scope="session")
def read_real():
    """Return a function that reads a real data set, or skips the test."""

    def read(name: str) -> MuData:
        if not (DATA / name).exists():
            pytest.skip(f"needs {DATA / name}: set SCMVP_DATA to the folder of the real data")
        return mudata.read_h5mu(DATA / name)

    return read


@pytest.fixture(scope="session")
def make_modality():
    """Return a function that builds one modality from rows of counts."""

    def make_modality(counts, names, cells=None) -> AnnData:
        adata = AnnData(sp.csr_matrix(np.asarray(counts, dtype="float32")))
        adata.var_names = list(names)
        adata.obs_names = cells or [f"cell{i}" for i in range(adata.n_obs)]
        return adata

    return make_modality


@pytest.fixture(scope="session")
def make_pair(make_modality):
    """Return a function that builds a MuData from rows of RNA and of ATAC counts."""

    def make_pair(rna, atac, rna_cells=None, atac_cells=None) -> MuData:
        genes = [f"gene{i}" for i in range(np.shape(rna)[1])]
        peaks = [f"chr1:{100 * i}-{100 * i + 50}" for i in range(np.shape(atac)[1])]
        return MuData(
            {
                "rna": make_modality(rna, genes, rna_cells),
                "atac": make_modality(atac, peaks, atac_cells),
            }
        )

    return make_pair


@pytest.fixture
def unsorted_pair(make_pair) -> MuData:
    """Counts whose columns are stored in no order, and a layer that shares their places."""
    rng = np.random.default_rng(0)
    pair = make_pair(rng.poisson(2.0, (6, 5)), rng.poisson(2.0, (6, 5)))
    for adata in pair.mod.values():
        adata.X = adata.X[:, [4, 2, 0, 3, 1]]
        counts = adata.X
        assert not counts.has_sorted_indices
        adata.layers["double"] = sp.csr_matrix(
            (2 * counts.data, counts.indices, counts.indptr), shape=counts.shape
        )
    return pair


@pytest.fixture
def dense():
    """Return a function that gives a matrix as an array."""
    return lambda matrix: matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)


@pytest.fixture
def assert_untouched(dense):
    """Return a function that compares two MuData with one another, all but `.uns`."""

    def assert_untouched(mdata: MuData, before: MuData) -> None:
        # mudata 0.4 copies strings into another dtype
        assert_frame_equal(mdata.obs, before.obs, check_dtype=False, check_exact=True)
        assert_frame_equal(mdata.var, before.var, check_dtype=False, check_exact=True)
        for key, adata in mdata.mod.items():
            assert (dense(adata.X) == dense(before[key].X)).all()
            assert list(adata.layers) == list(before[key].layers)
            for name, layer in adata.layers.items():
                assert (dense(layer) == dense(before[key].layers[name])).all()
            assert adata.var.equals(before[key].var)
            assert adata.obs.equals(before[key].obs)
        assert list(mdata.uns) == list(before.uns)

    return assert_untouched
