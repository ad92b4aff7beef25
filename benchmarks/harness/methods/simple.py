"""Methods without a model: components of each modality, their neighbours and regressions."""

import muon
import numpy as np
import scanpy as sc
from mudata import MuData
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, normalize

from harness.methods.base import (
    OTHER,
    Grapher,
    Imputer,
    Modality,
    Predictor,
    Projector,
    View,
)
from harness.scores.imputation import log_normalised
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._neighbors import preserved_torch_threads

N_COMPONENTS = 30
N_NEIGHBORS = 15
RIDGE_ALPHAS = (1e-2, 1.0, 1e2, 1e4)
MOST_SPREAD = 10  # standard deviations at which scaled expression is cut, as scanpy's tutorials do


class Raw(Imputer):
    """The training counts themselves."""

    def fit(self, train: MuData, seed: int) -> None:
        del seed
        self.counts = {modality: train[modality].X for modality in OTHER}

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return self.counts[modality][rows].toarray()

    def impute_logs(self, rows: np.ndarray, depth: float) -> np.ndarray:
        del depth
        return log_normalised(self.counts["rna"][rows]).toarray()


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

    def predict(
        self, modality: Modality, query: MuData, rows: np.ndarray, view: View
    ) -> np.ndarray:
        del query, view
        return self.impute(modality, rows)


class LogProfiles(Predictor):
    """A predictor whose profiles are what becomes of the logarithms that it expects."""

    def impute_logs(self, rows: np.ndarray, depth: float) -> np.ndarray:
        del depth
        return np.log1p(self.impute("rna", rows))

    def predict_logs(
        self, query: MuData, rows: np.ndarray, view: View, depth: float
    ) -> np.ndarray:
        del depth
        return np.log1p(self.predict("rna", query, rows, view))


class MeanOfLogs(LogProfiles, Mean):
    """One profile for every cell too, of the means of log-normalised counts.

    Correlations are of logarithms. A mean of logarithms is not the logarithm of a mean, and what
    predicts the first, as linear regression does, is ahead without knowing more of a cell.
    """

    def fit(self, train: MuData, seed: int) -> None:
        del seed
        self.means = {
            modality: np.expm1(np.asarray(log_normalised(train[modality].X).mean(0)).ravel())
            for modality in OTHER
        }


