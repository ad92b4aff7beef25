"""Minified data: everything that a model says without counts is what it said with them."""

import warnings

import mudata
import numpy as np
import pandas as pd
import pytest
from mudata import MuData

from scmvp_scvi import SCMVPModel, tl
from scmvp_scvi._minified import MINIFIED, is_minified
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi.nn._calibration import CalibrationFit

# a variance that is stored, rooted and squared again comes back to single precision
CLOSE = {"rtol": 2e-6, "atol": 0}


def answers(model: SCMVPModel, adata: MuData | None = None) -> dict[str, np.ndarray]:
    """What a model says without counts, by a name for the message."""
    mean, variance = model.get_latent_representation(adata, return_dist=True)
    found = {
        "latent mean": mean,
        "latent variance": variance,
        "cluster probabilities": model.get_cluster_probabilities(adata).to_numpy(),
        "clusters": model.predict_clusters(adata).cat.codes.to_numpy(),
    }
    for name in ("expression", "accessibility"):
        denoise = getattr(model, f"get_normalized_{name}")
        for size in (1, 1e4, "observed"):
            with warnings.catch_warnings():  # of cells without counts, and so without a depth
                warnings.filterwarnings("ignore", '`library_size="observed"` has no depth')
                found[f"{name}, library {size}"] = denoise(adata, library_size=size).to_numpy()
        batches = ["batch_1", "batch_0"]
        moved = denoise(adata, transform_batch=batches, from_modality="joint")
        found[f"{name} in other batches"] = moved.to_numpy()
    for size in (None, "observed"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", '`library_size="observed"` has no depth')
            logs = model.get_log_normalized_expression(adata, library_size=size)
        found[f"log-normalised expression, library {size}"] = logs.to_numpy()
    return found


def assert_same_answers(found, expected):
    assert list(found) == list(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], **CLOSE, err_msg=name)


def counts_of(mdata: MuData) -> list[np.ndarray]:
    return [mdata[key].X.toarray() for key in ("rna", "atac")]


SETUPS = {
    "batches": ({}, {}, {}),
    "size factors and covariates": (
        {},
        {
            "rna_size_factor_key": "size",
            "atac_size_factor_key": "size",
            "categorical_covariate_keys": ["half"],
            "continuous_covariate_keys": ["size"],
        },
        {"dispersion": "gene-batch", "encode_covariates": True, "center_batches": True},
    ),
    "labels": ({}, {"labels_key": "cell_type"}, {"dispersion": "gene-label", "n_clusters": None}),
    "tf-idf": ({}, {}, {"atac_target": "tfidf"}),
    "empty modalities": ({"missing_rna": 0.1, "missing_atac": 0.1}, {}, {}),
    "layers": ({}, {"rna_layer": "counts", "atac_layer": "counts"}, {}),
}


@pytest.fixture(scope="module", params=SETUPS.values(), ids=SETUPS)
def case(request, make_mdata, register, train):
    """A model that has just been minified, its data, and what it said before."""
    data, setup, architecture = request.param
    mdata = make_mdata(n_cells=120, n_genes=30, n_peaks=60, **data)
    mdata.obs["size"] = np.random.default_rng(0).uniform(0.5, 2, mdata.n_obs)
    mdata.obs["half"] = np.where(np.arange(mdata.n_obs) % 2, "odd", "even")
    for adata in mdata.mod.values():
        adata.layers["counts"] = adata.X.copy()
    if data:
        with pytest.warns(UserWarning, match="have no counts in"):
            register(mdata, batch_key="batch", **setup)
    else:
        register(mdata, batch_key="batch", **setup)
    model = train(mdata, max_epochs=2, batch_size=32, architecture=architecture)
    for calibration in model.module.calibrations.values():  # which takes more cells
        calibration.copy_fit(CalibrationFit(0.4, np.full(5, 0.2), np.full(5, -0.5), 1.3))
    before = answers(model)
    model.minify_mudata()
    return model, mdata, before


