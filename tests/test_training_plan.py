"""Training: schedules, the fit of the mixture, what is logged, and the ways to stop and go on."""

import itertools
import json
import math
import os
import subprocess
import sys
import warnings
from contextlib import nullcontext
from functools import partial, reduce
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from mudata import MuData
from scipy import stats
from scvi.train import SaveCheckpoint

from scmvp_scvi import SCMVPModel, SCMVPModule, _fitting_plan, _recorded_step, _size_rules
from scmvp_scvi._channel_fit import FEWEST_CELLS, fit_calibration
from scmvp_scvi._data_splitter import SCMVPDataSplitter
from scmvp_scvi._keys import LOSS
from scmvp_scvi._logged_plan import EpochMeans
from scmvp_scvi._optimizer import RowAdam
from scmvp_scvi._recorded_step import RecordedStep, StepRecorder
from scmvp_scvi._training_plan import SCMVPTrainingPlan
from scmvp_scvi.distributions._gaussian_mixture import GaussianMixture

EPOCHS, N_BATCHES = 8, 5  # 270 training cells in batches of 64
N_STEPS = EPOCHS * N_BATCHES


class Recorder(Callback):
    """What training looks like at the start of each minibatch."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        del batch, batch_idx
        self.steps.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "kl_weight": float(pl_module.kl_weight),
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "in_train_mode": all(m.training for m in pl_module.module.modules()),
                "is_fitted": bool(pl_module.module.prior.is_fitted),
                "means": pl_module.module.prior.means.detach().clone(),
            }
        )

    def __getitem__(self, name: str) -> list:
        return [step[name] for step in self.steps]


PLAN = {
    "kl_warmup": 0.25,
    "mixture_start": 0.5,
    "gaussian_kl_weight": 0.4,
    "max_kl_weight": 0.9,
    "lr": 1e-3,
    "lr_schedule": "cosine",
}


@pytest.fixture(scope="module")
def recorded(make_mdata, register, train, train_more) -> tuple[SCMVPModel, Recorder, Recorder]:
    """Model that was trained twice, and the records of both times."""
    first, second = Recorder(), Recorder()
    options = {"batch_size": 64, "plan_kwargs": PLAN}
    mdata = register(make_mdata(), batch_key="batch")
    model = train(mdata, max_epochs=EPOCHS, callbacks=[first], **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found .* in eval mode")  # has a test of its own
        train_more(model, max_epochs=2, callbacks=[second], **options)
    return model, first, second


# -- schedules ------------------------------------------------------------------------------------


def test_kl_weight_rises_by_lines_to_that_of_the_gaussian_and_to_that_of_the_mixture(recorded):
    _, first, _ = recorded
    warmup, mixture, rise = N_STEPS // 4, N_STEPS // 2, N_STEPS // 10
    expected = [0.4 * min(1, step / warmup) for step in range(mixture)]
    expected += [0.4 + 0.5 * min(1, step / rise) for step in range(N_STEPS - mixture)]
    assert first["step"] == list(range(N_STEPS))
    np.testing.assert_allclose(first["kl_weight"], expected, rtol=1e-6)
    # the second line starts with the first step that has the mixture
    assert first["is_fitted"].index(True) == mixture


def test_kl_weight_stays_full_when_training_goes_on(recorded):
    np.testing.assert_allclose(recorded[2]["kl_weight"], 0.9, rtol=1e-6)


def test_kl_weight_starts_at_the_least_weight_asked_for(fresh_mdata, train):
    record = Recorder()
    plan = {
        "min_kl_weight": 0.2,
        "gaussian_kl_weight": 0.6,
        "kl_warmup": 0.4,
        "mixture_start": 1.0,
    }
    train(fresh_mdata, max_epochs=2, callbacks=[record], plan_kwargs=plan)
    assert record["kl_weight"] == pytest.approx([0.2, 0.3, 0.4, 0.5, *6 * [0.6]])


def test_kl_weight_without_warmup_is_that_of_the_gaussian_from_the_start(fresh_mdata, train):
    record = Recorder()
    plan = {"kl_warmup": 0.0, "gaussian_kl_weight": 0.5}
    train(fresh_mdata, max_epochs=1, callbacks=[record], plan_kwargs=plan)
    assert record["kl_weight"] == pytest.approx(N_BATCHES * [0.5])


def test_objective_is_by_default_the_elbo_at_the_end(fresh_mdata, train):
    record = Recorder()
    train(fresh_mdata, max_epochs=5, callbacks=[record])
    assert record["kl_weight"][-1] == 1.0


def test_learning_rate_warms_up_and_falls_along_half_a_cosine(recorded):
    found = np.array(recorded[1]["lr"])
    warmup = 2  # a twentieth of the steps
    cosine = [0.5 * (1 + math.cos(math.pi * step / N_STEPS)) for step in range(N_STEPS)]
    assert found[0] == pytest.approx(1e-3 / warmup)
    np.testing.assert_allclose(found[warmup:], 1e-3 * np.array(cosine)[warmup:], rtol=1e-6)
    assert found[-1] < 1e-5


def test_constant_learning_rate_stays(fresh_mdata, train):
    record, plan = Recorder(), {"lr_schedule": "constant", "lr": 3e-3}
    train(fresh_mdata, max_epochs=2, callbacks=[record], plan_kwargs=plan)
    assert set(record["lr"]) == {3e-3}


def test_plateau_takes_the_place_of_the_cosine(fresh_mdata, train):
    record = Recorder()
    plan = {"reduce_lr_on_plateau": True, "lr": 3e-3, "lr_patience": 100}
    train(fresh_mdata, max_epochs=2, callbacks=[record], plan_kwargs=plan)
    assert set(record["lr"]) == {3e-3}


def test_module_is_in_train_mode_the_first_and_the_second_time(recorded):
    _, first, second = recorded
    assert all(first["in_train_mode"])
    assert all(second["in_train_mode"])


def test_training_goes_on_without_a_warning_of_layers_in_eval_mode(fresh_mdata, train, train_more):
    model = train(fresh_mdata, max_epochs=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found .* in eval mode")
        train_more(model, max_epochs=1)


def test_module_is_left_in_eval_mode(recorded):
    assert not any(layer.training for layer in recorded[0].module.modules())


def test_training_prints_nothing(fresh_mdata, train, capsys):
    train(fresh_mdata, max_epochs=2)
    assert capsys.readouterr().out == ""


# -- history --------------------------------------------------------------------------------------


def test_history_has_each_part_of_the_loss_for_both_sets(recorded):
    history = recorded[0].history
    parts = set(LOSS) - {LOSS.LABELS}  # of which this training has none
    for part in ("elbo", "reconstruction_loss", "kl_local", *parts):
        for subset in ("train", "validation"):
            values = history[f"{part}_{subset}"]
            assert len(values) == EPOCHS + 2
            assert np.isfinite(values.to_numpy(dtype=float)).all()


def test_elbo_in_the_history_is_the_sum_of_its_logged_parts(recorded):
    history = {name: x.iloc[:, 0].to_numpy(float) for name, x in recorded[0].history.items()}
    parts = (LOSS.RNA_RECONSTRUCTION, LOSS.ATAC_RECONSTRUCTION, LOSS.KL)
    expected = sum(history[f"{part}_validation"] for part in parts)
    np.testing.assert_allclose(history["elbo_validation"], expected, rtol=1e-4)


def test_values_logged_at_each_step_have_the_means_of_those_added_up(make_mdata, register, train):
    by_epoch, by_step = (
        train(register(make_mdata()), max_epochs=2, plan_kwargs={"on_step": on_step}).history
        for on_step in (False, True)
    )
    for name in (f"{LOSS.ALIGNMENT_RNA}_train", f"{LOSS.KL}_validation", "elbo_train"):
        values = (h.to_numpy(float) for h in (by_step[f"{name}_epoch"], by_epoch[name]))
        np.testing.assert_allclose(*values, rtol=1e-5)
    assert f"{LOSS.KL}_validation_step" in by_step


def test_means_of_an_epoch_weigh_cells_alike_and_add_up_in_full_precision():
    means, one = EpochMeans(), torch.ones((), dtype=torch.bfloat16)
    for _ in range(300):
        means.add({"term": one}, 128)
    means.add({"term": 2 * one}, 300 * 128)
    found, n_cells = means.take()
    assert found["term"] == 1.5
    assert n_cells == 2 * 300 * 128
    assert means.take() == ({}, 0)


def test_training_lowers_the_validation_elbo(recorded):
    elbo = recorded[0].history["elbo_validation"].to_numpy(float)
    assert elbo[-1] < elbo[0]


# -- fit of the mixture ---------------------------------------------------------------------------


def test_mixture_is_fitted_at_the_epoch_asked_for(recorded):
    _, first, _ = recorded
    expected = [epoch >= EPOCHS // 2 for epoch in first["epoch"]]
    assert first["is_fitted"] == expected


def test_prior_does_not_move_before_its_fit(recorded):
    _, first, _ = recorded
    assert all((means == 0).all() for means in first["means"][: N_STEPS // 2])


def test_prior_moves_after_its_fit(recorded):
    _, first, _ = recorded
    at_fit, later = first["means"][N_STEPS // 2], first["means"][-1]
    assert (at_fit[:4] != later[:4]).any(dim=1).all()


def jumps(record: Recorder) -> list[int]:
    """Epochs before which the means went further than steps take them."""
    moved = [
        float((after - before).abs().max())
        for before, after in itertools.pairwise(record["means"])
    ]
    return [epoch for epoch, by in zip(record["epoch"][1:], moved, strict=True) if by > 3e-3]


def test_mixture_is_fitted_anew_after_the_share_of_its_epochs_asked_for(recorded):
    _, first, _ = recorded
    assert jumps(first) == [EPOCHS // 2, EPOCHS // 2 + EPOCHS // 4]


@pytest.mark.parametrize(
    ("refit", "max_epochs", "expected"), [(None, 8, [4]), (0.25, 8, [4, 5]), (0.5, 2, [1])]
)
def test_mixture_is_fitted_before_the_epochs_that_the_plan_asks_for_and_that_there_are(
    fresh_mdata, train, refit, max_epochs, expected
):
    record = Recorder()
    plan = {**PLAN, "mixture_refit": refit}
    train(fresh_mdata, max_epochs=max_epochs, plan_kwargs=plan, callbacks=[record], batch_size=64)
    assert jumps(record) == expected


def test_mixture_is_not_fitted_again_when_training_goes_on(recorded):
    _, first, second = recorded
    assert all(second["is_fitted"])
    assert jumps(second) == []
    moved = (second["means"][0] - first["means"][-1]).abs().max()
    assert moved < 3e-3  # one step at most, at a learning rate of 1e-3


class Breaks(Callback):
    """End the training with an error after so many epochs."""

    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs

    def on_train_epoch_end(self, trainer, pl_module):
        del pl_module
        if trainer.current_epoch + 1 == self.n_epochs:
            raise RuntimeError("broken off")


def test_training_after_one_that_was_broken_off_begins_the_schedule(make_mdata, register, small):
    model = SCMVPModel(register(make_mdata()), **small)
    asked = {"accelerator": "cpu", "enable_progress_bar": False}
    with pytest.raises(RuntimeError, match="broken off"):
        model.train(10, callbacks=[before := Recorder(), Breaks(6)], **asked)
    assert before["is_fitted"][-1]
    recorder = Recorder()
    model.train(4, callbacks=[recorder], **asked)
    assert recorder["kl_weight"][0] == 0
    assert not recorder["is_fitted"][0]
    assert recorder["is_fitted"][-1]


def test_features_are_those_of_the_cells_of_the_training_that_was_not_broken_off(
    make_mdata, register, small
):
    mdata = register(make_mdata())
    halves = np.array_split(np.arange(mdata.n_obs), 2)
    asked = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1}
    no_validation = np.array([], dtype=int)
    parts = [
        {"datasplitter_kwargs": {"external_indexing": [half, no_validation, other]}}
        for half, other in (halves, halves[::-1])
    ]
    model = SCMVPModel(mdata, **small)
    with pytest.raises(RuntimeError, match="broken off"):
        model.train(**asked, **parts[0], callbacks=[Breaks(1)])
    model.train(**asked, **parts[1])
    counts = mdata["rna"].X[halves[1]]
    assert float(model.module.rna_median_depth) == np.median(counts.sum(1).A1)


def test_all_processes_are_told_that_the_mixture_could_not_be_fitted(
    fresh_mdata, train, monkeypatch
):
    told = []

    def fail(*args):
        del args
        raise ValueError("no mixture")

    def send(strategy, obj, src=0):
        del strategy, src
        told.append(obj)
        return obj

    monkeypatch.setattr(_fitting_plan, "fit_mixture", fail)
    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", send)
    with pytest.raises(ValueError, match="no mixture"):
        train(fresh_mdata)
    # another process, which is told the same
    monkeypatch.setattr(SingleDeviceStrategy, "is_global_zero", False)
    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", lambda *args, **kwargs: told[-1])
    with pytest.raises(RuntimeError, match=r"could not fit the mixture: ValueError\('no mixture'"):
        train(fresh_mdata)


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_mixture_is_fitted_if_training_is_too_short_for_it(fresh_mdata, train, max_epochs):
    plan = {"mixture_start": 1.0}
    model = train(fresh_mdata, max_epochs=max_epochs, plan_kwargs=plan)
    assert model.module.prior.n_clusters == 4


@pytest.mark.parametrize("n_accumulated", [1, N_BATCHES])
def test_mixture_is_fitted_in_the_same_share_of_a_number_of_steps(
    fresh_mdata, train, n_accumulated
):
    record = Recorder()
    train(
        fresh_mdata,
        max_epochs=100,
        max_steps=4 * N_BATCHES // n_accumulated,
        accumulate_grad_batches=n_accumulated,
        callbacks=[record],
        plan_kwargs={"mixture_start": 0.5},
    )
    assert record["is_fitted"] == 2 * N_BATCHES * [False] + 2 * N_BATCHES * [True]
    assert record["kl_weight"][-1] == 1.0


def test_mixture_is_fitted_if_training_stops_early(fresh_mdata, train):
    stop = {
        "early_stopping": True,
        "early_stopping_patience": 1,
        "early_stopping_min_delta": 1e6,
        "early_stopping_warmup_epochs": 0,
    }
    model = train(fresh_mdata, max_epochs=20, plan_kwargs={"mixture_start": 0.9}, **stop)
    assert model.trainer.current_epoch < 5
    assert model.module.prior.n_clusters == 4


def test_mixture_is_fitted_to_the_training_cells_alone(fresh_mdata, train):
    rows = np.arange(0, 300, 2)
    model = train(
        fresh_mdata,
        architecture={"n_clusters": 1},
        plan_kwargs={"mixture_start": 1.0},
        datasplitter_kwargs={"external_indexing": [rows, np.arange(1, 300, 2)]},
    )
    mean, variance = model.get_latent_representation(indices=rows, return_dist=True)
    prior = model.module.prior
    np.testing.assert_allclose(prior.means[0].detach(), mean.mean(0), atol=1e-5)
    expected = mean.var(0) + variance.mean(0)
    np.testing.assert_allclose(prior.variances[0].detach(), expected, rtol=0.02)


def test_feature_statistics_are_those_of_the_training_cells(fresh_mdata, train):
    rows = np.arange(100)
    split = {"external_indexing": [rows, np.arange(100, 300)]}
    module = train(fresh_mdata, max_epochs=1, datasplitter_kwargs=split).module
    rna, atac = (fresh_mdata[key].X.toarray()[rows] for key in ("rna", "atac"))
    assert float(module.rna_median_depth) == np.median(rna.sum(1))
    np.testing.assert_allclose(module.atac_idf, 100 / atac.sum(0).clip(0.5), rtol=1e-6)


def test_number_of_clusters_is_what_was_asked_for(fresh_mdata, train):
    model = train(fresh_mdata, architecture={"n_clusters": 7}, max_epochs=1)
    assert list(model.get_cluster_probabilities().columns) == [str(i) for i in range(7)]


def test_leiden_chooses_the_number_of_clusters_if_it_is_none(fresh_mdata, train):
    architecture = {"n_clusters": None, "max_clusters": 11}
    module = train(fresh_mdata, architecture=architecture, max_epochs=1).module
    assert 1 <= module.prior.n_clusters <= 11
    assert len(module.prior.logits) == 11


def test_leiden_looks_at_the_resolution_that_was_asked_for(fresh_mdata, train, monkeypatch):
    asked, fit = [], _fitting_plan.fit_mixture
    monkeypatch.setattr(
        _fitting_plan, "fit_mixture", lambda *args: asked.append(args[4]) or fit(*args)
    )
    plan = {"cluster_resolution": 0.35}
    train(fresh_mdata, architecture={"n_clusters": None}, plan_kwargs=plan, max_epochs=1)
    assert set(asked) == {0.35}


def test_mixture_is_fitted_to_all_training_cells_where_the_last_minibatch_is_dropped(
    fresh_mdata, train, monkeypatch
):
    fitted, fit = [], _fitting_plan.fit_mixture
    monkeypatch.setattr(
        _fitting_plan,
        "fit_mixture",
        lambda latent, *rest: fitted.append(len(latent)) or fit(latent, *rest),
    )
    dropping = {"drop_last": True}
    train(fresh_mdata, max_epochs=2, train_size=1.0, batch_size=64, datasplitter_kwargs=dropping)
    assert fresh_mdata.n_obs % 64 > 1
    assert set(fitted) == {fresh_mdata.n_obs}


# -- labels ---------------------------------------------------------------------------------------


def test_labels_seed_one_component_each_at_their_mean(make_mdata, register, train):
    mdata = register(make_mdata(), labels_key="cell_type")
    plan = {"mixture_start": 1.0}
    model = train(mdata, architecture={"n_clusters": None}, plan_kwargs=plan)
    names = list(mdata.obs["cell_type"].cat.categories)
    assert list(model.get_cluster_probabilities().columns) == names
    latent = model.get_latent_representation(indices=model.train_indices)
    types = mdata.obs["cell_type"].iloc[model.train_indices]
    expected = [latent[types == name].mean(0) for name in names]
    np.testing.assert_allclose(model.module.prior.means.detach(), expected, atol=1e-5)


def test_unlabeled_cells_seed_no_component(make_mdata, register, train):
    mdata = make_mdata()
    types = mdata.obs["cell_type"].astype(str)
    mdata.obs["label"] = types.where(np.arange(300) % 3 > 0, "Unknown")
    register(mdata, labels_key="label")
    model = train(mdata, architecture={"n_clusters": None}, max_epochs=1)
    probs = model.get_cluster_probabilities()
    assert sorted(probs.columns) == sorted(types.unique())
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)


def test_labels_of_some_cells_train_the_model_as_much_as_they_are_asked_to(
    make_mdata, register, train
):
    """Groups that hold unlike types, which counts alone do not put together."""
    mdata = make_mdata()
    is_first = mdata.obs["cell_type"].isin(["type_0", "type_3"])
    is_known = np.arange(300) % 3 > 0
    mdata.obs["label"] = np.where(is_known, np.where(is_first, "first", "second"), "Unknown")
    register(mdata, labels_key="label")
    of_unknown, surprise = [], []
    for weight in (0.0, 50.0):
        model = train(
            mdata,
            architecture={"n_clusters": None},
            max_epochs=40,
            plan_kwargs={"label_weight": weight},
        )
        found = model.predict_clusters()[~is_known] == "first"
        of_unknown.append((found == is_first[~is_known]).mean())
        surprise.append(float(model.history["label_surprise_train"].iloc[-1, 0]))
    assert surprise[1] < 0.5 * surprise[0]
    assert of_unknown[1] > of_unknown[0] + 0.05


def test_unlabeled_category_may_have_another_name(make_mdata, register, train):
    mdata = make_mdata()
    names = mdata.obs["cell_type"].cat.categories
    architecture = {"n_clusters": None, "unlabeled_category": names[1]}
    model = train(register(mdata, labels_key="cell_type"), architecture=architecture, max_epochs=1)
    assert list(model.predict_clusters().cat.categories) == [names[0], *names[2:]]


def test_labels_without_any_label_are_refused(make_mdata, register, small):
    mdata = make_mdata()
    mdata.obs["label"] = "Unknown"
    register(mdata, labels_key="label")
    with pytest.raises(ValueError, match="`labels_key`"):
        SCMVPModel(mdata, **small)


def test_number_of_clusters_other_than_that_of_the_labels_is_refused(make_mdata, register, small):
    mdata = register(make_mdata(), labels_key="cell_type")
    with pytest.raises(ValueError, match=r"must be None or the number of labels, 4.* got 5"):
        SCMVPModel(mdata, n_clusters=5, **small)


# -- stopping, saving, going on -------------------------------------------------------------------


def test_checkpoints_are_written_where_scvi_says(fresh_mdata, train, tmp_path, monkeypatch):
    monkeypatch.setattr(scvi.settings, "_logging_dir", tmp_path, raising=False)
    model = train(fresh_mdata, max_epochs=2, enable_checkpointing=True)
    assert len(list(tmp_path.glob("**/model.pt"))) == 1
    assert model.trainer.checkpoint_callback.monitor == "elbo_validation"


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.parametrize("lacking", [None, "rna", "atac"])
def test_encoders_know_whether_training_cells_lack_their_modality(
    make_mdata, register, train, lacking
):
    mdata = register(make_mdata(**({f"missing_{lacking}": 0.1} if lacking else {})))
    module = train(mdata, max_epochs=1).module
    assert module.rna_encoder.some_unobserved == (lacking == "rna")
    assert module.atac_encoder.some_unobserved == (lacking == "atac")


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_training_cells_of_one_modality_each_are_refused(make_mdata, register, train):
    mdata = register(make_mdata(missing_rna=0.4, missing_atac=0.4))
    is_paired = ~(mdata.obs["rna_missing"] | mdata.obs["atac_missing"]).to_numpy()
    parts = [np.flatnonzero(~is_paired), np.flatnonzero(is_paired)]
    with pytest.raises(ValueError, match=f"none of the {len(parts[0])} has: raise `train_size`"):
        train(mdata, max_epochs=1, datasplitter_kwargs={"external_indexing": parts})
    train(mdata, max_epochs=1, datasplitter_kwargs={"external_indexing": parts[::-1]})


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_weights_decay_apart_from_the_gradient_with_adamw_alone(fresh_mdata, train, optimizer):
    model = train(fresh_mdata, max_epochs=1, plan_kwargs={"optimizer": optimizer})
    (built,) = model.trainer.optimizers
    assert all(g["decoupled_weight_decay"] == (optimizer == "AdamW") for g in built.param_groups)


def test_best_checkpoint_is_loaded_at_the_end(fresh_mdata, train, tmp_path):
    best = SaveCheckpoint(
        dirpath=str(tmp_path), monitor="elbo_validation", mode="max", load_best_on_end=True
    )
    model = train(fresh_mdata, max_epochs=4, callbacks=[best])
    (path,) = tmp_path.glob("*/model.pt")
    best_epoch = int(model.history["elbo_validation"].to_numpy(dtype=float).argmax())
    assert best_epoch < 3  # the last state is another one
    assert f"epoch={best_epoch}-" in path.parent.name
    saved = torch.load(path, weights_only=False)["model_state_dict"]
    same = ("rna_decoder.output.weight", "atac_encoder.first_layer.weight")
    assert all(torch.equal(model.module.state_dict()[name], saved[name]) for name in same)
    assert model.module.prior.n_clusters == 4


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning:lightning")
def test_training_goes_on_from_a_lightning_checkpoint(fresh_mdata, train, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=3, save_top_k=-1)
    whole = train(fresh_mdata, max_epochs=6, callbacks=[keep], enable_checkpointing=True)
    (path,) = tmp_path.glob("epoch=2*.ckpt")
    record, longer = Recorder(), Recorder()
    resumed = train(fresh_mdata, max_epochs=6, callbacks=[record], ckpt_path=str(path))
    assert record["epoch"][0] == 3
    # fitted before epoch 2 and, over more epochs, no less
    assert record["kl_weight"] == pytest.approx(3 * N_BATCHES * [1.0])
    train(fresh_mdata, max_epochs=12, callbacks=[longer], ckpt_path=str(path))
    assert longer["kl_weight"][0] > 0.2
    assert longer["kl_weight"][-1] == 1.0
    assert resumed.module.prior.n_clusters == 4
    assert whole.module.rna_median_depth == resumed.module.rna_median_depth


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning:lightning")
@pytest.mark.filterwarnings("ignore:.*no epochs left:UserWarning")
def test_checkpoint_of_the_last_epoch_ends_as_the_training_did(fresh_mdata, train, tmp_path):
    keep = ModelCheckpoint(tmp_path, save_last=True)
    options = {"max_epochs": 3, "train_size": 0.5, "architecture": {"n_clusters": None}}
    whole = train(fresh_mdata, callbacks=[keep], enable_checkpointing=True, **options)
    resumed = train(fresh_mdata, ckpt_path=str(tmp_path / "last.ckpt"), **options)
    expected, found = (model.module.state_dict() for model in (whole, resumed))
    dispersions = [s.pop("rna_decoder.log_inverse_dispersion").numpy() for s in (expected, found)]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert found["calibrations.rna.slope"] != 1.0
    # each is fitted to draws of its own
    assert np.corrcoef(*(d.ravel() for d in dispersions))[0, 1] > 0.95


def test_training_with_one_seed_twice_is_equal_to_the_bit(make_mdata, register, train):
    runs = [train(register(make_mdata()), seed=3, max_epochs=3) for _ in range(2)]
    first, second = (run.module.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_with_another_seed_differs(make_mdata, register, train):
    first, second = (train(register(make_mdata()), seed=seed, max_epochs=1) for seed in (3, 4))
    latents = first.get_latent_representation(), second.get_latent_representation()
    assert not np.allclose(*latents)


@pytest.mark.parametrize(("n_processes", "is_dropped"), [(1, False), (2, False), (4, True)])
def test_no_process_has_a_last_minibatch_of_one_cell(trained_model, n_processes, is_dropped):
    # 259 cells: 3 are left of batches of 64, 2 in each of two processes, 1 in each of four
    splitter = SCMVPDataSplitter(
        trained_model.adata_manager,
        external_indexing=[np.arange(259), np.arange(259, 300)],
        batch_size=64,
    )
    splitter.setup()
    splitter.trainer = trainer_on("cpu", n_processes)
    splitter.train_dataloader()
    assert splitter.drop_last == is_dropped


def trainer_on(device: str, n_processes: int = 1) -> SimpleNamespace:
    """What a splitter looks at of a trainer."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(world_size=n_processes, strategy=strategy)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
