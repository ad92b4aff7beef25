"""Arguments of `SCMVPModel.train` that would be ignored, or fail late and in other words."""

from collections.abc import Collection, Iterable, Mapping
from inspect import signature
from typing import Any

import lightning.pytorch as pl
import torch
from scvi.train import SaveCheckpoint, Trainer

from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._plan_arguments import arguments_of_plan
from scmvp_scvi._size_rules import TRAINING_SHARE
from scmvp_scvi._training_plan import SCMVPTrainingPlan
from scmvp_scvi._validate import check_in, did_you_mean, shown

# arguments of the data splitter and of PyTorch's loader, which it makes
_OF_SPLITTER = ("external_indexing", "pin_memory", "num_workers", "drop_last")
# further ones of the loader that leave its minibatches as the model reads them
_OF_LOADER = (
    "multiprocessing_context",
    "persistent_workers",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)
# arguments of the trainer that can have it take no step
_NONE_OF_IT = ("max_steps", "limit_train_batches")
# those that make loaders or a trainer of their own kind
_NOT_OFFERED = {
    "overfit_batches": "for its loaders cannot read sparse counts; train on fewer cells, named by "
    '`datasplitter_kwargs={"external_indexing": [rows]}`',
    "barebones": "for it keeps nothing of what is logged",
}
# arguments of `train` that are among those of the trainer
_CONFIGS = ("plan_config", "trainer_config")
# what scvi-tools takes from among the arguments of the trainer
_OF_RUNNER = ("ckpt_path",)
# arguments of the plan that the model brings, and where users choose them
_OF_MODEL = {
    "n_clusters": "pass it to `SCMVPModel(...)`",
    "seeding_labels": "pass `labels_key` to `SCMVPModel.setup_mudata`",
    "surgery": "pass `unfrozen=True` to `SCMVPModel.load_query_data` for a query that learns all",
}


def check_strategy(devices: int | list[int] | str, arguments: Mapping[str, Any]) -> None:
    """Refuse several devices without what has scvi-tools give each its own cells.

    Parameters
    ----------
    devices
        Of Lightning.
    arguments
        Those of the trainer.

    Raises
    ------
    ValueError
        If there are several, and no strategy.
    """
    if arguments.get("strategy", "auto") == "auto" and _n_devices(devices) > 1:
        raise ValueError(
            f"`devices={devices!r}` needs a strategy that gives each device cells of its own: "
            'pass `strategy="ddp"`, or train on one device.'
        )


def check_split(train_size: float | None, validation_size: float | None) -> None:
    """Refuse shares that scvi-tools would take for none, or refuse without their names.

    Parameters
    ----------
    train_size, validation_size
        Shares of the cells, None for the default.

    Raises
    ------
    TypeError
        If one is no number.
    ValueError
        If one is no share, or if they are more than all cells together.
    """
    if train_size is not None:
        check_in(train_size, "(0, 1]", name="train_size")
    if validation_size is None:
        return
    check_in(validation_size, "[0, 1)", name="validation_size")
    of_training = TRAINING_SHARE if train_size is None else train_size
    if of_training + validation_size > 1:
        raise ValueError(
            "`train_size` and `validation_size` must be at most 1 together, got "
            f"{of_training}{' by default' if train_size is None else ''} and {validation_size}. "
            f"Lower one: `train_size={1 - validation_size:.4g}` leaves no cell out."
        )


def check_no_split(train_size: float | None, validation_size: float | None) -> None:
    """Refuse shares of the cells where the cells of each part are named.

    Parameters
    ----------
    train_size, validation_size
        Shares of the cells, None where they were not given.

    Raises
    ------
    ValueError
        If one was given.
    """
    for name, share in (("train_size", train_size), ("validation_size", validation_size)):
        if share is not None:
            raise ValueError(
                f"`{name}` splits the cells by chance, got {share!r} beside `external_indexing`, "
                "which names the cells of each part: leave one of them out."
            )


def check_splitter_arguments(arguments: Mapping[str, Any], of_train: Collection[str]) -> None:
    """Refuse what neither the data splitter nor its loader takes, or takes from `train`.

    Parameters
    ----------
    arguments
        What ``datasplitter_kwargs`` says.
    of_train
        Names of the arguments of `train`.

    Raises
    ------
    TypeError
        If there is no such argument, or it is one of `train`.
    """
    known = (*_OF_SPLITTER, *_OF_LOADER)
    _refuse_arguments_of_train(arguments, of_train, passed_as="datasplitter_kwargs")
    for name in arguments:
        if name not in known:
            raise TypeError(
                f"`datasplitter_kwargs` must name arguments of the data splitter or of PyTorch's "
                f"loader, {shown(known)}, got `{name}`.{did_you_mean(name, known)}"
            )


