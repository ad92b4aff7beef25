"""Registration end to end: what `setup_mudata` refuses, registers, and leaves alone."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData, read_h5ad
from mudata import MuData

from scmvp_scvi import SCMVPModel
from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._mudata import without_pulling

N_CELLS, N_GENES, N_PEAKS = 60, 20, 30


@pytest.fixture
def raw(make_mdata) -> MuData:
    """Data that no test has registered."""
    return make_mdata(n_cells=N_CELLS, n_genes=N_GENES, n_peaks=N_PEAKS, n_types=2)


def rebuilt(rna, atac, obs: pd.DataFrame | None = None) -> MuData:
    """Build a MuData that leaves the columns of its modalities where they are."""
    with without_pulling():
        return MuData({"rna": rna, "atac": atac}, **({} if obs is None else {"obs": obs}))


def manager_of(mdata: MuData):
    return SCMVPModel(mdata, n_hidden=8).adata_manager


def registered(mdata: MuData, key: str) -> np.ndarray:
    values = manager_of(mdata).get_from_registry(key)
    return values.toarray() if sp.issparse(values) else np.asarray(values)


# -- the object -----------------------------------------------------------------------------------


def test_anndata_is_refused_with_the_way_to_build_a_mudata(raw, register):
    with pytest.raises(TypeError, match=r"must be a MuData .* got an AnnData\. Build one"):
        register(raw["rna"])


def test_setup_anndata_is_refused_with_the_way_to_build_a_mudata(raw):
    with pytest.raises(TypeError, match=r"must be a MuData .* got an AnnData\. Build one"):
        SCMVPModel.setup_anndata(raw["rna"])


def test_setup_anndata_of_a_mudata_names_setup_mudata(raw):
    with pytest.raises(TypeError, match=r"call `SCMVPModel\.setup_mudata`"):
        SCMVPModel.setup_anndata(raw)


def test_view_is_refused_with_the_copy_to_make(raw, register):
    with pytest.raises(ValueError, match=r"must not be a view.*Run `mdata = mdata\.copy\(\)`"):
        register(raw[:10])


def test_layers_are_in_the_modalities_of_their_name_unless_told_otherwise(raw, small):
    SCMVPModel.setup_mudata(raw)
    arguments = SCMVPModel(raw, **small).registry["setup_args"]
    assert arguments["modalities"] == {"rna_layer": "rna", "atac_layer": "atac"}
    np.testing.assert_array_equal(registered(raw, REGISTRY.RNA), raw["rna"].X.toarray())
    np.testing.assert_array_equal(registered(raw, REGISTRY.ATAC), raw["atac"].X.toarray())


def test_modalities_of_other_names_must_be_told(raw):
    with without_pulling():
        renamed = MuData({"gex": raw["rna"], "peaks": raw["atac"]})
    with pytest.raises(ValueError, match="which modality holds rna_layer and atac_layer"):
        SCMVPModel.setup_mudata(renamed)
    with pytest.raises(ValueError, match=r"holds atac_layer\..*`modalities=\{\"atac_layer"):
        SCMVPModel.setup_mudata(renamed, modalities={"rna_layer": "gex"})


def test_genes_and_peaks_in_each_others_place_are_refused_and_the_way_out_swaps_them(raw):
    with without_pulling():
        swapped = MuData({"rna": raw["atac"], "atac": raw["rna"]})
    match = r"`rna_layer`: `mdata\[\"rna\"\]` must be the modality of the genes, but its features"
    with pytest.raises(ValueError, match=match) as error:
        SCMVPModel.setup_mudata(swapped)
    (way_out,) = re.findall("Swap them: `modalities=(.*)`", str(error.value))
    SCMVPModel.setup_mudata(swapped, modalities=eval(way_out))
    np.testing.assert_array_equal(registered(swapped, REGISTRY.RNA), raw["rna"].X.toarray())


def test_misspelled_modality_is_refused_with_the_near_name(raw, register):
    with pytest.raises(KeyError, match=r"maps `atac_layer` to `atak`.* Did you mean `atac`"):
        register(raw, modalities={"rna_layer": "rna", "atac_layer": "atak"})


def test_unknown_arguments_are_refused_before_the_data_are_looked_at(raw, register):
    raw["rna"].X.data[:] = -1  # which would be refused
    modalities = {"rna_layer": "rna", "atac_layer": "atac", "bach_key": "rna"}
    with pytest.raises(TypeError, match="`bach_key`. Did you mean `batch_key`"):
        register(raw, modalities=modalities)
    with pytest.raises(TypeError, match="no argument `size_factor_key`. Did you mean .*_size_fac"):
        register(raw, size_factor_key="depth")


def test_arguments_of_the_model_are_sent_to_it(raw, register):
    with pytest.raises(TypeError, match=r"`n_latent`: it is one of `SCMVPModel\(mdata, n_latent="):
        register(raw, n_latent=10)


def test_one_modality_for_both_layers_is_refused(raw, register):
    with pytest.raises(ValueError, match="different modalities, got `rna` for both"):
        register(raw, modalities={"rna_layer": "rna", "atac_layer": "rna"})


def test_misspelled_layer_is_refused_with_the_near_name(raw, register):
    raw["rna"].layers["counts"] = raw["rna"].X
    with pytest.raises(KeyError, match=r"`rna_layer=\"count\"` is not a layer.*mean `counts`"):
        register(raw, rna_layer="count")


# -- cells ----------------------------------------------------------------------------------------


def test_permuted_cells_of_one_modality_are_refused(raw, register, rng):
    order = rng.permutation(N_CELLS)
    mdata = rebuilt(raw["rna"], raw["atac"][order].copy())
    with pytest.raises(ValueError, match=r"hold the same 60 cells in different orders"):
        register(mdata)


def test_cells_in_the_order_the_message_gives_are_accepted(raw, register, rng):
    permuted = rebuilt(raw["rna"], raw["atac"][rng.permutation(N_CELLS)].copy())
    in_order = rebuilt(raw["rna"], permuted["atac"][raw.obs_names].copy())
    np.testing.assert_array_equal(
        registered(register(in_order), REGISTRY.ATAC), raw["atac"].X.toarray()
    )


def test_unpaired_cells_are_refused_with_their_number(raw, register):
    mdata = rebuilt(raw["rna"][:50].copy(), raw["atac"][10:].copy())
    with pytest.raises(
        ValueError, match=r"of the 60 cells.* 10 are missing in `rna` and 10 in `atac`"
    ):
        register(mdata)


def test_data_without_a_cell_are_refused_without_advice_on_their_features(raw, register):
    # warnings are errors here
    with pytest.raises(ValueError, match="`rna` must have at least one cell, got none"):
        register(raw[:0].copy())


def test_cells_empty_in_one_modality_are_kept_with_a_warning(make_mdata, register):
    mdata = make_mdata(missing_atac=0.1)
    with pytest.warns(UserWarning, match="30 of 300 cells have no counts in `atac`"):
        register(mdata)


def test_cells_empty_in_both_modalities_are_refused(raw, register):
    for modality in ("rna", "atac"):
        matrix = raw[modality].X.toarray()
        matrix[3] = 0
        raw[modality].X = matrix
    with (
        pytest.warns(UserWarning, match="1 of 60 cells have no counts"),
        pytest.raises(ValueError, match=rf"1 have none in either: `{raw.obs_names[3]}`"),
    ):
        register(raw)


# -- counts ---------------------------------------------------------------------------------------


def test_csr_array_is_refused_with_the_conversion(raw, register):
    raw["atac"].X = sp.csr_array(raw["atac"].X)
    with pytest.raises(TypeError, match=r"is a csr_array.*scipy\.sparse\.csr_matrix"):
        register(raw)


def test_negative_values_are_refused(raw, register):
    raw["rna"].X = raw["rna"].X.toarray() - 1
    with pytest.raises(ValueError, match=r"negative values, down to -1: the data look scaled"):
        register(raw)


def test_log_normalized_rna_is_refused_and_the_layer_of_counts_named(raw, register):
    raw["rna"].layers["counts"] = raw["rna"].X.copy()
    raw["rna"].X = raw["rna"].X.multiply(0.37).log1p().tocsr()
    with pytest.raises(ValueError, match=r"look log-normalized.*pass `rna_layer=\"counts\"`"):
        register(raw)


def test_tfidf_is_refused(raw, register):
    counts = raw["atac"].X
    idf = N_CELLS / counts.sum(0).A1
    raw["atac"].X = counts.multiply(1 / counts.sum(1)).multiply(idf).tocsr()
    with pytest.raises(ValueError, match=r"`atac_layer`.*not integers.*TF-IDF"):
        register(raw)


def test_few_half_counts_are_accepted_with_a_warning(raw, register):
    raw["atac"].X.data[0] += 0.5
    with pytest.warns(UserWarning, match=r"1 of \d+ non-zero values.* half counts \(n \+ 0\.5\)"):
        register(raw)


def test_nan_counts_are_refused(raw, register):
    raw["rna"].X.data[5] = np.nan
    with pytest.raises(ValueError, match="1 values are NaN or infinite"):
        register(raw)


def test_features_without_counts_are_kept_with_a_warning(raw, register):
    matrix = raw["rna"].X.toarray()
    matrix[:, 4] = 0
    raw["rna"].X = matrix
    with pytest.warns(UserWarning, match="1 of 20 features have no counts in `rna`"):
        register(raw)


@pytest.mark.filterwarnings(
    "ignore:Training will be faster when sparse matrix is:UserWarning:scvi"
)
@pytest.mark.parametrize("kind", ["csc", "dense", "int"])
def test_every_kind_of_matrix_gives_the_same_latent(raw, register, train, kind):
    expected = train(register(raw.copy()), max_epochs=1).get_latent_representation()
    convert = {
        "csc": sp.csc_matrix,
        "dense": lambda x: x.toarray(),
        "int": lambda x: x.astype(int),
    }
    for modality in ("rna", "atac"):
        raw[modality].X = convert[kind](raw[modality].X)
    latent = train(register(raw), max_epochs=1).get_latent_representation()
    np.testing.assert_array_equal(latent, expected)


# -- columns --------------------------------------------------------------------------------------


def test_missing_batch_is_refused(raw, register):
    raw.obs["batch"] = raw.obs["batch"].where(raw.obs_names != raw.obs_names[2])
    with pytest.raises(ValueError, match=r"`batch_key`: the column \"batch\".* 1 of 60"):
        register(raw, batch_key="batch")


def test_batch_in_the_table_of_a_modality_is_refused_with_its_place(raw, register):
    raw["rna"].obs["donor"] = "a"
    with pytest.raises(KeyError, match=r"not a column of `mdata\.obs`, but of `mdata\[\"rna\"\]"):
        register(raw, batch_key="donor")


def test_batch_in_the_table_of_a_modality_is_read_from_where_modalities_says(raw, register):
    raw["rna"].obs["donor"] = np.arange(N_CELLS) % 3
    modalities = {"rna_layer": "rna", "atac_layer": "atac", "batch_key": "rna"}
    register(raw, modalities=modalities, batch_key="donor")
    np.testing.assert_array_equal(registered(raw, REGISTRY.BATCH)[:, 0], np.arange(N_CELLS) % 3)


def test_batch_key_that_is_nowhere_is_refused_with_the_near_name(raw, register):
    with pytest.raises(KeyError, match=r"`batch_key=\"bacth\"`.*Did you mean `batch`"):
        register(raw, batch_key="bacth")


def test_size_factor_of_zero_is_refused(raw, register):
    raw.obs["depth"] = np.arange(N_CELLS)
    with pytest.raises(ValueError, match=r"`rna_size_factor_key`.* 1 of 60 values are not"):
        register(raw, rna_size_factor_key="depth")


def test_missing_continuous_covariate_is_refused(raw, register):
    raw.obs["age"] = np.where(np.arange(N_CELLS) == 0, np.nan, 1.0)
    with pytest.raises(ValueError, match=r"`continuous_covariate_keys`.*must be finite, but 1"):
        register(raw, continuous_covariate_keys=["age"])


def test_missing_categorical_covariate_is_refused(raw, register):
    raw.obs["sex"] = pd.Categorical.from_codes([-1, *[0] * (N_CELLS - 1)], ["f"])
    with pytest.raises(ValueError, match=r"`categorical_covariate_keys`.* 1 of 60 are missing"):
        register(raw, categorical_covariate_keys=["sex"])


def test_modalities_that_are_no_mapping_are_refused(raw):
    for given in ("rna", ["rna", "atac"]):
        with pytest.raises(TypeError, match=r"`modalities` must map .*`rna`, `atac`"):
            SCMVPModel.setup_mudata(raw, modalities=given)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_data_without_a_paired_cell_are_refused_at_the_set_up(raw, register):
    for key, rows in (("rna", slice(0, 30)), ("atac", slice(30, N_CELLS))):
        matrix = raw[key].X.toarray()
        matrix[rows] = 0
        raw[key].X = sp.csr_matrix(matrix)
    with pytest.raises(ValueError, match=r"must have counts in both .* none of the 60 has"):
        register(raw)


def on_disk(mdata: MuData, folder, convert) -> MuData:
    """Put the modalities of a MuData in memory on disk."""
    modalities = {}
    for key, adata in mdata.mod.items():
        stored = AnnData(convert(adata.X), obs=adata.obs[[]], var=adata.var[[]])
        stored.write_h5ad(folder / f"{key}.h5ad")
        modalities[key] = read_h5ad(folder / f"{key}.h5ad", backed="r")
    return rebuilt(modalities["rna"], modalities["atac"])


def test_dense_modality_on_disk_is_refused_with_the_way_to_read_it(raw, register, tmp_path):
    mdata = on_disk(raw, tmp_path, lambda counts: counts.toarray())
    with pytest.raises(TypeError, match=r"`rna_layer`.* dense matrix on disk.*to_memory\(\)`"):
        register(mdata)
    for key in ("rna", "atac"):
        mdata.mod[key] = mdata[key].to_memory()
    np.testing.assert_array_equal(registered(register(mdata), "X"), raw["rna"].X.toarray())


def test_sparse_modalities_on_disk_say_what_cannot_be_read_of_them(raw, register, train, tmp_path):
    model = train(register(raw), max_epochs=1)
    mdata = on_disk(raw, tmp_path, sp.csr_matrix)
    found = model.get_latent_representation(mdata, indices=[3, 5])
    np.testing.assert_allclose(found, model.get_latent_representation(indices=[3, 5]), atol=1e-5)
    with pytest.raises(ValueError, match="`indices` must ascend"):
        model.get_latent_representation(mdata, indices=[5, 3])
    with pytest.raises(ValueError, match="`adata` is a view of data on disk"):
        model.get_latent_representation(mdata[:5])


# -- what is registered ---------------------------------------------------------------------------


def test_counts_are_registered_from_layers(raw, register):
    for modality in ("rna", "atac"):
        raw[modality].layers["raw"] = raw[modality].X.copy()
        raw[modality].X = raw[modality].X * 0.3
    register(raw, rna_layer="raw", atac_layer="raw")
    np.testing.assert_array_equal(
        registered(raw, REGISTRY.RNA), raw["rna"].layers["raw"].toarray()
    )
    np.testing.assert_array_equal(
        registered(raw, REGISTRY.ATAC), raw["atac"].layers["raw"].toarray()
    )


def test_modalities_are_found_by_name_whatever_their_order(raw, register):
    with without_pulling():
        reversed_order = MuData({"atac": raw["atac"], "rna": raw["rna"]})
    register(reversed_order)
    np.testing.assert_array_equal(registered(reversed_order, "X"), raw["rna"].X.toarray())
    np.testing.assert_array_equal(registered(reversed_order, "atac"), raw["atac"].X.toarray())


def test_modalities_may_have_any_name(raw, register):
    with without_pulling():
        renamed = MuData({"GEX": raw["rna"], "peaks": raw["atac"]})
    register(renamed, modalities={"rna_layer": "GEX", "atac_layer": "peaks"})
    assert SCMVPModel(renamed, n_hidden=8).summary_stats["n_atac"] == N_PEAKS


def test_further_modalities_are_left_out(raw, register):
    with without_pulling():
        adt = raw["rna"][:, :3].copy()
        adt.var_names = ["CD3", "CD4", "CD8"]
        three = MuData({"adt": adt, "rna": raw["rna"], "atac": raw["atac"]})
    stats = SCMVPModel(register(three), n_hidden=8).summary_stats
    assert (stats["n_vars"], stats["n_atac"]) == (N_GENES, N_PEAKS)


def test_further_modality_may_lack_cells(raw, register, train):
    with without_pulling():
        adt = raw["rna"][::2, :3].copy()
        adt.var_names = ["CD3", "CD4", "CD8"]
        three = MuData({"rna": raw["rna"], "atac": raw["atac"], "adt": adt})
    model = train(register(three), max_epochs=1)
    assert model.get_latent_representation().shape[0] == raw.n_obs
    assert len(model.get_latent_representation(three.copy())) == raw.n_obs


def test_lists_of_the_caller_are_not_those_of_the_set_up(raw, small):
    raw.obs["donor"] = "a"
    covariates, where = ["donor"], {"rna_layer": "rna", "atac_layer": "atac"}
    SCMVPModel.setup_mudata(raw, categorical_covariate_keys=covariates, modalities=where)
    covariates.append("sex")
    where.clear()
    arguments = SCMVPModel(raw, **small).registry["setup_args"]
    assert arguments["categorical_covariate_keys"] == ["donor"]
    assert arguments["modalities"] == {"rna_layer": "rna", "atac_layer": "atac"}


def test_batches_are_registered_as_codes(raw, register):
    register(raw, batch_key="batch")
    codes = registered(raw, REGISTRY.BATCH)[:, 0]
    np.testing.assert_array_equal(codes, raw.obs["batch"].cat.codes)


def test_labels_are_registered_as_codes(raw, register):
    register(raw, labels_key="cell_type")
    codes = registered(raw, REGISTRY.LABELS)[:, 0]
    np.testing.assert_array_equal(codes, raw.obs["cell_type"].cat.codes)


def test_size_factors_are_registered_for_each_modality(raw, register, rng):
    raw.obs["sizes"], raw.obs["fragments"] = rng.uniform(1, 2, (2, N_CELLS))
    register(raw, rna_size_factor_key="sizes", atac_size_factor_key="fragments")
    rna, atac = (
        registered(raw, key)[:, 0] for key in (REGISTRY.RNA_SIZE_FACTOR, REGISTRY.ATAC_SIZE_FACTOR)
    )
    np.testing.assert_array_equal(rna, raw.obs["sizes"])
    np.testing.assert_array_equal(atac, raw.obs["fragments"])


def test_covariates_are_registered_in_the_order_asked_for(raw, register, rng):
    raw.obs["sex"], raw.obs["site"] = np.arange(N_CELLS) % 2, np.arange(N_CELLS) % 3
    raw.obs["age"], raw.obs["dose"] = rng.normal(size=(2, N_CELLS))
    register(
        raw,
        categorical_covariate_keys=["site", "sex"],
        continuous_covariate_keys=["dose", "age"],
    )
    categorical = registered(raw, REGISTRY.CATEGORICAL_COVARIATES)
    np.testing.assert_array_equal(categorical, raw.obs[["site", "sex"]])
    continuous = registered(raw, REGISTRY.CONTINUOUS_COVARIATES)
    np.testing.assert_array_equal(continuous, raw.obs[["dose", "age"]])


# -- what is left alone ---------------------------------------------------------------------------


def test_registration_leaves_matrices_and_cells_as_they_were(raw, register):
    matrices = {key: raw[key].X for key in ("rna", "atac")}
    bytes_before = {key: x.data.tobytes() + x.indices.tobytes() for key, x in matrices.items()}
    cells = raw.obs_names.copy()
    register(raw, batch_key="batch", labels_key="cell_type")
    for key, x in matrices.items():
        assert raw[key].X is x
        assert x.data.tobytes() + x.indices.tobytes() == bytes_before[key]
    assert raw.obs_names.equals(cells)


def test_registration_adds_nothing_but_its_own_columns(raw, register):
    columns = {key: table.obs.columns for key, table in (("", raw), *raw.mod.items())}
    obs = raw.obs.copy()
    register(raw, batch_key="batch", labels_key="cell_type")
    for key, table in (("", raw), *raw.mod.items()):
        assert all(
            name.startswith("_scvi_") for name in table.obs.columns.difference(columns[key])
        )
    pd.testing.assert_frame_equal(raw.obs[obs.columns], obs)


def test_training_and_embedding_leave_sparse_counts_sparse(raw, register, train, monkeypatch):
    whole = {(N_CELLS, N_GENES), (N_CELLS, N_PEAKS)}
    toarray, densified = sp.csr_matrix.toarray, []

    def watched(matrix, *args, **kwargs):
        densified.append(matrix.shape)
        return toarray(matrix, *args, **kwargs)

    monkeypatch.setattr(sp.csr_matrix, "toarray", watched)
    train(register(raw), max_epochs=1, batch_size=16).get_latent_representation(batch_size=16)
    assert whole.isdisjoint(densified)
    assert sp.issparse(raw["rna"].X)


def test_registration_leaves_the_global_generators_alone(raw, register):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    register(raw, batch_key="batch")
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