@pytest.fixture(scope="module")
def plain(make_mdata, register, train):
    """A minified model, and the data with counts it was given."""
    mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
    model = train(mdata, max_epochs=2, batch_size=32)
    model.minify_mudata()
    return model, mdata


# -- what stays the same --------------------------------------------------------------------------


def test_minified_model_answers_as_before(case):
    model, _, before = case
    assert_same_answers(answers(model), before)


def test_minified_model_that_was_saved_and_loaded_answers_as_before(case, tmp_path):
    model, _, before = case
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCMVPModel.load(tmp_path / "model")
    assert loaded.minified_data_type == loaded.module.minified_data_type == MINIFIED
    assert_same_answers(answers(loaded), before)


def test_embeddings_of_minified_cells_differ(plain):
    latent = plain[0].get_latent_representation()
    assert len(np.unique(latent, axis=0)) == len(latent)


def test_draws_of_minified_cells_have_the_stored_mean_and_variance(plain):
    model, _ = plain
    mean, variance = model.get_latent_representation(return_dist=True)
    draws = np.stack([model.get_latent_representation(give_mean=False) for _ in range(200)])
    error = (draws.mean(0) - mean) / np.sqrt(variance / 200)
    assert abs(error).max() < 5
    assert (draws.var(0).mean(0) / variance.mean(0)) == pytest.approx(1, abs=0.1)


def test_counts_drawn_for_minified_cells_have_the_depth_of_their_cell(plain):
    model, mdata = plain
    drawn = model.posterior_predictive_sample(n_samples=100)
    for key in ("rna", "atac"):
        depth = np.asarray(mdata[key].X.sum(1)).ravel()
        per_cell = drawn[key].sum(axis=1).mean(axis=-1).todense()
        assert np.corrcoef(per_cell, depth)[0, 1] > 0.95


def test_minified_model_compares_abundance_and_correlates_genes(plain):
    model, _ = plain
    assert np.isfinite(model.differential_abundance(sample_key="batch")).all(axis=None)
    assert model.get_feature_correlation_matrix(n_samples=2).shape == (30, 30)


def test_cells_of_minified_data_can_be_taken_out(plain):
    model, _ = plain
    some = model.adata[10:30].copy()
    expected = model.get_normalized_accessibility(indices=np.arange(10, 30))
    pd.testing.assert_frame_equal(model.get_normalized_accessibility(some), expected)


# -- the data -------------------------------------------------------------------------------------


def test_data_given_to_the_model_keep_their_counts(make_mdata, register, train):
    mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
    before, columns, keys = counts_of(mdata), list(mdata.obs), set(mdata.obsm)
    model = train(mdata, max_epochs=1)
    model.minify_mudata()
    assert model.adata is not mdata
    assert not is_minified(mdata)
    assert (list(mdata.obs), set(mdata.obsm)) == (columns, keys)
    for counts, expected in zip(counts_of(mdata), before, strict=True):
        np.testing.assert_array_equal(counts, expected)


def test_minified_data_keep_annotations_and_other_modalities(make_mdata, register, train):
    with without_pulling():
        paired = make_mdata(n_cells=120, n_genes=30, n_peaks=60)
        protein = paired["rna"][:, :3].copy()
        protein.var_names = ["CD3", "CD4", "CD8"]
        mdata = MuData({**paired.mod, "protein": protein}, obs=paired.obs)
    mdata["rna"].raw = mdata["rna"]
    mdata["rna"].layers["scaled"] = mdata["rna"].X.toarray()
    mdata["atac"].obsm["X_lsi"] = np.ones((120, 2))
    mdata.uns["colors"] = {"a": "red"}
    mdata.obs["whole"] = np.arange(120.0)  # mudata would make integers of them
    mdata.obs["missing"] = np.where(np.arange(120) < 3, np.nan, 1.0)
    model = train(register(mdata, batch_key="batch"), max_epochs=1)
    model.minify_mudata()
    small = model.adata
    pd.testing.assert_frame_equal(small.obs[mdata.obs.columns], mdata.obs)
    pd.testing.assert_frame_equal(small["atac"].var, mdata["atac"].var)
    np.testing.assert_array_equal(small["atac"].obsm["X_lsi"], mdata["atac"].obsm["X_lsi"])
    np.testing.assert_array_equal(small["protein"].X.toarray(), protein.X.toarray())
    assert small.uns["colors"] == {"a": "red"}
    assert small["rna"].X.nnz == small["rna"].layers["scaled"].nnz == small["atac"].X.nnz == 0
    assert small["rna"].raw is None


