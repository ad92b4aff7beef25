import dataclasses
import math

import numpy as np
import pytest

from scmvp_scvi._schedule import Schedule, cosine_factor

SCHEDULE = Schedule(
    mixture_start=0.4,
    mixture_refit=0.5,
    kl_warmup=0.3,
    min_kl_weight=0.05,
    gaussian_kl_weight=0.2,
    max_kl_weight=1.0,
)


def changed(**values) -> Schedule:
    return dataclasses.replace(SCHEDULE, **values)


@pytest.mark.parametrize(
    ("n_epochs", "first", "second"), [(100, 40, 70), (10, 4, 7), (2, 1, None), (1, 1, None)]
)
def test_mixture_is_fitted_at_its_shares_of_the_epochs(n_epochs, first, second):
    assert SCHEDULE.first_mixture_epoch(n_epochs) == first
    assert SCHEDULE.second_mixture_epoch(n_epochs) == second


def test_mixture_is_fitted_once_without_a_second_share():
    assert changed(mixture_refit=None).second_mixture_epoch(100) is None


def test_weight_of_the_kl_is_interpolated_between_its_corners():
    steps, mixture_step = np.arange(1000), 400
    found = [
        SCHEDULE.kl_weight(step, 1000, mixture_step if step >= mixture_step else None)
        for step in steps
    ]
    first = np.interp(steps, [0, 300], [0.05, 0.2])
    second = np.interp(steps, [400, 500], [0.2, 1.0])
    np.testing.assert_allclose(found, np.where(steps < mixture_step, first, second))


def test_weight_of_the_kl_is_full_at_once_without_a_warm_up():
    assert changed(kl_warmup=0.0).kl_weight(0, 1000, None) == 0.2


@pytest.mark.parametrize("values", [{}, {"mixture_refit": None}, {"mixture_start": 0.85}])
@pytest.mark.parametrize("n_epochs", [1, 7, 20, 100])
def test_objective_changes_no_more_after_the_last_change(values, n_epochs):
    schedule, per_epoch = changed(**values), 10
    last = schedule.epochs_to_last_objective(n_epochs)
    mixture_step = schedule.first_mixture_epoch(n_epochs) * per_epoch
    second = schedule.second_mixture_epoch(n_epochs)
    weight = schedule.kl_weight(last * per_epoch, n_epochs * per_epoch, mixture_step)
    assert weight == pytest.approx(1.0)
    assert second is None or second <= last
    earlier = schedule.kl_weight(last * per_epoch - per_epoch, n_epochs * per_epoch, mixture_step)
    assert earlier < 1 or second == last


def test_learning_rate_rises_by_a_line_and_falls_by_a_cosine():
    factors = [cosine_factor(step, 200) for step in range(201)]
    for step in (0, 4, 9, 10, 57, 100, 200):
        cosine = (1 + math.cos(math.pi * step / 200)) / 2
        assert factors[step] == pytest.approx(cosine * (min(step + 1, 10) / 10))
    assert factors[200] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixture_start": 0.0}, "mixture_start"),
        ({"mixture_refit": 1.0}, "mixture_refit"),
        ({"kl_warmup": 1.5}, "kl_warmup"),
        ({"min_kl_weight": 0.3}, "min_kl_weight"),
        ({"gaussian_kl_weight": 2.0}, "max_kl_weight"),
        ({"max_kl_weight": math.inf}, "max_kl_weight"),
    ],
)
def test_shares_and_weights_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        changed(**values)


@pytest.mark.parametrize("name", ["mixture_start", "mixture_refit", "kl_warmup", "max_kl_weight"])
def test_shares_and_weights_that_are_no_numbers_are_refused_by_name(name):
    with pytest.raises(TypeError, match=f"`{name}` must be a number, got 'half'"):
        changed(**{name: "half"})
