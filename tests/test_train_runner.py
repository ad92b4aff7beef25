"""Trainings that stop early, fail, write checkpoints, or have no cells to be validated on."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import mudata
import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from scvi.train import SaveCheckpoint, TrainerConfig, TrainingPlanConfig

from scmvp_scvi import SCMVPModel, _train_runner

STOP_AT_ONCE = {
    "early_stopping": True,
    "early_stopping_patience": 1,
    "early_stopping_min_delta": 1e6,
}


class Failure(Callback):
    """Ends a training in its second minibatch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        del trainer, pl_module, outputs, batch
        if batch_idx == 1:
            raise RuntimeError("ended")


def test_trained_model_answers_without_chance_after_a_training_that_failed(
    fresh_mdata, train, train_more
):
    model = train(fresh_mdata, max_epochs=1)
    with pytest.raises(RuntimeError, match="ended"):
        train_more(model, max_epochs=1, callbacks=[Failure()])
    assert not any(layer.training for layer in model.module.modules())
    first, second = (model.get_latent_representation() for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("fails", [True, False])
def test_checkpoints_do_not_make_a_trained_model_forget_that_it_is(
    fresh_mdata, train, train_more, fails, tmp_path
):
    model = train(fresh_mdata, max_epochs=2)

    class FailureAfterACheckpoint(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            del pl_module
            if trainer.current_epoch == 1:
                raise RuntimeError("ended")

    callbacks = [SaveCheckpoint(dirpath=str(tmp_path), monitor="elbo_validation")]
    callbacks += [FailureAfterACheckpoint()] if fails else []
    with pytest.raises(RuntimeError, match="ended") if fails else nullcontext():
        train_more(model, max_epochs=2, enable_checkpointing=True, callbacks=callbacks)
    assert list(tmp_path.iterdir())
    assert model.is_trained_
    assert len(model.history["elbo_train"]) == (3 if fails else 4)


@pytest.mark.parametrize(("refit", "least"), [(None, 6), (0.5, 7)])
def test_training_does_not_stop_early_before_the_last_mixture_has_its_full_weight(
    fresh_mdata, train, refit, least
):
    plan = {"mixture_start": 0.5, "mixture_refit": refit}
    model = train(fresh_mdata, max_epochs=10, plan_kwargs=plan, **STOP_AT_ONCE)
    # the first judged epoch sets the bar, the second does not reach it
    assert model.trainer.current_epoch == least + 2


@pytest.mark.parametrize(
    ("options", "last"),
    [
        # of 40 epochs 28 are not watched; the next validation sets a bar that none reaches
        ({"max_epochs": 40}, 28 + 1 + 4),
        ({"max_epochs": 40, "check_val_every_n_epoch": 2}, 28 + 2 * (1 + 2)),
        ({"max_epochs": 40, "val_check_interval": 0.5}, 28 + (1 + 8) / 2),
        ({"max_epochs": 10}, 7 + 1 + 1),
        ({"max_epochs": 40, "trainer_config": {"early_stopping_patience": 1}}, 28 + 1 + 1),
    ],
)
@pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning")
def test_early_stopping_by_default_ends_a_training_that_gets_no_better(
    fresh_mdata, train, options, last
):
    model = train(fresh_mdata, early_stopping=True, early_stopping_min_delta=1e6, **options)
    assert model.trainer.current_epoch == math.ceil(last)


@pytest.mark.parametrize(
    ("interval", "expected"), [(4, 5.0), (0.25, 4.0), (None, 1.0), ("00:10:00", 1.0)]
)
def test_validations_of_an_epoch_are_counted_by_minibatches_or_shares(interval, expected):
    assert _train_runner._validations_per_epoch({"val_check_interval": interval}, 20) == expected


@pytest.mark.parametrize("precision", [64, "64-true", "bf16-true", "16-true"])
def test_precision_that_converts_the_weights_is_refused(fresh_mdata, train, precision):
    with pytest.raises(ValueError, match='`precision` must be "32-true", "16-mixed" or "bf16'):
        train(fresh_mdata, precision=precision)


@pytest.mark.parametrize("precision", [32, "bf16-mixed"])
def test_precision_that_leaves_the_weights_is_accepted(fresh_mdata, train, precision):
    model = train(fresh_mdata, max_epochs=1, precision=precision)
    assert {p.dtype for p in model.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"early_stopping": True}, "`early_stopping`"),
        ({"enable_checkpointing": True}, "`enable_checkpointing`"),
        ({"callbacks": [SaveCheckpoint(monitor="elbo_validation")]}, '`monitor="elbo_valid'),
        ({"callbacks": SaveCheckpoint(load_best_on_end=True)}, '`monitor="validation_loss"`'),
        ({"plan_kwargs": {"reduce_lr_on_plateau": True}}, "reduce_lr_on_plateau"),
    ],
)
def test_validation_without_cells_for_it_is_refused(fresh_mdata, train, arguments, name):
    with pytest.raises(
        ValueError, match=f"{name}.* acts after each validation.*lower `train_size`"
    ):
        train(fresh_mdata, train_size=1.0, **arguments)


