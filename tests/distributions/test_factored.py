"""Factored laws against the laws written out, their gradients, scipy and torch."""

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import gamma, nbinom, poisson
from torch.distributions import NegativeBinomial as TorchNegativeBinomial

from scmvp_scvi import _products
from scmvp_scvi._counts import Counts, DenseCounts, SparseCounts
from scmvp_scvi._feature_sample import FeatureSample, inclusion_probabilities, sample_features
from scmvp_scvi.distributions import (
    FactoredNegativeBinomial,
    FactoredZeroInflatedPoisson,
    _blockwise,
    _negative_binomial_sum,
)
from scmvp_scvi.distributions._negative_binomial_sum import negative_binomial_sum

EXACT = {"rtol": 1e-10, "atol": 1e-10}
N_CELLS, N_HIDDEN = 6, 3
N_PEAKS = 4_500  # two blocks of 2,048 peaks and one that is not full
N_GENES = 40
PEAK_PARAMETERS = ("rate_weight", "rate_bias", "inclusion_weight", "inclusion_bias")


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(array, dtype=torch.float64)


def sparse_counts(counts: np.ndarray) -> SparseCounts:
    return SparseCounts.from_tensor(tensor(counts))


@pytest.fixture
def atac_law(rng) -> FactoredZeroInflatedPoisson:
    return FactoredZeroInflatedPoisson(
        hidden=tensor(rng.normal(size=(N_CELLS, N_HIDDEN))),
        rate_weight=tensor(rng.normal(size=(N_PEAKS, N_HIDDEN))),
        rate_bias=tensor(rng.normal(-3.0, 1.0, N_PEAKS)),
        inclusion_weight=tensor(rng.normal(size=(N_PEAKS, N_HIDDEN))),
        inclusion_bias=tensor(rng.normal(1.0, 1.0, N_PEAKS)),
        library=tensor(rng.uniform(3.0, 20.0, (N_CELLS, 1))),
        observed=torch.ones(N_CELLS, dtype=torch.float64),
    )


@pytest.fixture(params=[SparseCounts.from_tensor, DenseCounts], ids=["sparse", "written out"])
def read(request) -> Callable[[torch.Tensor], Counts]:
    """Form of the counts: as a CPU reads them, and as an accelerator does."""
    return request.param


@pytest.fixture
def atac_counts(rng, read) -> Counts:
    return read(tensor(rng.poisson(0.3, (N_CELLS, N_PEAKS))))


@pytest.fixture
def rna_law(rng, monkeypatch) -> FactoredNegativeBinomial:
    # one block, and one that is not full, in either form
    monkeypatch.setattr(_blockwise, "_BLOCK_SIZE_CPU", N_GENES)
    monkeypatch.setattr(_blockwise, "_USUAL_CELLS", 4)
    monkeypatch.setattr(_negative_binomial_sum, "_CELLS_PER_BLOCK", 4)
    return FactoredNegativeBinomial(
        hidden=tensor(rng.normal(size=(N_CELLS, N_HIDDEN))),
        weight=tensor(rng.normal(size=(N_GENES, N_HIDDEN))),
        bias=tensor(rng.normal(size=N_GENES)),
        log_inverse_dispersion=tensor(rng.normal(size=N_GENES)),
        library=tensor(rng.uniform(30.0, 300.0, (N_CELLS, 1))),
        observed=torch.ones(N_CELLS, dtype=torch.float64),
    )


@pytest.fixture
def rna_counts(rng, read) -> Counts:
    return read(tensor(rng.poisson(1.0, (N_CELLS, N_GENES))))


def parameters_of(law) -> list[torch.Tensor]:
    """The learned tensors of a law, which from here on record gradients."""
    names = [f.name for f in fields(law) if f.name not in ("library", "observed")]
    return [getattr(law, name).requires_grad_() for name in names]


def in_float32(law, counts: Counts):
    tensors = {f.name: getattr(law, f.name).detach().float() for f in fields(law)}
    return replace(law, **tensors), counts.with_values(counts.values.float())


def plain_log_prob(law, counts: Counts) -> torch.Tensor:
    return law.distribution().log_prob(counts.to_dense()).sum(-1) * law.observed


def sampled_log_prob(law, counts: Counts, sample: FeatureSample) -> torch.Tensor:
    """Estimate of the log-likelihood from the peaks of a sample."""
    chosen = counts.select_columns(sample.columns)
    return law.at(sample.columns).log_prob(chosen, sample.weights)


def assert_gradients_equal_the_plain_ones(law, counts: Counts, upstream: torch.Tensor):
    parameters = parameters_of(law)
    gradients = torch.autograd.grad(law.log_prob(counts), parameters, upstream)
    plain = torch.autograd.grad(plain_log_prob(law, counts), parameters, upstream)
    for gradient, expected in zip(gradients, plain, strict=True):
        assert expected.any()
        torch.testing.assert_close(gradient, expected, **EXACT)


