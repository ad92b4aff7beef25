"""Means over cubature points against moments of the standard Gaussian."""

import numpy as np
import pytest

from scmvp_scvi.distributions._cubature import cubature_points


@pytest.mark.parametrize("n_axes", [1, 2, 5, 30])
def test_all_axes_give_the_moments_of_a_gaussian_up_to_the_third(n_axes):
    points = cubature_points(2 * n_axes, n_axes).double().numpy()
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(points.T @ points / len(points), np.eye(n_axes), atol=1e-6)
    third = np.einsum("pi,pj,pk->ijk", points, points, points) / len(points)
    np.testing.assert_allclose(third, 0, atol=1e-5)


@pytest.mark.parametrize("n_points", [2, 8, 44])
def test_points_of_any_even_number_lie_in_pairs_at_the_root_of_the_dimensions(n_points):
    points = cubature_points(n_points, 6).numpy()
    first, second = np.split(points, 2)
    np.testing.assert_array_equal(first, -second)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.sqrt(6), rtol=1e-6)
    assert len(np.unique(points.round(4), axis=0)) == n_points


def test_pairs_of_one_basis_are_orthogonal():
    axes = cubature_points(8, 30).numpy()[:4]
    np.testing.assert_allclose(axes @ axes.T, 30 * np.eye(4), atol=1e-4)


def test_one_point_is_the_mean():
    np.testing.assert_array_equal(cubature_points(1, 4), np.zeros((1, 4)))


def test_points_are_the_same_in_every_call():
    np.testing.assert_array_equal(cubature_points(8, 30), cubature_points(8, 30))


@pytest.mark.parametrize(("n_points", "share"), [(8, 0.7), (60, 0.2)])
def test_mean_of_exponentials_is_nearer_that_of_the_gaussian_than_at_the_mean(
    rng, n_points, share
):
    """A softmax over genes is a ratio of such: E exp(a'z) = exp(a'a / 2)."""
    slopes = rng.normal(scale=0.15, size=(200, 30))
    truth = np.exp((slopes**2).sum(1) / 2)
    points = cubature_points(n_points, 30).double().numpy()
    found = np.exp(points @ slopes.T).mean(0)
    assert np.abs(found - truth).mean() < share * np.abs(1 - truth).mean()
