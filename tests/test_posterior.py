"""What a trained model says of cells: embeddings, clusters and denoised profiles."""

import re
from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from mudata import MuData
from torch.distributions import Normal

from scmvp_scvi import SCMVPModel
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi.distributions._cubature import cubature_points

N_CELLS, N_GENES, N_PEAKS, N_LATENT, N_CLUSTERS = 300, 80, 150, 5, 4


@pytest.fixture(scope="module")
def latent(trained_model) -> np.ndarray:
    return trained_model.get_latent_representation()


@pytest.fixture(scope="module")
def expression(trained_model) -> pd.DataFrame:
    return trained_model.get_normalized_expression()


@pytest.fixture(scope="module")
def accessibility(trained_model) -> pd.DataFrame:
    return trained_model.get_normalized_accessibility()


@pytest.fixture
def some_cells(mdata) -> MuData:
    """Cells 30 to 229 of the training data, as data of their own."""
    with without_pulling():
        modalities = {key: mdata[key][30:230].copy() for key in ("rna", "atac")}
        return MuData(modalities, obs=mdata.obs[["batch"]].iloc[30:230].copy())


@pytest.fixture(scope="module")
def with_empty_cells(make_mdata, register, train) -> SCMVPModel:
    """Model of data where some cells lack RNA and others ATAC."""
    mdata = make_mdata(missing_rna=0.1, missing_atac=0.1)
    with pytest.warns(UserWarning, match="30 of 300 cells have no counts in"):
        register(mdata)
    return train(mdata, max_epochs=2)


def shuffled(adata, rng):
    return adata[:, rng.permutation(adata.n_vars)].copy()


# -- embedding ------------------------------------------------------------------------------------


def test_latent_has_a_row_a_cell(latent):
    assert latent.shape == (N_CELLS, N_LATENT)
    assert np.isfinite(latent).all()


def test_latent_is_the_same_twice(trained_model, latent):
    np.testing.assert_array_equal(trained_model.get_latent_representation(), latent)


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_latent_does_not_depend_on_the_batch_size(trained_model, latent, batch_size):
    found = trained_model.get_latent_representation(batch_size=batch_size)
    np.testing.assert_allclose(found, latent, atol=1e-5)


@pytest.mark.parametrize("kind", [list, np.array, tuple])
def test_latent_keeps_the_order_of_the_indices(trained_model, latent, kind):
    rows = [17, 3, 250, 4]
    found = trained_model.get_latent_representation(indices=kind(rows))
    np.testing.assert_allclose(found, latent[rows], atol=1e-5)


def test_latent_takes_a_boolean_mask(trained_model, latent, mdata):
    mask = (mdata.obs["cell_type"].cat.codes == 1).to_numpy()
    found = trained_model.get_latent_representation(indices=mask)
    np.testing.assert_allclose(found, latent[mask], atol=1e-5)


def test_cell_that_does_not_exist_is_refused(trained_model):
    with pytest.raises(
        ValueError, match=r"`indices` must lie between 0 and 299, got values.* 300"
    ):
        trained_model.get_latent_representation(indices=[0, 300])


def test_new_data_give_the_latent_of_the_same_training_cells(trained_model, latent, some_cells):
    found = trained_model.get_latent_representation(some_cells)
    np.testing.assert_allclose(found, latent[30:230], atol=1e-5)


def test_new_data_take_indices_of_their_own(trained_model, latent, some_cells):
    found = trained_model.get_latent_representation(some_cells, indices=[5, 2])
    np.testing.assert_allclose(found, latent[[35, 32]], atol=1e-5)


def test_return_dist_gives_mean_and_variance(trained_model, latent):
    mean, variance = trained_model.get_latent_representation(return_dist=True)
    np.testing.assert_array_equal(mean, latent)
    assert variance.shape == latent.shape
    assert (variance > 0).all()