@pytest.mark.parametrize(
    ("asked", "device", "is_pinned"),
    [(None, "cuda", True), (None, "cpu", False), (False, "cuda", False), (True, "cpu", True)],
)
def test_minibatches_are_pinned_for_a_gpu_unless_told_otherwise(
    trained_model, asked, device, is_pinned
):
    splitter = SCMVPDataSplitter(trained_model.adata_manager, batch_size=64, pin_memory=asked)
    splitter.setup()
    splitter.trainer = trainer_on(device)
    assert splitter.train_dataloader().pin_memory == is_pinned


ALL_SEEN = SimpleNamespace(some_unobserved=False)
HINDRANCES = {
    "`cuda_graph` is False": {"cuda_graph": False},
    "several devices": {"trainer.strategy": DDPStrategy()},
    "precision": {"trainer.precision": "bf16-mixed"},
    "accumulated": {"trainer.accumulate_grad_batches": 2},
    "optimizer": {"_optimizer": Mock(spec=torch.optim.SGD, param_groups=[{"lr": 0.1}])},
    "learning rate": {"_optimizer": Mock(spec=RowAdam, param_groups=[{"lr": 0.1}, {"lr": 0.2}])},
    "averaged": {"trainer.fit_loop": SimpleNamespace(_skip_backward=True)},
    "lack a modality": {"module.atac_encoder.some_unobserved": True},
}


