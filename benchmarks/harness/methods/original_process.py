"""Fits the authors' scMVP and asks it for its values, in the Python that has it.

Started by `harness.methods.original` with the interpreter of another environment, so that this
file keeps to Python 3.7 and imports nothing of the benchmark. A job is a folder:

- ``fit`` reads ``train.rna.npz``, ``train.atac.npz`` and ``job.json``, and writes ``model.pt`` and
  ``fitted.json``;
- ``embed`` reads ``cells.rna.npz`` and ``cells.atac.npz``, and writes ``embedded.npz``;
- ``impute`` reads the training cells again, and writes ``rna.npy`` and ``atac.npy``.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import scMVP
import torch
from scipy import sparse
from scMVP.dataset import CellMeasurement, GeneExpressionDataset
from scMVP.inference import MultiPosterior, MultiTrainer, UnsupervisedTrainer
from scMVP.models import Multi_VAE_Attention, VAE_Attention, VAE_Peak_SelfAttention

BATCH_SIZE = 64  # its own
NEIGHBORS = 30  # of its notebooks


def dataset_of(rna, atac=None):
    """Cells in the form that its trainers read, dense as in its own loader."""
    cells = GeneExpressionDataset()
    paired = []
    if atac is not None:
        names = np.array([f"peak{i}" for i in range(atac.shape[1])])
        paired = [
            CellMeasurement(
                name="atac_expression",
                data=atac.toarray(),
                columns_attr_name="atac_names",
                columns=names,
            )
        ]
    cells.populate_from_data(
        X=rna.toarray(), gene_names=[f"feature{i}" for i in range(rna.shape[1])], Ys=paired
    )
    return cells


def read(folder, cells):
    """Counts of RNA and values of ATAC."""
    return [
        sparse.load_npz(str(folder / (cells + "." + name + ".npz"))).astype(np.float32)
        for name in ("rna", "atac")
    ]


def pretrained(kind, values, job, epochs):
    """Model of one modality after its training, and the means of its latent."""
    cells = dataset_of(values)
    model = kind(
        cells.nb_genes,
        n_latent=job["n_latent"],
        n_batch=0,
        n_layers=1,
        log_variational=True,
        reconstruction_loss="nb",
    )
    trainer = UnsupervisedTrainer(
        model, cells, train_size=0.9, use_cuda=False, frequency=5, seed=job["seed"]
    )
    trainer.train(n_epochs=epochs, lr=job["learning_rate"])
    model.eval()  # its trainer leaves it in training mode
    everything = trainer.create_posterior(model, cells, indices=np.arange(len(cells)))
    latent, _, _ = everything.sequential().get_latent()
    return model, latent


def louvain_clusters(latent, seed):
    """Clusters as in its notebooks, which give the mixture its components."""
    import anndata
    import scanpy as sc

    cells = anndata.AnnData(latent)
    threads = torch.get_num_threads()  # numba sets them anew
    sc.pp.neighbors(cells, use_rep="X", n_neighbors=NEIGHBORS, random_state=seed)
    sc.tl.louvain(cells, random_state=seed)
    torch.set_num_threads(threads)
    return cells.obs["louvain"].to_numpy().astype(int)


def model_of(rna, atac, n_clusters, n_latent):
    """Its joint model, by its defaults."""
    return Multi_VAE_Attention(
        rna.shape[1],
        atac.shape[1],
        n_batch=0,
        n_latent=n_latent,
        n_centroids=n_clusters,
        n_alfa=1.0,
        mode="mm-vae",
    )


def fit(folder, job):
    """Train it on each modality, then on both."""
    rna, atac = read(folder, "train")
    of_atac, _ = pretrained(VAE_Peak_SelfAttention, atac, job, job["atac_epochs"])
    of_rna, latent = pretrained(VAE_Attention, rna, job, job["rna_epochs"])
    n_clusters, clusters = job["n_clusters"], None
    if n_clusters is None:
        clusters = louvain_clusters(latent, job["seed"])
        n_clusters = len(np.unique(clusters))
    model = model_of(rna, atac, n_clusters, job["n_latent"])
    cells = dataset_of(rna, atac)
    trainer = MultiTrainer(
        model, cells, train_size=0.9, use_cuda=False, frequency=5, seed=job["seed"]
    )
    if clusters is None:
        model.init_gmm_params(latent)
    else:
        model.init_gmm_params_with_louvain(latent, clusters)
    model.RNA_encoder.load_state_dict(of_rna.z_encoder.state_dict())
    model.ATAC_encoder.load_state_dict(of_atac.z_encoder.state_dict())
    trainer.train(n_epochs=job["epochs"], lr=job["learning_rate"])
    torch.save(model.state_dict(), str(folder / "model.pt"))
    versions = {module.__name__: module.__version__ for module in (scMVP, torch, np)}
    versions["python"] = sys.version.split()[0]
    environment = {"torch_threads": torch.get_num_threads(), **versions}
    found = {"n_clusters": n_clusters, "environment": environment}
    (folder / "fitted.json").write_text(json.dumps(found))


def posterior_of(folder, job, rna, atac):
    """Cells as the fitted model sees them, in their order."""
    fitted = json.loads((folder / "fitted.json").read_text())
    model = model_of(rna, atac, fitted["n_clusters"], job["n_latent"])
    model.load_state_dict(torch.load(str(folder / "model.pt")))
    model.eval()
    return MultiPosterior(
        model,
        dataset_of(rna, atac),
        indices=np.arange(rna.shape[0]),
        use_cuda=False,
        data_loader_kwargs={"batch_size": BATCH_SIZE},
    ).sequential()


def embed(folder, job):
    """Latents by both modalities and by each, and probabilities of the clusters."""
    posterior = posterior_of(folder, job, *read(folder, "cells"))
    joint, rna, atac, probabilities = posterior.get_latent()[:4]
    np.savez(
        str(folder / "embedded.npz"), joint=joint, rna=rna, atac=atac, probabilities=probabilities
    )


def impute(folder, job):
    """Imputed values of the training cells, one draw of the latent as it takes them."""
    rna, atac = posterior_of(folder, job, *read(folder, "train")).imputation()[:2]
    np.save(str(folder / "rna.npy"), rna)
    np.save(str(folder / "atac.npy"), atac)


def peak_memory():
    """Largest resident memory of this process, in kilobytes (Linux)."""
    file = Path("/proc/self/status")
    if not file.exists():
        return 0
    return int(next(x for x in file.read_text().splitlines() if x.startswith("VmHWM")).split()[1])


def main():
    """Carry out one job."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    job = json.loads((folder / "job.json").read_text())
    np.random.seed(job["seed"])  # noqa: NPY002
    torch.manual_seed(job["seed"])
    # it prints four lines a minibatch
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        {"fit": fit, "embed": embed, "impute": impute}[what](folder, job)
    (folder / "peak_memory.txt").write_text(str(peak_memory()))


if __name__ == "__main__":
    main()