UPSTREAMS = {
    "uniform": torch.full((N_CELLS,), -0.25, dtype=torch.float64),
    "different for each cell": torch.linspace(-1, 2, N_CELLS, dtype=torch.float64),
    "zero in the first cell": torch.arange(N_CELLS, dtype=torch.float64),
}


# --- blocks


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
def test_blocks_of_columns_hold_the_counts_of_the_matrix(monkeypatch, rng, index_dtype):
    monkeypatch.setattr(_blockwise, "_BLOCK_SIZE_CPU", 4)
    matrix = rng.poisson(0.4, (N_CELLS, 11)).astype(np.float32)
    matrix[:, 4:8] = 0  # a block without counts
    dense = sparse_counts(matrix)
    counts = replace(
        dense, columns=dense.columns.to(index_dtype), offsets=dense.offsets.to(index_dtype)
    )
    found, widths = np.zeros_like(matrix), []
    for block in _blockwise.column_blocks(counts):
        columns = np.arange(block.columns.start, block.columns.stop)
        found[block.rows, columns.repeat(block.per_column)] = block.values
        widths.append(len(columns))
    np.testing.assert_array_equal(found, matrix)
    assert widths == [4, 4, 3]


# --- zero-inflated Poisson


def test_zip_log_prob_is_the_sum_of_the_written_out_law(atac_law, atac_counts):
    plain = plain_log_prob(atac_law, atac_counts)
    torch.testing.assert_close(atac_law.log_prob(atac_counts), plain, **EXACT)


@pytest.mark.parametrize("upstream", UPSTREAMS.values(), ids=UPSTREAMS)
def test_zip_gradients_are_those_of_the_written_out_law(atac_law, atac_counts, upstream):
    assert_gradients_equal_the_plain_ones(atac_law, atac_counts, upstream)


@pytest.mark.parametrize("upstream", UPSTREAMS.values(), ids=UPSTREAMS)
def test_zip_gradients_hold_with_masked_cells(atac_law, atac_counts, upstream):
    law = replace(atac_law, observed=tensor(np.array([0, 1, 1, 0, 1, 1])))
    assert_gradients_equal_the_plain_ones(law, atac_counts, upstream)


@pytest.mark.parametrize("upstream", UPSTREAMS.values(), ids=UPSTREAMS)
def test_zip_law_holds_for_empty_cells_and_blocks_without_counts(rng, atac_law, upstream):
    counts = rng.poisson(0.3, (N_CELLS, N_PEAKS))
    counts[[0, 3, 5]] = 0
    counts[:, 2_048:4_096] = 0
    sparse = sparse_counts(counts)
    plain = plain_log_prob(atac_law, sparse)
    torch.testing.assert_close(atac_law.log_prob(sparse), plain, **EXACT)
    assert_gradients_equal_the_plain_ones(atac_law, sparse, upstream)


def test_zip_law_holds_for_a_minibatch_without_any_count(atac_law):
    empty = sparse_counts(np.zeros((N_CELLS, N_PEAKS)))
    plain = plain_log_prob(atac_law, empty)
    torch.testing.assert_close(atac_law.log_prob(empty), plain, **EXACT)
    assert_gradients_equal_the_plain_ones(atac_law, empty, UPSTREAMS["uniform"])


@pytest.mark.parametrize("block_size", [1, 7, 4_500, 10_000])
def test_zip_block_size_changes_neither_value_nor_gradient(
    monkeypatch, atac_law, atac_counts, block_size
):
    monkeypatch.setattr(_blockwise, "_BLOCK_SIZE_CPU", block_size)
    law = replace(atac_law, **{name: getattr(atac_law, name)[-300:] for name in PEAK_PARAMETERS})
    counts = sparse_counts(atac_counts.to_dense()[:, -300:])
    torch.testing.assert_close(law.log_prob(counts), plain_log_prob(law, counts), **EXACT)
    assert_gradients_equal_the_plain_ones(law, counts, UPSTREAMS["uniform"])


@pytest.mark.usefixtures("two_threads")
def test_zip_blocks_side_by_side_are_the_law_and_its_gradient(monkeypatch, atac_law, atac_counts):
    monkeypatch.setattr(_blockwise, "_BLOCK_SIZE_CPU", 100)  # 45 blocks
    plain = plain_log_prob(atac_law, atac_counts)
    torch.testing.assert_close(atac_law.log_prob(atac_counts), plain, **EXACT)
    assert_gradients_equal_the_plain_ones(atac_law, atac_counts, UPSTREAMS["uniform"])


