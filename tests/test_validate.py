"""What users pass in is refused with a reason and a way out, and the way out works."""

import os
import re
import tracemalloc
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy
import scipy.sparse as sp

from scmvp_scvi import _validate
from scmvp_scvi._validate import (
    check_counts,
    check_feature_names,
    check_fraction,
    check_indices,
    check_integer_at_least,
    check_is_mudata,
    check_modalities,
    check_names,
    check_no_cell_is_empty_in_both,
    check_no_missing,
    check_numeric_finite,
    check_one_of,
    check_paired,
    check_positive,
    check_positive_column,
    check_unique_features,
    find_counts,
    find_obs_column,
    warn_about_empty,
)

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")

CELLS = [f"cell{i}" for i in range(6)]
LAYERS = {"rna_layer": None, "atac_layer": None}
MODALITIES = {"rna_layer": "rna", "atac_layer": "atac"}
CONTAINERS = ["csr", "csc", "dense", "column_major", "disk_csr", "disk_csc", "disk_dense"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(params=[5, 1 << 18], ids=["small_blocks", "one_block"])
def block_size(request, monkeypatch):
    monkeypatch.setattr(_validate, "_BLOCK_SIZE", request.param)
    return request.param


@pytest.fixture
def store(tmp_path):
    """Return a function that puts a dense array into one of `CONTAINERS`."""

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


def make_modality(cells, prefix, n_features=4):
    # A value tells its cell and feature, so that a mix-up shows.
    number = [int(re.sub(r"\D", "", cell)) for cell in cells]
    values = 10 * np.array(number)[:, None] + np.arange(1, n_features + 1)
    adata = anndata.AnnData(sp.csr_matrix(values.astype("float32")))
    adata.obs_names = cells
    adata.var_names = [f"{prefix}{i}" for i in range(n_features)]
    return adata


def make_mdata(rna_cells=CELLS, atac_cells=CELLS):
    rna, atac = make_modality(rna_cells, "gene"), make_modality(atac_cells, "peak")
    mdata = mudata.MuData({"rna": rna, "atac": atac})
    mdata.obs["name"] = list(mdata.obs_names)
    return mdata


def run_way_out(error, mdata, starts_with, **names):
    """Execute the line of code the message proposes, and return `mdata` after it."""
    lines = re.findall(rf"`({re.escape(starts_with)}[^`]*)`", error.value.args[0])
    scope = {"mdata": mdata, "mudata": mudata, "numpy": np, "scipy": scipy, **names}
    exec(lines[0], scope)
    return scope["mdata"]


def is_paired(mdata):
    rna, atac = (mdata[key].X.toarray()[:, 0] for key in ("rna", "atac"))
    names = [f"cell{int(value) // 10}" for value in rna]
    return np.array_equal(rna, atac) and names == list(mdata.obs_names) == list(mdata.obs["name"])


def summarize_by_loop(values):
    nonzero = [float(value) for row in values for value in row if value != 0]
    fractional = [value for value in nonzero if value != int(value)]
    return len(nonzero), len(fractional), sum(value % 1 == 0.5 for value in fractional)


# --- scalars -----------------------------------------------------------------------------------


def test_check_one_of_names_the_options():
    check_one_of("nb", ["nb", "zip"], name="likelihood")
    with pytest.raises(ValueError, match="`likelihood` must be one of 'nb', 'zip', got 'gauss'"):
        check_one_of("gauss", ["nb", "zip"], name="likelihood")


@pytest.mark.parametrize("value", [1, 1e-9, np.float32(2.0), np.int64(3)])
def test_positive_numbers_of_any_kind_pass(value):
    check_positive(value, name="delta")


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf])
def test_check_positive_refuses_zero_negative_and_not_finite(value):
    with pytest.raises(ValueError, match="`delta` must be a finite number above 0, got"):
        check_positive(value, name="delta")


