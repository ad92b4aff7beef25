"""Embedding: what is faded or small, whose colour it has, and what is refused."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend

from scmvp_scvi import pl

COORDINATES = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])


def dots(ax: plt.Axes) -> dict[float, tuple[np.ndarray, float]]:
    """First coordinate of each cell to its colour and its size."""
    drawn = ax.collections[0]
    places = drawn.get_offsets()[:, 0].data
    looks = zip(drawn.get_facecolors(), drawn.get_sizes(), strict=True)
    return dict(zip(places, looks, strict=True))


def test_cells_fade_with_the_entropy_of_their_probabilities(probs):
    alpha = [dots(pl.embedding(COORDINATES, probs))[x][0][3] for x in (0, 1, 2)]
    assert alpha[0] > alpha[1] > alpha[2] > 0
    # two of four clusters have half the largest entropy
    assert alpha[1] == pytest.approx((alpha[0] + alpha[2]) / 2)


def test_cells_shrink_with_the_entropy_of_their_probabilities(probs):
    found = dots(pl.embedding(COORDINATES, probs, uncertainty="size", size=10))
    assert found[0][1] == pytest.approx(10)
    assert 10 > found[1][1] > found[2][1] > 0
    assert found[0][0][3] == found[2][0][3]


def test_sure_cells_are_drawn_last(probs):
    drawn = pl.embedding(COORDINATES, probs).collections[0]
    assert drawn.get_offsets()[:, 0].tolist() == [2, 1, 0]


def test_cells_have_the_colour_of_their_cluster_in_the_cycle(probs):
    with plt.rc_context({"axes.prop_cycle": plt.cycler(color=["red", "lime", "blue", "cyan"])}):
        found = dots(pl.embedding(COORDINATES, probs))
    assert tuple(found[0][0][:3]) == to_rgb("red")
    assert tuple(found[1][0][:3]) == to_rgb("lime")


def test_many_clusters_have_distinct_colours():
    probs = pd.DataFrame(np.eye(40))
    coordinates = np.column_stack([np.arange(40), np.arange(40)])
    colors = pl.embedding(coordinates, probs).collections[0].get_facecolors()
    assert len(np.unique(colors, axis=0)) == 40


def test_every_cluster_is_named_beside_the_axes(probs):
    ax = pl.embedding(COORDINATES, probs)
    legends = [child for child in ax.get_children() if isinstance(child, Legend)]
    texts = {text.get_text() for legend in legends for text in legend.get_texts()}
    assert {"0", "1", "2", "3", "certain"} <= texts
    assert pl.embedding(COORDINATES, probs, legend=False).get_legend() is None


@pytest.mark.parametrize("n_clusters", [3, 11, 16, 30, 60])
@pytest.mark.parametrize("height", [3.0, 4.8, 9.0])
def test_legends_stand_apart_and_end_with_the_axes(n_clusters, height):
    probs = pd.DataFrame(np.full((3, n_clusters), 1 / n_clusters))
    figure, ax = plt.subplots(figsize=(6.4, height))
    pl.embedding(COORDINATES, probs, ax=ax)
    figure.canvas.draw()
    legends = [child for child in ax.get_children() if isinstance(child, Legend)]
    lower, upper = sorted((legend.get_window_extent() for legend in legends), key=lambda b: b.y0)
    assert lower.y1 < upper.y0
    assert ax.get_window_extent().y1 == pytest.approx(upper.y1)


def test_given_axes_are_drawn_on_and_returned(probs):
    figure, ax = plt.subplots()
    assert pl.embedding(COORDINATES, probs, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_a_single_cluster_is_certain():
    ax = pl.embedding(COORDINATES, pd.DataFrame(np.ones((3, 1))))
    assert len(np.unique(ax.collections[0].get_facecolors(), axis=0)) == 1


@pytest.mark.parametrize(
    ("coordinates", "scale", "message"),
    [
        (np.zeros((3, 5)), 1, "`coordinates` must have two columns"),
        (np.zeros((2, 2)), 1, "`probs` must have one row a cell, got 3 rows for 2"),
        (COORDINATES, 2, "`probs` must be probabilities"),
    ],
)
def test_tables_that_do_not_fit_are_refused(probs, coordinates, scale, message):
    with pytest.raises(ValueError, match=message):
        pl.embedding(coordinates, probs * scale)


def test_probabilities_in_another_order_are_refused_and_the_way_out_draws_them(probs):
    coordinates = pd.DataFrame(COORDINATES, index=list("abc"))
    probs = probs.set_axis(list("abc"))
    expected = dots(pl.embedding(coordinates, probs))
    probs = probs.loc[list("cab")]
    with pytest.raises(ValueError, match="`probs` must name the cells as `coordinates`") as error:
        pl.embedding(coordinates, probs)
    (line,) = re.findall("`(probs = [^`]*)`", str(error.value))
    scope = {"probs": probs, "coordinates": coordinates}
    exec(line, scope)
    found = dots(pl.embedding(coordinates, scope["probs"]))
    assert {x: list(color) for x, (color, _) in found.items()} == {
        x: list(color) for x, (color, _) in expected.items()
    }


def test_probabilities_of_other_cells_are_refused_with_one_of_each(probs):
    coordinates = pd.DataFrame(COORDINATES, index=list("abc"))
    with pytest.raises(
        ValueError, match="the same name in both: one alone has `x`, `y`, `z`, `a`"
    ):
        pl.embedding(coordinates, probs.set_axis(list("xyz")))


def test_figure_makes_room_for_all_names_of_clusters():
    probs = pd.DataFrame(np.eye(12), columns=[f"cells of a long name {i}" for i in range(12)])
    ax = pl.embedding(np.random.default_rng(0).random((12, 2)), probs)
    ax.figure.canvas.draw()
    legends = ax.findobj(Legend)
    assert len(legends) == 2
    for legend in legends:
        assert legend.get_window_extent().x1 <= ax.figure.bbox.x1


@pytest.mark.parametrize(
    "wrong", [np.array(["a", "b", "c"]), [object()] * 3, sp.csr_matrix(np.eye(3))]
)
def test_what_holds_no_numbers_is_refused_by_its_argument(probs, wrong):
    with pytest.raises((TypeError, ValueError), match="`probs` must .*get_dummies"):
        pl.embedding(COORDINATES, wrong)
    with pytest.raises((TypeError, ValueError), match="`coordinates` must"):
        pl.embedding(wrong, probs)


def test_cells_without_coordinates_are_counted(probs):
    coordinates = COORDINATES.copy()
    coordinates[1, 0] = np.nan
    with pytest.raises(ValueError, match="finite, but those of 1 of 3 cells are not"):
        pl.embedding(coordinates, probs)


@pytest.mark.parametrize("size", [-1, 0, np.nan])
def test_dots_have_a_size(probs, size):
    with pytest.raises(ValueError, match="`size` must be above 0 and finite"):
        pl.embedding(COORDINATES, probs, size=size)


def test_clusters_of_an_array_are_numbered(probs):
    found, expected = (
        pl.embedding(COORDINATES, table).collections[0].get_facecolors()
        for table in (probs.to_numpy(), probs)
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("ax", "way_out"), [(np.zeros(2, object), r"Pass one of them, `ax=axes\[0\]`"), ("a", "Leave")]
)
def test_what_is_not_one_axes_is_refused(probs, ax, way_out):
    with pytest.raises(TypeError, match=f"`ax` must be one Axes of matplotlib.*{way_out}"):
        pl.embedding(COORDINATES, probs, ax=ax)
