"""Warnings point at the user's line, whatever lies between it and the check."""

import pytest
import torch

from scmvp_scvi._validate import warn_user


def test_warning_points_at_the_line_that_called():
    with pytest.warns(UserWarning, match="so it is") as caught:
        warn_user("so it is")
    assert caught[0].filename == __file__


def test_frames_of_ours_and_of_torch_are_passed_over():
    inner = {"__name__": "scmvp_scvi.inner", "warn_user": warn_user}
    exec("def warn():\n    warn_user('deep down')", inner)
    with pytest.warns(UserWarning, match="deep down") as caught:
        torch.no_grad()(inner["warn"])()
    assert caught[0].filename == __file__
