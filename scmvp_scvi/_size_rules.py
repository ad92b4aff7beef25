"""Defaults that depend on the number of cells."""

import math

import numpy as np

_CELLS_SEEN = 200_000  # by default training shows this many cells to the model, repeats included
# with more, a model of five hundred cells overfits, and predicts held-out counts worse
_MIN_EPOCHS, _MAX_EPOCHS = 10, 100
_FEW_CELLS = 5_000  # of the training
TRAINING_SHARE = 0.9  # of the cells, as scvi-tools has it
# few cells predict held-out counts better with it; ten thousand neither gain nor lose
_DROPOUT_OF_FEW = 0.1
# Standard deviation of the RNA output weights: the wide one overfits few cells, and the narrow one
# holds back the differences between types that many cells can tell.
_SCALE_OF_FEW, _SCALE_OF_MANY = 1.0, 3.4


def default_max_epochs(n_cells: int) -> int:
    """Epochs that show the model about as many cells whatever the size of the data.

    Parameters
    ----------
    n_cells
        Number of cells.
    """
    return int(np.clip(round(_CELLS_SEEN / n_cells), _MIN_EPOCHS, _MAX_EPOCHS))


def are_few(n_training_cells: int) -> bool:
    """Whether a model overfits so many training cells unless it is held back.

    Parameters
    ----------
    n_training_cells
        Number of training cells.
    """
    return n_training_cells <= _FEW_CELLS


def default_dropout_rate(n_cells: int) -> float:
    """Dropout on hidden layers, before it is known how many of the cells are trained on.

    Parameters
    ----------
    n_cells
        Number of cells, of which the usual share is taken for training cells.
    """
    return _DROPOUT_OF_FEW if are_few(math.ceil(TRAINING_SHARE * n_cells)) else 0.0


def default_rna_output_scale(n_training_cells: int) -> float:
    """Scale of the prior on the output weights of the RNA.

    Parameters
    ----------
    n_training_cells
        Number of training cells.
    """
    return _SCALE_OF_FEW if are_few(n_training_cells) else _SCALE_OF_MANY
