"""The model as an object: its arguments, its default epochs, saving, loading and going on."""

import re
import warnings
from contextlib import suppress
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from mudata import MuData
from scipy import sparse
from scvi.model import SCVI
from scvi.model.base import UnsupervisedTrainingMixin

from scmvp_scvi import SCMVPModel
from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._size_rules import default_dropout_rate


def assert_same_outputs(model: SCMVPModel, other: SCMVPModel):
    for method in ("get_latent_representation", "get_cluster_probabilities"):
        np.testing.assert_array_equal(getattr(other, method)(), getattr(model, method)())
    for method in ("get_normalized_expression", "get_normalized_accessibility"):
        np.testing.assert_array_equal(getattr(other, method)(), getattr(model, method)())


@pytest.fixture(scope="module")
def own_mdata(make_mdata, register) -> MuData:
    """Data of this file: loading takes over their registration."""
    return register(make_mdata(), batch_key="batch")


@pytest.fixture(scope="module")
def model(own_mdata, train) -> SCMVPModel:
    return train(own_mdata, max_epochs=3)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    model.save(path, save_anndata=True)
    return path


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("n_latent", 0),
        ("n_heads", 0),
        ("max_clusters", 0),
        ("n_clusters", 0),
    ],
)
def test_number_below_one_is_refused(mdata, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be at least 1, got 0"):
        SCMVPModel(mdata, **{argument: value})


@pytest.mark.parametrize("argument", ["n_latent", "n_clusters", "n_heads"])
def test_number_that_is_no_integer_is_refused(mdata, argument):
    with pytest.raises(TypeError, match=rf"`{argument}` must be an integer, got 2\.0"):
        SCMVPModel(mdata, **{argument: 2.0})


@pytest.mark.parametrize("argument", ["dropout_rate", "rna_input_dropout", "atac_input_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_share_out_of_range_is_refused(mdata, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be at least 0 and below 1, got"):
        SCMVPModel(mdata, **{argument: value})


@pytest.mark.parametrize(
    "argument", ["self_attention", "dispersion", "atac_target", "batch_representation"]
)
def test_unknown_option_is_refused_with_the_known_ones(mdata, argument):
    with pytest.raises(ValueError, match=rf"`{argument}` must be one of '.*', got 'other'"):
        SCMVPModel(mdata, **{argument: "other"})


def test_heads_that_do_not_divide_the_width_are_refused(mdata):
    with pytest.raises(
        ValueError, match="`n_heads` must divide `n_hidden_atac`, got 3 heads .* 32"
    ):
        SCMVPModel(mdata, n_hidden_atac=32, n_heads=3)


def test_data_that_are_not_registered_are_refused(make_mdata, register):
    with pytest.raises(
        ValueError, match=r"must be set up first.* `SCMVPModel.setup_mudata\(mdata"
    ):
        SCMVPModel(make_mdata())
    copied = register(make_mdata()).copy()
    with pytest.raises(ValueError, match="itself and not what it was copied from"):
        SCMVPModel(copied)
    with pytest.raises(TypeError, match="must be a MuData .* got an AnnData"):
        SCMVPModel(make_mdata()["rna"])
    with pytest.raises(ValueError, match="needs `mdata`, or the `registry`"):
        SCMVPModel()


@pytest.mark.parametrize(
    "architecture",
    [
        {"self_attention": "scalar"},
        {"cluster_attention": False},
        {"dispersion": "gene-batch"},
        {"dispersion": "gene-label"},
        {"atac_target": "tfidf"},
        {"encode_covariates": True},
        {"center_batches": True},
        {"batch_representation": "embedding", "encode_covariates": True},
    ],
    ids=str,
)
def test_every_architecture_trains_and_answers(fresh_mdata, train, architecture):
    model = train(fresh_mdata, architecture=architecture)
    assert np.isfinite(model.get_latent_representation()).all()
    assert np.isfinite(model.get_normalized_expression(return_numpy=True)).all()
    assert np.isfinite(model.get_normalized_accessibility(return_numpy=True)).all()


def test_centring_of_a_single_batch_is_refused(make_mdata, register):
    with pytest.raises(ValueError, match="`center_batches` centres .* `batch_key`"):
        SCMVPModel(register(make_mdata(), batch_key=None), center_batches=True)


def test_representation_tells_the_arguments(mdata, capsys):
    repr(SCMVPModel(mdata, n_latent=7, n_hidden=24, n_clusters=9, dispersion="gene-batch"))
    text = capsys.readouterr().out  # scvi-tools prints it
    for part in ("n_latent: 7", "n_hidden: 24", "clusters: 9", "dispersion: gene-batch"):
        assert part in text


def test_representation_tells_that_leiden_chooses(mdata, capsys):
    repr(SCMVPModel(mdata))
    assert "clusters: chosen by Leiden" in " ".join(capsys.readouterr().out.split())


def test_arguments_are_kept_as_they_were_given(mdata):
    model = SCMVPModel(mdata, n_clusters=None, max_clusters=13, n_latent=7)
    kept = model.init_params_["non_kwargs"]
    assert (kept["n_clusters"], kept["max_clusters"], kept["n_latent"]) == (None, 13, 7)


def test_setup_can_be_looked_up(mdata, capsys):
    SCMVPModel(mdata).view_anndata_setup()
    shown = capsys.readouterr().out
    assert "rna_layer" in shown
    assert "batch" in shown


def hidden_dropout(model: SCMVPModel) -> set[float]:
    return {layer.p for layer in model.module.modules() if isinstance(layer, torch.nn.Dropout)}


def test_hidden_dropout_is_that_of_the_number_of_cells_unless_it_is_named(mdata, small):
    assert hidden_dropout(SCMVPModel(mdata, **small)) == {default_dropout_rate(mdata.n_obs)}
    assert hidden_dropout(SCMVPModel(mdata, **small, dropout_rate=0.15)) == {0.15}


@pytest.mark.parametrize("how", ["loaded", "loaded without data", "query"])
def test_model_keeps_its_hidden_dropout_on_other_numbers_of_cells(
    model, saved, make_mdata, monkeypatch, how
):
    monkeypatch.setattr("scmvp_scvi._size_rules._FEW_CELLS", 10)
    found = {
        "loaded": lambda: SCMVPModel.load(saved, adata=make_mdata()),
        "loaded without data": lambda: SCMVPModel.load(saved, adata=False),
        "query": lambda: SCMVPModel.load_query_data(make_mdata(), model, unfrozen=True),
    }[how]()
    assert hidden_dropout(found) == hidden_dropout(model) == {0.1}


def test_building_a_model_leaves_the_data_alone(fresh_mdata):
    before = fresh_mdata["rna"].X.copy(), list(fresh_mdata.obs.columns)
    SCMVPModel(fresh_mdata)
    assert (fresh_mdata["rna"].X != before[0]).nnz == 0
    assert list(fresh_mdata.obs.columns) == before[1]


# -- training -------------------------------------------------------------------------------------


def test_training_fills_history_and_indices(model):
    assert model.is_trained
    assert len(model.history["elbo_train"]) == 3
    together = np.concatenate((model.train_indices, model.validation_indices))
    np.testing.assert_array_equal(np.sort(together), np.arange(300))


def test_default_number_of_epochs_is_used(fresh_mdata, small, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "scvi.model.base.UnsupervisedTrainingMixin.train",
        lambda self, **arguments: asked.append(arguments["max_epochs"]),
    )
    SCMVPModel(fresh_mdata, **small).train()
    assert asked == [100]


# -- saving and loading ---------------------------------------------------------------------------


def test_model_saved_with_its_data_answers_the_same(model, saved):
    assert_same_outputs(model, SCMVPModel.load(saved))


def test_model_loaded_onto_the_same_data_answers_the_same(model, own_mdata, saved):
    assert_same_outputs(model, SCMVPModel.load(saved, adata=own_mdata))


def test_model_loaded_without_data_embeds_new_data(model, saved, make_mdata):
    loaded = SCMVPModel.load(saved, adata=False)
    found = loaded.get_latent_representation(make_mdata())
    np.testing.assert_array_equal(found, model.get_latent_representation())


def test_model_loaded_without_data_is_saved_and_loaded_again(
    model, own_mdata, saved, make_mdata, tmp_path
):
    SCMVPModel.load(saved, adata=False).save(tmp_path / "again")
    expected = model.get_latent_representation(make_mdata())
    for adata in (False, own_mdata):
        loaded = SCMVPModel.load(tmp_path / "again", adata=adata)
        found = loaded.get_latent_representation(make_mdata())
        np.testing.assert_array_equal(found, expected)


def test_model_loaded_without_data_denoises_new_data(model, saved, make_mdata):
    loaded = SCMVPModel.load(saved, adata=False)
    new = make_mdata()
    options = {"transform_batch": new.obs["batch"].cat.categories[0]}
    found = loaded.get_normalized_expression(new, **options)
    np.testing.assert_array_equal(found, model.get_normalized_expression(**options))
    assert found.index.equals(new.obs_names)


def test_data_that_become_those_of_the_model_are_saved_with_it(model, saved, make_mdata, tmp_path):
    own = SCMVPModel.load(saved)
    own.adata = make_mdata()[:100].copy()
    own.save(tmp_path / "own", save_anndata=True)
    loaded = SCMVPModel.load(tmp_path / "own")
    assert loaded.adata.n_obs == 100
    assert_same_outputs(own, loaded)
    own.minify_mudata()
    np.testing.assert_allclose(
        own.get_latent_representation(), model.get_latent_representation()[:100], atol=1e-5
    )


def test_data_that_become_those_of_the_model_are_read_anew_after_another_set_up(
    model, saved, make_mdata, register
):
    own, mdata = SCMVPModel.load(saved), make_mdata()
    mdata.obs["batch"] = mdata.obs["batch"].to_numpy()[::-1]
    own.adata = mdata
    expected = own.get_normalized_expression()
    register(mdata, batch_key="batch")
    pd.testing.assert_frame_equal(own.get_normalized_expression(), expected)


def test_view_cannot_become_the_data_of_the_model(model, saved, make_mdata):
    own = SCMVPModel.load(saved)
    before = own.adata
    with pytest.raises(ValueError, match="view"):
        own.adata = make_mdata()[:100]
    assert own.adata is before
    assert own.adata_manager.adata is before


def test_model_loaded_without_data_keeps_the_first_view_as_its_own(model, saved, make_mdata):
    loaded, mdata = SCMVPModel.load(saved, adata=False), make_mdata()
    expected = model.get_latent_representation()
    for rows in (slice(0, 50), slice(50, 300), slice(0, 50)):
        found = loaded.get_latent_representation(mdata[rows])
        np.testing.assert_allclose(found, expected[rows], atol=1e-5)
    np.testing.assert_allclose(loaded.get_latent_representation(), expected[:50], atol=1e-5)
    loaded.train(1, accelerator="cpu", devices=1, enable_progress_bar=False)
    assert len(loaded.train_indices) == 45


def test_data_of_a_model_without_are_not_saved(saved, mdata, tmp_path):
    loaded = SCMVPModel.load(saved, adata=False)
    with pytest.raises(ValueError, match="`save_anndata=True` .* without: set `model.adata"):
        loaded.save(tmp_path / "model", save_anndata=True)
    loaded.save(tmp_path / "alone")
    loaded.adata = mdata.copy()
    loaded.save(tmp_path / "model", save_anndata=True)
    assert SCMVPModel.load(tmp_path / "model").adata.n_obs == mdata.n_obs


@pytest.mark.filterwarnings("ignore:.* have no counts in `rna`:UserWarning")
def test_model_loads_onto_cells_of_atac_alone(model, saved, make_mdata, train_more, tmp_path):
    cells = make_mdata()
    cells["rna"].X = sparse.csr_matrix(cells["rna"].shape, dtype=np.float32)
    loaded = SCMVPModel.load(saved, adata=cells)
    assert loaded.adata is cells
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation(cells)
    )
    train_more(loaded)
    loaded.save(tmp_path / "model", prefix="of_atac_", save_anndata=True)
    again = SCMVPModel.load(tmp_path / "model", prefix="of_atac_")
    assert_same_outputs(loaded, again)


def test_model_loads_onto_the_cpu(saved):
    loaded = SCMVPModel.load(saved, accelerator="cpu")
    assert {p.device.type for p in loaded.module.parameters()} == {"cpu"}


def test_loaded_model_keeps_history_arguments_and_prior(model, saved):
    loaded = SCMVPModel.load(saved)
    assert loaded.init_params_["non_kwargs"] == model.init_params_["non_kwargs"]
    np.testing.assert_array_equal(loaded.history["elbo_train"], model.history["elbo_train"])
    assert loaded.module.prior.n_clusters == 4
    assert bool(loaded.module.feature_statistics_known)


def test_loaded_model_is_in_eval_mode(saved):
    assert not any(m.training for m in SCMVPModel.load(saved).module.modules())


def test_loaded_model_trains_on_in_train_mode_at_full_kl_weight(saved, train_more):
    seen = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            del trainer
            layers = pl_module.module.modules()
            seen.append((all(layer.training for layer in layers), float(pl_module.kl_weight)))

    train_more(SCMVPModel.load(saved), max_epochs=1, callbacks=[Watch()])
    assert seen
    assert all(in_train_mode for in_train_mode, _ in seen)
    assert all(weight == pytest.approx(1.0) for _, weight in seen)


def test_saving_over_a_model_is_refused_unless_asked_for(model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="already exists"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)


def test_models_with_prefixes_share_a_folder(model, own_mdata, tmp_path):
    for prefix in ("first_", "second_"):
        model.save(tmp_path / "models", prefix=prefix, overwrite=True)
    loaded = SCMVPModel.load(tmp_path / "models", adata=own_mdata, prefix="second_")
    latents = (m.get_latent_representation() for m in (loaded, model))
    np.testing.assert_array_equal(*latents)


def test_loading_onto_one_modality_is_refused(saved, make_mdata):
    with pytest.raises(TypeError, match="must be a MuData .* got an AnnData"):
        SCMVPModel.load(saved, adata=make_mdata()["rna"])


def test_model_without_data_names_its_features_and_has_no_setup_to_show(saved, model):
    loaded = SCMVPModel.load(saved, adata=False)
    found, expected = loaded.get_var_names(), model.get_var_names()
    assert set(found) == set(expected) == {"rna", "atac"}
    for modality, names in expected.items():
        np.testing.assert_array_equal(found[modality], names)
    with pytest.raises(ValueError, match="loaded without data"):
        loaded.view_anndata_setup()


@pytest.mark.parametrize("unknown", ["elsewhere", 0])  # scvi-tools passes the zero
def test_loading_onto_data_of_an_unknown_batch_is_refused(saved, make_mdata, unknown):
    mdata = make_mdata()
    mdata.obs["batch"] = unknown
    with pytest.raises(ValueError, match=f"`batch_key` of the set-up, .* got `{unknown}`"):
        SCMVPModel.load(saved, adata=mdata)


def test_set_up_by_a_registry_wants_the_batches_of_the_model(model, make_mdata):
    mdata = make_mdata()
    set_up = partial(
        SCMVPModel.setup_mudata,
        modalities={"rna_layer": "rna", "atac_layer": "atac"},
        source_registry=model.registry,
    )
    with pytest.raises(ValueError, match="`batch_key` must be given, .* set up with one, 'batch'"):
        set_up(mdata)
    mdata.obs["donor"] = 0  # scvi-tools takes an unknown zero for known
    with pytest.raises(ValueError, match="`donor`, `batch_key` .* got `0`"):
        set_up(mdata, batch_key="donor")
    mdata.obs["donor"] = mdata.obs["batch"]
    set_up(mdata, batch_key="donor")


def test_loading_onto_data_with_permuted_features_is_refused(saved, make_mdata, rng):
    mdata = make_mdata()
    rna = mdata["rna"][:, rng.permutation(80)].copy()
    permuted = MuData({"rna": rna, "atac": mdata["atac"]}, obs=mdata.obs)
    with (
        pytest.warns(UserWarning, match="`var_names` for the loaded `model` does not match"),
        pytest.raises(ValueError, match="`rna` has the features of the model in another order"),
    ):
        SCMVPModel.load(saved, adata=permuted)


def test_model_with_labels_saves_its_component_names(make_mdata, register, train, tmp_path):
    mdata = register(make_mdata(), labels_key="cell_type")
    model = train(mdata, architecture={"n_clusters": None}, max_epochs=1)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCMVPModel.load(tmp_path / "model")
    assert loaded.predict_clusters().equals(model.predict_clusters())


def test_model_with_its_own_name_for_unlabeled_cells_loads(make_mdata, register, train, tmp_path):
    mdata = make_mdata()
    mdata.obs["label"] = np.where(np.arange(300) < 50, "none", mdata.obs["cell_type"].astype(str))
    register(mdata, labels_key="label")
    seeded = {"n_clusters": None, "unlabeled_category": "none"}
    model = train(mdata, architecture=seeded, max_epochs=1)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCMVPModel.load(tmp_path / "model")
    assert loaded.predict_clusters().equals(model.predict_clusters())


def test_model_with_covariates_and_size_factors_loads(make_mdata, register, train, rng, tmp_path):
    mdata = make_mdata()
    mdata.obs["site"], mdata.obs["age"] = np.arange(300) % 3, rng.normal(size=300)
    mdata.obs["size"] = rng.uniform(1, 2, 300)
    keys = {"categorical_covariate_keys": ["site"], "continuous_covariate_keys": ["age"]}
    register(mdata, batch_key="batch", rna_size_factor_key="size", **keys)
    model = train(mdata, max_epochs=1, architecture={"encode_covariates": True})
    model.save(tmp_path / "model", save_anndata=True)
    assert_same_outputs(model, SCMVPModel.load(tmp_path / "model"))


def test_atac_size_factors_are_refused_for_a_tfidf_target(make_mdata, register):
    mdata = make_mdata()
    mdata.obs["size"] = 1.0
    register(mdata, atac_size_factor_key="size")
    with pytest.raises(ValueError, match="nothing to scale"):
        SCMVPModel(mdata, atac_target="tfidf")


# -- what would fail late -------------------------------------------------------------------------


def test_model_loaded_without_data_asks_for_them(saved):
    loaded = SCMVPModel.load(saved, adata=False)
    for ask in (
        loaded.train,
        loaded.get_latent_representation,
        loaded.get_normalized_expression,
        loaded.predict_clusters,
        loaded.get_elbo,
    ):
        with pytest.raises(ValueError, match=r"was loaded without data: pass them as `adata`"):
            ask()


def log_normalized(mdata: MuData) -> None:
    mdata["rna"].X = mdata["rna"].X.log1p()


def reordered(mdata: MuData) -> None:
    mdata.mod["atac"] = mdata["atac"][:, ::-1].copy()


CHANGES = {
    log_normalized: r"`mdata\[\"rna\"\]\.X` must hold raw counts",
    reordered: "`atac` has the features of the model in another order",
}


@pytest.mark.parametrize(("change", "match"), CHANGES.items())
def test_data_changed_between_set_up_and_training_are_refused(
    make_mdata, register, train, change, match
):
    mdata = register(make_mdata())
    change(mdata)
    with pytest.raises(ValueError, match=match):
        train(mdata)


@pytest.mark.parametrize(
    "key", ["batch_key", "labels_key", "categorical_covariate_keys", "continuous_covariate_keys"]
)
@pytest.mark.parametrize("place", ["joint", "of a modality"])
def test_column_changed_between_set_up_and_training_is_refused(
    make_mdata, register, small, train_more, key, place
):
    mdata = make_mdata()
    obs = mdata.obs if place == "joint" else mdata["rna"].obs
    obs["column"] = mdata.obs["batch"].astype(str) if "continuous" not in key else 1.0
    where = {} if place == "joint" else {key: "rna"}
    modalities = {"rna_layer": "rna", "atac_layer": "atac", **where}
    asked = {key: ["column"] if key.endswith("keys") else "column"}
    SCMVPModel.setup_mudata(mdata, modalities=modalities, **asked)
    model = SCMVPModel(mdata, **small)
    train_more(model, max_epochs=1)
    before = obs["column"].copy()
    obs["column"] = np.roll(before, 7) if "continuous" not in key else 2.0
    with pytest.raises(ValueError, match=f"`column`, `{key}` of the set-up, has changed since"):
        train_more(model, max_epochs=1)
    obs["column"] = before.astype("category") if "continuous" not in key else before
    train_more(model, max_epochs=1)


@pytest.mark.parametrize(("change", "match"), CHANGES.items())
def test_data_changed_after_training_are_refused_until_they_are_as_they_were(
    make_mdata, register, train, change, match
):
    mdata = register(make_mdata())
    model = train(mdata)
    before, matrices = model.get_latent_representation(), dict(mdata.mod)
    counts = mdata["rna"].X.copy()
    change(mdata)
    for given in (None, mdata):
        with pytest.raises(ValueError, match=match):
            model.get_latent_representation(given)
    mdata.mod.update(matrices)
    mdata["rna"].X = counts
    np.testing.assert_array_equal(model.get_latent_representation(), before)


def test_modality_filtered_after_training_is_refused(make_mdata, register, train):
    mdata = register(make_mdata())
    model = train(mdata)
    mdata.mod["rna"] = mdata["rna"][np.r_[0:10, 20:300]].copy()
    with pytest.raises(ValueError, match="10 are missing in `rna`"):
        model.get_latent_representation(indices=range(15))


def test_half_counts_do_not_warn_again_after_the_set_up(make_mdata, register, train):
    mdata = make_mdata()
    mdata["rna"].X.data[0] = 1.5
    with pytest.warns(UserWarning, match="1 of .* non-zero values"):
        register(mdata)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*non-zero values")
        train(mdata).get_latent_representation()


def test_category_that_no_cell_has_is_refused_at_the_set_up(make_mdata, register):
    mdata = make_mdata()
    some = mdata[mdata.obs["batch"] == "batch_0"].copy()
    with pytest.raises(ValueError, match='"batch" must have a cell, but `batch_1` have none'):
        register(some, batch_key="batch")


def test_names_of_another_type_of_strings_are_the_same_names(model, make_mdata):
    # what pandas 3 writes, an older one reads so
    cells = make_mdata()
    for adata in cells.mod.values():
        adata.var_names = adata.var_names.astype("string")
    cells["atac"].obs_names = cells["atac"].obs_names.astype("string")
    cells.update()
    np.testing.assert_array_equal(
        model.get_latent_representation(cells), model.get_latent_representation()
    )


def test_original_stays_registered_when_its_copy_is(make_mdata, register, small):
    mdata = register(make_mdata(), batch_key="batch")
    register(mdata.copy(), batch_key="batch")
    assert SCMVPModel(mdata, **small).adata is mdata


def test_numbers_of_numpy_are_numbers(fresh_mdata, train):
    model = train(fresh_mdata, max_epochs=np.int64(1), batch_size=np.int32(64))
    found = model.get_latent_representation(batch_size=np.int64(100))
    np.testing.assert_allclose(found, model.get_latent_representation(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        model.get_latent_representation(batch_size=0)


@pytest.mark.parametrize("devices", [2, "2", "0,1", [0, 1], -1, "-1"])
def test_several_devices_without_a_strategy_are_refused(fresh_mdata, small, monkeypatch, devices):
    model = SCMVPModel(fresh_mdata, **small)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match='`devices=.*` needs a strategy.*`strategy="ddp"`'):
        model.train(1, devices=devices)


def test_one_device_by_its_number_needs_no_strategy(fresh_mdata, small, monkeypatch):
    model = SCMVPModel(fresh_mdata, **small)
    asked = {}
    monkeypatch.setattr(UnsupervisedTrainingMixin, "train", lambda _, **all_: asked.update(all_))
    model.train(1, devices="3,")  # which Lightning reads as [3]
    assert asked["devices"] == "3,"


def test_config_of_the_trainer_is_checked_as_its_arguments_are(fresh_mdata, small, monkeypatch):
    model = SCMVPModel(fresh_mdata, **small)
    asked = {}
    monkeypatch.setattr(UnsupervisedTrainingMixin, "train", lambda _, **all_: asked.update(all_))
    model.train(1, devices=2, trainer_config={"strategy": "ddp"})
    assert asked["strategy"] == "ddp"  # by which scvi-tools splits the cells
    with pytest.raises(TypeError, match="`early_stop`.*Did you mean `early_stopping`"):
        model.train(1, trainer_config={"early_stop": True})
    with pytest.raises(TypeError, match="`plan_config` is an argument of `train`"):
        model.train(1, trainer_config={"plan_config": {"n_clusters": 2}})


@pytest.mark.parametrize("name", ["max_epochs", "early_stopping", "batch_size", "plan_kwargs"])
def test_config_of_the_trainer_that_names_an_argument_of_training_is_refused(
    fresh_mdata, small, name
):
    model = SCMVPModel(fresh_mdata, **small)
    with pytest.raises(TypeError, match=f"`{name}` is an argument of `train`, got it in"):
        model.train(1, trainer_config={name: 2})
    assert not model.is_trained


def test_minibatch_that_all_training_cells_do_not_fill_is_not_dropped(fresh_mdata, train):
    options = {"batch_size": 1_000, "datasplitter_kwargs": {"drop_last": True}}
    with pytest.raises(ValueError, match="`drop_last` leaves no minibatch.*270.*1000"):
        train(fresh_mdata, **options)


@pytest.mark.parametrize("argument", ["batch_key", "labels_key", "rna_size_factor_key"])
@pytest.mark.parametrize("key", [3, ["batch"]])
def test_key_that_is_no_name_is_refused(make_mdata, register, argument, key):
    with pytest.raises(TypeError, match=f"`{argument}` must be the name of one column"):
        register(make_mdata(), **{argument: key})


def test_mask_that_names_cells_in_another_order_is_refused(model, own_mdata):
    mask = own_mdata.obs["cell_type"] == "type_1"
    assert len(model.get_latent_representation(indices=mask)) == mask.sum()
    with pytest.raises(
        ValueError, match=r"its index is another.*`indices.loc\[mdata.obs_names\]`"
    ):
        model.get_latent_representation(indices=mask.iloc[::-1])


@pytest.mark.parametrize("library_size", [[1.0, 2.0], np.ones(300)])
def test_library_size_that_is_no_number_is_refused(model, library_size):
    with pytest.raises(TypeError, match="`library_size` must be"):
        model.get_normalized_expression(library_size=library_size)


def test_minibatches_of_one_cell_are_refused(fresh_mdata, train):
    with pytest.raises(ValueError, match="`batch_size` must be at least 2, got 1"):
        train(fresh_mdata, batch_size=1)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.filterwarnings("ignore:.* has fewer than 3 cells:UserWarning")
@pytest.mark.parametrize("n_cells", [1, 2])
def test_too_few_cells_are_refused(make_mdata, register, train, n_cells):
    mdata = register(make_mdata()[:n_cells].copy())
    with pytest.raises(ValueError, match="needs at least 2 training cells, .* got 0: pass more"):
        train(mdata)


class NoEpoch(Callback):
    """Fails when an epoch begins."""

    def on_train_epoch_start(self, trainer, pl_module):
        del trainer, pl_module
        raise AssertionError("an epoch has begun")


def test_more_clusters_than_training_cells_are_refused_before_the_first_epoch(fresh_mdata, train):
    with pytest.raises(ValueError, match=r"`n_clusters` must be at most .* 270, .* got 271"):
        train(fresh_mdata, architecture={"n_clusters": 271}, callbacks=[NoEpoch()])


def test_label_without_training_cells_is_named_before_the_first_epoch(make_mdata, register, train):
    mdata = make_mdata()
    mdata.obs["label"] = ["rare"] * 5 + ["frequent"] * 295
    with pytest.raises(ValueError, match="but `rare` have none among them: merge rare labels"):
        train(
            register(mdata, labels_key="label"),
            architecture={"n_clusters": None},
            callbacks=[NoEpoch()],
            datasplitter_kwargs={"external_indexing": [np.arange(5, 300), np.arange(5)]},
        )


@pytest.mark.parametrize("name", ["kl_weight", "tensors", "wide_gradients", "update_only_decoder"])
def test_argument_that_no_plan_would_heed_is_refused(fresh_mdata, train, name):
    with pytest.raises(TypeError, match=f"`plan_kwargs` .*`{name}`"):
        train(fresh_mdata, plan_kwargs={name: 0.1})


@pytest.mark.parametrize(
    ("name", "taker"),
    [
        *((name, "plan") for name in ("lr", "n_peaks_per_step", "reduce_lr_on_plateau")),
        *((name, "datasplitter") for name in ("external_indexing", "num_workers")),
    ],
)
def test_arguments_of_others_among_those_of_the_trainer_are_sent_there(
    fresh_mdata, train, name, taker
):
    with pytest.raises(TypeError, match=rf'pass `{taker}_kwargs=\{{"{name}": ...\}}`'):
        train(fresh_mdata, **{name: 1})


def test_argument_of_checkpoints_among_those_of_the_trainer_is_sent_there(fresh_mdata, train):
    way_out = r'SaveCheckpoint\(monitor="elbo_validation", load_best_on_end=...\)'
    with pytest.raises(TypeError, match=way_out):
        train(fresh_mdata, load_best_on_end=True)


def test_unknown_argument_of_the_training_suggests_a_near_one(fresh_mdata, train):
    with pytest.raises(TypeError, match="no argument `max_epoch`.*Did you mean `max_epochs`"):
        train(fresh_mdata, max_epoch=3)
    with pytest.raises(TypeError, match="`early_stop_patience`.*mean `early_stopping_patience`"):
        train(fresh_mdata, early_stop_patience=3)


@pytest.mark.parametrize("name", ["n_clusters", "seeding_labels", "surgery"])
def test_what_the_model_brings_is_refused_in_a_config_of_the_plan_too(fresh_mdata, train, name):
    with pytest.raises(TypeError, match=f"`plan_kwargs` takes no `{name}`"):
        train(fresh_mdata, plan_config={name: 0})


def test_config_of_the_plan_is_heeded_where_arguments_say_nothing_else(fresh_mdata, train):
    config, arguments = {"lr": 0.25, "weight_decay": 0.5}, {"weight_decay": 0.75}
    model = train(fresh_mdata, max_epochs=1, plan_config=config, plan_kwargs=arguments)
    plan = model.trainer.lightning_module
    assert (plan.lr, plan.weight_decay) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plan_kwargs": {"optimizer_creator": torch.optim.SGD}}, "`optimizer_creator` is called"),
        (
            {"plan_kwargs": {"optimizer": "Custom", "optimizer_creator": print, "lr": 0.1}},
            "`lr` is of the plan's own optimizers",
        ),
        ({"plan_kwargs": {"label_weight": 2.0}}, "`label_weight` .* pass `labels_key`"),
        ({"plan_kwargs": {"lr_patience": 3}}, "`lr_patience` says how the learning rate falls"),
        (
            {"plan_kwargs": {"reduce_lr_on_plateau": True, "lr_schedule": "cosine"}},
            "`reduce_lr_on_plateau` takes the place of `lr_schedule`",
        ),
        ({"check_val_every_n_epoch": 0}, "`check_val_every_n_epoch` must be at least 1, got 0"),
        ({"datasplitter_kwargs": {"foo": 1}}, "must name arguments of the data.*got `foo`"),
        ({"datasplitter_kwargs": {"batch_size": 9}}, "`batch_size` is an argument of `train`"),
        ({"datasplitter_kwargs": [1]}, "`datasplitter_kwargs` must be a mapping, got list: pass"),
        (
            {"train_size": 0.5, "datasplitter_kwargs": {"external_indexing": [range(300)]}},
            "`train_size` splits the cells by chance, got 0.5 beside `external_indexing`",
        ),
    ],
)
def test_arguments_of_training_that_nothing_would_read_are_refused(
    fresh_mdata, small, arguments, message
):
    model = SCMVPModel(fresh_mdata, **small)
    with pytest.raises((TypeError, ValueError), match=message):
        model.train(1, **arguments)
    assert not model.is_trained