def test_draws_of_the_latent_have_the_spread_that_return_dist_says(trained_model):
    mean, variance = trained_model.get_latent_representation(return_dist=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = trained_model.get_latent_representation(give_mean=False)
    # 1,500 standard normal numbers: five standard errors of their mean square
    standardised = (draw - mean) / np.sqrt(variance)
    assert np.mean(standardised**2) == pytest.approx(1, abs=5 * np.sqrt(2 / 1_500))


def test_dataloader_takes_the_place_of_data(trained_model, latent, mdata):
    loader = trained_model._make_data_loader(mdata, indices=np.arange(20))
    found = trained_model.get_latent_representation(dataloader=loader)
    np.testing.assert_allclose(found, latent[:20], atol=1e-5)


def test_dataloader_without_minibatches_is_refused(trained_model):
    with pytest.raises(ValueError, match="`dataloader` must yield at least one minibatch"):
        trained_model.get_latent_representation(dataloader=[])


def test_marginal_likelihood_takes_a_dataloader(trained_model, mdata):
    loader = trained_model._make_data_loader(mdata, indices=np.arange(20))
    found = []
    for cells in ({"dataloader": loader}, {"indices": np.arange(20)}):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found.append(trained_model.get_marginal_ll(**cells, n_mc_samples=3, return_mean=False))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("method", ["get_elbo", "get_reconstruction_error", "get_marginal_ll"])
def test_likelihoods_take_indices_as_embeddings_do(trained_model, mdata, method):
    compute = getattr(trained_model, method)
    mask = np.arange(N_CELLS) % 30 == 0
    found = compute(indices=mask.tolist(), return_mean=False)
    lengths = [len(part) for part in (found.values() if isinstance(found, dict) else [found])]
    assert set(lengths) == {10}
    with pytest.raises(ValueError, match="`indices` must lie between 0 and 299"):
        compute(indices=[0, N_CELLS])
    loader = trained_model._make_data_loader(mdata)
    with pytest.raises(ValueError, match="`dataloader` brings its own cells"):
        compute(dataloader=loader, indices=[1])


def test_dataloader_together_with_indices_is_refused(trained_model, mdata):
    loader = trained_model._make_data_loader(mdata)
    with pytest.raises(ValueError, match="`dataloader` brings its own cells"):
        trained_model.get_latent_representation(dataloader=loader, indices=[1])


def test_channel_alone_ignores_the_other_modality(trained_model, some_cells):
    expected = trained_model.get_latent_representation(some_cells, modality="rna")
    changed = some_cells.copy()
    changed["atac"].X = changed["atac"].X + sp.csr_matrix(np.eye(200, N_PEAKS, dtype="float32"))
    found = trained_model.get_latent_representation(changed, modality="rna")
    np.testing.assert_array_equal(found, expected)
    joint = trained_model.get_latent_representation(changed)
    assert not np.allclose(joint, trained_model.get_latent_representation(some_cells))


def test_unknown_modality_is_refused(trained_model):
    with pytest.raises(ValueError, match="`modality` must be one of 'joint', 'rna', 'atac'"):
        trained_model.get_latent_representation(modality="RNA")


def test_single_channel_of_empty_cells_is_warned_about(with_empty_cells):
    with pytest.warns(UserWarning, match="30 cells have no atac counts"):
        with_empty_cells.get_latent_representation(modality="atac")


def test_joint_embedding_of_empty_cells_is_that_of_the_other_channel(with_empty_cells):
    joint = with_empty_cells.get_latent_representation()
    with pytest.warns(UserWarning, match="30 cells have no rna counts"):
        rna = with_empty_cells.get_latent_representation(modality="rna")
    empty = with_empty_cells.adata.obs["atac_missing"].to_numpy()
    np.testing.assert_array_equal(joint[empty], rna[empty])


def test_outputs_of_empty_cells_are_finite(with_empty_cells):
    outputs = (
        with_empty_cells.get_latent_representation(),
        with_empty_cells.get_cluster_probabilities(),
        with_empty_cells.get_normalized_expression(),
        with_empty_cells.get_normalized_accessibility(),
        with_empty_cells.get_elbo(return_mean=False),
    )
    assert all(np.isfinite(np.asarray(output)).all() for output in outputs)


# -- new data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_new_data_with_permuted_features_are_refused(trained_model, some_cells, rng, modality):
    with without_pulling():
        modalities = {**some_cells.mod, modality: shuffled(some_cells[modality], rng)}
        permuted = MuData(modalities, obs=some_cells.obs)
    with pytest.raises(ValueError, match=f"`{modality}` has the features .* in another order"):
        trained_model.get_latent_representation(permuted)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_new_data_with_missing_features_are_refused(trained_model, some_cells, modality):
    with without_pulling():
        modalities = {**some_cells.mod, modality: some_cells[modality][:, 1:].copy()}
        missing = MuData(modalities, obs=some_cells.obs)
    with pytest.raises(ValueError, match=rf"`{modality}` must have the \d+ .* 1 are missing"):
        trained_model.get_latent_representation(missing)


def test_new_data_with_permuted_cells_are_refused(trained_model, some_cells, rng):
    with without_pulling():
        atac = some_cells["atac"][rng.permutation(200)].copy()
        permuted = MuData({"rna": some_cells["rna"], "atac": atac}, obs=some_cells.obs)
    with pytest.raises(ValueError, match="hold the same 200 cells in different orders"):
        trained_model.get_latent_representation(permuted)


@pytest.mark.parametrize("changed", ["rna features", "atac cells", "rna values"])
def test_copies_of_registered_data_are_checked_as_new_data_are(trained_model, mdata, rng, changed):
    key, what = changed.split()
    part = mdata[key].copy()
    order = rng.permutation(part.n_vars if what == "features" else part.n_obs)
    if what == "values":
        part.X = part.X * 0.37
    else:
        part = part[:, order].copy() if what == "features" else part[order].copy()
    copy = mdata.copy()
    copy.mod[key] = part
    with pytest.raises(ValueError, match=f"`{key}|different orders"):
        trained_model.get_latent_representation(copy)


def test_copies_of_registered_data_give_the_same_answers(trained_model, mdata, latent):
    np.testing.assert_array_equal(trained_model.get_latent_representation(mdata.copy()), latent)
    some = trained_model.get_latent_representation(mdata[20:50].copy())
    np.testing.assert_allclose(some, latent[20:50], rtol=1e-4, atol=1e-5)


def test_clusters_of_a_checkpoint_from_before_the_mixture_are_refused(make_mdata, register, train):
    model = train(register(make_mdata()), max_epochs=1)
    model.module.prior.is_fitted.fill_(False)
    with pytest.raises(RuntimeError, match="before the mixture was fitted.*`mixture_start`"):
        model.predict_clusters()


def test_new_data_without_the_batch_are_refused(trained_model, some_cells):
    del some_cells.obs["batch"]
    with pytest.raises(KeyError, match=r"`batch_key=\"batch\"` is not a column of `mdata\.obs`"):
        trained_model.get_latent_representation(some_cells)


@pytest.mark.parametrize("unknown", ["elsewhere", 0])  # scvi-tools passes the zero
def test_new_data_of_an_unknown_batch_are_refused(trained_model, some_cells, unknown):
    some_cells.obs["batch"] = unknown
    known = ", ".join(f"`{name}`" for name in sorted(set(trained_model.adata.obs["batch"])))
    with pytest.raises(ValueError, match=f"`batch_key` .* {known}, got `{unknown}`.*load_query"):
        trained_model.get_latent_representation(some_cells)


@pytest.mark.parametrize(
    ("column", "argument"), [("site", "categorical_covariate_keys"), ("cell_type", "labels_key")]
)
def test_new_data_of_other_unknown_categories_are_refused(
    make_mdata, register, train, column, argument
):
    def with_sites(mdata: MuData) -> MuData:
        mdata.obs["site"] = np.where(np.arange(mdata.n_obs) % 2 == 0, "east", "west")
        return mdata

    keys = {"categorical_covariate_keys": ["site"], "labels_key": "cell_type"}
    mdata = register(with_sites(make_mdata()), **keys)
    model = train(mdata, max_epochs=1, architecture={"n_clusters": None})
    new = with_sites(make_mdata())
    new.obs[column] = "elsewhere"
    with pytest.raises(ValueError, match=f"`{column}`, `{argument}` of .* got `elsewhere`"):
        model.get_latent_representation(new)
    # as the message has it for labels, and for a covariate that means a known one
    new.obs[column] = mdata.obs[column].iloc[0]
    assert np.isfinite(model.get_latent_representation(new)).all()


def test_known_categories_of_another_type_are_told_apart(make_mdata, register, train):
    mdata = make_mdata()
    mdata.obs["donor"] = np.arange(mdata.n_obs) % 2
    model = train(register(mdata, batch_key="donor"), max_epochs=1)
    new = make_mdata()
    new.obs["donor"] = (np.arange(new.n_obs) % 2).astype(str)
    with pytest.raises(ValueError, match="got `0`, `1`. They are of type int64, and str in"):
        model.get_latent_representation(new)


@pytest.mark.parametrize("added", [[], [0, 1]], ids=["another order", "more"])
def test_way_out_of_other_features_brings_those_of_the_model(trained_model, some_cells, added):
    latent = trained_model.get_latent_representation(some_cells)
    more = some_cells["atac"][:, added].copy()
    more.var_names = [f"chrM:{i}-{i + 5}" for i in range(len(added))]
    permuted = ad.concat([some_cells["atac"][:, ::-1], more], axis=1, merge="first")
    other = MuData({"rna": some_cells["rna"].copy(), "atac": permuted})
    other.obs = some_cells.obs.copy()
    with pytest.raises(ValueError, match="features of the model") as error:
        trained_model.get_latent_representation(other)
    [line] = re.findall("`(mdata = [^`]*)`", str(error.value))
    scope = {"mdata": other, "model": trained_model, "SCMVPModel": SCMVPModel}
    exec(line, scope)
    found = trained_model.get_latent_representation(scope["mdata"])
    np.testing.assert_allclose(found, latent, rtol=1e-4, atol=1e-5)


def test_anndata_is_refused_as_new_data(trained_model, some_cells):
    with pytest.raises(TypeError, match="`mdata` must be a MuData .* got an AnnData"):
        trained_model.get_latent_representation(some_cells["rna"])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("get_normalized_expression", {"from_modality": "atac"}),
        ("get_log_normalized_expression", {"own_counts": True}),
        ("get_normalized_accessibility", {}),
    ],
)
def test_rows_in_the_place_of_the_data_are_refused(trained_model, method, options):
    with pytest.raises(TypeError, match="`mdata` must be a MuData .* got a list"):
        getattr(trained_model, method)([0, 1], **options)


