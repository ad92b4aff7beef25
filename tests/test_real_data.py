"""Real data with the oddities that users bring; `SCMVP_DATA` names their folder."""

import os
from pathlib import Path

import mudata
import numpy as np
import pytest
from mudata import MuData

from scmvp_scvi import SCMVPModel

DATA = Path(os.environ.get("SCMVP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def read(name: str) -> MuData:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs {path}: set SCMVP_DATA to the folder of the real data")
    return mudata.read_h5mu(path)


def assert_every_output_is_finite(model: SCMVPModel):
    outputs = {
        "latent": model.get_latent_representation(),
        "clusters": model.get_cluster_probabilities(),
        "expression": model.get_normalized_expression(),
        "accessibility": model.get_normalized_accessibility(),
        "elbo": model.get_elbo(return_mean=False),
        **{name: frame.astype(float) for name, frame in model.history.items()},
    }
    for name, values in outputs.items():
        assert np.isfinite(np.asarray(values)).all(), name


@pytest.fixture(scope="module")
def pbmc(register) -> MuData:
    mdata = read("pbmc_multiome_tiny.h5mu")
    with (
        pytest.warns(UserWarning, match="19 of 1000 cells have no counts in `atac`"),
        pytest.warns(UserWarning, match="2 of 174 features have no counts in `atac`"),
        pytest.warns(UserWarning, match="of the first 15416, 13494 are even"),
    ):
        return register(mdata)


@pytest.fixture(scope="module")
def pbmc_model(pbmc, train) -> SCMVPModel:
    return train(pbmc, max_epochs=4)


def test_pbmc_with_cells_that_lack_atac_gives_finite_outputs(pbmc_model):
    assert_every_output_is_finite(pbmc_model)


def test_pbmc_cells_that_lack_atac_are_embedded_from_their_rna(pbmc, pbmc_model):
    empty = pbmc["atac"].X.sum(1).A1 == 0
    joint = pbmc_model.get_latent_representation(indices=empty)
    rna = pbmc_model.get_latent_representation(indices=empty, modality="rna")
    assert empty.sum() == 19
    np.testing.assert_array_equal(joint, rna)


def test_pbmc_cells_that_lack_atac_are_warned_about_in_its_channel(pbmc_model):
    with pytest.warns(UserWarning, match="19 cells have no atac counts"):
        pbmc_model.get_latent_representation(modality="atac")


# a sample of the cells leaves features without counts
@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.filterwarnings("ignore:The counts in `atac` look like reads:UserWarning")
def test_kidney_counts_train(register, train):
    mdata = register(read("scicar_kidney_sample.h5mu"))
    assert_every_output_is_finite(train(mdata))


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.filterwarnings("ignore:The counts in `atac` look like reads:UserWarning")
def test_kidney_half_counts_are_warned_about_and_train(register, train):
    mdata = read("scicar_kidney_sample.h5mu")
    assert (mdata["atac"].layers["fractional"].data % 1 == 0.5).any()
    with pytest.warns(UserWarning, match=r"all of them half counts \(n \+ 0\.5\)"):
        register(mdata, atac_layer="fractional")
    assert_every_output_is_finite(train(mdata))


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.filterwarnings("ignore:The counts in `atac` look like reads:UserWarning")
@pytest.mark.filterwarnings("ignore:2 cells moved from training set:UserWarning")
def test_bone_marrow_trains_with_its_donors_as_batches(register, train):
    mdata = register(read("neurips_bmmc_starter.h5mu"), batch_key="batch")
    model = train(mdata)
    assert_every_output_is_finite(model)
    donors = mdata.obs["batch"].astype("category").cat.categories
    first, second = (model.get_normalized_expression(transform_batch=d) for d in donors)
    assert not np.allclose(first, second)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.filterwarnings("ignore:The counts in `atac` look like reads:UserWarning")
@pytest.mark.filterwarnings("ignore:2 cells moved from training set:UserWarning")
def test_bone_marrow_labels_seed_the_components(register, train):
    mdata = read("neurips_bmmc_starter.h5mu")
    types = mdata.obs["cell_type"].astype(str)
    common = types.map(types.value_counts()) >= 10
    mdata.obs["label"] = types.where(common, "Unknown")
    model = train(register(mdata, labels_key="label"), architecture={"n_clusters": None})
    assert set(model.predict_clusters().cat.categories) == set(types[common])
