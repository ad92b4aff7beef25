"""What the encoders read, against NumPy and muon."""

import anndata
import muon
import numpy as np
import pytest
import torch

from scmvp_scvi._counts import DenseCounts, SparseCounts
from scmvp_scvi._profiles import (
    log_normalized,
    log_normalized_of_shares,
    log_tfidf,
    log_tfidf_of_shares,
)

N_CELLS, N_FEATURES = 8, 11
MEDIAN_DEPTH = torch.tensor(9.0)


@pytest.fixture
def counts(rng) -> np.ndarray:
    """Counts of cells, the fourth of which has none."""
    counts = rng.poisson(1.0, (N_CELLS, N_FEATURES)).astype(np.float32)
    counts[3] = 0
    return counts


@pytest.fixture
def idf(rng) -> torch.Tensor:
    return torch.as_tensor(rng.uniform(1, 8, N_FEATURES), dtype=torch.float32)


@pytest.fixture(params=[SparseCounts.from_tensor, DenseCounts], ids=["sparse", "written out"])
def read(request):
    return request.param


def test_rna_is_the_log_of_counts_per_median_depth_and_zero_in_empty_cells(counts, read):
    found = log_normalized(read(torch.tensor(counts)), MEDIAN_DEPTH).to_dense()
    depth = np.maximum(counts.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(found, np.log1p(counts / depth * 9.0), rtol=1e-6)


def test_atac_is_the_log_of_tfidf_and_zero_in_empty_cells(counts, read, idf):
    found = log_tfidf(read(torch.tensor(counts)), idf).to_dense()
    depth = np.maximum(counts.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(found, np.log1p(counts / depth * 1e4 * idf.numpy()), rtol=1e-5)


def test_atac_is_the_tfidf_of_muon(counts, read):
    counts = counts[counts.sum(1) > 0]
    idf = torch.tensor(len(counts) / counts.sum(0))
    found = log_tfidf(read(torch.tensor(counts)), idf).to_dense()
    adata = anndata.AnnData(counts)
    muon.atac.pp.tfidf(adata, log_tf=False, log_idf=False, log_tfidf=True, scale_factor=1e4)
    np.testing.assert_allclose(found, adata.X.toarray(), rtol=1e-5)


def test_some_counts_of_a_cell_are_scaled_by_the_depth_of_all(counts, read, idf):
    whole, part = (read(torch.tensor(some)) for some in (counts, counts[:, :4].copy()))
    for transform, constant, of_part in (
        (log_normalized, MEDIAN_DEPTH, MEDIAN_DEPTH),
        (log_tfidf, idf, idf[:4]),
    ):
        found = transform(part, of_part, whole.depth).to_dense()
        torch.testing.assert_close(found, transform(whole, constant).to_dense()[:, :4])


def test_imputed_shares_are_read_as_the_counts_that_have_them_are(counts, read, idf):
    counts = counts[counts.sum(1) > 0] + 1  # a logarithm is taken of each share
    shares = torch.tensor(counts / counts.sum(1, keepdims=True))
    observed = read(torch.tensor(counts))
    torch.testing.assert_close(
        log_normalized_of_shares(shares.log(), MEDIAN_DEPTH),
        log_normalized(observed, MEDIAN_DEPTH).to_dense(),
    )
    torch.testing.assert_close(
        log_tfidf_of_shares(shares, idf), log_tfidf(observed, idf).to_dense()
    )
