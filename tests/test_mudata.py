"""What versions of mudata and anndata do differently; what scipy and pandas do not store."""

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scmvp_scvi._mudata import as_csr, layer_names, reindexed, without_pulling


def modality(n_features: int, prefix: str) -> AnnData:
    return AnnData(
        np.ones((3, n_features), dtype=np.float32),
        obs=pd.DataFrame({"batch": ["a", "b", "a"]}, index=["cell0", "cell1", "cell2"]),
        var=pd.DataFrame(index=[f"{prefix}{i}" for i in range(n_features)]),
        layers={"counts": np.zeros((3, n_features))},
    )


def test_columns_of_modalities_stay_where_they_are(monkeypatch):
    if hasattr(mudata, "settings"):  # which do not pull by themselves
        monkeypatch.setattr(mudata.settings, "pull_on_update", True)
    with without_pulling():
        mdata = mudata.MuData({"rna": modality(2, "gene"), "atac": modality(4, "peak")})
    assert list(mdata.obs.columns) == []
    assert list(mdata["rna"].obs.columns) == ["batch"]


def test_x_is_not_among_the_named_layers():
    assert layer_names(modality(2, "gene")) == ["counts"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_dense_values_of_any_type_have_a_sparse_form(dtype):
    values = np.array([[0, 2047, 3], [255, 0, 0]]).astype(dtype)
    np.testing.assert_array_equal(as_csr(values).toarray(), values)


def test_sparse_values_of_half_precision_become_single():
    half = sp.csr_matrix((np.array([3, 4], np.float16), [0, 1], [0, 1, 2]), shape=(2, 2))
    found = as_csr(half)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), [[3, 0], [0, 4]])


def test_what_is_sparse_by_row_stays_the_same_memory():
    matrix = sp.csr_matrix(np.eye(3))
    assert np.shares_memory(as_csr(matrix).data, matrix.data)


def test_rows_without_a_name_in_the_table_have_missing_values_in_all_columns():
    table = pd.DataFrame({"is_gene": [True, False], "length": [3, 4]}, index=["a", "b"])
    found = reindexed(table, pd.Index(["b", "c"]))
    assert found["is_gene"].dtype == "boolean"
    assert found["is_gene"].tolist() == [False, pd.NA]
    np.testing.assert_array_equal(found["length"], [4, np.nan])
