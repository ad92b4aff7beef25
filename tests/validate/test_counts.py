"""Counts pass in silence, everything else is told apart, and the way out works."""

import re
from itertools import pairwise

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import sparse_dataset, write_elem
from mudata import MuData

import scmvp_scvi
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._validate import begins_with_counts, check_counts, warn_about_reads

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")


def summarize_by_loop(values):
    nonzero = [float(value) for row in values for value in row if value != 0]
    fractional = [value for value in nonzero if value != int(value)]
    return len(nonzero), len(fractional), sum(value % 1 == 0.5 for value in fractional)


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
def test_counts_and_binary_values_pass_in_silence(container, dtype, store, rng, block_size):
    values = rng.poisson(1, (7, 6)).astype(dtype)
    check_counts(store(values, container), argument="rna_layer", modality="rna")


@pytest.mark.parametrize("container", ["csr", "csc", "dense", "column_major"])
@pytest.mark.parametrize("shape", [(4, 3), (0, 3), (4, 0)])
def test_matrix_of_zeros_passes_in_silence(container, shape, store):
    check_counts(store(np.zeros(shape), container), argument="rna_layer", modality="rna")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(
    container, bad, store, rng, block_size
):
    values = rng.poisson(1, (7, 6)).astype("float32")
    values[6, 4] = bad
    with pytest.raises(ValueError, match=r'"rna"\]\.X` .*, but 1 values are NaN or infinite'):
        check_counts(store(values, container), argument="rna_layer", modality="rna")


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_one_negative_value_is_found_wherever_it_is(container, dtype, store, rng, block_size):
    values = rng.poisson(1, (7, 6)).astype(dtype)
    values[3, 5] = -2
    with pytest.raises(ValueError, match="negative values, down to -2: the data look scaled"):
        check_counts(store(values, container), argument="rna_layer", modality="rna")


def test_transformed_values_are_refused_with_their_share(container, store, rng, block_size):
    values = np.log1p(rng.poisson(1, (7, 6))).astype("float32")
    n_nonzero, n_fractional, _ = summarize_by_loop(values)
    match = rf"but {n_fractional / n_nonzero:.1%} of .* such as 0\.6931: .* log-normalized"
    with pytest.raises(ValueError, match=match):
        check_counts(store(values, container), argument="rna_layer", modality="rna")


def test_few_half_counts_are_warned_about_with_their_number(container, store, rng, block_size):
    values = rng.poisson(3, (10, 9)).astype("float32")
    values[[1, 4, 9], [0, 5, 8]] = 0.5, 2.5, 1.5
    n_nonzero, n_fractional, n_half = summarize_by_loop(values)
    assert n_fractional == n_half == 3
    match = rf"{n_fractional} of {n_nonzero} non-zero values .* all of them half counts"
    with pytest.warns(UserWarning, match=match):
        check_counts(store(values, container), argument="atac_layer", modality="atac")


def test_few_other_fractions_are_warned_about_with_an_example():
    values = np.ones((5, 6))
    values[2, 2] = 0.25
    match = r"1 of 30 .* \(3\.3%\) .* are not integers, such as 0\.25"
    with pytest.warns(UserWarning, match=match):
        check_counts(values, argument="rna_layer", modality="rna")


@pytest.mark.parametrize(("n_fractional", "refused"), [(10, False), (11, True)])
def test_a_tenth_of_fractions_is_the_most_that_passes(n_fractional, refused):
    values = np.ones((10, 10))
    values.ravel()[:n_fractional] = 1.5
    expected = (
        pytest.raises(ValueError, match="11.0% of")
        if refused
        else pytest.warns(UserWarning, match="10 of 100")
    )
    with expected:
        check_counts(values, argument="rna_layer", modality="rna")


def test_share_of_fractions_leaves_stored_zeros_out():
    matrix = sp.csr_matrix((np.array([0.0] * 90 + [1.0] * 8 + [0.5] * 2), (range(100), [0] * 100)))
    with pytest.raises(ValueError, match="20.0% of the non-zero values"):
        check_counts(matrix, argument="rna_layer", modality="rna")


def test_values_behind_the_last_pointer_are_not_in_the_matrix():
    parts = (np.array([1.0, 2.0, -9.0]), np.array([0, 1, 1]), np.array([0, 1, 2]))
    check_counts(sp.csr_matrix(parts, shape=(2, 2)), argument="rna_layer", modality="rna")


