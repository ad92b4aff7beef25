"""Adam by rows: of those that a sparse gradient holds, or of blocks as their gradient comes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Parameter
from torch.optim.adam import adam

from scmvp_scvi._wide_gradients import BlockGradient, CollectedGradient


def values_of_gradient(parameter: Tensor) -> Tensor | None:
    """Gradient of a parameter, or the values of the rows that a sparse one holds.

    To write to it changes the gradient.

    Parameters
    ----------
    parameter
        A parameter whose gradient, if sparse, is coalesced in place.
    """
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter.grad
    parameter.grad = parameter.grad.coalesce()
    return parameter.grad.values()


def trust_rows(parameters: Iterable[Tensor]) -> None:
    """Mark sparse gradients as coalesced: rows in order, each once.

    Parameters
    ----------
    parameters
        Their gradients are each of one use by `take_rows`, which forms them so. Autograd forgets
        it, and torch would look, which synchronises with the device.
    """
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad._coalesced_(True)


def groups_by_decay(
    parameters: Iterable[Parameter], decays: Mapping[Parameter, float]
) -> list[dict[str, Any]]:
    """Group parameters for an optimiser by their weight decay, in the order of the first of each.

    Parameters
    ----------
    parameters
        Those that learn.
    decays
        Weight decay of each of them, and perhaps of others.
    """
    groups: dict[float, list[Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(decays[parameter], []).append(parameter)
    return [{"params": of_decay, "weight_decay": decay} for decay, of_decay in groups.items()]


class RowAdam(torch.optim.Adam):
    """Adam, fused for dense gradients, by rows for sparse ones :cite:p:`Kingma2015`.

    Gradients that a scaler of half precision has scaled are unscaled here, as in the fused step; a
    step with values that are not finite is left out.

    A row that a sparse gradient leaves out keeps its value and its moments, and the bias of the
    moments is corrected by the number of steps that the row itself has taken. A step over a few
    thousand peaks of many then costs what these peaks cost. Weight decay acts on the same rows.

    A parameter may also be stepped before `step`, block by block: `begin_blocks`, then
    `step_block`. The rows that were held back then step in `step`.

    Parameters
    ----------
    params, **kwargs
        As in :class:`torch.optim.Adam`; ``decoupled_weight_decay=True`` makes it AdamW.

    Raises
    ------
    ValueError
        If an option is set that the steps by rows do not know.
    """

    def __init__(self, params: Any, **kwargs: Any) -> None:
        for name in ("amsgrad", "maximize", "differentiable", "foreach"):
            if kwargs.get(name):
                raise ValueError(f"`{name}` is not offered by steps by rows: leave it out.")
        super().__init__(params, fused=True, **kwargs)
        # rows held back for `step`, and their gradient, of the parameters that have begun theirs
        self._held: dict[Parameter, tuple[Tensor, Tensor]] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what a copy or a checkpoint remembers; no step of it is under way."""
        super().__setstate__(state)
        self._held = {}

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
        held, self._held = self._held, {}
        # what torch's GradScaler leaves for optimisers that unscale by themselves
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        for group, parameter, gradient in sparse:
            if parameter in held:
                held[parameter][1].add_(_values_at(gradient, held[parameter][0]))
            elif found_inf is None or not bool(found_inf):
                self._step_rows(group, parameter, gradient, scale)
            parameter.grad = None  # hidden from the dense step
        for parameter, (rows, gradient) in held.items():
            self._step_held(parameter, rows, gradient)
        super().step()
        for _, parameter, gradient in sparse:
            parameter.grad = gradient
        return loss

    @contextmanager
    def learning_rate(self, lr: Float[Tensor, ""]) -> Iterator[None]:
        """Let steps be recorded that read the learning rate where it lies, in each replay anew.

        Parameters
        ----------
        lr
            On the device of the parameters.

        Raises
        ------
        RuntimeError
            If a parameter has a gradient for the first time: what is remembered of it would be
            made anew in each replay.
        """
        for group in self.param_groups:
            if any(p.grad is not None and not self.state[p] for p in group["params"]):
                raise RuntimeError("A parameter began to learn in the step that was recorded.")
        kept = [
            {name: group[name] for name in ("lr", "capturable")} for group in self.param_groups
        ]
        for group in self.param_groups:
            group.update(lr=lr, capturable=True)
        try:
            yield
        finally:
            for group, values in zip(self.param_groups, kept, strict=True):
                group.update(values)

    def begin_blocks(self, parameter: Parameter, held: Int[Tensor, "held"]) -> Tensor:
        """Begin the step of a parameter whose gradient comes in blocks.

        Parameters
        ----------
        parameter
            The parameter.
        held
            Rows that step in `step`, because they may have a sparse gradient as well, of just
            these rows; ascending.

        Returns
        -------
        ``(held, width)``, where the gradient of these rows is to be written.

        Raises
        ------
        RuntimeError
            If it has begun already, and `step` has not been called since.
        """
        if parameter in self._held:
            raise RuntimeError(
                "The gradient of a weight that is stepped in blocks was formed twice in a step: "
                "its first part is in the weight already."
            )
        gradient = parameter.new_zeros(len(held), *parameter.shape[1:])
        self._held[parameter] = held, gradient
        self._state_of(parameter)["step"] += 1
        return gradient

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
        tensors = tuple(tensor[rows] for tensor in self._moving(parameter))
        with _copied_back(tensors, held):  # which puts back what they were
            self._step_fused(parameter, tensors, gradient.contiguous())

    def _step_held(self, parameter: Parameter, rows: Tensor, gradient: Tensor) -> None:
        with _copied_back(self._moving(parameter), rows) as chosen:
            self._step_fused(parameter, chosen, gradient)

    def _moving(self, parameter: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a parameter and its two moments."""
        state = self._state_of(parameter)
        return parameter, state["exp_avg"], state["exp_avg_sq"]

    def _step_fused(
        self, parameter: Parameter, tensors: Sequence[Tensor], gradient: Tensor
    ) -> None:
        """Move rows of a parameter and of its moments by torch's fused step."""
        (group,) = (g for g in self.param_groups if any(p is parameter for p in g["params"]))
        weights, first, second = tensors
        beta1, beta2 = group["betas"]
        adam(
            [weights],
            [gradient],
            [first],
            [second],
            [],
            [self.state[parameter]["step"] - 1],  # which it adds to
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
        state = self._state_of(parameter)
        if "row_steps" not in state:
            state["row_steps"] = state["step"].to(parameter).repeat(len(parameter))
        state["step"] += 1
        rows, slope = gradient.indices()[0], gradient.values()
        if scale is not None:
            slope = slope / scale
        beta1, beta2 = group["betas"]
        decay, lr = group["weight_decay"], group["lr"]
        tensors = (*self._moving(parameter), state["row_steps"])
        with _copied_back(tensors, rows) as (weights, first, second, steps):
            if group["decoupled_weight_decay"]:
                weights.mul_(1 - lr * decay)
            elif decay != 0:
                slope = slope.add(weights, alpha=decay)
            steps.add_(1)
            first.lerp_(slope, 1 - beta1)
            second.mul_(beta2).addcmul_(slope, slope, value=1 - beta2)
            per_row = steps.view(-1, *[1] * (parameter.ndim - 1))
            spread = second.sqrt().div_((1 - beta2**per_row).sqrt_()).add_(group["eps"])
            weights.sub_(first.div(spread).mul_(lr / (1 - beta1**per_row)))


@contextmanager
def _copied_back(tensors: Sequence[Tensor], rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Copies of some rows of each tensor, which overwrite these rows at the end."""
    copies = tuple(tensor.index_select(0, rows) for tensor in tensors)
    yield copies
    for tensor, values in zip(tensors, copies, strict=True):
        tensor.index_copy_(0, rows, values)


def _values_at(gradient: Tensor, rows: Tensor) -> Tensor:
    """Values of a sparse gradient that is to hold these rows and no other."""
    if not torch.equal(gradient.indices()[0], rows):
        raise RuntimeError(
            f"Of a weight that is stepped in blocks, {gradient.indices().shape[1]} rows have a "
            f"gradient elsewhere and {len(rows)} were held back for one: they must be the same."
        )
    return gradient.values()


class SteppedGradient:
    """Steps a weight by each block of its gradient, which is then forgotten.

    Parameters
    ----------
    optimizer
        Whose step it is.
    weight
        ``(features, width)``.
    held
        ``(held,)``, rows held back for the rest of their gradient, ascending.
    """

    def __init__(self, optimizer: RowAdam, weight: Parameter, held: Int[Tensor, "held"]) -> None:
        self._optimizer, self._weight, self._held = optimizer, weight, held
        self._of_held = optimizer.begin_blocks(weight, held)

    def put(self, rows: slice, gradient: Float[Tensor, "block width"]) -> None:
        """Step some rows but for the held ones among them, whose gradient is kept."""
        ends = torch.tensor([rows.start, rows.stop], device=self._held.device)
        among = slice(*torch.searchsorted(self._held, ends).tolist())
        held = self._held[among] - rows.start
        self._of_held[among] = gradient.index_select(0, held)
        self._optimizer.step_block(self._weight, rows, gradient, held)

    def result(self) -> None:
        """Return nothing: the optimiser has the gradient of the held rows."""


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
        self._held: dict[int, Tensor] = {}  # by the place of a weight

    def of(self, weight: Tensor) -> BlockGradient:
        """Return what takes the gradient of this weight in this step."""
        known = self._weights.get(weight.data_ptr())
        if known is None or not known.requires_grad:  # frozen, and nobody takes its gradient
            return CollectedGradient(weight)
        nothing = torch.empty(0, dtype=torch.long, device=weight.device)
        return SteppedGradient(self._optimizer, known, self._held.get(weight.data_ptr(), nothing))

    def hold(self, rows: Int[Tensor, "held"], weights: Iterable[Tensor]) -> None:
        """Hold rows back from the next gradients, for theirs has another part; ascending."""
        self._held = dict.fromkeys((weight.data_ptr() for weight in weights), rows)
