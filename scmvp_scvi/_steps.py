"""`SteppingPlan`: how a training step is taken, as a CUDA graph or in blocks where possible."""

import logging
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from scvi.train import TrainingPlan
from torch import Tensor

from scmvp_scvi._module import DEFAULT_CYCLE_PEAKS, SCMVPLossOutput, SCMVPModule
from scmvp_scvi._optimizer import RowAdam, SteppedGradients, trust_rows, values_of_gradient
from scmvp_scvi._recorded_step import StepRecorder
from scmvp_scvi._surgery import KnownRows, Surgery

logger = logging.getLogger(__name__)

# Share of the rows of a wide weight that may be held back for the cycle where the others are
# stepped in blocks: with a third of 25,734 peaks a step took a quarter longer, with a twelfth of
# 100,000 it took as long. With fewer peaks there is little memory to save.
_MAX_HELD_SHARE = 0.125
_KL_WEIGHT, _LR = "kl_weight", "lr"  # change in each step, as the minibatch does


class SteppingPlan(TrainingPlan):
    """Take the steps of `SCMVPModule` in the fastest of the ways that give the same weights.

    On a CUDA device a step is recorded and replayed; on a CPU the widest weights are stepped block
    by block as their gradient forms; and steps are taken as Lightning does wherever something
    hinders that, which is asked anew in each epoch.

    Parameters
    ----------
    module
        The module.
    surgery
        What the model of a query learns; None if everything does.
    cuda_graph
        Whether steps may be recorded.
    **kwargs
        Passed to :class:`scvi.train.TrainingPlan`.
    """

    def __init__(
        self, module: SCMVPModule, *, surgery: Surgery | None, cuda_graph: bool, **kwargs: Any
    ) -> None:
        super().__init__(module, **kwargs)
        self.surgery = surgery
        self.known_rows: KnownRows | None = None
        self.wide_gradients: SteppedGradients | None = None
        self.cuda_graph = cuda_graph
        self.step_recorder: StepRecorder | None = None
        self._hindrance: str | None = None  # to the recording of steps, in the last epoch

    @property
    def _optimizer(self) -> Any:
        """The optimiser itself, without what Lightning wraps it in; `RowAdam` unless asked for."""
        return self.optimizers(use_pl_optimizer=False)

    def forward(self, batch: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Return posterior, laws and loss of a minibatch; of a replayed step the loss alone."""
        if self.step_recorder is not None and self.module.training:
            loss_kwargs = kwargs["loss_kwargs"]
            lr = self._optimizer.param_groups[0]["lr"]  # or steps would not be recorded
            inputs = {
                **batch,
                _KL_WEIGHT: loss_kwargs[_KL_WEIGHT],
                _LR: torch.full((), lr, device=self.device),
            }
            step = partial(self._whole_step, loss_kwargs)
            if (output := self.step_recorder.replay(step, inputs)) is not None:
                return None, None, output
        return self._forward(batch, *args, **kwargs)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Form the gradients, unless a replay has used them up, which the loss shows."""
        if self.step_recorder is None or loss.requires_grad:
            super().backward(loss, *args, **kwargs)

    def on_train_start(self) -> None:
        """Look whether gradients can be clipped, and remember what a query may not change."""
        super().on_train_start()
        self._check_can_clip()
        if self.surgery is not None:
            self.known_rows = KnownRows(self.module, self.surgery)

    def _check_can_clip(self) -> None:
        """Refuse to clip gradients whose scale an optimiser takes off only as it steps."""
        trainer, optimizer = self.trainer, self._optimizer
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
        if trainer.gradient_clip_val and trainer.precision == "16-mixed" and unscales:
            raise ValueError(
                '`gradient_clip_val` must be None with `precision="16-mixed"`, got '
                f"{trainer.gradient_clip_val}: {type(optimizer).__name__} takes scaled gradients. "
                'Train with `precision="bf16-mixed"` or "32-true", or without clipping.'
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step and let the gradients go, which would else lie beside those of the next."""
        super().optimizer_step(*args, **kwargs)
        if self.known_rows is not None:
            self.known_rows.put_back()
        self.optimizers().zero_grad()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | int | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, those of sampled peaks by the rows they hold."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # a replay has used them up; torch fails to clip none by value
        if not gradient_clip_val or all(p.grad is None for p in parameters):
            return
        # by torch: Lightning refuses a fused optimiser in mixed precision, scaler or not
        clipped = []
        for parameter in parameters:
            values = values_of_gradient(parameter)
            if values is not None and values is not parameter.grad:
                # torch clips no sparse gradient: a stand-in shares its values
                parameter = torch.nn.Parameter(torch.empty_like(values))
                parameter.grad = values
            clipped.append(parameter)
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(clipped, gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(clipped, gradient_clip_val)

    # -- which way ------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Ask anew what hinders a faster way, for callbacks may change it."""
        super().on_train_epoch_start()
        self._record_steps_if_possible()
        self._step_by_blocks_if_possible()

    def _step_by_blocks_if_possible(self) -> None:
        """Let the widest weights be stepped block by block, unless something hinders it.

        Callbacks then find no gradient of theirs.
        """
        if self.surgery is not None or not self._may_step_by_blocks():
            self.wide_gradients = None
        elif self.wide_gradients is None:
            encoder, decoder = self.module.atac_encoder, self.module.atac_decoder
            layers = (encoder.first_layer, decoder.rate, decoder.inclusion)
            self.wide_gradients = SteppedGradients(
                self._optimizer, [layer.weight for layer in layers]
            )

    def _may_step_by_blocks(self) -> bool:
        """Whether a gradient is what one minibatch makes it, and nobody else asks for it.

        The likelihood forms the gradient of the mean over a minibatch on a CPU alone. On sampled
        peaks the gradients are small but for one, and blocks took an eighth longer.
        """
        trainer, arguments = self.trainer, self.loss_kwargs
        n_held = arguments.get("n_cycle_peaks", DEFAULT_CYCLE_PEAKS)
        return (
            self.device.type == "cpu"
            and trainer.world_size == 1
            and trainer.precision == "32-true"
            and trainer.accumulate_grad_batches == 1
            and not trainer.fit_loop._skip_backward
            and not trainer.gradient_clip_val
            and arguments.get("n_peaks_per_step") is None
            and n_held <= _MAX_HELD_SHARE * len(self.module.atac_idf)
            and isinstance(self._optimizer, RowAdam)
        )

    def _record_steps_if_possible(self) -> None:
        """Let steps on a CUDA device be recorded, unless something hinders it in this epoch."""
        if self.device.type != "cuda":
            return
        hindrance, was = self._hindrance_to_recording(), self._hindrance
        self._hindrance = hindrance
        if hindrance is not None:
            if hindrance != was:
                logger.info("Training steps are not recorded as a CUDA graph: %s.", hindrance)
            self.forget_recorded_step()
        elif self.step_recorder is None:
            data = self.trainer.datamodule
            self.step_recorder = StepRecorder(min(data.batch_size, len(data.train_idx)))

    def _hindrance_to_recording(self) -> str | None:
        """Why the kernels of a step may depend on more than the minibatch; None if they do not."""
        trainer = self.trainer
        encoders = (self.module.rna_encoder, self.module.atac_encoder)
        is_own = isinstance(self._optimizer, RowAdam)
        rates = {group["lr"] for group in self._optimizer.param_groups}
        hindrances = {
            "`cuda_graph` is False": not self.cuda_graph,
            "several devices may take part": not isinstance(
                trainer.strategy, SingleDeviceStrategy
            ),
            f'the precision is "{trainer.precision}"': trainer.precision != "32-true",
            "gradients are accumulated": trainer.accumulate_grad_batches > 1,
            "the optimizer is one of your own": not is_own,
            "some parameters have a learning rate of their own": len(rates) > 1,
            "weights are averaged": trainer.fit_loop._skip_backward,
            "some training cells lack a modality": any(e.some_unobserved for e in encoders),
            "torch looks for anomalies": torch.is_anomaly_enabled(),
            "kernels are to be deterministic": torch.are_deterministic_algorithms_enabled(),
        }
        return next((why for why, holds in hindrances.items() if holds), None)

    def forget_recorded_step(self) -> None:
        """Let go of the step that is replayed, if there is one, and of its memory."""
        if self.step_recorder is not None:
            self.step_recorder = None
            torch.cuda.empty_cache()  # whose blocks nothing else can use

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        wide = {"wide_gradients": self.wide_gradients if self.module.training else None}
        kwargs["inference_kwargs"] = {**kwargs.get("inference_kwargs", {}), **wide}
        kwargs["loss_kwargs"] = {**kwargs.get("loss_kwargs", {}), **wide}
        return super().forward(*args, **kwargs)

    def _whole_step(
        self, loss_kwargs: dict[str, Any], inputs: dict[str, Tensor]
    ) -> SCMVPLossOutput:
        """Judge a minibatch and learn from it, as Lightning does call by call."""
        optimizer: RowAdam = self._optimizer
        trainer = self.trainer
        lr, kl_weight = inputs.pop(_LR), inputs.pop(_KL_WEIGHT)
        optimizer.zero_grad()
        _, _, output = self._forward(inputs, loss_kwargs={**loss_kwargs, _KL_WEIGHT: kl_weight})
        output.loss.backward()
        trust_rows(self.module.parameters())
        self.configure_gradient_clipping(
            optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        )
        with optimizer.learning_rate(lr):
            optimizer.step()
        optimizer.zero_grad()  # what Lightning goes on with finds nothing to clip or step
        return output