def test_transformed_x_names_the_layers_that_hold_counts(make_modality, cells):
    adata = make_modality(cells, "gene")
    adata.layers["counts"], adata.layers["scaled"] = adata.X.copy(), adata.X.toarray() - 20
    adata.X = adata.X.log1p()
    with pytest.raises(ValueError, match=r'integer counts: pass `rna_layer="counts"`\.'):
        check_counts(adata.X, argument="rna_layer", modality="rna", adata=adata)


def test_transformed_layer_does_not_name_itself_as_the_way_out():
    adata = AnnData(layers={"log": sp.csr_matrix([[0.3]])})
    match = r'layers\["log"\]` must .* Store the raw counts in a layer and name it'
    with pytest.raises(ValueError, match=match):
        check_counts(adata.layers["log"], argument="a", modality="rna", layer="log", adata=adata)


def test_counts_in_raw_are_put_into_a_layer_by_the_way_out(make_mdata, run_way_out):
    mdata = make_mdata()
    counts = mdata["rna"].X[:, 1:].copy()
    mdata["rna"].raw = mdata["rna"].copy()
    mdata.mod["rna"] = mdata["rna"][:, 1:].copy()
    mdata["rna"].X = mdata["rna"].X.log1p()
    with pytest.raises(ValueError, match=r'raw` holds .* pass `rna_layer="counts"`\.') as error:
        check_counts(mdata["rna"].X, argument="rna_layer", modality="rna", adata=mdata["rna"])
    fixed = run_way_out(error, mdata, 'mdata["rna"].layers["counts"] = ')
    assert (fixed["rna"].layers["counts"] != counts).nnz == 0
    mdata["rna"].raw = mdata["rna"].copy()  # as log-normalised as `.X`
    with pytest.raises(ValueError, match="raw counts, but .* not integers") as error:
        check_counts(mdata["rna"].X, argument="rna_layer", modality="rna", adata=mdata["rna"])
    assert ".raw" not in str(error.value)


@pytest.mark.parametrize("to_matrix", [sp.csr_matrix, sp.csc_matrix, sp.csr_matrix.toarray])
def test_way_out_of_estimated_counts_rounds_them(to_matrix, make_mdata, run_way_out):
    mdata = make_mdata()
    mdata["rna"].X = to_matrix(mdata["rna"].X * np.float32(1.001))
    with pytest.raises(ValueError, match="If they are estimated counts, round") as error:
        check_counts(mdata["rna"].X, argument="rna_layer", modality="rna")
    fixed = run_way_out(error, mdata, 'mdata["rna"].X = ')
    check_counts(fixed["rna"].X, argument="rna_layer", modality="rna")


@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_array])
def test_sparse_arrays_are_refused_and_the_way_out_converts_them(make, make_mdata, run_way_out):
    mdata = make_mdata()
    mdata["rna"].X = make(mdata["rna"].X)
    with pytest.raises(TypeError, match="which scvi-tools cannot register. Convert") as error:
        check_counts(mdata["rna"].X, argument="rna_layer", modality="rna")
    fixed = run_way_out(error, mdata, 'mdata["rna"].X = ')
    assert fixed["rna"].X.format == make([[1]]).format
    check_counts(fixed["rna"].X, argument="rna_layer", modality="rna")


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (sp.coo_matrix([[1.0]]), "is a coo_matrix, which .* scipy.sparse.csr_matrix"),
        (pd.DataFrame([[1.0]]), "must be a `scipy.sparse.csr_matrix`.* got DataFrame"),
        (np.ones(3), "or a two-dimensional NumPy array, got ndarray"),
        (np.ma.array([[1.0]]), r"is a masked array.* Fill them: .*\.filled\(0\)"),
        (np.array([["1"]]), r'must hold numbers, got dtype <U1. .*astype\("float32"\)'),
    ],
)
def test_matrices_of_other_kinds_are_refused(matrix, match):
    with pytest.raises(TypeError, match=match):
        check_counts(matrix, argument="rna_layer", modality="rna")


def test_half_counts_of_sci_car_are_warned_about_with_their_number(read_real):
    layer = read_real("scicar_kidney_sample.h5mu")["atac"].layers["fractional"]
    values = layer.toarray()
    n_half, n_nonzero = (values % 1 == 0.5).sum(), (values != 0).sum()
    assert n_half > 0
    with pytest.warns(UserWarning, match=rf"{n_half} of {n_nonzero} .* all of them half counts"):
        check_counts(layer, argument="atac_layer", modality="atac", layer="fractional")


