"""Factors of both modalities."""

import tempfile
from pathlib import Path

import muon
import numpy as np
import scanpy as sc
from mudata import MuData

from harness.methods.base import OTHER, Embedder, View
from harness.methods.simple import N_COMPONENTS, TFIDF
from harness.scores.imputation import log_normalised
from scmvp_scvi._mudata import without_pulling

MOST_PEAKS = 5_000  # MOFA+ holds all values in several dense arrays


class MOFA(Embedder):
    """MOFA+ of muon: 30 factors of log-normalised RNA and of the most accessible peaks' TF-IDF."""

    packages = ("mofapy2", "muon")

    def __init__(self) -> None:
        super().__init__()
        self.settings = {"n_factors": N_COMPONENTS, "most_peaks": MOST_PEAKS}

    def fit(self, train: MuData, seed: int) -> None:
        values = {
            "rna": log_normalised(train["rna"].X),
            "atac": TFIDF().fit_transform(train["atac"].X),
        }
        totals = np.asarray(train["atac"].X.sum(0)).ravel()
        kept = {
            "rna": np.flatnonzero(np.asarray(train["rna"].X.sum(0)).ravel()),
            "atac": np.sort(np.argsort(-totals)[: min(MOST_PEAKS, (totals > 0).sum())]),
        }
        parts = {
            modality: sc.AnnData(
                values[modality][:, kept[modality]].toarray(), obs=train.obs[[]].copy()
            )
            for modality in OTHER
        }
        for modality, part in parts.items():
            part.var_names = [f"{modality}{i}" for i in range(part.n_vars)]
        with tempfile.TemporaryDirectory() as folder, without_pulling():
            mdata = MuData(parts)
            muon.tl.mofa(
                mdata,
                n_factors=N_COMPONENTS,
                use_var=None,
                likelihoods="gaussian",
                seed=seed + 1,  # mofapy2 takes 0 for no seed
                outfile=str(Path(folder) / "mofa.hdf5"),
                save_data=False,
            )
        self.factors = mdata.obsm["X_mofa"]

    def embed(self, view: View) -> np.ndarray:
        del view
        return self.factors
