"""Samples are dense where they have cells, and no denser for a cell of theirs."""

import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData

from scmvp_scvi import SCMVPModel, _abundance

pytestmark = pytest.mark.usefixtures("same_draws")


@pytest.fixture(scope="module")
def planted(make_mdata, register) -> MuData:
    """Samples of which one holds most of a type, and two are alike."""
    mdata, rng = make_mdata(n_cells=520), np.random.default_rng(0)
    sample = rng.choice(["alike_1", "alike_2"], mdata.n_obs)
    rich = (mdata.obs["cell_type"] == "type_0").to_numpy() & (rng.random(mdata.n_obs) < 0.9)
    mdata.obs["sample"] = np.where(rich, "rich", sample)
    return register(mdata, batch_key="batch")


@pytest.fixture(scope="module")
def model(planted, train) -> SCMVPModel:
    return train(planted, max_epochs=60, batch_size=64)


@pytest.fixture
def sample(planted) -> pd.Series:
    return planted.obs["sample"]


def test_abundance_is_higher_where_a_sample_has_its_cells(model, planted, sample):
    density = model.differential_abundance(sample_key="sample")
    change = density["rich"] - density[["alike_1", "alike_2"]].mean(axis=1)
    in_type = planted.obs["cell_type"] == "type_0"
    assert change[in_type].median() > change[~in_type].median() + 1
    assert density.index.equals(planted.obs_names)


def test_a_cell_does_not_make_its_own_sample_denser(model, planted, sample):
    """With its own posterior, as in scvi-tools, nearly every cell finds its sample the denser."""
    density = model.differential_abundance(sample_key="sample", dof=None)
    change = density["alike_1"] - density["alike_2"]
    own = sample.map({"alike_1": 1, "alike_2": -1, "rich": np.nan})
    denser = (change * own)[own.notna()] > 0
    assert denser.mean() == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("dof", [None, 3.0])
def test_density_is_that_of_the_mixture_of_the_other_cells(model, sample, dof, monkeypatch):
    monkeypatch.setattr(_abundance, "_ENTRIES_PER_BLOCK", 5_000)
    found = model.differential_abundance(sample_key="sample", dof=dof)
    members = np.flatnonzero(sample == "rich")
    for cell in (members[3], np.flatnonzero(sample != "rich")[0]):
        others = model.get_aggregated_posterior(indices=np.setdiff1d(members, cell), dof=dof)
        z = torch.as_tensor(model.get_latent_representation(indices=[cell]))
        assert found["rich"].iloc[cell] == pytest.approx(float(others.log_prob(z)), abs=1e-3)


def test_a_subset_of_the_cells_may_stand_for_a_sample(model):
    whole = model.differential_abundance(sample_key="sample")
    part = model.differential_abundance(sample_key="sample", num_cells_posterior=30)
    assert np.corrcoef(whole["rich"], part["rich"])[0, 1] > 0.9


def test_sample_that_is_missing_or_a_single_cell_is_refused(model, planted):
    with pytest.raises(ValueError, match="`sample_key` must name the column"):
        model.differential_abundance()
    with pytest.raises(KeyError, match=r"`sample_key=\"samples\"` is not a column"):
        model.differential_abundance(sample_key="samples")
    planted.obs["lone"] = np.where(np.arange(planted.n_obs) == 0, "one", "others")
    with pytest.raises(ValueError, match="at least 2 cells, but 'one' of .* has 1"):
        model.differential_abundance(sample_key="lone")
    del planted.obs["lone"]


def test_samples_that_are_numbers_name_columns_by_strings(model, planted):
    planted.obs["number"] = np.arange(planted.n_obs) % 2
    found = model.differential_abundance(sample_key="number")
    del planted.obs["number"]
    assert list(found.columns) == ["0", "1"]  # which can be written in `.obsm`


def test_samples_whose_names_print_alike_are_refused(model, planted):
    planted.obs["mixed"] = np.resize(np.array([1, "1", 2], dtype=object), planted.n_obs)
    with pytest.raises(ValueError, match=r"has `1`, `'1'`: give them values"):
        model.differential_abundance(sample_key="mixed")
    del planted.obs["mixed"]


def test_list_of_columns_of_samples_is_refused(model):
    with pytest.raises(TypeError, match=r"`sample_key` must name one column, got \['sample'"):
        model.differential_abundance(sample_key=["sample", "batch"])


@pytest.mark.parametrize("dof", [0, -1.0, np.nan])
def test_degrees_of_freedom_that_no_law_has_are_refused(model, dof):
    with pytest.raises(ValueError, match="`dof` must be above 0 and finite"):
        model.differential_abundance(sample_key="batch", dof=dof)
    with pytest.raises(ValueError, match="`dof` must be above 0 and finite"):
        model.get_aggregated_posterior(dof=dof)


def test_untrained_model_is_refused(fresh_mdata, small):
    with pytest.raises(RuntimeError, match="[Tt]rain"):
        SCMVPModel(fresh_mdata, **small).differential_abundance(sample_key="batch")