def hindrance(**changes: object) -> str | None:
    """What keeps a plan on a GPU from recording steps; nothing but for the changes."""
    module = Mock(spec=SCMVPModule, rna_encoder=ALL_SEEN, atac_encoder=Mock())
    module.atac_encoder.some_unobserved = False
    trainer = SimpleNamespace(
        strategy=SingleDeviceStrategy("cpu"),
        precision="32-true",
        accumulate_grad_batches=1,
        fit_loop=SimpleNamespace(_skip_backward=False),
    )
    optimizer = Mock(spec=RowAdam, param_groups=[{"lr": 0.1}, {"lr": 0.1}])
    plan = SimpleNamespace(cuda_graph=True, module=module, trainer=trainer, _optimizer=optimizer)
    for place, value in changes.items():
        *owners, name = place.split(".")
        setattr(reduce(getattr, owners, plan), name, value)
    return SCMVPTrainingPlan._hindrance_to_recording(plan)


def test_nothing_keeps_ordinary_training_on_a_gpu_from_being_recorded():
    assert hindrance() is None


@pytest.mark.parametrize(("words", "changes"), HINDRANCES.items(), ids=HINDRANCES)
def test_what_keeps_steps_from_being_recorded_is_named(words, changes):
    assert words in hindrance(**changes)