@pytest.mark.parametrize("modality", ["joint", "rna"])
def test_choice_that_leaves_no_cell_is_refused(trained_model, mdata, modality):
    none = mdata[mdata.obs["batch"] == "nowhere"]
    with pytest.raises(ValueError, match="`rna` must have at least one cell, got none"):
        trained_model.get_latent_representation(none, modality=modality)


def test_normalized_new_data_are_refused(trained_model, some_cells):
    some_cells["rna"].X = some_cells["rna"].X.multiply(0.3).tocsr()
    with pytest.raises(ValueError, match="`rna_layer`.* must hold raw counts"):
        trained_model.get_normalized_expression(some_cells)


def test_new_data_are_not_asked_to_drop_features_that_the_model_needs(trained_model, mdata):
    with without_pulling():
        modalities = {key: mdata[key][50:80].copy() for key in ("rna", "atac")}
        few = MuData(modalities, obs=mdata.obs[["batch"]].iloc[50:80].copy())
    assert (few["atac"].X.sum(0) == 0).any()
    assert trained_model.get_latent_representation(few).shape == (30, N_LATENT)


def test_copies_of_views_are_not_kept(trained_model, make_mdata):
    data = make_mdata()
    managers = trained_model._per_instance_manager_store[trained_model.id]
    trained_model.get_latent_representation(data[:50])
    n_managers = len(managers)
    for start in (0, 10, 20):
        trained_model.get_normalized_expression(data[start : start + 40])
    assert len(managers) == n_managers


@pytest.mark.parametrize("place", ["data", "modality"])
def test_views_are_embedded_as_their_copies_are(trained_model, make_mdata, latent, place):
    mdata = make_mdata()
    if place == "data":
        cells = mdata[5:25]
    else:
        cells = MuData({key: adata[5:25] for key, adata in mdata.mod.items()})
        cells.obs = mdata.obs.iloc[5:25]
        assert cells["rna"].is_view
    found = trained_model.get_latent_representation(cells)
    np.testing.assert_allclose(found, latent[5:25], atol=1e-5)
    table = trained_model.get_normalized_expression(cells, gene_list=["gene_1"])
    assert table.index.equals(mdata.obs_names[5:25])


