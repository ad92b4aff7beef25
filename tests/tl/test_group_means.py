"""Means of groups: oracles, the order of features, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmvp_scvi import tl


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_means_are_those_of_a_plain_loop(make_mdata, modality):
    mdata = make_mdata()
    names = list(mdata[modality].var_names[[7, 2, 5]])
    means = tl.group_means(mdata, "cell_type", names, modality=modality, block_size=2)
    counts = mdata[modality].to_df()
    depth = counts.sum(axis=1)
    values = np.log1p(counts.mul(depth.median() / depth, axis=0))
    for cell_type in mdata.obs["cell_type"].cat.categories:
        of_type = values.loc[mdata.obs["cell_type"] == cell_type, names].mean()
        np.testing.assert_allclose(means.loc[cell_type], of_type, rtol=1e-5)
    assert list(means) == names


def test_denoised_means_are_those_of_the_model(trained_model, mdata):
    names = list(mdata["atac"].var_names[:3])
    means = tl.group_means(mdata, "cell_type", names, modality="atac", model=trained_model)
    denoised = np.log1p(1e4 * trained_model.get_normalized_accessibility(region_list=names))
    expected = denoised.groupby(mdata.obs["cell_type"], observed=True).mean()
    pd.testing.assert_frame_equal(means, expected, check_dtype=False, rtol=1e-4)


@pytest.mark.parametrize("missing", ["missing_rna", "missing_atac"])
def test_cells_without_counts_in_a_modality_are_left_out_of_the_mean(make_mdata, missing):
    mdata = make_mdata(**{missing: 0.2})
    has_both = (mdata["rna"].X.sum(axis=1).A1 > 0) & (mdata["atac"].X.sum(axis=1).A1 > 0)
    means, expected = (
        tl.group_means(data, "cell_type", ["gene_0", "gene_5"], modality="rna")
        for data in (mdata, mdata[has_both].copy())
    )
    pd.testing.assert_frame_equal(means, expected)


def test_group_without_a_paired_cell_is_left_out_and_named(make_mdata):
    mdata = make_mdata()
    is_lost = (mdata.obs["cell_type"] == "type_1").to_numpy()
    mdata["atac"].X = sp.csr_matrix(mdata["atac"].X.multiply(~is_lost[:, None]))
    with pytest.warns(UserWarning, match="1 of 4 groups of `cell_type`.*left out: `type_1`"):
        means = tl.group_means(mdata, "cell_type", ["gene_0"], modality="rna")
    assert list(means.index) == ["type_0", "type_2", "type_3"]
    assert means.notna().all(axis=None)


def test_no_feature_is_refused_without_a_way_out_that_there_is_not(make_mdata):
    with pytest.raises(ValueError, match="`features` must have at least one name. Name one"):
        tl.group_means(make_mdata(), "cell_type", [], modality="rna")


@pytest.mark.parametrize(("modality", "other"), [("rna", "atac"), ("atac", "rna")])
def test_other_modality_need_not_hold_counts(make_mdata, modality, other):
    mdata = make_mdata(missing_rna=0.1, missing_atac=0.1)
    names = mdata[modality].var_names
    of_counts = tl.group_means(mdata, "cell_type", names, modality=modality)
    mdata[other].X = mdata[other].X * -0.3
    means = tl.group_means(mdata, "cell_type", names, modality=modality)
    pd.testing.assert_frame_equal(means, of_counts)
    with pytest.raises(ValueError, match=f"`{other}_layer`: .* must hold raw counts"):
        tl.group_means(mdata, "cell_type", mdata[other].var_names, modality=other)


def test_reads_are_warned_about_where_accessibility_is_averaged(make_mdata):
    mdata = make_mdata()
    mdata["atac"].X = 2 * mdata["atac"].X
    tl.group_means(mdata, "cell_type", ["gene_0"], modality="rna")  # warnings are errors
    with pytest.warns(UserWarning, match="counts in `atac` look like reads"):
        tl.group_means(mdata, "cell_type", mdata["atac"].var_names, modality="atac")


@pytest.mark.parametrize("modality", ["rna", "atac"])
@pytest.mark.parametrize("normalize", [True, False])
def test_views_have_the_means_of_their_copies(make_mdata, modality, normalize):
    view = make_mdata()[::3]
    found, expected = (
        tl.group_means(
            mdata, "cell_type", mdata[modality].var_names, modality=modality, normalize=normalize
        )
        for mdata in (view, view.copy())
    )
    pd.testing.assert_frame_equal(found, expected)
    assert view.is_view


def test_mean_of_values_that_are_not_finite_is_refused(make_mdata):
    mdata = make_mdata()
    values = mdata["rna"].X.toarray()
    values[5, 3] = np.nan
    mdata["rna"].layers["mine"] = values
    arguments = {"modality": "rna", "normalize": False, "rna_layer": "mine"}
    with pytest.raises(ValueError, match="must hold finite values, but 1 are .*, of `gene_3`"):
        tl.group_means(mdata, "cell_type", ["gene_2", "gene_3"], **arguments)
    found = tl.group_means(mdata, "cell_type", ["gene_2"], **arguments)
    assert found.notna().all(axis=None)


def test_groups_may_be_those_of_a_modality(make_mdata):
    mdata = make_mdata()
    mdata["atac"].obs["kind"] = mdata.obs["cell_type"]
    found, expected = (
        tl.group_means(mdata, key, ["gene_0", "gene_5"], modality="rna")
        for key in ("kind", "cell_type")
    )
    pd.testing.assert_frame_equal(found, expected.rename_axis("kind"))


def test_unknown_feature_suggests_a_near_one(make_mdata):
    with pytest.raises(KeyError, match=r"`features`: .*Did you mean `gene_0`"):
        tl.group_means(make_mdata(), "cell_type", ["gene-0"], modality="rna")


def test_cells_without_group_are_refused(make_mdata):
    mdata = make_mdata()
    mdata.obs.loc[mdata.obs_names[0], "cell_type"] = np.nan
    with pytest.raises(ValueError, match="`groupby`: .* must have a category for each cell"):
        tl.group_means(mdata, "cell_type", ["gene_0"], modality="rna")


@pytest.mark.parametrize("layer", [None, "counts"])
def test_matrix_without_any_value_is_not_taken_for_counts(make_mdata, layer):
    mdata = make_mdata()
    empty = sp.csr_matrix(mdata["rna"].shape, dtype="float32")
    mdata["rna"].X = mdata["rna"].layers["counts"] = empty
    with pytest.raises(ValueError, match="`rna_layer`: the matrix of `rna` must hold values"):
        tl.group_means(mdata, "cell_type", ["gene_0"], modality="rna", rna_layer=layer)


@pytest.mark.parametrize("form", [sp.csr_matrix, np.asarray])
def test_data_without_a_cell_are_refused_as_such(make_mdata, form):
    mdata = make_mdata()
    mdata["rna"].X = form(mdata["rna"].X.toarray())
    with pytest.raises(ValueError, match="`rna` must have at least one cell, got none. Choose"):
        tl.group_means(mdata[:0].copy(), "cell_type", ["gene_0"], modality="rna")
