"""Small data, and methods that cost nothing."""

import numpy as np
import pytest
from mudata import MuData

from harness.data import subset
from harness.methods.base import Embedder


@pytest.fixture(scope="session")
def cells(make_mdata) -> MuData:
    """Paired counts of three types as the benchmark hands them out; tests only read them."""
    mdata = make_mdata(n_cells=240, n_types=3, n_batches=1)
    mdata.obs = mdata.obs[["cell_type"]].astype(str)
    return subset(mdata, np.arange(mdata.n_obs))


class DepthEmbedder(Embedder):
    """Places cells by their depths, and remembers how often it was fitted."""

    fits = 0

    def fit(self, train: MuData, seed: int) -> None:
        type(self).fits += 1
        self.settings["seed of the fit"] = seed
        self.points = np.hstack([np.asarray(train[m].X.sum(1)) for m in ("rna", "atac")])

    def embed(self, view: str) -> np.ndarray:
        return self.points


@pytest.fixture
def depth_embedder() -> type[Embedder]:
    """Class of a method, its count of fits at zero."""
    return type("Fresh", (DepthEmbedder,), {"fits": 0})