def on_disk_of(mdata: MuData, folder: Path) -> MuData:
    mdata.write(folder / "cells.h5mu")
    return mudata.read_h5mu(folder / "cells.h5mu", backed="r")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_data_on_disk_are_read_in_ascending_order_alone(
    trained_model, make_mdata, latent, tmp_path
):
    on_disk = on_disk_of(make_mdata(), tmp_path)
    with pytest.raises(ValueError, match="`indices` must ascend without repeats"):
        trained_model.get_latent_representation(on_disk, indices=[50, 3, 20])
    found = trained_model.get_latent_representation(on_disk, indices=[3, 20, 50])
    np.testing.assert_allclose(found, latent[[3, 20, 50]], atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_view_of_data_on_disk_is_refused_with_the_indices_to_pass(
    trained_model, make_mdata, tmp_path
):
    on_disk = on_disk_of(make_mdata(), tmp_path)
    with pytest.raises(ValueError, match="view of data on disk.* Pass .* cells as `indices`"):
        trained_model.get_latent_representation(on_disk[:10])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_columns_on_disk_are_read_with_a_warning(trained_model, make_mdata, latent, tmp_path):
    written = make_mdata()
    written["atac"].X = written["atac"].X.tocsc()
    on_disk = on_disk_of(written, tmp_path)
    with pytest.warns(UserWarning, match="`atac_layer`: the counts of `atac` are a csc_matrix on"):
        found = trained_model.get_latent_representation(on_disk, indices=[3, 20])
    np.testing.assert_allclose(found, latent[[3, 20]], atol=1e-5)


def test_new_data_are_left_alone(trained_model, some_cells):
    counts = {key: some_cells[key].X.copy() for key in ("rna", "atac")}
    columns = some_cells.obs.columns
    trained_model.get_latent_representation(some_cells)
    for key, before in counts.items():
        assert (some_cells[key].X != before).nnz == 0
    assert all(name.startswith("_scvi_") for name in some_cells.obs.columns.difference(columns))


# -- clusters -------------------------------------------------------------------------------------


def test_cluster_probabilities_are_named_by_cell_and_component(trained_model, mdata):
    probs = trained_model.get_cluster_probabilities()
    assert probs.index.equals(mdata.obs_names)
    assert list(probs.columns) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("n_samples", [None, 1, 5])
def test_cluster_probabilities_of_a_cell_sum_to_one(trained_model, n_samples):
    probs = trained_model.get_cluster_probabilities(n_samples=n_samples).to_numpy()
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)


def test_cluster_probabilities_follow_bayes_rule_at_the_latent_mean(trained_model, latent):
    prior = trained_model.module.prior
    means, variances, weights = (
        values.detach().numpy()[:N_CLUSTERS]
        for values in (prior.means, prior.variances, prior.log_weights.exp())
    )
    squares = ((latent[:, None] - means) ** 2 / variances + np.log(variances)).sum(-1)
    joint = np.exp(-0.5 * squares) * weights
    expected = joint / joint.sum(1, keepdims=True)
    found = trained_model.get_cluster_probabilities()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_cluster_probabilities_of_draws_are_their_mean_over_the_posterior(trained_model):
    mean, deviation = trained_model.get_latent_representation(return_dist=True)
    draws = Normal(torch.as_tensor(mean), torch.as_tensor(deviation).sqrt()).sample((500,))
    with torch.no_grad():
        expected = trained_model.module.prior.cluster_probs(draws).mean(0)[:, :N_CLUSTERS].numpy()
    found = trained_model.get_cluster_probabilities(n_samples=500).to_numpy()
    # five standard errors of a difference of means of values between 0 and 1
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(2 * 0.25 / 500))
    at_the_mean = trained_model.get_cluster_probabilities().to_numpy()
    assert np.abs(found - expected).mean() < np.abs(at_the_mean - expected).mean() / 2


def test_predicted_cluster_is_the_most_probable_one(trained_model):
    clusters = trained_model.predict_clusters()
    probs = trained_model.get_cluster_probabilities()
    assert list(clusters) == list(probs.idxmax(axis=1))
    assert list(clusters.cat.categories) == list(probs.columns)


def test_predicted_clusters_follow_the_order_of_the_indices(trained_model, mdata):
    clusters = trained_model.predict_clusters(indices=[9, 1])
    assert list(clusters.index) == list(mdata.obs_names[[9, 1]])
    assert list(clusters) == list(trained_model.predict_clusters().iloc[[9, 1]])


def test_number_of_draws_must_be_positive(trained_model):
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        trained_model.get_cluster_probabilities(n_samples=0)
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, got 0"):
        trained_model.get_normalized_expression(n_samples=0)


# -- denoised profiles ----------------------------------------------------------------------------


def test_denoised_profiles_are_named_by_cell_and_feature(expression, accessibility, mdata):
    for found, modality in ((expression, "rna"), (accessibility, "atac")):
        assert found.index.equals(mdata.obs_names)
        assert list(found.columns) == list(mdata[modality].var_names)


def test_denoised_profiles_are_the_same_twice(trained_model, expression, accessibility):
    pd.testing.assert_frame_equal(trained_model.get_normalized_expression(), expression)
    pd.testing.assert_frame_equal(trained_model.get_normalized_accessibility(), accessibility)


def test_denoised_profiles_do_not_depend_on_the_batch_size(
    trained_model, expression, accessibility
):
    found = trained_model.get_normalized_expression(batch_size=7)
    np.testing.assert_allclose(found, expression, rtol=1e-4)
    found = trained_model.get_normalized_accessibility(batch_size=7)
    np.testing.assert_allclose(found, accessibility, rtol=1e-4)


def test_denoised_profiles_follow_the_order_of_the_indices(
    trained_model, expression, accessibility
):
    rows = [17, 3, 250]
    found = trained_model.get_normalized_expression(indices=rows)
    pd.testing.assert_frame_equal(found, expression.iloc[rows], rtol=1e-4)
    found = trained_model.get_normalized_accessibility(indices=rows)
    pd.testing.assert_frame_equal(found, accessibility.iloc[rows], rtol=1e-4)


def test_denoised_profiles_of_new_data_are_those_of_the_training_cells(
    trained_model, some_cells, expression, accessibility
):
    found = trained_model.get_normalized_expression(some_cells)
    np.testing.assert_allclose(found, expression.iloc[30:230], rtol=1e-4)
    found = trained_model.get_normalized_accessibility(some_cells)
    np.testing.assert_allclose(found, accessibility.iloc[30:230], rtol=1e-4)


