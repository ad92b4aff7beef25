"""Batches taken out of the components of another method."""

import numpy as np
from mudata import MuData

from harness.methods.base import Embedder, View
from harness.methods.simple import N_COMPONENTS, Components


class Harmony(Embedder):
    """Components of one modality or of both, of which Harmony takes the batches out.

    It moves the cells that it is given and maps no others.

    Parameters
    ----------
    view
        Of which modalities the components are.
    """

    needs_batches = True
    packages = ("harmonypy", "scikit-learn")

    def __init__(self, view: View) -> None:
        super().__init__()
        self.views = (view,)
        self.settings = {"n_components": N_COMPONENTS}

    def fit(self, train: MuData, seed: int) -> None:
        import harmonypy  # of the extra `bench`

        [view] = self.views
        space = Components(view)
        space.fit(train, seed)
        harmony = harmonypy.run_harmony(
            space.embed(view), train.obs, "batch", random_state=seed, verbose=False
        )
        self.points = harmony.Z_corr

    def embed(self, view: View) -> np.ndarray:
        del view
        return self.points
