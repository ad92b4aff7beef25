"""Training curves: which parts are drawn, from what, and what is refused."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest

from scmvp_scvi import SCMVPModel, pl


def test_moving_parts_are_drawn_and_others_left_out(history):
    axes = pl.training_curves(history)
    assert [ax.get_title() for ax in axes] == ["elbo", "kl mixture"]


def test_both_sets_are_drawn_without_missing_epochs(history):
    train, validation = pl.training_curves(history)[0].lines
    assert [train.get_label(), validation.get_label()] == ["train", "validation"]
    assert train.get_ydata().tolist() == [3, 2]
    assert validation.get_ydata().tolist() == [4]


def test_model_and_its_history_give_the_same_figure(history):
    axes = pl.training_curves(SimpleNamespace(history=history))
    assert len(axes) == len(pl.training_curves(history))


def test_trained_model_can_be_drawn(trained_model):
    axes = pl.training_curves(trained_model)
    assert "reconstruction loss atac" in {ax.get_title() for ax in axes}
    assert all(len(ax.lines[0].get_xdata()) == 30 for ax in axes)


def test_fifth_part_is_drawn_in_a_second_row_without_empty_axes_beside_it(history):
    axes = pl.training_curves(history, parts=["elbo"] * 5)
    assert [ax.get_subplotspec().rowspan.start for ax in axes] == [0, 0, 0, 0, 1]
    assert axes[0].figure.axes == axes


def test_chosen_parts_are_drawn_on_given_axes(history):
    figure, grid = plt.subplots(1, 2)
    axes = pl.training_curves(history, parts=["alignment_rna", "elbo"], axes=grid)
    assert axes == list(grid)
    assert axes[0].get_title() == "alignment rna"
    assert plt.get_fignums() == [figure.number]


def test_unknown_part_suggests_a_near_one(history):
    with pytest.raises(KeyError, match="`kl_mixtur` was not recorded.*Did you mean `kl_mixture`"):
        pl.training_curves(history, parts=["kl_mixtur"])


def test_wrong_number_of_axes_is_refused(history):
    with pytest.raises(ValueError, match="`axes` must have 2 axes, one for each part, got 1"):
        pl.training_curves(history, axes=[plt.subplots()[1]])


def test_what_is_no_axes_is_refused(history):
    with pytest.raises(TypeError, match="`axes` must be Axes of matplotlib, got .* `int`"):
        pl.training_curves(history, axes=[1, 2])


@pytest.mark.parametrize("parts", [[], "elbo"])
def test_parts_that_are_no_list_of_some_are_refused(history, parts):
    with pytest.raises(ValueError, match="`parts` must list one part or more, got"):
        pl.training_curves(history, parts=parts)


def test_model_that_was_trained_with_another_logger_is_told_from_an_untrained_one(
    fresh_mdata, train
):
    model = train(fresh_mdata, max_epochs=1, logger=False)
    with pytest.raises(ValueError, match="got none. The model was trained with a `logger`"):
        pl.training_curves(model)


def test_untrained_model_is_refused(mdata, small):
    for history in ({}, SCMVPModel(mdata, **small)):
        with pytest.raises(ValueError, match="got none. Train the model first"):
            pl.training_curves(history)


def test_axes_may_be_those_of_a_grid(history):
    _, grid = plt.subplots(2, 1, squeeze=False)
    assert pl.training_curves(history, axes=grid) == list(grid.flat)
