"""Methods that impute the counts of cells, or predict one modality of new cells from the other."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Literal

import numpy as np
import scvi
import torch
from imputation_scores import DEPTH, poisson_rates
from mudata import MuData
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, normalize
from torch.distributions import Distribution, Poisson

from scmvp_scvi import SCMVPModel
from scmvp_scvi._keys import OUTPUT
from scmvp_scvi._model import default_max_epochs

Modality = Literal["rna", "atac"]
OTHER: dict[Modality, Modality] = {"rna": "atac", "atac": "rna"}
MODALITIES = {"rna_layer": "rna", "atac_layer": "atac"}
N_COMPONENTS = 30
MOST_EPOCHS = 40  # of scmvp, so that a run takes minutes


class Method(ABC):
    """What is fitted to paired counts and returns profiles of some cells at a time.

    The values of a cell are non-negative and count up to a factor.
    """

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}

    @abstractmethod
    def fit(self, train: MuData, seed: int) -> None:
        """Learn from the counts of the training cells."""

    @abstractmethod
    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        """Profiles of training cells."""

    def laws(
        self, modality: Modality, rows: np.ndarray, depth: np.ndarray, n_draws: int
    ) -> Iterator[Distribution]:
        """Laws of the counts of training cells at the given depths, one for each draw.

        Without a law of its own, a method has Poisson counts about its profile.
        """
        rates = torch.as_tensor(poisson_rates(self.impute(modality, rows), depth))
        for _ in range(n_draws):
            yield Poisson(rates)


class Predictor(Method):
    """A method that needs but one modality of a new cell."""

    @abstractmethod
    def predict(self, modality: Modality, query: MuData, rows: np.ndarray) -> np.ndarray:
        """Profiles of new cells, whose counts are in the other modality alone."""


class Raw(Method):
    """The training counts themselves."""

    def fit(self, train: MuData, seed: int) -> None:
        del seed
        self.counts = {modality: train[modality].X for modality in OTHER}

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return self.counts[modality][rows].toarray()


class Mean(Predictor):
    """The mean profile of the training cells, the same for every cell."""

    def fit(self, train: MuData, seed: int) -> None:
        del seed
        self.means = {
            modality: np.asarray(normalize(train[modality].X, "l1").mean(0)).ravel()
            for modality in OTHER
        }

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return np.tile(self.means[modality], (len(rows), 1))

    def predict(self, modality: Modality, query: MuData, rows: np.ndarray) -> np.ndarray:
        del query
        return self.impute(modality, rows)


def log_normalise(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Log1p of counts scaled to 10,000 a cell."""
    return (DEPTH * normalize(counts, "l1")).log1p()


