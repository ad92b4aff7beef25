"""`SCMVPTrainingPlan`: schedules, the fits of mixture and dispersions, and what is logged."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, Literal

import numpy as np
import torch
from scvi.dataloaders import DataSplitter
from scvi.train import TrainingPlan
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from scmvp_scvi._counts import read_counts
from scmvp_scvi._data import feature_statistics, has_empty_cells
from scmvp_scvi._dispersion_fit import fit_dispersions
from scmvp_scvi._keys import OUTPUT, REGISTRY
from scmvp_scvi._module import SCMVPLossOutput, SCMVPModule
from scmvp_scvi._optimizer import RowAdam
from scmvp_scvi._prior_fit import MAX_CELLS, fit_mixture, mixture_from_labels
from scmvp_scvi._steps import SteppingPlan
from scmvp_scvi._surgery import Surgery, freeze_layers, freeze_parameters
from scmvp_scvi._validate import (
    check_integer_at_least,
    check_not_negative,
    check_one_of,
    check_positive,
    check_positive_share,
    check_share,
    did_you_mean,
    shown,
)
from scmvp_scvi.distributions._gaussian_mixture import MixtureFit

_SCHEDULE = ("continues_training", "mixture_step")  # its state, beside the steps taken
_SCHEDULE_KEY = "scmvp_kl_schedule"
# parameters of the plans and of the loss that are no business of `plan_kwargs`; our optimiser is
# fused anyway
_NOT_ASKED = {
    *("self", "module", "loss_kwargs", "kwargs", "update_only_decoder", "fused_optimizer"),
    "compile_kwargs",
    *("tensors", "inference_outputs", "generative_outputs"),
    *("peak_probabilities", "wide_gradients"),
}
_FEW_CELLS = 5_000  # of the training, for the prior below and the fit of the dispersions
# Standard deviation of the RNA output weights: the wide one overfits few cells, and the narrow one
# holds back the differences between types that many cells can tell.
_SCALE_OF_FEW, _SCALE_OF_MANY = 1.0, 3.4
_ATAC_OUTPUT_SCALE = 0.08
_MIXTURE_WARMUP = 0.1  # share of the steps over which the KL to a new mixture gains its weight


class SCMVPTrainingPlan(SteppingPlan):
    """Train `SCMVPModule`: a broad Gaussian prior first, then a mixture, fitted twice.

    Parameters
    ----------
    module
        The module.
    n_clusters
        Components of the mixture; None lets Leiden choose.
    seeding_labels
        Codes of the labels that seed the components, in the order of the components; None if
        labels do not.
    cluster_resolution
        Leiden resolution, used if `n_clusters` is None and there are no labels.
    mixture_start
        Share of the epochs that are trained under the broad Gaussian, above 0 and at most 1; the
        mixture is fitted to what they have learned, at 1 after the last epoch.
    mixture_refit
        Share of the epochs with the mixture after which it is fitted anew, above 0 and below 1:
        types that lay close under the Gaussian have come apart by then. None keeps the first fit.
    kl_warmup
        Share of the steps over which the weight of the KL rises to `gaussian_kl_weight`.
    lr_schedule
        ``"cosine"``: a short linear warm-up, then half a cosine down to zero; ``"constant"``.
    optimizer, lr, weight_decay, eps
        Of the optimiser; ``"Custom"`` takes that of ``optimizer_creator`` as it is. The decay
        applies to weight matrices, not to the mixture, the dispersions or the vectors of batches.
        ``"Adam"`` adds it to the gradient, as a Gaussian prior on the weights asks for.
    rna_output_scale, atac_output_scale
        Of the Gaussian prior on the weights of the decoders' output layers: its standard deviation
        times the root of the number of hidden units, so that profiles may vary as much at any
        width. A peak has few counts: without a prior its weights fit the noise of the training
        cells. So do those of a gene in few cells: None for a scale of 1 up to 5,000 training
        cells, and 3.4 above, and for .08 of the peaks. An optimiser of your own has no such prior.
    gaussian_kl_weight
        Weight of the KL to the broad Gaussian. Below one, rare types find their place in the
        latent space before there is a mixture that gives them one.
    max_kl_weight
        Weight of the KL to the mixture, to which it rises over a tenth of the steps; at 1 the
        objective is the ELBO.
    fit_dispersions
        Whether the dispersions of the RNA counts are fitted to the training cells after the last
        epoch, all else held still; their counts are then in memory at once, sparse. Checkpoints,
        which are written before, have those of their step. None for up to 5,000 training cells,
        whose few steps leave the dispersions near where they start, unless they are of a query
        that keeps those of its reference.
    cuda_graph
        Whether a step on a CUDA device is recorded once and replayed, which takes a fraction of
        the time, and memory beside that of the steps that are taken as usual. The weights of the
        terms, the layers that learn and the settings of the optimiser, but for the learning rate,
        are then those of the recorded step, and gradients come and go within it: callbacks that
        change or read them need False. Whatever the value, steps are taken as usual, and the log
        says why,

        - in mixed precision, on several devices, with accumulated gradients or averaged weights;
        - with an optimizer of one's own, or with several learning rates;
        - if training cells lack a modality;
        - where torch looks for anomalies, or is held to deterministic kernels.
    seed
        Of the fit of the mixture.
    surgery
        What the model of a query learns; None if everything does.
    **kwargs
        Passed to :class:`scvi.train.TrainingPlan`; the weights of the consistency terms
        (``alignment_weight``, ``cycle_weight``, ``cycle_cluster_weight``) and the numbers of
        features (``n_cycle_genes``, ``n_cycle_peaks``, ``n_peaks_per_step``) go on to
        `SCMVPModule.loss`.
    """

    def __init__(
        self,
        module: SCMVPModule,
        *,
        n_clusters: int | None,
        seeding_labels: Sequence[int] | None,
        seed: int,
        surgery: Surgery | None = None,
        cluster_resolution: float = 1.0,
        mixture_start: float = 0.4,
        mixture_refit: float | None = 0.5,
        kl_warmup: float = 0.3,
        lr_schedule: Literal["cosine", "constant"] = "cosine",
        optimizer: Literal["Adam", "AdamW", "Custom"] = "Adam",
        lr: float = 2e-3,
        weight_decay: float = 1e-6,
        eps: float = 1e-8,
        rna_output_scale: float | None = None,
        atac_output_scale: float | None = None,
        gaussian_kl_weight: float = 0.2,
        max_kl_weight: float = 1.0,
        fit_dispersions: bool | None = None,
        cuda_graph: bool = True,
        **kwargs: Any,
    ) -> None:
        _check_names(type(self), module, kwargs)
        check_one_of(lr_schedule, ("cosine", "constant"), name="lr_schedule")
        check_one_of(optimizer, ("Adam", "AdamW", "Custom"), name="optimizer")
        check_one_of(fit_dispersions, (None, True, False), name="fit_dispersions")
        if fit_dispersions and surgery is not None:
            raise ValueError(
                "`fit_dispersions` must be None or False for a query, whose known dispersions "
                "stay those of its reference, got True: leave it out."
            )
        _check_feature_numbers(optimizer, kwargs)
        for name, value in (
            ("cluster_resolution", cluster_resolution),
            ("lr", lr),
            ("eps", eps),
            ("gaussian_kl_weight", gaussian_kl_weight),
        ):
            check_positive(value, name=name)
        for name, scale in (
            ("rna_output_scale", rna_output_scale),
            ("atac_output_scale", atac_output_scale),
        ):
            if scale is not None:
                check_positive(scale, name=name)
                _check_has_prior(optimizer, name)
        check_not_negative(weight_decay, name="weight_decay")
        for name in ("alignment_weight", "cycle_weight", "cycle_cluster_weight"):
            check_not_negative(kwargs.get(name, 0.0), name=name)
        check_positive_share(mixture_start, name="mixture_start")
        check_share(kl_warmup, name="kl_warmup")
        if mixture_refit is not None and not 0 < mixture_refit < 1:
            raise ValueError(
                "`mixture_refit` is a share of the epochs with the mixture, above 0 and below 1, "
                f"or None to fit the mixture once, got {mixture_refit}."
            )
        if "n_epochs_kl_warmup" in kwargs or "n_steps_kl_warmup" in kwargs:
            raise ValueError(
                "`n_epochs_kl_warmup` and `n_steps_kl_warmup` are replaced by `kl_warmup`, the "
                "share of the training over which the weight of the KL rises."
            )
        least = kwargs.get("min_kl_weight", 0.0)
        if not 0 <= least <= gaussian_kl_weight <= max_kl_weight < math.inf:
            raise ValueError(
                "The weight of the KL rises from `min_kl_weight` by `gaussian_kl_weight` to "
                f"`max_kl_weight`, none negative, got {least}, {gaussian_kl_weight} and "
                f"{max_kl_weight}: set the others as well."
            )
        super().__init__(
            module,
            surgery=surgery,
            cuda_graph=cuda_graph,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            n_epochs_kl_warmup=None,
            max_kl_weight=max_kl_weight,
            **kwargs,
        )
        self.n_clusters = n_clusters
        self.seeding_labels = seeding_labels
        self.seed = seed
        self.rna_output_scale = rna_output_scale
        self.atac_output_scale = atac_output_scale or _ATAC_OUTPUT_SCALE
        self.cluster_resolution = cluster_resolution
        self.mixture_start = mixture_start
        self.mixture_refit = mixture_refit
        self.kl_warmup = kl_warmup
        self.gaussian_kl_weight = gaussian_kl_weight
        self.lr_schedule = lr_schedule
        self.continues_training = bool(module.prior.is_fitted)
        self.mixture_step: int | None = None  # the first one with the mixture
        self.epoch_parts = {"train": _EpochMeans(), "validation": _EpochMeans()}
        self.fit_dispersions = fit_dispersions
        if surgery is not None:
            freeze_parameters(module, surgery)

    # -- schedules ------------------------------------------------------------------------------

    @property
    def kl_weight(self) -> Tensor:
        """Weight of the KL at this step.

        A line from ``min_kl_weight`` to ``gaussian_kl_weight``, and from the first step with the
        mixture another one to ``max_kl_weight``. A model that has been trained before keeps its
        full weight.
        """
        weight = self.max_kl_weight
        if self._trainer is not None and not self.continues_training:
            n_steps = self.trainer.estimated_stepping_batches
            if self.mixture_step is None:
                least, most, since = self.min_kl_weight, self.gaussian_kl_weight, 0
                n_rising = self.kl_warmup * n_steps
            else:
                least, most, since = self.gaussian_kl_weight, weight, self.mixture_step
                n_rising = _MIXTURE_WARMUP * n_steps
            progress = min(1.0, (self.global_step - since) / n_rising) if n_rising > 0 else 1.0
            weight = least + progress * (most - least)
        return torch.full((), weight, device=self.device)  # a copy would halt an accelerator

    def first_mixture_epoch(self, n_epochs: int) -> int:
        """First epoch with the mixture, counted from 0, in a training of ``n_epochs``."""
        return max(1, round(self.mixture_start * n_epochs))

    def second_mixture_epoch(self, n_epochs: int) -> int | None:
        """First epoch with the mixture fitted anew; None if it is not."""
        first = self.first_mixture_epoch(n_epochs)
        if self.mixture_refit is None or self.continues_training:
            return None
        second = first + max(1, round(self.mixture_refit * (n_epochs - first)))
        return second if second < n_epochs else None

    def epochs_to_last_objective(self, n_epochs: int) -> int:
        """Epochs after which the schedule changes neither the weight of the KL nor the mixture."""
        if self.continues_training:
            return 0
        full_weight = self.first_mixture_epoch(n_epochs) + math.ceil(_MIXTURE_WARMUP * n_epochs)
        return max(full_weight, self.second_mixture_epoch(n_epochs) or 0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save where in the schedule of the KL the training is."""
        checkpoint[_SCHEDULE_KEY] = {key: getattr(self, key) for key in _SCHEDULE}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on in the schedule of the KL where the training was."""
        for key, value in checkpoint.get(_SCHEDULE_KEY, {}).items():
            setattr(self, key, value)

    def _optimizer_creator_fn(
        self, optimizer_cls: type[torch.optim.Adam] | type[torch.optim.AdamW]
    ) -> Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]:
        """Create a fused optimiser, several times faster than the plain one on wide layers."""

        def create(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
            n_cells = self.n_obs_training
            rna_scale = self.rna_output_scale or default_rna_output_scale(n_cells)
            scales = {
                id(self.module.rna_decoder.output.weight): rna_scale,
                id(self.module.atac_decoder.rate.weight): self.atac_output_scale,
                id(self.module.atac_decoder.inclusion.weight): self.atac_output_scale,
            }
            module = self.module
            # matrices of numbers that are no weights
            kept = (*module.prior.parameters(), module.rna_decoder.log_inverse_dispersion)
            kept += () if module.batch_vectors is None else (module.batch_vectors,)
            undecayed = {id(p) for p in kept}
            groups: dict[float, list[torch.nn.Parameter]] = {}
            for p in parameters:
                decay = self.weight_decay if p.ndim > 1 and id(p) not in undecayed else 0.0
                if id(p) in scales:
                    n_hidden = p.shape[1]
                    # the loss is a mean over cells, so that a prior counts as one cell of many
                    decay = n_hidden / (scales[id(p)] ** 2 * n_cells)
                groups.setdefault(decay, []).append(p)
            return RowAdam(
                [{"params": ps, "weight_decay": decay} for decay, ps in groups.items()],
                lr=self.lr,
                eps=self.eps,
                decoupled_weight_decay=optimizer_cls is torch.optim.AdamW,
            )

        return create

    def configure_optimizers(self) -> dict[str, Any]:
        """Configure the optimiser and, unless a plateau is watched, the step-wise schedule."""
        config = super().configure_optimizers()
        if self.reduce_lr_on_plateau or self.lr_schedule == "constant":
            return config
        n_steps = self.trainer.estimated_stepping_batches
        n_warmup = max(1, round(0.05 * n_steps))

        def factor(step: int) -> float:
            warmup = min(1.0, (step + 1) / n_warmup)
            return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))

        scheduler = LambdaLR(config["optimizer"], factor)
        return {**config, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- what happens before and between the epochs ---------------------------------------------

    def on_fit_start(self) -> None:
        """Enter train mode and learn the constants of the input transforms, once.

        A trained module is left in eval mode; Lightning keeps it, and warns of it.
        """
        self.module.train()
        data = self.trainer.datamodule
        if not bool(self.module.prior.is_fitted):
            self._check_enough_cells(data)
        for encoder, key in (
            (self.module.rna_encoder, REGISTRY.RNA),
            (self.module.atac_encoder, REGISTRY.ATAC),
        ):
            encoder.some_unobserved = has_empty_cells(
                data.adata_manager, key, np.asarray(data.train_idx)
            )
        if not bool(self.module.feature_statistics_known):
            self.module.set_feature_statistics(
                **feature_statistics(data.adata_manager, np.asarray(data.train_idx))
            )

    def _check_enough_cells(self, data: DataSplitter) -> None:
        """Refuse, before the first epoch, a mixture that the training cells are too few for."""
        manager, n_cells = data.adata_manager, len(data.train_idx)
        if self.seeding_labels is not None:
            codes = manager.get_from_registry(REGISTRY.LABELS)[data.train_idx].ravel()
            names = manager.get_state_registry(REGISTRY.LABELS)["categorical_mapping"]
            missing = names[np.setdiff1d(self.seeding_labels, codes)]
            if len(missing) > 0:
                raise ValueError(
                    f"Each label seeds a component by its training cells, but {shown(missing)} "
                    "have none among them: merge rare labels, raise `train_size`, or leave "
                    "`labels_key` out."
                )
        elif self.n_clusters is not None and self.n_clusters > min(n_cells, MAX_CELLS):
            raise ValueError(
                f"`n_clusters` must be at most the number of training cells, {n_cells}, and at "
                f"most {MAX_CELLS:,}, got {self.n_clusters}."
            )

    def on_train_start(self) -> None:
        """Prepare what the peaks of a step are drawn by."""
        super().on_train_start()
        n_sampled = self.loss_kwargs.get("n_peaks_per_step")
        if n_sampled is not None:
            self.loss_kwargs["peak_probabilities"] = self.module.peak_probabilities(n_sampled)

    def on_train_batch_start(self, *args: Any) -> None:
        """Hold still the layers of a query, which scvi-tools' checkpoints set to train mode."""
        del args
        if self.surgery is not None:
            freeze_layers(self.module, self.surgery)

    def on_train_epoch_start(self) -> None:
        """Fit the mixture when its time has come, and once more."""
        super().on_train_epoch_start()
        trainer = self.trainer
        n_steps = trainer.estimated_stepping_batches  # of all epochs, or fewer if so asked for
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        n_epochs = math.ceil(n_steps / per_epoch)
        if not bool(self.module.prior.is_fitted):
            if self.current_epoch >= self.first_mixture_epoch(n_epochs):
                self._fit_mixture()
        elif self.current_epoch == self.second_mixture_epoch(n_epochs):
            self._fit_mixture()

    def on_train_end(self) -> None:
        """Fit the mixture if training ended before its time, and the dispersions of few cells."""
        super().on_train_end()
        if not bool(self.module.prior.is_fitted):
            self._fit_mixture()
        asked = self.fit_dispersions
        if asked is None:
            asked = self.surgery is None and self.n_obs_training <= _FEW_CELLS
        if asked:
            self._fit_dispersions()

    @torch.no_grad()
    def _fit_mixture(self) -> None:
        """Fit the mixture to the training cells, on the first process for all."""
        cells = self._training_latent()
        fit: MixtureFit | None = None
        error: Exception | None = None
        if self.trainer.is_global_zero:
            try:
                fit = self._mixture_of(*cells)
            except Exception as caught:  # noqa: BLE001 - the other processes wait to hear of it
                error = caught
        fit, reason = self.trainer.strategy.broadcast((fit, error and repr(error)), src=0)
        if error is not None:
            raise error
        if reason is not None:
            raise RuntimeError(f"The first process could not fit the mixture: {reason}")
        # Adam's state stays: moments of an earlier mixture fade within tens of steps; before the
        # first one they are zero with their bias corrected for, so that its first hundreds of
        # steps are up to twice as long. The defaults were chosen so.
        self.module.take_mixture(fit)
        if self.mixture_step is None:
            self.mixture_step = self.global_step

    def _mixture_of(
        self, latent: np.ndarray, variances: np.ndarray, labels: np.ndarray
    ) -> MixtureFit:
        """Fit the mixture to the cells of all processes."""
        if self.seeding_labels is not None:
            return mixture_from_labels(latent, variances, labels, self.seeding_labels)
        max_clusters = len(self.module.prior.logits)
        return fit_mixture(
            latent, variances, self.n_clusters, max_clusters, self.cluster_resolution, self.seed
        )

    def _training_latent(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joint posterior means and variances and labels of the training cells, all processes."""
        means, variances, labels = [], [], []
        with self._evaluating():
            for tensors, outputs in self._embedded_training_cells():
                means.append(outputs[OUTPUT.QZ].loc)
                variances.append(outputs[OUTPUT.QZ].variance)
                labels.append(tensors[REGISTRY.LABELS].to(means[-1].device))
        gathered = self.all_gather(tuple(torch.cat(part) for part in (means, variances, labels)))
        # a process axis stands in front where there are several
        mean, variance, codes = (part.cpu().flatten(0, -2).numpy() for part in gathered)
        return mean, variance, codes.ravel()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(was_training)

    def _embedded_training_cells(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        """Yield the minibatches of the training cells of this process, and what they infer."""
        data = self.trainer.datamodule
        for tensors in data.all_training_cells():
            tensors = data.on_after_batch_transfer(tensors, 0)
            yield tensors, self.module.inference(**self.module._get_inference_input(tensors))

    def _fit_dispersions(self) -> None:
        """Fit the dispersions to one draw of each training cell, of all processes."""
        module = self.module
        dispersions = module.rna_decoder.log_inverse_dispersion
        if not dispersions.requires_grad:  # the user holds them still
            return

        def gradient() -> Tensor:
            total = torch.zeros_like(dispersions)
            for inputs, counts in cells:
                law = module.generative(**inputs)[OUTPUT.PX]
                log_prob = law.log_prob(
                    read_counts(counts.to(self.device)), law.log_scale().detach(), for_mean=True
                )
                total += len(log_prob) * torch.autograd.grad(log_prob.mean(), dispersions)[0]
            return self.trainer.strategy.reduce(total, reduce_op="sum")

        with self._evaluating():
            with torch.no_grad():
                cells = [
                    (module._get_generative_input(tensors, outputs), tensors[REGISTRY.RNA])
                    for tensors, outputs in self._embedded_training_cells()
                ]
            fit_dispersions(dispersions, gradient)

    # -- logging --------------------------------------------------------------------------------

    def compute_and_log_metrics(
        self, loss_output: SCMVPLossOutput, metrics: Mapping[str, Any], mode: str
    ) -> None:
        """Add up the ELBO as scvi-tools does, and each part of the objective beside it.

        They are logged at the end of the epoch, after the callbacks' ``on_train_epoch_end``, or
        at each step with ``on_step``: Lightning copies all it knows of a value whenever it is
        logged, and on small data that took a tenth of a step.
        """
        parts = {f"{name}_{mode}": value for name, value in loss_output.parts.items()}
        self.epoch_parts[mode].add(parts, loss_output.n_obs_minibatch)
        if self.on_step:
            super().compute_and_log_metrics(loss_output, metrics, mode)
            self._log(parts, loss_output.n_obs_minibatch)
            return
        metrics[f"elbo_{mode}"].update(
            reconstruction_loss=loss_output.reconstruction_loss_sum,
            kl_local=loss_output.kl_local_sum,
            kl_global=loss_output.kl_global_sum,
            n_obs_minibatch=loss_output.n_obs_minibatch,
        )

    def on_train_epoch_end(self) -> None:
        """Log what the training steps have added up."""
        self._check_finite()
        self._log_epoch(self.train_metrics, "train")

    def on_validation_epoch_start(self) -> None:
        """Look whether the training so far can be validated."""
        self._check_finite()

    def on_validation_epoch_end(self) -> None:
        """Log what the validation steps have added up."""
        self._log_epoch(self.val_metrics, "validation")

    def _log_epoch(self, metrics: Mapping[str, Any], mode: str) -> None:
        means, n_cells = self.epoch_parts[mode].take()
        if not self.on_step:
            self._log({**metrics, **means}, n_cells)

    def _check_finite(self) -> None:
        """Refuse to go on with a loss that is no number; to look at each step would halt a GPU."""
        if self.trainer.precision == "16-mixed":
            return  # whose scaler leaves such steps out
        means = self.epoch_parts["train"].means()
        lost = [name for name, mean in means.items() if not bool(mean.isfinite())]
        if lost:
            raise ValueError(
                f"Training has diverged: in epoch {self.current_epoch}, {shown(lost)} became "
                "infinite or no number, and perhaps the weights with them. Build the model anew, "
                "or load it, and train it with a lower learning rate: `lr` in `plan_kwargs` was "
                f"{self.lr}."
            )

    def _log(self, values: Mapping[str, Any], n_cells: int) -> None:
        self.log_dict(
            values,
            on_step=self.on_step,
            on_epoch=self.on_epoch,
            batch_size=n_cells,
            sync_dist=self.use_sync_dist,
        )


class _EpochMeans:
    """Means over the cells of an epoch, of values that minibatches add."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._n_cells = 0

    def add(self, means: Mapping[str, Tensor], n_cells: int) -> None:
        """Add the means of a minibatch of so many cells."""
        for name, mean in means.items():
            # a sum in half precision would stop growing
            self._sums[name] = self._sums.get(name, 0) + mean.float() * n_cells
        self._n_cells += n_cells

    def means(self) -> dict[str, Tensor]:
        """Return the means so far."""
        return {name: total / self._n_cells for name, total in self._sums.items()}

    def take(self) -> tuple[dict[str, Tensor], int]:
        """Return the means and the number of cells, and begin anew."""
        taken = self.means(), self._n_cells
        self._sums, self._n_cells = {}, 0
        return taken


def default_rna_output_scale(n_cells: int) -> float:
    """Scale of the prior on the output weights of the RNA that suits a number of cells.

    Parameters
    ----------
    n_cells
        Number of training cells.
    """
    return _SCALE_OF_FEW if n_cells <= _FEW_CELLS else _SCALE_OF_MANY


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


def _check_names(
    plan: type[TrainingPlan], module: SCMVPModule, arguments: Mapping[str, Any]
) -> None:
    """Refuse arguments that neither scvi-tools' plan nor the loss of the module takes."""
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
    known = arguments_of_plan(plan, module)
    for name in arguments:
        if name not in known:
            raise TypeError(
                f"`plan_kwargs` must name arguments of `SCMVPTrainingPlan`, got `{name}`."
                f"{did_you_mean(name, known)}"
            )


def _check_has_prior(optimizer: str, name: str) -> None:
    """Refuse the scale of a prior that no optimizer would heed."""
    if optimizer == "Custom":
        raise ValueError(
            f"`{name}` is a weight decay of the plan's optimizers, which a custom one replaces: "
            f'set `optimizer` to "Adam" or "AdamW", or leave `{name}` out.'
        )


def _check_feature_numbers(optimizer: str, arguments: Mapping[str, Any]) -> None:
    n_sampled = arguments.get("n_peaks_per_step")
    for name in ("n_cycle_genes", "n_cycle_peaks"):
        check_integer_at_least(arguments.get(name, 1), 1, name=name)
    if n_sampled is None:
        return
    check_integer_at_least(n_sampled, 1, name="n_peaks_per_step")
    if optimizer == "Custom":
        raise ValueError(
            "`n_peaks_per_step` makes gradients of the sampled peaks alone, which a custom "
            'optimizer does not expect: set `optimizer` to "Adam" or "AdamW", or leave '
            "`n_peaks_per_step` out."
        )