def test_denoised_expression_sums_to_one(expression):
    np.testing.assert_allclose(expression.sum(axis=1), 1, rtol=1e-4)


def test_library_size_scales_the_profile(trained_model, expression, accessibility):
    found = trained_model.get_normalized_expression(library_size=1e4)
    np.testing.assert_allclose(found, 1e4 * expression, rtol=1e-5)
    found = trained_model.get_normalized_accessibility(library_size=1e4)
    np.testing.assert_allclose(found, 1e4 * accessibility, rtol=1e-5)


def test_observed_library_size_is_the_depth_of_the_cell(
    trained_model, mdata, expression, accessibility
):
    found = trained_model.get_normalized_expression(library_size="observed")
    depth = mdata["rna"].X.sum(1).A1[:, None]
    np.testing.assert_allclose(found, depth * expression, rtol=1e-4)
    found = trained_model.get_normalized_accessibility(library_size="observed")
    depth = mdata["atac"].X.sum(1).A1[:, None]
    np.testing.assert_allclose(found, depth * accessibility, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "missing"),
    [("get_normalized_expression", "rna"), ("get_normalized_accessibility", "atac")],
)
def test_cells_without_an_observed_depth_have_one_and_a_warning(with_empty_cells, method, missing):
    with pytest.warns(UserWarning, match="has no depth for 30 cells"):
        found = getattr(with_empty_cells, method)(library_size="observed")
    shares = getattr(with_empty_cells, method)()
    empty = with_empty_cells.adata.obs[f"{missing}_missing"].to_numpy()
    np.testing.assert_allclose(found[empty], shares[empty], rtol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_library_size_may_be_a_number_of_numpy(trained_model, expression, kind):
    found = trained_model.get_normalized_expression(library_size=kind(100))
    np.testing.assert_allclose(found, 100 * expression, rtol=1e-5)


@pytest.mark.parametrize("library_size", [0, -1, np.nan, np.inf, "latent", None])
def test_library_size_that_is_no_depth_is_refused(trained_model, library_size):
    with pytest.raises((TypeError, ValueError), match="`library_size` must be a .*number"):
        trained_model.get_normalized_expression(library_size=library_size)


@pytest.mark.parametrize("depth", ["observed", 700.0, None])
def test_log_normalised_expression_is_the_mean_of_that_of_drawn_counts(
    trained_model, mdata, rng, depth
):
    expression = trained_model.get_normalized_expression(n_points=1)
    depths = np.asarray(mdata["rna"].X.sum(1))
    known = {"observed": depths[:3], None: np.median(depths)}.get(depth, depth)
    theta = trained_model.module.rna_decoder.log_inverse_dispersion.detach()[0].exp().numpy()
    mean = expression.to_numpy(dtype=float)[:3] * known
    # numpy's negative binomial: numbers of failures of probability theta / (theta + mean)
    draws = rng.negative_binomial(theta, theta / (theta + mean), (20_000, *mean.shape))
    logs = np.log1p(1e4 * draws / known)
    found = trained_model.get_log_normalized_expression(
        indices=[0, 1, 2], library_size=depth, n_points=1
    )
    errors = logs.std(0) / np.sqrt(len(draws))
    assert (np.abs(found - logs.mean(0)) < 5 * errors + 1e-6).to_numpy().all()


def test_log_normalised_expression_is_named_and_chosen_as_expression_is(trained_model, mdata):
    whole = trained_model.get_log_normalized_expression()
    assert whole.index.equals(mdata.obs_names)
    assert whole.columns.equals(mdata["rna"].var_names)
    genes = list(mdata["rna"].var_names[[5, 2]])
    some = trained_model.get_log_normalized_expression(indices=[9, 4], gene_list=genes)
    pd.testing.assert_frame_equal(some, whole.iloc[[9, 4]][genes], rtol=1e-5)


def test_log_normalised_expression_of_cells_without_rna_is_at_the_median_depth(with_empty_cells):
    denoise = with_empty_cells.get_log_normalized_expression
    is_empty = np.asarray(with_empty_cells.adata["rna"].X.sum(1))[:, 0] == 0
    with pytest.warns(UserWarning, match="no depth for 30 .* the median of the training cells"):
        own = denoise(library_size="observed")
    at_median = denoise()
    pd.testing.assert_frame_equal(own[is_empty], at_median[is_empty])
    assert not np.allclose(own[~is_empty], at_median[~is_empty], rtol=1e-2)


def test_target_sum_is_that_of_the_log_normalised_counts(trained_model):
    # at small values the logarithm is linear
    small, smaller = (
        trained_model.get_log_normalized_expression(target_sum=target) for target in (1e-3, 1e-4)
    )
    np.testing.assert_allclose(small, 10 * smaller, rtol=1e-2)


@pytest.mark.parametrize("target_sum", [0, -1.0, np.nan, np.inf])
def test_target_sum_that_is_no_positive_number_is_refused(trained_model, target_sum):
    with pytest.raises(ValueError, match="`target_sum` must be"):
        trained_model.get_log_normalized_expression(target_sum=target_sum)


def test_gene_list_chooses_columns_of_the_whole_in_its_order(trained_model, expression):
    genes = list(expression.columns[[40, 3, 77]])
    found = trained_model.get_normalized_expression(gene_list=genes)
    pd.testing.assert_frame_equal(found, expression[genes], rtol=1e-5)


def test_region_list_chooses_columns_of_the_whole_in_its_order(trained_model, accessibility):
    regions = list(accessibility.columns[[140, 3, 77]])
    found = trained_model.get_normalized_accessibility(region_list=regions)
    pd.testing.assert_frame_equal(found, accessibility[regions], rtol=1e-5)


def test_unknown_gene_is_refused(trained_model):
    with pytest.raises(KeyError, match="`gene_list`: 1 of 1 names are unknown: `nobody`"):
        trained_model.get_normalized_expression(gene_list=["nobody"])


def test_unknown_region_is_refused(trained_model):
    with pytest.raises(KeyError, match="`region_list`: 1 of 1 names are unknown: `chr0:1-2`"):
        trained_model.get_normalized_accessibility(region_list=["chr0:1-2"])


@pytest.mark.parametrize("n_points", [1, 4])
@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_profiles_are_the_mean_of_those_decoded_at_fixed_points_of_the_posterior(
    trained_model, modality, n_points
):
    module, law = trained_model.module, {"rna": "px", "atac": "py"}[modality]
    (tensors,) = trained_model._make_data_loader(trained_model.adata, batch_size=N_CELLS)
    with torch.inference_mode():
        outputs = module.inference(**module._get_inference_input(tensors))
        qz, decoded = outputs["qz"], []
        for point in cubature_points(n_points, N_LATENT):
            outputs["z"] = qz.loc + qz.scale * point
            laws = module.generative(**module._get_generative_input(tensors, outputs))
            of_counts = laws[law].distribution()
            decoded.append((of_counts.mean if modality == "rna" else of_counts.rate).numpy())
    found = {
        "rna": trained_model.get_normalized_expression,
        "atac": trained_model.get_normalized_accessibility,
    }[modality](library_size="observed", n_points=n_points)
    np.testing.assert_allclose(found, np.mean(decoded, axis=0), rtol=1e-4)


@pytest.mark.parametrize("method", ["get_normalized_expression", "get_log_normalized_expression"])
def test_fixed_points_are_nearer_the_mean_over_the_posterior_than_its_mean_is(
    trained_model, method
):
    decode = getattr(trained_model, method)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        truth = decode(n_samples=400)
    by_points, at_mean = (
        np.abs(np.log(decode(n_points=n) / truth)).to_numpy().mean() for n in (8, 1)
    )
    assert by_points < 0.5 * at_mean


@pytest.mark.parametrize("n_points", [0, 3, 2.0])
def test_number_of_points_without_pairs_is_refused(trained_model, n_points):
    with pytest.raises((TypeError, ValueError), match="`n_points` must be"):
        trained_model.get_normalized_expression(n_points=n_points)


def test_draws_that_are_not_averaged_have_an_axis_in_front(trained_model):
    draws = {"n_samples": 3, "return_mean": False, "indices": np.arange(20)}
    expression = trained_model.get_normalized_expression(**draws)
    assert expression.shape == (3, 20, N_GENES)
    accessibility = trained_model.get_normalized_accessibility(**draws, batch_size=8)
    assert accessibility.shape == (3, 20, N_PEAKS)


def test_one_draw_is_a_table_as_in_scvi_tools(trained_model, mdata):
    draw = {"n_samples": 1, "return_mean": False, "indices": np.arange(20)}
    found = trained_model.get_normalized_expression(**draw, batch_size=8)
    assert found.index.equals(mdata.obs_names[:20])
    assert found.columns.equals(mdata["rna"].var_names)
    sparse_draw = trained_model.get_normalized_accessibility(**draw, threshold=0.01)
    assert sparse_draw.shape == (20, N_PEAKS)


def test_averaged_draws_are_the_mean_of_the_draws(trained_model, mdata):
    found = []
    for return_mean in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found.append(
                trained_model.get_normalized_expression(n_samples=4, return_mean=return_mean)
            )
    assert found[0].index.equals(mdata.obs_names)
    np.testing.assert_allclose(found[0], found[1].mean(0), rtol=1e-5)
    assert (found[1].std(0) > 0).any()


def test_transform_batch_of_a_cells_own_batch_changes_nothing(trained_model, mdata, expression):
    name = mdata.obs["batch"].cat.categories[0]
    found = trained_model.get_normalized_expression(transform_batch=name)
    own = (mdata.obs["batch"] == name).to_numpy()
    np.testing.assert_allclose(found[own], expression[own], rtol=1e-5)
    assert not np.allclose(found[~own], expression[~own], rtol=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        "get_normalized_expression",
        "get_log_normalized_expression",
        "get_normalized_accessibility",
    ],
)
def test_transform_batch_of_several_batches_is_their_average(trained_model, mdata, method):
    names = list(mdata.obs["batch"].cat.categories)
    denoise = getattr(trained_model, method)
    each = [denoise(transform_batch=name) for name in names]
    np.testing.assert_allclose(denoise(transform_batch=names), sum(each) / 2, rtol=1e-5)
    np.testing.assert_allclose(denoise(transform_batch=names[:1]), each[0], rtol=1e-6)