def test_slices_of_minified_data_are_of_the_cells_asked_for(make_mdata, register, train):
    """With a first modality that lacks cells, and that mudata would have the cells ordered by."""
    with without_pulling():
        paired = make_mdata(n_cells=120, n_genes=30, n_peaks=60)
        protein = paired["rna"][60:, :3].copy()
        protein.var_names = ["CD3", "CD4", "CD8"]
        names = list(paired.obs_names)
        mdata = MuData({"protein": protein, **paired.mod}, obs=paired.obs)[names].copy()
        model = train(register(mdata), max_epochs=1)
        latent = model.get_latent_representation()
        model.minify_mudata()
        some = [names[i] for i in (3, 70, 119)]
        part = model.adata[some].copy()
    assert list(part.obs_names) == list(part["rna"].obs_names) == some
    np.testing.assert_allclose(
        model.get_latent_representation(part), latent[[3, 70, 119]], **CLOSE
    )


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
@pytest.mark.parametrize("protein_names", [["CD3", "CD4"], ["gene_7", "gene_3"]])
def test_features_of_minified_data_are_found_where_they_are_not_in_the_order_of_modalities(
    make_mdata, register, train, protein_names
):
    with without_pulling():
        paired = make_mdata(n_cells=120, n_genes=30, n_peaks=60)
        protein = paired["rna"][:, :2].copy()
        protein.var_names = protein_names
        mdata = MuData({**paired.mod, "protein": protein}, obs=paired.obs)
        mdata["rna"].var_names = ["gene_new", *mdata["rna"].var_names[1:]]
        mdata.update()  # which leaves the others where they were
        assert mdata.var_names[-1] == "gene_new"
        mdata.var["row"] = np.arange(mdata.n_vars)
        model = train(register(mdata, batch_key="batch"), max_epochs=1)
        model.minify_mudata()
    small = model.adata
    pd.testing.assert_frame_equal(small.var, mdata.var)
    some = mdata.n_vars - np.arange(1, mdata.n_vars, 7)
    for key, adata in mdata.mod.items():
        np.testing.assert_array_equal(small.varmap[key], mdata.varmap[key])
        assert list(small[:, some][key].var_names) == list(mdata[:, some][key].var_names)
        assert list(small[key].var_names) == list(adata.var_names)


def test_other_modality_on_disk_is_read_into_the_minified_data(
    make_mdata, register, train, tmp_path
):
    with without_pulling():
        paired = make_mdata(n_cells=120, n_genes=30, n_peaks=60)
        protein = paired["rna"][:, :2].copy()
        protein.var_names = ["CD3", "CD4"]
        MuData({**paired.mod, "protein": protein}, obs=paired.obs).write(tmp_path / "data.h5mu")
        mdata = mudata.read_h5mu(tmp_path / "data.h5mu", backed="r")
        model = train(register(mdata, batch_key="batch"), max_epochs=1)
        latent = model.get_latent_representation()
        model.minify_mudata()
    assert not any(adata.isbacked for adata in model.adata.mod.values())
    assert (model.adata["protein"].X != protein.X).nnz == 0
    np.testing.assert_array_equal(model.get_latent_representation(), latent)
    assert (mdata["rna"].X[:] != paired["rna"].X).nnz == 0  # the file is open as before


def test_minified_file_is_smaller(plain, tmp_path):
    model, mdata = plain
    model.adata.write_h5mu(tmp_path / "small.h5mu")
    mdata.write_h5mu(tmp_path / "full.h5mu")
    small, full = ((tmp_path / f"{name}.h5mu").stat().st_size for name in ("small", "full"))
    assert small < full


