"""Terms of the objective beside the likelihoods and the KL to the prior (section 3.7)."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from scmvp_scvi.distributions._gaussian_mixture import MIN_LOG_PROB


def latent_divergence(joint: Normal, channel: Normal) -> Float[Tensor, "*channels cells"]:
    """KL(q(z | x, y) || q(z | one channel)), the first consistency term (section 3.6).

    Parameters
    ----------
    joint
        Joint posterior, batch shape ``(cells, latent)``.
    channel
        Posterior of a single-modality channel, on an observed or on an imputed profile; those of
        several may stand in front of each other.

    Returns
    -------
    Closed form for diagonal Gaussians, summed over the latent axis.
    """
    return kl_divergence(joint, channel).sum(-1)


def cluster_divergence(
    joint_log_probs: Float[Tensor, "cells clusters"],
    channel_log_probs: Float[Tensor, "*channels cells clusters"],
) -> Float[Tensor, "*channels cells"]:
    """KL between the cluster posteriors that two embeddings imply (section 3.6).

    Parameters
    ----------
    joint_log_probs
        log p(c | z) at the joint embedding.
    channel_log_probs
        log p(c | z) at the embedding of the imputed profile, of one channel or of several.
    """
    # unused clusters have log-probability minus infinity in both; the clamp makes them cancel
    joint = joint_log_probs.clamp_min(MIN_LOG_PROB)
    channel = channel_log_probs.clamp_min(MIN_LOG_PROB)
    return (joint.exp() * (joint - channel)).sum(-1)


def label_surprise(
    cluster_log_probs: Float[Tensor, "cells clusters"], components: Int[Tensor, "cells"]
) -> Float[Tensor, "cells"]:
    """-log p(c | z) of the component that the label of a cell names.

    With it, the negative ELBO of the counts becomes that of the counts and the label
    :cite:p:`Kingma2014`.

    Parameters
    ----------
    cluster_log_probs
        log p(c | z) at a draw of z.
    components
        The component of each cell's label; negative for cells without one, which have 0.
    """
    named = cluster_log_probs.gather(-1, components.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return -named.masked_fill(components < 0, 0.0)
