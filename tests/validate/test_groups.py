"""Groups of cells that are compared are disjoint and exist, or are refused."""

import re

import numpy as np
import pandas as pd
import pytest

from scmvp_scvi._validate import (
    chosen_rows,
    compare_groups,
    compare_rows,
    find_grouping,
    leave_out_unmeasured,
)

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")


def column(values) -> pd.Series:
    return pd.Series(list(values) if isinstance(values, str) else values, name="type")


def find_type(mdata, **options):
    keys = ("rna", "atac")
    return find_grouping(mdata, "type", argument="groupby", modality_keys=keys, **options)


def test_group_that_is_called_as_the_rest_of_the_cells_is_warned_of():
    named = column(["Rest", "Rest", "b", "b", "c", "c"])
    with pytest.warns(UserWarning, match="has a group 'Rest', which is also what all cells but"):
        compare_groups(named, "b", None)
    (found,) = compare_groups(named, "b", "Rest")  # as is meant
    assert found.rows2.tolist() == [0, 1]


# -- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize("holders", [["rna"], ["atac"], ["rna", "atac"]])
def test_grouping_is_found_in_modalities_that_agree(make_mdata, holders):
    mdata = make_mdata()
    for modality in holders:
        mdata[modality].obs["type"] = list("aabbcc")
    assert "".join(find_type(mdata)) == "aabbcc"


def test_grouping_of_mdata_comes_before_that_of_a_modality(make_mdata):
    mdata = make_mdata()
    mdata.obs["type"], mdata["rna"].obs["type"] = list("aabbcc"), list("xxyyzz")
    assert "".join(find_type(mdata)) == "aabbcc"


@pytest.mark.parametrize("dtype", ["object", "category", "str"])
def test_group_that_one_modality_does_not_know_is_that_of_the_other(make_mdata, dtype):
    mdata = make_mdata()
    known = {"rna": ["a", None, "b", "b", None, "c"], "atac": ["a", None, "b", None, "c", "c"]}
    for modality, values in known.items():
        mdata[modality].obs["type"] = pd.Series(values, mdata.obs_names, dtype=dtype)
    found = find_type(mdata, allow_missing=True)
    assert found.astype(object).where(found.notna(), None).tolist() == [*"a", None, *"bbcc"]
    with pytest.raises(ValueError, match="must have a category for each cell, but 1 of 6"):
        find_type(mdata)


def test_grouping_that_modalities_disagree_about_is_refused(make_mdata, run_way_out):
    mdata = make_mdata()
    mdata["rna"].obs["type"], mdata["atac"].obs["type"] = list("aabbcc"), list("xxyyzz")
    with pytest.raises(ValueError, match=r"`mdata\[\"rna\"\]\.obs` and .* different") as error:
        find_type(mdata)
    assert "".join(find_type(run_way_out(error, mdata, 'mdata.obs["type"] = '))) == "aabbcc"


def test_grouping_of_different_cells_is_put_together_by_name(make_mdata):
    mdata = make_mdata(["cell3", "cell1"], ["cell2", "cell3"])
    mdata["rna"].obs["type"], mdata["atac"].obs["type"] = ["c", "a"], ["b", "c"]
    found = find_type(mdata)
    assert found.index.equals(mdata.obs_names)
    assert found.to_dict() == {"cell1": "a", "cell2": "b", "cell3": "c"}


def test_grouping_that_some_cells_lack_is_found_where_that_is_allowed(make_mdata):
    mdata = make_mdata(["cell3", "cell1"], ["cell2", "cell3"])
    mdata["rna"].obs["type"] = ["c", "a"]
    with pytest.raises(ValueError, match="must have a category for each cell, but 1 of 3"):
        find_type(mdata)
    assert find_type(mdata, allow_missing=True).dropna().to_dict() == {"cell1": "a", "cell3": "c"}


def test_grouping_that_is_in_a_modality_twice_is_refused(make_mdata):
    mdata = make_mdata()
    columns = pd.DataFrame({"a": list("aabbcc"), "b": list("xxyyzz")}, index=mdata.obs_names)
    mdata["rna"].obs = columns.set_axis(["type", "type"], axis=1)
    with pytest.raises(ValueError, match=r"one column of `mdata\[\"rna\"\].obs`, but 2 have"):
        find_type(mdata)


def test_unknown_grouping_is_reported_with_near_matches(make_mdata):
    mdata = make_mdata()
    mdata["rna"].obs["types"] = list("aabbcc")
    with pytest.raises(KeyError, match="is not a column of .* Did you mean `types`"):
        find_type(mdata)


def test_grouping_with_missing_values_is_refused(make_mdata):
    mdata = make_mdata()
    mdata.obs["type"] = ["a", "a", None, "b", "b", None]
    with pytest.raises(ValueError, match="must have a category for each cell, but 2 of 6"):
        find_type(mdata)