# -- what needs counts ----------------------------------------------------------------------------

NEEDS_COUNTS = {
    "`get_elbo`": lambda model, adata: model.get_elbo(adata),
    "`get_reconstruction_error`": lambda model, adata: model.get_reconstruction_error(adata),
    "`get_marginal_ll`": lambda model, adata: model.get_marginal_ll(adata, n_mc_samples=2),
    '`modality="rna"`': lambda model, adata: model.get_latent_representation(
        adata, modality="rna"
    ),
    '`from_modality="atac"`': lambda model, adata: model.get_normalized_expression(
        adata, from_modality="atac"
    ),
    "`own_counts=True`": lambda model, adata: model.get_normalized_expression(
        adata, own_counts=True
    ),
    '`from_modality="rna"`': lambda model, adata: model.get_normalized_accessibility(
        adata, from_modality="rna"
    ),
    "`differential_expression`": lambda model, adata: model.differential_expression(
        adata, groupby="batch", n_samples_overall=10, silent=True
    ),
    "`differential_accessibility`": lambda model, adata: model.differential_accessibility(
        adata, groupby="batch", n_samples_overall=10, silent=True
    ),
}


@pytest.mark.parametrize("name", NEEDS_COUNTS)
def test_what_needs_counts_says_so_and_takes_them_as_argument(plain, make_mdata, name):
    model, mdata = plain
    with pytest.raises(ValueError, match=f"{name} needs the counts.*pass the data with counts"):
        NEEDS_COUNTS[name](model, None)
    for with_counts in (mdata, mdata.copy(), make_mdata(n_cells=120, n_genes=30, n_peaks=60)):
        assert NEEDS_COUNTS[name](model, with_counts) is not None


def test_loader_of_minified_data_is_refused_where_counts_are_needed(plain):
    model, _ = plain
    loader = model._make_data_loader(model.adata)
    with pytest.raises(ValueError, match="`get_elbo` needs the counts"):
        model.get_elbo(dataloader=loader)
    with pytest.raises(ValueError, match='`modality="atac"` needs the counts'):
        model.get_latent_representation(modality="atac", dataloader=loader)


def test_minified_model_embeds_data_with_counts_as_before(case):
    model, mdata, before = case
    assert_same_answers(answers(model, mdata), before)


def test_minified_model_trains_only_after_it_was_loaded_with_counts(plain, tmp_path, train_more):
    model, mdata = plain
    with pytest.raises(ValueError, match=r"`train` needs the counts.*load the saved model"):
        train_more(model)
    model.save(tmp_path / "model")
    loaded = SCMVPModel.load(tmp_path / "model", adata=mdata.copy())
    assert loaded.minified_data_type is None
    train_more(loaded, max_epochs=1)
    assert np.isfinite(float(loaded.get_elbo()))


def test_minified_model_loaded_without_data_embeds_data_with_counts(plain, tmp_path):
    model, mdata = plain
    model.save(tmp_path / "model")
    loaded = SCMVPModel.load(tmp_path / "model", adata=False)
    latent = loaded.get_latent_representation(mdata.copy())
    np.testing.assert_array_equal(latent, model.get_latent_representation())


def test_counts_are_let_go_of_and_may_come_back(make_mdata, register, train):
    mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
    model = train(mdata, max_epochs=1)
    elbo = float(model.get_elbo())
    model.minify_mudata()
    model.deregister_manager(mdata)
    assert model._manager_of(mdata) is None
    assert float(model.get_elbo(mdata)) == pytest.approx(elbo, rel=0.05)


# -- what is refused ------------------------------------------------------------------------------


def test_minified_data_of_another_model_are_refused(plain, trained_model):
    model, _ = plain
    with pytest.raises(ValueError, match="hold the posteriors of another model"):
        trained_model.get_latent_representation(model.adata)


