"""`Calibration`: what a channel's posterior is worth in cells that it has not learned from."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal


class CalibrationFit(NamedTuple):
    """Slope and offset of the means of a posterior, and scale of its standard deviations."""

    slope: float
    offset: np.ndarray  # (latent,)
    scale: float


class Calibration(nn.Module):
    """Affine map of the Gaussian posteriors of one channel, which changes nothing at first.

    Parameters
    ----------
    n_latent
        Dimensions of the latent space.
    """

    slope: Float[Tensor, ""]
    offset: Float[Tensor, "latent"]
    scale: Float[Tensor, ""]

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(n_latent))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def copy_fit(self, fit: CalibrationFit | None) -> None:
        """Take the numbers of a fit, or with None those that change nothing.

        Parameters
        ----------
        fit
            The fit.
        """
        self.slope.fill_(1.0 if fit is None else fit.slope)
        self.scale.fill_(1.0 if fit is None else fit.scale)
        offset = torch.zeros_like(self.offset) if fit is None else torch.as_tensor(fit.offset)
        self.offset.copy_(offset)

    def forward(self, posterior: Normal) -> Normal:
        """Return the calibrated posterior.

        Parameters
        ----------
        posterior
            Of the channel, batch shape ``(cells, latent)``.
        """
        loc = self.offset + self.slope * posterior.loc
        return Normal(loc, self.scale * posterior.scale, validate_args=False)
