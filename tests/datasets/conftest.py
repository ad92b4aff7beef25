"""Small files in the published layouts, written line by line, and what they must be read to."""

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mudata import MuData
from numpy.typing import NDArray


@dataclass
class Truth:
    """Paired counts, ``(cells, features)``, before they are written."""

    cells: list[str]
    rna: NDArray
    atac: NDArray

    # Two modalities share three cells, in another order; two are alone in either.
    kept = (0, 2, 4)
    atac_order = (4, 2, 0)

    @property
    def atac_cells(self) -> list[str]:
        return [self.cells[i] for i in self.atac_order] + ["alone_1", "alone_2"]

    @property
    def atac_counts(self) -> NDArray:
        """``(features, cells)``, as published, with two cells that have no RNA."""
        alone = np.full((2, self.atac.shape[1]), 7)
        return np.vstack([self.atac[list(self.atac_order)], alone]).T

    @property
    def rna_counts(self) -> NDArray:
        """``(features, cells)``, as published."""
        return self.rna.T


@pytest.fixture
def truth() -> Truth:
    rng = np.random.default_rng(0)
    cells = [f"cell.{i}" for i in range(5)]
    return Truth(cells, rng.poisson(1.5, (5, 4)), rng.poisson(0.8, (5, 3)))


@pytest.fixture
def write():
    """Return a function that writes lines, compressed if the name ends with ``.gz``."""

    def write(path: Path, lines: Iterable[str]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in lines).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
        return path

    return write


@pytest.fixture
def write_matrix_market(write):
    """Return a function that writes a matrix, indices from one, zeros left out."""

    def write_matrix_market(path: Path, matrix: NDArray, field: str = "integer") -> Path:
        entries = [
            f"{row + 1} {column + 1} {matrix[row, column]}" for row, column in np.argwhere(matrix)
        ]
        size = f"{matrix.shape[0]} {matrix.shape[1]} {len(entries)}"
        header = f"%%MatrixMarket matrix coordinate {field} general"
        return write(path, [header, "% a comment", size, *entries])

    return write_matrix_market


@pytest.fixture
def write_dense(write):
    """Return a function that writes a table of features by cells, with or without a corner."""

    def write_dense(
        path: Path,
        matrix: NDArray,
        features: Sequence[str],
        cells: Sequence[str],
        corner: str | None = None,
    ) -> Path:
        header = list(cells) if corner is None else [corner, *cells]
        rows = [[name, *map(str, row)] for name, row in zip(features, matrix, strict=True)]
        return write(path, ["\t".join(fields) for fields in [header, *rows]])

    return write_dense


@pytest.fixture
def assert_is_truth(truth):
    """Return a function that compares what was read with what was written."""

    def assert_is_truth(mdata: MuData, genes: list[str], peaks: list[str], cells=None) -> None:
        kept = list(truth.kept)
        cells = [truth.cells[i] for i in kept] if cells is None else cells
        expected = {"rna": (truth.rna[kept], genes), "atac": (truth.atac[kept], peaks)}
        assert list(mdata.mod) == ["rna", "atac"]
        for modality, (counts, features) in expected.items():
            adata = mdata[modality]
            assert isinstance(adata.X, sp.csr_matrix)
            assert adata.X.dtype == np.float32
            np.testing.assert_array_equal(adata.X.toarray(), counts)
            assert adata.obs_names.tolist() == mdata.obs_names.tolist() == cells
            assert adata.var_names.tolist() == features
        places = mdata["atac"].var
        spelled = [f"{p.chrom}:{p.start}-{p.end}" for p in places.itertuples()]
        assert spelled == places.index.tolist()

    return assert_is_truth
