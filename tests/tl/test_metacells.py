"""Groups of like cells: their sizes, and what is refused."""

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from mudata import MuData

from scmvp_scvi import tl


def test_metacells_do_not_mix_distant_clouds(rng):
    clouds = np.repeat([0, 100, 200], 60)
    labels = tl.metacells(clouds[:, None] + rng.standard_normal((180, 4)), cells_per_metacell=20)
    assert len(np.unique(labels)) == 9
    assert all(len(set(clouds[labels == name])) == 1 for name in np.unique(labels))


def test_same_seed_gives_the_same_metacells(rng):
    embedding = rng.standard_normal((100, 3))
    assert (tl.metacells(embedding, seed=2) == tl.metacells(embedding, seed=2)).all()


@pytest.mark.parametrize("embedding", [np.zeros(5), np.full((30, 2), np.nan)])
def test_embedding_must_be_a_table_of_finite_numbers(embedding):
    with pytest.raises(ValueError, match="`embedding` must be a table of finite numbers"):
        tl.metacells(embedding)


def test_metacells_larger_than_the_data_are_refused(rng):
    with pytest.raises(ValueError, match="at most the number of cells, 10, got 20"):
        tl.metacells(rng.standard_normal((10, 2)))


@pytest.mark.parametrize("kind", [AnnData, lambda X: MuData({"rna": AnnData(X)})])
def test_data_in_the_place_of_their_embedding_are_refused(kind):
    data = kind(np.eye(50))
    with pytest.raises(TypeError, match=f"must be a table.*got {type(data).__name__}: .*obsm"):
        tl.metacells(data)


def test_sparse_embedding_is_refused_with_what_makes_it_dense():
    with pytest.raises(TypeError, match=r"a dense table, .*: `embedding.toarray\(\)`\?"):
        tl.metacells(sp.csr_matrix(np.eye(50)))
