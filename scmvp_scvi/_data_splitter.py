"""Minibatches that stay sparse from the data to the device."""

import warnings

import torch
from scvi.dataloaders import DataSplitter
from torch import Tensor


class SCMVPDataSplitter(DataSplitter):
    """scvi-tools' splitter, whose sparse minibatches are not written out on the device.

    Parameters
    ----------
    *args, **kwargs
        As in :class:`scvi.dataloaders.DataSplitter`.
    """

    def on_after_batch_transfer(
        self, batch: dict[str, Tensor], dataloader_idx: int
    ) -> dict[str, Tensor]:
        """Pass the minibatch on as it is; the module reads CSR tensors."""
        del dataloader_idx
        return batch


def silence_csr_warnings() -> None:
    """Have torch say what it says once a process of CSR tensors where nobody listens."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)
        torch.sparse_csr_tensor([0, 1], [0], [1.0], size=(1, 1))