def test_numpy_integers_are_taken_as_the_epochs_between_validations(fresh_mdata, train):
    model = train(fresh_mdata, max_epochs=4, check_val_every_n_epoch=np.int64(2))
    assert len(model.history["elbo_validation"]) == 2


def test_arguments_of_what_writes_the_data_are_refused_where_none_are_written(
    trained_model, tmp_path
):
    with pytest.raises(TypeError, match="`save_adata` can be an argument of what writes"):
        trained_model.save(tmp_path / "model", save_adata=True)
    trained_model.save(tmp_path / "model", save_anndata=True, compression="gzip")
    assert (tmp_path / "model" / "mdata.h5mu").exists()


def test_saving_with_the_data_and_asking_about_views_leave_the_data_as_they_are(
    make_mdata, register, small, tmp_path
):
    mdata = make_mdata()
    mdata["rna"].obs["qc"] = 1.0
    model = SCMVPModel(register(mdata), **small)
    columns, view = list(mdata.obs), mdata[:20]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "From 0.4 .update")  # of columns that are copied
        model.save(tmp_path / "model", save_anndata=True)
        model.view_anndata_setup(view, hide_state_registries=True)
        SCMVPModel.load(tmp_path / "model")
    assert list(mdata.obs) == columns
    assert view.is_view


