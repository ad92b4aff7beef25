"""Fixtures that every test may use."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import scvi
import torch
from mudata import MuData

from scmvp_scvi import SCMVPModel
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi.datasets import synthetic


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    torch.set_num_threads(1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


MODALITIES = {"rna_layer": "rna", "atac_layer": "atac"}


@pytest.fixture(scope="session")
def small() -> dict[str, int]:
    """Architecture that trains in a moment."""
    return {"n_latent": 5, "n_hidden": 32, "n_hidden_atac": 16, "n_shared": 32, "n_heads": 4}


@pytest.fixture(scope="session")
def make_mdata():
    """Return a function that draws paired counts; the same for the same seed, not registered."""

    def make_mdata(**changes) -> MuData:
        size = {"n_cells": 300, "n_genes": 80, "n_peaks": 150, "n_types": 4, "n_batches": 2}
        return synthetic(**{**size, "rna_depth": 100, "atac_depth": 80, **changes})

    return make_mdata


@pytest.fixture(scope="session")
def register():
    """Return a function that registers data for `SCMVPModel` and hands them back."""

    def register(mdata: MuData, modalities=MODALITIES, **arguments) -> MuData:
        SCMVPModel.setup_mudata(mdata, modalities=dict(modalities), **arguments)
        return mdata

    return register


@pytest.fixture
def fresh_mdata(make_mdata, register) -> MuData:
    """Registered data of one's own: scvi-tools keeps one registration for each object."""
    return register(make_mdata(), batch_key="batch")


@pytest.fixture(scope="session")
def mdata(make_mdata, register) -> MuData:
    """Registered data that tests only read."""
    return register(make_mdata(), batch_key="batch")


@pytest.fixture
def same_draws() -> Iterator[None]:
    """Have torch draw the same in each run of a test, and go on as before after it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Give scvi-tools a seed, and leave the global generators as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    environment, cudnn = dict(os.environ), torch.backends.cudnn
    flags, scvi_seed = (cudnn.deterministic, cudnn.benchmark), scvi.settings.seed
    try:
        with torch.random.fork_rng():
            scvi.settings.seed = seed
            yield
    finally:
        scvi.settings._seed = scvi_seed
        cudnn.deterministic, cudnn.benchmark = flags
        os.environ.clear()
        os.environ.update(environment)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@pytest.fixture(scope="session")
def train(small):
    """Return a function that builds and trains a model, the same for the same seed."""

    def train(mdata: MuData, seed: int = 0, architecture=None, **arguments) -> SCMVPModel:
        with seeded(seed):
            model = SCMVPModel(mdata, **{**small, "n_clusters": 4, **(architecture or {})})
            go_on(model, seed, **arguments)
        return model

    return train


@pytest.fixture(scope="session")
def train_more():
    """Return a function that trains a model that exists."""
    return go_on


def go_on(model: SCMVPModel, seed: int = 0, max_epochs: int = 2, **arguments) -> None:
    quiet = {"enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    with seeded(seed):
        model.train(max_epochs, **{**quiet, **arguments})


@pytest.fixture(scope="session")
def trained_model(mdata, train) -> SCMVPModel:
    """Model of `mdata` that has learned a little; tests only read it."""
    return train(mdata, max_epochs=30, batch_size=64)


@pytest.fixture(scope="module")
def latent(trained_model) -> np.ndarray:
    """Joint embedding of the cells of `trained_model`."""
    return trained_model.get_latent_representation()


@pytest.fixture
def some_cells(mdata) -> MuData:
    """Cells 30 to 229 of the training data, as data of their own."""
    with without_pulling():
        modalities = {key: mdata[key][30:230].copy() for key in ("rna", "atac")}
        return MuData(modalities, obs=mdata.obs[["batch"]].iloc[30:230].copy())


@pytest.fixture(scope="module")
def with_empty_cells(make_mdata, register, train) -> SCMVPModel:
    """Model of data where some cells lack RNA and others ATAC."""
    mdata = make_mdata(missing_rna=0.1, missing_atac=0.1)
    with pytest.warns(UserWarning, match="30 of 300 cells have no counts in"):
        register(mdata)
    return train(mdata, max_epochs=2)
