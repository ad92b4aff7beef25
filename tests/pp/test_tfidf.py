"""TF-IDF against the transform of the model, muon, and a plain loop."""

import muon
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from scmvp_scvi import pp
from scmvp_scvi._counts import SparseCounts


def test_tfidf_is_what_the_encoder_of_a_trained_model_reads(mdata, train):
    model = train(mdata, max_epochs=1)
    found = pp.tfidf(mdata, idf_indices=model.train_indices)
    counts = SparseCounts.from_tensor(torch.as_tensor(mdata["atac"].X.toarray()))
    expected = model.module.atac_profile(counts).to_dense().numpy()
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_tfidf_equals_muon(mdata):
    atac = mdata["atac"][:, mdata["atac"].X.sum(axis=0).A1 > 0].copy()
    muon.atac.pp.tfidf(atac, log_tf=False, log_idf=False, log_tfidf=True)
    found = pp.tfidf(mdata)[:, mdata["atac"].var_names.get_indexer(atac.var_names)]
    np.testing.assert_allclose(found.toarray(), atac.X.toarray(), rtol=1e-5)


def test_tfidf_equals_a_plain_loop_also_where_rows_and_columns_are_empty(make_pair):
    counts = [[0, 3, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    found = pp.tfidf(make_pair(np.ones((3, 1)), counts)).toarray()
    for i, row in enumerate(counts):
        for p, count in enumerate(row):
            total = sum(other[p] for other in counts)
            expected = np.log1p(count / sum(row) * 1e4 * 3 / total) if count else 0
            assert found[i, p] == pytest.approx(expected, rel=1e-6)


def test_a_peak_without_a_count_in_the_chosen_cells_counts_half(make_pair):
    pair = make_pair(np.ones((3, 1)), [[1, 0], [1, 0], [0, 1]])
    found = pp.tfidf(pair, idf_indices=[0, 1])
    assert found[2, 1] == pytest.approx(np.log1p(1e4 * 2 / 0.5), rel=1e-6)


def test_tfidf_is_sparse_and_leaves_the_counts_as_they_are(mdata):
    before = mdata["atac"].X.copy()
    found = pp.tfidf(mdata)
    assert isinstance(found, sp.csr_matrix)
    assert found.dtype == np.float32
    assert found.nnz == before.nnz
    assert (mdata["atac"].X != before).nnz == 0


def test_tfidf_of_stored_zeros_in_an_empty_cell_is_finite(make_pair):
    pair = make_pair(np.ones((2, 1)), [[1, 1], [1, 1]])
    pair["atac"].X.data[2:] = 0
    assert np.isfinite(pp.tfidf(pair).data).all()


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "`idf_indices` must choose at least one cell"),
        ([900], "`idf_indices` must lie between 0 and 299"),
        ([True], "`idf_indices` as a boolean mask must have one value per cell"),
    ],
)
def test_cells_that_do_not_exist_are_refused(mdata, indices, message):
    with pytest.raises(ValueError, match=message):
        pp.tfidf(mdata, idf_indices=indices)


def test_a_column_of_cells_in_another_order_is_refused_and_the_way_out_brings_them_into_it(
    make_pair,
):
    pair = make_pair(np.ones((3, 1)), np.eye(3) + 1, list("abc"), list("cab"))
    column = pd.Series([True, True, False], index=pair.obs_names)
    with pytest.raises(ValueError, match="must name the cells in the order of the data") as error:
        pp.tfidf(pair, idf_indices=column)
    assert '`idf_indices.loc[mdata["atac"].obs_names]`' in str(error.value)
    found = pp.tfidf(pair, idf_indices=column.loc[pair["atac"].obs_names])
    assert (found != pp.tfidf(pair, idf_indices=[1, 2])).nnz == 0


def test_tfidf_of_reads_is_warned_about_where_fragments_are_there(make_pair):
    reads = make_pair(np.ones((40, 1)), np.full((40, 3), 2))
    pp.tfidf(reads)
    fragments = pp.reads_to_fragments(reads)
    with pytest.warns(UserWarning, match='counts in `atac` look like reads.*"fragments"'):
        pp.tfidf(fragments)
    pp.tfidf(fragments, atac_layer="fragments")


def test_tfidf_of_transformed_values_is_refused(make_pair):
    pair = make_pair(np.ones((2, 1)), [[0.3, 0.1], [1.7, 0]])
    with pytest.raises(ValueError, match="`atac_layer`: .* must hold raw counts"):
        pp.tfidf(pair)
