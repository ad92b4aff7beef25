"""The authors' scMVP, in an environment of its own.

It needs Python 3.7, so that it cannot be imported here: ``ORIGINAL_SCMVP_PYTHON`` names the
interpreter of an environment that has it, and `harness.methods.original_process` runs there.
"""

import json
import os
import shutil
import subprocess
import weakref
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from mudata import MuData
from scipy import sparse

from harness.methods.base import Clusterer, Imputer, Modality, Projector, View
from harness.methods.simple import TFIDF

PYTHON = "ORIGINAL_SCMVP_PYTHON"
PROCESS = Path(__file__).with_name("original_process.py")


class OriginalSCMVP(Projector, Imputer, Clusterer):
    """Multi_VAE_Attention on RNA counts and TF-IDF of ATAC, as in the notebooks that come with it.

    A model of each modality is trained first, and gives its encoders to the channels of the joint
    one; Louvain clusters of the RNA are the components of the mixture. Nine tenths of the cells
    are trained on, and batches are not corrected for.

    Parameters
    ----------
    n_clusters
        Components of its mixture, then started by a Gaussian mixture; None for those of Louvain.
    """

    views = ("joint", "rna", "atac")
    packages = ()

    def __init__(self, n_clusters: int | None = None) -> None:
        super().__init__()
        self.settings = {
            "n_clusters": n_clusters,
            "n_latent": 20,
            "learning_rate": 5e-3,
            "atac_epochs": 15,
            "rna_epochs": 10,
            "epochs": 15,
        }

    def fit(self, train: MuData, seed: int) -> None:
        self.folder = Path(mkdtemp())
        weakref.finalize(self, shutil.rmtree, self.folder)
        self.tfidf = TFIDF().fit(train["atac"].X)
        self._write("train", train)
        (self.folder / "job.json").write_text(json.dumps({**self.settings, "seed": seed}))
        self._run("fit")
        fitted = json.loads((self.folder / "fitted.json").read_text())
        self.settings["components"] = fitted["n_clusters"]
        self.settings["environment"] = fitted["environment"]
        self.train, self.embedded = train, None

    def embed(self, view: View) -> np.ndarray:
        return self._embed(self.train)[view]

    def project(self, cells: MuData, view: View) -> np.ndarray:
        return self._embed(cells)[view]

    def cluster_probabilities(self, cells: MuData | None = None) -> np.ndarray:
        return self._embed(self.train if cells is None else cells)["probabilities"]

    def impute(self, modality: Modality, rows: np.ndarray) -> np.ndarray:
        file = self.folder / f"{modality}.npy"
        if not file.exists():
            self._run("impute")
        values = np.load(file, mmap_mode="r")[rows]
        # TF-IDF to counts, which ranks the peaks of a cell better than its values as they are
        return values if modality == "rna" else self.tfidf.inverse_transform(values)

    def _write(self, name: str, cells: MuData) -> None:
        values = {"rna": cells["rna"].X, "atac": self.tfidf.transform(cells["atac"].X)}
        for modality, matrix in values.items():
            # scipy of Python 3.7 knows matrices alone, no sparse arrays
            sparse.save_npz(
                self.folder / f"{name}.{modality}.npz", sparse.csr_matrix(matrix, dtype=np.float32)
            )

    def _embed(self, cells: MuData) -> dict[str, np.ndarray]:
        """All views of cells and their clusters, kept until other cells are asked for."""
        if self.embedded is None or self.embedded[0] is not cells:
            self._write("cells", cells)
            self._run("embed")
            with np.load(self.folder / "embedded.npz") as arrays:
                self.embedded = cells, dict(arrays)
        return self.embedded[1]

    def _run(self, job: str) -> None:
        """Carry out a job in the other environment, and pass on what it says where it fails."""
        environment = dict(os.environ)
        if "AuthenticAMD" in _processor():
            # else the MKL of its years runs products at a third of the speed
            environment["MKL_DEBUG_CPU_TYPE"] = "5"
        done = subprocess.run(
            [environment[PYTHON], str(PROCESS), job, str(self.folder)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode < 0:
            raise ChildProcessError(f"the original scMVP was ended by signal {-done.returncode}")
        if done.returncode > 0:
            *_, last = done.stderr.strip().splitlines() or ["nothing was said"]
            # what torch 1.8 says of NaN, without its name
            kind = "nan" if "invalid values" in last else "an error"
            raise RuntimeError(f"the original scMVP ended in {kind}: {last}")
        peak = int((self.folder / "peak_memory.txt").read_text()) * 1024
        self.peak_memory = max(self.peak_memory, peak)


def _processor() -> str:
    """What the system says of the processor, where it does (Linux)."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""
