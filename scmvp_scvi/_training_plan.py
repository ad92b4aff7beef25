"""`SCMVPTrainingPlan`: the schedule of a training, its optimiser, and when fits are due."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from scvi.dataloaders import DataSplitter
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from scmvp_scvi._count_sums import TrainingCounts
from scmvp_scvi._data import registered_modality
from scmvp_scvi._fitting_plan import FittingPlan
from scmvp_scvi._keys import MODALITIES, REGISTRY
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._optimizer import RowAdam, groups_by_decay
from scmvp_scvi._plan_arguments import (
    check_arguments_of_loss,
    check_names_of_arguments,
    check_optimizer,
)
from scmvp_scvi._prior_fit import MAX_CELLS
from scmvp_scvi._schedule import Schedule, cosine_factor
from scmvp_scvi._size_rules import default_rna_output_scale
from scmvp_scvi._surgery import Surgery, freeze_layers, freeze_parameters
from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_one_of,
    shown,
    warn_about_deep_cells,
)

_SCHEDULE = ("continues_training", "mixture_step")  # its state, beside the steps taken
_SCHEDULE_KEY = "scmvp_kl_schedule"
_ATAC_OUTPUT_SCALE = 0.08


class SCMVPTrainingPlan(FittingPlan):
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
        cells. So do those of a gene in few cells. None for 1 of the RNA with up to 5,000 training
        cells and 3.4 with more, and for .08 of the ATAC. An optimiser of your own has no such
        prior.
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
    fit_rates
        Whether the weights of the peaks' rates are shrunk after the last epoch, by how much the
        counts of all peaks say that peaks differ between cells: further counts of the same cells
        are nearer to the rates then. Weights that few counts tell of stay. Embeddings and clusters
        are the same. Checkpoints, which are written before, have the weights of their step. Not
        for queries, unless they are ``unfrozen``, and not for ``atac_target="tfidf"``.
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
        fit_rates: bool = False,
        calibrate_channels: bool = True,
        cuda_graph: bool = True,
        **kwargs: Any,
    ) -> None:
        check_names_of_arguments(type(self), module, kwargs)
        check_one_of(lr_schedule, ("cosine", "constant"), name="lr_schedule")
        check_one_of(fit_dispersions, (None, True, False), name="fit_dispersions")
        check_one_of(fit_rates, (True, False), name="fit_rates")
        check_one_of(calibrate_channels, (True, False), name="calibrate_channels")
        check_one_of(cuda_graph, (True, False), name="cuda_graph")
        check_integer_at_least(seed, 0, name="seed")
        if fit_dispersions and surgery is not None:
            raise ValueError(
                "`fit_dispersions` must be None or False for a query, whose known dispersions "
                "stay those of its reference, got True: leave it out."
            )
        if fit_rates and surgery is not None:
            raise ValueError(
                "`fit_rates` must be False for a query, whose decoder stays that of its "
                "reference, got True: leave it out."
            )
        if fit_rates and module.atac_target != "counts":
            raise ValueError(
                "`fit_rates` fits rates of counts, and the decoder of this model reconstructs "
                'TF-IDF: leave it out, or build the model with `atac_target="counts"`.'
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
            n_clusters=n_clusters,
            seeding_labels=seeding_labels,
            cluster_resolution=cluster_resolution,
            seed=seed,
            atac_output_scale=atac_output_scale or _ATAC_OUTPUT_SCALE,
            fit_dispersions=fit_dispersions,
            fit_rates=fit_rates,
            calibrate_channels=calibrate_channels,
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
        self.rna_output_scale = rna_output_scale
        self.schedule = schedule
        self.lr_schedule = lr_schedule
        self.continues_training = bool(module.prior.is_fitted)
        self.mixture_step: int | None = None  # the first one with the mixture
        self._has_ended = False
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
            return RowAdam(
                groups_by_decay(parameters, self._weight_decays()),
                lr=self.lr,
                eps=self.eps,
                decoupled_weight_decay=optimizer_cls is torch.optim.AdamW,
            )

        return create

    def _weight_decays(self) -> dict[torch.nn.Parameter, float]:
        """Weight decay of each parameter: of an output layer, what its Gaussian prior comes to."""
        module, n_cells = self.module, self.n_obs_training
        rna_scale = self.rna_output_scale or default_rna_output_scale(n_cells)
        scales = {
            module.rna_decoder.output.weight: rna_scale,
            module.atac_decoder.rate.weight: self.atac_output_scale,
            module.atac_decoder.inclusion.weight: self.atac_output_scale,
        }
        decays = {p: self.weight_decay if p.ndim > 1 else 0.0 for p in module.parameters()}
        # matrices of numbers that are no weights
        kept = (*module.prior.parameters(), module.rna_decoder.log_inverse_dispersion)
        kept += () if module.batch_vectors is None else (module.batch_vectors,)
        decays |= dict.fromkeys(kept, 0.0)
        # the loss is a mean over cells, so that a prior counts as one cell of many
        decays |= {p: p.shape[1] / (scale**2 * n_cells) for p, scale in scales.items()}
        return decays

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
        self._check_averages()
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
            self._check_some_cell_is_paired(counts)
            if self.module.atac_target == "counts":  # of which TF-IDF has depth taken away
                self._warn_about_deep_cells(counts)
            self.module.set_feature_statistics(**counts.feature_statistics())

    def _check_averages(self) -> None:
        """Refuse averages of weights that would reach over a fit of the mixture.

        A fit gives the components other places and other numbers, and no average of two fits is a
        mixture.
        """
        trainer = self.trainer
        for callback in trainer.callbacks:
            if isinstance(callback, WeightAveraging) and callback._use_buffers:
                raise ValueError(
                    f"`{type(callback).__name__}` must leave buffers as they are, for an average "
                    "of which components the mixture has is none: pass `use_buffers=False`."
                )
            if isinstance(callback, StochasticWeightAveraging):
                # the trainer's own number, one more than was asked for: the fits go by it
                first = self.epochs_to_last_objective(trainer.max_epochs)
                if callback.swa_start < first:
                    raise ValueError(
                        "`swa_epoch_start` must lie behind the last fit of the mixture, which is "
                        f"before epoch {first + 1}, got epoch {callback.swa_start + 1}: pass "
                        f"`swa_epoch_start={first + 1}` or more, and more epochs for it."
                    )

    @staticmethod
    def _check_some_cell_is_paired(counts: TrainingCounts) -> None:
        """Refuse training cells of one modality each: what was set up may have pairs elsewhere."""
        if not np.logical_and(*(depths > 0 for depths in counts.depths.values())).any():
            raise ValueError(
                "Some training cells must have counts in both modalities, for the model learns "
                "from them how these belong together, but none of the "
                f"{len(counts.rows):,} has: raise `train_size`, or name other cells in "
                '`datasplitter_kwargs={"external_indexing": ...}`.'
            )

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
            self._begin_mixture()

    def on_train_end(self) -> None:
        """Fit the mixture if training ended before its time, then what takes trained weights."""
        super().on_train_end()
        if not bool(self.module.prior.is_fitted):
            self._begin_mixture()
        self.fit_after_training()
        self._has_ended = True

    def on_fit_end(self) -> None:
        """Fit too where no epoch was left to train: a checkpoint of the last one was gone on from.

        Then Lightning leaves out the end of the training, and checkpoints are from before it.
        """
        super().on_fit_end()
        if not self._has_ended:
            self.fit_after_training()

    def _begin_mixture(self) -> None:
        self.fit_mixture()
        if self.mixture_step is None:
            self.mixture_step = self.global_step
