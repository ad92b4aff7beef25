"""`SCMVPTrainRunner`: the trainer that fits the cells there are and the schedule of the plan."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from lightning.pytorch.callbacks import Callback
from scvi.dataloaders import DataSplitter
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner

from scmvp_scvi._training_plan import SCMVPTrainingPlan

_PATIENCE = 0.1  # share of the epochs without improvement after which training stops early


class SCMVPTrainRunner(TrainRunner):
    """Run the training, with what follows from the cells there are and from the schedule.

    There are no validation epochs where no cell is held out for them, which Lightning refuses in
    terms of dataloaders. Early stopping waits until the mixture is fitted for the last time and
    has its full weight, and then for a tenth of the epochs without improvement, unless
    ``early_stopping_warmup_epochs`` and ``early_stopping_patience`` say otherwise; scvi-tools
    counts both in validations. Checkpoints go by the validation ELBO; the loss has a weight that
    changes.

    Parameters
    ----------
    model, training_plan, data_splitter, **trainer_kwargs
        As in :class:`scvi.train.TrainRunner`.

    Raises
    ------
    ValueError
        If there are fewer than two training cells or no whole minibatch of them where others are
        dropped, validation is asked for and no cell is held out for it, or the precision is none
        that the weights can be kept in.
    """

    def __init__(
        self,
        model: BaseModelClass,
        training_plan: SCMVPTrainingPlan,
        data_splitter: DataSplitter,
        **trainer_kwargs: Any,
    ) -> None:
        if data_splitter.n_train < 2:
            raise ValueError(
                "Training needs at least 2 training cells, for the statistics of its layers, got "
                f"{data_splitter.n_train}: pass more cells, or raise `train_size`."
            )
        max_epochs = trainer_kwargs["max_epochs"]
        n_changing = training_plan.epochs_to_last_objective(max_epochs)
        callbacks = trainer_kwargs.get("callbacks")
        # a list of our own: scvi-tools adds to it, and the caller's may serve for other trainings
        trainer_kwargs["callbacks"] = (
            [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
        )
        _check_precision(trainer_kwargs.get("precision"))
        if (reason := _no_validation_because(data_splitter, trainer_kwargs)) is not None:
            _check_needs_no_validation(training_plan, trainer_kwargs, reason)
        if data_splitter.n_val == 0:
            trainer_kwargs["check_val_every_n_epoch"] = None
        n_batches = math.ceil(data_splitter.n_train / data_splitter.batch_size)
        per_epoch = _validations_per_epoch(trainer_kwargs, n_batches)
        trainer_kwargs = {
            "checkpointing_monitor": "elbo_validation",
            "early_stopping_warmup_epochs": int(n_changing * per_epoch),
            "early_stopping_patience": max(1, round(_PATIENCE * max_epochs * per_epoch)),
            **trainer_kwargs,
        }
        super().__init__(model, training_plan, data_splitter, **trainer_kwargs)
        self._check_cells_of_a_process()

    def _check_cells_of_a_process(self) -> None:
        """Refuse too few cells for a step: what each process has is known to the trainer alone."""
        splitter, n_processes = self.data_splitter, self.trainer.world_size
        n_cells = math.ceil(splitter.n_train / n_processes)
        if n_cells == 1:
            raise ValueError(
                "Training needs at least 2 training cells of each process, got "
                f"{splitter.n_train} of {n_processes}: pass more cells, or train on fewer devices."
            )
        if splitter.drop_last and n_cells < splitter.batch_size:
            of_process = f" of each of {n_processes} processes" if n_processes > 1 else ""
            raise ValueError(
                "`drop_last` leaves no minibatch where there are fewer training "
                f"cells{of_process}, {n_cells}, than `batch_size`, {splitter.batch_size}: lower "
                "it, or leave `drop_last` out."
            )

    def __call__(self) -> None:
        """Train; a model that was trained before answers on, however this training ends."""
        self._was_trained = self.model.is_trained_
        module = self.model.module
        flags = (module.prior.is_fitted, module.feature_statistics_known)
        before = [bool(flag) for flag in flags]
        try:
            super().__call__()
        except BaseException as error:
            # the next training is the first one still: its mixture and the statistics of its
            # features are those of its own training cells
            if not self._was_trained:
                for flag, was_set in zip(flags, before, strict=True):
                    flag.fill_(was_set)
            if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
                # Lightning ends the process, where a notebook or a script may want to go on
                raise KeyboardInterrupt from error
            raise
        finally:
            # trainers and tracebacks keep the plan, and a recorded step holds much memory
            self.training_plan.forget_recorded_step()
            self.model.module.eval()

    def _update_history(self) -> None:
        """Add to the history of earlier trainings, which a checkpoint has the model forget.

        Epochs and steps are counted on. Scvi-tools drops what was not logged before, and counts
        the rows of each series, whatever they are of.
        """
        # where nothing is kept so far, this training is the first that leaves a history
        self.model.is_trained_ = self._was_trained and bool(self.model.history_)
        history, logged = self.model.history_, getattr(self.trainer.logger, "history", None)
        if not (self._was_trained and history and logged and self.trainer.is_global_zero):
            super()._update_history()
            self._make_numbers_of_history()
            return
        n_before: dict[str, int] = {}
        for series in history.values():
            kind = series.index.name
            n_before[kind] = max(n_before.get(kind, 0), int(series.index[-1]) + 1)
        for name, series in logged.items():
            counted_on = series.set_axis(series.index + n_before.get(series.index.name, 0))
            parts = [history[name], counted_on] if name in history else [counted_on]
            history[name] = pd.concat(parts).rename_axis(series.index.name)
        self._make_numbers_of_history()

    def _make_numbers_of_history(self) -> None:
        """Have the history hold numbers, which can be written with the data, and not objects."""
        for name, series in (self.model.history_ or {}).items():
            self.model.history_[name] = series.astype(float)


def _validations_per_epoch(trainer_kwargs: Mapping[str, Any], n_batches: int) -> float:
    """How often the trainer validates, of an epoch with so many minibatches."""
    every = trainer_kwargs.get("check_val_every_n_epoch") or 1
    interval = trainer_kwargs.get("val_check_interval") or 1.0
    if isinstance(interval, int):  # Lightning's way to tell minibatches from shares of an epoch
        interval = interval / n_batches
    elif not isinstance(interval, float):  # a time, which says nothing of epochs
        interval = 1.0
    return 1 / (every * interval)


def _check_precision(precision: str | int | None) -> None:
    """Refuse to convert the module, whose inputs outside of steps stay what they are."""
    known = (None, 32, "32", "32-true", "16-mixed", "bf16-mixed", 16, "16", "bf16")
    if precision not in known:
        raise ValueError(
            '`precision` must be "32-true", "16-mixed" or "bf16-mixed", for the weights of the '
            f"model stay in single precision, got {precision!r}."
        )


def _no_validation_because(
    data_splitter: DataSplitter, trainer_kwargs: Mapping[str, Any]
) -> str | None:
    """Why there will be no validation, and the way out; None if there will be one."""
    every, max_epochs = trainer_kwargs.get("check_val_every_n_epoch"), trainer_kwargs["max_epochs"]
    if data_splitter.n_val == 0:
        return "there are none: lower `train_size`, or leave it out"
    if trainer_kwargs.get("limit_val_batches") == 0:
        return "`limit_val_batches=0` leaves none of them: leave it out"
    if every is not None and every > max_epochs:
        return (
            f"the first one would follow epoch {every} of {max_epochs}: lower "
            "`check_val_every_n_epoch`"
        )
    return None


def _check_needs_no_validation(
    training_plan: SCMVPTrainingPlan, trainer_kwargs: Mapping[str, Any], reason: str
) -> None:
    """Refuse what acts after validations where there are none."""
    asked = {
        "early_stopping": trainer_kwargs.get("early_stopping"),
        "enable_checkpointing": trainer_kwargs.get("enable_checkpointing"),
        'plan_kwargs={"reduce_lr_on_plateau": True}': training_plan.reduce_lr_on_plateau,
    }
    names = [name for name, value in asked.items() if value]
    monitors = [getattr(callback, "monitor", None) for callback in trainer_kwargs["callbacks"]]
    names += [f'callbacks` with `monitor="{m}"' for m in monitors if "validation" in (m or "")]
    if names:
        raise ValueError(
            f"`{'`, `'.join(names)}` acts after each validation on cells that are held out, and "
            f"{reason}."
        )
