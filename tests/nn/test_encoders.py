"""Encoders: sparse and dense input, covariates, posterior heads."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from scmvp_scvi._counts import Counts, DenseCounts, SparseCounts
from scmvp_scvi.nn import (
    Covariates,
    CovariateSizes,
    JointEncoder,
    MaskAttention,
    atac_encoder,
    rna_encoder,
)
from scmvp_scvi.nn._encoders import (
    ChannelEncoder,
    PosteriorHead,
    ProfileBlock,
    ProfileLinear,
    _survivors,
    _without_running_statistics,
)

N_CELLS, N_FEATURES, N_HIDDEN, N_LATENT = 8, 30, 16, 4
NO_SIZES = CovariateSizes(n_categories=(1,), n_continuous=0)
SIZES = CovariateSizes(n_categories=(3, 2), n_continuous=2)


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def dense(rng) -> torch.Tensor:
    """Transformed profiles with zeros; one cell is empty."""
    profile = np.log1p(rng.poisson(0.7, (N_CELLS, N_FEATURES)))
    profile[2] = 0
    return torch.as_tensor(profile, dtype=torch.float32)


@pytest.fixture
def covariates(rng) -> Covariates:
    return Covariates(
        categorical=(
            torch.as_tensor(rng.integers(0, 3, (N_CELLS, 1))),
            torch.as_tensor(rng.integers(0, 2, (N_CELLS, 1))),
        ),
        continuous=torch.as_tensor(rng.normal(size=(N_CELLS, 2)), dtype=torch.float32),
    )


NO_COVARIATES = Covariates((torch.zeros(N_CELLS, 1, dtype=torch.long),), None)
ALL_OBSERVED = torch.ones(N_CELLS)


def build(
    modality: str,
    sizes: CovariateSizes,
    dropout_rate: float = 0.1,
    input_dropout: float = 0.0,
    n_centered: int = 0,
) -> ChannelEncoder:
    arguments = (N_FEATURES, N_HIDDEN, N_LATENT, sizes, dropout_rate, input_dropout)
    if modality == "rna":
        return rna_encoder(*arguments, n_centered)
    return atac_encoder(*arguments, n_heads=4, form="token", n_centered=n_centered)


def sparse(dense: torch.Tensor) -> SparseCounts:
    return SparseCounts.from_tensor(dense)


def whole(dense: torch.Tensor) -> list[ProfileBlock]:
    """Return an imputed profile that comes in one block."""
    return [(slice(None), dense)]


def one_hot_input(dense: torch.Tensor, covariates: Covariates) -> torch.Tensor:
    """``[x; continuous; onehots]``."""
    codes = zip(covariates.categorical, SIZES.n_categories, strict=True)
    one_hots = [torch.eye(n)[code[:, 0]] for code, n in codes]
    return torch.cat((dense, covariates.continuous, *one_hots), -1)


def test_profile_linear_maps_sparse_input_like_dense_input(dense):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.0)
    from_sparse = layer(sparse(dense), NO_COVARIATES)
    torch.testing.assert_close(from_sparse, layer.of_blocks(whole(dense), NO_COVARIATES))


def test_profile_linear_is_a_matrix_product_plus_bias(dense):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.0)
    layer.bias.data.normal_()
    expected = dense.numpy() @ layer.weight.detach().numpy() + layer.bias.detach().numpy()
    hidden = layer(sparse(dense), NO_COVARIATES).detach()
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-6)


def test_profile_linear_maps_a_minibatch_without_counts_to_its_bias():
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.0)
    layer.bias.data.normal_()
    hidden = layer(sparse(torch.zeros(N_CELLS, N_FEATURES)), NO_COVARIATES)
    torch.testing.assert_close(hidden, layer.bias.expand(N_CELLS, N_HIDDEN))


def test_profile_linear_equals_concatenating_the_covariates(dense, covariates):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, SIZES, input_dropout=0.0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    shift = layer.shift
    weight = torch.cat((layer.weight, shift.slopes, *shift.categories.values()))
    expected = one_hot_input(dense, covariates) @ weight + layer.bias
    torch.testing.assert_close(layer(sparse(dense), covariates), expected)


def test_gradient_of_sparse_input_is_that_of_dense_input(dense):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.0)
    upstream = torch.randn(N_CELLS, N_HIDDEN)
    from_sparse = layer(sparse(dense), NO_COVARIATES)
    for hidden in (from_sparse, layer.of_blocks(whole(dense), NO_COVARIATES)):
        (gradient,) = torch.autograd.grad(hidden, layer.weight, upstream)
        torch.testing.assert_close(gradient, dense.T @ upstream)


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_profile_linear_of_blocks_is_that_of_the_whole(dense, covariates, cut):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, SIZES, input_dropout=0.5)
    blocks = [(slice(a, b), dense[:, a:b]) for a, b in ((0, cut), (cut, N_FEATURES))]
    at_once = layer.of_blocks(whole(dense), covariates)
    torch.testing.assert_close(layer.of_blocks(blocks, covariates), at_once)


def test_profile_linear_of_chosen_columns_ignores_the_others(dense):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.0)
    columns = torch.tensor([0, 2])
    expected = torch.zeros_like(dense).index_copy(1, columns, dense[:, columns])
    torch.testing.assert_close(
        layer.of_blocks([(columns, dense[:, columns])], NO_COVARIATES),
        layer.of_blocks(whole(expected), NO_COVARIATES),
    )


def test_gradient_reaches_an_imputed_profile(dense):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.0)
    imputed = dense.clone().requires_grad_()
    layer.of_blocks(whole(imputed), NO_COVARIATES).sum().backward()
    torch.testing.assert_close(imputed.grad, layer.weight.sum(1).expand(N_CELLS, N_FEATURES))


def test_input_dropout_acts_on_observed_profiles_in_training_alone(dense):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.5)
    counts = sparse(dense)
    assert not torch.allclose(
        layer(counts, NO_COVARIATES), layer.of_blocks(whole(dense), NO_COVARIATES)
    )
    layer.eval()
    torch.testing.assert_close(
        layer(counts, NO_COVARIATES), layer.of_blocks(whole(dense), NO_COVARIATES)
    )


def test_input_dropout_keeps_the_expected_hidden_layer():
    layer = ProfileLinear(N_FEATURES, 1, NO_SIZES, input_dropout=0.25)
    counts, n_cells = sparse(torch.ones(20_000, N_FEATURES)), 20_000
    codes = Covariates((torch.zeros(n_cells, 1, dtype=torch.long),), None)
    hidden = layer(counts, codes).detach()
    error = hidden.mean() - layer.eval()(counts, codes).mean()
    assert abs(error) < 4 * hidden.std() / n_cells**0.5


@pytest.mark.parametrize("share", [0.1, 0.5, 0.7, 0.999_999])
def test_survivors_of_a_dropout_are_as_many_as_its_share_leaves(share):
    n_values = 1_000_003
    kept = _survivors(torch.ones(n_values), share)
    assert kept.shape == (n_values,)
    spread = (n_values * share * (1 - share)) ** 0.5
    # a share is met to half of one in 2^16 values
    assert abs(int(kept.sum()) - n_values * (1 - share)) < 4 * spread + n_values / 2**16


def test_survivors_of_a_dropout_do_not_depend_on_their_neighbours():
    kept = _survivors(torch.ones(400_000), 0.7).double()
    kept -= kept.mean()
    for lag in range(1, 9):  # four of them share a random word
        correlation = (kept[lag:] * kept[:-lag]).mean() / kept.square().mean()
        assert abs(correlation) < 4.5 / len(kept) ** 0.5


@pytest.mark.parametrize("read", [SparseCounts.from_tensor, DenseCounts])
@pytest.mark.parametrize("training", [True, False])
def test_counts_are_transformed_once_and_only_where_the_input_dropout_leaves_them(
    dense, training, read
):
    layer = ProfileLinear(N_FEATURES, N_HIDDEN, NO_SIZES, input_dropout=0.5).train(training)
    counts, seen = read(dense.abs() + 1), []

    def transform(kept: Counts) -> Counts:
        seen.append(kept.to_dense())
        return kept.with_values(kept.values.log1p())

    hidden = layer(counts, NO_COVARIATES, transform=transform)
    (kept,) = seen
    assert (0 < (kept > 0).sum() < kept.numel()) == training
    torch.testing.assert_close(kept[kept > 0], counts.to_dense()[kept > 0])
    scaled = kept.log1p() * (2 if training else 1)
    torch.testing.assert_close(hidden, scaled @ layer.weight + layer.bias)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_channel_encodes_sparse_input_like_dense_input_in_eval_mode(dense, covariates, modality):
    encoder = build(modality, SIZES, input_dropout=0.3).eval()
    from_sparse = encoder(sparse(dense), covariates, ALL_OBSERVED)
    assert from_sparse.shape == (N_CELLS, N_HIDDEN)
    imputed = encoder.of_imputed(whole(dense), covariates)
    torch.testing.assert_close(from_sparse, imputed)


OBSERVED = torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 0])


def rows_of(covariates: Covariates, rows: torch.Tensor) -> Covariates:
    codes = tuple(column[rows] for column in covariates.categorical)
    return Covariates(codes, covariates.continuous[rows])


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_channel_gives_observed_cells_what_they_get_alone(
    dense, covariates, modality, is_training
):
    encoder, rows = build(modality, SIZES, dropout_rate=0.0).train(is_training), OBSERVED > 0
    features = encoder(sparse(dense), covariates, OBSERVED)
    alone = encoder(sparse(dense[rows]), rows_of(covariates, rows), OBSERVED[rows])
    torch.testing.assert_close(features[rows], alone)
    assert not features[~rows].any()


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_cells_without_the_modality_stay_out_of_running_statistics(dense, covariates, modality):
    encoder, rows = build(modality, SIZES), OBSERVED > 0
    same_encoder = copy.deepcopy(encoder)
    encoder(sparse(dense), covariates, OBSERVED)
    same_encoder(sparse(dense[rows]), rows_of(covariates, rows), OBSERVED[rows])
    statistics, expected = (e.attention.batch_norm.running_mean for e in (encoder, same_encoder))
    assert expected.any()
    torch.testing.assert_close(statistics, expected)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_running_statistics_stay_where_no_cell_has_the_modality(dense, covariates, modality):
    encoder = build(modality, SIZES)
    batch_norm = encoder.attention.batch_norm
    before = batch_norm.running_mean.clone(), batch_norm.running_var.clone()
    encoder(sparse(dense), covariates, torch.zeros(N_CELLS))
    torch.testing.assert_close((batch_norm.running_mean, batch_norm.running_var), before)


@pytest.mark.parametrize("n_observed", [0, 1, 2])
@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_channel_trains_on_minibatches_with_few_observed_cells(
    dense, covariates, modality, n_observed
):
    encoder, observed = build(modality, SIZES), (torch.arange(N_CELLS) < n_observed).float()
    features = encoder(sparse(dense), covariates, observed)
    features.square().sum().backward()
    torch.testing.assert_close(features.abs().sum(-1) > 0, observed > 0)
    assert encoder.first_layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_channel_tells_batches_apart_where_it_encodes_them(dense, covariates, modality):
    encoder = build(modality, SIZES).eval()
    first = encoder(sparse(dense), covariates.with_batch(0), ALL_OBSERVED)
    second = encoder(sparse(dense), covariates.with_batch(1), ALL_OBSERVED)
    assert not torch.isclose(first, second).all(-1).any()


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_channel_without_covariates_ignores_them(dense, covariates, modality):
    encoder = build(modality, NO_SIZES).eval()
    assert list(encoder.first_layer.shift.parameters()) == []
    torch.testing.assert_close(
        encoder(sparse(dense), covariates, ALL_OBSERVED),
        encoder(sparse(dense), NO_COVARIATES, ALL_OBSERVED),
    )


def test_moving_cells_to_a_batch_keeps_their_other_covariates(covariates):
    moved = covariates.with_batch(2)
    assert (moved.batch == 2).all()
    assert moved.batch.shape == covariates.batch.shape
    assert moved.categorical[1] is covariates.categorical[1]
    assert moved.continuous is covariates.continuous


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_centred_channel_reads_what_all_batches_share(dense, covariates, modality):
    encoder = build(modality, NO_SIZES, dropout_rate=0.0, n_centered=3).train()
    encoder(sparse(dense), covariates, OBSERVED)
    encoder.eval()
    linear = encoder.first_layer(sparse(dense), covariates)
    expected = linear.clone()
    for batch in range(3):
        of_batch = covariates.batch[:, 0] == batch
        if (seen := of_batch & (OBSERVED > 0)).any():
            expected[of_batch] += linear[OBSERVED > 0].mean(0) - linear[seen].mean(0)
    features = encoder.attention(expected) * OBSERVED.unsqueeze(-1)
    torch.testing.assert_close(encoder(sparse(dense), covariates, OBSERVED), features)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_imputed_profiles_are_centred_and_leave_the_means_alone(dense, covariates, modality):
    encoder = build(modality, NO_SIZES, dropout_rate=0.0, n_centered=3).train()
    encoder(sparse(dense), covariates, ALL_OBSERVED)
    before = encoder.centering.means.clone()
    encoder.of_imputed(whole(dense + 1), covariates)
    assert before.any()
    assert torch.equal(encoder.centering.means, before)
    encoder.eval()
    observed = encoder(sparse(dense), covariates, ALL_OBSERVED)
    torch.testing.assert_close(encoder.of_imputed(whole(dense), covariates), observed)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_channel_head_is_a_posterior_for_each_cell(dense, covariates, modality):
    encoder = build(modality, SIZES)
    posterior = encoder.head(encoder(sparse(dense), covariates, ALL_OBSERVED))
    assert posterior.batch_shape == (N_CELLS, N_LATENT)
    assert posterior.mean.isfinite().all()
    assert (posterior.scale > 0).all()


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
def test_posterior_variance_is_the_exponential_plus_a_floor(rng, size):
    head = PosteriorHead(6, N_LATENT).double()
    features = torch.as_tensor(size * rng.normal(size=(20, 6)))
    posterior = head(features)
    exponent = np.clip(head.log_variance(features).detach().numpy(), -5, 5)
    np.testing.assert_allclose(posterior.variance.detach(), np.exp(exponent) + 1e-4, rtol=1e-10)
    torch.testing.assert_close(posterior.mean, head.mean(features))


def test_joint_encoder_follows_its_equation_in_plain_torch():
    encoder = JointEncoder(N_HIDDEN, 3, n_shared=10, n_latent=N_LATENT)
    rna, atac = torch.randn(N_CELLS, N_HIDDEN), torch.randn(N_CELLS, 3)
    weight_rna, weight_atac = encoder.shared.weight.split((N_HIDDEN, 3), dim=1)
    shared = rna @ weight_rna.T + atac @ weight_atac.T + encoder.shared.bias
    shared = (shared - shared.mean(-1, keepdim=True)) / (
        shared.var(-1, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    torch.testing.assert_close(encoder(rna, atac).mean, encoder.head.mean(shared))


def test_joint_posterior_has_one_row_a_cell_and_responds_to_both_channels():
    encoder = JointEncoder(N_HIDDEN, N_HIDDEN, n_shared=10, n_latent=N_LATENT)
    rna, atac = torch.randn(2, N_CELLS, N_HIDDEN).unbind()
    posterior = encoder(rna, atac)
    assert posterior.batch_shape == (N_CELLS, N_LATENT)
    for other in (encoder(rna, -atac), encoder(-rna, atac)):
        assert not torch.isclose(posterior.mean, other.mean).all(-1).any()


# -- running statistics ---------------------------------------------------------------------------


@pytest.fixture
def hidden(rng) -> torch.Tensor:
    """Output of a channel's first linear layer."""
    return torch.as_tensor(rng.normal(size=(N_CELLS, N_HIDDEN)), dtype=torch.float32)


