"""What a method can do, one abstract class for each ability; a method has those that it can.

A protocol asks for abilities, and is run on the methods that have them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from mudata import MuData
from scipy import sparse
from torch.distributions import Distribution, Poisson

from harness.scores.imputation import poisson_logs, poisson_rates

Modality = Literal["rna", "atac"]
View = Literal["joint", "rna", "atac"]  # what a cell is seen by
UNLABELLED = "Unknown"  # in the place of a label
OTHER: dict[Modality, Modality] = {"rna": "atac", "atac": "rna"}


class Method(ABC):
    """What is fitted to paired counts."""

    settings: dict[str, object]  # what a result file says of it, complete after `fit`
    packages: tuple[str, ...] = ("scikit-learn",)  # whose versions are its own
    needs_batches = False
    peak_memory = 0  # bytes, of processes of its own

    def __init__(self) -> None:
        self.settings = {}

    @abstractmethod
    def fit(self, train: MuData, seed: int) -> None:
        """Learn from the training cells, and correct for ``.obs["batch"]`` if that is there."""


class Grapher(Method):
    """A method that joins its training cells to neighbours."""

    @abstractmethod
    def graph(self) -> sparse.csr_matrix:
        """Weights of the neighbours of each training cell, ``(cells, cells)``, symmetric."""


class Embedder(Method):
    """A method that gives each training cell a point; the first view is the one it stands for."""

    views: tuple[View, ...] = ("joint",)
    has_own_embedding = True  # not one that is compared under another method's name

    @abstractmethod
    def embed(self, view: View) -> np.ndarray:
        """Points of the training cells, ``(cells, dimensions)``."""


class Projector(Embedder):
    """An embedder that also places cells that it was not fitted to."""

    @abstractmethod
    def project(self, cells: MuData, view: View) -> np.ndarray:
        """Points of new cells, seen by the counts of the view alone."""


class Clusterer(Method):
    """A method with a probability of each cluster in each cell."""

    @abstractmethod
    def cluster_probabilities(self, cells: MuData | None = None) -> np.ndarray:
        """Posterior of new cells or of the training cells, ``(cells, clusters)``."""


class Labeller(Method):
    """A method that learns from labels too, where ``.obs["label"]`` has those of some cells."""

    @abstractmethod
    def predict_labels(self, cells: MuData | None = None) -> np.ndarray:
        """Label of each of new cells or of the training cells, ``(cells,)``."""


class Imputer(Method):
    """A method that has profiles of its training cells.

    The values of a cell are non-negative and count up to a factor.
    """

    @abstractmethod
    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        """Profiles of training cells."""

    def impute_logs(self, rows: np.ndarray, depth: float) -> np.ndarray:
        """Expected log-normalised expression of training cells at one depth, ``(cells, genes)``.

        Without an expectation of its own, a method has that of Poisson counts about its profile.
        """
        return poisson_logs(self.impute("rna", rows), depth)

    def laws(
        self, modality: Modality, rows: np.ndarray, depth: np.ndarray, n_draws: int
    ) -> Iterator[Distribution]:
        """Laws of the counts of training cells at the given depths, one for each draw.

        Without a law of its own, a method has Poisson counts about its profile.
        """
        rates = torch.as_tensor(poisson_rates(self.impute(modality, rows), depth))
        for _ in range(n_draws):
            yield Poisson(rates)


class Predictor(Imputer):
    """An imputer that also has profiles of new cells, of which it may see one modality alone."""

    @abstractmethod
    def predict(
        self, modality: Modality, query: MuData, rows: np.ndarray, view: View
    ) -> np.ndarray:
        """Profiles of new cells, seen by the counts of the view alone."""

    def predict_logs(
        self, query: MuData, rows: np.ndarray, view: View, depth: float
    ) -> np.ndarray:
        """Expected log-normalised expression of new cells, as in `impute_logs`."""
        return poisson_logs(self.predict("rna", query, rows, view), depth)