def test_steps_are_not_recorded_where_torch_looks_at_values():
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        assert "anomalies" in hindrance()


def test_steps_are_recorded_in_the_epochs_that_nothing_hinders(caplog):
    plan = SimpleNamespace(
        device=torch.device("cuda"),
        current_epoch=3,
        step_recorder=None,
        _hindrance=None,
        trainer=SimpleNamespace(
            datamodule=SimpleNamespace(batch_size=64, train_idx=np.arange(10))
        ),
        _hindrance_to_recording=Mock(side_effect=[None, None, "a reason", "a reason", None]),
    )
    plan.forget_recorded_step = partial(SCMVPTrainingPlan.forget_recorded_step, plan)
    recorders = []
    with caplog.at_level("INFO", logger="scmvp_scvi"):
        for _ in range(5):
            SCMVPTrainingPlan._record_steps_if_possible(plan)
            recorders.append(plan.step_recorder)
    first, same, none, still_none, new = recorders
    assert first is same
    assert none is still_none is None
    assert new is not None
    assert new is not first
    assert new._n_cells == 10
    assert [record.getMessage() for record in caplog.records] == [
        "Training steps are not recorded as a CUDA graph: a reason."
    ]


class RecordedOnCPU(RecordedStep):
    """Recorded step that takes the step itself when it is replayed, there being no CUDA graph."""

    n_replays = 0

    def __init__(self, step, minibatch):
        self._step, self._minibatch = step, dict(minibatch)

    def replay(self, minibatch):
        type(self).n_replays += 1
        return _recorded_step._detached(self._step(dict(minibatch)))


@pytest.mark.parametrize(
    ("n_peaks_per_step", "algorithm", "labels_key"),
    [
        *itertools.product([None, 40], ["norm", "value"], [None]),
        (None, "norm", "cell_type"),  # which the steps read once the mixture is fitted
    ],
)
def test_replayed_steps_train_as_others_do_between_shorter_minibatches(
    make_mdata, register, train, monkeypatch, n_peaks_per_step, algorithm, labels_key
):
    def trained() -> SCMVPModel:
        return train(
            register(make_mdata(), batch_key="batch", labels_key=labels_key),
            architecture={"n_clusters": 4},
            max_epochs=3,
            batch_size=64,
            gradient_clip_val={"norm": 1.0, "value": 0.01}[algorithm],
            gradient_clip_algorithm=algorithm,
            plan_kwargs={"n_peaks_per_step": n_peaks_per_step},
        )

    def start_recording(plan):
        plan.step_recorder = plan.step_recorder or StepRecorder(64)

    models = [trained()]
    monkeypatch.setattr(RecordedOnCPU, "n_replays", 0)
    monkeypatch.setattr(_recorded_step, "RecordedStep", RecordedOnCPU)
    monkeypatch.setattr(SCMVPTrainingPlan, "_record_steps_if_possible", start_recording)
    models.append(trained())
    # 270 cells make four minibatches of 64 and a shorter one; the first three are not replayed
    assert RecordedOnCPU.n_replays == 3 * 4 - 3
    # biases before a BatchNorm have gradients of rounding alone, and differ
    latents = [m.get_latent_representation() for m in models]
    np.testing.assert_allclose(*latents, rtol=1e-2, atol=1e-2 * latents[0].std())
    for name in ["elbo_train"] if labels_key is None else ["elbo_train", "label_surprise_train"]:
        history = [m.history[name].to_numpy(float) for m in models]
        assert (history[0] != 0).any()
        np.testing.assert_allclose(*history, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"train_size": 1.0}], ids=["validated", "all cells"])
@pytest.mark.parametrize("on_step", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_training_that_diverges_is_stopped_after_the_epoch_with_a_way_out(
    fresh_mdata, train, monkeypatch, value, on_step, options
):
    monkeypatch.setattr(GaussianMixture, "kl", lambda _, qz, z: value * z.sum(-1) + qz.loc.sum(-1))
    message = r"in epoch 0, .*`kl_mixture_train`.* Build the model anew.*rate: `lr` .* 0\.002"
    with pytest.raises(ValueError, match=message):
        train(fresh_mdata, batch_size=64, plan_kwargs={"on_step": on_step}, **options)


def test_a_model_that_has_diverged_refuses_to_answer(fresh_mdata, train):
    model = train(fresh_mdata)
    with torch.no_grad():
        model.module.joint_encoder.shared.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="invalid values"):
        model.get_latent_representation()


def test_training_without_validation_cells_logs_no_validation(fresh_mdata, train):
    model = train(fresh_mdata, train_size=1.0)
    assert not any(name.endswith("_validation") for name in model.history)
    assert len(model.train_indices) == 300


# `pytest.warns` emits what it does not match again, out of reach of the filters by module
@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")
@pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning")
@pytest.mark.filterwarnings("ignore:The '.*' does not have many workers:UserWarning")
def test_last_batch_of_one_cell_moves_to_the_validation_by_default(make_mdata, register, train):
    # 271 training cells in batches of 135
    with pytest.warns(UserWarning, match="1 cells moved from training set to validation set"):
        model = train(register(make_mdata(n_cells=301)), batch_size=135)
    assert len(model.train_indices) == 270