@pytest.mark.parametrize("value", ["1", None, True])
@pytest.mark.parametrize("check", [check_positive, check_fraction])
def test_number_checks_refuse_what_is_no_number(check, value):
    with pytest.raises(TypeError, match="`delta` must be a number, got"):
        check(value, name="delta")


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, np.nan])
def test_check_fraction_refuses_values_outside_the_half_open_interval(value):
    check_fraction(0, name="dropout_rate")
    check_fraction(0.999, name="dropout_rate")
    with pytest.raises(ValueError, match="`dropout_rate` must be at least 0 and below 1, got"):
        check_fraction(value, name="dropout_rate")


def test_check_integer_at_least_refuses_smaller_ones():
    check_integer_at_least(np.int32(2), 2, name="n_clusters")
    with pytest.raises(ValueError, match="`n_clusters` must be at least 2, got 1"):
        check_integer_at_least(1, 2, name="n_clusters")


@pytest.mark.parametrize("value", [2.0, True, "2", None])
def test_check_integer_at_least_refuses_other_types(value):
    with pytest.raises(TypeError, match="`n_clusters` must be an integer, got"):
        check_integer_at_least(value, 1, name="n_clusters")


# --- the MuData object -------------------------------------------------------------------------


def test_mudata_of_two_modalities_passes_every_check_of_its_shape():
    mdata = make_mdata()
    check_is_mudata(mdata)
    check_modalities(mdata, MODALITIES, LAYERS)
    check_paired(mdata, "rna", "atac")
    check_unique_features(mdata["rna"], "rna")


@pytest.mark.parametrize(("make", "found"), [(anndata.AnnData, "an AnnData"), (dict, "a dict")])
def test_other_objects_than_mudata_are_told_how_to_build_one(make, found):
    with pytest.raises(TypeError, match=rf"got {found}\. .*mudata\.MuData\(\{{\"rna\": rna"):
        check_is_mudata(make())


def test_mudata_of_shared_features_is_refused():
    modalities = {"rna": make_modality(CELLS[:3], "g"), "atac": make_modality(CELLS[3:], "g")}
    mdata = mudata.MuData(modalities, axis=1)
    with pytest.raises(ValueError, match="must share its cells between modalities .* axis=1"):
        check_is_mudata(mdata)


def test_view_of_mudata_is_refused_and_its_copy_passes():
    view = make_mdata()[:3]
    with pytest.raises(ValueError, match="view in `mdata` itself") as error:
        check_is_mudata(view)
    check_is_mudata(run_way_out(error, view, "mdata = mdata.copy"))


def test_view_in_one_modality_is_refused_and_its_copy_passes():
    atac = make_modality([*CELLS, "cell6"], "peak")[:6]
    mdata = mudata.MuData({"rna": make_modality(CELLS, "gene"), "atac": atac})
    with pytest.raises(ValueError, match=r'view in `mdata\["atac"\]`\.') as error:
        check_is_mudata(mdata)
    check_is_mudata(run_way_out(error, mdata, "mdata = mdata.copy"))


def test_unknown_modality_is_reported_with_what_is_there_and_near_matches():
    modalities = {"rna_layer": "RNA", "atac_layer": "atac"}
    match = "maps `rna_layer` to `RNA`, .* it has `rna`, `atac`. Did you mean `rna`?"
    with pytest.raises(KeyError, match=match):
        check_modalities(make_mdata(), modalities, LAYERS)


def test_modality_of_an_obs_column_must_exist_too_but_may_be_none():
    check_modalities(make_mdata(), {**MODALITIES, "batch_key": None}, LAYERS)
    with pytest.raises(KeyError, match="maps `batch_key` to `prot`"):
        check_modalities(make_mdata(), {**MODALITIES, "batch_key": "prot"}, LAYERS)


def test_count_matrix_without_a_modality_is_refused():
    with pytest.raises(ValueError, match="must name the modality of `atac_layer`"):
        check_modalities(make_mdata(), {"rna_layer": "rna"}, LAYERS)


