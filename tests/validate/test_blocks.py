"""Reading a matrix neither changes nor copies it, in memory or on disk."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp

from scmvp_scvi._validate import check_counts, find_empty_cells


def test_checks_leave_the_matrix_as_it_was(container, store, rng, block_size):
    values = rng.poisson(2, (7, 6)).astype("float32")
    matrix = store(values, container)
    check_counts(matrix, argument="rna_layer", modality="rna")
    find_empty_cells(matrix, modality="rna")
    after = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix[:]
    np.testing.assert_array_equal(after.toarray() if sp.issparse(after) else after, values)


@pytest.mark.parametrize("check", [check_counts, find_empty_cells])
def test_no_check_copies_the_matrix(check):
    matrix = sp.csr_matrix(np.ones((2_000, 2_000), "float32"))
    argument = {"argument": "rna_layer"} if check is check_counts else {}
    tracemalloc.start()
    check(matrix, modality="rna", **argument)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < matrix.data.nbytes / 2