def test_zip_columns_need_no_order_within_a_row(rng, atac_law):
    atac_counts = sparse_counts(rng.poisson(0.3, (N_CELLS, N_PEAKS)))
    order = np.lexsort((rng.random(len(atac_counts.values)), atac_counts.rows))
    shuffled = replace(
        atac_counts, values=atac_counts.values[order], columns=atac_counts.columns[order]
    )
    expected = plain_log_prob(atac_law, atac_counts)
    torch.testing.assert_close(atac_law.log_prob(shuffled), expected, **EXACT)


def test_zip_gradient_passes_gradcheck(rng):
    counts = sparse_counts(np.array([[0, 2, 0], [1, 0, 0]]))
    shapes = [(2, 2), (3, 2), (3,), (3, 2), (3,)]
    parameters = [tensor(rng.normal(size=shape)).requires_grad_() for shape in shapes]
    library, observed = tensor(np.array([[2.0], [5.0]])), torch.ones(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *p: FactoredZeroInflatedPoisson(*p, library, observed).log_prob(counts), parameters
    )


def test_zip_log_prob_in_float32_is_close_to_double_precision(atac_law, atac_counts):
    single, single_counts = in_float32(atac_law, atac_counts)
    log_prob, expected = single.log_prob(single_counts), atac_law.log_prob(atac_counts)
    torch.testing.assert_close(log_prob.double(), expected, rtol=1e-6, atol=0)


def test_zip_gradients_in_float32_are_close_to_double_precision(atac_law, atac_counts):
    single, single_counts = in_float32(atac_law, atac_counts)
    pairs = zip(parameters_of(single), parameters_of(atac_law), strict=True)
    single.log_prob(single_counts).sum().backward()
    plain_log_prob(atac_law, atac_counts).sum().backward()
    for parameter, exact in pairs:
        torch.testing.assert_close(parameter.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)


def test_zip_can_be_differentiated_only_once(atac_law, atac_counts):
    parameters = parameters_of(atac_law)
    total = atac_law.log_prob(atac_counts).square().sum()
    (gradient, *_) = torch.autograd.grad(total, parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.fixture
def gradient_wishes(monkeypatch) -> list[bool]:
    """Record of whether each sweep over the features was asked to form gradients."""
    wishes, original = [], _blockwise._run

    def recording(sweep, parameters, upstream, counts):
        wishes.append(upstream is not None)
        return original(sweep, parameters, upstream, counts)

    monkeypatch.setattr(_blockwise, "_run", recording)
    return wishes


def test_zip_forms_no_gradient_where_no_parameter_wants_one(
    gradient_wishes, atac_law, atac_counts
):
    atac_law.log_prob(atac_counts)
    assert gradient_wishes == [False]


def test_zip_forms_no_gradient_under_no_grad(gradient_wishes, atac_law, atac_counts):
    parameters_of(atac_law)
    with torch.no_grad():
        atac_law.log_prob(atac_counts)
    assert gradient_wishes == [False]


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_accelerator_gives_nan_for_another_gradient_than_the_promised_mean(
    request, read, monkeypatch, modality
):
    law, counts = (request.getfixturevalue(f"{modality}_{name}") for name in ("law", "counts"))
    parameters = parameters_of(law)
    monkeypatch.setattr(_blockwise, "_is_host", lambda tensor: False)
    gradients = torch.autograd.grad(law.log_prob(counts, for_mean=True)[1], parameters)
    assert all(gradient.isnan().all() for gradient in gradients)


@pytest.mark.parametrize(("for_mean", "wishes"), [(True, [True]), (False, [False, True])])
@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_accelerator_sweeps_once_for_a_promised_mean_however_the_loss_is_scaled(
    request, read, gradient_wishes, monkeypatch, modality, for_mean, wishes
):
    law, counts = (request.getfixturevalue(f"{modality}_{name}") for name in ("law", "counts"))
    parameters = parameters_of(law)
    expected = torch.autograd.grad(-3 * law.log_prob(counts).mean(), parameters)
    gradient_wishes.clear()
    monkeypatch.setattr(_blockwise, "_is_host", lambda tensor: False)
    loss = -3 * law.log_prob(counts, for_mean=for_mean).mean()
    for gradient, plain in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
        torch.testing.assert_close(gradient, plain, **EXACT)
    assert gradient_wishes == wishes


def test_zip_sweeps_once_under_a_mean_over_cells(gradient_wishes, atac_law, atac_counts):
    parameters_of(atac_law)
    (-atac_law.log_prob(atac_counts)).mean().backward()
    assert gradient_wishes == [True]


def test_zip_backward_can_be_repeated_on_a_retained_graph(atac_law, atac_counts):
    parameters = parameters_of(atac_law)
    loss = (-atac_law.log_prob(atac_counts)).mean()
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), first, **EXACT)