class TFIDF(TransformerMixin, BaseEstimator):
    """Log1p of term frequency times inverse document frequency, in counts per 10,000."""

    def fit(self, counts: sparse.csr_matrix, y: None = None) -> "TFIDF":
        """Take the inverse mean of each peak; a peak without counts is as if half a cell's."""
        totals = np.asarray(counts.sum(0)).ravel().clip(0.5)
        self.idf_ = counts.shape[0] / totals
        return self

    def transform(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Counts to values that stay zero where they are zero."""
        return (normalize(counts, "l1") @ sparse.diags_array(DEPTH * self.idf_)).log1p().tocsr()

    def inverse_transform(self, values: np.ndarray) -> np.ndarray:
        """Values to term frequencies."""
        return np.expm1(values) / (DEPTH * self.idf_)


def spaces(seed: int) -> dict[Modality, Pipeline]:
    """Linear space of each modality, fitted to counts and able to return to profiles."""
    return {
        "rna": make_pipeline(
            FunctionTransformer(log_normalise, np.expm1, check_inverse=False),
            PCA(N_COMPONENTS, svd_solver="arpack", random_state=seed),
        ),
        # one more, as the first follows depth
        "atac": make_pipeline(TFIDF(), TruncatedSVD(N_COMPONENTS + 1, random_state=seed)),
    }


class Neighbors(Predictor):
    """Mean profile of the nearest training cells, in PCA and LSI of the training counts.

    Training cells count among their own neighbours. New cells find theirs in the space of the
    modality that they have.
    """

    def __init__(self, n_neighbors: int) -> None:
        super().__init__()
        self.settings = {"n_neighbors": n_neighbors, "n_components": N_COMPONENTS}

    def fit(self, train: MuData, seed: int) -> None:
        self.profiles = {modality: normalize(train[modality].X, "l1") for modality in OTHER}
        self.spaces = spaces(seed)
        for modality, space in self.spaces.items():
            space.fit(train[modality].X)
        points = {modality: self._embed(modality, train[modality].X) for modality in OTHER}
        joined = np.hstack([values / values.std() for values in points.values()])
        self.weights = self._search(joined).kneighbors_graph(joined)
        self.searches = {modality: self._search(values) for modality, values in points.items()}

    def _embed(self, modality: Modality, counts: sparse.csr_matrix) -> np.ndarray:
        return self.spaces[modality].transform(counts)[:, -N_COMPONENTS:]

    def _search(self, points: np.ndarray) -> NearestNeighbors:
        return NearestNeighbors(n_neighbors=self.settings["n_neighbors"]).fit(points)

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return self._smoothed(modality, self.weights[rows])

    def predict(self, modality: Modality, query: MuData, rows: np.ndarray) -> np.ndarray:
        source = OTHER[modality]
        points = self._embed(source, query[source].X[rows])
        return self._smoothed(modality, self.searches[source].kneighbors_graph(points))

    def _smoothed(self, modality: Modality, weights: sparse.csr_matrix) -> np.ndarray:
        return (weights @ self.profiles[modality]).toarray()


class Linear(Predictor):
    """Reconstruction from PCA or LSI, and ridge regression from one space to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = {"n_components": N_COMPONENTS, "ridge_alphas": [1e-2, 1.0, 1e2, 1e4]}

    def fit(self, train: MuData, seed: int) -> None:
        self.spaces = spaces(seed)
        self.points = {
            modality: space.fit_transform(train[modality].X)
            for modality, space in self.spaces.items()
        }
        self.maps = {
            modality: RidgeCV(self.settings["ridge_alphas"]).fit(
                self.points[source], self.points[modality]
            )
            for modality, source in OTHER.items()
        }

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return self._reconstruct(modality, self.points[modality][rows])

    def predict(self, modality: Modality, query: MuData, rows: np.ndarray) -> np.ndarray:
        source = OTHER[modality]
        points = self.spaces[source].transform(query[source].X[rows])
        return self._reconstruct(modality, self.maps[modality].predict(points))

    def _reconstruct(self, modality: Modality, points: np.ndarray) -> np.ndarray:
        return self.spaces[modality].inverse_transform(points).clip(min=0)


class Trained(Predictor):
    """A model of scvi-tools, which reads cells with one modality as it reads those with both."""

    model: SCMVPModel | scvi.model.MULTIVI

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return self._denoised(modality, None, rows)

    def predict(self, modality: Modality, query: MuData, rows: np.ndarray) -> np.ndarray:
        return self._denoised(modality, query, rows)

    def _denoised(self, modality: Modality, cells: MuData | None, rows: np.ndarray) -> np.ndarray:
        denoised = {
            "rna": self.model.get_normalized_expression,
            "atac": self.model.get_normalized_accessibility,
        }
        return denoised[modality](cells, indices=rows, return_numpy=True)


LAWS: dict[Modality, tuple[str, str]] = {
    "rna": (OUTPUT.PX, OUTPUT.RNA_LIBRARY),
    "atac": (OUTPUT.PY, OUTPUT.ATAC_LIBRARY),
}


class SCMVP(Trained):
    """The model of this package, by its defaults."""

    def __init__(self, epochs: int | None = None) -> None:
        super().__init__()
        self.settings = {"epochs": epochs}

    def fit(self, train: MuData, seed: int) -> None:
        epochs = self.settings["epochs"] or min(default_max_epochs(train.n_obs), MOST_EPOCHS)
        self.settings["epochs"] = epochs
        scvi.settings.seed = seed
        SCMVPModel.setup_mudata(train, modalities=MODALITIES)
        self.model = SCMVPModel(train)
        self.model.train(epochs, accelerator="cpu", check_val_every_n_epoch=None)

    @torch.inference_mode()
    def laws(
        self, modality: Modality, rows: np.ndarray, depth: np.ndarray, n_draws: int
    ) -> Iterator[Distribution]:
        """The negative binomial or zero-inflated Poisson law of each draw of the latent."""
        law, library = LAWS[modality]
        module = self.model.module
        depths = torch.as_tensor(depth, dtype=torch.float32)[:, None]
        [tensors] = self.model._minibatches(None, rows, batch_size=len(rows))
        outputs = module.inference(**module._get_inference_input(tensors))
        for _ in range(n_draws):
            drawn = {**outputs, OUTPUT.Z: outputs[OUTPUT.QZ].sample(), library: depths}
            decoded = module.generative(**module._get_generative_input(tensors, drawn))
            yield decoded[law].distribution()


class MultiVI(Trained):
    """MultiVI by its defaults: it stops early, or after 500 epochs."""

    def fit(self, train: MuData, seed: int) -> None:
        scvi.settings.seed = seed
        model = scvi.model.MULTIVI
        model.setup_mudata(train, modalities=MODALITIES, rna_layer=None, atac_layer=None)
        self.model = model(train, n_genes=train["rna"].n_vars, n_regions=train["atac"].n_vars)
        self.model.train(accelerator="cpu")
        self.settings["epochs"] = self.model.trainer.current_epoch

    def predict(self, modality: Modality, query: MuData, rows: np.ndarray) -> np.ndarray:
        # which its set-up gives to the training cells alone
        query.obs["_indices"] = np.arange(query.n_obs)
        return super().predict(modality, query, rows)


METHODS: dict[str, type[Method] | partial[Method]] = {
    "raw": Raw,
    "mean": Mean,
    "kNN, 15": partial(Neighbors, 15),
    "kNN, 100": partial(Neighbors, 100),
    "linear": Linear,
    "scmvp": SCMVP,
    "MultiVI": MultiVI,
}
SLOW = ("MultiVI",)  # run only when named
