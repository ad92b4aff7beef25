"""Minibatches that stay sparse from the data to the device."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scvi.dataloaders import AnnDataLoader, DataSplitter
from torch import Tensor

from scmvp_scvi._validate import check_indices

_PARTS = ("training", "validation", "test")


class SCMVPDataSplitter(DataSplitter):
    """scvi-tools' splitter, whose minibatches come to the module as they are loaded.

    Parameters
    ----------
    *args, **kwargs
        As in :class:`scvi.dataloaders.DataSplitter`.
    pin_memory
        Whether minibatches are loaded to where a GPU can fetch them by itself; None for just where
        there is one. From elsewhere they are copied once all earlier steps are done.
    """

    def __init__(self, *args: Any, pin_memory: bool | None = None, **kwargs: Any) -> None:
        super().__init__(*args, pin_memory=bool(pin_memory), **kwargs)
        self._pins_for_gpu = pin_memory is None

    def setup(self, stage: str | None = None) -> None:
        """Split the cells, into the same parts in all processes: the first one's.

        Without a seed each would draw parts of its own, and learn other constants from them.
        """
        super().setup(stage)
        if self.trainer is not None and self.trainer.world_size > 1:
            names = ("train_idx", "val_idx", "test_idx")
            parts = self.trainer.strategy.broadcast([getattr(self, name) for name in names])
            for name, part in zip(names, parts, strict=True):
                setattr(self, name, part)

    @property
    def batch_size(self) -> int:
        """Cells of a minibatch, but for the last."""
        return int(self.data_loader_kwargs["batch_size"])

    def train_dataloader(self) -> AnnDataLoader:
        """Load the training cells, without a last minibatch of one cell, in any process.

        BatchNorm cannot train on one cell.
        """
        n_processes = 1 if self.trainer is None else self.trainer.world_size
        n_cells = math.ceil(len(self.train_idx) / n_processes)
        if n_cells % self.batch_size == 1:
            self.drop_last = True
        if self._pins_for_gpu and self.trainer is not None:
            self.pin_memory = self.trainer.strategy.root_device.type == "cuda"
        return super().train_dataloader()

    @property
    def splits_at_random(self) -> bool:
        """Whether the parts are drawn, so that each stands for all cells."""
        return bool(self.shuffle_set_split) and self.external_indexing is None

    def all_cells_of(self, part: np.ndarray) -> AnnDataLoader:
        """Load each cell of a part, those of a last minibatch that is dropped too.

        Parameters
        ----------
        part
            ``train_idx``, or another of the parts.
        """
        return self.data_loader_cls(
            self.adata_manager,
            indices=part,
            shuffle=False,
            drop_last=False,
            load_sparse_tensor=self.load_sparse_tensor,
            pin_memory=self.pin_memory,
            **self.data_loader_kwargs,
        )

    def on_after_batch_transfer(
        self, batch: dict[str, Tensor], dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Pass the minibatch on as it is; the module reads CSR tensors."""
        del dataloader_idx
        return batch


def checked_parts(parts: Any, n_obs: int, *, cells: pd.Index) -> list[np.ndarray]:
    """Turn the cells of each part, as ``external_indexing`` names them, into their positions.

    Parameters
    ----------
    parts
        Training, validation and test cells: integers or masks. The latter two may be left out, be
        None or empty.
    n_obs
        Number of cells.
    cells
        Their names.

    Raises
    ------
    TypeError
        If it is no sequence of parts, or a part holds neither integers nor booleans.
    ValueError
        If there are more than three parts, cells that do not exist, or cells that are in several
        parts, twice in one, or in none.
    """
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise TypeError(
            "`external_indexing` must be a list of the training, validation and test cells, got "
            f"a {type(parts).__name__}."
        )
    if not 1 <= len(parts) <= len(_PARTS):
        raise ValueError(
            "`external_indexing` must have the cells of one to three parts, for training, "
            f"validation and test, got {len(parts)} parts."
        )
    found = [np.array([], dtype=np.int64) for _ in _PARTS]
    for i, part in enumerate(parts):
        if i == 0 or (part is not None and np.size(part) > 0):
            argument = f"external_indexing[{i}]"
            found[i] = np.array(check_indices(part, n_obs, argument=argument, cells=cells))
    n_times = np.bincount(np.concatenate(found), minlength=n_obs)
    n_again, n_missing = int((n_times > 1).sum()), int((n_times == 0).sum())
    if n_again > 0:
        raise ValueError(
            f"`external_indexing` must name each cell once, got {n_again} more than once, such "
            f"as {int(n_times.argmax())}: training and held-out cells must not overlap."
        )
    if n_missing > 0:
        raise ValueError(
            f"`external_indexing` must name each of the {n_obs} cells, got {n_missing} in no "
            "part. Put them into the third, the test cells, which training does not read."
        )
    return found


def silence_csr_warnings() -> None:
    """Have torch give here, silenced, the warning of CSR tensors that it gives once a process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)
        torch.sparse_csr_tensor([0, 1], [0], [1.0], size=(1, 1))