def test_model_that_is_built_after_another_set_up_of_its_data_has_its_own_codes(
    make_mdata, register, train, train_more, small
):
    mdata = make_mdata()
    mdata.obs["other"] = np.arange(mdata.n_obs) % 3
    first = train(register(mdata, batch_key="batch"), max_epochs=1)
    register(mdata, batch_key="other")
    first.get_latent_representation()  # which writes the codes of its own set-up again
    second = SCMVPModel(mdata, **small)
    train_more(second, max_epochs=1)
    codes = second.adata_manager.get_from_registry(REGISTRY.BATCH).ravel()
    assert np.array_equal(codes, mdata.obs["other"])


def test_codes_that_an_update_has_made_floating_point_numbers_of_are_codes_still(
    make_mdata, register, train, train_more
):
    mdata = make_mdata()
    mdata.obs["site"] = np.where(np.arange(mdata.n_obs) % 2, "a", "b")
    model = train(register(mdata, categorical_covariate_keys=["site"]), max_epochs=1)
    expected = model.get_normalized_expression()
    key = "_scvi_extra_categorical_covs"
    mdata.obsm[key] = mdata.obsm[key].astype(float)  # as of mudata, which aligns them anew
    pd.testing.assert_frame_equal(model.get_normalized_expression(), expected)
    assert mdata.obsm[key].dtypes["site"].kind == "i"
    mdata.obsm[key] = mdata.obsm[key].astype(float)
    train_more(model, max_epochs=1)


