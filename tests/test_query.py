"""Queries: a trained model takes in new batches, and its reference stays as it was."""

import re

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from mudata import MuData
from scipy import sparse

from scmvp_scvi import SCMVPModel
from scmvp_scvi._counts import read_counts
from scmvp_scvi._surgery import extend_state

CHANNELS = ("rna", "atac")
EVERYTHING = {
    "encode_covariates": True,
    "center_batches": True,
    "dispersion": "gene-batch",
    "batch_representation": "embedding",
}


@pytest.fixture(scope="module")
def atlas(make_mdata) -> MuData:
    """Three batches, the effects of a batch on genes and peaks planted."""
    mdata = make_mdata(n_batches=3, n_cells=360, batch_strength=0.6)
    mdata.obs["site"] = np.where(mdata.obs["batch"] == "batch_2", "north", "south")
    mdata.obs["site"] = np.where(np.arange(360) % 3 == 0, "west", mdata.obs["site"])
    return mdata


@pytest.fixture(scope="module")
def cells_of(atlas):
    """Return a function that copies the cells of some batches."""

    def cells_of(*batches: int) -> MuData:
        of_batch = atlas.obs["batch"].cat.categories[list(batches)]
        rows = atlas.obs["batch"].isin(of_batch).to_numpy()
        obs = atlas.obs[rows].copy()
        obs["batch"] = obs["batch"].astype(str)
        return MuData({key: adata[rows].copy() for key, adata in atlas.mod.items()}, obs=obs)

    return cells_of


@pytest.fixture(scope="module")
def reference(cells_of, register, train) -> SCMVPModel:
    """Model of two batches that encodes the batch; tests only read it."""
    mdata = register(cells_of(0, 1), batch_key="batch")
    return train(mdata, max_epochs=5, architecture={"encode_covariates": True})


@pytest.fixture
def query(cells_of) -> MuData:
    return cells_of(2)


def load(query: MuData, reference, **options) -> SCMVPModel:
    return SCMVPModel.load_query_data(query, reference, accelerator="cpu", **options)