def test_one_modality_for_both_assays_is_refused():
    with pytest.raises(ValueError, match="different modalities, got `rna` for both"):
        check_modalities(make_mdata(), {"rna_layer": "rna", "atac_layer": "rna"}, LAYERS)


def test_unknown_layer_is_reported_with_near_matches():
    mdata = make_mdata()
    mdata["atac"].layers["counts"] = mdata["atac"].X
    match = r"`atac_layer=\"count\"` is not a layer .* which has `counts`.*mean `counts`\?"
    with pytest.raises(KeyError, match=match):
        check_modalities(mdata, MODALITIES, {"rna_layer": None, "atac_layer": "count"})


def test_empty_x_is_reported_with_the_layers_there_are():
    mdata = make_mdata()
    mdata["rna"].layers["counts"] = mdata["rna"].X
    mdata["rna"].X = None
    with pytest.raises(ValueError, match=r"\.X` is empty.*`rna_layer`: there are `counts`"):
        check_modalities(mdata, MODALITIES, LAYERS)


def test_find_counts_returns_the_layer_or_x():
    adata = make_modality(CELLS, "gene")
    adata.layers["doubled"] = adata.X * 2
    x = find_counts(adata, None, argument="rna_layer", modality="rna")
    layer = find_counts(adata, "doubled", argument="rna_layer", modality="rna")
    np.testing.assert_array_equal(layer.toarray(), 2 * x.toarray())


# --- pairing -----------------------------------------------------------------------------------


def test_same_cells_in_another_order_are_refused_and_the_way_out_pairs_them():
    mdata = make_mdata(atac_cells=CELLS[::-1])
    with pytest.raises(ValueError, match="hold the same 6 cells in different orders") as error:
        check_paired(mdata, "rna", "atac")
    fixed = run_way_out(error, mdata, "shared = ")
    check_paired(fixed, "rna", "atac")
    assert fixed.n_obs == 6
    assert is_paired(fixed)


def test_modality_replaced_in_another_order_without_update_is_paired_by_the_way_out():
    mdata = make_mdata()
    mdata.mod["atac"] = mdata["atac"][::-1].copy()
    with pytest.raises(ValueError, match="different orders") as error:
        check_paired(mdata, "rna", "atac")
    fixed = run_way_out(error, mdata, "shared = ")
    check_paired(fixed, "rna", "atac")
    assert is_paired(fixed)


def test_modalities_in_another_order_than_mdata_obs_are_refused_and_the_way_out_pairs_them():
    mdata = make_mdata()
    for key in ("rna", "atac"):
        mdata.mod[key] = mdata[key][::-1].copy()
    with pytest.raises(ValueError, match="different orders") as error:
        check_paired(mdata, "rna", "atac")
    assert is_paired(run_way_out(error, mdata, "shared = "))


def test_unpaired_cells_are_counted_and_the_way_out_keeps_the_shared_ones():
    mdata = make_mdata(atac_cells=["cell7", "cell4", "cell1", "cell3"])
    match = "7 cells in `mdata.obs`, 1 are missing in `rna` and 3 in `atac`. Keep the 3 shared"
    with pytest.raises(ValueError, match=match) as error:
        check_paired(mdata, "rna", "atac")
    fixed = run_way_out(error, mdata, "shared = ")
    check_paired(fixed, "rna", "atac")
    assert set(fixed.obs_names) == {"cell1", "cell3", "cell4"}
    assert is_paired(fixed)


def test_modalities_without_a_shared_cell_name_show_one_name_of_each():
    mdata = make_mdata(atac_cells=[f"{cell}-atac" for cell in CELLS])
    with pytest.raises(ValueError, match="no cell name is in both: `cell0` .* `cell0-atac` one"):
        check_paired(mdata, "rna", "atac")


