"""Deep models, each trained by its own defaults."""

from collections.abc import Iterator

import numpy as np
import scvi
import torch
from anndata import AnnData
from mudata import MuData
from torch.distributions import Distribution

from harness.data import build, counts_of, without
from harness.methods.base import (
    OTHER,
    UNLABELLED,
    Clusterer,
    Labeller,
    Modality,
    Predictor,
    Projector,
    View,
)
from harness.scores.imputation import DEPTH
from scmvp_scvi import SCMVPModel
from scmvp_scvi._keys import OUTPUT
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._size_rules import default_max_epochs

MODALITIES = {"rna_layer": "rna", "atac_layer": "atac"}
LAWS: dict[Modality, tuple[str, str]] = {
    "rna": (OUTPUT.PX, OUTPUT.RNA_LIBRARY),
    "atac": (OUTPUT.PY, OUTPUT.ATAC_LIBRARY),
}


def batch_key(mdata: MuData) -> str | None:
    """Column of the batches, where there are any."""
    return "batch" if "batch" in mdata.obs else None


def labels_key(mdata: MuData) -> str | None:
    """Column of the labels to learn from, where there are any."""
    return "label" if "label" in mdata.obs else None


def with_label(cells: MuData, label: str) -> MuData:
    """Return a copy of the cells whose column of labels says the same of all."""
    cells = build(counts_of(cells), cells)
    cells.obs["label"] = label
    return cells


def rna_of(cells: MuData) -> AnnData:
    """Return the RNA of the cells, with their joint columns."""
    rna = cells["rna"].copy()
    rna.obs = cells.obs.copy()
    return rna


def seen_by(mdata: MuData, view: View) -> MuData:
    """Return the cells with the counts of a view, and none in the other modality."""
    return mdata if view == "joint" else without(mdata, OTHER[view])


def denoised(
    model: SCMVPModel | scvi.model.MULTIVI,
    modality: Modality,
    cells: MuData | None,
    rows: np.ndarray,
    **options: object,
) -> np.ndarray:
    """Denoised profiles of some cells, by what either model calls it."""
    of = {
        "rna": model.get_normalized_expression,
        "atac": model.get_normalized_accessibility,
    }
    return of[modality](cells, indices=rows, return_numpy=True, **options)


class SCMVP(Projector, Predictor, Clusterer, Labeller):
    """The model of this package: as many epochs as it takes by default.

    Parameters
    ----------
    n_clusters
        Components of the mixture; None lets the model choose.
    train_size
        Share of the cells that it learns from: all, where its default is nine tenths.
    epochs
        Passes over the cells; None for the default of the model.
    model, plan
        Arguments of `SCMVPModel` and of its training plan that are not the defaults.
    own_counts
        Whether a gene's count in the cell has a part in its imputed value, beside the embedding.
    """

    views = ("joint", "rna", "atac")
    packages = ("scmvp-scvi", "scvi-tools", "torch")

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        train_size: float = 1.0,
        epochs: int | None = None,
        model: dict[str, object] | None = None,
        plan: dict[str, object] | None = None,
        own_counts: bool = False,
    ) -> None:
        super().__init__()
        self.own_counts = own_counts
        if n_clusters is not None and "n_clusters" in (model or {}):
            raise ValueError(
                f"`n_clusters` is fixed to {model['n_clusters']} for this form of the model: "
                "leave it out of the protocol `clusters`."
            )
        self.settings = {
            "train_size": train_size,
            "epochs": epochs,
            "model": {"n_clusters": n_clusters, **(model or {})},
            "plan": plan or {},
        }
        self.needs_batches = bool((model or {}).get("center_batches"))

    def fit(self, train: MuData, seed: int) -> None:
        epochs = self.settings["epochs"] or default_max_epochs(train.n_obs)
        self.settings["epochs"] = epochs
        scvi.settings.seed = seed
        SCMVPModel.setup_mudata(
            train,
            modalities=MODALITIES,
            batch_key=batch_key(train),
            labels_key=labels_key(train),
        )
        self.model = SCMVPModel(train, **self.settings["model"])
        self.model.train(
            epochs,
            accelerator="auto",
            train_size=self.settings["train_size"],
            check_val_every_n_epoch=None,
            enable_progress_bar=False,
            plan_kwargs=self.settings["plan"],
        )
        self.settings["components"] = int(self.model.module.prior.n_clusters)

    def embed(self, view: View) -> np.ndarray:
        return self.model.get_latent_representation(modality=view)

    def project(self, cells: MuData, view: View) -> np.ndarray:
        return self.model.get_latent_representation(cells, modality=view)

    def cluster_probabilities(self, cells: MuData | None = None) -> np.ndarray:
        return self.model.get_cluster_probabilities(cells).to_numpy()

    def predict_labels(self, cells: MuData | None = None) -> np.ndarray:
        if cells is not None:  # with some label that the model knows, which it does not read
            cells = with_label(cells, self.model.adata.obs["label"].iloc[0])
        return self.model.predict_clusters(cells).to_numpy(dtype=str)

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        options = {"own_counts": self.own_counts} if modality == "rna" else {}
        return denoised(self.model, modality, None, rows, **options)

    def predict(
        self, modality: Modality, query: MuData, rows: np.ndarray, view: View
    ) -> np.ndarray:
        return denoised(self.model, modality, query, rows, from_modality=view)

    def impute_logs(self, rows: np.ndarray, depth: float) -> np.ndarray:
        return self._logs(None, rows, "joint", depth, own_counts=self.own_counts)

    def predict_logs(
        self, query: MuData, rows: np.ndarray, view: View, depth: float
    ) -> np.ndarray:
        return self._logs(query, rows, view, depth)

    def _logs(
        self,
        cells: MuData | None,
        rows: np.ndarray,
        view: View,
        depth: float,
        *,
        own_counts: bool = False,
    ) -> np.ndarray:
        return self.model.get_log_normalized_expression(
            cells,
            rows,
            target_sum=DEPTH,
            library_size=depth,
            return_numpy=True,
            from_modality=view,
            own_counts=own_counts,
        )

    @torch.inference_mode()
    def laws(
        self, modality: Modality, rows: np.ndarray, depth: np.ndarray, n_draws: int
    ) -> Iterator[Distribution]:
        """The negative binomial or zero-inflated Poisson law of each draw of the latent."""
        law, library = LAWS[modality]
        module = self.model.module
        depths = torch.as_tensor(depth, dtype=torch.float32, device=module.device)[:, None]
        [tensors] = self.model._minibatches(None, rows, batch_size=len(rows))
        outputs = {**module.embed(tensors), library: depths}
        for _ in range(n_draws):
            decoded = module.decode(tensors, outputs, z=outputs[OUTPUT.QZ].sample())
            yield decoded[law].distribution()


