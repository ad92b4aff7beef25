"""What a trained model makes of other data than its own, and which it refuses."""

import re
import warnings
from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pytest
import scipy.sparse as sp
from mudata import MuData
from scvi.dataloaders import AnnDataLoader

from scmvp_scvi import SCMVPModel
from scmvp_scvi._mudata import without_pulling

N_LATENT = 5


def shuffled(adata, rng):
    return adata[:, rng.permutation(adata.n_vars)].copy()


def test_new_data_give_the_latent_of_the_same_training_cells(trained_model, latent, some_cells):
    found = trained_model.get_latent_representation(some_cells)
    np.testing.assert_allclose(found, latent[30:230], atol=1e-5)


def test_new_data_take_indices_of_their_own(trained_model, latent, some_cells):
    found = trained_model.get_latent_representation(some_cells, indices=[5, 2])
    np.testing.assert_allclose(found, latent[[35, 32]], atol=1e-5)


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


def test_fields_are_transferred_to_data_that_are_checked_as_new_data_are(
    trained_model, some_cells, latent, rng
):
    loader = AnnDataLoader(trained_model.transfer_fields(some_cells), batch_size=64)
    found = trained_model.get_latent_representation(dataloader=loader)
    np.testing.assert_allclose(found, latent[30:230], atol=1e-5)
    with without_pulling():
        modalities = {**some_cells.mod, "rna": shuffled(some_cells["rna"], rng)}
        permuted = MuData(modalities, obs=some_cells.obs)
    with pytest.raises(ValueError, match="`rna` has the features .* in another order"):
        trained_model.transfer_fields(permuted)


def test_copies_of_views_that_were_shown_are_not_kept(trained_model, make_mdata, capsys):
    managers = trained_model._per_instance_manager_store[trained_model.id]
    mdata, sizes = make_mdata(), []
    for n_cells in (20, 30, 40):
        trained_model.view_anndata_setup(mdata[:n_cells], hide_state_registries=True)
        sizes.append(len(managers))
    assert sizes[1:] == sizes[:1] * 2
    assert "40" in capsys.readouterr().out


def test_anndata_is_refused_as_new_data(trained_model, some_cells):
    with pytest.raises(TypeError, match="`mdata` must be a MuData .* got an AnnData"):
        trained_model.get_latent_representation(some_cells["rna"])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("get_normalized_expression", {"from_modality": "atac"}),
        ("get_log_normalized_expression", {"own_counts": True}),
        ("get_normalized_accessibility", {}),
        ("get_latent_representation", {"modality": "rna"}),
        ("get_elbo", {}),
        ("get_reconstruction_error", {}),
        ("get_marginal_ll", {}),
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


def test_warnings_point_at_the_line_that_calls_the_model(make_mdata, trained_model):
    mdata = make_mdata()
    measured = sp.diags((np.arange(mdata.n_obs) >= 3).astype(np.float32))
    mdata["atac"].X = (measured @ mdata["atac"].X).tocsr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        SCMVPModel.setup_mudata(mdata)
        trained_model.get_latent_representation(mdata, modality="atac")
    for text in ("3 of 300 cells have no counts in `atac`", "3 cells have no atac counts"):
        assert {w.filename for w in caught if text in str(w.message)} == {__file__}


def test_batches_of_few_cells_are_warned_of_only_where_they_are_learned(
    trained_model, some_cells, tmp_path
):
    """Two cells of either batch, asked about in three ways; a set-up of them warns."""
    with without_pulling():
        few = some_cells[np.r_[0:2, some_cells.n_obs - 2 : some_cells.n_obs]].copy()
    few.obs["batch"] = np.repeat(trained_model._categories("batch")[:2], 2)
    trained_model.get_latent_representation(few)
    few.obs["batch"] = few.obs["batch"].to_numpy()[::-1]  # as it is now, after registration
    trained_model.get_latent_representation(few)
    trained_model.save(tmp_path / "model")
    SCMVPModel.load(tmp_path / "model", adata=few.copy())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        SCMVPModel.setup_mudata(few.copy(), batch_key="batch")
    assert any("has fewer than 3 cells" in str(warning.message) for warning in told)