def test_cells_renamed_after_mdata_was_built_ask_for_an_update():
    mdata = make_mdata()
    for key in ("rna", "atac"):
        mdata[key].obs_names = [f"{cell}-1" for cell in CELLS]
    with pytest.raises(ValueError, match=r"Run `mdata\.update\(\)` first"):
        check_paired(mdata, "rna", "atac")


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
@pytest.mark.filterwarnings("ignore:obs_names are not unique:UserWarning")
def test_duplicated_cell_names_are_listed():
    adata = make_modality(["cell0", "cell0", "cell1"], "gene")
    mdata = make_mdata()
    mdata.mod["atac"] = adata
    with pytest.raises(ValueError, match="1 are duplicated in `atac`: `cell0`"):
        check_paired(mdata, "rna", "atac")


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_duplicated_features_are_refused_and_the_way_out_renames_them():
    mdata = make_mdata()
    mdata["rna"].var_names = ["a", "b", "a", "a"]
    with pytest.raises(ValueError, match="1 are duplicated in `rna`: `a`") as error:
        check_unique_features(mdata["rna"], "rna")
    fixed = run_way_out(error, mdata, 'mdata["rna"].var_names_make_unique')
    check_unique_features(fixed["rna"], "rna")


# --- counts ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
def test_counts_and_binary_values_pass_in_silence(container, dtype, store, rng, block_size):
    values = rng.poisson(1, (7, 6)).astype(dtype)
    check_counts(store(values, container), argument="rna_layer", modality="rna")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("container", ["csr", "csc", "dense", "column_major"])
@pytest.mark.parametrize("shape", [(4, 3), (0, 3), (4, 0)])
def test_matrix_of_zeros_passes_in_silence(container, shape, store):
    check_counts(store(np.zeros(shape), container), argument="rna_layer", modality="rna")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_found_wherever_it_is(
    container, bad, store, rng, block_size
):
    values = rng.poisson(1, (7, 6)).astype("float32")
    values[6, 4] = bad
    with pytest.raises(ValueError, match=r'"rna"\]\.X` .*, but 1 values are NaN or infinite'):
        check_counts(store(values, container), argument="rna_layer", modality="rna")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_one_negative_value_is_found_wherever_it_is(container, dtype, store, rng, block_size):
    values = rng.poisson(1, (7, 6)).astype(dtype)
    values[3, 5] = -2
    with pytest.raises(ValueError, match="negative values, down to -2: the data look scaled"):
        check_counts(store(values, container), argument="rna_layer", modality="rna")


@pytest.mark.parametrize("container", CONTAINERS)
def test_transformed_values_are_refused_with_their_share(container, store, rng, block_size):
    values = np.log1p(rng.poisson(1, (7, 6))).astype("float32")
    n_nonzero, n_fractional, _ = summarize_by_loop(values)
    match = rf"but {n_fractional / n_nonzero:.1%} of .* such as 0\.6931: .* log-normalized"
    with pytest.raises(ValueError, match=match):
        check_counts(store(values, container), argument="rna_layer", modality="rna")


@pytest.mark.parametrize("container", CONTAINERS)
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


def test_transformed_x_names_the_layers_that_hold_counts():
    adata = make_modality(CELLS, "gene")
    adata.layers["counts"], adata.layers["scaled"] = adata.X.copy(), adata.X.toarray() - 20
    adata.X = adata.X.log1p()
    with pytest.raises(ValueError, match=r'integer counts: pass `rna_layer="counts"`\.'):
        check_counts(adata.X, argument="rna_layer", modality="rna", layers=adata.layers)


def test_transformed_layer_does_not_name_itself_as_the_way_out():
    layers = {"log": sp.csr_matrix([[0.3]])}
    match = r'layers\["log"\]` must .* Store the raw counts in a layer and name it'
    with pytest.raises(ValueError, match=match):
        check_counts(layers["log"], argument="a", modality="rna", layer="log", layers=layers)