# -- groups ---------------------------------------------------------------------------------------


def test_each_group_is_compared_with_the_rest_by_default():
    found = compare_groups(column("abcabc"), None, None)
    assert [(c.group1, c.group2) for c in found] == [("a", "Rest"), ("b", "Rest"), ("c", "Rest")]
    np.testing.assert_array_equal(found[1].rows1, [1, 4])
    np.testing.assert_array_equal(found[1].rows2, [0, 2, 3, 5])


@pytest.mark.parametrize("group1", ["b", ["b"], np.array(["b"])])
def test_two_groups_are_compared_without_the_others(group1):
    (found,) = compare_groups(column("abcabc"), group1, "c")
    np.testing.assert_array_equal(found.rows1, [1, 4])
    np.testing.assert_array_equal(found.rows2, [2, 5])


def test_all_groups_are_compared_with_the_second_but_itself():
    found = compare_groups(column("abcabc"), None, "b")
    assert [c.group1 for c in found] == ["a", "c"]


def test_groups_keep_the_order_of_their_categories_and_empty_ones_are_left_out():
    categorical = column(pd.Categorical(list("abcabc"), categories=list("cxba")))
    assert [c.group1 for c in compare_groups(categorical, None, None)] == ["c", "b", "a"]


def test_groups_may_be_numbers():
    (found,) = compare_groups(column([7, 8, 9, 7, 8, 9]), 8, 9)
    np.testing.assert_array_equal(found.rows1, [1, 4])


def test_groups_are_named_as_they_stand_in_the_column():
    (found,) = compare_groups(column([7, 8, 9, 7, 8, 9]), 8.0, np.float32(9))
    assert [type(name) for name in (found.group1, found.group2)] == [int, int]


@pytest.mark.parametrize(
    ("groups", "asked", "hint"),
    [
        ([7, 8, 7, 8], "7", "got '7'.* Pass 7: the groups are of type int"),
        (["7", "8", "7", "8"], 7, "got 7;.* Pass '7': the groups are of type str"),
        ([True, False] * 2, "True", "Pass True: the groups are of type bool"),
    ],
)
def test_group_of_another_type_is_refused_with_the_one_that_is_there(groups, asked, hint):
    with pytest.raises(ValueError, match=hint):
        compare_groups(column(groups), asked, None)


def test_groups_may_be_intervals():
    ages = column(pd.cut([10, 20, 30, 40, 50, 60], 3))
    low, middle, _ = ages.cat.categories
    (found,) = compare_groups(ages, middle, low)
    np.testing.assert_array_equal(found.rows1, [2, 3])
    np.testing.assert_array_equal(found.rows2, [0, 1])


@pytest.mark.parametrize(("arguments", "name"), [(("Bcel", None), "1"), (("Tcell", "Bcel"), "2")])
def test_unknown_group_is_reported_with_near_matches(arguments, name):
    groups = column(["Bcell", "Tcell"] * 3)
    with pytest.raises(ValueError, match=f"`group{name}` must be .*'Bcel'.*mean `Bcell`"):
        compare_groups(groups, *arguments)


def test_rest_of_one_cell_is_refused_and_left_out_of_all():
    column = pd.Series([*"aaaa", "b"], name="g")
    with pytest.raises(ValueError, match="`group1` must leave at least 2 other cells"):
        compare_groups(column, "a", None)
    with (
        pytest.warns(UserWarning, match="single cell are not compared: `b`"),
        pytest.raises(ValueError, match="got none"),
    ):
        compare_groups(column, None, None)


def test_several_second_groups_are_refused():
    column = pd.Series([*"aabbcc"], name="g")
    with pytest.raises(TypeError, match="`group2` must be one group"):
        compare_groups(column, "a", ["b", "c"])


@pytest.mark.parametrize("several", [["b", "c"], ("b", "c"), {"b"}])
def test_several_groups_in_the_place_of_one_of_the_first_are_refused(several):
    message = re.escape(f"`group1` must be a group or a list of groups, got {several!r} in the")
    with pytest.raises(TypeError, match=message):
        compare_groups(column("aabbcc"), ["a", several], None)


def test_group_of_one_cell_is_refused():
    for arguments in (("c", None), ("a", "c")):
        with pytest.raises(ValueError, match="at least 2 cells, but 'c' of .* has 1"):
            compare_groups(column("ababc"), *arguments)


def test_groups_of_one_cell_are_left_out_of_all_groups():
    with pytest.warns(UserWarning, match="of a single cell are not compared: `c`"):
        found = compare_groups(column("ababc"), None, None)
    assert [c.group1 for c in found] == ["a", "b"]
    assert 4 in found[0].rows2


def test_group_is_not_compared_with_itself():
    with pytest.raises(ValueError, match="must be different groups, got 'a' twice"):
        compare_groups(column("abab"), ["b", "a"], "a")