class TFIDF(TransformerMixin, BaseEstimator):
    """Log1p of term frequency in counts per 10,000, times log1p of inverse document frequency.

    Of the usual forms, this one of muon tells the types of the cortex apart best.
    """

    def fit(self, counts: sparse.csr_matrix, y: None = None) -> "TFIDF":
        """Take the inverse mean of each peak; a peak without counts is as if half a cell's."""
        totals = np.asarray(counts.sum(0)).ravel().clip(0.5)
        self.weights_ = np.log1p(counts.shape[0] / totals)
        return self

    def transform(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Counts to values that stay zero where they are zero."""
        return (log_normalised(counts) @ sparse.diags_array(self.weights_)).tocsr()

    def inverse_transform(self, values: np.ndarray) -> np.ndarray:
        """Values to term frequencies in counts per 10,000."""
        return np.expm1(values / self.weights_)


def n_components(counts: sparse.csr_matrix) -> int:
    """Return 30, or what small data have room for."""
    return min(N_COMPONENTS, min(counts.shape) - 2)


def pca(counts: sparse.csr_matrix, seed: int) -> Pipeline:
    """Components of log-normalised, scaled and cut expression."""
    return make_pipeline(
        FunctionTransformer(lambda values: log_normalised(values).toarray()),
        StandardScaler(),
        FunctionTransformer(lambda values: values.clip(-MOST_SPREAD, MOST_SPREAD)),
        PCA(n_components(counts), svd_solver="arpack", random_state=seed),
    ).fit(counts)


def lsi(counts: sparse.csr_matrix, seed: int) -> Pipeline:
    """Components of TF-IDF after the first, which follows depth.

    They keep their own spreads: scaled to one, they tell the types of the cortex apart less well.
    """
    return make_pipeline(
        TFIDF(),
        svd(n_components(counts) + 1, seed),
        FunctionTransformer(lambda values: values[:, 1:]),
    ).fit(counts)


def svd(size: int, seed: int) -> TruncatedSVD:
    """Singular vectors, iterated until the last of them stand still."""
    return TruncatedSVD(size, n_iter=7, random_state=seed)


class Components(Projector):
    """PCA of RNA, LSI of ATAC, or the two side by side, fitted to the training cells alone.

    Parameters
    ----------
    views
        Views to give, that of the comparison first.
    """

    packages = ("scikit-learn",)

    def __init__(self, *views: View) -> None:
        super().__init__()
        self.views = views
        self.settings = {"n_components": N_COMPONENTS}

    def fit(self, train: MuData, seed: int) -> None:
        recipes = {"rna": pca, "atac": lsi}
        needed = recipes if "joint" in self.views else self.views
        self.spaces = {name: recipes[name](train[name].X, seed) for name in needed}
        points = {name: space.transform(train[name].X) for name, space in self.spaces.items()}
        # side by side with the same spread, or the modality with the larger numbers decides
        self.spreads = {name: values.std() for name, values in points.items()}
        self.points = {view: self._view(points, view) for view in self.views}

    def _view(self, points: dict[str, np.ndarray], view: View) -> np.ndarray:
        if view != "joint":
            return points[view]
        return np.hstack([points[name] / self.spreads[name] for name in OTHER])

    def embed(self, view: View) -> np.ndarray:
        return self.points[view]

    def project(self, cells: MuData, view: View) -> np.ndarray:
        names = OTHER if view == "joint" else (view,)
        points = {name: self.spaces[name].transform(cells[name].X) for name in names}
        return self._view(points, view)


class WNN(Grapher):
    """Weighted nearest neighbours of muon, of PCA of RNA and LSI of ATAC."""

    packages = ("muon", "scanpy", "scikit-learn")

    def __init__(self) -> None:
        super().__init__()
        self.settings = {"n_components": N_COMPONENTS, "n_neighbors": N_NEIGHBORS}

    def fit(self, train: MuData, seed: int) -> None:
        components = Components("rna", "atac")
        components.fit(train, seed)
        parts = {}
        with preserved_torch_threads(), without_pulling():
            for modality in OTHER:
                parts[modality] = sc.AnnData(
                    obs=train.obs[[]].copy(), obsm={"X": components.embed(modality)}
                )
                sc.pp.neighbors(
                    parts[modality], n_neighbors=N_NEIGHBORS, use_rep="X", random_state=seed
                )
            both = MuData(parts)
            muon.pp.neighbors(both, n_neighbors=N_NEIGHBORS, random_state=seed)
        self._graph = both.obsp["connectivities"]

    def graph(self) -> sparse.csr_matrix:
        return self._graph


class Neighbors(Components, Predictor):
    """Mean profile of the nearest training cells, in PCA and LSI of the training counts.

    Training cells count among their own neighbours. New cells find theirs in the space of the
    modality that they have.
    """

    has_own_embedding = False

    def __init__(self, n_neighbors: int) -> None:
        super().__init__("joint", "rna", "atac")
        self.settings["n_neighbors"] = n_neighbors

    def fit(self, train: MuData, seed: int) -> None:
        super().fit(train, seed)
        self.profiles = {modality: normalize(train[modality].X, "l1") for modality in OTHER}
        self.logs = log_normalised(train["rna"].X)
        n_neighbors = min(self.settings["n_neighbors"], train.n_obs)
        self.searches = {
            view: NearestNeighbors(n_neighbors=n_neighbors).fit(points)
            for view, points in self.points.items()
        }

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return self._smoothed(self.profiles[modality], self.points["joint"][rows], "joint")

    def impute_logs(self, rows: np.ndarray, depth: float) -> np.ndarray:
        del depth
        return self._smoothed(self.logs, self.points["joint"][rows], "joint")

    def predict(
        self, modality: Modality, query: MuData, rows: np.ndarray, view: View
    ) -> np.ndarray:
        return self._smoothed(self.profiles[modality], self.project(query[rows], view), view)

    def predict_logs(
        self, query: MuData, rows: np.ndarray, view: View, depth: float
    ) -> np.ndarray:
        del depth
        return self._smoothed(self.logs, self.project(query[rows], view), view)

    def _smoothed(self, values: sparse.csr_matrix, points: np.ndarray, view: View) -> np.ndarray:
        search = self.searches[view]
        return (search.kneighbors_graph(points) @ values).toarray() / search.n_neighbors


class Linear(LogProfiles):
    """Reconstruction from components, and ridge regression from those that are seen.

    The components of RNA are not scaled by gene here, so that a profile comes back from them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settings = {"n_components": N_COMPONENTS, "ridge_alphas": RIDGE_ALPHAS}

    def fit(self, train: MuData, seed: int) -> None:
        size = {modality: n_components(train[modality].X) for modality in OTHER}
        self.spaces = {
            "rna": make_pipeline(
                FunctionTransformer(log_normalised, np.expm1, check_inverse=False),
                PCA(size["rna"], svd_solver="arpack", random_state=seed),
            ),
            # one more, as the first follows depth
            "atac": make_pipeline(TFIDF(), svd(size["atac"] + 1, seed)),
        }
        self.points = {
            modality: space.fit_transform(train[modality].X)
            for modality, space in self.spaces.items()
        }
        views: tuple[View, ...] = ("joint", *OTHER)
        self.maps = {
            (view, modality): RidgeCV(RIDGE_ALPHAS).fit(
                self._view(self.points, view), self.points[modality]
            )
            for view in views
            for modality in OTHER
        }

    def _view(self, points: dict[str, np.ndarray], view: View) -> np.ndarray:
        return np.hstack([points[name] for name in OTHER]) if view == "joint" else points[view]

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return self._reconstruct(modality, self.points[modality][rows])

    def predict(
        self, modality: Modality, query: MuData, rows: np.ndarray, view: View
    ) -> np.ndarray:
        seen = OTHER if view == "joint" else (view,)
        points = {name: self.spaces[name].transform(query[name].X[rows]) for name in seen}
        found = self.maps[view, modality].predict(self._view(points, view))
        return self._reconstruct(modality, found)

    def _reconstruct(self, modality: Modality, points: np.ndarray) -> np.ndarray:
        return self.spaces[modality].inverse_transform(points).clip(min=0)
