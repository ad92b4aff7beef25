"""Arguments of `SCMVPModel.train` that would be ignored, or fail late and in other words."""

from collections.abc import Collection, Mapping, Sequence
from inspect import signature
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from scvi.train import SaveCheckpoint, Trainer

from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._plan_arguments import arguments_of_plan
from scmvp_scvi._size_rules import TRAINING_SHARE
from scmvp_scvi._training_plan import SCMVPTrainingPlan
from scmvp_scvi._validate import check_in, check_indices, did_you_mean, mapping_of, shown

# what `external_indexing` names the cells of, in this order
_PARTS = ("training", "validation", "test")
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
# arguments of the trainer of which zero means no step
_ZERO_MEANS_NO_STEP = ("max_steps", "limit_train_batches")
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


def plan_arguments(plan_kwargs: Any, config: Any) -> dict[str, Any]:
    """Arguments of the plan, checked: what is passed counts before ``plan_config``.

    Parameters
    ----------
    plan_kwargs, config
        What the user passed, and as ``plan_config``.

    Raises
    ------
    TypeError
        If one is no mapping, or names what is the model's to give.
    ValueError
        If an argument is of an optimizer or of a schedule that is not in use.
    """
    arguments = {
        **mapping_of(config, name="plan_config"),
        **mapping_of(plan_kwargs, name="plan_kwargs"),
    }
    _check_plan(arguments)
    return arguments


def trainer_arguments(
    trainer_kwargs: Mapping[str, Any],
    config: Any,
    devices: int | list[int] | str,
    of_train: Collection[str],
) -> dict[str, Any]:
    """Arguments of the trainer, checked: what is passed counts before ``trainer_config``.

    They are merged here, for scvi-tools reads the strategy from those that it is passed alone.

    Parameters
    ----------
    trainer_kwargs, config
        What the user passed, and as ``trainer_config``.
    devices
        Of Lightning.
    of_train
        Names of the arguments of `train`.

    Raises
    ------
    TypeError
        If there is no such argument, or it is one of `train`, the plan, the data splitter or a
        callback.
    ValueError
        If it leaves no step to train by, or is not offered, or there are several devices and no
        strategy.
    """
    config = mapping_of(config, name="trainer_config")
    _refuse_arguments_of_train(config, (*of_train, *_CONFIGS), passed_as="trainer_config")
    arguments = {**config, **trainer_kwargs}
    _check_trainer(arguments)
    if arguments.get("strategy", "auto") == "auto" and _n_devices(devices) > 1:
        raise ValueError(
            f"`devices={devices!r}` needs a strategy that gives each device cells of its own: "
            'pass `strategy="ddp"`, or train on one device.'
        )
    return arguments


def splitter_arguments(
    datasplitter_kwargs: Any,
    train_size: float | None,
    validation_size: float | None,
    of_train: Collection[str],
    cells: pd.Index,
) -> dict[str, Any]:
    """Arguments of the data splitter, the cells of each part by their positions.

    Parameters
    ----------
    datasplitter_kwargs, train_size, validation_size
        What the user passed.
    of_train
        Names of the arguments of `train`.
    cells
        Names of the cells.

    Raises
    ------
    TypeError
        If there is no such argument, it is one of `train`, or a share is no number.
    ValueError
        If shares are none, or together more than all cells, or given beside the cells of each
        part; or if these are not each of the cells once.
    """
    arguments = mapping_of(datasplitter_kwargs, name="datasplitter_kwargs")
    _check_splitter(arguments, of_train)
    parts = arguments.get("external_indexing")
    if parts is None:
        _check_split(train_size, validation_size)
    else:
        _check_no_split(train_size, validation_size)
        arguments["external_indexing"] = _checked_parts(parts, cells)
    return arguments


def _check_split(train_size: float | None, validation_size: float | None) -> None:
    """Refuse shares that scvi-tools would take for none, or refuse without their names."""
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


def _check_no_split(train_size: float | None, validation_size: float | None) -> None:
    """Refuse shares of the cells where the cells of each part are named."""
    for name, share in (("train_size", train_size), ("validation_size", validation_size)):
        if share is not None:
            raise ValueError(
                f"`{name}` splits the cells by chance, got {share!r} beside `external_indexing`, "
                "which names the cells of each part: leave one of them out."
            )


def _check_splitter(arguments: Mapping[str, Any], of_train: Collection[str]) -> None:
    """Refuse what neither the data splitter nor its loader takes, or takes from `train`."""
    known = (*_OF_SPLITTER, *_OF_LOADER)
    _refuse_arguments_of_train(arguments, of_train, passed_as="datasplitter_kwargs")
    for name in arguments:
        if name not in known:
            raise TypeError(
                f"`datasplitter_kwargs` must name arguments of the data splitter or of PyTorch's "
                f"loader, {shown(known)}, got `{name}`.{did_you_mean(name, known)}"
            )


def _check_trainer(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that go elsewhere, which other models of scvi-tools take with these."""
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
    for name in _ZERO_MEANS_NO_STEP:
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


def _check_plan(arguments: Mapping[str, Any]) -> None:
    """Refuse what the plan is told by the model, and what nothing would read."""
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


def _checked_parts(parts: Any, cells: pd.Index) -> list[np.ndarray]:
    """Turn the cells of each part, as ``external_indexing`` names them, into their positions.

    Parameters
    ----------
    parts
        Training, validation and test cells: integers or masks. The latter two may be left out, be
        None or empty.
    cells
        Names of all cells.

    Raises
    ------
    TypeError
        If it is no sequence of parts, or a part holds neither integers nor booleans.
    ValueError
        If there are more than three parts, cells that do not exist, or cells that are in several
        parts, twice in one, or in none.
    """
    n_obs = len(cells)
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise TypeError(
            "`external_indexing` must be a list of the training, validation and test cells, got "
            f"a {type(parts).__name__}."
        )
    if not 1 <= len(parts) <= len(_PARTS):
        raise ValueError(
            "`external_indexing` must have the cells of one to three parts, for training, "
            f"validation and test, got {len(parts)} parts."
        )
    found = [np.array([], dtype=np.int64) for _ in _PARTS]
    for i, part in enumerate(parts):
        if i == 0 or (part is not None and np.size(part) > 0):
            argument = f"external_indexing[{i}]"
            found[i] = np.array(check_indices(part, n_obs, argument=argument, cells=cells))
    n_times = np.bincount(np.concatenate(found), minlength=n_obs)
    n_again, n_missing = int((n_times > 1).sum()), int((n_times == 0).sum())
    if n_again > 0:
        raise ValueError(
            f"`external_indexing` must name each cell once, got {n_again} more than once, such "
            f"as {int(n_times.argmax())}: training and held-out cells must not overlap."
        )
    if n_missing > 0:
        raise ValueError(
            f"`external_indexing` must name each of the {n_obs} cells, got {n_missing} in no "
            "part. Put them into the third, the test cells, which training does not read."
        )
    return found
