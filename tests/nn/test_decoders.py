"""Decoders: laws of the right shape that start at the mean profile and read their covariates."""

import math

import numpy as np
import pytest
import torch

from scmvp_scvi.distributions import FactoredNegativeBinomial, FactoredZeroInflatedPoisson
from scmvp_scvi.nn import ATACDecoder, Covariates, CovariateSizes, RNADecoder

N_CELLS, N_LATENT, N_HIDDEN, N_FEATURES = 8, 4, 16, 30
SIZES = CovariateSizes(n_categories=(2,), n_continuous=0)


@pytest.fixture(autouse=True)
def _seeded_torch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def mean_share(rng) -> torch.Tensor:
    """Mean profile: share of each feature in all counts."""
    return torch.as_tensor(rng.dirichlet(np.ones(N_FEATURES)) + 1e-4, dtype=torch.float32)


def rna_decoder(n_dispersions: int = 1, dropout_rate: float = 0.0) -> RNADecoder:
    return RNADecoder(N_LATENT, N_HIDDEN, N_FEATURES, SIZES, dropout_rate, n_dispersions)


def atac_decoder(dropout_rate: float = 0.0) -> ATACDecoder:
    widths = (N_LATENT, N_HIDDEN, N_FEATURES)
    return ATACDecoder(*widths, SIZES, dropout_rate, n_heads=4, form="token")


Z = torch.linspace(-2, 2, N_CELLS * N_LATENT).reshape(N_LATENT, N_CELLS).T.contiguous()
LIBRARY = torch.linspace(10.0, 500.0, N_CELLS).unsqueeze(-1)


def decode(
    decoder: RNADecoder | ATACDecoder,
    batch: int = 0,
    cluster_weights: torch.Tensor | None = None,
    dispersion_index: torch.Tensor | None = None,
) -> FactoredNegativeBinomial | FactoredZeroInflatedPoisson:
    if cluster_weights is None:
        cluster_weights = torch.ones(N_CELLS, N_HIDDEN)
    covariates = Covariates((torch.full((N_CELLS, 1), batch),), None)
    index = (dispersion_index,) if isinstance(decoder, RNADecoder) else ()
    return decoder(Z, cluster_weights, covariates, *index, LIBRARY, torch.ones(N_CELLS))


DECODERS = pytest.mark.parametrize("build", [rna_decoder, atac_decoder])


def test_rna_decoder_gives_shares_that_sum_to_one_over_genes():
    law = decode(rna_decoder())
    assert isinstance(law, FactoredNegativeBinomial)
    assert law.scale().shape == (N_CELLS, N_FEATURES)
    torch.testing.assert_close(law.scale().sum(-1), torch.ones(N_CELLS))


def test_rna_mean_sums_to_the_library():
    mean = decode(rna_decoder()).distribution().mean
    torch.testing.assert_close(mean.sum(-1, keepdim=True), LIBRARY)


def test_atac_decoder_gives_rates_below_the_library():
    law = decode(atac_decoder())
    assert isinstance(law, FactoredZeroInflatedPoisson)
    rate = law.distribution().rate
    assert rate.shape == (N_CELLS, N_FEATURES)
    assert ((rate > 0) & (rate < LIBRARY)).all()


@DECODERS
def test_decoder_starts_near_the_mean_profile(build, mean_share):
    decoder = build()
    decoder.start_at(mean_share)
    expected = mean_share / mean_share.sum() if build is rna_decoder else mean_share
    ratio = decode(decoder).scale().log() - expected.log()
    assert ratio.abs().max() < 0.3


def test_decoder_starts_at_finite_values_where_one_peak_holds_nearly_all_counts():
    decoder = atac_decoder()
    decoder.start_at(torch.tensor([1.0, *[1e-10] * (decoder.rate.bias.numel() - 1)]))
    assert decoder.rate.bias.isfinite().all()


@DECODERS
def test_decoder_starts_at_the_mean_profile_where_hidden_units_are_silent(build, mean_share):
    decoder = build()
    decoder.start_at(mean_share)
    expected = mean_share / mean_share.sum() if build is rna_decoder else mean_share
    scale = decode(decoder, cluster_weights=torch.zeros(N_CELLS, N_HIDDEN)).scale()
    torch.testing.assert_close(scale, expected.expand_as(scale), rtol=1e-4, atol=0)


def test_atac_decoder_starts_flat_and_nearly_poisson_without_a_mean_profile():
    law = decode(atac_decoder()).distribution()
    # sigmoid(-log n) = 1 / (1 + n)
    ratio = law.scale.log() + math.log(N_FEATURES + 1)
    assert ratio.abs().max() < 0.3
    assert (law.inclusion_probs > 0.9).all()


@DECODERS
def test_cluster_weights_multiply_the_hidden_layer(build):
    decoder, weights = build().eval(), torch.rand(N_CELLS, N_HIDDEN)
    expected = decode(decoder).hidden * weights
    torch.testing.assert_close(decode(decoder, cluster_weights=weights).hidden, expected)


@DECODERS
def test_decoder_tells_batches_apart(build):
    decoder = build().eval()
    first, second = decode(decoder, batch=0).scale(), decode(decoder, batch=1).scale()
    assert not torch.isclose(first, second, rtol=1e-6).all(-1).any()


@DECODERS
def test_decoder_drops_hidden_units_in_training_alone(build):
    decoder = build(dropout_rate=0.5)
    assert (decode(decoder).hidden == 0).float().mean() > 0.3
    assert not torch.equal(decode(decoder).hidden, decode(decoder).hidden)
    decoder.eval()
    assert torch.equal(decode(decoder).hidden, decode(decoder).hidden)


@DECODERS
def test_law_carries_library_and_observed_cells_unchanged(build):
    law = decode(build())
    torch.testing.assert_close(law.library, LIBRARY)
    torch.testing.assert_close(law.observed, torch.ones(N_CELLS))


def test_dispersion_index_picks_the_row_of_each_cell():
    decoder, index = rna_decoder(n_dispersions=3), torch.tensor([0, 2, 1, 1, 0, 2, 2, 0])
    decoder.log_inverse_dispersion.data.normal_()
    theta = decode(decoder, dispersion_index=index).distribution().theta
    for cell, row in enumerate(index):
        torch.testing.assert_close(theta[cell], decoder.log_inverse_dispersion[row].exp())


def test_one_dispersion_is_shared_by_all_cells():
    decoder = rna_decoder()
    decoder.log_inverse_dispersion.data.normal_()
    law = decode(decoder)
    torch.testing.assert_close(law.log_inverse_dispersion, decoder.log_inverse_dispersion[0])
    assert law.distribution().theta.shape == (N_CELLS, N_FEATURES)


@DECODERS
def test_gradient_reaches_every_parameter(build):
    decoder = build()
    law = decode(decoder, cluster_weights=torch.rand(N_CELLS, N_HIDDEN)).distribution()
    law.log_prob(torch.poisson(torch.ones(N_CELLS, N_FEATURES))).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in decoder.parameters())