def in_parts(values: np.ndarray, kind: type) -> sp.csr_matrix | sp.csc_matrix:
    """Store the second row's first count as two entries."""
    canonical = kind(values)
    at = int(canonical.indptr[1])
    canonical.data[at] -= 1
    data, indices = (np.insert(a, at, a[at]) for a in (canonical.data, canonical.indices))
    data[at] = 1
    indptr = canonical.indptr + (np.arange(len(canonical.indptr)) > 1)
    return kind((data, indices, indptr), shape=values.shape)


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_entry_that_is_stored_in_parts_is_refused_until_it_is_summed(kind, rng, block_size):
    values = rng.poisson(1, (7, 6)).astype("float32") + 1
    matrix = in_parts(values, kind)
    np.testing.assert_array_equal(matrix.toarray(), values)
    with pytest.raises(ValueError, match=r"must store each entry once.*\.X\.sum_duplicates\(\)`"):
        check_counts(matrix, argument="rna_layer", modality="rna")
    matrix.sum_duplicates()
    check_counts(matrix, argument="rna_layer", modality="rna")


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_indices_in_any_order_pass(kind, rng, block_size):
    matrix = kind(rng.poisson(1, (7, 6)).astype("float32"))
    for start, stop in pairwise(matrix.indptr):
        for array in (matrix.data, matrix.indices):
            array[start:stop] = array[start:stop][::-1].copy()
    matrix = kind((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    assert not matrix.has_sorted_indices
    check_counts(matrix, argument="rna_layer", modality="rna")


def test_matrix_on_disk_that_stores_entries_in_parts_is_refused(tmp_path, rng):
    parts = in_parts(rng.poisson(1, (7, 6)).astype("float32") + 1, sp.csr_matrix)
    with h5py.File(tmp_path / "parts.h5", "w") as file:
        write_elem(file, "X", parts)
        with pytest.raises(ValueError, match=r"Add them up, read into memory"):
            check_counts(sparse_dataset(file["X"]), argument="rna_layer", modality="rna")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 2], True), ([0, 1, 0.5], False), ([1, -1, 0], False), ([np.nan, 1, 0], False)],
)
def test_first_values_tell_counts_from_others(values, expected, container, store):
    matrix = store(np.array([values, [0, 3, 0]], dtype="float32"), container)
    assert begins_with_counts(matrix) is expected


@pytest.mark.parametrize("mean", [0.01, 0.3, 1, 3, 30])
@pytest.mark.parametrize("dispersion", [0.0, 1.0])
def test_no_law_of_single_counts_looks_like_reads(rng, mean, dispersion):
    means = np.full((300, 200), float(mean))
    if dispersion > 0:
        means *= rng.gamma(1 / dispersion, dispersion, means.shape)
    counts = sp.csr_matrix(rng.poisson(means).astype("float32"))
    warn_about_reads(counts, modality="atac")
    warn_about_reads(counts.sign(), modality="atac")  # binary


@pytest.mark.parametrize("mean", [0.01, 0.3, 1])
@pytest.mark.parametrize("lost", [0.0, 0.2])
@pytest.mark.parametrize("layer", [None, "reads"])
def test_reads_of_which_each_fragment_gives_two_are_told_by_their_even_counts(
    rng, mean, lost, layer
):
    """A read is lost where it falls outside the peak."""
    fragments = rng.poisson(mean, (300, 200))
    reads = sp.csr_matrix(rng.binomial(2 * fragments, 1 - lost).astype("float32"))
    atac = AnnData(reads, layers={} if layer is None else {layer: reads})
    rna = AnnData(sp.csr_matrix(reads))
    atac.var_names, rna.var_names = (np.char.add(name, atac.var_names) for name in "ar")
    with pytest.warns(UserWarning, match="look like reads") as caught:
        warn_about_reads(reads, modality="atac", layer=layer)
    with without_pulling():
        mdata = MuData({"rna": rna, "atac": atac})
    way_out = re.search("`mdata = (.*?)`", str(caught[0].message))[1]
    found = eval(way_out, {"scmvp_scvi": scmvp_scvi, "mdata": mdata})
    np.testing.assert_array_equal(
        found["atac"].layers["fragments"].toarray(), np.ceil(reads.toarray() / 2)
    )


def test_counts_of_snare_seq_do_not_look_like_reads(read_real):
    warn_about_reads(read_real("snareseq_adult_cortex.h5mu")["atac"].X, modality="atac")
