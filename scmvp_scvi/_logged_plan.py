"""`LoggedPlan`: what a training logs of each epoch; it stops where a loss is NaN or infinite."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scmvp_scvi._module import SCMVPLossOutput, SCMVPModule
from scmvp_scvi._steps import SteppingPlan
from scmvp_scvi._validate import shown


class LoggedPlan(SteppingPlan):
    """Log the ELBO and each part of the objective, for training and validation.

    Parameters
    ----------
    module
        The module.
    **kwargs
        Passed to `SteppingPlan`.
    """

    def __init__(self, module: SCMVPModule, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)
        self.epoch_parts = {"train": EpochMeans(), "validation": EpochMeans()}

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
        """Refuse to go on with a loss that is NaN or infinite.

        Once an epoch: to look at each step would synchronise with the device each time.
        """
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


class EpochMeans:
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
