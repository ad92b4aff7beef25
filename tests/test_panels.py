"""Panels: those given, whatever holds them, or as many new ones, and what is refused."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from scmvp_scvi._panels import given_or_new_panels

SHAPE = {"max_columns": 3, "panel_size": (2.0, 1.0)}


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_new_panels_fill_a_figure_row_by_row(n):
    panels = given_or_new_panels(None, n, needed="axes", **SHAPE)
    places = [ax.get_subplotspec() for ax in panels]
    found = [(place.rowspan.start, place.colspan.start) for place in places]
    assert found == [divmod(i, 3) for i in range(n)]
    figure = panels[0].figure
    assert figure.axes == panels
    assert figure.get_size_inches().tolist() == [2 * min(n, 3), -(-n // 3)]


def test_new_panels_fill_a_figure_by_column_where_asked():
    panels = given_or_new_panels(None, 5, needed="axes", by_column=True, **SHAPE)
    places = [ax.get_subplotspec() for ax in panels]
    found = [(place.rowspan.start, place.colspan.start) for place in places]
    assert found == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


def test_one_axes_is_taken_for_a_list_of_one():
    ax = plt.subplots()[1]
    assert given_or_new_panels(ax, 1, needed="one axes", **SHAPE) == [ax]


@pytest.mark.parametrize(
    ("axes", "kind"),
    [
        (3, "int"),
        ([1, 2], "int"),
        ("ax", "str"),
        ([None, None], "NoneType"),
        (np.zeros((1, 2)), "float"),
        ({"left": 1, "right": 2}, "dict"),
    ],
)
def test_what_is_no_axes_is_refused_whatever_holds_it(axes, kind):
    match = rf"`axes` must be Axes of matplotlib, got something of type `{kind}`\. Pass those that"
    with pytest.raises(TypeError, match=match):
        given_or_new_panels(axes, 2, needed="two axes", **SHAPE)


def test_one_that_is_no_axes_among_others_is_refused_before_their_number():
    figure, ax = plt.subplots()
    with pytest.raises(TypeError, match="got something of type `Figure`"):
        given_or_new_panels([ax, figure, ax], 2, needed="two axes", **SHAPE)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_another_number_of_axes_is_refused(n):
    axes = [plt.figure().add_subplot() for _ in range(n)]
    with pytest.raises(ValueError, match=rf"`axes` must have two axes, got {n}\."):
        given_or_new_panels(axes, 2, needed="two axes", **SHAPE)
