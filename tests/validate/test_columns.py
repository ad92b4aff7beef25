"""Columns of `.obs` are found, or refused with a way out that works."""

import inspect
import re

import numpy as np
import pandas as pd
import pytest

from scmvp_scvi import SCMVPModel
from scmvp_scvi._validate import (
    check_categories,
    check_column_names,
    check_no_missing,
    check_numeric_finite,
    check_positive_column,
    find_obs_column,
)

pytestmark = pytest.mark.filterwarnings("ignore:From 0.4 .update:FutureWarning")


def find_batch(mdata, key="batch", modality=None):
    return find_obs_column(
        mdata, key, argument="batch_key", modality=modality, modality_keys=("rna", "atac")
    )


def test_column_is_found_in_the_table_that_is_meant(make_mdata):
    mdata = make_mdata()
    mdata.obs["batch"], mdata["rna"].obs["batch"] = list("aabbcc"), list("xxyyzz")
    assert "".join(find_batch(mdata)) == "aabbcc"
    assert "".join(find_batch(mdata, modality="rna")) == "xxyyzz"


def test_column_in_a_modality_is_reported_with_the_place_and_both_ways_out(
    make_mdata, run_way_out
):
    mdata = make_mdata()
    mdata["rna"].obs["batch"] = list("xxyyzz")
    match = r'of `mdata\.obs`, but of `mdata\["rna"\].obs`.*{\.\.\., \"batch_key\": \"rna\"}`'
    with pytest.raises(KeyError, match=match) as error:
        find_batch(mdata)
    fixed = run_way_out(error, mdata, 'mdata.obs["batch"] = ')
    assert "".join(find_batch(fixed)) == "xxyyzz"


def test_column_in_mdata_obs_is_reported_when_a_modality_is_meant(make_mdata, run_way_out):
    mdata = make_mdata()
    mdata.obs["batch"] = list("aabbcc")
    match = r"but of `mdata\.obs`. Either leave `\"batch_key\"` out of `modalities`"
    with pytest.raises(KeyError, match=match) as error:
        find_batch(mdata, modality="atac")
    fixed = run_way_out(error, mdata, 'mdata["atac"].obs["batch"] = ')
    assert "".join(find_batch(fixed, modality="atac")) == "aabbcc"


def test_column_in_two_other_tables_names_both(make_mdata):
    mdata = make_mdata()
    for key in ("rna", "atac"):
        mdata[key].obs["batch"] = list("xxyyzz")
    with pytest.raises(KeyError, match=r'mdata\["rna"\].obs` and `mdata\["atac"\].obs`'):
        find_batch(mdata)


def test_unknown_column_is_reported_with_near_matches(make_mdata):
    mdata = make_mdata()
    mdata["rna"].obs["batch_id"] = 1
    match = "nor of any other table.*`mdata.obs` has `name`. Did you mean `batch_id`"
    with pytest.raises(KeyError, match=match):
        find_batch(mdata, key="batch_ids")


@pytest.mark.parametrize("modality", [None, "rna"])
def test_one_of_two_columns_of_a_name_is_not_guessed(make_mdata, run_way_out, modality):
    mdata = make_mdata()
    holder = mdata if modality is None else mdata[modality]
    columns = pd.DataFrame({"a": list("aabbcc"), "b": list("xxyyzz")}, index=holder.obs_names)
    holder.obs = columns.set_axis(["batch", "batch"], axis=1)
    table = "mdata.obs" if modality is None else 'mdata["rna"].obs'
    match = re.escape(f"must be one column of `{table}`, but 2 have this name")
    with pytest.raises(ValueError, match=match) as error:
        find_batch(mdata, modality=modality)
    fixed = run_way_out(error, mdata, f"{table} = ")
    assert "".join(find_batch(fixed, modality=modality)) == "aabbcc"


def test_missing_categories_are_counted_and_the_way_out_names_them(run_way_out):
    obs = pd.DataFrame({"batch": pd.Categorical(["a", None, "b", None])})
    check_no_missing(obs["batch"].dropna(), argument="batch_key")
    with pytest.raises(ValueError, match='column "batch" .* 2 of 4 are missing') as error:
        check_no_missing(obs["batch"], argument="batch_key")
    run_way_out(error, None, 'obs["batch"] = ', obs=obs)
    assert obs["batch"].tolist() == ["a", "unknown", "b", "unknown"]


