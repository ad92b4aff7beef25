"""New MuData hold what the given ones knew of their cells and features, by name and as it was."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from mudata import MuData

from scmvp_scvi import pp
from scmvp_scvi._mudata import without_pulling


def features_of(mdata: MuData) -> list[str]:
    """Modality and name of each row of `.var`."""
    modalities = [[key for key in mdata.mod if mdata.varmap[key][i]] for i in range(mdata.n_vars)]
    return [f"{key} {name}" for [key], name in zip(modalities, mdata.var_names, strict=True)]


@pytest.fixture
def scattered(make_modality, rng) -> MuData:
    """Two features were renamed, whose rows of `.var` then stand behind all others.

    Each row, and each entry of a table of rows by rows, tells of which features it is.
    """
    with without_pulling():
        mdata = MuData(
            {
                "rna": make_modality(1 + rng.poisson(1.0, (6, 3)), ["a", "b", "c"]),
                "atac": make_modality(1 + rng.poisson(1.0, (6, 2)), ["chr1:0-50", "chr1:100-150"]),
            }
        )
        mdata["rna"].var_names = ["a", "new", "c"]
        mdata["atac"].var_names = ["chr1:20-50", "chr1:100-150"]
        mdata.update()
    assert list(mdata.var_names) == ["a", "c", "chr1:100-150", "new", "chr1:20-50"]
    return with_known_features(mdata)


def with_known_features(mdata: MuData) -> MuData:
    n = mdata.n_vars
    mdata.var["feature"] = features_of(mdata)
    mdata.varm["place"] = np.arange(n)[:, None]
    mdata.varm["table"] = pd.DataFrame({"place": np.arange(n)}, index=mdata.var_names)
    mdata.varp["pairs"] = sp.csr_matrix(np.arange(n**2).reshape(n, n))
    return mdata


def assert_features_are_those_of(found: MuData, mdata: MuData) -> None:
    assert list(found.var["feature"]) == features_of(found)
    places = [features_of(mdata).index(feature) for feature in features_of(found)]
    assert found.varm["place"].ravel().tolist() == places
    assert found.varm["table"]["place"].tolist() == places
    pairs = mdata.varp["pairs"].toarray()[np.ix_(places, places)]
    np.testing.assert_array_equal(found.varp["pairs"].toarray(), pairs)
    for key, adata in found.mod.items():
        expected = mdata[key][found.obs_names, adata.var_names].X
        assert (adata.X != expected).nnz == 0


FUNCTIONS = {
    "intersect": pp.intersect_cells,
    "union": pp.union_cells,
    "fragments": pp.reads_to_fragments,
    "filter": lambda mdata: pp.filter_cells_and_features(mdata, min_cells=1),
    "select": lambda mdata: pp.select_features(mdata, n_peaks=1, subset=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_features_keep_what_is_known_of_them_where_var_is_not_in_the_order_of_the_modalities(
    scattered, name
):
    assert_features_are_those_of(FUNCTIONS[name](scattered), scattered)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_views_of_scattered_features_keep_what_is_known_of_them(scattered, name):
    assert_features_are_those_of(FUNCTIONS[name](scattered[1:]), scattered)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_modality_in_another_order_keeps_what_is_known_of_its_features(scattered, name):
    scattered.mod["rna"] = scattered["rna"][:, [2, 0, 1]].copy()  # mudata's map is of before
    found = FUNCTIONS[name](scattered)
    assert list(found["rna"].var_names) == ["c", "a", "new"]
    assert list(found.var["feature"]) == features_of(found)


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_features_of_one_name_in_two_modalities_keep_what_is_known_of_each(
    make_modality, rng, name
):
    with without_pulling():
        mdata = MuData(
            {
                "protein": make_modality(1 + rng.poisson(1.0, (6, 2)), ["CD8", "CD4"]),
                "rna": make_modality(1 + rng.poisson(1.0, (6, 3)), ["old", "CD4", "CD8"]),
                "atac": make_modality(1 + rng.poisson(1.0, (6, 2)), ["chr1:0-50", "chr1:100-150"]),
            }
        )
        mdata["rna"].var_names = ["new", "CD4", "CD8"]
        mdata.update()
    assert list(mdata.var_names[[0, 1, -1]]) == ["CD8", "CD4", "new"]
    with_known_features(mdata)
    assert_features_are_those_of(FUNCTIONS[name](mdata), mdata)
    mdata.mod["rna"] = mdata["rna"][:, [2, 0, 1]].copy()
    with pytest.raises(ValueError, match=r"Run `mdata.update\(\)` first"):
        FUNCTIONS[name](mdata)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_columns_keep_their_types(make_pair, rng, name):
    pair = make_pair(1 + rng.poisson(1.0, (4, 3)), 1 + rng.poisson(1.0, (4, 4)))
    for table in (pair.obs, pair.var):
        n = len(table)
        table["whole"] = np.arange(float(n))  # mudata would make integers of them
        table["missing"] = np.where(np.arange(n) == 1, np.nan, 1).astype(np.float32)
        table["half"] = np.arange(n, dtype=np.float16)
        table["text"] = pd.array([f"row {i}" for i in range(n)], dtype="string")
        table["flag"] = np.array([True, np.nan] * n, dtype=object)[:n]
    found = FUNCTIONS[name](pair)
    for table, given in ((found.obs, pair.obs), (found.var, pair.var)):
        pd.testing.assert_frame_equal(table[list(given)], given.loc[table.index])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_index_of_cells_may_have_a_name(make_pair, rng, name):
    pair = make_pair(1 + rng.poisson(1.0, (4, 3)), 1 + rng.poisson(1.0, (4, 4)))
    pair.obs["batch"] = list("xyxy")
    pair.obs.index.name = "barcode"
    pd.testing.assert_frame_equal(FUNCTIONS[name](pair).obs[["batch"]], pair.obs)
    assert pair.obs.index.name == "barcode"