def test_datamodule_is_refused_by_name(fresh_mdata, train):
    with pytest.raises(TypeError, match="`datamodule` is not offered"):
        train(fresh_mdata, datamodule=object())


def test_training_reads_the_batches_of_its_own_set_up_after_another_of_the_same_data(
    fresh_mdata, register, train_more, small
):
    seen = set()

    class Batches(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            del trainer, pl_module, batch_idx
            seen.update(batch[REGISTRY.BATCH].ravel().tolist())

    model = SCMVPModel(fresh_mdata, **small)
    register(fresh_mdata)
    train_more(model, max_epochs=1, callbacks=[Batches()])
    assert seen == {0, 1}


def test_categories_stay_those_of_the_set_up_after_another_one_of_the_same_data(
    make_mdata, register, train, tmp_path
):
    mdata = make_mdata()
    mdata.obs["type"] = pd.Categorical(np.where(np.arange(mdata.n_obs) % 3 == 0, "T", "B"))
    mdata = register(mdata, labels_key="type", batch_key="batch")
    model = train(mdata, architecture={"n_clusters": None}, max_epochs=2)
    probabilities = model.get_cluster_probabilities()
    expression = model.get_normalized_expression()

    mdata.obs["type"] = mdata.obs["type"].cat.reorder_categories(["T", "B"])
    first, second = sorted(mdata.obs["batch"].unique())
    mdata.obs["batch"] = mdata.obs["batch"].astype("category")
    mdata.obs["batch"] = mdata.obs["batch"].cat.reorder_categories([second, first])
    register(mdata, labels_key="type", batch_key="batch")

    pd.testing.assert_frame_equal(model.get_cluster_probabilities(), probabilities)
    pd.testing.assert_frame_equal(model.get_normalized_expression(), expression)
    model.save(tmp_path / "model")
    loaded = SCMVPModel.load(tmp_path / "model", adata=mdata)
    pd.testing.assert_frame_equal(loaded.get_cluster_probabilities(), probabilities)


def test_categories_renamed_before_another_set_up_are_refused(make_mdata, register, train):
    mdata = make_mdata()
    model = train(register(mdata, batch_key="batch"), max_epochs=1)
    mdata.obs["batch"] = "other"
    register(mdata, batch_key="batch")
    with pytest.raises(ValueError, match="`batch`, `batch_key` of the set-up, must hold categ"):
        model.get_latent_representation()


@pytest.mark.parametrize("name", ["n_clusters", "seeding_labels", "surgery"])
def test_plan_is_not_told_what_the_model_tells_it(fresh_mdata, train, name):
    with pytest.raises(TypeError, match=f"no `{name}`, which the model brings, got 20: pass "):
        train(fresh_mdata, plan_kwargs={name: 20})


def test_unknown_argument_of_the_training_plan_suggests_a_near_one(fresh_mdata, train):
    with pytest.raises(TypeError, match=r"got `cycle_wait`\. Did you mean `cycle_weight`"):
        train(fresh_mdata, plan_kwargs={"cycle_wait": 1.0})


# -- data that are changed or registered elsewhere ------------------------------------------------


@pytest.fixture
def covariate_model(make_mdata, register, train, rng) -> SCMVPModel:
    """Model that reads a batch of a modality and covariates of the joint table."""
    mdata = make_mdata()
    mdata["rna"].obs["donor"] = mdata.obs["batch"].astype(str).to_numpy()
    mdata.obs["site"] = pd.Categorical(rng.choice(["x", "y", "z"], mdata.n_obs))
    mdata.obs["age"] = rng.normal(size=mdata.n_obs)
    mdata.obs["size"] = rng.uniform(0.5, 2, mdata.n_obs)
    modalities = {"rna_layer": "rna", "atac_layer": "atac", "batch_key": "rna"}
    register(
        mdata,
        modalities,
        batch_key="donor",
        categorical_covariate_keys=["site"],
        continuous_covariate_keys=["age"],
        rna_size_factor_key="size",
    )
    return train(mdata, architecture={"encode_covariates": True}, max_epochs=2)


def test_categories_of_a_covariate_in_another_order_keep_their_codes(covariate_model, tmp_path):
    model, mdata = covariate_model, covariate_model.adata
    before = model.get_latent_representation()
    other = mdata.copy()
    other.obs["site"] = other.obs["site"].cat.reorder_categories(["z", "x", "y"])
    np.testing.assert_array_equal(model.get_latent_representation(other), before)
    mdata.obs["site"] = mdata.obs["site"].cat.reorder_categories(["z", "x", "y"])
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCMVPModel.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.get_latent_representation(), before)


