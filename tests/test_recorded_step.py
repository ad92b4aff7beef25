"""A recorded step away from a GPU: what it copies, what it hands out, and what it refuses.

The graph that stands in runs the step when it is recorded, and does nothing when it is replayed.
That replays compute what steps compute is tested on a GPU.
"""

from contextlib import nullcontext

import pytest
import torch

from scmvp_scvi._module import SCMVPLossOutput
from scmvp_scvi._recorded_step import RecordedStep


class NoGraph:
    """Stands in for a CUDA graph."""

    n_replays = 0

    def replay(self) -> None:
        self.n_replays += 1


@pytest.fixture(autouse=True)
def _no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", NoGraph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: device)
    monkeypatch.setattr(torch.cuda, "graph", lambda _, **options: nullcontext(options))


@pytest.fixture
def weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))


def loss_of(weight: torch.Tensor, minibatch: dict[str, torch.Tensor]) -> SCMVPLossOutput:
    cells = minibatch["x"] @ weight
    return SCMVPLossOutput(
        loss=cells.square().mean(),
        reconstruction_loss={"x": cells},
        kl_local=cells,
        parts={"x": cells.mean()},
    )


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_minibatches_are_copied_to_where_the_recorded_one_lay(weight, rng):
    places = {}

    def step(minibatch):
        places.update(minibatch)
        return loss_of(weight, minibatch)

    recorded = RecordedStep(step, {"x": torch.ones(4, 3).to_sparse_csr()})
    assert places["x"].layout == torch.strided
    other = torch.as_tensor(rng.poisson(0.7, size=(4, 3))).float()
    for layout in (torch.sparse_csr, torch.strided):
        places["x"].fill_(-1)
        recorded.replay({"x": other if layout == torch.strided else other.to_sparse_csr()})
        torch.testing.assert_close(places["x"], other)
    assert recorded._graph.n_replays == 2


def test_the_loss_that_is_handed_out_records_no_gradient(weight):
    minibatch = {"x": torch.ones(4, 3)}
    recorded = RecordedStep(lambda batch: loss_of(weight, batch), minibatch)
    output = recorded.replay(minibatch)
    tensors = [output.loss, output.kl_global_sum, output.reconstruction_loss["x"]]
    assert [float(t.sum()) for t in tensors] == [36.0, 0.0, 24.0]
    assert not any(t.requires_grad for t in (*tensors, *output.kl_local.values()))


@pytest.mark.parametrize(
    ("minibatch", "fits"),
    [
        ({"x": torch.zeros(4, 3)}, True),
        ({"x": torch.zeros(3, 3)}, False),
        ({"x": torch.zeros(4, 3), "y": torch.zeros(4, 1)}, False),
        ({"y": torch.zeros(4, 3)}, False),
    ],
)
def test_only_minibatches_of_the_recorded_shape_fit(weight, minibatch, fits):
    step = RecordedStep(lambda batch: loss_of(weight, batch), {"x": torch.ones(4, 3)})
    assert step.fits(minibatch) == fits


def test_a_step_that_cannot_be_recorded_is_refused_with_a_way_out(weight):
    def step(minibatch):
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match=r"plan_kwargs=\{\"cuda_graph\": False\}") as refused:
        RecordedStep(step, {"x": torch.ones(4, 3)})
    assert "capturing" in str(refused.value.__cause__)
