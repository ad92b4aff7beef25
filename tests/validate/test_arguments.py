"""Single values outside their range or of another type are refused."""

import numpy as np
import pytest

from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_one_of,
)


def test_check_one_of_names_the_options():
    check_one_of("nb", ["nb", "zip"], name="likelihood")
    with pytest.raises(ValueError, match="`likelihood` must be one of 'nb', 'zip', got 'gauss'"):
        check_one_of("gauss", ["nb", "zip"], name="likelihood")


@pytest.mark.parametrize("value", [1, 1e-9, np.float32(2.0), np.int64(3)])
def test_positive_numbers_of_any_kind_pass(value):
    check_in(value, "(0, inf)", name="delta")


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf])
def test_numbers_above_zero_are_neither_zero_negative_nor_infinite(value):
    with pytest.raises(ValueError, match="`delta` must be above 0 and finite, got"):
        check_in(value, "(0, inf)", name="delta")


@pytest.mark.parametrize("value", [-1e-9, -np.inf, np.nan, np.inf])
def test_numbers_of_at_least_zero_are_neither_negative_nor_infinite(value):
    check_in(0, "[0, inf)", name="delta")
    check_in(1e9, "[0, inf)", name="delta")
    with pytest.raises(ValueError, match="`delta` must be at least 0 and finite, got"):
        check_in(value, "[0, inf)", name="delta")


@pytest.mark.parametrize("value", ["1", None, True])
def test_check_in_refuses_what_is_no_number(value):
    with pytest.raises(TypeError, match="`delta` must be a number, got"):
        check_in(value, "[0, 1]", name="delta")


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, np.nan])
def test_half_open_interval_is_without_its_end(value):
    check_in(0, "[0, 1)", name="dropout_rate")
    check_in(0.999, "[0, 1)", name="dropout_rate")
    with pytest.raises(ValueError, match="`dropout_rate` must be at least 0 and below 1, got"):
        check_in(value, "[0, 1)", name="dropout_rate")


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, np.nan])
def test_closed_interval_is_with_its_ends(value):
    check_in(0, "[0, 1]", name="missing_rna")
    check_in(1, "[0, 1]", name="missing_rna")
    with pytest.raises(ValueError, match="`missing_rna` must be at least 0 and at most 1, got"):
        check_in(value, "[0, 1]", name="missing_rna")


def test_check_integer_at_least_refuses_smaller_ones():
    check_integer_at_least(np.int32(2), 2, name="n_clusters")
    with pytest.raises(ValueError, match="`n_clusters` must be at least 2, got 1"):
        check_integer_at_least(1, 2, name="n_clusters")


@pytest.mark.parametrize("value", [2.0, True, "2", None])
def test_check_integer_at_least_refuses_other_types(value):
    with pytest.raises(TypeError, match="`n_clusters` must be an integer, got"):
        check_integer_at_least(value, 1, name="n_clusters")