def test_unknown_batch_is_refused(trained_model):
    with pytest.raises(ValueError, match="`transform_batch` must be one of .*got 'elsewhere'"):
        trained_model.get_normalized_expression(transform_batch="elsewhere")


def test_batches_named_by_numbers_are_found(make_mdata, register, train):
    mdata = make_mdata()
    mdata.obs["run"] = np.arange(300) % 2 + 7
    model = train(register(mdata, batch_key="run"), max_epochs=1)
    plain = model.get_normalized_expression(transform_batch=8)
    numpy = model.get_normalized_expression(transform_batch=mdata.obs["run"].max())
    pd.testing.assert_frame_equal(numpy, plain)


def test_empty_list_of_batches_is_refused(trained_model):
    with pytest.raises(ValueError, match="`transform_batch`"):
        trained_model.get_normalized_expression(transform_batch=[])


@pytest.mark.parametrize("return_numpy", [False, True])
def test_threshold_gives_the_sparse_form_of_the_thresholded_profile(
    trained_model, accessibility, return_numpy
):
    cut = float(np.quantile(accessibility, 0.7))
    found = trained_model.get_normalized_accessibility(threshold=cut, return_numpy=return_numpy)
    if return_numpy:
        assert isinstance(found, sp.csr_matrix)
        assert found.nnz < 0.31 * found.shape[0] * found.shape[1]
    else:
        assert all(isinstance(dtype, pd.SparseDtype) for dtype in found.dtypes)
        assert found.columns.equals(accessibility.columns)
        found = sp.csr_matrix(found.sparse.to_coo())
    np.testing.assert_allclose(
        found.toarray(), accessibility.where(accessibility >= cut, 0), rtol=1e-5
    )