class MultiVI(Projector, Predictor):
    """MultiVI: it stops early, or after 500 epochs.

    It has one latent space, in which a cell without counts in one modality stands where the other
    puts it.
    """

    views = ("joint", "rna", "atac")
    packages = ("scvi-tools", "torch")

    def __init__(self, epochs: int | None = None) -> None:
        super().__init__()
        self.settings = {"most_epochs": epochs or 500}

    def fit(self, train: MuData, seed: int) -> None:
        scvi.settings.seed = seed
        self.train_cells = train
        scvi.model.MULTIVI.setup_mudata(
            train,
            modalities=MODALITIES,
            rna_layer=None,
            atac_layer=None,
            batch_key=batch_key(train),
        )
        self.model = scvi.model.MULTIVI(
            train, n_genes=train["rna"].n_vars, n_regions=train["atac"].n_vars
        )
        self.model.train(
            self.settings["most_epochs"], accelerator="auto", enable_progress_bar=False
        )
        self.settings["epochs"] = self.model.trainer.current_epoch

    def embed(self, view: View) -> np.ndarray:
        if view == "joint":
            return self.model.get_latent_representation()
        return self.project(self.train_cells, view)

    def project(self, cells: MuData, view: View) -> np.ndarray:
        return self.model.get_latent_representation(self._query(cells, view))

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        return denoised(self.model, modality, None, rows)

    def predict(
        self, modality: Modality, query: MuData, rows: np.ndarray, view: View
    ) -> np.ndarray:
        return denoised(self.model, modality, self._query(query, view), rows)

    def _query(self, cells: MuData, view: View) -> MuData:
        query = build(counts_of(seen_by(cells, view)), cells)
        # which its set-up gives to the training cells alone
        query.obs["_indices"] = np.arange(query.n_obs)
        return query


class SCVI(Projector):
    """ScVI on the RNA alone."""

    views = ("rna",)
    packages = ("scvi-tools", "torch")

    def __init__(self, epochs: int | None = None) -> None:
        super().__init__()
        self.settings = {"epochs": epochs}

    def fit(self, train: MuData, seed: int) -> None:
        scvi.settings.seed = seed
        cells = rna_of(train)
        scvi.model.SCVI.setup_anndata(cells, batch_key=batch_key(train))
        self.model = scvi.model.SCVI(cells)
        self.model.train(self.settings["epochs"], accelerator="auto", enable_progress_bar=False)
        self.settings["epochs"] = self.model.trainer.current_epoch

    def embed(self, view: View) -> np.ndarray:
        del view
        return self.model.get_latent_representation()

    def project(self, cells: MuData, view: View) -> np.ndarray:
        del view
        with without_pulling():
            return self.model.get_latent_representation(rna_of(cells))


class SCANVI(Labeller):
    """ScANVI on the RNA alone, from a trained scVI."""

    packages = ("scvi-tools", "torch")

    def fit(self, train: MuData, seed: int) -> None:
        scvi.settings.seed = seed
        cells = rna_of(train)
        scvi.model.SCVI.setup_anndata(
            cells, batch_key=batch_key(train), labels_key=labels_key(train)
        )
        unlabelled = scvi.model.SCVI(cells)
        unlabelled.train(accelerator="auto", enable_progress_bar=False)
        self.model = scvi.model.SCANVI.from_scvi_model(
            unlabelled, unlabeled_category=UNLABELLED, labels_key=labels_key(train)
        )
        self.model.train(accelerator="auto", enable_progress_bar=False)
        epochs = unlabelled.trainer.current_epoch, self.model.trainer.current_epoch
        self.settings["epochs"] = list(epochs)

    def predict_labels(self, cells: MuData | None = None) -> np.ndarray:
        if cells is not None:
            with without_pulling():
                cells = rna_of(with_label(cells, UNLABELLED))
        return np.asarray(self.model.predict(cells), dtype=str)