def test_categories_of_a_covariate_of_a_query_keep_their_codes(covariate_model):
    query = covariate_model.adata.copy()
    query.obs["site"] = query.obs["site"].cat.reorder_categories(["z", "y", "x"])
    query["rna"].obs["donor"] = "new"
    model = SCMVPModel.load_query_data(query, covariate_model)
    codes = model.adata_manager.get_from_registry(REGISTRY.CATEGORICAL_COVARIATES)["site"]
    expected = query.obs["site"].astype(str).map({"x": 0, "y": 1, "z": 2})
    np.testing.assert_array_equal(codes, expected)


def test_codes_that_another_registration_replaced_are_written_again(covariate_model, train_more):
    model, rna = covariate_model, covariate_model.adata["rna"]
    before = model.get_latent_representation()
    rna.obs["lane"] = np.arange(rna.n_obs) % 4
    SCVI.setup_anndata(rna, batch_key="lane")
    other = SCVI(rna)
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    other._validate_anndata(rna)  # which reads its own codes again
    np.testing.assert_array_equal(rna.obs["_scvi_batch"], rna.obs["lane"])
    train_more(model, max_epochs=1)
    np.testing.assert_array_equal(
        np.array(["batch_0", "batch_1"])[rna.obs["_scvi_batch"]], rna.obs["donor"]
    )


