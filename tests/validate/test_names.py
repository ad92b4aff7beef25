"""Features, cells and names are matched, or refused with a way out that works."""

import re

import numpy as np
import pandas as pd
import pytest

from scmvp_scvi._validate import (
    check_feature_names,
    check_indices,
    check_names,
    check_same_cells,
    check_unique_features,
)

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_duplicated_features_are_refused_and_the_way_out_renames_them(make_mdata, run_way_out):
    mdata = make_mdata()
    mdata["rna"].var_names = ["a", "b", "a", "a"]
    with pytest.raises(ValueError, match="1 are duplicated in `rna`: `a`") as error:
        check_unique_features(mdata["rna"], "rna")
    fixed = run_way_out(error, mdata, 'mdata["rna"].var_names_make_unique')
    check_unique_features(fixed["rna"], "rna")


def test_equal_feature_names_pass_whatever_holds_them():
    check_feature_names(["a", "b"], np.array(["a", "b"], dtype=object), modality="rna")


@pytest.mark.parametrize(
    ("order", "match"), [([3, 1, 0, 2], "another order"), ([3, 1, 0], "1 were added: `peak2`")]
)
def test_other_or_added_features_are_refused(order, match, make_mdata):
    found = make_mdata()["atac"].var_names
    with pytest.raises(ValueError, match=match):
        check_feature_names(found[order], found, modality="atac")


def test_missing_and_added_features_are_counted_and_listed():
    match = "the 3 features of the model, but 2 are missing: `b`, `c`; 1 others are there: `x`"
    with pytest.raises(ValueError, match=match):
        check_feature_names(["a", "b", "c"], ["a", "x"], modality="rna")


@pytest.mark.parametrize("found", ["CHR1:1-2", "chr1-1-2", "chr1_1_2"])
def test_missing_features_in_another_spelling_are_recognized(found):
    match = f"in another spelling, .*: `{found}` for `chr1:1-2`"
    with pytest.raises(ValueError, match=match):
        check_feature_names(["chr1:1-2", "x"], [found, "x"], modality="atac")


def test_duplicated_features_of_new_data_are_refused():
    with pytest.raises(ValueError, match="each once, but 1 names are duplicated: `a`"):
        check_feature_names(["a", "b"], ["a", "a", "b"], modality="rna")


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ([3, 0], [3, 0]),
        (np.array([1], dtype="uint8"), [1]),
        ([True, False, False, True], [0, 3]),
        (pd.Series([False, True, True, False]), [1, 2]),
        (range(2), [0, 1]),
    ],
)
def test_indices_become_positions(indices, expected):
    positions = check_indices(indices, 4)
    assert positions.tolist() == expected
    assert positions.dtype == np.int64


@pytest.mark.parametrize(
    ("indices", "error", "match"),
    [
        ([-1, 2], ValueError, "between 0 and 3, got values from -1 to 2"),
        ([0, 4], ValueError, "between 0 and 3, got values from 0 to 4"),
        ([True, False], ValueError, r"one value per cell \(4\), got 2"),
        ([], ValueError, "at least one cell, got none"),
        ([False] * 4, ValueError, "at least one cell, got none"),
        ([[0, 1]], ValueError, r"one-dimensional, got shape \(1, 2\)"),
        ([0.0, 1.0], TypeError, "integers or a boolean mask, got dtype float64"),
        (["cell0"], TypeError, r"For cell names, pass `mdata\.obs_names\.get_indexer"),
    ],
)
def test_indices_that_choose_no_cells_are_refused(indices, error, match):
    with pytest.raises(error, match=match):
        check_indices(indices, 4)


@pytest.mark.parametrize("cells_are", ["mdata.obs_names", 'mdata["atac"].obs_names'])
def test_ways_out_name_the_cells_as_the_user_spells_them(cells_are):
    cells = pd.Index(["a", "b"])
    for indices, way_out in (
        (pd.Series([True, False], index=["b", "a"]), f"`indices.loc[{cells_are}]`"),
        (["a"], f"`{cells_are}.get_indexer(names)`"),
    ):
        with pytest.raises((ValueError, TypeError), match=re.escape(way_out)):
            check_indices(indices, 2, cells=cells, cells_are=cells_are)


def test_names_become_positions_in_the_order_asked_for(rng):
    available = np.array([f"gene{i}" for i in range(50)])
    requested = rng.permutation(available)[:20]
    positions = check_names(requested, available, argument="gene_list")
    assert positions.tolist() == [list(available).index(name) for name in requested]


def test_unknown_names_are_counted_with_near_matches():
    match = "2 of 3 names are unknown: `CD3X`, `zzz`. Did you mean `CD3E`?"
    with pytest.raises(KeyError, match=match):
        check_names(["CD3X", "MS4A1", "zzz"], ["CD3E", "MS4A1"], argument="gene_list")


def test_number_in_the_place_of_a_name_is_told_to_be_one():
    match = "1 of 1 names are unknown: `1003`. Names are strings: pass '1003'"
    with pytest.raises(KeyError, match=match):
        check_names([1003], ["1003", "1043"], argument="gene_list")


@pytest.mark.parametrize("asked", ["chr7-40000-40500", "CHR7:40000-40500", "chr7:40000-40501"])
def test_near_match_is_found_among_very_many_regions(asked):
    regions = [f"chr{i % 22}:{1000 * i}-{1000 * i + 500}" for i in range(20_000)]
    regions.append("chr7:40000-40500")
    with pytest.raises(KeyError, match="Did you mean `chr7:40000-40500`"):
        check_names([asked], regions, argument="region_list")


@pytest.mark.parametrize(
    ("requested", "error", "match"),
    [
        ("CD3E", TypeError, r'must be a list of names, got a string: \["CD3E"\]'),
        ([], ValueError, "at least one name. Pass None for all"),
        (["a", "b", "a"], ValueError, "each name once, got `a` again"),
    ],
)
def test_name_lists_that_make_no_sense_are_refused(requested, error, match):
    with pytest.raises(error, match=match):
        check_names(requested, ["a", "b"], argument="gene_list")


# -- tables of cells ------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [pd.Series, pd.DataFrame])
def test_rows_are_those_of_the_other_table_or_are_brought_into_its_order(named):
    others = pd.DataFrame({"x": range(3)}, index=list("abc"))
    values = named([1, 2, 3], index=list("cab"))
    for paired in (values.to_numpy(), values.loc[list("abc")], values.reset_index(drop=True)):
        check_same_cells(paired, others, argument="labels", other="latent")
    check_same_cells(values, others.to_numpy(), argument="labels", other="latent")
    match = re.escape("Bring it into that order: `labels = labels.loc[latent.index]`")
    with pytest.raises(ValueError, match=match):
        check_same_cells(values, others, argument="labels", other="latent")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (
            pd.Series(1, list("abx")),
            "Give a cell the same name in both: one alone has `x`, `c`; or",
        ),
        (pd.Series(1, list("ab")), "one row a cell, got 2 rows for 3 cells of `latent`"),
    ],
)
def test_rows_of_other_cells_are_refused(values, match):
    with pytest.raises(ValueError, match=match):
        check_same_cells(values, pd.Series(1, list("abc")), argument="labels", other="latent")