def test_negative_threshold_is_refused(trained_model):
    with pytest.raises(ValueError, match=r"`threshold` must be .* at least 0, got -0\.1"):
        trained_model.get_normalized_accessibility(threshold=-0.1)


def test_threshold_on_draws_that_are_not_averaged_is_refused(trained_model):
    with pytest.raises(ValueError, match="set `return_mean=True` or leave `threshold` out"):
        trained_model.get_normalized_accessibility(threshold=0.1, n_samples=2, return_mean=False)


def test_return_numpy_gives_the_values_of_the_table(trained_model, expression, accessibility):
    found = trained_model.get_normalized_expression(return_numpy=True)
    np.testing.assert_array_equal(found, expression)
    found = trained_model.get_normalized_accessibility(return_numpy=True)
    np.testing.assert_array_equal(found, accessibility)


def test_answers_are_decoded_in_eval_mode_and_without_a_graph(trained_model, monkeypatch):
    module, seen = trained_model.module, []
    decode = module.generative

    def watched(*args, **kwargs):
        seen.append((torch.is_grad_enabled(), any(m.training for m in module.modules())))
        return decode(*args, **kwargs)

    monkeypatch.setattr(module, "generative", watched)
    trained_model.get_normalized_expression(n_samples=2)
    assert set(seen) == {(False, False)}


# -- one modality from the other ------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_held_out_cells(make_mdata, register, train) -> tuple[SCMVPModel, np.ndarray]:
    """Model of generated cells, and the rows of those it has not seen."""
    mdata = register(make_mdata(n_cells=520, n_peaks=300, atac_depth=300, rna_depth=300))
    model = train(mdata, max_epochs=40, train_size=0.8, validation_size=0.2)
    return model, model.validation_indices