@pytest.mark.parametrize("key", ["donor", "site", "age"])
def test_own_column_that_changed_is_refused_wherever_it_is_read(covariate_model, key, tmp_path):
    model, mdata = covariate_model, covariate_model.adata
    obs = mdata["rna"].obs if key == "donor" else mdata.obs
    before, column = model.get_latent_representation(), obs[key].copy()
    obs[key] = np.roll(column, 1)
    for ask in (
        model.get_latent_representation,
        lambda: model.get_normalized_expression(mdata),
        lambda: model.save(tmp_path / "model", save_anndata=True),
    ):
        with pytest.raises(ValueError, match=f"`{key}`, .* of the set-up, has changed since"):
            ask()
    assert model.get_latent_representation(mdata.copy()).shape == before.shape
    model.save(tmp_path / "weights")
    obs[key] = column
    np.testing.assert_array_equal(model.get_latent_representation(), before)


@pytest.mark.parametrize("key", ["donor", "site", "age"])
def test_changed_columns_of_further_data_are_read_as_they_are(covariate_model, key):
    mdata = covariate_model.adata.copy()
    first = covariate_model.get_latent_representation(mdata)
    obs = mdata["rna"].obs if key == "donor" else mdata.obs
    obs[key] = np.roll(obs[key], 1)
    found = covariate_model.get_latent_representation(mdata)
    np.testing.assert_array_equal(found, covariate_model.get_latent_representation(mdata.copy()))
    assert (found != first).any()


