"""The model on a CUDA device: it answers as on the CPU, trains in each way and finds the types."""

from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from mudata import MuData
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from torch.distributions import Normal

from scmvp_scvi import SCMVPModel
from scmvp_scvi._counts import read_counts
from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._recorded_step import RecordedStep
from scmvp_scvi.datasets import synthetic
from scmvp_scvi.distributions import (
    FactoredNegativeBinomial,
    FactoredZeroInflatedPoisson,
    _blockwise,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

CUDA = "cuda"
# arguments of `train`, which takes the CPU for all other tests
ON_GPU = MappingProxyType({"accelerator": "gpu", "devices": "auto"})
N_CELLS, N_HIDDEN, N_GENES, N_PEAKS = 6, 3, 40, 150
Law = FactoredNegativeBinomial | FactoredZeroInflatedPoisson


# -- likelihoods ----------------------------------------------------------------------------------


@pytest.fixture(params=["rna", "atac"])
def law(request, rng, monkeypatch) -> Law:
    """A law in double precision on the CPU, in blocks the last of which is not full."""
    for name in ("_BLOCK_SIZE_CPU", "_BLOCK_SIZE_OTHER"):
        monkeypatch.setattr(_blockwise, name, 64)
    monkeypatch.setattr(_blockwise, "_USUAL_CELLS", 3)  # which makes blocks of four cells
    hidden, library = rng.normal(size=(N_CELLS, N_HIDDEN)), rng.uniform(3.0, 300.0, (N_CELLS, 1))
    observed = np.ones(N_CELLS)
    if request.param == "rna":
        layer = rng.normal(size=(N_GENES, N_HIDDEN)), rng.normal(size=N_GENES)
        arrays = (hidden, *layer, rng.normal(size=N_GENES), library, observed)
        return FactoredNegativeBinomial(*map(torch.as_tensor, arrays))
    rate = rng.normal(size=(N_PEAKS, N_HIDDEN)), rng.normal(-3.0, 1.0, N_PEAKS)
    inclusion = rng.normal(size=(N_PEAKS, N_HIDDEN)), rng.normal(1.0, 1.0, N_PEAKS)
    arrays = (hidden, *rate, *inclusion, library, observed)
    return FactoredZeroInflatedPoisson(*map(torch.as_tensor, arrays))


@pytest.fixture
def counts(rng, law) -> torch.Tensor:
    """Counts of the features of the law; one cell has none."""
    n_features = N_GENES if isinstance(law, FactoredNegativeBinomial) else N_PEAKS
    drawn = rng.poisson(0.5, (N_CELLS, n_features))
    drawn[2] = 0
    return torch.as_tensor(drawn)


def likelihood(
    law: Law,
    counts: torch.Tensor,
    device: str,
    dtype: torch.dtype,
    autocast: bool = False,
    for_mean: bool = False,
) -> list[torch.Tensor]:
    """Log-likelihood of each cell on a device, and the gradients of the parameters."""
    tensors = {f.name: getattr(law, f.name).to(device, dtype) for f in fields(law)}
    moved = replace(law, **tensors)
    parameters = [
        tensor.requires_grad_()
        for name, tensor in tensors.items()
        if name not in ("library", "observed")
    ]
    upstream = torch.linspace(-1, 2, N_CELLS, dtype=dtype, device=device)
    if for_mean:
        upstream = torch.full_like(upstream, -3 / N_CELLS)
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        on_device = read_counts(counts.to(device, dtype))
        log_prob = moved.log_prob(on_device, for_mean=for_mean)
        return [log_prob, *torch.autograd.grad(log_prob, parameters, upstream)]


@pytest.mark.parametrize("for_mean", [False, True])
def test_likelihood_and_gradients_are_those_of_the_cpu(law, counts, for_mean):
    found = likelihood(law, counts, CUDA, torch.float64, for_mean=for_mean)
    expected = likelihood(law, counts, "cpu", torch.float64, for_mean=for_mean)
    for value, of_cpu in zip(found, expected, strict=True):
        assert value.device.type == CUDA
        torch.testing.assert_close(value.cpu(), of_cpu, rtol=1e-10, atol=1e-10)


def test_likelihood_stays_in_full_precision_under_bf16_autocast(law, counts):
    found = likelihood(law, counts, CUDA, torch.float32, autocast=True)
    expected = likelihood(law, counts, CUDA, torch.float32)
    assert found[0].dtype == torch.float32
    # half precision would be off by 4e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# -- training -------------------------------------------------------------------------------------


WAYS = {
    "defaults": {},
    "sampled peaks": {"plan_kwargs": {"n_peaks_per_step": 40}},
    "half precision": {"precision": "bf16-mixed"},
    "fitted rates": {"plan_kwargs": {"fit_rates": True}},
    # which a CPU steps by blocks
    "few peaks in the cycle": {"plan_kwargs": {"n_cycle_peaks": 15}},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_training_lowers_the_loss_and_steps_whole_weights(make_mdata, register, train, options):
    mdata = register(make_mdata(), batch_key="batch")
    model = train(mdata, max_epochs=8, **ON_GPU, **options)
    history = {name: values.to_numpy(float) for name, values in model.history.items()}
    assert model.device.type == CUDA
    assert all(np.isfinite(values).all() for values in history.values())
    assert history["elbo_validation"][-1] < history["elbo_validation"][0]
    assert model.trainer.lightning_module.wide_gradients is None


NOTHING_DROPPED = {"dropout_rate": 0.0, "rna_input_dropout": 0.0, "atac_input_dropout": 0.0}


def subset(mdata: MuData, rows: np.ndarray) -> MuData:
    """Copy some cells, batches as plain strings: a view would keep categories without cells."""
    cells = mdata[rows].copy()
    cells.obs["batch"] = cells.obs["batch"].astype(str)
    return cells


@pytest.fixture
def replays(monkeypatch) -> list[RecordedStep]:
    """The recorded step of each replay."""
    replays, original = [], RecordedStep.replay

    def counting(step, minibatch):
        replays.append(step)
        return original(step, minibatch)

    monkeypatch.setattr(RecordedStep, "replay", counting)
    return replays


FORMS = {
    "defaults": {},
    "clipped": {"trainer": {"gradient_clip_val": 1.0}},
    "clipped by value": {
        "trainer": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    },
    "sampled peaks": {"plan": {"n_peaks_per_step": 150}},  # all of them
    "written out by the loader": {"trainer": {"load_sparse_tensor": False}},
    "worker processes": {"trainer": {"datasplitter_kwargs": {"num_workers": 1}}},
    "dispersion by batch": {"model": {"dispersion": "gene-batch"}},
    "TF-IDF": {"model": {"atac_target": "tfidf"}},
    "covariates in the encoders": {"model": {"encode_covariates": True}},
    "centred batches": {"model": {"center_batches": True}},
    "vectors of batches": {"model": {"batch_representation": "embedding"}},
    "scalar attention": {"model": {"self_attention": "scalar"}},
}


@pytest.mark.usefixtures("_means_for_draws")
@pytest.mark.filterwarnings("ignore:The '.*' does not have many workers:UserWarning")
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_recorded_steps_train_as_others_do(make_mdata, register, train, replays, form):
    latents = []
    for cuda_graph in (True, False):
        replays.clear()
        model = train(
            register(make_mdata(), batch_key="batch"),
            max_epochs=6,
            batch_size=64,
            architecture={**NOTHING_DROPPED, **form.get("model", {})},
            plan_kwargs={"cuda_graph": cuda_graph, **form.get("plan", {})},
            **form.get("trainer", {}),
            **ON_GPU,
        )
        # four full minibatches an epoch, the first three of which are taken as usual
        assert len(replays) == (6 * 4 - 3 if cuda_graph else 0)
        assert model.trainer.lightning_module.step_recorder is None  # it would hold memory
        latents.append(torch.as_tensor(model.get_latent_representation()))
    torch.testing.assert_close(*latents, rtol=1e-2, atol=1e-2 * float(latents[1].std()))


@pytest.mark.usefixtures("_means_for_draws")
@pytest.mark.parametrize("center_batches", [False, True])
def test_query_learns_by_recorded_steps_as_by_others(
    make_mdata, register, train, train_more, replays, center_batches
):
    atlas = make_mdata(n_batches=3, n_cells=480)
    is_new = (atlas.obs["batch"] == "batch_2").to_numpy()
    known, new = (subset(atlas, rows) for rows in (~is_new, is_new))
    architecture = {"encode_covariates": True, "center_batches": center_batches}
    reference = train(
        register(known, batch_key="batch"),
        architecture={**NOTHING_DROPPED, **architecture},
        **ON_GPU,
    )
    before = reference.module.state_dict()
    changes = []
    for cuda_graph in (True, False):
        replays.clear()
        model = SCMVPModel.load_query_data(new, reference, accelerator="gpu")
        untrained = {name: t.clone() for name, t in model.module.state_dict().items()}
        plan = {"cuda_graph": cuda_graph, "weight_decay": 0.5}
        train_more(model, max_epochs=6, batch_size=32, plan_kwargs=plan, **ON_GPU)
        assert bool(replays) == cuda_graph
        after = model.module.state_dict()
        changed = [name for name, t in untrained.items() if not torch.equal(after[name], t)]
        of_batches = ("shift.categories.0", "centering.means", "centering.n_cells")
        assert changed
        assert all(name.endswith(of_batches) for name in changed)
        # the rows of the reference hold still, its optimiser's decay and momentum included
        assert all(torch.equal(after[name][:2], before[name][:2]) for name in changed)
        changes.append({name: after[name] - untrained[name] for name in changed})
    by_replays, as_usual = changes
    assert by_replays.keys() == as_usual.keys()
    for name, change in as_usual.items():
        size = float(change.abs().max())
        torch.testing.assert_close(by_replays[name], change, rtol=1e-2, atol=1e-2 * size)


@pytest.mark.usefixtures("_means_for_draws")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning:lightning")
def test_recorded_steps_go_on_from_a_checkpoint_as_others_do(
    make_mdata, register, train, replays, tmp_path
):
    def trained(**options) -> SCMVPModel:
        return train(
            register(make_mdata(), batch_key="batch"),
            max_epochs=6,
            batch_size=64,
            architecture=NOTHING_DROPPED,
            **options,
            **ON_GPU,
        )

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=3, save_top_k=-1)
    trained(callbacks=[keep], enable_checkpointing=True)
    (path,) = tmp_path.glob("epoch=2*.ckpt")
    latents = []
    for cuda_graph in (True, False):
        replays.clear()
        model = trained(ckpt_path=str(path), plan_kwargs={"cuda_graph": cuda_graph})
        assert len(replays) == (3 * 4 - 3 if cuda_graph else 0)
        latents.append(torch.as_tensor(model.get_latent_representation()))
    torch.testing.assert_close(*latents, rtol=1e-2, atol=1e-2 * float(latents[1].std()))


class LossesOfReplays(Callback):
    """Losses of a recorded step on the same minibatch, and on one of more counts."""

    def on_train_epoch_end(self, trainer, pl_module):
        del trainer
        step = pl_module.step_recorder._recorded
        cells = {name: tensor.clone() for name, tensor in step._minibatch.items()}
        self.losses = [float(step.replay(cells).loss) for _ in range(3)]
        more = {**cells, REGISTRY.ATAC: 3 * cells[REGISTRY.ATAC]}
        self.loss_of_more = float(step.replay(more).loss)


def test_each_replay_draws_anew_and_reads_its_minibatch(make_mdata, register, train):
    seen = LossesOfReplays()
    train(register(make_mdata()), max_epochs=2, callbacks=[seen], **ON_GPU)
    assert len(set(seen.losses)) == 3
    assert seen.loss_of_more > 1.1 * max(seen.losses)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.parametrize("missing", ["missing_rna", "missing_atac"])
def test_training_on_minibatches_without_one_modality_stays_finite(
    make_mdata, register, train, missing
):
    mdata = register(make_mdata(**{missing: 0.9}))
    model = train(mdata, max_epochs=3, batch_size=8, **ON_GPU)
    assert all(np.isfinite(values.to_numpy(float)).all() for values in model.history.values())


@pytest.mark.filterwarnings("ignore:.* of 2000 features have no counts in `atac`:UserWarning")
def test_planted_types_are_found(register, train):
    mdata = register(synthetic(n_cells=1_200), batch_key="batch")
    wide = {"n_hidden": 128, "n_hidden_atac": 64, "n_shared": 256, "n_heads": 8}
    architecture = {"n_clusters": None, "n_latent": 20, **wide}
    model = train(mdata, max_epochs=120, architecture=architecture, **ON_GPU)
    # the bar of the CPU, where seeds had 0.92
    assert adjusted_rand_score(mdata.obs["cell_type"], model.predict_clusters()) > 0.8


# -- answers --------------------------------------------------------------------------------------


ANSWERS = {
    "get_latent_representation": {},
    "get_normalized_expression": {"return_numpy": True},
    "get_log_normalized_expression": {"return_numpy": True},
    "get_normalized_accessibility": {"return_numpy": True},
    "get_elbo": {"return_mean": False},
}


@pytest.fixture(scope="module")
def model(make_mdata, register, train) -> SCMVPModel:
    """Model on the GPU; tests leave it there."""
    return train(register(make_mdata(), batch_key="batch"), max_epochs=8, **ON_GPU)


@pytest.fixture
def _means_for_draws(monkeypatch):
    """Devices draw differently: stand the mean in for a draw from a posterior."""
    monkeypatch.setattr(Normal, "rsample", lambda self: self.loc)


def answer(model: SCMVPModel, method: str, cells: MuData | None = None) -> torch.Tensor:
    return torch.as_tensor(getattr(model, method)(cells, **ANSWERS[method])).cpu()


def assert_same(found: torch.Tensor, expected: torch.Tensor):
    size = float(expected.abs().mean())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * size)


