"""Single values outside their range or of another type are refused."""

import numpy as np
import pytest

from scmvp_scvi._validate import (
    check_fraction,
    check_integer_at_least,
    check_not_negative,
    check_one_of,
    check_positive,
    check_share,
)


def test_check_one_of_names_the_options():
    check_one_of("nb", ["nb", "zip"], name="likelihood")
    with pytest.raises(ValueError, match="`likelihood` must be one of 'nb', 'zip', got 'gauss'"):
        check_one_of("gauss", ["nb", "zip"], name="likelihood")


@pytest.mark.parametrize("value", [1, 1e-9, np.float32(2.0), np.int64(3)])
def test_positive_numbers_of_any_kind_pass(value):
    check_positive(value, name="delta")


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf])
def test_check_positive_refuses_zero_negative_and_not_finite(value):
    with pytest.raises(ValueError, match="`delta` must be a finite number above 0, got"):
        check_positive(value, name="delta")


@pytest.mark.parametrize("value", [-1e-9, -np.inf, np.nan, np.inf])
def test_check_not_negative_refuses_negative_and_not_finite_ones(value):
    check_not_negative(0, name="delta")
    check_not_negative(1e9, name="delta")
    with pytest.raises(ValueError, match="`delta` must be a finite number of at least 0, got"):
        check_not_negative(value, name="delta")


@pytest.mark.parametrize("value", ["1", None, True])
@pytest.mark.parametrize(
    "check", [check_positive, check_not_negative, check_fraction, check_share]
)
def test_number_checks_refuse_what_is_no_number(check, value):
    with pytest.raises(TypeError, match="`delta` must be a number, got"):
        check(value, name="delta")


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, np.nan])
def test_check_fraction_refuses_values_outside_the_half_open_interval(value):
    check_fraction(0, name="dropout_rate")
    check_fraction(0.999, name="dropout_rate")
    with pytest.raises(ValueError, match="`dropout_rate` must be at least 0 and below 1, got"):
        check_fraction(value, name="dropout_rate")


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, np.nan])
def test_check_share_refuses_values_outside_the_closed_interval(value):
    check_share(0, name="missing_rna")
    check_share(1, name="missing_rna")
    with pytest.raises(ValueError, match="`missing_rna` must be at least 0 and at most 1, got"):
        check_share(value, name="missing_rna")


def test_check_integer_at_least_refuses_smaller_ones():
    check_integer_at_least(np.int32(2), 2, name="n_clusters")
    with pytest.raises(ValueError, match="`n_clusters` must be at least 2, got 1"):
        check_integer_at_least(1, 2, name="n_clusters")


@pytest.mark.parametrize("value", [2.0, True, "2", None])
def test_check_integer_at_least_refuses_other_types(value):
    with pytest.raises(TypeError, match="`n_clusters` must be an integer, got"):
        check_integer_at_least(value, 1, name="n_clusters")
