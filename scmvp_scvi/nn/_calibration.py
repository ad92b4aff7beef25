"""`Calibration`: what a channel's posterior is worth in cells that it has not learned from."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal


class CalibrationFit(NamedTuple):
    """Slope of the means of a posterior about a centre, and scale of its standard deviations."""

    slope: float
    centre: np.ndarray  # (latent,)
    mapped_centre: np.ndarray  # (latent,), what the centre becomes
    scale: float


def no_calibration(n_latent: int) -> CalibrationFit:
    """Return the numbers that change nothing.

    Parameters
    ----------
    n_latent
        Dimensions of the latent space.
    """
    return CalibrationFit(1.0, np.zeros(n_latent), np.zeros(n_latent), 1.0)


class Calibration(nn.Module):
    """Affine map of the Gaussian posteriors of one channel, which changes nothing at first.

    Parameters
    ----------
    n_latent
        Dimensions of the latent space.
    """

    slope: Float[Tensor, ""]
    centre: Float[Tensor, "latent"]
    mapped_centre: Float[Tensor, "latent"]
    scale: Float[Tensor, ""]

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        for name, value in no_calibration(n_latent)._asdict().items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.get_default_dtype()))

    @torch.no_grad()
    def copy_fit(self, fit: CalibrationFit) -> None:
        """Take the numbers of a fit.

        Parameters
        ----------
        fit
            The fit.
        """
        for name, value in fit._asdict().items():
            getattr(self, name).copy_(torch.as_tensor(value))

    def forget(self) -> None:
        """Change nothing again."""
        self.copy_fit(no_calibration(len(self.centre)))

    def forward(self, posterior: Normal) -> Normal:
        """Return the calibrated posterior.

        Parameters
        ----------
        posterior
            Of the channel, batch shape ``(cells, latent)``.
        """
        loc = self.mapped_centre + self.slope * (posterior.loc - self.centre)
        return Normal(loc, self.scale * posterior.scale, validate_args=False)
