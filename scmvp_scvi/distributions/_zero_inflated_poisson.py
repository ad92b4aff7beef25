"""The zero-inflated Poisson law of the ATAC counts (equations 16 to 19)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.nn import functional as F


def zero_inflated_poisson_log_prob(
    value: Float[Tensor, "*shape"],
    rate: Float[Tensor, "*shape"],
    inclusion_logits: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """Log-probability of counts that are Poisson with probability tau and zero otherwise.

    Equation 19 in its usual form: the mass ``1 - tau`` is added only where the count is zero.

    Parameters
    ----------
    value
        Counts; half counts are accepted, through the gamma function.
    rate
        Mean mu of the Poisson part, in counts.
    inclusion_logits
        Logit of the inclusion probability tau.

    Returns
    -------
    Elementwise log-probability, in nats.
    """
    # log(1 - tau + tau e^-mu), with t the logit of tau, which is infinite where tau is 1
    log_zero = torch.logaddexp(
        F.logsigmoid(-inclusion_logits), F.logsigmoid(inclusion_logits) - rate
    )
    # not of a rate of zero where there is no count: `where` multiplies the gradient of what it
    # does not take by zero, and that would make NaN of it
    log_count = (
        F.logsigmoid(inclusion_logits)
        + torch.xlogy(value, torch.where(value == 0, 1.0, rate))
        - rate
        - torch.lgamma(value + 1.0)
    )
    return torch.where(value == 0, log_zero, log_count)


class ZeroInflatedPoisson(Distribution):
    """Poisson counts that are replaced by zero with probability ``1 - tau``.

    Parameters
    ----------
    rate
        Mean mu of the Poisson part, in counts. The denoised accessibility of the paper.
    inclusion_logits
        Logit of the inclusion probability tau (equation 18).
    scale
        ``rate`` as a share of the cell's library, what `get_normalized` returns for ``"scale"``.
    validate_args
        Whether to check the parameters and the values.

    Notes
    -----
    The mean is ``tau * mu`` and the variance ``tau * mu * (1 + (1 - tau) * mu)``
    :cite:p:`Lambert1992`.
    """

    arg_constraints = {
        "rate": constraints.greater_than_eq(0),
        "inclusion_logits": constraints.real,
        "scale": constraints.greater_than_eq(0),
    }
    support = constraints.greater_than_eq(0)  # half counts occur in published data

    def __init__(
        self,
        rate: Tensor,
        inclusion_logits: Tensor,
        scale: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.rate, self.inclusion_logits = broadcast_all(rate, inclusion_logits)
        self.scale = self.rate if scale is None else scale
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def inclusion_probs(self) -> Tensor:
        """Inclusion probability tau, shaped like ``rate``."""
        return self.inclusion_logits.sigmoid()

    @property
    def mean(self) -> Tensor:
        """Expected count, ``tau * mu``."""
        return self.inclusion_probs * self.rate

    @property
    def variance(self) -> Tensor:
        """Variance of the count, in counts squared."""
        return self.mean * (1 + (1 - self.inclusion_probs) * self.rate)

    def expand(
        self,
        batch_shape: torch.Size | list[int] | tuple[int, ...],
        _instance: Distribution | None = None,
    ) -> "ZeroInflatedPoisson":
        """Return the law with its parameters broadcast to ``batch_shape``."""
        del _instance
        return ZeroInflatedPoisson(
            self.rate.expand(batch_shape),
            self.inclusion_logits.expand(batch_shape),
            scale=self.scale.expand(batch_shape),
            validate_args=self._validate_args,
        )

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw counts, ``(*sample_shape, *batch_shape)``."""
        shape = self._extended_shape(torch.Size(sample_shape))
        counts = torch.poisson(self.rate.expand(shape))
        return counts * torch.bernoulli(self.inclusion_probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of ``value``, in nats, elementwise."""
        if self._validate_args:
            self._validate_sample(value)
        value, rate, logits = broadcast_all(value, self.rate, self.inclusion_logits)
        return zero_inflated_poisson_log_prob(value, rate, logits)

    def get_normalized(self, key: str) -> Tensor:
        """Return ``"mu"`` (the Poisson mean) or ``"scale"``, as scvi-tools' laws do.

        Raises
        ------
        ValueError
            If ``key`` is neither.
        """
        if key == "mu":
            return self.rate
        if key == "scale":
            return self.scale
        raise ValueError(f"`key` must be 'mu' or 'scale', got {key!r}.")

    def __repr__(self) -> str:
        return f"ZeroInflatedPoisson(batch_shape={tuple(self.batch_shape)})"