def test_single_group_is_refused():
    with pytest.raises(ValueError, match="must have at least two groups, got `a` alone"):
        compare_groups(column("aaa"), None, None)


def test_no_group_is_refused():
    with pytest.raises(ValueError, match="`group1` must name at least one group"):
        compare_groups(column("abab"), [], None)


# -- what was measured ----------------------------------------------------------------------------


def leave_out(groups: str, with_counts: str, *asked) -> list:
    return leave_out_unmeasured(
        compare_groups(column(groups), *asked),
        np.isin(list(groups), list(with_counts)),
        modality="atac",
        all_groups=asked[0] is None,
    )


def test_groups_without_counts_are_left_out_of_all_groups():
    with pytest.warns(UserWarning, match="without a count in `atac` are not compared: `b`, `d`"):
        found = leave_out("abcdabcd", "ac", None, None)
    assert [c.group1 for c in found] == ["a", "c"]


def test_groups_with_some_counts_are_all_compared():
    comparisons = compare_groups(column("aabb"), None, None)
    found = leave_out_unmeasured(
        comparisons, np.array([True, False, False, True]), modality="atac", all_groups=True
    )
    assert found == comparisons


@pytest.mark.parametrize(
    ("with_counts", "asked", "name"),
    [
        ("ac", ("b", None), "'b'"),
        ("ac", (["a", "b"], None), "'b'"),
        ("ac", ("a", "b"), "'b'"),
        ("ac", (None, "b"), "'b'"),
        ("a", (None, None), "'Rest'"),
        ("", (None, None), "'a'"),
    ],
)
def test_named_group_without_counts_is_refused(with_counts, asked, name):
    with pytest.raises(ValueError, match=f"counts in `atac`, but no cell of {name} has"):
        leave_out("abcabc", with_counts, *asked)


def test_second_group_alone_with_counts_is_refused():
    with pytest.raises(ValueError, match="of all only 'c', which they are compared with, has"):
        leave_out("abcabc", "c", None, "c")


# -- rows -----------------------------------------------------------------------------------------


def test_rows_are_compared_with_all_others_by_default():
    found = compare_rows(np.array([4, 1]), None, 5)
    np.testing.assert_array_equal(found.rows1, [1, 4])
    np.testing.assert_array_equal(found.rows2, [0, 2, 3])
    assert (found.group1, found.group2) == ("idx1", "Rest")


def test_rows_in_both_groups_are_refused():
    with pytest.raises(ValueError, match="must not share cells, but 1 are in both: rows `2`"):
        compare_rows(np.array([1, 2]), np.array([2, 3]), 5)


@pytest.mark.parametrize(("rows2", "argument"), [([3, 3], "idx2"), (None, "idx2")])
def test_single_row_is_refused(rows2, argument):
    rows2 = rows2 and np.array(rows2)
    with pytest.raises(ValueError, match=f"`{argument}` must choose at least 2 cells"):
        compare_rows(np.array([0, 1]), rows2, 3)


# -- cells chosen by a query ----------------------------------------------------------------------

CELLS = pd.DataFrame({"cell_type": ["a", "b", "a"], "depth": [3.0, 1.0, 2.0]}, index=list("xyz"))


@pytest.mark.parametrize("cells", ['cell_type == "a"', [0, 2], [True, False, True]])
def test_cells_may_be_chosen_by_query_position_or_mask(cells):
    assert chosen_rows(CELLS, cells, argument="idx1").tolist() == [0, 2]


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("depth >", ValueError, "pandas cannot evaluate it: SyntaxError"),
        ("", ValueError, "pandas cannot evaluate it: ValueError"),
        ("  ", ValueError, "true or false of each cell, got values of another kind"),
        ("cell_type > 3", ValueError, "pandas cannot evaluate it: TypeError"),
        ("depth", ValueError, "true or false of each cell, got values of another kind"),
        ("depth > @table.size", KeyError, "got `table`"),
        ("depth > @least", KeyError, "got `least`.*variables of your own, pass a mask"),
        ("`my col` > 3", KeyError, "got `my_col`"),
    ],
)
def test_query_that_is_no_condition_of_the_columns_is_refused_in_our_words(query, error, message):
    with pytest.raises(error, match=f"(?s)`idx1=.*must be a query of the columns.*{message}"):
        chosen_rows(CELLS, query, argument="idx1")


def test_query_of_a_column_with_missing_values_chooses_where_it_is_true():
    cells = CELLS.assign(score=pd.array([1, 2, None], "Int64"))
    assert chosen_rows(cells, "score > 1", argument="idx1").tolist() == [1]


def test_query_of_a_column_that_does_not_exist_is_refused_with_near_matches():
    with pytest.raises(KeyError, match="`idx1=.*got `celltype`. Did you mean `cell_type`?"):
        chosen_rows(CELLS, 'celltype == "a"', argument="idx1")
