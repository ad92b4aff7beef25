"""Terms of consistency are zero on equals, and all terms equal to SciPy and quadrature."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import xlogy
from scipy.stats import entropy, norm
from torch.distributions import Normal

from scmvp_scvi._losses import cluster_divergence, label_surprise, latent_divergence

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def random_normal(rng, n_latent: int = 3) -> Normal:
    loc, scale = rng.normal(size=(6, n_latent)), rng.uniform(0.3, 2.0, (6, n_latent))
    return Normal(torch.as_tensor(loc), torch.as_tensor(scale))


def random_log_probs(rng, n_clusters: int = 5) -> torch.Tensor:
    return torch.as_tensor(np.log(rng.dirichlet(np.ones(n_clusters), 6)))


def with_unused(log_probs: torch.Tensor) -> torch.Tensor:
    """Append two clusters that the prior does not use."""
    return torch.cat((log_probs, torch.full((6, 2), -torch.inf, dtype=torch.float64)), -1)


def test_latent_divergence_is_zero_on_equals(rng):
    qz = random_normal(rng)
    assert not latent_divergence(qz, Normal(qz.loc.clone(), qz.scale.clone())).any()


def test_latent_divergence_matches_the_integral_over_the_latent_line(rng):
    joint, channel = random_normal(rng, n_latent=1), random_normal(rng, n_latent=1)
    for cell, value in enumerate(latent_divergence(joint, channel)):
        q, p = (norm(law.loc[cell].item(), law.scale[cell].item()) for law in (joint, channel))
        centre, width = joint.loc[cell].item(), 10 * joint.scale[cell].item()
        integral, _ = quad(
            lambda x, q=q, p=p: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)),
            centre - width,
            centre + width,
        )
        assert value.item() == pytest.approx(integral, rel=1e-6)


def test_latent_divergence_sums_the_textbook_form_over_latent_axes(rng):
    joint, channel = random_normal(rng), random_normal(rng)
    m0, s0, m1, s1 = (t.numpy() for t in (joint.loc, joint.scale, channel.loc, channel.scale))
    expected = np.log(s1 / s0) + (s0**2 + (m0 - m1) ** 2) / (2 * s1**2) - 0.5
    np.testing.assert_allclose(latent_divergence(joint, channel), expected.sum(1), **EXACT)


def test_latent_divergence_has_one_positive_value_a_cell_and_finite_gradients(rng):
    joint, channel = random_normal(rng), random_normal(rng)
    parameters = [joint.loc, joint.scale, channel.loc, channel.scale]
    divergence = latent_divergence(*(Normal(*pair) for pair in pairs_requiring_grad(parameters)))
    assert divergence.shape == (6,)
    assert (divergence > 0).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(divergence.sum(), parameters))


def pairs_requiring_grad(parameters: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    leaves = [p.requires_grad_() for p in parameters]
    return [leaves[:2], leaves[2:]]


def test_cluster_divergence_is_zero_on_equals(rng):
    log_probs = random_log_probs(rng)
    assert not cluster_divergence(log_probs, log_probs.clone()).any()


def test_cluster_divergence_matches_scipy_entropy(rng):
    joint, channel = random_log_probs(rng), random_log_probs(rng)
    expected = entropy(joint.exp().numpy(), channel.exp().numpy(), axis=1)
    np.testing.assert_allclose(cluster_divergence(joint, channel), expected, **EXACT)


def test_cluster_divergence_is_not_symmetric(rng):
    joint, channel = random_log_probs(rng), random_log_probs(rng)
    forward, backward = cluster_divergence(joint, channel), cluster_divergence(channel, joint)
    assert not torch.isclose(forward, backward, rtol=1e-3).any()


def test_unused_clusters_change_the_cluster_divergence_by_nothing(rng):
    joint, channel = random_log_probs(rng), random_log_probs(rng)
    roomy = cluster_divergence(with_unused(joint), with_unused(channel))
    torch.testing.assert_close(roomy, cluster_divergence(joint, channel), **EXACT)


def test_unused_clusters_get_no_gradient_and_leave_that_of_the_others(rng):
    joint, channel = random_log_probs(rng), random_log_probs(rng)
    leaves = [t.requires_grad_() for t in (joint, channel)]
    plain = torch.autograd.grad(cluster_divergence(joint, channel).sum(), leaves)
    roomy_leaves = [with_unused(t.detach()).requires_grad_() for t in leaves]
    roomy = torch.autograd.grad(cluster_divergence(*roomy_leaves).sum(), roomy_leaves)
    for gradient, expected in zip(roomy, plain, strict=True):
        torch.testing.assert_close(gradient[:, :5], expected, **EXACT)
        assert not gradient[:, 5:].any()


def test_cluster_divergence_is_finite_for_certain_cells_that_disagree():
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    disagreeing = torch.tensor([[-torch.inf, 0.0, -torch.inf]]).requires_grad_()
    divergence = cluster_divergence(certain, disagreeing)
    divergence.backward()
    assert divergence.isfinite()
    assert divergence > 10
    assert disagreeing.grad.isfinite().all()


def test_label_surprise_is_scipys_log_loss_of_the_cells_with_a_label(rng):
    log_probs = with_unused(random_log_probs(rng)).requires_grad_()
    components = torch.tensor([0, 4, -1, 2, 2, -1])
    surprise = label_surprise(log_probs, components)
    probs, labelled = log_probs.detach().exp().numpy(), components.numpy() >= 0
    truth = np.eye(probs.shape[1])[components.clamp_min(0)]
    expected = np.where(labelled, -xlogy(truth, probs).sum(1), 0)
    np.testing.assert_allclose(surprise.detach(), expected, **EXACT)
    [gradient] = torch.autograd.grad(surprise.sum(), log_probs)
    assert np.array_equal(gradient, -truth * labelled[:, None])
