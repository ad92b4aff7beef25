"""`FittingPlan`: what is fitted between the epochs and after them, to the cells as embedded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scmvp_scvi._channel_fit import FEWEST_CELLS, fit_calibration
from scmvp_scvi._count_sums import TrainingCounts
from scmvp_scvi._counts import read_counts
from scmvp_scvi._dispersion_fit import move_to_mode
from scmvp_scvi._keys import MODALITIES, OUTPUT, POSTERIOR_OF, REGISTRY
from scmvp_scvi._logged_plan import LoggedPlan
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._prior_fit import fit_mixture, mixture_from_labels
from scmvp_scvi._rate_fit import RateSums, fit_rates
from scmvp_scvi._size_rules import are_few
from scmvp_scvi.distributions._gaussian_mixture import MixtureFit

_LEAST_PAIRED = 0.9  # of the cells that channels are calibrated on


class FittingPlan(LoggedPlan):
    """Fit the mixture, the dispersions, the rates and the calibration of the channels.

    Each fit is of all processes at once, and leaves the module in the mode that it was in.

    Parameters
    ----------
    module
        The module.
    n_clusters, seeding_labels, cluster_resolution, seed
        As in `SCMVPTrainingPlan`.
    atac_output_scale
        Scale of the prior that the weights of the peaks' rates are trained under.
    fit_dispersions, fit_rates, calibrate_channels
        As in `SCMVPTrainingPlan`.
    **kwargs
        Passed to `LoggedPlan`.
    """

    def __init__(
        self,
        module: SCMVPModule,
        *,
        n_clusters: int | None,
        seeding_labels: Sequence[int] | None,
        cluster_resolution: float,
        seed: int,
        atac_output_scale: float,
        fit_dispersions: bool | None,
        fit_rates: bool,
        calibrate_channels: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, **kwargs)
        self.n_clusters = n_clusters
        self.seeding_labels = seeding_labels
        self.cluster_resolution = cluster_resolution
        self.seed = seed
        self.atac_output_scale = atac_output_scale
        self.fit_dispersions = fit_dispersions
        self.fit_rates = fit_rates
        self.calibrate_channels = calibrate_channels

    @torch.no_grad()
    def fit_mixture(self) -> None:
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

    def fit_after_training(self) -> None:
        """Fit, as asked for, the dispersions, the rates and the calibration of the channels."""
        asked = self.fit_dispersions
        if asked is None:
            asked = self.surgery is None and are_few(self.n_obs_training)
        if asked:
            self._fit_dispersions()
        if self.fit_rates:
            self._fit_rates()
        if self.calibrate_channels and self.surgery is None:
            self._calibrate_channels()

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
    def _fit_rates(self) -> None:
        """Fit the rates of the peaks to one draw of each training cell, of all processes."""
        data, layer = self.trainer.datamodule, self.module.atac_decoder.rate
        parameters = layer.weight, layer.bias
        if not all(p.requires_grad for p in parameters):  # the user holds them still
            return
        sums = RateSums.of_no_cells(layer)
        with self._evaluating():
            for tensors, outputs in self._embedded(data.train_idx):
                with torch.enable_grad():
                    law = self.module.decode(tensors, outputs)[OUTPUT.PY]
                    log_prob = law.log_prob(outputs[OUTPUT.ATAC_TARGET], for_mean=True)
                    # of the negative mean, whose slopes come with the values
                    slopes = torch.autograd.grad(-log_prob.mean(), parameters)
                sums.add(law.hidden, law.library[:, 0] * law.observed, [s.neg_() for s in slopes])
        sums = RateSums(*(self.trainer.strategy.reduce(s, reduce_op="sum") for s in sums))
        weight, bias = (p.cpu().numpy() for p in parameters)
        totals = TrainingCounts.read(data.adata_manager, data.train_idx).totals["atac"]
        fit = fit_rates(weight, bias, totals, sums, scale=self.atac_output_scale, seed=self.seed)
        for parameter, fitted in zip(parameters, fit, strict=True):
            parameter.copy_(torch.as_tensor(fitted))

    @torch.no_grad()
    def _calibrate_channels(self) -> None:
        """Calibrate the channels on the held-out cells with both modalities, of all processes.

        These have to stand for all cells: by cells of one type, all others would be predicted to
        be of it.
        """
        data, found = self.trainer.datamodule, []
        if not data.splits_at_random or len(data.val_idx) < FEWEST_CELLS:
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