@pytest.mark.parametrize("options", [{"early_stopping": True}, {"enable_checkpointing": True}])
def test_callbacks_of_the_caller_serve_for_other_trainings_too(
    fresh_mdata, train, train_more, options, tmp_path, monkeypatch
):
    monkeypatch.setattr(scvi.settings, "logging_dir", str(tmp_path))
    callbacks = [Callback()]
    model = train(fresh_mdata, max_epochs=1, callbacks=callbacks, enable_progress_bar=True)
    train_more(model, max_epochs=1, callbacks=callbacks, enable_progress_bar=True, **options)
    assert len(callbacks) == 1


def test_one_callback_need_not_be_in_a_list(fresh_mdata, train):
    seen = []

    class Epochs(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            del pl_module
            seen.append(trainer.current_epoch)

    train(fresh_mdata, max_epochs=2, callbacks=Epochs())
    assert seen == [0, 1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("plan_config", TrainingPlanConfig),
        ("plan_kwargs", TrainingPlanConfig),
        ("trainer_config", TrainerConfig),
    ],
)
def test_configs_that_name_each_default_of_scvi_tools_are_refused(fresh_mdata, train, name, kind):
    with pytest.raises(TypeError, match=f"`{name}` must be a mapping, got {kind.__name__}"):
        train(fresh_mdata, **{name: kind()})


def test_history_goes_on_with_what_earlier_trainings_did_not_log(fresh_mdata, train, train_more):
    """Epochs of 5 minibatches, counted on, and steps likewise."""
    plan = {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}
    steps = {"batch_size": 64, "plan_kwargs": {"on_step": True}, "log_every_n_steps": 1}
    model = train(fresh_mdata, max_epochs=2, train_size=1.0, plan_kwargs=plan)
    train_more(model, max_epochs=4, check_val_every_n_epoch=2, learning_rate_monitor=True, **steps)
    train_more(model, max_epochs=2, **steps)
    epochs = {name: list(series.index) for name, series in model.history.items()}
    assert epochs["elbo_train_epoch"] == epochs["cycle_latent_rna_train_epoch"] == [*range(2, 8)]
    assert epochs["elbo_validation_epoch"] == [3, 5, 6, 7]
    assert epochs["elbo_train"] == [0, 1]
    assert epochs["train_loss_step"] == [*range(6 * 5)]
    for name in ("elbo_train", "elbo_validation_epoch"):
        assert model.history[name].index.name == "epoch"
        assert np.isfinite(model.history[name].to_numpy(float)).all()


@pytest.mark.parametrize("n_trainings", [1, 2])
def test_history_can_be_written_with_the_data(
    fresh_mdata, train, train_more, tmp_path, n_trainings
):
    model = train(fresh_mdata, max_epochs=1)
    if n_trainings == 2:
        train_more(model, max_epochs=1)
    fresh_mdata.uns["history"] = model.history
    fresh_mdata.write(tmp_path / "data.h5mu")
    written = mudata.read_h5mu(tmp_path / "data.h5mu").uns["history"]["elbo_train"]
    np.testing.assert_array_equal(written, model.history["elbo_train"])


@pytest.mark.parametrize("options", [{"logger": False}, {"fast_dev_run": True}])
def test_history_begins_with_the_first_training_that_leaves_one(
    fresh_mdata, train, train_more, options
):
    model = train(fresh_mdata, max_epochs=1, **options)
    train_more(model, max_epochs=2)
    train_more(model, max_epochs=1)
    assert list(model.history["elbo_train"].index) == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"limit_val_batches": 0}, "`limit_val_batches=0` leaves none"),
        ({"check_val_every_n_epoch": 5, "max_epochs": 4}, "follow epoch 5 of 4: lower"),
    ],
)
def test_early_stopping_without_a_validation_is_refused_before_training(
    fresh_mdata, train, options, reason
):
    with pytest.raises(ValueError, match=f"`early_stopping` acts after each validation.*{reason}"):
        train(fresh_mdata, early_stopping=True, **options)


class Interrupt(Callback):
    """A user who loses patience."""

    def on_train_batch_start(self, *args: object) -> None:
        raise KeyboardInterrupt


def test_interrupted_training_does_not_end_the_process(fresh_mdata, small, train_more):
    model = SCMVPModel(fresh_mdata, **small, n_clusters=4)
    with pytest.raises(KeyboardInterrupt):
        train_more(model, callbacks=[Interrupt()])
    train_more(model)
    assert model.is_trained


@pytest.mark.parametrize(
    ("n_train", "drop_last", "message"),
    [
        (200, True, None),
        (198, False, None),
        (198, True, "of each of 2 processes, 99, than `batch_size`, 100"),
        (2, False, "at least 2 training cells of each process, got 2 of 2"),
    ],
)
def test_too_few_cells_for_a_step_of_each_process_are_refused(n_train, drop_last, message):
    runner = SimpleNamespace(
        trainer=SimpleNamespace(world_size=2),
        data_splitter=SimpleNamespace(n_train=n_train, drop_last=drop_last, batch_size=100),
    )
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        _train_runner.SCMVPTrainRunner._check_cells_of_a_process(runner)