def check_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that go elsewhere, which other models of scvi-tools take with these.

    Parameters
    ----------
    arguments
        Those of the trainer.

    Raises
    ------
    TypeError
        If there is no such argument, or it is one of the plan, the data splitter or a callback.
    ValueError
        If it leaves no step to train by, or is not offered.
    """
    if "datamodule" in arguments:
        raise TypeError(
            "`datamodule` is not offered: the model trains on the MuData that it was set up with, "
            "of which `datasplitter_kwargs` can name the cells of each part."
        )
    of_plan = arguments_of_plan(SCMVPTrainingPlan, SCMVPModule)
    for name in arguments:
        for taker, known in (("plan", of_plan), ("datasplitter", _OF_SPLITTER)):
            if name in known:
                raise TypeError(
                    f"`{name}` is an argument of the {taker}, got it among those of the trainer: "
                    f'pass `{taker}_kwargs={{"{name}": ...}}`.'
                )
    for name in _NONE_OF_IT:
        value = arguments.get(name)
        if value is not None and not isinstance(value, bool) and value == 0:
            raise ValueError(
                f"`{name}` must leave steps to train by, got {value}: raise it, or leave it out."
            )
    for name, reason in _NOT_OFFERED.items():
        if arguments.get(name):
            raise ValueError(f"`{name}` is not offered, {reason}: leave it out.")
    of_checkpoints = signature(SaveCheckpoint).parameters
    known = {*signature(Trainer).parameters, *signature(pl.Trainer).parameters} - {"kwargs"}
    for name in arguments.keys() - known - set(_OF_RUNNER):
        if name in of_checkpoints:
            passed = {"monitor": '"elbo_validation"', name: "..."}
            listed = ", ".join(f"{key}={value}" for key, value in passed.items())
            raise TypeError(
                f"`{name}` is an argument of scvi-tools' `SaveCheckpoint`, got it among those of "
                f"the trainer: pass `callbacks=[scvi.train.SaveCheckpoint({listed})]`."
            )
        raise TypeError(
            f"`train` takes no argument `{name}`, and neither does the trainer."
            f"{did_you_mean(name, known)}"
        )


def check_trainer_config(config: Mapping[str, Any], of_train: Iterable[str]) -> None:
    """Refuse what `train` has arguments for, whose defaults would count in its place.

    Parameters
    ----------
    config
        What ``trainer_config`` says.
    of_train
        Names of the arguments of `train`.

    Raises
    ------
    TypeError
        If it names one of them.
    """
    _refuse_arguments_of_train(config, (*of_train, *_CONFIGS), passed_as="trainer_config")


def check_plan_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what the plan is told by the model, and what nothing would read.

    Parameters
    ----------
    arguments
        Those of the plan.

    Raises
    ------
    TypeError
        If one is the model's to give.
    ValueError
        If one is of an optimizer or of a schedule that is not in use.
    """
    for name, way_out in _OF_MODEL.items():
        if name in arguments:
            raise TypeError(
                f"`plan_kwargs` takes no `{name}`, which the model brings, got "
                f"{arguments[name]!r}: {way_out}."
            )
    is_custom = arguments.get("optimizer") == "Custom"
    if "optimizer_creator" in arguments and not is_custom:
        raise ValueError(
            '`optimizer_creator` is called where `optimizer="Custom"`, got '
            f"{arguments.get('optimizer', 'Adam')!r}: pass both, or leave it out."
        )
    for name in ("lr", "weight_decay", "eps") if is_custom else ():
        if name in arguments:
            raise ValueError(
                f"`{name}` is of the plan's own optimizers, got it beside "
                '`optimizer="Custom"`: set it in `optimizer_creator`.'
            )
    on_plateau = arguments.get("reduce_lr_on_plateau")
    for name in ("lr_factor", "lr_patience", "lr_threshold", "lr_scheduler_metric", "lr_min"):
        if name in arguments and not on_plateau:
            raise ValueError(
                f"`{name}` says how the learning rate falls on a plateau, which nothing watches: "
                "pass `reduce_lr_on_plateau=True` as well, or leave it out."
            )
    if on_plateau and "lr_schedule" in arguments:
        raise ValueError(
            "`reduce_lr_on_plateau` takes the place of `lr_schedule`, got both: leave one out."
        )


def _refuse_arguments_of_train(
    arguments: Mapping[str, Any], of_train: Collection[str], *, passed_as: str
) -> None:
    for name in arguments:
        if name in of_train:
            raise TypeError(
                f"`{name}` is an argument of `train`, got it in `{passed_as}`: pass it beside "
                "that."
            )


def _n_devices(devices: int | list[int] | str) -> int:
    """Number of devices that Lightning reads from an argument, 1 where it is left to it."""
    if isinstance(devices, str):
        if "," in devices:  # which devices, not how many
            return sum(bool(part.strip()) for part in devices.split(","))
        if not devices.strip().lstrip("-").isdigit():  # such as "auto"
            return 1
        devices = int(devices)
    if isinstance(devices, int):
        return torch.cuda.device_count() if devices == -1 else devices
    return len(devices)