@pytest.mark.parametrize("has_onednn", [True, False])
@pytest.mark.parametrize("modality", ["atac", "rna"])
def test_likelihood_stays_in_full_precision_under_bf16_autocast(
    request, read, monkeypatch, modality, has_onednn
):
    if not has_onednn:  # as on an accelerator
        monkeypatch.setattr(_products, "_suits_onednn", lambda *tensors: False)
    law, counts = (request.getfixturevalue(f"{modality}_{part}") for part in ("law", "counts"))
    law, counts = in_float32(law, counts)
    parameters = parameters_of(law)
    expected = torch.autograd.grad(-law.log_prob(counts).mean(), parameters)
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = law.log_prob(counts)
        found = torch.autograd.grad(-log_prob.mean(), parameters)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("modality", ["atac", "rna"])
def test_a_half_precision_hidden_state_gets_a_gradient_of_its_own_type(request, read, modality):
    law, counts = (request.getfixturevalue(f"{modality}_{part}") for part in ("law", "counts"))
    law, counts = in_float32(law, counts)
    half = law.hidden.bfloat16().requires_grad_()
    single = half.detach().float().requires_grad_()
    for hidden in (half, single):
        (-replace(law, hidden=hidden).log_prob(counts)).mean().backward()
    torch.testing.assert_close(half.grad, single.grad.bfloat16())


@pytest.mark.parametrize("modality", ["atac", "rna"])
def test_stored_zeros_change_neither_value_nor_gradient(rng, request, read, modality):
    law, counts = (request.getfixturevalue(f"{modality}_{part}") for part in ("law", "counts"))
    dense = counts.to_dense()
    everything = SparseCounts.from_tensor(torch.ones_like(dense)).with_values(dense.flatten())
    parameters = parameters_of(law)
    results = [
        (value := law.log_prob(c), torch.autograd.grad(-value.mean(), parameters))
        for c in (counts, everything)
    ]
    torch.testing.assert_close(results[0], results[1], **EXACT)


def test_zip_gives_zero_for_masked_cells_and_leaves_the_others(atac_law, atac_counts):
    observed = tensor(np.array([0, 1, 1, 0, 1, 1]))
    masked = replace(atac_law, observed=observed).log_prob(atac_counts)
    torch.testing.assert_close(masked, atac_law.log_prob(atac_counts) * observed, **EXACT)
    assert (masked[observed == 0] == 0).all()


def test_zip_of_a_few_peaks_is_the_law_of_their_columns(atac_law, atac_counts):
    chosen = torch.tensor([2, 7, 2_400])
    expected = atac_law.distribution(chosen).log_prob(atac_counts.to_dense()[:, chosen]).sum(-1)
    found = atac_law.at(chosen).log_prob(atac_counts.select_columns(chosen))
    torch.testing.assert_close(found, expected, **EXACT)


def test_zip_sum_over_a_sample_is_unbiased_in_value_and_gradient(atac_law, atac_counts):
    # every peak is drawn with its own probability: summing each peak's own sample over the peaks,
    # weighted by how often it is drawn, gives back the whole
    abundance = atac_counts.to_dense().sum(0)
    probabilities = inclusion_probabilities(abundance, 300)
    parameters = parameters_of(atac_law)
    whole = atac_law.log_prob(atac_counts)
    expected = [whole, *torch.autograd.grad(-whole.mean(), parameters)]
    mean = [torch.zeros_like(part) for part in expected]
    torch.manual_seed(0)
    n_draws = 400
    square = torch.zeros_like(whole)
    for _ in range(n_draws):
        sample = sample_features(probabilities, 300)
        value = sampled_log_prob(atac_law, atac_counts, sample)
        gradients = torch.autograd.grad(-value.mean(), parameters)
        dense = [g.to_dense() if g.is_sparse else g for g in gradients]
        for total, part in zip(mean, [value.detach(), *dense], strict=True):
            total += part / n_draws
        square += (value.detach() - whole.detach()).square() / n_draws
    error = square.sqrt() / n_draws**0.5
    assert ((mean[0] - whole).abs() < 4 * error).all()
    assert (error < 0.02 * whole.abs()).all()
    # the gradient of the hidden state sums over all peaks, as the value does
    torch.testing.assert_close(mean[1], expected[1], rtol=0, atol=0.05 * float(expected[1].std()))


def test_gradients_of_a_sample_hold_the_sampled_rows_alone(atac_law, atac_counts):
    sample = sample_features(torch.full((N_PEAKS,), 0.01, dtype=torch.float64), 45)
    parameters = parameters_of(atac_law)
    value = sampled_log_prob(atac_law, atac_counts, sample)
    _, *gradients = torch.autograd.grad(-value.mean(), parameters)
    for gradient in gradients:
        assert gradient.is_sparse
        torch.testing.assert_close(gradient.coalesce().indices()[0], sample.columns)


