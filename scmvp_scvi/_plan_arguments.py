"""Arguments of the training plan: which there are, and what they may be."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from scvi.train import TrainingPlan

from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_one_of,
    did_you_mean,
)

# parameters of the plans and of the loss that are no business of `plan_kwargs`; our optimiser is
# fused anyway
_NOT_ASKED = {
    *("self", "module", "loss_kwargs", "kwargs", "update_only_decoder", "fused_optimizer"),
    "compile_kwargs",
    *("tensors", "inference_outputs", "generative_outputs"),
    *("peak_probabilities", "wide_gradients", "component_of_label"),
}


def arguments_of_plan(
    plan: type[TrainingPlan], module: SCMVPModule | type[SCMVPModule]
) -> set[str]:
    """Names that ``plan_kwargs`` may have.

    Parameters
    ----------
    plan, module
        The plan, and the module whose loss it passes some of them on to.
    """
    takers = (plan.__init__, TrainingPlan.__init__, module.loss)
    return {name for taker in takers for name in signature(taker).parameters} - _NOT_ASKED


def check_names_of_arguments(
    plan: type[TrainingPlan], module: SCMVPModule, arguments: Mapping[str, Any]
) -> None:
    """Refuse arguments that neither scvi-tools' plan nor the loss of the module takes.

    Parameters
    ----------
    plan, module
        As in `arguments_of_plan`.
    arguments
        Those that are passed on.

    Raises
    ------
    TypeError
        If there is no such argument.
    ValueError
        If it is one of scvi-tools' that has another in its place here, or that must be left out.
    """
    if "kl_weight" in arguments:
        raise TypeError(
            "`plan_kwargs` takes no `kl_weight`, which the schedule sets: pass "
            "`gaussian_kl_weight`, its weight before there is a mixture, and `max_kl_weight`, "
            "its weight with the mixture."
        )
    if arguments.get("compile"):
        raise ValueError(
            "`compile` must be False: torch cannot compile what takes sparse counts, and tries "
            "anew at each step. Leave it out; on a CUDA device `cuda_graph` spares what compiling "
            "would."
        )
    if "n_epochs_kl_warmup" in arguments or "n_steps_kl_warmup" in arguments:
        raise ValueError(
            "`n_epochs_kl_warmup` and `n_steps_kl_warmup` are replaced by `kl_warmup`, the "
            "share of the training over which the weight of the KL rises."
        )
    known = arguments_of_plan(plan, module)
    for name in arguments:
        if name not in known:
            raise TypeError(
                f"`plan_kwargs` must name arguments of `SCMVPTrainingPlan`, got `{name}`."
                f"{did_you_mean(name, known)}"
            )


def check_arguments_of_loss(arguments: Mapping[str, Any]) -> None:
    """Check the weights of the terms beside the ELBO, and the numbers of features.

    Parameters
    ----------
    arguments
        Those that are given.

    Raises
    ------
    TypeError, ValueError
        If a weight is negative, or a number of features is none.
    """
    for name in ("alignment_weight", "cycle_weight", "cycle_cluster_weight", "label_weight"):
        check_in(arguments.get(name, 0.0), "[0, inf)", name=name)
    for name in ("n_cycle_genes", "n_cycle_peaks"):
        check_integer_at_least(arguments.get(name, 1), 1, name=name)
    if arguments.get("n_peaks_per_step") is not None:
        check_integer_at_least(arguments["n_peaks_per_step"], 1, name="n_peaks_per_step")


def check_optimizer(
    optimizer: str,
    *,
    lr: float,
    eps: float,
    weight_decay: float,
    scales: Mapping[str, float | None],
    samples_peaks: bool,
) -> None:
    """Check the optimiser's arguments, and that it can do what is asked of it.

    Parameters
    ----------
    optimizer, lr, eps, weight_decay
        As in `SCMVPTrainingPlan`.
    scales
        Argument to the scale of a prior, None for its default.
    samples_peaks
        Whether a step reads some of the peaks alone.

    Raises
    ------
    TypeError, ValueError
        If there is no such optimiser, if a number is out of range, or if a custom one is asked
        for what only those of the plan do.
    """
    check_one_of(optimizer, ("Adam", "AdamW", "Custom"), name="optimizer")
    check_in(lr, "(0, inf)", name="lr")
    check_in(eps, "(0, inf)", name="eps")
    check_in(weight_decay, "[0, inf)", name="weight_decay")
    for name, scale in scales.items():
        if scale is None:
            continue
        check_in(scale, "(0, inf)", name=name)
        if optimizer == "Custom":
            raise ValueError(
                f"`{name}` is a weight decay of the plan's optimizers, which a custom one "
                'replaces: set `optimizer` to "Adam" or "AdamW", or leave '
                f"`{name}` out."
            )
    if samples_peaks and optimizer == "Custom":
        raise ValueError(
            "`n_peaks_per_step` makes gradients of the sampled peaks alone, which a custom "
            'optimizer does not expect: set `optimizer` to "Adam" or "AdamW", or leave '
            "`n_peaks_per_step` out."
        )