@pytest.mark.usefixtures("_means_for_draws")
@pytest.mark.parametrize("method", ANSWERS)
def test_model_answers_on_the_gpu_as_on_the_cpu(model, method):
    found = answer(model, method)
    model.to_device("cpu")
    expected = answer(model, method)
    model.to_device(CUDA)
    assert_same(found, expected)


def test_prediction_from_a_calibrated_channel_is_that_of_the_cpu(model):
    def predicted() -> torch.Tensor:
        asked = {"from_modality": "atac", "return_numpy": True}
        return torch.as_tensor(model.get_normalized_expression(**asked))

    assert model.module.calibrations["atac"].slope != 1
    found = predicted()
    model.to_device("cpu")
    expected = predicted()
    model.to_device(CUDA)
    assert_same(found, expected)


def test_model_saved_on_the_gpu_loads_on_the_cpu_and_back(model, tmp_path):
    expected = answer(model, "get_latent_representation")
    for accelerator, device in (("cpu", "cpu"), ("gpu", CUDA)):
        folder = tmp_path / accelerator
        model.save(folder)
        model = SCMVPModel.load(folder, adata=model.adata, accelerator=accelerator)
        assert {p.device.type for p in model.module.parameters()} == {device}
        assert_same(answer(model, "get_latent_representation"), expected)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.parametrize("method", ANSWERS)
@pytest.mark.parametrize("missing", ["rna", "atac"])
def test_answers_for_cells_without_one_modality_are_finite(model, make_mdata, method, missing):
    cells = make_mdata()
    cells[missing].X = sparse.csr_matrix(cells[missing].shape, dtype=np.float32)
    assert answer(model, method, cells).isfinite().all()