@pytest.mark.parametrize("features", [slice(5, 9), torch.tensor([2_400, 3, 3])])
def test_zip_of_chosen_peaks_has_the_columns_of_the_whole(atac_law, features):
    whole, chosen = atac_law.distribution(), atac_law.distribution(features)
    torch.testing.assert_close(atac_law.scale(features), atac_law.scale()[:, features])
    for name in ("rate", "inclusion_logits", "scale"):
        torch.testing.assert_close(getattr(chosen, name), getattr(whole, name)[:, features])


def test_zip_rate_and_inclusion_follow_their_equations_in_numpy(atac_law):
    law = {f.name: getattr(atac_law, f.name).numpy() for f in fields(atac_law)}
    scale = expit(law["hidden"] @ law["rate_weight"].T + law["rate_bias"])
    tau = expit(law["hidden"] @ law["inclusion_weight"].T + law["inclusion_bias"])
    written_out = atac_law.distribution()
    np.testing.assert_allclose(written_out.scale, scale, rtol=1e-10)
    np.testing.assert_allclose(written_out.rate, law["library"] * scale, rtol=1e-10)
    np.testing.assert_allclose(written_out.inclusion_probs, tau, rtol=1e-10)


@pytest.mark.parametrize("size", [-1e4, 1e4])
@pytest.mark.parametrize("library", [1e-4, 1e4])
def test_zip_is_finite_at_extreme_hidden_values_in_float32(atac_law, atac_counts, size, library):
    law, counts = in_float32(atac_law, atac_counts)
    hidden, libraries = torch.full((N_CELLS, N_HIDDEN), size), torch.full((N_CELLS, 1), library)
    law = replace(law, hidden=hidden, library=libraries)
    parameters, log_prob = parameters_of(law), law.log_prob(counts)
    assert log_prob.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(log_prob.sum(), parameters))


# --- negative binomial


def test_nb_log_prob_matches_scipy(rna_law, rna_counts):
    mean = (rna_law.library * rna_law.scale()).numpy()
    theta = rna_law.log_inverse_dispersion.exp().numpy()
    expected = nbinom(theta, theta / (theta + mean)).logpmf(rna_counts.to_dense()).sum(-1)
    np.testing.assert_allclose(rna_law.log_prob(rna_counts), expected, rtol=1e-10)


def test_nb_log_prob_matches_the_written_out_law_of_scvi(rna_law, rna_counts):
    plain = plain_log_prob(rna_law, rna_counts)  # scvi adds 1e-8 within its logarithms
    torch.testing.assert_close(rna_law.log_prob(rna_counts), plain, rtol=1e-5, atol=0)


@pytest.mark.parametrize("upstream", UPSTREAMS.values(), ids=UPSTREAMS)
def test_nb_gradients_are_those_of_scvi(rna_law, rna_counts, upstream):
    parameters = parameters_of(rna_law)
    gradients = torch.autograd.grad(rna_law.log_prob(rna_counts), parameters, upstream)
    plain = torch.autograd.grad(plain_log_prob(rna_law, rna_counts), parameters, upstream)
    torch.testing.assert_close(gradients, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("upstream", UPSTREAMS.values(), ids=UPSTREAMS)
def test_nb_gradients_are_exactly_those_of_torch(rna_law, rna_counts, upstream):
    parameters = parameters_of(rna_law)
    gradients = torch.autograd.grad(rna_law.log_prob(rna_counts), parameters, upstream)
    log_theta = rna_law.log_inverse_dispersion
    log_odds = (rna_law.library * rna_law.scale()).log() - log_theta
    by_torch = TorchNegativeBinomial(log_theta.exp(), logits=log_odds)
    plain = by_torch.log_prob(rna_counts.to_dense()).sum(-1)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(plain, parameters, upstream), **EXACT
    )