def deviations(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance of each cell's profile from the planted one, of logarithms."""
    return np.square(np.log(found) - np.log(truth)).mean(1)


@pytest.mark.parametrize(("source", "target"), [("atac", "rna"), ("rna", "atac")])
def test_profiles_predicted_from_the_other_modality_beat_the_mean_of_the_data(
    of_held_out_cells, source, target
):
    model, rows = of_held_out_cells
    mdata = model.adata
    methods = {
        "rna": model.get_normalized_expression,
        "atac": model.get_normalized_accessibility,
    }
    predicted = methods[target](indices=rows, from_modality=source, return_numpy=True)
    types = mdata.obs["cell_type"].cat.codes.to_numpy()[rows]
    truth = mdata[target].varm["type_profile"].T[types]
    counts = mdata[target].X[model.train_indices].sum(0).A1 + 0.5
    mean = np.broadcast_to(counts / counts.sum(), truth.shape)
    predicted = predicted / predicted.sum(1, keepdims=True)
    assert (deviations(predicted, truth) < deviations(mean, truth)).mean() > 0.75


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.parametrize(("source", "target"), [("atac", "rna"), ("rna", "atac")])
def test_prediction_from_one_modality_never_sees_the_other(
    trained_model, some_cells, source, target
):
    methods = {
        "rna": trained_model.get_normalized_expression,
        "atac": trained_model.get_normalized_accessibility,
    }
    expected = methods[target](some_cells, from_modality=source)
    without = some_cells.copy()
    without[target].X = sp.csr_matrix(without[target].shape, dtype="float32")
    found = methods[target](without, from_modality=source)
    pd.testing.assert_frame_equal(found, expected)
    if target == "rna":
        found, expected = (
            trained_model.get_log_normalized_expression(cells, from_modality=source)
            for cells in (without, some_cells)
        )
        pd.testing.assert_frame_equal(found, expected)


def test_prediction_from_a_modality_without_counts_is_warned_about(with_empty_cells):
    with pytest.warns(UserWarning, match="30 cells have no atac counts"):
        with_empty_cells.get_normalized_expression(from_modality="atac")


def test_unknown_source_of_a_prediction_is_refused(trained_model):
    with pytest.raises(ValueError, match="`from_modality` must be one of 'joint', 'rna', 'atac'"):
        trained_model.get_normalized_expression(from_modality="ATAC")


# -- beside the cell's own counts -----------------------------------------------------------------


@pytest.mark.parametrize("batches", [None, "batch_1", ["batch_0", "batch_1"]])
def test_own_counts_move_shares_by_what_they_say_of_the_rates_in_the_own_batch(
    trained_model, mdata, batches
):
    genes = list(mdata["rna"].var_names[[3, 1]])
    asked = {"gene_list": genes, "n_points": 1, "return_numpy": True}
    theta = trained_model.module.rna_decoder.log_inverse_dispersion.exp().detach().numpy()[0]
    theta = theta[mdata["rna"].var_names.get_indexer(genes)]
    counts = mdata["rna"][:, genes].X.toarray()
    mean = trained_model.get_normalized_expression(library_size="observed", **asked)
    factor = (counts + theta) / (mean + theta)
    there = trained_model.get_normalized_expression(transform_batch=batches, **asked)
    found = trained_model.get_normalized_expression(
        transform_batch=batches, own_counts=True, **asked
    )
    np.testing.assert_allclose(found, there * factor, rtol=1e-4)


def test_own_counts_predict_the_other_half_of_counts_that_vary_within_types(
    make_mdata, register, train, rng
):
    mdata = make_mdata()
    # what a cell has of a gene beside its type: rates that z cannot know gene by gene
    rates = rng.gamma(0.5, 2.0, mdata["rna"].shape) * mdata["rna"].X.toarray().mean(0)
    held_out = rng.poisson(rates)
    mdata["rna"].X = sp.csr_matrix(rng.poisson(rates), dtype="float32")
    register(mdata)
    model = train(mdata)
    errors = []
    for own_counts in (False, True):
        found = model.get_normalized_expression(
            own_counts=own_counts, library_size="observed", return_numpy=True
        )
        errors.append(((found - held_out) ** 2).mean())
    assert errors[1] < 0.9 * errors[0]


def test_log_normalised_expression_beside_own_counts_is_that_of_further_counts(
    trained_model, mdata, rng
):
    theta = trained_model.module.rna_decoder.log_inverse_dispersion.exp().detach().numpy()[0]
    counts = mdata["rna"].X[:3].toarray()
    asked = {"indices": [0, 1, 2], "n_points": 1, "own_counts": True, "return_numpy": True}
    mean = trained_model.get_normalized_expression(library_size=500.0, **asked).astype(float)
    shape = theta + counts
    draws = rng.negative_binomial(shape, shape / (shape + mean), (20_000, *mean.shape))
    logs = np.log1p(1e4 * draws / 500.0)
    found = trained_model.get_log_normalized_expression(library_size=500.0, **asked)
    errors = logs.std(0) / np.sqrt(len(draws))
    assert (np.abs(found - logs.mean(0)) < 5 * errors + 1e-6).all()


def test_own_counts_are_as_deep_as_the_size_factors_say(make_mdata, register, train, rng):
    mdata = make_mdata()
    mdata.obs["size"] = rng.uniform(0.5, 2.0, mdata.n_obs)
    model = train(register(mdata, rna_size_factor_key="size"), max_epochs=2)
    asked = {"n_points": 1, "return_numpy": True}
    theta = model.module.rna_decoder.log_inverse_dispersion.exp().detach().numpy()[0]
    mean = model.get_normalized_expression(library_size="observed", **asked)
    share = model.get_normalized_expression(**asked)
    found = model.get_normalized_expression(own_counts=True, **asked)
    counts = mdata["rna"].X.toarray()
    np.testing.assert_allclose(found, share * (counts + theta) / (mean + theta), rtol=1e-4)


def test_own_counts_of_cells_without_rna_change_nothing(with_empty_cells):
    plain, beside = (
        with_empty_cells.get_normalized_expression(own_counts=own) for own in (False, True)
    )
    empty = with_empty_cells.adata.obs["rna_missing"].to_numpy()
    pd.testing.assert_frame_equal(beside[empty], plain[empty])
    assert not np.allclose(beside[~empty], plain[~empty], rtol=0.1)


def test_own_counts_have_no_part_in_a_prediction_from_accessibility_alone(trained_model):
    with pytest.raises(ValueError, match='`from_modality="atac"` .* and `own_counts=True`'):
        trained_model.get_normalized_expression(from_modality="atac", own_counts=True)


# -- likelihoods ----------------------------------------------------------------------------------


def test_elbo_of_each_cell_averages_to_the_elbo(trained_model):
    values = []
    for return_mean in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            values.append(trained_model.get_elbo(return_mean=return_mean))
    assert values[0].shape == (N_CELLS,)
    assert float(values[1]) == pytest.approx(float(values[0].mean()), rel=1e-5)


def test_reconstruction_error_has_a_value_for_each_modality(trained_model):
    error = trained_model.get_reconstruction_error()
    assert {"reconstruction_loss_rna", "reconstruction_loss_atac"} <= set(error)
    assert all(np.isfinite(float(value)) for value in error.values())


def test_elbo_lies_below_the_marginal_likelihood(trained_model):
    rows = np.arange(40)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        evidence = trained_model.get_marginal_ll(indices=rows, n_mc_samples=30, return_mean=False)
        elbo = np.mean([trained_model.get_elbo(indices=rows) for _ in range(10)])
    assert evidence.shape == (40,)
    assert elbo < float(evidence.mean())


def test_marginal_likelihood_is_a_mean_over_cells_and_not_over_minibatches(trained_model):
    rows, values = np.arange(9), []
    for options in ({"return_mean": False}, {"return_mean": True}):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            options |= {"n_mc_samples": 2, "batch_size": 8, "indices": rows}
            values.append(trained_model.get_marginal_ll(**options))
    assert float(values[1]) == pytest.approx(float(values[0].mean()), rel=1e-5)


# -- before training ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "get_latent_representation",
        "get_cluster_probabilities",
        "predict_clusters",
        "get_normalized_expression",
        "get_normalized_accessibility",
    ],
)
def test_untrained_model_is_refused(fresh_mdata, small, method):
    model = SCMVPModel(fresh_mdata, **small)
    with pytest.raises(RuntimeError, match="[Tt]rain"):
        getattr(model, method)()


# -- accessibility on disk ------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [None, 0.004])
def test_written_accessibility_is_what_the_model_returns(trained_model, tmp_path, threshold):
    model, rows = trained_model, np.arange(40)[::-1]
    regions = list(model.adata["atac"].var_names[[5, 0, 9]])
    asked = {"indices": rows, "region_list": regions, "batch_size": 16, "threshold": threshold}
    asked |= {"library_size": 3.0, "transform_batch": "batch_1", "from_modality": "rna"}
    model.write_normalized_accessibility(tmp_path / "found.zarr", **asked)
    found, expected = (
        ad.read_zarr(tmp_path / "found.zarr"),
        model.get_normalized_accessibility(**asked),
    )
    np.testing.assert_array_equal(found.to_df().to_numpy(), expected.to_numpy())
    assert list(found.obs_names) == list(expected.index)
    assert list(found.var_names) == regions


def test_a_negative_threshold_is_refused_before_anything_is_written(trained_model, tmp_path):
    with pytest.raises(ValueError, match="`threshold`"):
        trained_model.write_normalized_accessibility(tmp_path / "found.zarr", threshold=-1)
    assert not (tmp_path / "found.zarr").exists()
