"""MatrixMarket files are read exactly, and broken ones are refused by name."""

import numpy as np
import pandas as pd
import pytest

from scmvp_scvi.datasets._matrix_market import read_matrix_market

CELLS = pd.Index(["a", "b", "c"])
FEATURES = pd.DataFrame(index=["x", "y"])
HEADER = "%%MatrixMarket matrix coordinate integer general"


def read(path):
    names = path.with_name("cells.tsv")
    return read_matrix_market(path, CELLS, FEATURES, cells_path=names, progress=False).counts


@pytest.mark.parametrize("field", ["integer", "real"])
def test_counts_are_those_that_were_written(field, tmp_path, write_matrix_market):
    counts = np.array([[0, 2, 0], [1, 0, 70_000]])
    path = write_matrix_market(tmp_path / "m.mtx.gz", counts, field)
    np.testing.assert_array_equal(read(path).toarray(), counts.T)


def test_entries_that_are_there_twice_are_summed_and_zeros_are_not_stored(tmp_path, write):
    path = write(tmp_path / "m.mtx", [HEADER, "2 3 4", "1 1 2", "1 1 3", "2 3 0", "2 2 1"])
    counts = read(path)
    np.testing.assert_array_equal(counts.toarray(), [[5, 0], [0, 1], [0, 0]])
    assert counts.nnz == 2


def test_pattern_without_values_is_binary(tmp_path, write):
    header = HEADER.replace("integer", "pattern")
    path = write(tmp_path / "m.mtx", [header, "2 3 1", "2 3"])
    np.testing.assert_array_equal(read(path).toarray(), [[0, 0], [0, 0], [0, 1]])


def test_indices_from_zero_are_refused(tmp_path, write):
    path = write(tmp_path / "m.mtx", [HEADER, "2 3 2", "0 0 5", "1 2 1"])
    with pytest.raises(ValueError, match="m.mtx` must be .* indices count from one, but: "):
        read(path)


def test_file_of_another_kind_is_refused(tmp_path, write):
    path = write(tmp_path / "m.mtx", ["<html>Not found</html>"])
    with pytest.raises(ValueError, match="m.mtx` must be a MatrixMarket file"):
        read(path)


def test_file_that_ends_too_early_is_refused(tmp_path, write):
    path = write(tmp_path / "m.mtx", [HEADER, "2 3 4", "1 1 2"])
    with pytest.raises(ValueError, match="Download it again if it is cut off"):
        read(path)


def test_gzip_that_ends_too_early_is_refused(tmp_path, write_matrix_market):
    counts = np.random.default_rng(0).integers(1, 99, (200, 300))
    path = write_matrix_market(tmp_path / "m.mtx.gz", counts)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="m.mtx.gz` must be a whole gzip file"):
        read(path)