@pytest.mark.parametrize("n_rows", [1, 2, 100])
@pytest.mark.parametrize("empty", [[], [0, 1, 5]], ids=["counts", "cells without"])
@pytest.mark.parametrize("dispersion_shape", [(N_GENES,), (N_CELLS, N_GENES)])
def test_nb_block_size_changes_neither_value_nor_gradient(
    monkeypatch, rng, read, rna_law, rna_counts, n_rows, empty, dispersion_shape
):
    counts = rna_counts.to_dense()
    counts[empty] = 0
    rna_counts = read(counts)
    law = replace(rna_law, log_inverse_dispersion=tensor(rng.normal(size=dispersion_shape)))
    parameters, upstream = parameters_of(law), UPSTREAMS["different for each cell"]

    def value_and_gradients() -> list[torch.Tensor]:
        log_prob = law.log_prob(rna_counts)
        return [log_prob, *torch.autograd.grad(log_prob, parameters, upstream)]

    expected = value_and_gradients()
    monkeypatch.setattr(_blockwise, "_USUAL_CELLS", n_rows)
    monkeypatch.setattr(_negative_binomial_sum, "_CELLS_PER_BLOCK", n_rows)
    if isinstance(rna_counts, DenseCounts):
        assert len(_blockwise.cell_blocks(rna_counts)) == -(-N_CELLS // n_rows)
    for found, value in zip(value_and_gradients(), expected, strict=True):
        torch.testing.assert_close(found, value, **EXACT)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dispersion_shape", [(N_GENES,), (N_CELLS, N_GENES)])
def test_nb_blocks_side_by_side_are_those_one_after_another(
    monkeypatch, rng, rna_law, dispersion_shape
):
    counts = sparse_counts(rng.poisson(1.0, (N_CELLS, N_GENES)))
    law = replace(rna_law, log_inverse_dispersion=tensor(rng.normal(size=dispersion_shape)))
    parameters, found = parameters_of(law), []
    for n_cells in (N_CELLS, 2):  # one block on this thread, three on two others
        monkeypatch.setattr(_negative_binomial_sum, "_CELLS_PER_BLOCK", n_cells)
        log_prob = law.log_prob(counts)
        upstream = UPSTREAMS["different for each cell"]
        found.append([log_prob, *torch.autograd.grad(log_prob, parameters, upstream)])
    torch.testing.assert_close(found[1], found[0], **EXACT)


@pytest.mark.parametrize("modality", ["rna", "atac"])
@pytest.mark.parametrize("what", ["cells", "features"])
def test_counts_that_the_law_is_not_of_are_refused(request, rng, read, modality, what):
    law = request.getfixturevalue(f"{modality}_law")
    n_features = N_GENES if modality == "rna" else N_PEAKS
    shape = N_CELLS + (what == "cells"), n_features + (what == "features")
    with pytest.raises(ValueError, match="of the cells and features of the law"):
        law.log_prob(read(tensor(rng.poisson(1.0, shape))))


def test_a_single_library_for_all_cells_is_refused(rna_counts):
    with pytest.raises(ValueError, match=r"library of shape \(1, 1\)"):
        _blockwise.check_shape(rna_counts, N_CELLS, N_GENES, torch.ones(1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("theta", [10.0, 999.0, 1_001.0, 1e5, 1e8])
def test_gamma_terms_keep_their_digits_whatever_theta(dtype, theta):
    values = torch.tensor([0, 1, 2, 17, 5_000], dtype=dtype)
    log_theta = torch.full_like(values, math.log(theta))
    terms, slopes = _negative_binomial_sum._gamma_terms(values, log_theta, with_slopes=True)
    # of whole x the term is log(theta / 1 (theta + 1) / 2 ... (theta + x - 1) / x)
    own = math.exp(float(log_theta[0]))
    factors = [own + np.arange(int(x)) for x in values]
    expected = [math.fsum(np.log(some / np.arange(1, len(some) + 1))) for some in factors]
    by_log = [math.fsum(own / some) for some in factors]
    # float32 keeps log(theta) itself to seven digits, and below a thousand the difference to four
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5 if theta > 1_000 else 2e-3
    np.testing.assert_allclose(terms, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(slopes, by_log, rtol=tolerance, atol=tolerance)


# the terms of a cell of a million counts add up to 1e7, and cancel but for some hundreds of nats
@pytest.mark.parametrize("theta", [0.3, 30.0, 900.0])
def test_nb_of_deep_cells_keeps_its_digits_in_float32(rng, read, theta):
    log_scale = tensor(rng.normal(size=(N_CELLS, N_GENES))).log_softmax(-1).float()
    mean = 1e6 * log_scale.double().exp().numpy()
    counts = tensor(rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape))).float()
    expected = nbinom(theta, theta / (theta + mean)).logpmf(counts.numpy()).sum(1)
    log_theta, library = torch.full((N_GENES,), math.log(theta)), torch.full((N_CELLS, 1), 1e6)
    found = negative_binomial_sum(log_scale, log_theta, library, torch.ones(N_CELLS), read(counts))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1)


def test_half_counts_have_the_law_of_torch_sparse_and_written_out(rng, read, atac_law, rna_law):
    atac, rna = (tensor(rng.poisson(0.3, (N_CELLS, n)) / 2) for n in (N_PEAKS, N_GENES))
    found = atac_law.log_prob(read(atac))
    torch.testing.assert_close(found, plain_log_prob(atac_law, DenseCounts(atac)), **EXACT)
    log_odds = (rna_law.library * rna_law.scale()).log() - rna_law.log_inverse_dispersion
    by_torch = TorchNegativeBinomial(
        rna_law.log_inverse_dispersion.exp(), logits=log_odds, validate_args=False
    )
    expected = by_torch.log_prob(rna).sum(-1)
    torch.testing.assert_close(rna_law.log_prob(read(rna)), expected, **EXACT)


def test_zip_of_deep_cells_keeps_its_digits_in_float32(rng, atac_law, read):
    law = replace(atac_law, library=torch.full_like(atac_law.library, 5e3))
    written = law.distribution()
    included = rng.random(written.rate.shape) < written.inclusion_probs.numpy()
    values = tensor(rng.poisson(written.rate) * included)
    assert values.sum(1).min() > 1e6
    single, counts = in_float32(law, read(values))
    # the plain law of the parameters as single precision holds them, in double precision; a logit
    # that is off by a unit in the last place, of a million counts, is half a nat
    same = replace(single, **{f.name: getattr(single, f.name).double() for f in fields(single)})
    expected = plain_log_prob(same, read(values))
    np.testing.assert_allclose(single.log_prob(counts), expected, rtol=0, atol=1.5)


def test_nb_takes_a_dispersion_for_each_cell(rng, rna_law, rna_counts):
    law = replace(rna_law, log_inverse_dispersion=tensor(rng.normal(size=(N_CELLS, N_GENES))))
    for i in range(N_CELLS):
        theta, mean = law.log_inverse_dispersion[i].exp(), (law.library * law.scale())[i]
        expected = nbinom(theta, theta / (theta + mean)).logpmf(rna_counts.to_dense()[i]).sum()
        np.testing.assert_allclose(law.log_prob(rna_counts)[i], expected, rtol=1e-10)


@pytest.mark.parametrize("upstream", UPSTREAMS.values(), ids=UPSTREAMS)
def test_nb_gradients_of_a_dispersion_for_each_cell_are_those_of_torch(
    rng, rna_law, rna_counts, upstream
):
    log_theta = tensor(rng.normal(size=(N_CELLS, N_GENES)))
    law = replace(rna_law, log_inverse_dispersion=log_theta)
    parameters = parameters_of(law)
    gradients = torch.autograd.grad(law.log_prob(rna_counts), parameters, upstream)
    log_odds = (law.library * law.scale()).log() - log_theta
    by_torch = TorchNegativeBinomial(log_theta.exp(), logits=log_odds)
    plain = by_torch.log_prob(rna_counts.to_dense()).sum(-1)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(plain, parameters, upstream), **EXACT
    )


