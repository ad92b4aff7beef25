"""Warnings point at the user's line; data and matrices are spelled as the user spells them."""

import numpy as np
import pytest
import torch

from scmvp_scvi._validate import spelled, spelled_matrix, warn_user


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


def test_spelled_data_and_matrices_are_those_that_the_words_name(make_mdata):
    mdata = make_mdata()
    mdata["rna"].layers["counts"] = mdata["rna"].X * 2
    names = {"mdata": mdata}
    assert eval(spelled(None), names) is mdata
    assert eval(spelled("atac"), names) is mdata["atac"]
    for layer, expected in ((None, mdata["rna"].X), ("counts", mdata["rna"].layers["counts"])):
        found = eval(spelled_matrix("rna", layer), names)
        np.testing.assert_array_equal(found.toarray(), expected.toarray())
