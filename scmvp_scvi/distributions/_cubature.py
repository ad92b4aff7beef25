"""Points over which a mean under a Gaussian is taken, without chance."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def cubature_points(n_points: int, n_axes: int) -> Float[Tensor, "points axes"]:
    r"""Points whose mean stands for that under a standard Gaussian, the same in every call.

    They lie in pairs, :math:`\pm \sqrt{d}` along orthonormal axes in d dimensions. Those of all d
    axes are the rule of third degree :cite:p:`Arasaratnam2009`: means of polynomials up to the
    third degree are exact. Fewer points take the first axes of a basis drawn once, and means of
    polynomials of odd degree stay exact; more take further bases.

    Parameters
    ----------
    n_points
        1, for the mean of the Gaussian alone, or an even number.
    n_axes
        Dimensions d.
    """
    if n_points == 1:
        return torch.zeros(1, n_axes)
    rng = np.random.default_rng(0)
    n_pairs = n_points // 2
    bases = [
        np.linalg.qr(rng.normal(size=(n_axes, n_axes)))[0].T for _ in range(-(-n_pairs // n_axes))
    ]
    axes = np.sqrt(n_axes) * np.concatenate(bases)[:n_pairs]
    return torch.as_tensor(np.concatenate([axes, -axes]), dtype=torch.float32)
