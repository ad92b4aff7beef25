"""Planted links, and a small object written out by hand."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from scmvp_scvi.datasets import synthetic


@pytest.fixture(scope="session")
def planted() -> MuData:
    """Generated data; tests only read them."""
    return synthetic(n_cells=1_200, n_genes=300, n_peaks=1_500)


@pytest.fixture(scope="session")
def is_planted(planted):
    """Return a function that tells which rows of a table of links were planted."""
    truth = set(map(tuple, planted.uns["truth"]["links"][["gene", "peak"]].to_numpy()))

    def is_planted(links: pd.DataFrame) -> np.ndarray:
        pairs = links[["gene", "peak"]].itertuples(index=False, name=None)
        return np.array([pair in truth for pair in pairs])

    return is_planted


@pytest.fixture
def make_positioned(rng):
    """Return a function that builds paired counts of genes and peaks at given places."""

    def make_positioned(genes: pd.DataFrame, peaks: list[str], n_cells: int = 40) -> MuData:
        modalities = {}
        for key, names in (("rna", list(genes.index)), ("atac", peaks)):
            counts = (
                rng.poisson(1.0, (n_cells, len(names))) + (np.arange(n_cells) % 7 == 0)[:, None]
            )
            adata = AnnData(sp.csr_matrix(counts.astype("float32")))
            adata.var_names = names
            modalities[key] = adata
        modalities["rna"].var = genes
        return MuData(modalities)

    return make_positioned


@pytest.fixture
def genes() -> pd.DataFrame:
    """Two genes at one place, on both strands."""
    return pd.DataFrame(
        {"chrom": "chr1", "tss": [1_000, 1_000], "strand": ["+", "-"]}, index=["fwd", "rev"]
    )
