"""Promotion of layers, and fragments against scvi-tools."""

import numpy as np
import pytest
import scipy.sparse as sp
from mudata import MuData
from scvi.data import reads_to_fragments

from scmvp_scvi import pp
from scmvp_scvi._mudata import layer_names


@pytest.fixture
def pair(make_pair, rng) -> MuData:
    """Counts in the layer `counts`, and something else in `.X`."""
    pair = make_pair(rng.poisson(2.0, (8, 5)), rng.poisson(3.0, (8, 6)))
    for adata in pair.mod.values():
        adata.layers["counts"] = adata.X.copy()
        adata.X.data = np.log1p(adata.X.data)
    return pair


def test_promoted_counts_are_in_x_and_in_their_layer(pair, dense):
    promoted = pp.promote_counts(pair, rna_layer="counts", atac_layer="counts")
    for key in ("rna", "atac"):
        assert (dense(promoted[key].X) == dense(pair[key].layers["counts"])).all()
        assert layer_names(promoted[key]) == ["counts"]
        assert not np.shares_memory(promoted[key].X.data, promoted[key].layers["counts"].data)


def test_a_modality_without_a_layer_stays_as_it_is(pair, dense):
    promoted = pp.promote_counts(pair, atac_layer="counts")
    assert (dense(promoted["rna"].X) == dense(pair["rna"].X)).all()


def test_former_values_are_kept_where_asked_for(pair, dense):
    promoted = pp.promote_counts(pair, rna_layer="counts", former_layer="log1p")
    assert (dense(promoted["rna"].layers["log1p"]) == dense(pair["rna"].X)).all()


def test_counts_are_promoted_where_x_is_empty(pair, dense):
    pair["rna"].X = None
    promoted = pp.promote_counts(pair, rna_layer="counts", former_layer="former")
    assert (dense(promoted["rna"].X) == dense(pair["rna"].layers["counts"])).all()
    assert layer_names(promoted["rna"]) == ["counts"]


def test_promotion_leaves_the_given_object_as_it_is(pair, assert_untouched):
    before = pair.copy()
    promoted = pp.promote_counts(pair, rna_layer="counts", former_layer="log1p")
    promoted["rna"].layers["counts"].data[:] = 99
    assert_untouched(pair, before)


def test_promotion_of_no_layer_is_refused(pair):
    with pytest.raises(ValueError, match="`promote_counts` needs the layer .* got none"):
        pp.promote_counts(pair)


def test_promotion_of_an_unknown_layer_is_refused(pair):
    with pytest.raises(KeyError, match='`atac_layer="count"` is not .* Did you mean `counts`'):
        pp.promote_counts(pair, atac_layer="count")


def test_promotion_of_no_counts_is_refused_with_the_layer_that_has_them(pair):
    pair["rna"].layers["log1p"] = pair["rna"].X
    with pytest.raises(ValueError, match='not integers.* pass `rna_layer="counts"`'):
        pp.promote_counts(pair, rna_layer="log1p")


def test_former_values_never_replace_a_layer(pair):
    with pytest.raises(ValueError, match='`former_layer="counts"` must be a new layer'):
        pp.promote_counts(pair, rna_layer="counts", former_layer="counts")


def test_kidney_half_counts_are_promoted_with_a_warning(read_real, dense):
    kidney = read_real("scicar_kidney_sample.h5mu")
    with pytest.warns(UserWarning, match="81 of 3938 non-zero values .* all of them half counts"):
        promoted = pp.promote_counts(kidney, atac_layer="fractional", former_layer="rounded")
    assert (dense(promoted["atac"].X) == dense(kidney["atac"].layers["fractional"])).all()
    assert (dense(promoted["atac"].layers["rounded"]) == dense(kidney["atac"].X)).all()


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("read_layer", [None, "counts"])
def test_fragments_equal_those_of_scvi_tools(pair, dense, convert, read_layer):
    pair["atac"].X = convert(pair["atac"].layers["counts"].toarray())
    expected = pair["atac"].copy()
    reads_to_fragments(expected, read_layer)
    found = pp.reads_to_fragments(pair, read_layer=read_layer)
    assert (dense(found["atac"].layers["fragments"]) == dense(expected.layers["fragments"])).all()
    assert sp.issparse(found["atac"].layers["fragments"]) == sp.issparse(
        expected.layers["fragments"]
    )


def test_promoted_fragments_are_no_reads_beside_fragments(make_pair):
    reads = make_pair(np.ones((40, 1)), np.full((40, 3), 2))
    fragments = pp.promote_counts(pp.reads_to_fragments(reads), atac_layer="fragments")
    assert pp.tfidf(fragments).nnz == 120


def test_fragments_are_half_the_reads_rounded_up(make_pair):
    pair = make_pair([[1]], [[0, 1, 2, 3, 4, 5]])
    found = pp.reads_to_fragments(pair, fragment_layer="f")["atac"].layers["f"]
    assert found.toarray().tolist() == [[0, 1, 1, 2, 2, 3]]


def test_fragments_leave_the_given_object_as_it_is(pair, assert_untouched):
    before = pair.copy()
    pp.reads_to_fragments(pair, read_layer="counts")
    assert_untouched(pair, before)


def test_fragments_are_never_halved_again(pair):
    once = pp.reads_to_fragments(pair, read_layer="counts")
    with pytest.raises(ValueError, match='`fragment_layer="fragments"` must be a new layer'):
        pp.reads_to_fragments(once, read_layer="counts")


def test_fragments_of_transformed_values_are_refused(pair):
    with pytest.raises(ValueError, match="`read_layer`: .* must hold raw counts"):
        pp.reads_to_fragments(pair)