def test_running_statistics_stay_where_they_are_put_aside(hidden):
    layer = MaskAttention(N_HIDDEN).train()
    before = [s.clone() for s in (layer.batch_norm.running_mean, layer.batch_norm.running_var)]
    with _without_running_statistics(layer):
        layer(hidden)
    torch.testing.assert_close(layer.batch_norm.running_mean, before[0], rtol=0, atol=0)
    torch.testing.assert_close(layer.batch_norm.running_var, before[1], rtol=0, atol=0)


def test_batch_statistics_normalise_where_running_ones_are_put_aside(hidden):
    layer = MaskAttention(N_HIDDEN).train()
    with _without_running_statistics(layer):
        inside = layer(hidden)
    torch.testing.assert_close(inside, layer(hidden))
    assert not torch.allclose(inside, layer.eval()(hidden))


def test_momenta_are_restored_and_statistics_move_again_afterwards(hidden):
    layer = nn.Sequential(MaskAttention(N_HIDDEN), nn.BatchNorm1d(N_HIDDEN, momentum=0.3))
    with _without_running_statistics(layer):
        assert layer[0].batch_norm.momentum == layer[1].momentum == 0
    assert (layer[0].batch_norm.momentum, layer[1].momentum) == (0.01, 0.3)
    before = layer[0].batch_norm.running_mean.clone()
    layer(hidden)
    assert not torch.equal(layer[0].batch_norm.running_mean, before)


def test_momenta_are_restored_after_an_error():
    layer = MaskAttention(N_HIDDEN)
    with pytest.raises(RuntimeError, match="stop"), _without_running_statistics(layer):
        raise RuntimeError("stop")
    assert layer.batch_norm.momentum == 0.01
