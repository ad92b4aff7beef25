"""Forward and backward pass of a training step as a CUDA graph, launched by one call."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from scmvp_scvi._counts import written_out
from scmvp_scvi._module import SCMVPLossOutput


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
        Tensors on a CUDA device, dense or CSR. It is not trained on. A few others have been,
        because what a library sets up at its first call is not to be recorded.

    Raises
    ------
    RuntimeError
        If the step does something that a CUDA graph cannot hold.
    """

    def __init__(
        self,
        step: Callable[[dict[str, Tensor]], SCMVPLossOutput],
        parameters: Iterable[Tensor],
        minibatch: Mapping[str, Tensor],
    ) -> None:
        self._minibatch = {name: written_out(t).clone() for name, t in minibatch.items()}
        parameters = list(parameters)
        for parameter in parameters:
            parameter.grad = None  # for the graph to make where it can write them again
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
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


def _detached(output: SCMVPLossOutput) -> SCMVPLossOutput:
    """Cut the loss off from its graph of gradients, in place: sums of it were recorded as well."""
    for name, value in vars(output).items():
        if isinstance(value, dict):
            setattr(output, name, {key: tensor.detach() for key, tensor in value.items()})
        elif isinstance(value, Tensor):
            setattr(output, name, value.detach())
    return output