@pytest.mark.parametrize("to_matrix", [sp.csr_matrix, sp.csc_matrix, sp.csr_matrix.toarray])
def test_way_out_of_estimated_counts_rounds_them(to_matrix):
    mdata = make_mdata()
    mdata["rna"].X = to_matrix(mdata["rna"].X * np.float32(1.001))
    with pytest.raises(ValueError, match="If they are estimated counts, round") as error:
        check_counts(mdata["rna"].X, argument="rna_layer", modality="rna")
    fixed = run_way_out(error, mdata, 'mdata["rna"].X = ')
    check_counts(fixed["rna"].X, argument="rna_layer", modality="rna")


@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_array])
def test_sparse_arrays_are_refused_and_the_way_out_converts_them(make):
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
        (np.array([["1"]]), r'must hold numbers, got dtype <U1. .*astype\("float32"\)'),
    ],
)
def test_matrices_of_other_kinds_are_refused(matrix, match):
    with pytest.raises(TypeError, match=match):
        check_counts(matrix, argument="rna_layer", modality="rna")


@pytest.mark.parametrize("container", CONTAINERS)
def test_checks_leave_the_matrix_as_it_was(container, store, rng, block_size):
    values = rng.poisson(2, (7, 6)).astype("float32")
    matrix = store(values, container)
    check_counts(matrix, argument="rna_layer", modality="rna")
    warn_about_empty(matrix, modality="rna")
    after = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix[:]
    np.testing.assert_array_equal(after.toarray() if sp.issparse(after) else after, values)


@pytest.mark.parametrize("check", [check_counts, warn_about_empty])
def test_no_check_copies_the_matrix(check):
    matrix = sp.csr_matrix(np.ones((2_000, 2_000), "float32"))
    argument = {"argument": "rna_layer"} if check is check_counts else {}
    tracemalloc.start()
    check(matrix, modality="rna", **argument)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < matrix.data.nbytes / 2


@pytest.mark.parametrize("container", CONTAINERS)
def test_empty_cells_and_features_equal_a_plain_loop(container, store, rng, block_size):
    values = rng.poisson(0.2, (11, 9)).astype("float32")
    with pytest.warns(UserWarning, match="have no counts in `atac`"):
        cells, features = warn_about_empty(store(values, container), modality="atac")
    assert cells.tolist() == [all(value == 0 for value in row) for row in values]
    assert features.tolist() == [all(value == 0 for value in column) for column in values.T]
    assert cells.any()
    assert not cells.all()


def test_empty_cells_and_features_are_warned_about_once_each():
    with pytest.warns(UserWarning, match="no counts") as caught:
        warn_about_empty(sp.csr_matrix(np.diag([1, 0, 0, 2])[:, :3]), modality="atac")
    cells, features = (str(warning.message) for warning in caught)
    assert cells.startswith("3 of 4 cells have no counts in `atac`. They are kept, and embedded")
    assert features.startswith("2 of 3 features have no counts in `atac`.")


def test_stored_zeros_are_no_counts_and_stay_stored():
    matrix = sp.csr_matrix((np.array([0.0, 1.0]), ([0, 1], [0, 1])))
    with pytest.warns(UserWarning, match="1 of 2"):
        cells, features = warn_about_empty(matrix, modality="rna")
    assert cells.tolist() == features.tolist() == [True, False]
    assert matrix.nnz == 2


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_matrix_without_any_count_is_empty_all_over(make):
    with pytest.warns(UserWarning, match="no counts"):
        cells, features = warn_about_empty(make(np.zeros((3, 2))), modality="rna")
    assert cells.all()
    assert features.all()


@pytest.mark.filterwarnings("error")
def test_matrix_with_a_count_everywhere_is_silent():
    cells, features = warn_about_empty(np.eye(3), modality="rna")
    assert not cells.any()
    assert not features.any()