@pytest.mark.filterwarnings("ignore:Last batch will have a small size of 1:UserWarning:scvi")
def test_last_batch_of_one_cell_trains(make_mdata, register, train):
    split = {"train_size": 0.5, "batch_size": 149}
    model = train(register(make_mdata()), **split)
    assert len(model.train_indices) % 149 == 1
    assert np.isfinite(model.get_latent_representation()).all()


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("n_peaks_per_step", [None, 40])
def test_gradients_are_clipped_to_the_norm_asked_for(
    fresh_mdata, train, monkeypatch, n_peaks_per_step, algorithm
):
    sizes, step = [], RowAdam.step

    def recording(optimizer, closure):
        def wrapped():
            loss = closure()
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
            flat = torch.cat([g.to_dense().flatten() for g in gradients if g is not None])
            sizes.append(float(flat.norm() if algorithm == "norm" else flat.abs().max()))
            return loss

        return step(optimizer, wrapped)

    monkeypatch.setattr(RowAdam, "step", recording)
    train(
        fresh_mdata,
        max_epochs=1,
        gradient_clip_val=0.05,
        gradient_clip_algorithm=algorithm,
        plan_kwargs={"n_peaks_per_step": n_peaks_per_step},
    )
    assert len(sizes) == N_BATCHES
    assert max(sizes) == pytest.approx(0.05, rel=1e-4)


CYCLES = {
    "cycle": {"n_cycle_peaks": 15},
    "no cycle": {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0, "n_cycle_peaks": 15},
}
WIDE = ("atac_encoder.first_layer", "atac_decoder.rate", "atac_decoder.inclusion")


class GradientSizes(Callback):
    """Rows of the gradients of the widest weights before each step; 0 where there is none."""

    def __init__(self):
        self.rows = {name: set() for name in WIDE}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        del trainer, optimizer
        for name in WIDE:
            gradient = pl_module.module.get_parameter(f"{name}.weight").grad
            held = () if gradient is None else gradient
            if len(held) and gradient.is_sparse:
                held = gradient.coalesce().values()
            self.rows[name].add(len(held))


@pytest.mark.parametrize("plan", CYCLES.values(), ids=CYCLES)
def test_steps_by_blocks_train_to_the_weights_of_the_whole_gradient(
    make_mdata, register, train, monkeypatch, plan
):
    def fitted(may: bool) -> tuple[dict[str, torch.Tensor], dict[str, set[int]]]:
        sizes = GradientSizes()
        with monkeypatch.context() as patched:
            if not may:
                patched.setattr(SCMVPTrainingPlan, "_may_step_by_blocks", lambda _: False)
            model = train(
                register(make_mdata(), batch_key="batch"),
                max_epochs=3,
                plan_kwargs=plan,
                callbacks=[sizes],
            )
        return dict(model.module.named_parameters()), sizes.rows

    n_peaks = make_mdata()["atac"].n_vars
    (by_blocks, held), (whole, all_rows) = fitted(may=True), fitted(may=False)
    assert all_rows == {name: {n_peaks} for name in WIDE}
    by_cycle = {15} if plan is CYCLES["cycle"] else {0}
    # the cycle reads the rate and not the inclusion
    assert held == dict(zip(WIDE, (by_cycle, by_cycle, {0}), strict=True))
    for name in WIDE:
        for part in ("weight", "bias"):
            values = (f[f"{name}.{part}"] for f in (by_blocks, whole))
            torch.testing.assert_close(*values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("part", ["rate", "inclusion"])
def test_weights_that_a_user_has_frozen_stay_where_others_are_stepped_by_blocks(
    fresh_mdata, small, train_more, part
):
    model = SCMVPModel(fresh_mdata, n_clusters=4, **small)
    weight = getattr(model.module.atac_decoder, part).weight.requires_grad_(False)
    before, first = weight.clone(), model.module.atac_encoder.first_layer.weight
    first_before = first.detach().clone()
    train_more(model, plan_kwargs=CYCLES["cycle"])
    assert torch.equal(weight, before)
    assert not torch.equal(first, first_before)


@pytest.mark.filterwarnings("ignore:.* have no counts in `atac`:UserWarning")
@pytest.mark.parametrize("form", ["token", "scalar"])
def test_half_precision_trains_on_cells_that_lack_a_modality(make_mdata, register, train, form):
    mdata = register(make_mdata(missing_atac=0.2))
    model = train(mdata, precision="bf16-mixed", architecture={"self_attention": form})
    assert np.isfinite(model.history["elbo_validation"].to_numpy(float)).all()


@pytest.mark.filterwarnings("ignore:When using `Trainer.accumulate_grad_batches:UserWarning")
@pytest.mark.parametrize("n_accumulated", [{0: 1, 1: 2}, {0: 2, 1: 1}])
def test_gradients_are_whole_in_the_epochs_in_which_a_callback_accumulates_them(
    make_mdata, register, train, n_accumulated
):
    by_epoch = []

    class Epochs(GradientSizes):
        def on_train_epoch_end(self, trainer, pl_module):
            del trainer, pl_module
            by_epoch.append(self.rows["atac_decoder.inclusion"])
            self.rows = {name: set() for name in WIDE}

    train(
        register(make_mdata(), batch_key="batch"),
        max_epochs=2,
        callbacks=[GradientAccumulationScheduler(n_accumulated), Epochs()],
        plan_kwargs=CYCLES["cycle"],
    )
    n_peaks = make_mdata()["atac"].n_vars
    assert by_epoch == [{n_peaks if n_accumulated[epoch] == 2 else 0} for epoch in range(2)]


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_averaged_weights_of_wide_layers_are_left_as_they_are_by_the_pass_for_batch_norm(
    make_mdata, register, train
):
    average = StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=7)
    model = train(
        register(make_mdata(), batch_key="batch"),
        max_epochs=8,
        callbacks=[average],
        plan_kwargs=CYCLES["cycle"],
    )
    for name in WIDE:
        weight = f"{name}.weight"
        averaged = average._average_model.module.get_parameter(weight)
        torch.testing.assert_close(model.module.get_parameter(weight), averaged)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
def test_averages_that_reach_over_a_fit_of_the_mixture_are_refused(fresh_mdata, train):
    # fitted before epochs 5 and 9 of 10, counted from one
    for first in (1, 7, 8, 0.5):
        average = StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=first)
        with pytest.raises(ValueError, match="last fit .* before epoch 9, .*start=9` or"):
            train(fresh_mdata, max_epochs=10, callbacks=[average])
    with pytest.raises(ValueError, match="`EMAWeightAveraging` must .*`use_buffers=False`"):
        train(fresh_mdata, max_epochs=10, callbacks=[EMAWeightAveraging()])


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.parametrize(
    "average",
    [
        EMAWeightAveraging(decay=0.9, use_buffers=False),
        StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=9),
    ],
    ids=["EMA", "SWA"],
)
def test_averaged_weights_keep_the_components_of_the_last_fit(
    fresh_mdata, train, monkeypatch, average
):
    fits, fit_mixture = [], SCMVPTrainingPlan.fit_mixture

    def recorded(plan):
        fits.append(plan.current_epoch)
        fit_mixture(plan)

    monkeypatch.setattr(SCMVPTrainingPlan, "fit_mixture", recorded)
    model = train(fresh_mdata, max_epochs=10, callbacks=[average])
    assert model.get_cluster_probabilities().shape[1] == 4
    assert len(fits) == 2
    if isinstance(average, StochasticWeightAveraging):
        assert fits[-1] <= average.swa_start


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_in_half_precision_without_a_scaler(fresh_mdata, train, algorithm):
    clipped = {"gradient_clip_val": 1e-12, "gradient_clip_algorithm": algorithm}
    sgd = {"optimizer": "Adam", "eps": 1.0, "lr_schedule": "constant", "weight_decay": 0.0}
    sgd |= {"rna_output_scale": 1e6, "atac_output_scale": 1e6}
    still, moved = (
        train(
            fresh_mdata, max_epochs=n, precision="bf16-mixed", plan_kwargs=sgd, **clipped
        ).module.joint_encoder.shared.weight.detach()
        for n in (1, 3)
    )
    # with an epsilon of one, steps are as small as the gradients
    torch.testing.assert_close(still, moved, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, True),
        ({"trainer.precision": "bf16-mixed"}, False),
        ({"trainer.gradient_clip_val": None}, False),
        ({"_optimizer._step_supports_amp_scaling": False}, False),
    ],
)
def test_scaled_gradients_that_only_the_optimizer_can_unscale_are_not_clipped(changes, is_refused):
    plan = SimpleNamespace(
        trainer=SimpleNamespace(precision="16-mixed", gradient_clip_val=1.0),
        _optimizer=SimpleNamespace(_step_supports_amp_scaling=True),
    )
    for place, value in changes.items():
        *owners, name = place.split(".")
        setattr(reduce(getattr, owners, plan), name, value)
    with pytest.raises(ValueError, match="bf16-mixed") if is_refused else nullcontext():
        SCMVPTrainingPlan._check_can_clip(plan)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_clip_val": 1.0},
        {"accumulate_grad_batches": 2},
        {"precision": "bf16-mixed"},
        {"plan_kwargs": {"n_cycle_peaks": 20}},  # too many rows would wait
        {"plan_kwargs": {"n_cycle_peaks": 15, "n_peaks_per_step": 149}},
        {"plan_kwargs": {}},  # the cycle reads every row
        {
            "plan_kwargs": {
                "n_cycle_peaks": 15,
                "optimizer": "Custom",
                "optimizer_creator": torch.optim.Adam,
            }
        },
    ],
)
def test_gradients_are_whole_where_more_than_one_minibatch_or_somebody_else_has_a_say(
    make_mdata, register, train, options
):
    sizes = GradientSizes()
    mdata = register(make_mdata(), batch_key="batch")
    train(
        mdata, max_epochs=1, callbacks=[sizes], **{"plan_kwargs": {"n_cycle_peaks": 15}, **options}
    )
    n_peaks = make_mdata()["atac"].n_vars
    n_sampled = options.get("plan_kwargs", {}).get("n_peaks_per_step", n_peaks)
    assert list(sizes.rows.values()) == [{n_peaks}, {n_sampled}, {n_sampled}]


