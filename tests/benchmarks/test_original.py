"""The way to the authors' scMVP and back, with a stand-in for it whose values are known."""

import sys
from pathlib import Path

import numpy as np
import pytest

from harness.methods import what_is_missing
from harness.methods.original import PYTHON, OriginalSCMVP

# latents are depths, probabilities those of a cell's own RNA, imputed values twice the data
STAND_IN = {
    "__init__": '__version__ = "0.0.0"',
    "dataset": """
class CellMeasurement:
    def __init__(self, data, **names):
        self.data = data

class GeneExpressionDataset:
    def populate_from_data(self, X, gene_names, Ys):
        self.X, self.nb_genes, self.atac = X, X.shape[1], Ys[0].data if Ys else None
        assert len(gene_names) == X.shape[1]

    def __len__(self):
        return len(self.X)
""",
    "models": """
from torch import nn

class VAE_Attention(nn.Module):
    def __init__(self, n_features, **options):
        super().__init__()
        self.z_encoder = nn.Linear(n_features, 2)

class VAE_Peak_SelfAttention(VAE_Attention):
    pass

class Multi_VAE_Attention(nn.Module):
    def __init__(self, n_genes, n_peaks, **options):
        super().__init__()
        self.RNA_encoder, self.ATAC_encoder = nn.Linear(n_genes, 2), nn.Linear(n_peaks, 2)

    def init_gmm_params(self, latent):
        assert latent.shape[1] == 1

    def init_gmm_params_with_louvain(self, latent, clusters):
        assert sorted(set(clusters)) == [0, 1]
""",
    "inference": """
import numpy as np

class UnsupervisedTrainer:
    def __init__(self, model, cells, **options):
        self.model, self.cells = model, cells

    def train(self, n_epochs, lr):
        self.model.train()  # as its trainer does at the end
        print("a line for each minibatch")
        if np.isnan(self.cells.X).any():
            raise ValueError("The parameter loc has invalid values")

    def create_posterior(self, model, cells, indices):
        return MultiPosterior(model, cells, indices)

class MultiTrainer(UnsupervisedTrainer):
    pass

class MultiPosterior:
    def __init__(self, model, cells, indices, **options):
        self.model, self.cells = model, cells

    def sequential(self):
        return self

    def get_latent(self):
        assert not self.model.training
        rna = self.cells.X.sum(1, keepdims=True)
        if self.cells.atac is None:
            return rna, None, None
        atac = self.cells.atac.sum(1, keepdims=True)
        return rna + atac, rna, atac, self.cells.X / rna, None

    def imputation(self):
        assert not self.model.training
        return 2 * self.cells.X, 2 * self.cells.atac, None
""",
}

# and for what clusters the RNA in its environment: cells by whether they are the first ten
LOUVAIN = """
from types import SimpleNamespace

def cluster(cells, random_state):
    cells.obs["louvain"] = (cells.obs_names.astype(int) >= 10).astype(int).astype(str)

pp = SimpleNamespace(neighbors=lambda cells, use_rep, n_neighbors, random_state: None)
tl = SimpleNamespace(louvain=cluster)
"""


@pytest.fixture
def _stand_in(tmp_path, monkeypatch):
    folder = tmp_path / "scMVP"
    folder.mkdir()
    for name, code in STAND_IN.items():
        (folder / f"{name}.py").write_text(code)
    (tmp_path / "scanpy.py").write_text(LOUVAIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(PYTHON, sys.executable)


@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize(("n_clusters", "components"), [(3, 3), (None, 2)])
def test_values_of_the_original_come_back_for_the_cells_they_were_asked_for(
    cells, n_clusters, components
):
    method = OriginalSCMVP(n_clusters)
    method.fit(cells, 0)
    assert method.settings["components"] == components
    rna = cells["rna"].X.toarray()
    depths = rna.sum(1, keepdims=True)
    np.testing.assert_allclose(method.embed("rna"), depths)
    new = cells[60:80].copy()
    np.testing.assert_allclose(method.project(new, "rna"), depths[60:80])
    np.testing.assert_allclose(method.cluster_probabilities(new), (rna / depths)[60:80], rtol=1e-5)
    np.testing.assert_allclose(method.cluster_probabilities(), rna / depths, rtol=1e-5)
    rows = np.array([7, 3])
    np.testing.assert_allclose(method.impute("rna", rows), 2 * rna[rows])
    # twice the TF-IDF is (1 + x)^2 - 1 as a share in counts per 10,000
    counts = cells["atac"].X[rows].toarray()
    shares = 1e4 * counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(method.impute("atac", rows), (1 + shares) ** 2 - 1, rtol=1e-3)
    assert method.settings["environment"]["scMVP"] == "0.0.0"
    assert method.peak_memory > 1e7 or not Path("/proc/self/status").exists()


@pytest.mark.usefixtures("_stand_in")
def test_a_fit_of_the_original_that_ends_in_nan_is_told_from_other_errors(cells, monkeypatch):
    broken = cells.copy()
    broken["rna"].X.data[0] = np.nan
    with pytest.raises(RuntimeError, match="ended in nan: ValueError"):
        OriginalSCMVP(n_clusters=3).fit(broken, 0)
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(RuntimeError, match="ended in an error: ModuleNotFoundError"):
        OriginalSCMVP(n_clusters=3).fit(cells, 0)


def test_the_original_is_missing_without_its_interpreter(monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    assert PYTHON in what_is_missing("original scMVP")
    monkeypatch.setenv(PYTHON, "python3.7")
    assert what_is_missing("original scMVP") is None