def test_cell_empty_in_both_modalities_is_refused_and_the_way_out_removes_it():
    mdata = make_mdata()
    empty = {key: np.array([key == "rna", True, False, False, False, False]) for key in mdata.mod}
    for key, adata in mdata.mod.items():
        adata.X = sp.csr_matrix(np.where(empty[key][:, None], 0, adata.X.toarray()))
    args = (empty["rna"], empty["atac"])
    with pytest.raises(ValueError, match="but 1 have none in either: `cell1`") as error:
        check_no_cell_is_empty_in_both(*args, cell_names=mdata.obs_names)
    fixed = run_way_out(error, mdata, "mdata = mdata[")
    assert list(fixed.obs_names) == ["cell0", *CELLS[2:]]


def test_cells_empty_in_one_modality_pass_the_check_of_both():
    mask = np.array([True, False])
    check_no_cell_is_empty_in_both(mask, ~mask, cell_names=pd.Index(["a", "b"]))


# --- columns of obs ----------------------------------------------------------------------------


def find_batch(mdata, key="batch", modality=None):
    return find_obs_column(
        mdata, key, argument="batch_key", modality=modality, modality_keys=("rna", "atac")
    )


def test_column_is_found_in_the_table_that_is_meant():
    mdata = make_mdata()
    mdata.obs["batch"], mdata["rna"].obs["batch"] = list("aabbcc"), list("xxyyzz")
    assert "".join(find_batch(mdata)) == "aabbcc"
    assert "".join(find_batch(mdata, modality="rna")) == "xxyyzz"


def test_column_in_a_modality_is_reported_with_the_place_and_both_ways_out():
    mdata = make_mdata()
    mdata["rna"].obs["batch"] = list("xxyyzz")
    match = r'of `mdata\.obs`, but of `mdata\["rna"\].obs`.*{\.\.\., \"batch_key\": \"rna\"}`'
    with pytest.raises(KeyError, match=match) as error:
        find_batch(mdata)
    fixed = run_way_out(error, mdata, 'mdata.obs["batch"] = ')
    assert "".join(find_batch(fixed)) == "xxyyzz"


def test_column_in_mdata_obs_is_reported_when_a_modality_is_meant():
    mdata = make_mdata()
    mdata.obs["batch"] = list("aabbcc")
    match = r"but of `mdata\.obs`. Either leave `\"batch_key\"` out of `modalities`"
    with pytest.raises(KeyError, match=match) as error:
        find_batch(mdata, modality="atac")
    fixed = run_way_out(error, mdata, 'mdata["atac"].obs["batch"] = ')
    assert "".join(find_batch(fixed, modality="atac")) == "aabbcc"


def test_column_in_two_other_tables_names_both():
    mdata = make_mdata()
    for key in ("rna", "atac"):
        mdata[key].obs["batch"] = list("xxyyzz")
    with pytest.raises(KeyError, match=r'mdata\["rna"\].obs` and `mdata\["atac"\].obs`'):
        find_batch(mdata)


def test_unknown_column_is_reported_with_near_matches():
    mdata = make_mdata()
    mdata["rna"].obs["batch_id"] = 1
    match = "nor of any other table.*`mdata.obs` has `name`. Did you mean `batch_id`"
    with pytest.raises(KeyError, match=match):
        find_batch(mdata, key="batch_ids")


def test_missing_categories_are_counted_and_the_way_out_names_them():
    obs = pd.DataFrame({"batch": pd.Categorical(["a", None, "b", None])})
    check_no_missing(obs["batch"].dropna(), argument="batch_key")
    with pytest.raises(ValueError, match='column "batch" .* 2 of 4 are missing') as error:
        check_no_missing(obs["batch"], argument="batch_key")
    run_way_out(error, None, 'obs["batch"] = ', obs=obs)
    assert obs["batch"].tolist() == ["a", "unknown", "b", "unknown"]


@pytest.mark.parametrize("values", [["1", "2"], pd.Categorical(["a", "b"])])
def test_continuous_covariate_that_is_not_numeric_is_refused(values):
    series = pd.Series(values, name="age")
    with pytest.raises(TypeError, match='`keys`: the column "age" must be numeric, got dtype'):
        check_numeric_finite(series, argument="keys")


