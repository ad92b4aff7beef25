"""What the model takes is counts, cells by features, and nothing else passes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmvp_scvi.datasets._counts import to_modality

CELLS = pd.Index(["a", "b", "c"])
FEATURES = pd.DataFrame(index=["x", "y"])
PATH = Path("counts.mtx")


def convert(values, **options):
    matrix = sp.csr_matrix(np.array(values, dtype=float))
    return to_modality(
        matrix, CELLS, FEATURES, path=PATH, cells_path=PATH, **options
    ).counts.toarray()


@pytest.mark.parametrize("transpose", [False, True])
def test_orientation_is_told_by_the_tables(transpose):
    counts = np.array([[1, 0], [0, 2], [3, 0]])
    np.testing.assert_array_equal(convert(counts.T if transpose else counts), counts)


def test_square_matrix_is_features_by_cells():
    matrix, square = sp.csr_matrix([[0, 1], [0, 0]]), pd.DataFrame(index=["x", "y"])
    counts = to_modality(matrix, pd.Index(["a", "b"]), square, path=PATH, cells_path=PATH).counts
    np.testing.assert_array_equal(counts.toarray(), [[0, 0], [1, 0]])


@pytest.mark.parametrize(
    ("value", "shown"), [(0.25, "0.25"), (-1, "-1"), (np.nan, "nan"), (np.inf, "inf")]
)
def test_value_that_is_no_count_is_refused_by_name(value, shown):
    match = f"counts.mtx` must hold counts, .* but it has {shown}. .* take the file of the raw"
    with pytest.raises(ValueError, match=match):
        convert([[1, 0], [0, value], [3, 0]], round_halves_up=True)


def test_halves_are_refused_unless_they_are_to_be_rounded():
    halves = [[0.5, 0], [0, 1.5], [3, 0]]
    np.testing.assert_array_equal(convert(halves, round_halves_up=True), [[1, 0], [0, 2], [3, 0]])
    with pytest.raises(ValueError, match="but it has 0.5"):
        convert(halves)


def test_values_that_are_stored_twice_or_are_zero_are_summed_or_dropped_in_a_copy():
    matrix = sp.csr_matrix((np.array([1.0, 2, 0]), [1, 1, 0], [0, 2, 2, 3]), shape=(3, 2))
    counts = to_modality(matrix, CELLS, FEATURES, path=PATH, cells_path=PATH).counts
    np.testing.assert_array_equal(counts.toarray(), [[0, 3], [0, 0], [0, 0]])
    assert counts.nnz == 1
    assert matrix.nnz == 3


def test_matrix_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match="2 features by 3 cells, .* but it is 4 by 2"):
        convert(np.ones((4, 2)))
