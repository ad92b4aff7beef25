"""A training step, its update of the weights included, as a CUDA graph, launched by one call."""

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from scmvp_scvi._counts import written_out
from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._module import SCMVPLossOutput

Step = Callable[[dict[str, Tensor]], SCMVPLossOutput]
_USUAL_STEPS = 3  # before one is recorded, in which libraries set up what they need


class RecordedStep:
    """A step that was recorded on one minibatch and is replayed on others of its shape.

    A step launches more than a thousand kernels, most of them small, and a host takes several
    times as long to launch them as an accelerator to run them. A CUDA graph knows the kernels with
    the memory that they read and write, so that a minibatch is copied to where the recorded one
    lay. Random numbers are drawn anew in each replay.

    Parameters
    ----------
    step
        From a minibatch to the loss, after which the weights are updated. What else it reads
        either stays the same or changes in place.
    minibatch
        Tensors on a CUDA device, dense or CSR. To record the step changes no weight.

    Raises
    ------
    RuntimeError
        If the step does something that a CUDA graph cannot hold.
    """

    def __init__(self, step: Step, minibatch: Mapping[str, Tensor]) -> None:
        self._minibatch = {name: written_out(t).clone() for name, t in minibatch.items()}
        self._graph = torch.cuda.CUDAGraph()
        stream = _stream_of(next(iter(minibatch.values())).device)
        try:
            # by threads, for one that pins minibatches asks for memory meanwhile
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
                output = step(dict(self._minibatch))
        except RuntimeError as error:
            raise RuntimeError(
                "The training step could not be recorded as a CUDA graph. Train a new model with "
                '`plan_kwargs={"cuda_graph": False}`, in a new process.'
            ) from error
        self._output = _detached(output)

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
        The loss before the update, without a gradient. It holds until the next replay.
        """
        for name, tensor in minibatch.items():
            written_out(tensor, self._minibatch[name])
        self._graph.replay()
        return self._output


class StepRecorder:
    """Lets the first steps be taken as usual, records one, and replays it from then on.

    Parameters
    ----------
    n_cells
        Of the minibatches to record; others, such as a shorter last one, are never replayed.
    """

    def __init__(self, n_cells: int) -> None:
        self._n_cells = n_cells
        self._recorded: RecordedStep | None = None
        self._n_usual = 0

    def replay(self, step: Step, minibatch: Mapping[str, Tensor]) -> SCMVPLossOutput | None:
        """Take a step by a replay, or say by None that it is to be taken as usual.

        Parameters
        ----------
        step, minibatch
            As of `RecordedStep`.
        """
        if self._recorded is None:
            is_full = len(minibatch[REGISTRY.BATCH]) == self._n_cells
            if self._n_usual < _USUAL_STEPS or not is_full:
                self._n_usual += 1
                return None
            self._recorded = RecordedStep(step, minibatch)
        return self._recorded.replay(minibatch) if self._recorded.fits(minibatch) else None


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """One stream a device: torch's own is of the device that was first, new ones hold memory."""
    return torch.cuda.Stream(device)


def _detached(output: SCMVPLossOutput) -> SCMVPLossOutput:
    """Cut the loss off from its graph of gradients, in place: sums of it were recorded as well."""
    for name, value in vars(output).items():
        if isinstance(value, dict):
            setattr(output, name, {key: tensor.detach() for key, tensor in value.items()})
        elif isinstance(value, Tensor):
            setattr(output, name, value.detach())
    return output