def test_model_loaded_without_data_says_how_it_reads_the_data_that_it_minified(plain, tmp_path):
    model, _ = plain
    model.save(tmp_path / "model")
    loaded = SCMVPModel.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match="read by a model that was loaded with them"):
        loaded.get_latent_representation(model.adata.copy())


def test_minified_model_is_not_loaded_onto_the_minified_data_of_another(
    make_mdata, register, train, tmp_path
):
    minified = []
    for seed in (0, 1):
        mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
        model = train(mdata, seed=seed, max_epochs=1)
        model.minify_mudata()
        model.save(tmp_path / str(seed))
        minified.append(model.adata.copy())
    own = SCMVPModel.load(tmp_path / "0", adata=minified[0])
    np.testing.assert_array_equal(
        own.get_latent_representation(), minified[0].obsm["scmvp_latent_qzm"]
    )
    with pytest.raises(ValueError, match="hold the posteriors of another model"):
        SCMVPModel.load(tmp_path / "0", adata=minified[1])


def test_model_saved_with_counts_is_not_loaded_onto_minified_data(
    make_mdata, register, train, tmp_path
):
    mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
    model = train(mdata, max_epochs=1)
    model.save(tmp_path / "model")
    model.minify_mudata()
    with pytest.raises(ValueError, match="non-minified model with minified mudata"):
        SCMVPModel.load(tmp_path / "model", adata=model.adata.copy())


def test_minifying_twice_is_refused(plain):
    with pytest.raises(ValueError, match="`minify_mudata` needs the counts"):
        plain[0].minify_mudata()


def test_unknown_kind_of_minified_data_is_refused(trained_model):
    with pytest.raises(ValueError, match="`minified_data_type` must be one of"):
        trained_model.minify_mudata("latent_posterior_parameters_with_counts")


def test_model_that_was_not_trained_has_nothing_to_minify(mdata, small):
    with pytest.raises(RuntimeError, match="train"):
        SCMVPModel(mdata, **small).minify_mudata()


def test_model_without_data_has_nothing_to_minify(plain, tmp_path):
    plain[0].save(tmp_path / "model")
    loaded = SCMVPModel.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match="replaces the data of the model, which has none"):
        loaded.minify_mudata()


def test_minify_adata_points_to_minify_mudata(trained_model):
    with pytest.raises(TypeError, match="call `minify_mudata`"):
        trained_model.minify_adata()


def test_posterior_that_is_given_must_be_that_of_the_model(make_mdata, register, train):
    mdata = register(make_mdata(n_cells=120, n_genes=30, n_peaks=60), batch_key="batch")
    model = train(mdata, max_epochs=1)
    mean, variance = model.get_latent_representation(return_dist=True)
    mdata.obsm.update({"mean": mean, "variance": variance, "scale": np.sqrt(variance)})
    with pytest.raises(ValueError, match='_qzv_key="scale"` must hold the variance'):
        model.minify_mudata(use_latent_qzm_key="mean", use_latent_qzv_key="scale")
    with pytest.raises(KeyError, match='_qzm_key="meen"` is not in `mdata.obsm`.* `mean`'):
        model.minify_mudata(use_latent_qzm_key="meen")
    model.minify_mudata(use_latent_qzm_key="mean", use_latent_qzv_key="variance")
    np.testing.assert_array_equal(model.get_latent_representation(), mean)


def test_summary_says_whether_the_data_are_minified(plain, trained_model):
    assert "adata is minified?: True" in plain[0].summary_string
    assert "adata is minified?: False" in trained_model.summary_string


def test_links_and_means_of_counts_are_refused_on_minified_data(plain):
    model, _ = plain
    mdata = model.adata
    with pytest.raises(ValueError, match="`rna_layer`: .* Minified data no longer have counts"):
        tl.group_means(mdata, "cell_type", ["gene_0"], modality="rna")
    with pytest.raises(ValueError, match="`atac_layer`: .* Minified data no longer have counts"):
        tl.peak_gene_links(mdata, model=model, genes=["gene_0"], n_matched=20)
