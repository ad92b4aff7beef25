import pytest

from scmvp_scvi._size_rules import (
    are_few,
    default_dropout_rate,
    default_max_epochs,
    default_rna_output_scale,
)


@pytest.mark.parametrize(
    ("n_cells", "epochs"), [(500, 100), (2_000, 100), (10_000, 20), (1_000_000, 10)]
)
def test_default_epochs_show_about_as_many_cells_within_limits(n_cells, epochs):
    assert default_max_epochs(n_cells) == epochs


@pytest.mark.parametrize("n_cells", [300, 5_000, 5_001, 5_555, 5_556, 20_000])
def test_dropout_and_prior_are_those_of_few_cells_together(n_cells):
    n_training = -(-9 * n_cells // 10)  # as scvi-tools splits by default
    dropout, scale = default_dropout_rate(n_cells), default_rna_output_scale(n_training)
    assert (dropout, scale) == ((0.1, 1.0) if n_training <= 5_000 else (0.0, 3.4))
    assert are_few(n_training) == (n_training <= 5_000)