def test_missing_labels_become_the_unlabeled_category_of_the_model(run_way_out):
    obs = pd.DataFrame({"type": pd.Categorical(["a", None])})
    with pytest.raises(ValueError, match="1 of 2 are missing") as error:
        check_no_missing(obs["type"], argument="labels_key")
    run_way_out(error, None, 'obs["type"] = ', obs=obs)
    default = inspect.signature(SCMVPModel).parameters["unlabeled_category"].default
    assert obs["type"].tolist() == ["a", default]


@pytest.mark.parametrize("values", [["1", "2"], pd.Categorical(["a", "b"])])
def test_continuous_covariate_that_is_not_numeric_is_refused(values):
    series = pd.Series(values, name="age")
    with pytest.raises(TypeError, match='`keys`: the column "age" must be numeric, got dtype'):
        check_numeric_finite(series, argument="keys")


@pytest.mark.parametrize(
    "values", [[1.0, np.nan, 2.0], [1.0, -np.inf, 2.0], pd.array([1, None, 2], "Int64")]
)
def test_continuous_covariate_that_is_not_finite_is_refused(values):
    series = pd.Series(values, name="age")
    check_numeric_finite(series.iloc[[0, 2]], argument="keys")
    with pytest.raises(ValueError, match="must be finite, but 1 of 3 values"):
        check_numeric_finite(series, argument="keys")


def test_size_factors_must_be_above_zero():
    series = pd.Series([1.0, 0.0, -0.5], name="depth")
    check_positive_column(series[:1], argument="size_factor_key")
    with pytest.raises(ValueError, match="above 0, but 2 of 3 values are not, down to -0.5"):
        check_positive_column(series, argument="size_factor_key")


def test_category_that_no_cell_has_is_refused_with_the_way_to_drop_it():
    obs = pd.DataFrame({"batch": pd.Categorical(["a", "b"], categories=["c", "a", "d", "b"])})
    with pytest.raises(ValueError, match=r'column "batch" must have a cell, but `c`, `d` have'):
        check_categories(obs["batch"], argument="batch_key")
    obs["batch"] = obs["batch"].cat.remove_unused_categories()
    check_categories(obs["batch"], argument="batch_key")


@pytest.mark.parametrize("values", [["a", "b"], [1, 2], [True, False]])
def test_column_that_is_not_categorical_has_no_category_too_many(values):
    check_categories(pd.Series(values, name="batch"), argument="batch_key")


def test_category_is_refused_for_a_missing_value_first():
    with pytest.raises(ValueError, match="must have a category for each cell, but 1 of 2"):
        check_categories(pd.Series(["a", None], name="batch"), argument="batch_key")


@pytest.mark.parametrize("kind", ["object", "category"])
def test_names_beside_numbers_are_refused_with_the_way_to_make_names_of_all(run_way_out, kind):
    obs = pd.DataFrame({"batch": pd.Series([1, "ctrl", 2], dtype="object").astype(kind)})
    with pytest.raises(TypeError, match='"batch" must hold values .* got `int`, `str`') as error:
        check_categories(obs["batch"], argument="batch_key")
    run_way_out(error, None, 'obs["batch"] = ', obs=obs)
    check_categories(obs["batch"], argument="batch_key")
    assert obs["batch"].tolist() == ["1", "ctrl", "2"]


@pytest.mark.parametrize("names", ["site", ("site",), np.array(["site"])])
def test_columns_that_are_no_list_are_refused(names):
    with pytest.raises(TypeError, match="`categorical_covariate_keys` must be a list of columns"):
        check_column_names(names, argument="categorical_covariate_keys")


def test_column_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match="must name each column once, got `b` more than once"):
        check_column_names(["a", "b", "b"], argument="categorical_covariate_keys")


@pytest.mark.parametrize("names", [None, [], ["site"], ["site", "sex"]])
def test_lists_of_different_columns_pass(names):
    check_column_names(names, argument="categorical_covariate_keys")
