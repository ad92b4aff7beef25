"""Minibatches that stay sparse from the data to the device."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from scvi.dataloaders import AnnDataLoader, DataSplitter
from torch import Tensor


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


def silence_csr_warnings() -> None:
    """Have torch give here, silenced, the warning of CSR tensors that it gives once a process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)
        torch.sparse_csr_tensor([0, 1], [0], [1.0], size=(1, 1))
