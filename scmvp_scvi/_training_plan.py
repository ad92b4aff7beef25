"""`SCMVPTrainingPlan`: how the model is trained, and what is fitted on the way."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from scvi.dataloaders import DataSplitter
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from scmvp_scvi._channel_fit import FEWEST_CELLS, fit_calibration
from scmvp_scvi._count_sums import TrainingCounts
from scmvp_scvi._counts import read_counts
from scmvp_scvi._data import registered_modality
from scmvp_scvi._dispersion_fit import move_to_mode
from scmvp_scvi._keys import MODALITIES, OUTPUT, POSTERIOR_OF, REGISTRY
from scmvp_scvi._logged_plan import LoggedPlan
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._optimizer import RowAdam
from scmvp_scvi._plan_arguments import (
    check_arguments_of_loss,
    check_names_of_arguments,
    check_optimizer,
)
from scmvp_scvi._prior_fit import MAX_CELLS, fit_mixture, mixture_from_labels
from scmvp_scvi._schedule import Schedule, cosine_factor
from scmvp_scvi._size_rules import are_few, default_rna_output_scale
from scmvp_scvi._surgery import Surgery, freeze_layers, freeze_parameters
from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_one_of,
    shown,
    warn_about_deep_cells,
)
from scmvp_scvi.distributions._gaussian_mixture import MixtureFit

_SCHEDULE = ("continues_training", "mixture_step")  # its state, beside the steps taken
_SCHEDULE_KEY = "scmvp_kl_schedule"
_ATAC_OUTPUT_SCALE = 0.08
_LEAST_PAIRED = 0.9  # of the cells that channels are calibrated on


class SCMVPTrainingPlan(LoggedPlan):
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
    calibrate_channels
        Whether what a channel says of a cell is brought, after the last epoch, to what both
        modalities say of the cells that are held out for validation: of cells that it has not
        learned from, a channel says something else, and what is predicted of one modality from
        the other would be off, mostly too sure. It takes 20 such cells, chosen at random, nine
        tenths of them with both modalities; without them there is no calibration. Embeddings and
        clusters are the same. A query keeps the calibration of its reference, unless it is
        ``unfrozen``; checkpoints, which are written before, have none.
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
        Passed to :class:`scvi.train.TrainingPlan`; the weights of the terms beside the ELBO
        (``alignment_weight``, ``cycle_weight``, ``cycle_cluster_weight``, ``label_weight``) and
        the numbers of features (``n_cycle_genes``, ``n_cycle_peaks``, ``n_peaks_per_step``) go on
        to `SCMVPModule.loss`.
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
        calibrate_channels: bool = True,
        cuda_graph: bool = True,
        **kwargs: Any,
    ) -> None:
        check_names_of_arguments(type(self), module, kwargs)
        check_one_of(lr_schedule, ("cosine", "constant"), name="lr_schedule")
        check_one_of(fit_dispersions, (None, True, False), name="fit_dispersions")
        check_one_of(calibrate_channels, (True, False), name="calibrate_channels")
        check_one_of(cuda_graph, (True, False), name="cuda_graph")
        check_integer_at_least(seed, 0, name="seed")
        if fit_dispersions and surgery is not None:
            raise ValueError(
                "`fit_dispersions` must be None or False for a query, whose known dispersions "
                "stay those of its reference, got True: leave it out."
            )
        check_optimizer(
            optimizer,
            lr=lr,
            eps=eps,
            weight_decay=weight_decay,
            scales={"rna_output_scale": rna_output_scale, "atac_output_scale": atac_output_scale},
            samples_peaks=kwargs.get("n_peaks_per_step") is not None,
        )
        check_arguments_of_loss(kwargs)
        if "label_weight" in kwargs and seeding_labels is None:
            raise ValueError(
                "`label_weight` weighs the labels of cells, got it without any: pass `labels_key` "
                "to `SCMVPModel.setup_mudata`, or leave it out."
            )
        if "label_weight" in kwargs and surgery is not None:
            raise ValueError(
                "`label_weight` weighs labels, and a query learns from none: leave it out, or "
                "pass `unfrozen=True` to `SCMVPModel.load_query_data`."
            )
        check_in(cluster_resolution, "(0, inf)", name="cluster_resolution")
        schedule = Schedule(
            mixture_start,
            mixture_refit,
            kl_warmup,
            kwargs.get("min_kl_weight", 0.0),
            gaussian_kl_weight,
            max_kl_weight,
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
        self.schedule = schedule
        self.lr_schedule = lr_schedule
        self.continues_training = bool(module.prior.is_fitted)
        self.mixture_step: int | None = None  # the first one with the mixture
        self.fit_dispersions = fit_dispersions
        self.calibrate_channels = calibrate_channels
        if surgery is not None:
            freeze_parameters(module, surgery)

    # -- schedules ------------------------------------------------------------------------------

    @property
    def kl_weight(self) -> Tensor:
        """Weight of the KL at this step; a model that was trained before keeps the full one."""
        weight = self.max_kl_weight
        if self._trainer is not None and not self.continues_training:
            n_steps = self.trainer.estimated_stepping_batches
            weight = self.schedule.kl_weight(self.global_step, n_steps, self.mixture_step)
        return torch.full((), weight, device=self.device)  # a copy would halt an accelerator

    def epochs_to_last_objective(self, n_epochs: int) -> int:
        """Epochs after which the objective stays what it is, in a training of ``n_epochs``."""
        return 0 if self.continues_training else self.schedule.epochs_to_last_objective(n_epochs)

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
        scheduler = LambdaLR(config["optimizer"], partial(cosine_factor, n_steps=n_steps))
        return {**config, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # -- what happens before and between the epochs ---------------------------------------------

    def on_fit_start(self) -> None:
        """Enter train mode and learn the constants of the input transforms, once.

        A trained module is left in eval mode; Lightning keeps it, and warns of it.
        """
        self.module.train()
        if self.surgery is None:  # what it was fitted to changes
            for calibration in self.module.calibrations.values():
                calibration.forget()
        data = self.trainer.datamodule
        if not bool(self.module.prior.is_fitted):
            self._check_enough_cells(data)
        counts = TrainingCounts.read(data.adata_manager, np.asarray(data.train_idx))
        self.module.rna_encoder.some_unobserved = counts.lack("rna")
        self.module.atac_encoder.some_unobserved = counts.lack("atac")
        if not bool(self.module.feature_statistics_known):
            if self.module.atac_target == "counts":  # of which TF-IDF has depth taken away
                self._warn_about_deep_cells(counts)
            self.module.set_feature_statistics(**counts.feature_statistics())

    @staticmethod
    def _warn_about_deep_cells(counts: TrainingCounts) -> None:
        """Warn of ATAC counts that outweigh those of other cells; deep RNA does no harm."""
        registry, mdata = counts.manager.registry, counts.manager.adata
        warn_about_deep_cells(
            counts.depths["atac"],
            cell_names=mdata.obs_names[counts.rows],
            modality=registered_modality(registry, "atac"),
            layer=registry["setup_args"][MODALITIES["atac"].layer],
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
        """Prepare what the peaks of a step are drawn by, and what the labels name."""
        super().on_train_start()
        # those of a query may be made up, where labels are what the reference is asked for
        if self.seeding_labels is not None and self.surgery is None:
            n_labels = self.trainer.datamodule.adata_manager.summary_stats["n_labels"]
            component_of = torch.full((n_labels,), -1, device=self.device)
            component_of[self.seeding_labels] = torch.arange(
                len(self.seeding_labels), device=self.device
            )
            self.loss_kwargs["component_of_label"] = component_of
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
            is_due = self.current_epoch >= self.schedule.first_mixture_epoch(n_epochs)
        else:
            second = self.schedule.second_mixture_epoch(n_epochs)
            is_due = not self.continues_training and self.current_epoch == second
        if is_due:
            self._fit_mixture()

    def on_train_end(self) -> None:
        """Fit the mixture if training ended before its time, then what takes trained weights."""
        super().on_train_end()
        if not bool(self.module.prior.is_fitted):
            self._fit_mixture()
        asked = self.fit_dispersions
        if asked is None:
            asked = self.surgery is None and are_few(self.n_obs_training)
        if asked:
            self._fit_dispersions()
        if self.calibrate_channels and self.surgery is None:
            self._calibrate_channels()

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
        found = []
        with self._evaluating():
            for tensors, outputs in self._embedded(self.trainer.datamodule.train_idx):
                qz = outputs[OUTPUT.QZ]
                found.append((qz.loc, qz.variance, tensors[REGISTRY.LABELS].to(qz.loc.device)))
        means, variances, labels = self._gathered(found)
        return means, variances, labels.ravel()

    def _gathered(self, found: Sequence[tuple[Tensor, ...]]) -> list[np.ndarray]:
        """Join what was found in the minibatches of all processes, each ``(cells, ...)``."""
        joined = self.all_gather(tuple(torch.cat(part) for part in zip(*found, strict=True)))
        # a process axis stands in front where there are several
        return [part.cpu().flatten(0, -2).numpy() for part in joined]

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(was_training)

    def _embedded(self, part: np.ndarray) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
        """Yield the minibatches of cells of a part in this process, and what they infer."""
        data = self.trainer.datamodule
        for tensors in data.all_cells_of(part):
            tensors = data.on_after_batch_transfer(tensors, 0)
            yield tensors, self.module.embed(tensors)

    def _fit_dispersions(self) -> None:
        """Fit the dispersions to one draw of each training cell, of all processes."""
        module = self.module
        dispersions = module.rna_decoder.log_inverse_dispersion
        if not dispersions.requires_grad:  # the user holds them still
            return
        with self._evaluating():
            with torch.no_grad():  # drawn once, and decoded anew for each gradient
                cells = [
                    (module._get_generative_input(tensors, outputs), tensors[REGISTRY.RNA])
                    for tensors, outputs in self._embedded(self.trainer.datamodule.train_idx)
                ]

            def gradient() -> Tensor:
                total = torch.zeros_like(dispersions)
                for inputs, counts in cells:
                    law = module.generative(**inputs)[OUTPUT.PX]
                    log_prob = law.log_prob(
                        read_counts(counts.to(self.device)),
                        law.log_scale().detach(),
                        for_mean=True,
                    )
                    mean_slope = torch.autograd.grad(log_prob.mean(), dispersions)[0]
                    total += len(log_prob) * mean_slope
                return self.trainer.strategy.reduce(total, reduce_op="sum")

            move_to_mode(dispersions, gradient)

    @torch.no_grad()
    def _calibrate_channels(self) -> None:
        """Calibrate the channels on the held-out cells with both modalities, of all processes.

        These have to stand for all cells: by cells of one type, all others would be predicted to
        be of it.
        """
        data, found = self.trainer.datamodule, []
        is_random = data.shuffle_set_split and data.external_indexing is None
        if not is_random or len(data.val_idx) < FEWEST_CELLS:
            return
        with self._evaluating():
            for _, outputs in self._embedded(data.val_idx):
                is_paired = outputs[OUTPUT.RNA_OBSERVED] * outputs[OUTPUT.ATAC_OBSERVED]
                posteriors = (outputs[name] for name in POSTERIOR_OF.values())
                moments = [torch.cat((q.loc, q.variance), dim=-1) for q in posteriors]
                found.append((is_paired.unsqueeze(-1), *moments))
        paired, *gathered = self._gathered(found)
        chosen = paired.ravel() > 0
        if chosen.sum() < max(FEWEST_CELLS, _LEAST_PAIRED * len(chosen)):
            return
        joint, *channels = (np.split(of_cells[chosen], 2, axis=1) for of_cells in gathered)
        for kind, channel in zip(MODALITIES, channels, strict=True):
            self.module.calibrations[kind].copy_fit(fit_calibration(*joint, *channel))
