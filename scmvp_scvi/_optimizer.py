"""Adam by rows: of those that a sparse gradient holds, or of blocks as their gradient comes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam

from scmvp_scvi._wide_gradients import BlockGradient, CollectedGradient


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

    A parameter may also be stepped before `step`, block by block: `begin_blocks`, then
    `step_block`. In `step` a sparse gradient then moves the rows that were held back, by the steps
    that all rows have taken.

    Parameters
    ----------
    params, **kwargs
        As in :class:`torch.optim.Adam`; ``decoupled_weight_decay=True`` makes it AdamW.
    """

    def __init__(self, params: Any, **kwargs: Any) -> None:
        super().__init__(params, fused=True, **kwargs)
        self._in_blocks: set[Parameter] = set()  # those that this step has begun with

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
        self._in_blocks.clear()
        return loss

    def begin_blocks(self, parameter: Parameter) -> None:
        """Begin the step of a parameter whose gradient comes in blocks.

        Parameters
        ----------
        parameter
            The parameter.

        Raises
        ------
        RuntimeError
            If it has begun already, and `step` has not been called since.
        """
        if parameter in self._in_blocks:
            raise RuntimeError(
                "The gradient of a weight that is stepped in blocks was formed twice in a step: "
                "its first part is in the weight already."
            )
        self._in_blocks.add(parameter)
        self._state_of(parameter)["step"] += 1

    @torch.no_grad()
    def step_block(
        self, parameter: Parameter, rows: slice, gradient: Tensor, held: Int[Tensor, "held"]
    ) -> None:
        """Step some rows of a parameter.

        Parameters
        ----------
        parameter
            The parameter, after `begin_blocks`.
        rows
            A block of its rows.
        gradient
            Of these rows.
        held
            Rows of the block, counted within it, that keep their values and moments.
        """
        (group,) = (g for g in self.param_groups if any(p is parameter for p in g["params"]))
        state = self.state[parameter]
        weights, first, second = (
            tensor[rows] for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])
        )
        kept = [tensor.index_select(0, held) for tensor in (weights, first, second)]
        beta1, beta2 = group["betas"]
        adam(
            [weights],
            [gradient.contiguous()],
            [first],
            [second],
            [],
            [state["step"] - 1],  # which it adds to
            fused=True,
            decoupled_weight_decay=group["decoupled_weight_decay"],
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )
        for tensor, values in zip((weights, first, second), kept, strict=True):
            tensor.index_copy_(0, held, values)

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return what is remembered of a parameter, made as the dense step would make it."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def _step_rows(
        self, group: dict[str, Any], parameter: Tensor, gradient: Tensor, scale: Tensor | None
    ) -> None:
        state, in_blocks = self._state_of(parameter), parameter in self._in_blocks
        if not in_blocks:
            if "row_steps" not in state:
                state["row_steps"] = state["step"].to(parameter).repeat(len(parameter))
            state["step"] += 1
        rows, slope = gradient.indices()[0], gradient.values()
        if scale is not None:
            slope = slope / scale
        weights, first, second = (
            tensor.index_select(0, rows)
            for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])
        )
        if in_blocks:  # all rows take every step
            steps = state["step"].to(parameter).expand(len(rows))
        else:
            steps = state["row_steps"].index_select(0, rows) + 1
            state["row_steps"].index_copy_(0, rows, steps)
        beta1, beta2 = group["betas"]
        decay, lr = group["weight_decay"], group["lr"]
        if group["decoupled_weight_decay"]:
            weights.mul_(1 - lr * decay)
        elif decay != 0:
            slope = slope.add(weights, alpha=decay)
        first.lerp_(slope, 1 - beta1)
        second.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
        per_row = steps.view(-1, *[1] * (parameter.ndim - 1))
        spread = second.sqrt().div_((1 - beta2**per_row).sqrt_()).add_(group["eps"])
        weights.sub_(first.div(spread).mul_(lr / (1 - beta1**per_row)))
        for tensor, values in (
            (parameter, weights),
            (state["exp_avg"], first),
            (state["exp_avg_sq"], second),
        ):
            tensor.index_copy_(0, rows, values)


class SteppedGradient:
    """Steps a weight by each block of its gradient, which is then forgotten.

    Parameters
    ----------
    optimizer
        Whose step it is.
    weight
        ``(features, width)``.
    held
        ``(held,)``, rows that wait for the rest of their gradient, ascending.
    """

    def __init__(self, optimizer: RowAdam, weight: Parameter, held: Int[Tensor, "held"]) -> None:
        optimizer.begin_blocks(weight)
        self._optimizer, self._weight, self._held = optimizer, weight, held
        self._of_held = weight.new_empty(len(held), weight.shape[1])

    def put(self, rows: slice, gradient: Float[Tensor, "block width"]) -> None:
        """Step some rows, and keep the gradient of those among them that are held."""
        ends = torch.tensor([rows.start, rows.stop], device=self._held.device)
        among = slice(*torch.searchsorted(self._held, ends).tolist())
        held = self._held[among] - rows.start
        self._of_held[among] = gradient.index_select(0, held)
        self._optimizer.step_block(self._weight, rows, gradient, held)

    def result(self) -> Tensor | None:
        """Return the gradient of the held rows, or nothing where there are none."""
        if not len(self._held):
            return None
        return torch.sparse_coo_tensor(
            self._held.unsqueeze(0),
            self._of_held,
            self._weight.shape,
            is_coalesced=True,
            check_invariants=False,
        )


class SteppedGradients:
    """Steps wide weights where their gradients are formed, so that these are never held.

    The gradients of three layers over 200,000 peaks take half of what a step holds in memory. What
    reads a weight in a step has to do so before its gradient is formed there.

    Parameters
    ----------
    optimizer
        Of the training.
    weights
        The weights that are stepped so; gradients of others are collected.
    """

    def __init__(self, optimizer: RowAdam, weights: Sequence[Parameter]) -> None:
        self._optimizer = optimizer
        self._weights = {weight.data_ptr(): weight for weight in weights}
        self._held = torch.empty(0, dtype=torch.long, device=weights[0].device)

    def of(self, weight: Tensor) -> BlockGradient:
        """Return what takes the gradient of this weight in this step."""
        known = self._weights.get(weight.data_ptr())
        if known is None:
            return CollectedGradient(weight)
        return SteppedGradient(self._optimizer, known, self._held)

    def hold(self, rows: Int[Tensor, "held"]) -> None:
        """Hold rows back from the next gradients, for theirs has another part; ascending."""
        self._held = rows
