"""Minibatches, sparse or written out, hold the matrix of numpy, whatever they are read from."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scmvp_scvi._counts import Counts, DenseCounts, SparseCounts, read_counts, written_out


@pytest.fixture
def matrix(rng) -> np.ndarray:
    """Six cells by nine features, three of four entries zero, cells 0, 3 and 5 empty."""
    matrix = rng.poisson(0.5, size=(6, 9)).astype(np.float32)
    matrix[[0, 3, 5]] = 0
    return matrix


def csr_tensor(matrix: np.ndarray, index_dtype: torch.dtype) -> torch.Tensor:
    csr = sp.csr_matrix(matrix)
    return torch.sparse_csr_tensor(
        torch.as_tensor(csr.indptr, dtype=index_dtype),
        torch.as_tensor(csr.indices, dtype=index_dtype),
        torch.as_tensor(csr.data),
        size=csr.shape,
        check_invariants=True,
    )


def test_dense_input_is_stored_as_the_arrays_of_scipy_csr(matrix):
    counts, csr = SparseCounts.from_tensor(torch.as_tensor(matrix)), sp.csr_matrix(matrix)
    np.testing.assert_array_equal(counts.values, csr.data)
    np.testing.assert_array_equal(counts.columns, csr.indices)
    np.testing.assert_array_equal(counts.offsets, csr.indptr)
    assert counts.n_features == csr.shape[1]


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_csr_input_is_read_like_dense_input(matrix, index_dtype):
    from_csr = SparseCounts.from_tensor(csr_tensor(matrix, index_dtype))
    from_dense = SparseCounts.from_tensor(torch.as_tensor(matrix))
    for name in ("values", "columns", "offsets"):
        found, expected = getattr(from_csr, name), getattr(from_dense, name)
        torch.testing.assert_close(found, expected, check_dtype=False)
    assert from_csr.n_features == from_dense.n_features


def test_rows_name_the_cell_of_each_value(matrix):
    counts = SparseCounts.from_tensor(torch.as_tensor(matrix))
    np.testing.assert_array_equal(counts.rows, matrix.nonzero()[0])


def test_depth_is_the_row_sum_as_a_column(matrix):
    counts = SparseCounts.from_tensor(torch.as_tensor(matrix))
    np.testing.assert_array_equal(counts.depth, matrix.sum(1, keepdims=True))


def test_to_dense_gives_back_the_matrix(matrix):
    dense = SparseCounts.from_tensor(torch.as_tensor(matrix)).to_dense()
    assert dense.dtype == torch.float32
    np.testing.assert_array_equal(dense, matrix)


def test_trailing_empty_cells_are_counted_as_cells(matrix):
    counts = SparseCounts.from_tensor(torch.as_tensor(matrix))
    assert counts.n_cells == 6
    assert counts.offsets[-2] == counts.offsets[-1] == len(counts.values)


def test_spread_gives_each_entry_the_value_of_its_cell(matrix, rng):
    of_cells = rng.normal(size=matrix.shape[0])
    spread = SparseCounts.from_tensor(torch.as_tensor(matrix)).spread(torch.as_tensor(of_cells))
    np.testing.assert_array_equal(spread, of_cells[matrix.nonzero()[0]])


def test_matrix_without_counts_has_depth_zero_and_no_rows():
    counts = SparseCounts.from_tensor(torch.zeros(3, 4))
    assert len(counts.rows) == 0
    np.testing.assert_array_equal(counts.depth, np.zeros((3, 1)))
    np.testing.assert_array_equal(counts.to_dense(), np.zeros((3, 4)))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_matrix_without_cells_or_features_keeps_its_shape(shape):
    counts = SparseCounts.from_tensor(torch.zeros(shape))
    assert (counts.n_cells, counts.n_features) == shape
    assert counts.to_dense().shape == shape


def test_with_values_changes_the_values_and_nothing_else(matrix):
    counts = SparseCounts.from_tensor(torch.as_tensor(matrix))
    logged = counts.with_values(counts.values.log1p())
    np.testing.assert_allclose(logged.to_dense(), np.log1p(matrix), rtol=1e-6)
    np.testing.assert_array_equal(counts.to_dense(), matrix)


def test_gradient_of_the_dense_form_reaches_the_values(matrix):
    counts = SparseCounts.from_tensor(torch.as_tensor(matrix))
    values = counts.values.clone().requires_grad_()
    counts.with_values(values).to_dense().square().sum().backward()
    torch.testing.assert_close(values.grad, 2 * counts.values)


def test_kept_entries_are_those_of_a_masked_matrix(matrix, rng):
    counts = SparseCounts.from_tensor(torch.as_tensor(matrix))
    kept = torch.as_tensor(rng.random(len(counts.values)) < 0.5)
    expected = matrix.copy()
    expected[counts.rows[~kept], counts.columns[~kept]] = 0
    np.testing.assert_array_equal(counts.keep(kept).to_dense(), expected)
    assert len(counts.keep(kept).values) == int(kept.sum())


@pytest.mark.parametrize("columns", [[0, 3, 8], [8, 1], [], list(range(9))])
def test_selected_columns_are_those_of_numpy(matrix, columns):
    counts = SparseCounts.from_tensor(torch.as_tensor(matrix))
    chosen = counts.select_columns(torch.tensor(columns, dtype=torch.long))
    assert chosen.n_features == len(columns)
    np.testing.assert_array_equal(chosen.to_dense(), matrix[:, columns])


@pytest.mark.filterwarnings("ignore:Sparse CS. tensor support:UserWarning")
def test_csc_input_is_read_like_dense_input(matrix):
    from_csc = SparseCounts.from_tensor(torch.as_tensor(matrix).to_sparse_csc())
    np.testing.assert_array_equal(from_csc.to_dense(), matrix)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_transposed_is_the_transpose_of_numpy(matrix, index_dtype):
    transposed = SparseCounts.from_tensor(csr_tensor(matrix, index_dtype)).transposed()
    assert transposed.n_cells == matrix.shape[1]
    np.testing.assert_array_equal(transposed.to_dense(), matrix.T)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_chosen_entries_keep_the_type_of_their_indices(matrix, index_dtype):
    counts = SparseCounts.from_tensor(csr_tensor(matrix, index_dtype))
    for chosen in (counts.keep(counts.values > 1), counts.select_columns(torch.tensor([5, 2]))):
        assert chosen.columns.dtype == chosen.offsets.dtype == chosen.rows.dtype == index_dtype


# -- written out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_csr, torch.sparse_csc])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("into", [False, True], ids=["anew", "into an array"])
def test_tensor_of_any_layout_is_written_out_as_the_matrix(matrix, layout, into):
    tensor = torch.as_tensor(matrix)
    array = torch.full_like(tensor, -1) if into else None
    sparse = tensor if layout is torch.strided else tensor.to_sparse(layout=layout)
    found = written_out(sparse, array)
    np.testing.assert_array_equal(found, matrix)
    assert (found is array) == into


def test_counts_are_read_as_sparse_on_a_cpu_and_written_out_elsewhere(matrix):
    assert isinstance(read_counts(torch.as_tensor(matrix)), SparseCounts)
    assert isinstance(read_counts(torch.as_tensor(matrix).to("meta")), DenseCounts)


ANSWERS = {
    "size": lambda counts: torch.tensor([counts.n_cells, counts.n_features]),
    "depth": lambda counts: counts.depth,
    "spread": lambda counts: written(counts, counts.spread(torch.arange(6.0))),
    "of features": lambda counts: written(counts, counts.of_features(torch.arange(9.0))),
    "other values": lambda counts: counts.with_values(counts.values.log1p()).to_dense(),
    "kept": lambda counts: counts.keep(counts.values > 1).to_dense(),
    "chosen": lambda counts: counts.select_columns(torch.tensor([7, 0, 3])).to_dense(),
}


def written(counts: Counts, factor: torch.Tensor) -> torch.Tensor:
    return counts.with_values(counts.values * factor).to_dense()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_written_out_counts_answer_as_sparse_ones(matrix, answer):
    dense = torch.as_tensor(matrix)
    torch.testing.assert_close(answer(DenseCounts(dense)), answer(SparseCounts.from_tensor(dense)))
