"""Adam whose step costs no more than the rows that a sparse gradient holds."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def values_of_gradient(parameter: Tensor) -> Tensor | None:
    """Gradient of a parameter, of a sparse one the values of the rows it holds, to be read or set.

    Parameters
    ----------
    parameter
        A parameter whose gradient, if sparse, is coalesced in place.
    """
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter.grad
    parameter.grad = parameter.grad.coalesce()
    return parameter.grad.values()


class RowAdam(torch.optim.Adam):
    """Adam, fused for dense gradients, by rows for sparse ones :cite:p:`Kingma2015`.

    Gradients that a scaler of half precision has scaled are unscaled here, as in the fused step; a
    step with values that are not finite is left out.

    A row that a sparse gradient leaves out keeps its value and its moments, and the bias of the
    moments is corrected by the number of steps that the row itself has taken. A step over a few
    thousand peaks of many then costs what these peaks cost. Weight decay acts on the same rows.

    Parameters
    ----------
    params, **kwargs
        As in :class:`torch.optim.Adam`; ``decoupled_weight_decay=True`` makes it AdamW.
    """

    def __init__(self, params: Any, **kwargs: Any) -> None:
        super().__init__(params, fused=True, **kwargs)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure
            Computes the loss and its gradients again.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = [
            (group, parameter, parameter.grad.coalesce())
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        # what torch's GradScaler leaves for optimisers that unscale by themselves
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        for group, parameter, gradient in sparse:
            if found_inf is None or not bool(found_inf):
                self._step_rows(group, parameter, gradient, scale)
            parameter.grad = None  # hidden from the dense step
        super().step()
        for _, parameter, gradient in sparse:
            parameter.grad = gradient
        return loss

    def _step_rows(
        self, group: dict[str, Any], parameter: Tensor, gradient: Tensor, scale: Tensor | None
    ) -> None:
        state = self.state[parameter]
        if not state:  # the entries that the dense step would make, and the rows' own steps
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        if "row_steps" not in state:
            state["row_steps"] = state["step"].to(parameter).repeat(len(parameter))
        state["step"] += 1
        rows, slope = gradient.indices()[0], gradient.values()
        if scale is not None:
            slope = slope / scale
        weights, first, second, steps = (
            tensor.index_select(0, rows)
            for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"], state["row_steps"])
        )
        beta1, beta2 = group["betas"]
        decay, lr = group["weight_decay"], group["lr"]
        if group["decoupled_weight_decay"]:
            weights.mul_(1 - lr * decay)
        elif decay != 0:
            slope = slope.add(weights, alpha=decay)
        steps += 1
        first.lerp_(slope, 1 - beta1)
        second.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        per_row = steps.view(-1, *[1] * (parameter.ndim - 1))
        spread = second.sqrt().div_((1 - beta2**per_row).sqrt_()).add_(group["eps"])
        weights.sub_(first.div(spread).mul_(lr / (1 - beta1**per_row)))
        for tensor, values in (
            (parameter, weights),
            (state["exp_avg"], first),
            (state["exp_avg_sq"], second),
            (state["row_steps"], steps),
        ):
            tensor.index_copy_(0, rows, values)