@pytest.mark.parametrize(
    "values", [[1.0, np.nan, 2.0], [1.0, -np.inf, 2.0], pd.array([1, None, 2], "Int64")]
)
def test_continuous_covariate_that_is_not_finite_is_refused(values):
    series = pd.Series(values, name="age")
    check_numeric_finite(series.iloc[[0, 2]], argument="keys")
    with pytest.raises(ValueError, match="must be finite, but 1 of 3 values"):
        check_numeric_finite(series, argument="keys")


def test_size_factors_must_be_above_zero():
    series = pd.Series([1.0, 0.0, -0.5], name="depth")
    check_positive_column(series[:1], argument="size_factor_key")
    with pytest.raises(ValueError, match="above 0, but 2 of 3 values are not, down to -0.5"):
        check_positive_column(series, argument="size_factor_key")


# --- names and positions -----------------------------------------------------------------------


def test_equal_feature_names_pass_whatever_holds_them():
    check_feature_names(["a", "b"], np.array(["a", "b"], dtype=object), modality="rna")


@pytest.mark.parametrize("order", [[3, 1, 0, 2], [3, 1, 0]])
def test_way_out_of_other_or_added_features_gives_those_of_the_model(order):
    mdata = make_mdata()
    expected = mdata["atac"].var_names[order]
    match = "another order" if len(order) == 4 else "1 were added: `peak2`. Leave them out"
    with pytest.raises(ValueError, match=match) as error:
        check_feature_names(expected, mdata["atac"].var_names, modality="atac")
    model = type("Model", (), {"adata": mudata.MuData({"atac": mdata["atac"][:, order].copy()})})
    fixed = run_way_out(error, mdata, "names = ", model=model)
    check_feature_names(expected, fixed["atac"].var_names, modality="atac")
    np.testing.assert_array_equal(fixed["atac"].X[0].toarray()[0], np.array(order) + 1)
    assert fixed.obs["name"].tolist() == CELLS


def test_source_of_the_expected_names_stands_in_the_way_out():
    with pytest.raises(ValueError, match="`names = model.peaks; mdata = "):
        check_feature_names(["a", "b"], ["b", "a"], modality="atac", expected_from="model.peaks")


def test_missing_and_added_features_are_counted_and_listed():
    match = "the 3 features of the model, but 2 are missing: `b`, `c`; 1 others are there: `x`"
    with pytest.raises(ValueError, match=match):
        check_feature_names(["a", "b", "c"], ["a", "x"], modality="rna")


@pytest.mark.parametrize("found", ["CHR1:1-2", "chr1-1-2", "chr1_1_2"])
def test_missing_features_in_another_spelling_are_recognized(found):
    match = f"in another spelling, .*: `{found}` for `chr1:1-2`"
    with pytest.raises(ValueError, match=match):
        check_feature_names(["chr1:1-2", "x"], [found, "x"], modality="atac")


def test_duplicated_features_of_new_data_are_refused():
    with pytest.raises(ValueError, match="each once, but 1 names are duplicated: `a`"):
        check_feature_names(["a", "b"], ["a", "a", "b"], modality="rna")


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ([3, 0], [3, 0]),
        (np.array([1], dtype="uint8"), [1]),
        ([True, False, False, True], [0, 3]),
        (pd.Series([False, True, True, False]), [1, 2]),
        (range(2), [0, 1]),
    ],
)
def test_indices_become_positions(indices, expected):
    positions = check_indices(indices, 4)
    assert positions.tolist() == expected
    assert positions.dtype == np.int64