def state_of(model: SCMVPModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def moved(model: SCMVPModel, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that are no longer what they were."""
    return {name for name, now in state_of(model).items() if not torch.equal(now, before[name])}


def answers(model: SCMVPModel, mdata: MuData) -> list[np.ndarray]:
    return [
        model.get_latent_representation(mdata),
        model.get_cluster_probabilities(mdata).to_numpy(),
        model.get_normalized_expression(mdata, return_numpy=True),
        model.get_normalized_accessibility(mdata, return_numpy=True),
    ]


# -- what a query learns --------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [{}, EVERYTHING], ids=["default", "everything"])
def test_answers_for_reference_cells_are_unchanged_to_the_bit(
    cells_of, register, train, train_more, query, architecture
):
    keys = {"batch_key": "batch", "categorical_covariate_keys": ["site"]}
    reference = train(register(cells_of(0, 1), **keys), architecture=architecture)
    model = load(query, reference)
    # decay and momentum would move rows that have no gradient
    train_more(model, plan_kwargs={"weight_decay": 0.5})
    for before, after in zip(
        answers(reference, cells_of(0, 1)), answers(model, cells_of(0, 1)), strict=True
    ):
        np.testing.assert_array_equal(after, before)


def test_only_rows_of_the_new_batch_move(reference, query, train_more):
    model = load(query, reference)
    before = state_of(model)
    train_more(model, plan_kwargs={"weight_decay": 0.5, "optimizer": "AdamW"})
    parts = ("rna_encoder", "atac_encoder", "rna_decoder", "atac_decoder")
    rows = {f"{part}.first_layer.shift.categories.0" for part in parts}
    assert moved(model, before) == rows
    for name in rows:
        now = model.module.state_dict()[name]
        assert torch.equal(now[:2], reference.module.state_dict()[name])
        assert not torch.isclose(now[2], before[name][2]).all()


def test_centred_query_moves_the_means_of_the_new_batch_and_its_rows_alone(
    cells_of, register, train, train_more, query, tmp_path
):
    mdata = register(cells_of(0, 1), batch_key="batch")
    architecture = {"center_batches": True, "encode_covariates": True}
    model = load(query, train(mdata, architecture=architecture))
    model.save(str(tmp_path / "query"))
    model = SCMVPModel.load(str(tmp_path / "query"), query, accelerator="cpu")
    before = state_of(model)
    train_more(model)
    means = {f"{c}_encoder.centering.{name}" for c in CHANNELS for name in ("means", "n_cells")}
    # a row of the batch in the encoders would be taken off again: there is none
    assert moved(model, before) == means | {
        f"{channel}_decoder.first_layer.shift.categories.0" for channel in CHANNELS
    }
    for name in means:
        assert torch.equal(state_of(model)[name][:3], before[name][:3])


def test_query_with_checkpoints_moves_nothing_else(
    reference, query, train_more, tmp_path, monkeypatch
):
    # scvi-tools sets the whole module to train mode after it has saved one
    monkeypatch.setattr(scvi.settings, "_logging_dir", tmp_path, raising=False)
    model = load(query, reference)
    before = state_of(model)
    train_more(model, max_epochs=3, enable_checkpointing=True)
    assert list(tmp_path.glob("**/model.pt"))
    assert all(name.endswith("shift.categories.0") for name in moved(model, before))


def test_query_with_sampled_peaks_and_clipped_gradients_moves_nothing_else(
    reference, query, train_more
):
    model = load(query, reference)
    before = state_of(model)
    train_more(model, plan_kwargs={"n_peaks_per_step": 40}, gradient_clip_val=1.0)
    assert all(name.endswith("shift.categories.0") for name in moved(model, before))
    assert torch.equal(model.module.atac_decoder.rate.weight, before["atac_decoder.rate.weight"])


def test_category_of_a_query_that_no_cell_has_is_refused_until_it_is_dropped(reference, query):
    batch = query.obs["batch"]
    query.obs["batch"] = pd.Categorical(batch, categories=["batch_2", "batch_3"])
    with pytest.raises(ValueError, match="`batch_3` have none.*remove_unused_categories"):
        load(query, reference)
    query.obs["batch"] = query.obs["batch"].cat.remove_unused_categories()
    known = load(query, reference)._categories("batch")
    assert list(known) == ["batch_0", "batch_1", "batch_2"]


def test_new_batch_has_a_dispersion_of_its_own(cells_of, register, train, train_more, query):
    mdata = register(cells_of(0, 1), batch_key="batch")
    reference = train(mdata, architecture={"dispersion": "gene-batch"})
    model = load(query, reference)
    name = "rna_decoder.log_inverse_dispersion"
    known = reference.module.state_dict()[name]
    start = state_of(model)[name]
    torch.testing.assert_close(start[2], known.mean(0))
    train_more(model)
    now = state_of(model)[name]
    assert torch.equal(now[:2], known)
    assert not torch.equal(now[2], start[2])


def test_new_batch_is_centred_by_its_own_mean_and_the_known_ones_as_before(
    cells_of, register, train, train_more, query
):
    mdata = register(cells_of(0, 1), batch_key="batch")
    reference = train(mdata, architecture={"center_batches": True})
    model = load(query, reference)
    train_more(model, max_epochs=15)
    for channel in ("rna_encoder", "atac_encoder"):
        known, now = (getattr(m.module, channel).centering for m in (reference, model))
        assert torch.equal(now.means[:3], known.means)  # of all cells and of two batches
        # what its cells have there; dropped input values make the running mean a noisy one
        profile = getattr(model.module, channel.replace("encoder", "profile"))
        counts = query[channel.removesuffix("_encoder")].X.toarray()
        weight = getattr(model.module, channel).first_layer.weight
        hidden = profile(read_counts(torch.as_tensor(counts))).to_dense() @ weight
        expected = hidden.mean(0) + getattr(model.module, channel).first_layer.bias
        assert (now.means[3] - expected).norm() < 0.3 * (now.means[0] - expected).norm()


def test_new_categories_stand_behind_the_known_ones_of_their_own_covariate(
    cells_of, register, train, query
):
    keys = {"batch_key": "batch", "categorical_covariate_keys": ["site"]}
    reference = train(register(cells_of(0, 1), **keys), max_epochs=1)
    model = load(query, reference)
    known, now = (m.module.rna_decoder.first_layer.shift.categories for m in (reference, model))
    for number in ("0", "1"):  # three batches of two, three sites of two
        assert (len(known[number]), len(now[number])) == (2, 3)
        assert torch.equal(now[number][:2], known[number])


def test_reference_of_one_batch_takes_in_a_second(cells_of, register, train, train_more):
    reference = train(
        register(cells_of(0), batch_key="batch"), architecture={"encode_covariates": True}
    )
    model = load(cells_of(1), reference)
    train_more(model)
    rows = model.module.rna_encoder.first_layer.shift.categories["0"]
    assert torch.equal(rows[0], torch.zeros_like(rows[0]))  # the batch that had no rows
    assert rows[1].abs().sum() > 0
    for before, after in zip(
        answers(reference, cells_of(0)), answers(model, cells_of(0)), strict=True
    ):
        np.testing.assert_array_equal(after, before)


def test_extended_state_starts_new_rows_at_the_mean_of_the_known_and_counters_at_zero():
    reference = {
        "rows": torch.tensor([[1.0, 4.0], [3.0, 0.0]]),
        "counter": torch.tensor([[7], [9]]),
        "other": torch.ones(3),
    }
    blank = {
        "rows": torch.rand(3, 2),
        "counter": torch.tensor([[0], [0], [0]]),
        "other": torch.rand(3),
        "first": torch.rand(2, 2),
    }
    state, known_rows = extend_state(reference, blank)
    torch.testing.assert_close(state["rows"], torch.tensor([[1.0, 4], [3, 0], [2, 2]]))
    assert torch.equal(state["other"], torch.ones(3))
    assert torch.equal(state["first"], torch.zeros(2, 2))
    assert state["counter"].flatten().tolist() == [7, 9, 0]
    assert known_rows == {"rows": 2, "counter": 2, "first": 1}


@pytest.mark.parametrize(
    ("option", "block"),
    [
        ("freeze_expression", "encoder.first_layer"),
        ("freeze_decoder_first_layer", "decoder.first_layer"),
        ("freeze_batchnorm_encoder", "encoder.attention.batch_norm"),
        ("freeze_batchnorm_decoder", "decoder.attention.batch_norm"),
    ],
)
def test_option_lets_its_blocks_learn_and_no_other(reference, query, train_more, option, block):
    model = load(query, reference, **{option: False})
    before = state_of(model)
    train_more(model)
    in_block = {n for n in before if f"_{block}." in n and "num_batches" not in n}
    rows = {n for n in before if n.endswith("shift.categories.0")}
    assert {n for n in moved(model, before) if "num_batches" not in n} == in_block | rows


def test_unfrozen_query_learns_everything_and_keeps_what_data_gave(reference, query, train_more):
    model = load(query, reference, unfrozen=True)
    before = state_of(model)
    train_more(model)
    assert {name for name, _ in model.module.named_parameters()} <= moved(model, before)
    for name in ("atac_idf", "rna_median_depth", "prior.active"):
        assert torch.equal(model.module.state_dict()[name], before[name])


@pytest.mark.parametrize("unfrozen", [False, True])
def test_query_trains_under_the_mixture_of_its_reference(reference, query, train_more, unfrozen):
    class Start(Callback):
        def on_train_start(self, trainer, pl_module):
            del trainer
            self.weight = float(pl_module.kl_weight)
            self.means = pl_module.module.prior.means.detach().clone()
            self.is_fitted = bool(pl_module.module.prior.is_fitted)

    model, start = load(query, reference, unfrozen=unfrozen), Start()
    train_more(model, callbacks=[start])
    assert start.is_fitted
    assert start.weight == 1
    assert torch.equal(start.means, reference.module.prior.means)


def test_frozen_dropout_keeps_all_layers_that_drop_values_out_of_train_mode(
    reference, cells_of, train_more
):
    def dropped_layers(**options) -> set[bool]:
        model, seen = load(cells_of(2), reference, **options), set()
        drop = [m for m in model.module.modules() if isinstance(m, torch.nn.Dropout)]
        assert drop
        for layer in (*drop, model.module.atac_encoder.first_layer):
            layer.register_forward_hook(lambda layer, *_: seen.add(layer.training))
        train_more(model, max_epochs=1, train_size=1.0)
        return seen

    assert dropped_layers() == {True}
    assert dropped_layers(freeze_dropout=True) == {False}


def test_query_that_is_saved_and_loaded_still_holds_its_reference_still(
    reference, query, cells_of, train_more, tmp_path
):
    model = load(query, reference)
    train_more(model)
    model.save(tmp_path / "query", save_anndata=True)
    loaded = SCMVPModel.load(tmp_path / "query")
    for before, after in zip(answers(model, query), answers(loaded, query), strict=True):
        np.testing.assert_array_equal(after, before)
    train_more(loaded)
    np.testing.assert_array_equal(
        loaded.get_latent_representation(cells_of(0, 1)),
        reference.get_latent_representation(cells_of(0, 1)),
    )


def test_folder_of_a_saved_reference_is_as_good_as_the_model(reference, query, tmp_path):
    reference.save(tmp_path / "reference")
    from_folder = state_of(load(query, tmp_path / "reference"))
    from_model = state_of(load(query, reference))
    assert from_folder.keys() == from_model.keys()
    assert all(torch.equal(from_folder[name], from_model[name]) for name in from_model)


def test_model_of_a_query_is_a_reference_for_the_next(
    cells_of, register, train, train_more, query
):
    first = train(
        register(cells_of(0), batch_key="batch"), architecture={"encode_covariates": True}
    )
    second = load(cells_of(1), first)
    train_more(second)
    third = load(query, second)
    train_more(third)
    for model, cells in ((first, cells_of(0)), (second, cells_of(1))):
        for before, after in zip(answers(model, cells), answers(third, cells), strict=True):
            np.testing.assert_array_equal(after, before)


def test_making_a_query_leaves_the_reference_alone(reference, query, train_more):
    before, history = state_of(reference), reference.history["elbo_train"].copy()
    model = load(query, reference)
    assert not model.is_trained
    train_more(model)
    assert moved(reference, before) == set()
    pd.testing.assert_frame_equal(reference.history["elbo_train"], history)
    assert all(p.requires_grad for p in reference.module.parameters())


# -- what it is good for --------------------------------------------------------------------------


def untrained(query: MuData, reference: SCMVPModel) -> SCMVPModel:
    """Model of a query that answers before it has been trained."""
    model = load(query, reference)
    model.is_trained = True
    return model


@pytest.fixture(scope="module")
def shifted(cells_of, register, train, train_more):
    """Reference, and the model of a shifted batch before and after it has been trained."""
    mdata = register(cells_of(0, 1), batch_key="batch")
    reference = train(mdata, max_epochs=60, architecture={"encode_covariates": True})
    before, after = untrained(cells_of(2), reference), load(cells_of(2), reference)
    train_more(after, max_epochs=60, train_size=1.0, plan_kwargs={"lr": 2e-2})
    return reference, before, after


def distance_to_types(reference: SCMVPModel, model: SCMVPModel) -> float:
    """Distance of a type's centre between query and reference, per distance between types."""
    centres = []
    for of in (reference, model):
        z = pd.DataFrame(of.get_latent_representation())
        centres.append(z.groupby(of.adata.obs["cell_type"].to_numpy()).mean().to_numpy())
    known, found = centres
    between = np.linalg.norm(known[:, None] - known[None], axis=-1)
    return np.linalg.norm(known - found, axis=1).mean() / between[between > 0].mean()


@pytest.mark.slow
def test_types_of_a_shifted_batch_come_nearer_to_those_of_the_reference(shifted):
    reference, before, after = shifted
    assert distance_to_types(reference, after) < 0.85 * distance_to_types(reference, before)


@pytest.mark.slow
def test_planted_means_of_a_shifted_batch_are_met_better(shifted):
    def log_error(model: SCMVPModel) -> float:
        planted, obs = model.adata["rna"].varm, model.adata.obs
        profiles = planted["type_profile"] * planted["batch_effect"][:, [2]]
        found = model.get_normalized_expression().groupby(obs["cell_type"], observed=True).mean()
        return np.abs(np.log(found.to_numpy().T) - np.log(profiles / profiles.sum(0))).mean()

    _, before, after = shifted
    assert log_error(after) < log_error(before)


def test_without_encoded_covariates_the_decoders_alone_learn_the_new_batch(
    cells_of, register, train, train_more, query
):
    reference = train(register(cells_of(0, 1), batch_key="batch"), max_epochs=5)
    known = cells_of(2)
    known.obs["batch"] = "batch_0"

    def reconstruction_error(model: SCMVPModel) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the posterior stays as it is, so that the draws are the same
            return sum(model.get_reconstruction_error().values())

    before, model = untrained(query, reference), load(cells_of(2), reference)
    train_more(model, max_epochs=10, train_size=1.0, plan_kwargs={"lr": 2e-2})
    np.testing.assert_array_equal(
        model.get_latent_representation(), reference.get_latent_representation(known)
    )
    assert reconstruction_error(model) < reconstruction_error(before)


# -- what is refused ------------------------------------------------------------------------------


def test_query_with_nothing_new_is_refused(reference, cells_of):
    with pytest.raises(ValueError, match=r"got the batches `batch_0`, `batch_1` alone"):
        load(cells_of(1), reference)


def test_reference_that_has_not_been_trained_is_refused(cells_of, register, small, query):
    untrained = SCMVPModel(register(cells_of(0, 1), batch_key="batch"), **small)
    with pytest.raises(RuntimeError, match="`reference_model` must be trained"):
        load(query, untrained)


def test_reference_of_another_class_is_refused(query):
    with pytest.raises(TypeError, match="`reference_model` must be a trained SCMVPModel"):
        load(query, object())


@pytest.mark.parametrize(
    "option", ["registry", "inplace_subset_query_vars", "freeze_classifier", "transfer_batch"]
)
def test_option_that_would_do_nothing_is_refused(reference, query, option):
    with pytest.raises(TypeError, match=f"`{option}` is not offered: "):
        load(query, reference, **{option: True})


def test_fit_of_the_dispersions_is_refused_for_a_query(reference, query, train_more):
    model = load(query, reference)
    with pytest.raises(ValueError, match="`fit_dispersions` must be None or False for a query"):
        train_more(model, plan_kwargs={"fit_dispersions": True})


def test_fit_of_the_rates_is_refused_for_a_query(reference, query, train_more):
    model = load(query, reference)
    with pytest.raises(ValueError, match="`fit_rates` must be False for a query"):
        train_more(model, plan_kwargs={"fit_rates": True})


def test_new_labels_are_refused_and_unlabeled_cells_are_taken(cells_of, register, train, query):
    mdata = register(cells_of(0, 1), batch_key="batch", labels_key="cell_type")
    reference = train(mdata, max_epochs=1, architecture={"n_clusters": None})
    query.obs["cell_type"] = "new"
    before = dict(query.uns), list(query.obs)
    with pytest.raises(ValueError, match=r"`cell_type` must hold labels .* `new`. .*'Unknown'"):
        load(query, reference)
    assert (dict(query.uns), list(query.obs)) == before
    with pytest.raises((KeyError, ValueError), match="`atac_layer`|`modalities`") as refused:
        load(MuData({"rna": query["rna"].copy()}, obs=query.obs), reference)
    assert "`atac`" in str(refused.value)
    del query.obs["cell_type"]
    prepared = SCMVPModel.prepare_query_mudata(query, reference)
    assert (prepared.obs["cell_type"] == "Unknown").all()
    model = load(prepared, reference)
    assert list(model._cluster_names()) == list(reference._cluster_names())


# -- features -------------------------------------------------------------------------------------


def with_features(mdata: MuData, **names) -> MuData:
    mod = {key: mdata[key][:, names.get(key, slice(None))].copy() for key in mdata.mod}
    return MuData(mod, obs=mdata.obs)


def test_permuted_features_are_put_in_order_by_name_and_never_taken_as_they_are(
    reference, query, rng
):
    permuted = with_features(query, rna=rng.permutation(80), atac=rng.permutation(150))
    with pytest.raises(ValueError, match="`rna` has the features of the model in another order"):
        load(permuted, reference)
    prepared = SCMVPModel.prepare_query_mudata(permuted, reference)
    for key in ("rna", "atac"):
        assert prepared[key].var_names.equals(query[key].var_names)
        assert (prepared[key].X != query[key].X).nnz == 0
    load(prepared, reference)


def test_query_is_prepared_in_a_new_object_with_what_is_known_of_its_cells(reference, query):
    query.obs["whole"] = np.arange(float(query.n_obs))  # mudata would make integers of them
    query.obs["missing"] = np.where(np.arange(query.n_obs) < 3, np.nan, 1.0)
    query.obsp["distances"] = sparse.eye_array(query.n_obs, format="csr")
    prepared = SCMVPModel.prepare_query_mudata(query, reference, inplace=False)
    assert prepared is not query
    pd.testing.assert_frame_equal(prepared.obs, query.obs)
    assert (prepared.obsp["distances"] != query.obsp["distances"]).nnz == 0
    with pytest.raises(TypeError, match="`inplace` is not offered: data are never changed"):
        SCMVPModel.prepare_query_mudata(query, reference, inplace=True)


@pytest.mark.filterwarnings("ignore:`rna` lacks")
@pytest.mark.parametrize("first_gene", [0, 20])
def test_query_on_disk_is_prepared_in_memory(reference, query, tmp_path, first_gene):
    more = with_features(with_protein(query), rna=slice(first_gene, None))
    more.write(tmp_path / "query.h5mu")
    on_disk = mudata.read_h5mu(tmp_path / "query.h5mu", backed="r")
    found, expected = (
        SCMVPModel.prepare_query_mudata(mdata, reference) for mdata in (on_disk, more)
    )
    for key, adata in found.mod.items():
        assert not adata.isbacked
        assert (adata.X != expected[key].X).nnz == 0
    assert on_disk.isbacked
    load(found, reference)


@pytest.mark.filterwarnings("ignore:`(rna|atac)` lacks")
def test_missing_features_become_zeros_and_others_are_left_out(reference, query):
    few = with_features(query, rna=slice(20, None), atac=slice(None, 100))
    few["rna"].var_names = [*few["rna"].var_names[:-1], "another gene"]
    few["rna"].layers["more"] = few["rna"].X * 2
    few["rna"].obsp["distances"] = sparse.eye_array(few.n_obs, format="csr")
    prepared = SCMVPModel.prepare_query_mudata(few, reference)
    expected = query["rna"].X.toarray()
    expected[:, :20] = expected[:, -1] = 0
    np.testing.assert_array_equal(prepared["rna"].X.toarray(), expected)
    np.testing.assert_array_equal(prepared["rna"].layers["more"].toarray(), 2 * expected)
    assert prepared["rna"].X.dtype == query["rna"].X.dtype
    assert (prepared["rna"].obsp["distances"] != few["rna"].obsp["distances"]).nnz == 0
    assert list(few["rna"].var_names)[-1] == "another gene"
    load(prepared, reference)


@pytest.mark.filterwarnings("ignore:`rna` lacks")
@pytest.mark.parametrize("first_gene", [0, 20])
def test_raw_of_a_query_stays_as_it_is(reference, query, first_gene):
    query["rna"].varm["loadings"] = np.arange(160.0).reshape(80, 2)
    query["rna"].raw = query["rna"]
    few = with_features(query, rna=slice(first_gene, None))
    raw = SCMVPModel.prepare_query_mudata(few, reference)["rna"].raw
    pd.testing.assert_frame_equal(raw.var, query["rna"].var)
    assert (raw.X != query["rna"].X).nnz == 0
    np.testing.assert_array_equal(raw.varm["loadings"], query["rna"].varm["loadings"])


@pytest.mark.filterwarnings("ignore:`atac` lacks")
def test_padding_costs_the_memory_of_the_counts_and_not_of_a_matrix(reference, query):
    few = with_features(query, atac=slice(None, 30))
    padded = SCMVPModel.prepare_query_mudata(few, reference)["atac"].X
    assert sparse.issparse(padded)
    assert padded.nnz == padded.data.size == few["atac"].X.nnz


def test_missing_features_are_told(reference, query):
    few = with_features(query, rna=slice(2, None))
    with pytest.warns(UserWarning, match="`rna` lacks 2 of the 80 features of the reference"):
        SCMVPModel.prepare_query_mudata(few, reference)


@pytest.mark.filterwarnings("ignore:`rna` lacks")
def test_padded_query_can_be_written(reference, query, tmp_path):
    few = with_features(query, rna=slice(2, None))
    few["rna"].var["is_marker"] = few["rna"].var["marker_of"] != ""
    prepared = SCMVPModel.prepare_query_mudata(few, reference)
    prepared.write(tmp_path / "query.h5mu")
    read = mudata.read_h5mu(tmp_path / "query.h5mu")
    pd.testing.assert_frame_equal(read["rna"].var, prepared["rna"].var, check_dtype=False)
    for key in CHANNELS:
        assert (read[key].X != prepared[key].X).nnz == 0


def test_query_without_a_shared_feature_is_refused(reference, query):
    query["rna"].var_names = [f"x{name}" for name in query["rna"].var_names]
    query.update()
    with pytest.raises(ValueError, match="`rna` must share features with the reference"):
        SCMVPModel.prepare_query_mudata(query, reference)


@pytest.mark.parametrize("measured", CHANNELS)
def test_query_of_one_modality_is_embedded_and_decoded_as_from_this_modality(
    reference, cells_of, measured
):
    known = cells_of(0)
    one = MuData({measured: known[measured]}, obs=known.obs)
    [missing] = set(CHANNELS) - {measured}
    with pytest.warns(UserWarning, match=f"no modality `{missing}`, but `{measured}`: its cells"):
        prepared = SCMVPModel.prepare_query_mudata(one, reference)
    assert list(one.mod) == [measured]
    assert prepared[missing].X.nnz == 0
    with pytest.warns(UserWarning, match=f"have no counts in `{missing}`"):
        embedded = reference.get_latent_representation(prepared)
    np.testing.assert_array_equal(
        embedded, reference.get_latent_representation(known, modality=measured)
    )
    np.testing.assert_array_equal(
        reference.get_normalized_accessibility(prepared, from_modality=measured),
        reference.get_normalized_accessibility(known, from_modality=measured),
    )


@pytest.mark.parametrize("holder", [None, "atac"])
def test_size_factors_of_a_modality_that_the_query_lacks_are_one_and_the_others_its_own(
    make_mdata, register, train, rng, holder
):
    known = make_mdata()
    known.obs["rna_depth"] = rng.gamma(5, size=known.n_obs)
    (known if holder is None else known[holder]).obs["atac_depth"] = rng.gamma(5, size=known.n_obs)
    places = {"rna_layer": "rna", "atac_layer": "atac"}
    places |= {} if holder is None else {"atac_size_factor_key": holder}
    keys = {"rna_size_factor_key": "rna_depth", "atac_size_factor_key": "atac_depth"}
    reference = train(register(known, places, **keys), max_epochs=2)
    one = MuData({"rna": known["rna"]}, obs=known.obs[["rna_depth"]])
    with pytest.warns(UserWarning, match="no modality `atac`"):
        prepared = SCMVPModel.prepare_query_mudata(one, reference)
    table = (prepared if holder is None else prepared[holder]).obs
    assert (table["atac_depth"] == 1).all()
    with pytest.warns(UserWarning, match="have no counts in `atac`"):
        embedded = reference.get_latent_representation(prepared)
    expected = reference.get_latent_representation(known, modality="rna")
    np.testing.assert_array_equal(embedded, expected)
    # those of what was measured are the user's to give
    del one.obs["rna_depth"]
    with pytest.warns(UserWarning, match="no modality `atac`"):
        prepared = SCMVPModel.prepare_query_mudata(one, reference)
    with (
        pytest.warns(UserWarning, match="have no counts in `atac`"),
        pytest.raises(KeyError, match='`rna_size_factor_key="rna_depth"` is not a column'),
    ):
        reference.get_latent_representation(prepared)


def test_layer_of_the_counts_is_there_in_a_modality_that_the_query_lacks(
    cells_of, register, train
):
    mdata = cells_of(0)
    mdata["atac"].layers["counts"] = mdata["atac"].X.copy()
    reference = train(register(mdata, atac_layer="counts"), max_epochs=1)
    with pytest.warns(UserWarning, match="no modality `atac`"):
        prepared = SCMVPModel.prepare_query_mudata(MuData({"rna": mdata["rna"]}), reference)
    assert prepared["atac"].layers["counts"].nnz == 0
    with pytest.warns(UserWarning, match="have no counts in `atac`"):
        assert np.isfinite(reference.get_latent_representation(prepared)).all()


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_query_with_a_modality_of_another_spelling_is_asked_about_it(reference, query):
    misspelled = MuData({"rna": query["rna"], "ATAC": query["atac"]}, obs=query.obs)
    with pytest.warns(UserWarning, match="no modality `atac`, but .* Did you mean `ATAC`"):
        SCMVPModel.prepare_query_mudata(misspelled, reference)


def test_query_without_either_modality_is_refused(reference, query):
    with pytest.raises(KeyError, match="`rna`, which is not a modality of `mdata`"):
        SCMVPModel.prepare_query_mudata(MuData({"protein": query["rna"]}), reference)


def with_protein(mdata: MuData) -> MuData:
    protein = mdata["rna"][:, :3].copy()
    protein.var_names = ["CD3", "CD4", "CD8"]
    return MuData({"protein": protein, **mdata.mod}, obs=mdata.obs)


def test_modality_that_the_reference_does_not_have_is_kept_as_it_is(reference, query):
    more = with_protein(query)
    prepared = SCMVPModel.prepare_query_mudata(more, reference)
    assert set(prepared.mod) == {"protein", "rna", "atac"}
    assert (prepared["protein"].X != more["protein"].X).nnz == 0
    load(prepared, reference)


def test_further_modality_that_holds_columns_of_the_set_up_stays_the_callers(
    cells_of, register, train
):
    def with_tables(mdata: MuData, columns: list[str]) -> MuData:
        more = with_protein(mdata)
        more["protein"].obs["lane"] = mdata.obs["batch"]
        more["protein"].obs["factor"] = 2.0
        more["protein"].obs = more["protein"].obs[columns].copy()
        return more

    known = with_tables(cells_of(0, 1), ["lane", "factor"])
    modalities = {
        **{f"{name}_layer": name for name in CHANNELS},
        "batch_key": "protein",
        "rna_size_factor_key": "protein",
    }
    register(known, modalities, batch_key="lane", rna_size_factor_key="factor")
    reference = train(known, max_epochs=1)
    given = with_tables(cells_of(2), ["lane"])
    query = MuData({key: given[key] for key in ("protein", "atac")}, obs=given.obs)
    with pytest.warns(UserWarning, match="`rna`"):
        prepared = SCMVPModel.prepare_query_mudata(query, reference)
    with pytest.warns(UserWarning, match="120 of 120 cells have no counts in `rna`"):
        load(prepared, reference)
    assert list(query["protein"].obs) == ["lane"]


@pytest.mark.parametrize(
    ("keys", "new"),
    [
        ({"batch_key": "place"}, "north"),
        ({"batch_key": "batch", "categorical_covariate_keys": ["place"]}, "north"),
        ({"batch_key": "batch", "labels_key": "place"}, "Unknown"),
    ],
    ids=["batch", "covariate", "label"],
)
def test_new_categories_of_another_type_are_refused_and_those_of_the_same_are_not(
    cells_of, register, train, keys, new
):
    known, query = cells_of(0, 1), cells_of(2)
    known.obs["place"] = np.arange(known.n_obs) % 2
    reference = train(register(known, **keys), max_epochs=1, architecture={"n_clusters": None})
    query.obs["place"] = new
    with pytest.raises(ValueError, match="They are of type int64, and str in the data"):
        load(query, reference)
    query.obs["place"] = 1 if "labels_key" in keys else 2
    load(query, reference)


@pytest.mark.parametrize("holder", [None, "rna"])
def test_query_without_labels_for_a_reference_whose_labels_are_numbers_is_told_the_way_out(
    cells_of, register, train, train_more, query, holder
):
    def table(mdata: MuData) -> pd.DataFrame:
        return (mdata if holder is None else mdata[holder]).obs

    known = cells_of(0, 1)
    table(known)["label"] = np.arange(known.n_obs) % 3 + 4
    of_labels = {} if holder is None else {"labels_key": holder}
    modalities = {"rna_layer": "rna", "atac_layer": "atac", **of_labels}
    mdata = register(known, modalities, batch_key="batch", labels_key="label")
    reference = train(mdata, max_epochs=1, architecture={"n_clusters": None})
    with pytest.raises(ValueError, match='column "label".* type int, `4`, `5`, `6`') as error:
        SCMVPModel.prepare_query_mudata(query, reference)
    place = "mdata" if holder is None else f'mdata["{holder}"]'
    [way_out] = re.findall(f"`({re.escape(place)}.obs[^`]* = 4)`", str(error.value))
    exec(way_out, {"mdata": query})
    model = load(SCMVPModel.prepare_query_mudata(query, reference), reference)
    assert list(model._cluster_names()) == ["4", "5", "6"]
    with pytest.raises(ValueError, match="`label_weight` weighs labels, and a query learns from"):
        train_more(model, plan_kwargs={"label_weight": 1.0})
    train_more(model, max_epochs=1)
    # made up as they are, they are nothing to learn
    assert "label_surprise_train" in reference.history
    assert "label_surprise_train" not in model.history


def test_numbers_of_unlabeled_cells_are_filled_in_beside_labels_that_are_numbers(
    cells_of, register, train, query
):
    known = cells_of(0, 1)
    known.obs["label"] = np.arange(known.n_obs) % 3
    mdata = register(known, batch_key="batch", labels_key="label")
    architecture = {"n_clusters": None, "unlabeled_category": -1}
    reference = train(mdata, max_epochs=1, architecture=architecture)
    prepared = SCMVPModel.prepare_query_mudata(query, reference)
    assert set(prepared.obs["label"]) == {-1}
    load(prepared, reference)


def test_labels_are_filled_into_the_copy_of_a_modality_that_is_passed_on(
    cells_of, register, train
):
    known = with_protein(cells_of(0))
    known["protein"].obs["type"] = known.obs["cell_type"].astype(str)
    modalities = {"rna_layer": "rna", "atac_layer": "atac", "labels_key": "protein"}
    mdata = register(known, modalities, labels_key="type")
    reference = train(mdata, max_epochs=1, architecture={"n_clusters": None})
    query = with_protein(cells_of(1))
    prepared = SCMVPModel.prepare_query_mudata(query, reference)
    assert set(prepared["protein"].obs["type"]) == {"Unknown"}
    assert "type" not in query["protein"].obs


def test_names_of_the_reference_can_be_asked_for(reference, query):
    names = SCMVPModel.prepare_query_mudata(query, reference, return_reference_var_names=True)
    assert {key: len(of_modality) for key, of_modality in names.items()} == {
        "rna": 80,
        "atac": 150,
    }


# -- vectors of batches ---------------------------------------------------------------------------


def test_cells_of_a_batch_share_a_vector_that_has_been_learned(
    cells_of, register, train, train_more, query, tmp_path
):
    mdata = register(cells_of(0, 1), batch_key="batch")
    reference = train(mdata, architecture={"batch_representation": "embedding"})
    vectors = reference.get_batch_representation()
    assert vectors.shape == (mdata.n_obs, 5)
    assert len(np.unique(vectors, axis=0)) == 2
    reference.save(tmp_path / "reference", save_anndata=True)
    loaded = SCMVPModel.load(tmp_path / "reference")
    np.testing.assert_array_equal(loaded.get_batch_representation(indices=[3]), vectors[[3]])

    model = load(query, reference)
    start = model.module.batch_vectors[2].tolist()
    train_more(model)
    assert model.get_batch_representation(indices=[0])[0].tolist() != start
    np.testing.assert_array_equal(model.get_batch_representation(cells_of(0, 1)), vectors)


def test_model_without_vectors_says_how_to_get_them(reference):
    with pytest.raises(ValueError, match='needs `batch_representation="embedding"`'):
        reference.get_batch_representation()
