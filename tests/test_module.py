"""The module alone: its transforms, its masks, its objective and its gradients."""

import math
import warnings

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import stats
from torch.distributions import Normal, kl_divergence

from scmvp_scvi import SCMVPModule, _module, _profiles
from scmvp_scvi._counts import DenseCounts, SparseCounts
from scmvp_scvi._feature_sample import FeatureSample, inclusion_probabilities, sample_features
from scmvp_scvi._keys import LOSS, OUTPUT, REGISTRY
from scmvp_scvi._profiles import imputed_atac, imputed_rna
from scmvp_scvi.distributions import MixtureFit
from scmvp_scvi.distributions._factored import FactoredZeroInflatedPoisson
from scmvp_scvi.nn._calibration import CalibrationFit
from scmvp_scvi.nn._covariates import Covariates

N_CELLS, N_GENES, N_PEAKS = 12, 7, 11
N_TRAINING, MEDIAN_DEPTH, ATAC_TOTALS = 40, 9.0, np.linspace(50, 5, N_PEAKS)
WEIGHTS = {"alignment_weight": 0.7, "cycle_weight": 0.3, "cycle_cluster_weight": 0.2}


def build(seed: int = 0, fitted: bool = False, **changes) -> SCMVPModule:
    """Small module in eval mode whose decoders have something to say."""
    arguments = {
        "n_genes": N_GENES,
        "n_peaks": N_PEAKS,
        "n_batch": 2,
        "n_labels": 3,
        "n_categories": (),
        "n_continuous": 0,
        "n_hidden": 8,
        "n_hidden_atac": 4,
        "n_shared": 10,
        "n_latent": 3,
        "n_heads": 2,
        "self_attention": "token",
        "cluster_attention": True,
        "max_clusters": 4,
        "dispersion": "gene",
        "atac_target": "counts",
        "encode_covariates": False,
        "center_batches": False,
        "batch_representation": "one-hot",
        "dropout_rate": 0.1,
        "rna_input_dropout": 0.1,
        "atac_input_dropout": 0.5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = SCMVPModule(**arguments | changes)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    rng = np.random.default_rng(seed)
    module.set_feature_statistics(
        rna_median_depth=MEDIAN_DEPTH,
        rna_totals=np.linspace(5, 50, N_GENES),
        atac_totals=ATAC_TOTALS,
        n_cells=N_TRAINING,
    )
    if fitted:
        n_latent = module.prior.means.shape[1]
        means, variances = rng.normal(size=(2, n_latent)), rng.uniform(0.5, 2, (2, n_latent))
        module.prior.copy_fit(MixtureFit(np.array([0.3, 0.7]), means, variances))
    return module.eval()


def imputed_peaks(module: SCMVPModule, py: FactoredZeroInflatedPoisson, sample=None):
    """Imputed ATAC profile, in the units of this module's encoder."""
    return imputed_atac(py, module.atac_idf, module.atac_target, sample)


@pytest.fixture
def minibatch(rng) -> dict[str, torch.Tensor]:
    """Counts of twelve cells, each with some in both modalities."""
    rna, atac = rng.poisson(1.5, (N_CELLS, N_GENES)), rng.poisson(0.8, (N_CELLS, N_PEAKS))
    rna[:, 0] += 1
    atac[:, 0] += 1
    codes = torch.arange(N_CELLS).unsqueeze(1)
    return {
        REGISTRY.RNA: torch.tensor(rna, dtype=torch.float32),
        REGISTRY.ATAC: torch.tensor(atac, dtype=torch.float32),
        REGISTRY.BATCH: codes % 2,
        REGISTRY.LABELS: codes % 3,
    }


def without(minibatch, key: str, cell: int) -> dict[str, torch.Tensor]:
    """Return the minibatch with one modality of one cell empty."""
    counts = minibatch[key].clone()
    counts[cell] = 0
    return {**minibatch, key: counts}


def forward(module: SCMVPModule, minibatch, **weights):
    """Run a pass that draws z from its own seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module(minibatch, loss_kwargs=weights)


def decode(module: SCMVPModule, minibatch, z=None, **arguments) -> dict:
    outputs = module.embed(minibatch)
    z = outputs[OUTPUT.QZ].loc if z is None else z
    return module.decode(minibatch, outputs, z=z, **arguments)


# -- counts that are written out, as on an accelerator --------------------------------------------


@pytest.mark.parametrize("n_peaks_per_step", [None, 6])
def test_written_out_counts_give_the_loss_and_gradients_of_sparse_ones(
    minibatch, monkeypatch, n_peaks_per_step
):
    minibatch = without(without(minibatch, REGISTRY.RNA, 2), REGISTRY.ATAC, 5)
    for key in (REGISTRY.RNA, REGISTRY.ATAC):  # in single precision noise outweighs some gradients
        minibatch[key] = minibatch[key].double()
    results = []
    for read in (SparseCounts.from_tensor, DenseCounts):
        monkeypatch.setattr(_module, "read_counts", read)
        module = build(fitted=True, **NO_DROPOUT).double().train()
        loss = forward(module, minibatch, n_peaks_per_step=n_peaks_per_step, **WEIGHTS)[2].loss
        loss.backward()
        results.append([loss, *(p.grad.to_dense() for p in module.parameters())])
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-10)


# -- a mixture in place of another ----------------------------------------------------------------


def test_mixture_that_there_is_no_room_for_is_refused_before_anything_changes(rng):
    module = build()
    module.take_mixture(MixtureFit(np.full(3, 1 / 3), 30 * np.eye(3), np.ones((3, 3))))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    n_clusters = len(module.prior.logits) + 1
    means = rng.normal(size=(n_clusters, 3))
    fit = MixtureFit(np.full(n_clusters, 1 / n_clusters), means, np.ones((n_clusters, 3)))
    with pytest.raises(ValueError, match=f"`fit` has {n_clusters} components"):
        module.take_mixture(fit)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("cluster_attention", [True, False])
def test_components_in_another_order_decode_to_the_same_profiles(
    rng, minibatch, cluster_attention
):
    module = build(cluster_attention=cluster_attention)
    means = 30 * np.eye(3)
    weights, variances = np.array([0.5, 0.3, 0.2]), rng.uniform(0.5, 2, (3, 3))
    module.take_mixture(MixtureFit(weights, means, variances))
    embedded = module.embed(minibatch)
    near = torch.tensor(means + rng.normal(size=(3, 3))).float().repeat(4, 1)
    before = module.decode(minibatch, embedded, z=near)
    order = [2, 0, 1]
    module.take_mixture(MixtureFit(weights[order], means[order], variances[order]))
    after = module.decode(minibatch, embedded, z=near)
    for law in (OUTPUT.PX, OUTPUT.PY):
        torch.testing.assert_close(after[law].scale(), before[law].scale())
    torch.testing.assert_close(
        after[OUTPUT.CLUSTER_PROBS][:, :3], before[OUTPUT.CLUSTER_PROBS][:, order]
    )


# -- transforms of the counts ---------------------------------------------------------------------


def test_profiles_have_the_constants_of_the_training_cells(minibatch):
    module = build()
    counts = {key: minibatch[key].numpy() for key in (REGISTRY.RNA, REGISTRY.ATAC)}
    shares = {key: values / values.sum(1, keepdims=True) for key, values in counts.items()}
    rna, atac = (SparseCounts.from_tensor(minibatch[key]) for key in counts)
    idf = N_TRAINING / ATAC_TOTALS
    expected = np.log1p(MEDIAN_DEPTH * shares[REGISTRY.RNA])
    np.testing.assert_allclose(module.rna_profile(rna).to_dense(), expected, rtol=1e-6)
    expected = np.log1p(1e4 * idf * shares[REGISTRY.ATAC])
    np.testing.assert_allclose(module.atac_profile(atac).to_dense(), expected, rtol=1e-5)


def test_decoders_start_at_the_mean_profile():
    module, totals = build(), np.arange(1.0, N_GENES + 1)
    module.set_feature_statistics(
        rna_median_depth=1.0, rna_totals=totals, atac_totals=np.ones(N_PEAKS), n_cells=5
    )
    share = module.rna_decoder.output.bias.softmax(-1).detach()
    np.testing.assert_allclose(share, totals / totals.sum(), rtol=1e-5)
    np.testing.assert_allclose(module.atac_decoder.rate.bias.sigmoid().detach(), 1 / N_PEAKS)


def test_feature_without_training_counts_leaves_every_output_finite(minibatch):
    module = build()
    module.set_feature_statistics(
        rna_median_depth=1.0,
        rna_totals=np.zeros(N_GENES),
        atac_totals=np.zeros(N_PEAKS),
        n_cells=5,
    )
    assert forward(module, minibatch)[2].loss.isfinite()


def test_sparse_minibatch_gives_the_loss_of_the_dense_one(minibatch):
    module = build()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # once a process
        counts = {key: minibatch[key].to_sparse_csr() for key in (REGISTRY.RNA, REGISTRY.ATAC)}
    dense, sparse = (forward(module, m)[2].loss for m in (minibatch, {**minibatch, **counts}))
    torch.testing.assert_close(sparse, dense)


# -- objective ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fitted", [False, True])
def test_loss_is_the_weighted_sum_of_its_parts(minibatch, fitted):
    labelled = {**minibatch, REGISTRY.LABELS: torch.arange(N_CELLS).unsqueeze(1) % 3}
    labels = {"label_weight": 0.6, "component_of_label": torch.tensor([0, -1, 1])}
    loss = forward(build(fitted=fitted), labelled, kl_weight=0.4, **WEIGHTS, **labels)[2]
    weight_of = dict.fromkeys(loss.parts, 1.0) | {
        LOSS.KL: 0.4,
        LOSS.ALIGNMENT_RNA: 0.7,
        LOSS.ALIGNMENT_ATAC: 0.7,
        LOSS.CYCLE_RNA: 0.3,
        LOSS.CYCLE_ATAC: 0.3,
        LOSS.CYCLE_CLUSTER_RNA: 0.2,
        LOSS.CYCLE_CLUSTER_ATAC: 0.2,
        LOSS.LABELS: 0.6,
    }
    assert set(weight_of) == set(LOSS)
    expected = sum(weight_of[name] * part for name, part in loss.parts.items())
    torch.testing.assert_close(loss.loss, expected)


def test_cycle_weighs_little_by_default(minibatch):
    parts = (LOSS.CYCLE_RNA, LOSS.CYCLE_ATAC, LOSS.CYCLE_CLUSTER_RNA, LOSS.CYCLE_CLUSTER_ATAC)
    torch.manual_seed(0)
    loss = forward(build(), minibatch)[2]
    torch.manual_seed(0)
    without = forward(build(), minibatch, cycle_weight=0.0, cycle_cluster_weight=0.0)[2]
    expected = 0.015 * sum(loss.parts[part] for part in parts)
    torch.testing.assert_close(loss.loss - without.loss, expected, rtol=1e-3, atol=1e-5)


def test_alignment_weighs_as_much_as_the_elbo_by_default(minibatch):
    none = {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}
    torch.manual_seed(0)
    loss = forward(build(), minibatch, **none)[2]
    torch.manual_seed(0)
    without_it = forward(build(), minibatch, **none, alignment_weight=0.0)[2]
    expected = loss.parts[LOSS.ALIGNMENT_RNA] + loss.parts[LOSS.ALIGNMENT_ATAC]
    torch.testing.assert_close(loss.loss - without_it.loss, expected, rtol=1e-3, atol=1e-5)


def test_labels_weigh_what_they_add_to_the_negative_elbo(minibatch):
    """By default as much as the ELBO, which is then that of the counts and the labels."""
    component_of_label = torch.tensor([1, -1, 0])  # the second label stands for cells without
    labelled = {**minibatch, REGISTRY.LABELS: torch.arange(N_CELLS).unsqueeze(1) % 3}
    module = build(fitted=True)
    inferred, _, plain = forward(module, labelled)
    losses = [
        forward(module, labelled, component_of_label=component_of_label, **weight)[2]
        for weight in ({}, {"label_weight": 7.0})
    ]
    probs = module.prior.cluster_probs(inferred[OUTPUT.Z]).detach()
    of_cells = [-math.log(probs[i, (1, 0)[i % 3 == 2]]) for i in range(N_CELLS) if i % 3 != 1]
    expected = torch.tensor(sum(of_cells) / N_CELLS)
    for loss, weight in zip(losses, (1, 7), strict=True):
        torch.testing.assert_close(loss.parts[LOSS.LABELS], expected)
        torch.testing.assert_close(loss.loss - plain.loss, weight * expected, rtol=1e-3, atol=1e-4)
    assert LOSS.LABELS not in plain.parts


def test_labels_weigh_nothing_before_the_mixture_is_fitted(minibatch):
    plain, labelled = (
        forward(build(), minibatch, component_of_label=of)[2]
        for of in (None, torch.tensor([0, 1, 2]))
    )
    assert labelled.parts[LOSS.LABELS] == 0
    torch.testing.assert_close(labelled.loss, plain.loss)


def test_terms_of_the_elbo_have_one_entry_a_cell(minibatch):
    loss = forward(build(), minibatch)[2]
    terms = [*loss.reconstruction_loss.values(), *loss.kl_local.values()]
    assert [term.shape for term in terms] == 3 * [(N_CELLS,)]


def test_rna_reconstruction_is_the_negative_binomial_of_scipy(minibatch):
    _, decoded, loss = forward(build(), minibatch)
    law = decoded[OUTPUT.PX].distribution()
    mean, theta = law.mean.detach().numpy(), law.theta.detach().numpy()
    expected = -stats.nbinom.logpmf(minibatch[REGISTRY.RNA], theta, theta / (theta + mean)).sum(1)
    found = loss.reconstruction_loss[LOSS.RNA_RECONSTRUCTION].detach()
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_atac_reconstruction_is_the_zero_inflated_poisson_of_scipy(minibatch):
    embedded, decoded, loss = forward(build(), minibatch)
    py = decoded[OUTPUT.PY]
    mean = (embedded[OUTPUT.ATAC_LIBRARY] * py.scale()).detach().numpy()
    logits = py.hidden @ py.inclusion_weight.T + py.inclusion_bias
    inclusion, counts = logits.sigmoid().detach().numpy(), minibatch[REGISTRY.ATAC].numpy()
    density = inclusion * stats.poisson.pmf(counts, mean) + (1 - inclusion) * (counts == 0)
    found = loss.reconstruction_loss[LOSS.ATAC_RECONSTRUCTION].detach()
    np.testing.assert_allclose(found, -np.log(density).sum(1), rtol=1e-4)


def test_kl_before_the_fit_is_the_draw_against_the_standard_normal(minibatch):
    embedded, _, loss = forward(build(), minibatch)
    qz, z = embedded[OUTPUT.QZ], embedded[OUTPUT.Z].detach().numpy()
    posterior = stats.norm.logpdf(z, qz.loc.detach(), qz.scale.detach()).sum(1)
    expected = posterior - stats.norm.logpdf(z).sum(1)
    np.testing.assert_allclose(loss.kl_local["kl_local"].detach(), expected, atol=1e-4)


def test_kl_after_the_fit_is_the_draw_against_the_mixture(minibatch):
    module = build(fitted=True)
    embedded, _, loss = forward(module, minibatch)
    qz, z = embedded[OUTPUT.QZ], embedded[OUTPUT.Z].detach().numpy()
    means, scales = module.prior.means[:2].detach(), module.prior.variances[:2].sqrt().detach()
    density = sum(
        weight * np.exp(stats.norm.logpdf(z, mean, scale).sum(1))
        for weight, mean, scale in zip((0.3, 0.7), means, scales, strict=True)
    )
    expected = stats.norm.logpdf(z, qz.loc.detach(), qz.scale.detach()).sum(1) - np.log(density)
    np.testing.assert_allclose(loss.kl_local["kl_local"].detach(), expected, atol=1e-4)


def test_alignment_is_the_divergence_of_the_joint_posterior_from_each_channel(minibatch):
    embedded, _, loss = forward(build(), minibatch)
    for name, channel in ((LOSS.ALIGNMENT_RNA, "qz_rna"), (LOSS.ALIGNMENT_ATAC, "qz_atac")):
        expected = kl_divergence(embedded[OUTPUT.QZ], embedded[channel]).sum(-1).mean()
        torch.testing.assert_close(loss.parts[name], expected.detach())


def test_alignment_teaches_the_channels_and_not_the_joint_posterior(minibatch):
    module = build()
    only = {"kl_weight": 0.0, "cycle_weight": 0.0, "cycle_cluster_weight": 0.0}
    losses = [forward(module, minibatch, **only, alignment_weight=w)[2].loss for w in (0.0, 1.0)]
    (losses[1] - losses[0]).backward()
    assert (module.joint_encoder.head.mean.weight.grad == 0).all()
    assert (module.rna_encoder.head.mean.weight.grad != 0).any()


def test_cycle_teaches_the_joint_posterior_and_the_channels(minibatch):
    module, losses = build(), []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        only = {"kl_weight": 0.0, "alignment_weight": 0.0, "cycle_cluster_weight": 0.0}
        losses.append(forward(module, minibatch, **only, cycle_weight=weight)[2].loss)
    (losses[1] - losses[0]).backward()
    # the spread of the joint posterior has no other way to the cycle than its own divergence: the
    # channels embed what its draw decodes to
    for encoder in (module.joint_encoder, module.rna_encoder, module.atac_encoder):
        assert (encoder.head.mean.weight.grad.abs() > 1e-8).any()
        assert (encoder.head.log_variance.weight.grad.abs() > 1e-8).any()


def test_cycle_is_the_divergence_from_the_embedding_of_the_imputed_profile(minibatch):
    module = build(fitted=True)
    embedded, decoded, loss = forward(module, minibatch)
    rna = torch.log1p(decoded[OUTPUT.PX].scale() * module.rna_median_depth)
    covariates = embedded[OUTPUT.COVARIATES]
    features = module.rna_encoder.of_imputed([(slice(None), rna)], covariates)
    imputed = module.rna_encoder.head(features)
    expected = kl_divergence(embedded[OUTPUT.QZ], imputed).sum(-1).mean()
    torch.testing.assert_close(loss.parts[LOSS.CYCLE_RNA], expected.detach())
    probs = [module.prior.cluster_probs(q.loc)[:, :2] for q in (embedded[OUTPUT.QZ], imputed)]
    expected = (probs[0] * (probs[0] / probs[1]).log()).sum(-1).mean()
    torch.testing.assert_close(loss.parts[LOSS.CYCLE_CLUSTER_RNA], expected.detach())


@pytest.mark.parametrize("atac_target", ["counts", "tfidf"])
def test_cycle_gives_the_atac_channel_what_it_reads_of_observed_cells(minibatch, atac_target):
    module = build(atac_target=atac_target)
    embedded, decoded, loss = forward(module, minibatch)
    py = decoded[OUTPUT.PY]
    if atac_target == "tfidf":
        profile = py.scale() * embedded[OUTPUT.ATAC_LIBRARY]
    else:
        profile = torch.log1p(py.scale() * 1e4 * module.atac_idf)
    encoder = module.atac_encoder
    features = encoder.of_imputed([(slice(None), profile)], embedded[OUTPUT.COVARIATES])
    imputed = encoder.head(features)
    expected = kl_divergence(embedded[OUTPUT.QZ], imputed).sum(-1).mean()
    torch.testing.assert_close(loss.parts[LOSS.CYCLE_ATAC], expected.detach())


def test_cycle_terms_are_left_out_if_their_weights_are_zero(minibatch):
    parts = forward(build(), minibatch, cycle_weight=0.0, cycle_cluster_weight=0.0)[2].parts
    assert not any(name.startswith("cycle") for name in parts)


def test_cycle_leaves_the_running_statistics_of_the_encoders_alone(minibatch):
    module = build().train()
    embedded, decoded = module.embed(minibatch), decode(module, minibatch)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    profile = imputed_peaks(module, decoded[OUTPUT.PY])
    rna_profile = imputed_rna(decoded[OUTPUT.PX].log_scale(), module.rna_median_depth)
    module.reencode(rna_profile, profile, embedded[OUTPUT.COVARIATES])
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("atac_target", ["counts", "tfidf"])
def test_rates_start_at_what_a_count_of_each_peak_becomes(rng, atac_target):
    totals, n_cells = rng.uniform(5, 50, N_PEAKS), 40
    module = build(atac_target=atac_target)
    module.set_feature_statistics(
        rna_median_depth=9.0, rna_totals=np.ones(N_GENES), atac_totals=totals, n_cells=n_cells
    )
    expected = totals
    if atac_target == "tfidf":  # times the transform of one count in a cell of the mean depth
        depth = totals.sum() / n_cells
        expected = totals * np.log1p(1e4 / depth * n_cells / totals)
    share = module.atac_decoder.rate.bias.detach().sigmoid().numpy()
    np.testing.assert_allclose(share, expected / expected.sum(), rtol=1e-5)


def test_imputed_tfidf_of_a_cell_without_atac_is_as_deep_as_that_of_the_others():
    module = build(atac_target="tfidf")
    hidden = torch.rand(4, module.atac_decoder.rate.in_features)
    library = torch.tensor([[300.0], [500.0], [1.0], [400.0]])
    rate, inclusion = module.atac_decoder.rate, module.atac_decoder.inclusion
    py = FactoredZeroInflatedPoisson(
        hidden,
        rate.weight,
        rate.bias,
        inclusion.weight,
        inclusion.bias,
        library,
        observed=torch.tensor([1.0, 1.0, 0.0, 1.0]),
    )
    found = torch.cat([profile for _, profile in imputed_peaks(module, py)], dim=1)
    expected = torch.tensor([[300.0], [500.0], [400.0], [400.0]])
    torch.testing.assert_close(found, expected * py.scale())


def test_tfidf_target_reconstructs_the_transformed_profile(minibatch):
    module = build(atac_target="tfidf")
    embedded = module.embed(minibatch)
    profile = module.atac_profile(SparseCounts.from_tensor(minibatch[REGISTRY.ATAC]))
    torch.testing.assert_close(embedded[OUTPUT.ATAC_TARGET].to_dense(), profile.to_dense())
    torch.testing.assert_close(embedded[OUTPUT.ATAC_LIBRARY], profile.depth)


# -- missing modalities ---------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "left"), [(REGISTRY.ATAC, "rna"), (REGISTRY.RNA, "atac")])
def test_cell_without_a_modality_takes_the_posterior_of_the_other_channel(minibatch, key, left):
    embedded = build().embed(without(minibatch, key, 3))
    channel = embedded[f"qz_{left}"]
    assert torch.equal(embedded[OUTPUT.QZ].loc[3], channel.loc[3])
    assert torch.equal(embedded[OUTPUT.QZ].scale[3], channel.scale[3])
    assert not torch.equal(embedded[OUTPUT.QZ].loc[4], channel.loc[4])


def calibrated() -> SCMVPModule:
    """Small module whose channels have calibrations that differ."""
    module = build()
    for kind, (slope, scale) in {"rna": (1.2, 0.8), "atac": (0.4, 1.5)}.items():
        centres = np.array([slope, -slope, 0.1]), np.array([0.3, 0.0, -slope])
        module.calibrations[kind].copy_fit(CalibrationFit(slope, *centres, scale))
    return module


def moments(posterior: Normal) -> torch.Tensor:
    return torch.stack((posterior.loc, posterior.scale))


@pytest.mark.parametrize(("source", "other"), [("rna", "atac"), ("atac", "rna")])
def test_modality_is_predicted_from_the_calibrated_posterior_of_the_other(
    minibatch, source, other
):
    module = calibrated()
    embedded, channel = module.embed(minibatch), module.embed(minibatch)[f"qz_{source}"]
    predicting = module.posterior_to_decode(embedded, other, source)
    assert torch.equal(moments(predicting), moments(module.calibrations[source](channel)))
    denoising = module.posterior_to_decode(embedded, source, source)
    assert torch.equal(moments(denoising), moments(channel))


@pytest.mark.parametrize(
    ("key", "lacking", "left"), [(REGISTRY.ATAC, "atac", "rna"), (REGISTRY.RNA, "rna", "atac")]
)
def test_modality_that_a_cell_lacks_is_predicted_and_what_it_has_is_decoded_as_embedded(
    minibatch, key, lacking, left
):
    module = calibrated()
    embedded = module.embed(without(minibatch, key, 3))
    as_embedded = moments(embedded[OUTPUT.QZ])
    predicting = moments(module.posterior_to_decode(embedded, lacking, left))
    expected = as_embedded.clone()
    expected[:, 3] = predicting[:, 3]
    assert torch.equal(moments(module.posterior_to_decode(embedded, lacking)), expected)
    assert torch.equal(moments(module.posterior_to_decode(embedded, left)), as_embedded)


def test_calibration_leaves_embeddings_and_objective_alone(minibatch):
    plain, module = build(), calibrated()
    for name in (OUTPUT.QZ, OUTPUT.QZ_RNA, OUTPUT.QZ_ATAC):
        found, expected = (of.embed(minibatch)[name].loc for of in (module, plain))
        assert torch.equal(found, expected)
    assert torch.equal(forward(module, minibatch)[2].loss, forward(plain, minibatch)[2].loss)


@pytest.mark.parametrize(
    ("key", "part"),
    [(REGISTRY.ATAC, LOSS.ATAC_RECONSTRUCTION), (REGISTRY.RNA, LOSS.RNA_RECONSTRUCTION)],
)
def test_missing_modality_costs_no_reconstruction(minibatch, key, part):
    cost = forward(build(), without(minibatch, key, 3))[2].reconstruction_loss[part]
    assert cost[3] == 0
    assert (cost[:3] > 0).all()


@pytest.mark.parametrize("key", [REGISTRY.ATAC, REGISTRY.RNA])
def test_missing_modality_takes_no_part_in_the_alignment(minibatch, key):
    module, incomplete = build(), without(minibatch, key, 3)
    embedded = module.embed(incomplete)
    found = forward(module, incomplete)[2].parts
    for part, channel in (
        (LOSS.ALIGNMENT_RNA, OUTPUT.QZ_RNA),
        (LOSS.ALIGNMENT_ATAC, OUTPUT.QZ_ATAC),
    ):
        terms = kl_divergence(embedded[OUTPUT.QZ], embedded[channel]).sum(-1)
        terms = terms * (torch.arange(N_CELLS) != 3)
        torch.testing.assert_close(found[part], terms.mean().detach())


@pytest.mark.parametrize("atac_target", ["counts", "tfidf"])
@pytest.mark.parametrize("key", [REGISTRY.ATAC, REGISTRY.RNA])
def test_missing_modality_gives_finite_losses_and_gradients(minibatch, key, atac_target):
    module = build(fitted=True, atac_target=atac_target).train()
    loss = forward(module, without(minibatch, key, 3), **WEIGHTS)[2]
    loss.loss.backward()
    assert all(part.isfinite() for part in loss.parts.values())
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("key", [REGISTRY.ATAC, REGISTRY.RNA])
def test_minibatch_without_one_modality_gives_finite_gradients(minibatch, key):
    module = build().train()
    forward(module, {**minibatch, key: torch.zeros_like(minibatch[key])})[2].loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_outputs_of_a_cell_without_atac_are_finite(minibatch):
    decoded = decode(build(fitted=True), without(minibatch, REGISTRY.ATAC, 3))
    assert decoded[OUTPUT.PX].scale().isfinite().all()
    assert decoded[OUTPUT.PY].scale().isfinite().all()


# -- gradients ------------------------------------------------------------------------------------

CONFIGURATIONS = [
    {},
    {"self_attention": "scalar"},
    {"cluster_attention": False},
    {"dispersion": "gene-batch"},
    {"dispersion": "gene-label"},
    {"encode_covariates": True},
    {"center_batches": True},
    {"n_categories": (3, 2), "n_continuous": 2},
    {"n_categories": (3, 2), "n_continuous": 2, "encode_covariates": True},
    {"n_batch": 1, "encode_covariates": True},
    {"batch_representation": "embedding", "encode_covariates": True},
    {"batch_representation": "embedding", "n_batch": 1},
    {"atac_target": "tfidf"},
    {"dropout_rate": 0.0, "rna_input_dropout": 0.0, "atac_input_dropout": 0.0},
]


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("changes", CONFIGURATIONS, ids=str)
def test_every_parameter_gets_a_finite_gradient(minibatch, rng, changes, fitted):
    """Distributed training waits for ever for a parameter that gets none."""
    minibatch[REGISTRY.BATCH] %= changes.get("n_batch", 2)
    minibatch[REGISTRY.CATEGORICAL_COVARIATES] = torch.tensor(rng.integers(0, 2, (N_CELLS, 2)))
    minibatch[REGISTRY.CONTINUOUS_COVARIATES] = torch.randn(
        N_CELLS, 2, generator=torch.Generator().manual_seed(0)
    )
    if "n_categories" not in changes:
        del minibatch[REGISTRY.CATEGORICAL_COVARIATES], minibatch[REGISTRY.CONTINUOUS_COVARIATES]
    module = build(fitted=fitted, **changes).train()
    forward(module, minibatch, **WEIGHTS)[2].loss.backward()
    without_gradient = [
        name
        for name, p in module.named_parameters()
        if p.grad is None or not p.grad.isfinite().all()
    ]
    assert without_gradient == []


@pytest.mark.parametrize("cycle", [0.0, 0.1])
def test_every_parameter_gets_a_gradient_without_the_cycle(minibatch, cycle):
    module = build(fitted=True).train()
    weights = {"cycle_weight": cycle, "cycle_cluster_weight": 0.0}
    forward(module, minibatch, **weights)[2].loss.backward()
    assert all(p.grad is not None for p in module.parameters())


def test_prior_parameters_get_gradients_only_after_the_fit(minibatch):
    for fitted in (False, True):
        module = build(fitted=fitted).train()
        forward(module, minibatch, cycle_weight=0.0, cycle_cluster_weight=0.0)[2].loss.backward()
        assert bool((module.prior.means.grad != 0).any()) is fitted


# -- decoding -------------------------------------------------------------------------------------


def test_denoised_rna_sums_to_the_library(minibatch):
    embedded, decoded = build().embed(minibatch), decode(build(), minibatch)
    mean = decoded[OUTPUT.PX].distribution().mean
    torch.testing.assert_close(mean.sum(1, keepdim=True), embedded[OUTPUT.RNA_LIBRARY])
    torch.testing.assert_close(embedded[OUTPUT.RNA_LIBRARY][:, 0], minibatch[REGISTRY.RNA].sum(1))


def test_size_factors_replace_the_depths(minibatch):
    minibatch[REGISTRY.RNA_SIZE_FACTOR] = torch.full((N_CELLS, 1), 5.0)
    minibatch[REGISTRY.ATAC_SIZE_FACTOR] = torch.full((N_CELLS, 1), 6.0)
    module = build()
    module.rna_depth_per_size_factor.fill_(2.0)
    module.atac_depth_per_size_factor.fill_(3.0)
    embedded = module.embed(minibatch)
    assert (embedded[OUTPUT.RNA_LIBRARY] == 10).all()
    assert (embedded[OUTPUT.ATAC_LIBRARY] == 18).all()


@pytest.mark.parametrize("changes", [{}, {"self_attention": "scalar"}], ids=str)
def test_decoding_is_the_same_twice(minibatch, changes):
    module = build(fitted=True, **changes)
    first, second = decode(module, minibatch), decode(module, minibatch)
    for law in (OUTPUT.PX, OUTPUT.PY):
        assert torch.equal(first[law].scale(), second[law].scale())


def test_embedding_of_a_cell_does_not_depend_on_its_minibatch(minibatch):
    module = build()
    whole = module.embed(minibatch)[OUTPUT.QZ].loc
    part = module.embed({key: value[3:5] for key, value in minibatch.items()})[OUTPUT.QZ].loc
    torch.testing.assert_close(part, whole[3:5])


def test_transform_batch_decodes_every_cell_as_if_from_that_batch(minibatch):
    module, z = build(), torch.zeros(N_CELLS, 3)
    moved = {**minibatch, REGISTRY.BATCH: torch.ones_like(minibatch[REGISTRY.BATCH])}
    for law in (OUTPUT.PX, OUTPUT.PY):
        expected = decode(module, moved, z)[law].scale()
        found = decode(module, minibatch, z, transform_batch=1)[law].scale()
        torch.testing.assert_close(found, expected)
        assert not torch.equal(found, decode(module, minibatch, z)[law].scale())


def test_decoder_that_ignores_the_batch_decodes_the_same_in_each(minibatch):
    module = build()
    with torch.no_grad():
        for decoder in (module.rna_decoder, module.atac_decoder):
            decoder.first_layer.shift.categories["0"].zero_()
    profiles = [
        decode(module, minibatch, transform_batch=b)[OUTPUT.PX].scale() for b in (None, 0, 1)
    ]
    assert torch.equal(profiles[0], profiles[1])
    assert torch.equal(profiles[1], profiles[2])


@pytest.mark.parametrize(
    ("dispersion", "key"), [("gene-batch", REGISTRY.BATCH), ("gene-label", REGISTRY.LABELS)]
)
def test_dispersion_of_a_cell_is_that_of_its_batch_or_label(minibatch, dispersion, key):
    module = build(dispersion=dispersion)
    found = decode(module, minibatch)[OUTPUT.PX].distribution().theta
    rows = module.rna_decoder.log_inverse_dispersion.exp()
    expected = torch.stack([rows[code] for code in minibatch[key][:, 0]])
    torch.testing.assert_close(found, expected)
    assert len(found.unique(dim=0)) == len(minibatch[key].unique())


def test_dispersion_follows_transform_batch(minibatch):
    module = build(dispersion="gene-batch")
    found = decode(module, minibatch, transform_batch=1)[OUTPUT.PX].distribution().theta
    expected = module.rna_decoder.log_inverse_dispersion[1].exp()
    torch.testing.assert_close(found, expected.expand(N_CELLS, -1))


def test_covariates_change_the_latent_only_if_they_are_encoded(minibatch):
    moved = {**minibatch, REGISTRY.BATCH: 1 - minibatch[REGISTRY.BATCH]}
    for encoded in (False, True):
        module = build(encode_covariates=encoded)
        first, second = (module.embed(m)[OUTPUT.QZ].loc for m in (minibatch, moved))
        assert torch.equal(first, second) is not encoded


# -- marginal likelihood --------------------------------------------------------------------------


def log_evidence(module: SCMVPModule, minibatch, cell: int) -> float:
    """Integrate the joint density of one cell over a grid of a one-dimensional latent space."""
    grid = torch.linspace(-12, 12, 4_001).unsqueeze(1)
    one = {key: value[[cell]].expand(len(grid), -1) for key, value in minibatch.items()}
    decoded = decode(module, one, grid)
    density = decoded[OUTPUT.PX].log_prob(SparseCounts.from_tensor(one[REGISTRY.RNA]))
    density = density + decoded[OUTPUT.PY].log_prob(SparseCounts.from_tensor(one[REGISTRY.ATAC]))
    density = (density + module.prior.log_prob(grid)).detach().double().numpy()
    peak = density.max()
    return float(peak + np.log(np.trapezoid(np.exp(density - peak), grid[:, 0])))


@pytest.mark.parametrize("fitted", [False, True])
def test_marginal_likelihood_equals_the_integral_over_the_latent_space(minibatch, fitted):
    module = build(n_latent=1, fitted=fitted)
    head = module.joint_encoder.head
    with torch.no_grad():  # draws that reach everywhere, as the estimator needs
        for layer, value in ((head.mean, 0.0), (head.log_variance, np.log(4.0))):
            layer.weight.zero_()
            layer.bias.fill_(value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = module.marginal_ll(minibatch, n_mc_samples=1_000)
    expected = [log_evidence(module, minibatch, cell) for cell in range(N_CELLS)]
    assert found.shape == (N_CELLS,)
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_marginal_likelihood_is_above_the_elbo(minibatch):
    module = build(n_latent=1, fitted=True)
    elbo = np.zeros(N_CELLS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(100):
            loss = module(minibatch)[2]
            cost = sum(loss.reconstruction_loss.values()) + loss.kl_local["kl_local"]
            elbo -= cost.detach().numpy() / 100
    evidence = np.array([log_evidence(module, minibatch, cell) for cell in range(N_CELLS)])
    assert (evidence > elbo - 0.2).all()
    assert evidence.mean() > elbo.mean()


# -- shapes ---------------------------------------------------------------------------------------


def test_latent_point_of_wrong_width_is_refused(minibatch):
    with pytest.raises(TypeCheckError, match="component_log_probs"):
        decode(build(), minibatch, torch.zeros(N_CELLS, 4))


def test_posterior_is_normal_of_cells_by_latent(minibatch):
    qz = build().embed(minibatch)[OUTPUT.QZ]
    assert isinstance(qz, Normal)
    assert qz.loc.shape == qz.scale.shape == (N_CELLS, 3)


def test_moving_the_batch_keeps_the_other_covariates():
    codes = torch.zeros(4, 1, dtype=torch.long)
    covariates = Covariates((codes, codes + 2), torch.ones(4, 1)).with_batch(1)
    assert (covariates.batch == 1).all()
    assert (covariates.categorical[1] == 2).all()
    assert torch.equal(covariates.continuous, torch.ones(4, 1))


# -- random peaks ---------------------------------------------------------------------------------


NO_DROPOUT = {"dropout_rate": 0.0, "rna_input_dropout": 0.0, "atac_input_dropout": 0.0}


def mean_and_error(values: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    stacked = torch.stack(values)
    return stacked.mean(0), stacked.std(0) / len(values) ** 0.5


def test_atac_likelihood_of_sampled_peaks_is_unbiased(minibatch):
    module = build(**NO_DROPOUT).train()
    embedded = module.embed(minibatch)
    decoded = module.decode(minibatch, embedded)

    def cost(n_peaks_per_step: int | None) -> torch.Tensor:
        weights = {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}
        loss = module.loss(
            minibatch, embedded, decoded, n_peaks_per_step=n_peaks_per_step, **weights
        )
        return loss.reconstruction_loss[LOSS.ATAC_RECONSTRUCTION].detach()

    torch.manual_seed(0)
    mean, error = mean_and_error([cost(4) for _ in range(2_000)])
    assert (error > 0).all()
    assert ((mean - cost(None)).abs() < 4.5 * error).all()


def test_rows_of_sampled_peaks_have_the_gradient_that_they_have_among_all(minibatch, monkeypatch):
    all_peaks = FeatureSample(torch.arange(N_PEAKS), torch.linspace(1, 3, N_PEAKS))
    monkeypatch.setattr(_module, "sample_features", lambda *_: all_peaks)
    weights = {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}

    def gradients(n_peaks_per_step: int | None) -> tuple[list[torch.Tensor], torch.Tensor]:
        module = build(**NO_DROPOUT).train()
        forward(module, minibatch, n_peaks_per_step=n_peaks_per_step, **weights)[2].loss.backward()
        decoder = module.atac_decoder
        of_rows = [*decoder.rate.parameters(), *decoder.inclusion.parameters()]
        below = decoder.attention.parameters()
        return [p.grad.to_dense() for p in of_rows], torch.cat([p.grad.ravel() for p in below])

    (exact_rows, exact_below), (rows, below) = gradients(None), gradients(N_PEAKS)
    torch.testing.assert_close(rows, exact_rows)
    # what the peaks share has the gradient of the weighted terms
    assert not torch.allclose(below, exact_below, rtol=0.1)


@pytest.mark.parametrize("by_abundance", [True, False])
def test_imputed_profile_of_sampled_peaks_is_unbiased_for_the_first_layer(minibatch, by_abundance):
    module = build(**NO_DROPOUT)
    py, covariates = decode(module, minibatch)[OUTPUT.PY], module.embed(minibatch)["covariates"]
    layer, idf = module.atac_encoder.first_layer, module.atac_idf
    abundance = idf.reciprocal() if by_abundance else torch.ones_like(idf)

    def linear() -> torch.Tensor:
        sample = sample_features(inclusion_probabilities(abundance, 4), 4)
        blocks = imputed_peaks(module, py.at(sample.columns), sample)
        return layer.of_blocks(blocks, covariates).detach()

    torch.manual_seed(0)
    mean, error = mean_and_error([linear() for _ in range(600)])
    whole = layer.of_blocks(imputed_peaks(module, py), covariates)
    assert ((mean - whole).abs() < 5 * error).all()


def test_imputed_profile_of_sampled_genes_is_unbiased_for_the_first_layer(minibatch):
    module = build(**NO_DROPOUT)
    log_scale = decode(module, minibatch)[OUTPUT.PX].log_scale()
    layer, covariates = module.rna_encoder.first_layer, module.embed(minibatch)["covariates"]
    module.train()

    def linear(n_genes: int) -> torch.Tensor:
        return layer.of_blocks(module._cycle_rna_profile(log_scale, n_genes), covariates).detach()

    torch.manual_seed(0)
    mean, error = mean_and_error([linear(4) for _ in range(2_000)])
    assert (error > 0).all()
    assert ((mean - linear(N_GENES)).abs() < 5 * error).all()


def test_imputed_profile_in_blocks_is_the_whole(minibatch, monkeypatch):
    module = build()
    py = decode(module, minibatch)[OUTPUT.PY]
    (_, whole), *_ = imputed_peaks(module, py)
    monkeypatch.setattr(_profiles, "_PEAKS_PER_BLOCK", 4)
    parts = [values for _, values in imputed_peaks(module, py)]
    assert [part.shape[1] for part in parts] == [4, 4, 3]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


@pytest.mark.parametrize(
    "weights", [{"n_peaks_per_step": 3}, {"n_cycle_peaks": 3}, {"n_cycle_genes": 3}]
)
def test_all_features_count_outside_of_training(minibatch, weights):
    module = build(fitted=True)
    exact = forward(module, minibatch, n_cycle_peaks=N_PEAKS)[2]
    found = forward(module, minibatch, **weights)[2]
    torch.testing.assert_close(found.parts, exact.parts)


@pytest.mark.parametrize(
    "weights", [{"n_peaks_per_step": 3}, {"n_cycle_peaks": 3}, {"n_cycle_genes": 3}]
)
def test_sampled_features_leave_no_parameter_without_a_finite_gradient(minibatch, weights):
    module = build(fitted=True).train()
    forward(module, minibatch, **WEIGHTS, **weights)[2].loss.backward()
    gradients = [p.grad for p in module.parameters()]
    assert all(g is not None and g.to_dense().isfinite().all() for g in gradients)
    is_sparse = module.atac_decoder.rate.weight.grad.is_sparse
    assert is_sparse == ("n_peaks_per_step" in weights)


def test_asking_for_all_peaks_is_the_exact_objective(minibatch):
    module = build(fitted=True, **NO_DROPOUT).train()
    exact = forward(module, minibatch, n_cycle_peaks=N_PEAKS)[2]
    found = forward(module, minibatch, n_peaks_per_step=N_PEAKS)[2]
    torch.testing.assert_close(found.parts, exact.parts)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_dropped_counts_leave_the_mean_of_the_first_layer_near_that_of_all_counts(
    minibatch, modality
):
    module, found = build(**NO_DROPOUT | {f"{modality}_input_dropout": 0.5}), []
    layer = getattr(module, f"{modality}_encoder").first_layer
    layer.register_forward_hook(lambda *given: found.append(given[-1].detach()))
    module.embed(minibatch)
    module.train()
    torch.manual_seed(0)
    for _ in range(300):
        module.embed(minibatch)
    mean, error = mean_and_error(found[1:])
    assert (error > 0).all()
    assert ((mean - found[0]).abs() < 5 * error).all()


def test_alignment_leaves_the_joint_posterior_alone_in_place_and_spread(
    minibatch,
):
    module = build()
    terms = module._alignment_terms(module.embed(minibatch))
    sum(terms.values()).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in module.joint_encoder.parameters())
    for encoder in (module.rna_encoder, module.atac_encoder):
        assert encoder.head.mean.weight.grad.any()
        assert encoder.head.log_variance.weight.grad.any()


@pytest.mark.parametrize("n_asked", [N_PEAKS, N_PEAKS + 1, 10 * N_PEAKS])
def test_asking_for_all_peaks_or_more_is_the_exact_objective(minibatch, n_asked):
    module = build(fitted=True, **NO_DROPOUT).train()
    exact = forward(module, minibatch, n_cycle_peaks=N_PEAKS)[2]
    found = forward(module, minibatch, n_peaks_per_step=n_asked)[2]
    torch.testing.assert_close(found.parts, exact.parts)


@pytest.mark.parametrize("n_peaks_per_step", [None, 8])
def test_accessibility_that_the_cycle_reads_is_unbiased_for_the_first_layer(
    minibatch, n_peaks_per_step
):
    module = build(**NO_DROPOUT)
    py, covariates = decode(module, minibatch)[OUTPUT.PY], module.embed(minibatch)["covariates"]
    layer = module.atac_encoder.first_layer
    whole = layer.of_blocks(imputed_peaks(module, py), covariates).detach()
    module.train()

    def linear() -> torch.Tensor:
        sample, law = None, py
        if n_peaks_per_step is not None:
            sample = sample_features(module.peak_probabilities(n_peaks_per_step), n_peaks_per_step)
            law = py.at(sample.columns)
        return layer.of_blocks(
            module._cycle_atac_profile(law, sample, 4, None), covariates
        ).detach()

    torch.manual_seed(0)
    mean, error = mean_and_error([linear() for _ in range(2_000)])
    assert (error > 0).all()
    assert ((mean - whole).abs() < 5 * error).all()


def test_peaks_with_more_counts_are_drawn_more_often(rng):
    module, totals = build(), torch.as_tensor(rng.uniform(5, 50, N_PEAKS)).float()
    module.set_feature_statistics(
        rna_median_depth=1.0, rna_totals=np.ones(N_GENES), atac_totals=totals.numpy(), n_cells=40
    )
    torch.testing.assert_close(module.peak_probabilities(4), inclusion_probabilities(totals, 4))


@pytest.mark.parametrize("key", [REGISTRY.CATEGORICAL_COVARIATES, REGISTRY.CONTINUOUS_COVARIATES])
@pytest.mark.parametrize("encoded", [False, True])
def test_other_covariates_are_encoded_where_batches_are_centred(minibatch, key, encoded):
    minibatch[REGISTRY.CATEGORICAL_COVARIATES] = torch.arange(N_CELLS).unsqueeze(1) % 2
    minibatch[REGISTRY.CONTINUOUS_COVARIATES] = torch.linspace(-1, 1, N_CELLS).unsqueeze(1)
    module = build(
        center_batches=True, encode_covariates=encoded, n_categories=(2,), n_continuous=1
    )
    moved = {**minibatch, key: 1 - minibatch[key]}
    first, second = (module.embed(m)[OUTPUT.QZ].loc for m in (minibatch, moved))
    assert torch.equal(first, second) is not encoded


def test_each_channel_drops_its_own_share_of_the_input():
    module = build(rna_input_dropout=0.2, atac_input_dropout=0.4)
    assert module.rna_encoder.first_layer.input_dropout == 0.2
    assert module.atac_encoder.first_layer.input_dropout == 0.4


def test_batch_that_enters_by_its_vector_has_no_weights_of_its_own():
    module = build(batch_representation="embedding", encode_covariates=True, n_categories=(3,))
    shifts = [
        getattr(module, f"{modality}_{part}").first_layer.shift
        for modality in ("rna", "atac")
        for part in ("encoder", "decoder")
    ]
    assert all(list(shift.categories) == ["1"] for shift in shifts)
    assert all(shift.batch_directions.shape[0] == 5 for shift in shifts)


def test_cluster_term_counts_without_the_cycle_of_the_latent_space(
    minibatch,
):
    module = build(fitted=True)
    found = forward(module, minibatch, cycle_weight=0.0)[2].parts
    expected = forward(module, minibatch)[2].parts
    torch.testing.assert_close(found, expected)


def test_reconstruction_teaches_the_encoders_through_the_draw(minibatch):
    module = build()
    terms = forward(module, minibatch)[2].reconstruction_loss
    sum(term.sum() for term in terms.values()).backward()
    head = module.joint_encoder.head
    assert all(p.grad.abs().max() > 1e-6 for p in head.parameters())
    for encoder in (module.rna_encoder, module.atac_encoder):
        assert encoder.first_layer.weight.grad.abs().max() > 1e-6