@pytest.mark.parametrize(
    ("indices", "error", "match"),
    [
        ([-1, 2], ValueError, "between 0 and 3, got values from -1 to 2"),
        ([0, 4], ValueError, "between 0 and 3, got values from 0 to 4"),
        ([True, False], ValueError, r"one value per cell \(4\), got 2"),
        ([], ValueError, "at least one cell, got none"),
        ([False] * 4, ValueError, "at least one cell, got none"),
        ([[0, 1]], ValueError, r"one-dimensional, got shape \(1, 2\)"),
        ([0.0, 1.0], TypeError, "integers or a boolean mask, got dtype float64"),
        (["cell0"], TypeError, r"For cell names, pass `mdata\.obs_names\.get_indexer"),
    ],
)
def test_indices_that_choose_no_cells_are_refused(indices, error, match):
    with pytest.raises(error, match=match):
        check_indices(indices, 4)


def test_names_become_positions_in_the_order_asked_for(rng):
    available = np.array([f"gene{i}" for i in range(50)])
    requested = rng.permutation(available)[:20]
    positions = check_names(requested, available, argument="gene_list")
    assert positions.tolist() == [list(available).index(name) for name in requested]


def test_unknown_names_are_counted_with_near_matches():
    match = "2 of 3 names are unknown: `CD3X`, `zzz`. Did you mean `CD3E`?"
    with pytest.raises(KeyError, match=match):
        check_names(["CD3X", "MS4A1", "zzz"], ["CD3E", "MS4A1"], argument="gene_list")


@pytest.mark.parametrize("asked", ["chr7-40000-40500", "CHR7:40000-40500", "chr7:40000-40501"])
def test_near_match_is_found_among_very_many_regions(asked):
    regions = [f"chr{i % 22}:{1000 * i}-{1000 * i + 500}" for i in range(20_000)]
    regions.append("chr7:40000-40500")
    with pytest.raises(KeyError, match="Did you mean `chr7:40000-40500`"):
        check_names([asked], regions, argument="region_list")


@pytest.mark.parametrize(
    ("requested", "error", "match"),
    [
        ("CD3E", TypeError, r'must be a list of names, got a string: \["CD3E"\]'),
        ([], ValueError, "at least one name. Pass None for all"),
        (["a", "b", "a"], ValueError, "each name once, got `a` again"),
    ],
)
def test_name_lists_that_make_no_sense_are_refused(requested, error, match):
    with pytest.raises(error, match=match):
        check_names(requested, ["a", "b"], argument="gene_list")


# --- real data ---------------------------------------------------------------------------------


@pytest.fixture
def read_real():
    """Return a function that reads a real data set, or skips the test."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SCMVP_DATA", default))

    def read(name):
        if not (folder / name).exists():
            pytest.skip(f"{name} is not in {folder}: set SCMVP_DATA to the folder that has it")
        return mudata.read_h5mu(folder / name)

    return read


def test_half_counts_of_sci_car_are_warned_about_with_their_number(read_real):
    layer = read_real("scicar_kidney_sample.h5mu")["atac"].layers["fractional"]
    values = layer.toarray()
    n_half, n_nonzero = (values % 1 == 0.5).sum(), (values != 0).sum()
    assert n_half > 0
    with pytest.warns(UserWarning, match=rf"{n_half} of {n_nonzero} .* all of them half counts"):
        check_counts(layer, argument="atac_layer", modality="atac", layer="fractional")


def test_tiny_multiome_has_19_cells_empty_in_atac_and_none_in_both(read_real):
    mdata = read_real("pbmc_multiome_tiny.h5mu")
    check_paired(mdata, "rna", "atac")
    with pytest.warns(UserWarning, match="no counts in `atac`") as caught:
        atac_empty, _ = warn_about_empty(mdata["atac"].X, modality="atac")
    assert str(caught[0].message).startswith("19 of 1000 cells have no counts in `atac`")
    rna_empty, _ = warn_about_empty(mdata["rna"].X, modality="rna")
    assert atac_empty.tolist() == (mdata["atac"].X.toarray().sum(axis=1) == 0).tolist()
    check_no_cell_is_empty_in_both(rna_empty, atac_empty, cell_names=mdata.obs_names)
