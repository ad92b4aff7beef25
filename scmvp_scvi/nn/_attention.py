"""The three attentions of the paper: mask (RNA), multi-head self (ATAC) and cluster attention."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SelfAttentionForm = Literal["token", "scalar"]


def _batch_norm(n_hidden: int) -> nn.BatchNorm1d:
    """BatchNorm with the momentum and epsilon of scvi-tools' layers."""
    return nn.BatchNorm1d(n_hidden, momentum=0.01, eps=1e-3)


def attention(
    query: Float[Tensor, "*groups tokens width"],
    key: Float[Tensor, "*groups tokens width"],
    value: Float[Tensor, "*groups tokens width"],
    scale: float,
) -> Float[Tensor, "*groups tokens width"]:
    """Softmax(scale * Q K^T) V, within each group of tokens.

    Parameters
    ----------
    query, key, value
        Projections of the tokens.
    scale
        Factor on the logits: ``1 / sqrt(width)`` in ordinary attention.
    """
    logits = scale * query @ key.transpose(-1, -2)
    return logits.softmax(-1) @ value


class MaskAttention(nn.Module):
    """Hidden layer weighted by a mask made from it (equations 1 to 3).

    ``ReLU(BatchNorm(LayerNorm(h))) * Sigmoid(Linear(h))`` for ``h`` the output of the first
    linear layer, which both factors share: the mask is "generated from the first hidden layer",
    and Sigmoid(Linear(Linear(x))) as equation 3 has it.

    Parameters
    ----------
    n_hidden
        Width of the layer.
    """

    def __init__(self, n_hidden: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(n_hidden)
        self.batch_norm = _batch_norm(n_hidden)
        self.mask = nn.Linear(n_hidden, n_hidden)

    def forward(self, linear: Float[Tensor, "cells hidden"]) -> Float[Tensor, "cells hidden"]:
        """Apply to the output of the channel's first linear layer."""
        activation = F.relu(self.batch_norm(self.layer_norm(linear)))
        return activation * self.mask(linear).sigmoid()


class SelfAttention(nn.Module):
    """Hidden layer followed by multi-head self attention over its features (equation 7).

    ``e = ReLU(BatchNorm(LayerNorm(h)))`` is cut into ``n_heads`` pieces of equal width.

    Parameters
    ----------
    n_hidden
        Width of the layer.
    n_heads
        Number of heads; divides ``n_hidden``.
    form
        ``"token"``, the published text: each piece is one token of ``n_hidden / n_heads``
        features, logits are divided by the root of that width, and an output projection W^O, a
        residual and a LayerNorm follow. ``"scalar"``, the authors' code: within each head the
        features are tokens of width one, logits are unscaled, and a LayerNorm follows.
    dropout_rate
        Dropout on the attended values, in training.
    """

    def __init__(
        self, n_hidden: int, n_heads: int, form: SelfAttentionForm, dropout_rate: float
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.form = form
        self.layer_norm = nn.LayerNorm(n_hidden)
        self.batch_norm = _batch_norm(n_hidden)
        self.query = nn.Linear(n_hidden, n_hidden)
        self.key = nn.Linear(n_hidden, n_hidden)
        self.value = nn.Linear(n_hidden, n_hidden)
        self.project = nn.Linear(n_hidden, n_hidden) if form == "token" else nn.Identity()
        self.dropout = nn.Dropout(dropout_rate)
        self.output_norm = nn.LayerNorm(n_hidden)

    def forward(self, linear: Float[Tensor, "cells hidden"]) -> Float[Tensor, "cells hidden"]:
        """Apply to the output of the channel's first linear layer."""
        e = F.relu(self.batch_norm(self.layer_norm(linear)))
        cut = (e.shape[0], self.n_heads, -1)
        query, key, value = (layer(e).view(cut) for layer in (self.query, self.key, self.value))
        if self.form == "token":
            attended = attention(query, key, value, scale=1 / math.sqrt(query.shape[-1]))
            attended = e + self.dropout(self.project(attended.flatten(1)))
        else:
            query, key, value = (part.unsqueeze(-1) for part in (query, key, value))
            attended = self.dropout(attention(query, key, value, scale=1.0).flatten(1))
        return self.output_norm(attended)


class ClusterAttention(nn.Module):
    """Weights of the decoders' last hidden layer, from the cluster posterior (section 3.4).

    ``Softmax(Linear(p(c | z)))``, rescaled to mean one, so that a layer of any width keeps its
    scale. The linear weights start at zero: a prior that has just been fitted changes nothing at
    first.

    Parameters
    ----------
    n_clusters
        Length of the cluster posterior.
    n_hidden
        Width of the layer that is weighted.
    """

    def __init__(self, n_clusters: int, n_hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_clusters, n_hidden)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, cluster_probs: Float[Tensor, "*draws cells clusters"]
    ) -> Float[Tensor, "*draws cells hidden"]:
        """Return the weights, mean one over the hidden units of each cell."""
        weights = self.linear(cluster_probs).softmax(-1)
        return weights * weights.shape[-1]

    @torch.no_grad()
    def hand_over(self, shares: Float[Tensor, "new clusters"]) -> None:
        """Give the clusters of a new mixture what was learned of those they come from.

        Parameters
        ----------
        shares
            Share of each old cluster in each new one, summing to one over the old; at most as
            many new clusters as there is room for.
        """
        learned = self.linear.weight @ shares.T
        self.linear.weight.zero_()
        self.linear.weight[:, : len(shares)] = learned
