"""The authors' scMVP, where a user has its package ``scMVP`` importable.

It needs Python 3.7 and is on no package index, so that this adapter, written against the interface
that its repository shows, has not been run.
"""

from importlib import import_module

import numpy as np
from mudata import MuData

from harness.methods.base import Clusterer, Embedder, View
from harness.methods.simple import TFIDF

N_LATENT, LEARNING_RATE = 20, 5e-3  # of the notebooks that come with it


class OriginalSCMVP(Embedder, Clusterer):
    """Multi_VAE_Attention on RNA counts and TF-IDF of ATAC, not pretrained.

    Parameters
    ----------
    n_clusters
        Components of its mixture.
    epochs
        Passes over the cells, as in its notebooks of cortex and blood.
    """

    views = ("joint", "rna", "atac")
    packages = ("scMVP", "torch")

    def __init__(self, n_clusters: int = 8, *, epochs: int = 15) -> None:
        super().__init__()
        self.settings = {
            "n_clusters": n_clusters,
            "epochs": epochs,
            "n_latent": N_LATENT,
            "learning_rate": LEARNING_RATE,
        }

    def fit(self, train: MuData, seed: int) -> None:
        dataset, inference, models, torch = map(
            import_module, ("scMVP.dataset", "scMVP.inference", "scMVP.models", "torch")
        )
        # its trainer draws from numpy's global generator
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        atac = TFIDF().fit_transform(train["atac"].X)
        cells = dataset.GeneExpressionDataset()
        cells.populate_from_data(
            X=train["rna"].X.toarray(),
            gene_names=train["rna"].var_names.to_numpy(),
            Ys=[
                dataset.CellMeasurement(
                    name="atac_expression",
                    data=atac.toarray(),
                    columns_attr_name="atac_names",
                    columns=train["atac"].var_names.to_numpy(),
                )
            ],
        )
        model = models.Multi_VAE_Attention(
            train["rna"].n_vars,
            train["atac"].n_vars,
            n_batch=0,
            n_latent=N_LATENT,
            n_centroids=self.settings["n_clusters"],
            n_alfa=1.0,
            mode="mm-vae",
        )
        trainer = inference.MultiTrainer(model, cells, train_size=0.9, use_cuda=False)
        trainer.train(n_epochs=self.settings["epochs"], lr=LEARNING_RATE)
        posterior = trainer.create_posterior(
            model, cells, indices=np.arange(train.n_obs), type_class=inference.MultiPosterior
        )
        joint, rna, atac_latent, self.probabilities, *_ = posterior.sequential().get_latent()
        self.latent = {"joint": joint, "rna": rna, "atac": atac_latent}

    def embed(self, view: View) -> np.ndarray:
        return self.latent[view]

    def cluster_probabilities(self, cells: MuData | None = None) -> np.ndarray:
        if cells is not None:
            raise ValueError("`cells` must be None: the original scMVP has no new cells.")
        return self.probabilities