def test_size_factors_that_became_logarithms_are_refused(covariate_model):
    obs = covariate_model.adata.obs
    obs["size"] = np.log(obs["size"])
    with pytest.raises(ValueError, match='`rna_size_factor_key`: the column "size" must be above'):
        covariate_model.get_normalized_expression(library_size="observed")


@pytest.mark.parametrize("strings", ["object", "string"])  # missing values are NaN, pandas.NA
def test_cells_renamed_in_the_modalities_are_refused_or_read(make_mdata, register, train, strings):
    with_batches, without = make_mdata(), make_mdata()
    with_batches.obs["batch"] = with_batches.obs["batch"].astype(strings)
    models = [train(register(with_batches, batch_key="batch")), train(register(without))]
    before = models[1].get_normalized_expression(return_numpy=True)
    for model in models:
        for adata in model.adata.mod.values():
            adata.obs_names = "s1_" + adata.obs_names
        model.adata.update()  # which leaves the new names without values
    with pytest.raises(ValueError, match="`batch`, `batch_key` of the set-up, has changed since"):
        models[0].get_normalized_expression()
    found = models[1].get_normalized_expression(return_numpy=True)
    np.testing.assert_array_equal(found, before)


def test_covariates_of_other_cells_are_refused(covariate_model):
    mdata = covariate_model.adata
    kept = mdata.obs_names[np.arange(mdata.n_obs) % 3 > 0]
    expected = covariate_model.get_latent_representation()[np.arange(mdata.n_obs) % 3 > 0]
    tables = {key: table for key, table in mdata.obsm.items() if key.startswith("_scvi_")}
    for key, adata in list(mdata.mod.items()):
        mdata.mod[key] = adata[kept].copy()
    for _ in range(2):  # mudata 0.3 stumbles over the tables, and then goes on without them
        with suppress(KeyError):
            mdata.update()
    assert mdata.n_obs == len(kept)
    mdata.obsm._data.update(tables)  # as 0.3 leaves them
    for key in tables:
        with pytest.raises(ValueError, match=f"`del mdata.obsm.*{key}"):
            covariate_model.get_latent_representation()
        del mdata.obsm[key]
    found = covariate_model.get_latent_representation(mdata.copy())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("removed", ["marks", "columns"])