def test_weights_of_the_terms_reach_the_loss(fresh_mdata, train):
    plan = {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}
    model = train(fresh_mdata, max_epochs=1, plan_kwargs=plan)
    assert not any(name.startswith("cycle") for name in model.history)


def test_dense_minibatches_train_to_the_same_weights(make_mdata, register, train):
    def weights(**split) -> torch.Tensor:
        model = train(register(make_mdata()), max_epochs=2, **split)
        return model.module.joint_encoder.shared.weight

    torch.testing.assert_close(weights(load_sparse_tensor=False), weights(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("covariates", [False, True])
def test_covariates_train_with_and_without_entering_the_encoders(
    make_mdata, register, train, rng, covariates
):
    mdata = make_mdata()
    mdata.obs["site"], mdata.obs["age"] = np.arange(300) % 3, rng.normal(size=300)
    keys = {"categorical_covariate_keys": ["site"], "continuous_covariate_keys": ["age"]}
    register(mdata, batch_key="batch", **keys)
    model = train(mdata, architecture={"encode_covariates": covariates})
    assert np.isfinite(model.get_normalized_expression(return_numpy=True)).all()


DISTRIBUTED = """
import json, os, sys, warnings
import numpy as np, torch
warnings.simplefilter("ignore")
torch.set_num_threads(1)
from scmvp_scvi import SCMVPModel
from scmvp_scvi.datasets import synthetic

if __name__ == "__main__":
    mdata = synthetic(n_cells=300, n_genes=40, n_peaks=60, n_types=3, atac_depth=80)
    modalities = {"rna_layer": "rna", "atac_layer": "atac"}
    SCMVPModel.setup_mudata(mdata, batch_key="batch", modalities=modalities)
    model = SCMVPModel(mdata, n_clusters=3, n_latent=4, n_hidden=16, n_shared=16, n_heads=4)
    model.train(
        4,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        batch_size=32,
        enable_progress_bar=False,
        plan_kwargs=json.loads(sys.argv[2]),
    )
    prior = model.module.prior
    np.savez(
        os.path.join(sys.argv[1], os.environ.get("LOCAL_RANK", "0")),
        is_fitted=prior.is_fitted.numpy(),
        means=prior.means.detach().numpy(),
        idf=model.module.atac_idf.numpy(),
        weight=model.module.joint_encoder.shared.weight.detach().numpy(),
        rna_bias=model.module.rna_decoder.output.bias.detach().numpy(),
        atac_bias=model.module.atac_decoder.rate.bias.detach().numpy(),
        atac_weight=model.module.atac_decoder.rate.weight.detach().numpy(),
        dispersions=model.module.rna_decoder.log_inverse_dispersion.detach().numpy(),
        held_out=model.validation_indices,
        slope=model.module.calibrations["atac"].slope.numpy(),
        shifted=model.module.calibrations["atac"].mapped_centre.numpy(),
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"n_peaks_per_step": 20},
        {"n_cycle_peaks": 20},
        # by so wide a prior counts say more than it of each weight
        {"fit_rates": True, "atac_output_scale": 10.0},
    ],
)
def test_two_processes_train_the_same_model(tmp_path, plan):
    script = tmp_path / "distributed.py"
    script.write_text(DISTRIBUTED)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path), json.dumps(plan)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    assert first["is_fitted"]
    assert first["slope"] != 1
    for name in first:
        np.testing.assert_allclose(second[name], first[name], rtol=1e-6, err_msg=name)


# -- priors on weights ----------------------------------------------------------------------------


def test_output_weights_have_the_gaussian_priors_asked_for(fresh_mdata, train, small):
    scales = {"rna_output_scale": 0.5, "atac_output_scale": 0.1}
    model = train(fresh_mdata, max_epochs=1, plan_kwargs={**scales, "weight_decay": 1e-3})
    (optimizer,) = model.trainer.optimizers
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    rna, atac = model.module.rna_decoder, model.module.atac_decoder
    n_cells = len(model.train_indices)
    n_rna, n_atac = small["n_hidden"], small["n_hidden_atac"]
    assert decay[id(rna.output.weight)] == pytest.approx(n_rna / (0.5**2 * n_cells))
    assert decay[id(atac.rate.weight)] == pytest.approx(n_atac / (0.1**2 * n_cells))
    assert decay[id(atac.inclusion.weight)] == pytest.approx(n_atac / (0.1**2 * n_cells))
    assert decay[id(model.module.joint_encoder.shared.weight)] == 1e-3
    not_weights = (*model.module.prior.parameters(), rna.log_inverse_dispersion, atac.rate.bias)
    assert {decay[id(p)] for p in not_weights} == {0}


@pytest.mark.parametrize(("few_cells", "scale"), [(10_000, 1.0), (10, 3.4)])
def test_rna_output_weights_of_few_cells_have_the_narrower_prior(
    fresh_mdata, train, small, monkeypatch, few_cells, scale
):
    monkeypatch.setattr(_size_rules, "_FEW_CELLS", few_cells)
    model = train(fresh_mdata, max_epochs=1)
    [decay] = [
        group["weight_decay"]
        for group in model.trainer.optimizers[0].param_groups
        if any(p is model.module.rna_decoder.output.weight for p in group["params"])
    ]
    n_cells = len(model.train_indices)
    assert decay == pytest.approx(small["n_hidden"] / (scale**2 * n_cells))


@pytest.fixture(scope="module")
def with_and_without_fit(make_mdata, register, train) -> list[SCMVPModel]:
    """Models that had their dispersions fitted after the last epoch, and not."""
    return [
        train(register(make_mdata()), max_epochs=4, plan_kwargs={"fit_dispersions": asked})
        for asked in (None, False)
    ]


def dispersions(model: SCMVPModel) -> torch.Tensor:
    return model.module.rna_decoder.log_inverse_dispersion.detach()


def test_dispersions_of_few_cells_are_fitted_and_nothing_else(with_and_without_fit):
    fitted, trained = (model.module.state_dict() for model in with_and_without_fit)
    changed = {name for name in fitted if not torch.equal(fitted[name], trained[name])}
    assert changed == {"rna_decoder.log_inverse_dispersion"}


def test_fitted_dispersions_are_the_best_for_the_training_cells(with_and_without_fit):
    fitted, trained = with_and_without_fit
    mode, start, errors = dispersions(fitted).clone(), dispersions(trained), []
    for shift in (0, -0.2, 0.2):
        dispersions(fitted).copy_(mode + shift)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            options = {"indices": fitted.train_indices, "return_mean": False}
            of_cells = fitted.get_reconstruction_error(**options)["reconstruction_loss_rna"]
        prior = (mode + shift - start).square().sum() / (2 * 2.0**2)
        errors.append(float(of_cells.sum() + prior))
    dispersions(fitted).copy_(mode)
    assert errors[0] < min(errors[1:])


@pytest.mark.parametrize(("asked", "is_fitted"), [(None, False), (True, True)])
def test_dispersions_of_many_cells_are_fitted_where_asked_for(
    with_and_without_fit, make_mdata, register, train, monkeypatch, asked, is_fitted
):
    monkeypatch.setattr(_size_rules, "_FEW_CELLS", 10)
    # the other defaults of few cells
    plan, of_few = {"fit_dispersions": asked, "rna_output_scale": 1.0}, {"dropout_rate": 0.1}
    model = train(register(make_mdata()), max_epochs=4, plan_kwargs=plan, architecture=of_few)
    assert torch.equal(dispersions(model), dispersions(with_and_without_fit[not is_fitted]))


def test_dispersions_are_fitted_to_the_cells_of_all_processes(
    with_and_without_fit, make_mdata, register, train, monkeypatch
):
    # another process with the same cells: twice the likelihood moves further against the prior
    monkeypatch.setattr(SingleDeviceStrategy, "reduce", lambda self, x, reduce_op: 2 * x)
    model = train(register(make_mdata()), max_epochs=4)
    start = dispersions(with_and_without_fit[1])
    moved, before = ((dispersions(m) - start).abs() for m in (model, with_and_without_fit[0]))
    assert (moved > before - 0.05).all()
    assert moved.mean() > 1.03 * before.mean()


def test_dispersions_that_the_user_holds_still_are_not_fitted(make_mdata, register, small):
    model = SCMVPModel(register(make_mdata()), n_clusters=4, **small)
    held = model.module.rna_decoder.log_inverse_dispersion.requires_grad_(False)
    model.train(1, accelerator="cpu", devices=1, enable_progress_bar=False)
    assert (held == 0).all()


def test_dispersions_of_labels_are_fitted_to_the_cells_of_each(make_mdata, register, train):
    mdata = register(make_mdata(), labels_key="cell_type")
    architecture = {"dispersion": "gene-label", "n_clusters": None}
    models = [
        train(mdata, architecture=architecture, plan_kwargs={"fit_dispersions": asked})
        for asked in (True, False)
    ]
    moved = (dispersions(models[0]) - dispersions(models[1])).abs()
    assert moved.shape == (4, 80)
    assert (moved.mean(1) > 0.1).all()


@pytest.fixture(scope="module")
def with_and_without_fitted_rates(make_mdata, register, train) -> list[SCMVPModel]:
    """Models that had their rates fitted after the last epoch, and not."""
    return [
        train(register(make_mdata()), max_epochs=10, plan_kwargs=plan)
        for plan in ({"fit_rates": True}, {})
    ]


def rate_weights(model: SCMVPModel) -> torch.Tensor:
    return model.module.atac_decoder.rate.weight.detach()


def test_rates_are_fitted_where_asked_for_and_nothing_else(with_and_without_fitted_rates):
    fitted, trained = (model.module.state_dict() for model in with_and_without_fitted_rates)
    changed = {name for name in fitted if not torch.equal(fitted[name], trained[name])}
    assert changed == {"atac_decoder.rate.weight", "atac_decoder.rate.bias"}
    latents = [model.get_latent_representation() for model in with_and_without_fitted_rates]
    np.testing.assert_array_equal(*latents)


def test_fitted_rates_have_the_mean_of_the_trained_ones(with_and_without_fitted_rates):
    fitted, trained = (
        model.get_normalized_accessibility(return_numpy=True)
        for model in with_and_without_fitted_rates
    )
    assert np.abs(np.log(fitted.mean(0) / trained.mean(0))).mean() < 0.03


@pytest.mark.filterwarnings("ignore:.* of 150 features have no counts in `atac`:UserWarning")
@pytest.mark.parametrize("seed", [0, 1])
def test_fitted_rates_are_nearer_to_further_counts_of_the_cells(make_mdata, register, train, seed):
    log_likelihoods = []
    for asked in (True, False):
        mdata = make_mdata(seed=seed)
        counts = mdata["atac"].X.tocsr()
        rng, kept = np.random.default_rng(seed), counts.copy()
        kept.data = rng.binomial(counts.data.astype(int), 0.5).astype(np.float32)
        mdata["atac"].X = kept
        further = (counts - kept).toarray()
        plan = {"fit_rates": asked}
        model = train(register(mdata), max_epochs=30, seed=seed, plan_kwargs=plan)
        rates = model.get_normalized_accessibility(return_numpy=True)
        means = rates * further.sum(1, keepdims=True) / rates.sum(1, keepdims=True)
        log_likelihoods.append(stats.poisson(means).logpmf(further).sum() / len(means))
    assert log_likelihoods[0] > log_likelihoods[1]


@pytest.mark.parametrize("held", ["weight", "bias"])
def test_rates_that_the_user_holds_still_are_not_fitted(make_mdata, register, small, held):
    model = SCMVPModel(register(make_mdata()), n_clusters=4, **small)
    held = getattr(model.module.atac_decoder.rate, held).requires_grad_(False)
    plan = {"fit_rates": True, "atac_output_scale": 10.0}
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    model.train(1, plan_kwargs=plan, **quiet)
    start = held.clone()
    model.train(1, plan_kwargs=plan, **quiet)
    assert torch.equal(held, start)


def test_fit_of_the_rates_is_refused_for_what_are_not_counts(fresh_mdata, train):
    with pytest.raises(ValueError, match="the decoder of this model reconstructs TF-IDF"):
        train(fresh_mdata, architecture={"atac_target": "tfidf"}, plan_kwargs={"fit_rates": True})


def test_fit_of_the_rates_that_is_neither_asked_for_nor_not_is_refused(fresh_mdata, train):
    with pytest.raises(ValueError, match="`fit_rates` must be one of True, False"):
        train(fresh_mdata, plan_kwargs={"fit_rates": None})


def calibrations(model: SCMVPModel) -> dict[str, torch.Tensor]:
    return {f"calibrations.{k}": v for k, v in model.module.calibrations.state_dict().items()}


def test_channels_are_calibrated_after_the_last_epoch_and_nothing_else_changes(
    make_mdata, register, train
):
    calibrated, trained = (
        train(register(make_mdata()), max_epochs=4, plan_kwargs={"calibrate_channels": asked})
        for asked in (True, False)
    )
    states = [model.module.state_dict() for model in (calibrated, trained)]
    changed = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert changed == set(calibrations(calibrated))


def has_both(mdata: MuData) -> np.ndarray:
    """Whether a cell has counts in both modalities."""
    return np.logical_and(*(mdata[key].X.sum(1).A1 > 0 for key in ("rna", "atac")))


def assert_as_trained(model: SCMVPModel) -> None:
    for calibration in model.module.calibrations.values():
        assert calibration.slope == calibration.scale == 1
        assert torch.equal(calibration.centre, calibration.mapped_centre)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_calibration_is_the_fit_to_the_validation_cells_that_have_both_modalities(
    make_mdata, register, train
):
    mdata = register(make_mdata(missing_rna=0.03, missing_atac=0.03))
    model = train(mdata, max_epochs=4, train_size=0.7, validation_size=0.3)
    held_out = model.validation_indices
    rows = held_out[has_both(mdata)[held_out]]
    assert FEWEST_CELLS < len(rows) < len(held_out)
    joint, rna, atac = (
        model.get_latent_representation(indices=rows, modality=source, return_dist=True)
        for source in ("joint", "rna", "atac")
    )
    for kind, channel in {"rna": rna, "atac": atac}.items():
        found, expected = model.module.calibrations[kind], fit_calibration(*joint, *channel)
        for name, value in expected._asdict().items():
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("n_cells", "split"),
    [
        (300, {"train_size": 1.0}),
        (180, {}),
        (300, {"train_size": 0.9, "validation_size": 0.05}),
        (300, {"shuffle_set_split": False}),
        (300, {"datasplitter_kwargs": {"external_indexing": [range(250), range(250, 300)]}}),
    ],
)
def test_channels_stay_as_trained_where_few_cells_or_chosen_ones_are_held_out(
    make_mdata, register, train, n_cells, split
):
    assert_as_trained(train(register(make_mdata(n_cells=n_cells)), max_epochs=1, **split))


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_channels_stay_as_trained_where_many_cells_lack_a_modality(make_mdata, register, train):
    # paired cells may be of other types than the rest
    mdata = register(make_mdata(missing_atac=0.2))
    model = train(mdata, max_epochs=1, train_size=0.7, validation_size=0.3)
    assert has_both(mdata)[model.validation_indices].sum() > FEWEST_CELLS
    assert_as_trained(model)


def test_training_on_all_cells_takes_the_calibration_of_an_earlier_one_back(
    fresh_mdata, train, train_more
):
    model = train(fresh_mdata, max_epochs=2)
    assert model.module.calibrations["atac"].slope != 1
    train_more(model, train_size=1.0)
    assert_as_trained(model)


def test_interrupted_training_takes_the_calibration_of_an_earlier_one_back(
    fresh_mdata, train, train_more
):
    class Interrupting(Callback):
        def on_train_batch_end(self, *args):
            raise KeyboardInterrupt

    model = train(fresh_mdata, max_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train_more(model, callbacks=[Interrupting()])
    assert_as_trained(model)


def test_calibration_is_saved_with_the_model(fresh_mdata, train, tmp_path):
    model = train(fresh_mdata, max_epochs=2)
    model.save(tmp_path / "model")
    loaded = SCMVPModel.load(tmp_path / "model", adata=fresh_mdata)
    for name, value in calibrations(model).items():
        assert torch.equal(calibrations(loaded)[name], value)
    found, expected = (
        of.get_normalized_expression(from_modality="atac", return_numpy=True)
        for of in (loaded, model)
    )
    np.testing.assert_array_equal(found, expected)


def test_calibration_that_is_neither_asked_for_nor_not_is_refused(fresh_mdata, train):
    with pytest.raises(ValueError, match="`calibrate_channels` must be one of True, False"):
        train(fresh_mdata, plan_kwargs={"calibrate_channels": None})


def test_vectors_of_batches_do_not_decay(fresh_mdata, train):
    architecture = {"batch_representation": "embedding"}
    plan = {"weight_decay": 1e-3}
    model = train(fresh_mdata, architecture=architecture, max_epochs=1, plan_kwargs=plan)
    [group] = [
        group
        for group in model.trainer.optimizers[0].param_groups
        if any(p is model.module.batch_vectors for p in group["params"])
    ]
    assert group["weight_decay"] == 0


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"mixture_start": 7}, "`mixture_start` must be above 0 and at most 1, got 7"),
        ({"mixture_start": 0}, "`mixture_start`"),
        ({"mixture_refit": 1}, "`mixture_refit` must be above 0 and below 1, got 1"),
        ({"mixture_refit": 0}, "`mixture_refit` must be above 0 and below 1, got 0"),
        ({"kl_warmup": -0.1}, "`kl_warmup` must be at least 0"),
        ({"lr_schedule": "cosin"}, "`lr_schedule`"),
        ({"atac_output_scale": 0}, "`atac_output_scale`"),
        ({"gaussian_kl_weight": 0}, "`gaussian_kl_weight`"),
        ({"max_kl_weight": 0.1}, "rises from `min_kl_weight`.*got 0.0, 0.2 and 0.1"),
        ({"min_kl_weight": -1}, "`min_kl_weight` must be at least 0 and finite, got -1"),
        ({"n_epochs_kl_warmup": 5}, "replaced by `kl_warmup`"),
        ({"compile": True}, "`compile` must be False: torch cannot compile what takes sparse"),
        ({"optimizer": "Custom", "rna_output_scale": 1.0}, "`rna_output_scale` is a weight decay"),
        ({"optimizer": "Custom", "atac_output_scale": 0.1}, "a custom one replaces"),
        ({"cluster_resolution": -1}, "`cluster_resolution` must be above 0 and finite"),
        ({"eps": -1e-8}, "`eps` must be above 0 and finite"),
        ({"weight_decay": -1}, "`weight_decay` must be at least 0 and finite, got -1"),
        ({"alignment_weight": -5.0}, "`alignment_weight` must be at least 0 and finite"),
        ({"cycle_weight": -5.0}, "`cycle_weight` must be at least 0 and finite"),
        ({"cycle_cluster_weight": math.nan}, "`cycle_cluster_weight` must be at least 0 and"),
        ({"label_weight": -1}, "`label_weight` must be at least 0 and finite, got -1"),
        ({"optimizer": "SGD"}, "`optimizer` must be one of 'Adam', 'AdamW', 'Custom', got 'SGD'"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"cuda_graph": "no"}, "`cuda_graph` must be one of True, False, got 'no'"),
    ],
)
def test_plan_refuses_what_it_cannot_do(fresh_mdata, train, plan, message):
    with pytest.raises(ValueError, match=message):
        train(fresh_mdata, plan_kwargs=plan)


@pytest.mark.parametrize("plan", [{}, {"n_peaks_per_step": 40}])
def test_model_trains_under_bf16_autocast(make_mdata, register, train, plan):
    model = train(register(make_mdata()), max_epochs=8, precision="bf16-mixed", plan_kwargs=plan)
    elbo = model.history["elbo_validation"].to_numpy(dtype=float).ravel()
    assert elbo[-1] < elbo[0]
    assert np.isfinite(model.get_latent_representation()).all()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_sparse_minibatches_come_through_worker_processes(make_mdata, register, train):
    def weights(**split) -> torch.Tensor:
        model = train(register(make_mdata()), max_epochs=1, datasplitter_kwargs=split)
        return model.module.joint_encoder.shared.weight

    by_worker = weights(num_workers=1, persistent_workers=True)
    torch.testing.assert_close(by_worker, weights(), rtol=0, atol=0)


def test_model_trains_on_sampled_peaks(make_mdata, register, train):
    mdata = register(make_mdata())
    sampled = train(mdata, max_epochs=8, plan_kwargs={"n_peaks_per_step": 40})
    elbo = sampled.history["elbo_validation"].to_numpy().ravel()
    assert elbo[-1] < elbo[0]
    assert np.isfinite(sampled.get_latent_representation()).all()


@pytest.mark.parametrize("argument", ["n_peaks_per_step", "n_cycle_peaks", "n_cycle_genes"])
@pytest.mark.parametrize("number", [0, -3, 2.5])
def test_numbers_of_features_are_checked(fresh_mdata, train, argument, number):
    with pytest.raises((TypeError, ValueError), match=f"`{argument}`"):
        train(fresh_mdata, plan_kwargs={argument: number})


def test_sampled_peaks_refuse_a_custom_optimizer(fresh_mdata, train):
    plan = {
        "n_peaks_per_step": 40,
        "optimizer": "Custom",
        "optimizer_creator": torch.optim.SGD,
    }
    with pytest.raises(ValueError, match="custom optimizer"):
        train(fresh_mdata, plan_kwargs=plan)


def test_eps_of_the_optimizer_is_the_one_asked_for(fresh_mdata, train):
    model = train(fresh_mdata, max_epochs=1, plan_kwargs={"eps": 0.02})
    (optimizer,) = model.trainer.optimizers
    assert {group["eps"] for group in optimizer.param_groups} == {0.02}


def may_step_by_blocks(**changes: object) -> bool:
    """Whether a plan on a CPU steps wide weights by blocks; it does but for the changes."""
    trainer = SimpleNamespace(
        world_size=1,
        precision="32-true",
        accumulate_grad_batches=1,
        gradient_clip_val=None,
        fit_loop=SimpleNamespace(_skip_backward=False),
    )
    plan = SimpleNamespace(
        device=torch.device("cpu"),
        trainer=trainer,
        loss_kwargs={"n_cycle_peaks": 10},
        module=SimpleNamespace(atac_idf=torch.ones(100)),
        _optimizer=Mock(spec=RowAdam),
    )
    for place, value in changes.items():
        *owners, name = place.split(".")
        setattr(reduce(getattr, owners, plan), name, value)
    return SCMVPTrainingPlan._may_step_by_blocks(plan)


@pytest.mark.parametrize(
    "changes",
    [{"trainer.world_size": 2}, {"device": torch.device("cuda")}],
    ids=["two processes", "accelerator"],
)
def test_gradients_are_whole_where_processes_exchange_them_and_on_an_accelerator(
    changes,
):
    assert may_step_by_blocks()
    assert not may_step_by_blocks(**changes)


def test_steps_are_not_recorded_where_kernels_are_to_be_deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        assert "deterministic" in hindrance()
    finally:
        torch.use_deterministic_algorithms(False)


def test_steps_are_not_recorded_where_cells_lack_rna():
    lacking = SimpleNamespace(some_unobserved=True)
    assert "lack a modality" in hindrance(**{"module.rna_encoder": lacking})


def test_validation_cells_are_judged_and_never_learned_from_where_steps_are_replayed(
    fresh_mdata, train, monkeypatch
):
    def start_recording(plan: SCMVPTrainingPlan) -> None:
        plan.step_recorder = plan.step_recorder or StepRecorder(64)

    n_replays = []
    for share_held_out in (0.1, 0.3):  # one minibatch of 30 or of 64 and one of 26
        monkeypatch.setattr(RecordedOnCPU, "n_replays", 0)
        monkeypatch.setattr(_recorded_step, "RecordedStep", RecordedOnCPU)
        monkeypatch.setattr(SCMVPTrainingPlan, "_record_steps_if_possible", start_recording)
        rows = np.arange(300)
        parts = np.split(rows, [210, 210 + round(300 * share_held_out)])
        split = {"external_indexing": parts}
        train(fresh_mdata, max_epochs=3, batch_size=64, datasplitter_kwargs=split)
        n_replays.append(RecordedOnCPU.n_replays)
    assert n_replays[0] == n_replays[1] == 3 * 3 - 3


@pytest.mark.parametrize(("kind", "warns"), [("atac", True), ("rna", False)])
def test_a_training_warns_once_of_a_cell_whose_atac_counts_outweigh_those_of_others(
    make_mdata, register, kind, warns
):
    mdata = make_mdata()
    counts = mdata[kind].X.toarray()
    counts[7] *= 200
    mdata[kind].X = counts
    model = SCMVPModel(register(mdata), n_hidden=8)
    for may_warn in (warns, False):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.train(max_epochs=1, train_size=1.0)
        told = [
            w for w in caught if "times the counts in `atac` of the median cell" in str(w.message)
        ]
        assert len(told) == may_warn
        assert all(f"`{mdata.obs_names[7]}`" in str(w.message) for w in told)
        assert all(w.filename == __file__ for w in told)
