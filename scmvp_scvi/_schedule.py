"""When the mixture is fitted, how much the KL weighs at each step, and how long the steps are."""

import math
from dataclasses import dataclass

from scmvp_scvi._validate import check_in

_MIXTURE_WARMUP = 0.1  # share of the steps over which the KL to a new mixture gains its weight
_LR_WARMUP = 0.05  # share of the steps over which they become as long as asked for


@dataclass(frozen=True)
class Schedule:
    """A training under a broad Gaussian first, then under a mixture that is fitted twice.

    Parameters
    ----------
    mixture_start
        Share of the epochs before the first fit.
    mixture_refit
        Share of the epochs with the mixture before the second one; None for no second one.
    kl_warmup
        Share of the steps over which the weight of the KL rises to that of the Gaussian.
    min_kl_weight, gaussian_kl_weight, max_kl_weight
        Weight of the KL at the first step, to the Gaussian, and to the mixture.

    Raises
    ------
    TypeError
        If one is no number.
    ValueError
        If one is out of its range, or the weights do not rise.
    """

    mixture_start: float
    mixture_refit: float | None
    kl_warmup: float
    min_kl_weight: float
    gaussian_kl_weight: float
    max_kl_weight: float

    def __post_init__(self) -> None:
        check_in(self.mixture_start, "(0, 1]", name="mixture_start")
        check_in(self.kl_warmup, "[0, 1]", name="kl_warmup")
        if self.mixture_refit is not None:  # which fits the mixture once
            check_in(self.mixture_refit, "(0, 1)", name="mixture_refit")
        check_in(self.min_kl_weight, "[0, inf)", name="min_kl_weight")
        check_in(self.gaussian_kl_weight, "(0, inf)", name="gaussian_kl_weight")
        check_in(self.max_kl_weight, "(0, inf)", name="max_kl_weight")
        weights = self.min_kl_weight, self.gaussian_kl_weight, self.max_kl_weight
        if not weights[0] <= weights[1] <= weights[2]:
            raise ValueError(
                "The weight of the KL rises from `min_kl_weight` by `gaussian_kl_weight` to "
                f"`max_kl_weight`, got {weights[0]}, {weights[1]} and {weights[2]}: set the "
                "others as well."
            )

    def first_mixture_epoch(self, n_epochs: int) -> int:
        """First epoch with the mixture, counted from 0, in a training of ``n_epochs``."""
        return max(1, round(self.mixture_start * n_epochs))

    def second_mixture_epoch(self, n_epochs: int) -> int | None:
        """First epoch with the mixture fitted anew; None if it is not."""
        first = self.first_mixture_epoch(n_epochs)
        if self.mixture_refit is None:
            return None
        second = first + max(1, round(self.mixture_refit * (n_epochs - first)))
        return second if second < n_epochs else None

    def epochs_to_last_objective(self, n_epochs: int) -> int:
        """Epochs after which neither the weight of the KL nor the mixture changes by schedule."""
        full_weight = self.first_mixture_epoch(n_epochs) + math.ceil(_MIXTURE_WARMUP * n_epochs)
        return max(full_weight, self.second_mixture_epoch(n_epochs) or 0)

    def kl_weight(self, step: int, n_steps: int, mixture_step: int | None) -> float:
        """Weight of the KL at a step of ``n_steps``.

        A line from the least weight to that of the Gaussian, and from ``mixture_step``, the first
        with the mixture, another one to the largest weight.
        """
        if mixture_step is None:
            least, most, since = self.min_kl_weight, self.gaussian_kl_weight, 0
            n_rising = self.kl_warmup * n_steps
        else:
            least, most, since = self.gaussian_kl_weight, self.max_kl_weight, mixture_step
            n_rising = _MIXTURE_WARMUP * n_steps
        progress = min(1.0, (step - since) / n_rising) if n_rising > 0 else 1.0
        return least + progress * (most - least)


def cosine_factor(step: int, n_steps: int) -> float:
    """What the learning rate is multiplied by at a step: a short line up, half a cosine down."""
    n_warmup = max(1, round(_LR_WARMUP * n_steps))
    warmup = min(1.0, (step + 1) / n_warmup)
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))