def test_nb_gradient_passes_gradcheck(rng):
    counts = sparse_counts(np.array([[0, 2, 0], [1, 0, 0]]))
    shapes = [(2, 2), (3, 2), (3,), (3,)]
    parameters = [tensor(rng.normal(size=shape)).requires_grad_() for shape in shapes]
    library, observed = tensor(np.array([[2.0], [5.0]])), torch.ones(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *p: FactoredNegativeBinomial(*p, library, observed).log_prob(counts), parameters
    )


def test_nb_can_be_differentiated_only_once(rna_law, rna_counts):
    parameters = parameters_of(rna_law)
    total = rna_law.log_prob(rna_counts).square().sum()
    (gradient, *_) = torch.autograd.grad(total, parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_nb_of_empty_cells_matches_scipy(rna_law):
    counts = np.zeros((N_CELLS, N_GENES))
    mean = (rna_law.library * rna_law.scale()).numpy()
    theta = rna_law.log_inverse_dispersion.exp().numpy()
    expected = nbinom(theta, theta / (theta + mean)).logpmf(counts).sum(-1)
    np.testing.assert_allclose(rna_law.log_prob(sparse_counts(counts)), expected, rtol=1e-10)


def test_nb_mean_and_variance_follow_the_gamma_poisson_law(rna_law):
    written_out, theta = rna_law.distribution(), rna_law.log_inverse_dispersion.exp()
    mean = rna_law.library * rna_law.scale()
    torch.testing.assert_close(written_out.mean, mean)
    torch.testing.assert_close(written_out.variance, mean + mean.square() / theta)


def test_nb_scale_is_the_softmax_over_all_genes(rna_law):
    scores = rna_law.hidden.numpy() @ rna_law.weight.numpy().T + rna_law.bias.numpy()
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(rna_law.scale(), expected, rtol=1e-10)


@pytest.mark.parametrize("features", [slice(5, 9), torch.tensor([30, 2, 2])])
@pytest.mark.parametrize("dispersion_shape", [(N_GENES,), (N_CELLS, N_GENES)])
def test_nb_of_chosen_genes_has_the_columns_of_the_whole(rng, rna_law, features, dispersion_shape):
    law = replace(rna_law, log_inverse_dispersion=tensor(rng.normal(size=dispersion_shape)))
    whole, chosen = law.distribution(), law.distribution(features)
    torch.testing.assert_close(law.scale(features), law.scale()[:, features])
    for name in ("mu", "theta", "scale"):
        torch.testing.assert_close(getattr(chosen, name), getattr(whole, name)[:, features])


# rates of counts, on a grid of their logarithms
RATES = np.geomspace(1e-80, 1e3, 20_000)[:, None, None]
FEW_GENES = slice(0, 5)


@pytest.fixture
def shallow_rna_law(rna_law) -> FactoredNegativeBinomial:
    return replace(rna_law, library=rna_law.library / 30)


@pytest.fixture
def known_counts(rng) -> np.ndarray:
    return rng.poisson(1.0, (N_CELLS, N_GENES))


def mean_given(law, counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of values of the Gamma rates of a few genes given Poisson counts, by integration."""
    written_out = law.distribution(FEW_GENES)
    mean, theta = written_out.mean.numpy(), written_out.theta.numpy()
    weights = gamma(theta, scale=mean / theta).pdf(RATES) * RATES
    weights = weights * poisson(RATES).pmf(counts[:, FEW_GENES])
    return (values * weights).sum(0) / weights.sum(0)


def test_nb_of_known_counts_has_the_mean_of_its_gamma_rates_given_them(
    shallow_rna_law, known_counts
):
    expected = mean_given(shallow_rna_law, known_counts, RATES)
    scale = shallow_rna_law.given(tensor(known_counts)).scale(FEW_GENES)
    np.testing.assert_allclose(shallow_rna_law.library * scale, expected, rtol=1e-4)


def test_nb_of_known_counts_has_the_logarithms_of_further_counts_given_them(
    shallow_rna_law, known_counts
):
    depth = shallow_rna_law.library.mean().item()
    law = replace(shallow_rna_law, library=torch.full((N_CELLS, 1), depth, dtype=torch.float64))
    further = np.arange(1, 150)[:, None]
    # of counts as deep as the known ones, whose rates are the same
    chances = poisson(RATES[:, 0, 0]).pmf(further)
    logs = (np.log1p(50.0 / depth * further) * chances).sum(0)[:, None, None]
    expected = mean_given(law, known_counts, logs)
    found = law.given(tensor(known_counts)).expected_log1p(FEW_GENES, depth, 50.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("features", [slice(5, 9), torch.tensor([30, 2, 2])])
@pytest.mark.parametrize("dispersion_shape", [(N_GENES,), (N_CELLS, N_GENES)])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_nb_of_known_counts_has_the_columns_of_the_whole_in_either_form_of_the_counts(
    rng, rna_law, known_counts, features, dispersion_shape
):
    law = replace(rna_law, log_inverse_dispersion=tensor(rng.normal(size=dispersion_shape)))
    counts = tensor(known_counts)
    whole = law.given(counts).scale()
    for form in (counts, counts.to_sparse_csr(), counts.to_sparse_csc()):
        torch.testing.assert_close(law.given(form).scale(features), whole[:, features])


def test_nb_of_cells_without_known_counts_is_what_it_was(rna_law, known_counts):
    observed = tensor(np.array([1, 0, 0, 1, 1, 0]))
    counts = tensor(known_counts) * observed[:, None]
    law, without = replace(rna_law, observed=observed), observed == 0
    # as they are decoded in another batch, with its own profile and dispersion
    there = replace(law, bias=law.bias.flip(0), log_inverse_dispersion=law.bias)
    given = replace(law.given(counts), law=there)
    torch.testing.assert_close(given.scale()[without], there.scale()[without])
    logs = (part.expected_log1p(slice(None), 100.0, 1e4)[without] for part in (given, there))
    torch.testing.assert_close(*logs)


def test_nb_gives_zero_for_masked_cells_and_leaves_the_others(rna_law, rna_counts):
    observed = tensor(np.array([1, 0, 0, 1, 1, 0]))
    masked = replace(rna_law, observed=observed).log_prob(rna_counts)
    torch.testing.assert_close(masked, rna_law.log_prob(rna_counts) * observed, **EXACT)
    assert (masked[observed == 0] == 0).all()


def test_nb_masked_cells_pass_no_gradient_to_their_hidden_values(rna_law, rna_counts):
    observed = tensor(np.array([1, 0, 0, 1, 1, 0]))
    hidden = rna_law.hidden.clone().requires_grad_()
    replace(rna_law, hidden=hidden, observed=observed).log_prob(rna_counts).sum().backward()
    torch.testing.assert_close(hidden.grad.abs().sum(-1) > 0, observed > 0)


@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_nb_is_finite_at_extreme_hidden_values_in_float32(rna_law, rna_counts, size):
    law, counts = in_float32(rna_law, rna_counts)
    law = replace(law, hidden=torch.full((N_CELLS, N_HIDDEN), size))
    parameters, log_prob = parameters_of(law), law.log_prob(counts)
    assert log_prob.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(log_prob.sum(), parameters))