def test_what_scvi_tools_keeps_in_the_data_is_written_again(
    fresh_mdata, train, train_more, removed
):
    model = train(fresh_mdata, max_epochs=1)
    before = model.get_latent_representation()

    def remove():
        if removed == "marks":
            fresh_mdata.uns.clear()
        else:
            fresh_mdata.obs = fresh_mdata.obs[["batch"]].copy()

    remove()
    np.testing.assert_array_equal(model.get_latent_representation(), before)
    remove()
    train_more(model, max_epochs=1)


# -- arguments that were not heeded ---------------------------------------------------------------


def test_argument_in_the_place_of_the_registry_is_refused(mdata):
    with pytest.raises(
        TypeError, match="`registry` must be the registry of a saved model.*got 10"
    ):
        SCMVPModel(mdata, 10)


@pytest.mark.parametrize(
    ("unlabeled", "match"),
    [
        ("Unknwon", "`unlabeled_category='Unknwon'` is no label .* The labels are"),
        ("Unknown", "`unlabeled_category='Unknown'` .* pass `unlabeled_category='unknown'`"),
        ("unknown", None),
    ],
)
def test_name_of_unlabeled_cells_that_none_has_is_warned_about(
    make_mdata, register, small, unlabeled, match
):
    mdata = make_mdata()
    mdata.obs["label"] = np.where(
        np.arange(300) < 60, "unknown", mdata.obs["cell_type"].astype(str)
    )
    register(mdata, labels_key="label")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SCMVPModel(mdata, **small, unlabeled_category=unlabeled)
    messages = [str(one.message) for one in caught if "unlabeled_category" in str(one.message)]
    assert len(messages) == (match is not None)
    if match is not None:
        assert re.search(match, messages[0])


def test_labels_without_unlabeled_cells_do_not_warn(make_mdata, register, small):
    mdata = register(make_mdata(), labels_key="cell_type")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*unlabeled_category")
        SCMVPModel(mdata, **small)


def test_parts_of_the_cells_may_be_masks_and_the_list_of_the_caller_stays(fresh_mdata, train):
    is_held_out = np.arange(300) >= 250
    parts = [~is_held_out, list(range(250, 300))]
    model = train(fresh_mdata, max_epochs=1, datasplitter_kwargs={"external_indexing": parts})
    np.testing.assert_array_equal(model.train_indices, np.arange(250))
    np.testing.assert_array_equal(model.validation_indices, np.arange(250, 300))
    assert len(parts) == 2


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([np.arange(250), np.r_[250:299, -300]], r"`external_indexing\[1\]` must lie between"),
        ([np.arange(250), np.arange(251, 301)], r"`external_indexing\[1\]` must lie between"),
        (
            [np.arange(250), np.arange(249, 300)],
            "each cell once, got 1 more than once, such as 249",
        ),
        ([np.arange(200), np.arange(250, 300)], "each of the 300 cells, got 50 in no part"),
        ([np.arange(100)] * 4, "one to three parts"),
    ],
)
def test_parts_that_are_no_split_are_refused(fresh_mdata, train, parts, match):
    with pytest.raises(ValueError, match=match):
        train(fresh_mdata, datasplitter_kwargs={"external_indexing": parts})


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ({"train_size": 0}, "`train_size` must be above 0 and at most 1, got 0"),
        ({"train_size": float("nan")}, "`train_size` must be above 0"),
        ({"validation_size": 1.0}, "`validation_size` must be at least 0 and below 1, got 1.0"),
        ({"validation_size": 0.3}, "`train_size` and `validation_size` .* 0.9 by default and 0.3"),
    ],
)
def test_share_of_the_cells_that_is_none_is_refused_by_name(fresh_mdata, train, sizes, match):
    with pytest.raises(ValueError, match=match):
        train(fresh_mdata, **sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "`max_steps` must leave steps to train by, got 0"),
        ({"limit_train_batches": 0.0}, "`limit_train_batches` must leave steps to train by"),
        ({"overfit_batches": 2}, "`overfit_batches` is not offered.*external_indexing"),
        ({"barebones": True}, "`barebones` is not offered"),
    ],
)
def test_trainer_that_would_take_no_step_or_read_no_counts_is_refused(
    fresh_mdata, train, options, message
):
    with pytest.raises(ValueError, match=message):
        train(fresh_mdata, **options)


@pytest.mark.parametrize("width", ["n_hidden", "n_hidden_atac", "n_shared"])
def test_layers_of_one_unit_are_refused(mdata, small, width):
    with pytest.raises(ValueError, match=f"`{width}` must be at least 2, got 1"):
        SCMVPModel(mdata, **{**small, "n_heads": 1, width: 1})


def trained_with_covariate(make_mdata, register, train, values, **arguments) -> SCMVPModel:
    mdata = make_mdata()
    mdata.obs["age"] = values
    register(mdata, continuous_covariate_keys=["age"])
    return train(mdata, **arguments)


@pytest.mark.parametrize("encode_covariates", [False, True])
def test_unit_of_a_continuous_covariate_does_not_matter(
    make_mdata, register, train, rng, encode_covariates
):
    age = rng.integers(20, 80, 300).astype(float)
    arguments = {"architecture": {"encode_covariates": encode_covariates}}
    years, others, moved = (
        trained_with_covariate(make_mdata, register, train, values, **arguments)
        for values in (age, 2048 * age, age + 65536)  # a power of two changes no digit
    )
    expected = years.get_latent_representation()
    np.testing.assert_array_equal(others.get_latent_representation(), expected)
    # rounding of the mean, through two epochs
    np.testing.assert_allclose(moved.get_latent_representation(), expected, atol=0.05)


def test_constant_covariate_adds_nothing(make_mdata, register, train):
    one, other = (
        trained_with_covariate(make_mdata, register, train, value) for value in (1e6, 0.1)
    )
    np.testing.assert_array_equal(
        one.get_normalized_expression(), other.get_normalized_expression()
    )


def test_continuous_covariates_are_scaled_by_the_training_cells(make_mdata, register, train, rng):
    values = rng.normal(5, 3, 300)
    model = trained_with_covariate(make_mdata, register, train, values, train_size=0.5)
    of_training = values[model.train_indices]
    np.testing.assert_allclose(model.module.continuous_mean, of_training.mean(), rtol=1e-5)
    np.testing.assert_allclose(model.module.continuous_scale, of_training.std(), rtol=1e-5)
