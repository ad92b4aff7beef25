"""Forward and backward pass of a training step as a CUDA graph, launched by one call."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from scmvp_scvi._counts import written_out
from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._module import SCMVPLossOutput

Step = Callable[[dict[str, Tensor]], SCMVPLossOutput]
_FIRST_RECORDED = 3  # step; by then whatever libraries set up at their first call is there


class RecordedStep:
    """A step that was recorded on one minibatch and is replayed on others of its shape.

    A step launches more than a thousand kernels, most of them small, and a host takes several
    times as long to launch them as an accelerator to run them. A CUDA graph knows the kernels with
    the memory that they read and write, so that a minibatch is copied to where the recorded one
    lay. Random numbers are drawn anew in each replay.

    Parameters
    ----------
    step
        From a minibatch to the loss. What else it reads either stays the same or changes in place.
    parameters
        What the loss is differentiated by; their gradients are let go of.
    minibatch
        Tensors on a CUDA device, dense or CSR. To record the step does not take it.

    Raises
    ------
    RuntimeError
        If the step does something that a CUDA graph cannot hold.
    """

    def __init__(
        self,
        step: Step,
        parameters: Sequence[Tensor],
        minibatch: Mapping[str, Tensor],
    ) -> None:
        self._minibatch = {name: written_out(t).clone() for name, t in minibatch.items()}
        for parameter in parameters:
            parameter.grad = None  # for the graph to make where it can write them again
        self._graph = torch.cuda.CUDAGraph()
        # a stream of one's own, for torch keeps one for the device that was first; by threads, for
        # one that pins minibatches asks for memory meanwhile
        stream = torch.cuda.Stream(next(iter(minibatch.values())).device)
        try:
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                output = step(dict(self._minibatch))
                output.loss.backward()
        except RuntimeError as error:
            raise RuntimeError(
                "The training step could not be recorded as a CUDA graph. Train a new model with "
                '`plan_kwargs={"cuda_graph": False}`, in a new process.'
            ) from error
        self._output = _detached(output)
        self._gradients = [(p, p.grad) for p in parameters if p.grad is not None]

    def fits(self, minibatch: Mapping[str, Tensor]) -> bool:
        """Whether a minibatch has the shape of the recorded one."""
        shapes = {name: tensor.shape for name, tensor in minibatch.items()}
        return shapes == {name: tensor.shape for name, tensor in self._minibatch.items()}

    def replay(self, minibatch: Mapping[str, Tensor]) -> SCMVPLossOutput:
        """Take the step on another minibatch.

        Parameters
        ----------
        minibatch
            Tensors that fit.

        Returns
        -------
        The loss, which holds until the next replay. `give_gradients` tells the parameters theirs.
        """
        for name, tensor in minibatch.items():
            self._minibatch[name].copy_(written_out(tensor))
        self._graph.replay()
        return self._output

    def give_gradients(self) -> None:
        """Give the parameters the gradients of the last replay, as a backward pass does."""
        for parameter, gradient in self._gradients:
            parameter.grad = gradient


class StepRecorder:
    """Lets the first steps be taken as usual, records one, and replays it from then on.

    Parameters
    ----------
    parameters
        As of `RecordedStep`.
    n_cells
        Of the minibatches to record; others, such as a shorter last one, are never replayed.
    """

    def __init__(self, parameters: Iterable[Tensor], n_cells: int) -> None:
        self._parameters = list(parameters)
        self._n_cells = n_cells
        self._recorded: RecordedStep | None = None
        self._n_usual = 0
        self._under_way: RecordedStep | None = None  # replayed, its gradients not given yet

    def replay(self, step: Step, minibatch: Mapping[str, Tensor]) -> SCMVPLossOutput | None:
        """Take a step by a replay, or say by None that it is to be taken as usual.

        Parameters
        ----------
        step, minibatch
            As of `RecordedStep`.
        """
        if self._recorded is None:
            is_full = len(minibatch[REGISTRY.BATCH]) == self._n_cells
            if self._n_usual < _FIRST_RECORDED or not is_full:
                self._n_usual += 1
                return None
            self._recorded = RecordedStep(step, self._parameters, minibatch)
        if not self._recorded.fits(minibatch):
            return None
        self._under_way = self._recorded
        return self._recorded.replay(minibatch)

    def give_gradients(self) -> bool:
        """Give the parameters the gradients of the step under way; False if it is no replay."""
        replayed, self._under_way = self._under_way, None
        if replayed is None:
            return False
        replayed.give_gradients()
        return True


def _detached(output: SCMVPLossOutput) -> SCMVPLossOutput:
    """Cut the loss off from its graph of gradients, in place: sums of it were recorded as well."""
    for name, value in vars(output).items():
        if isinstance(value, dict):
            setattr(output, name, {key: tensor.detach() for key, tensor in value.items()})
        elif isinstance(value, Tensor):
            setattr(output, name, value.detach())
    return output
