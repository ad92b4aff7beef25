"""`MinibatchMixin`: the cells that a model is asked about, in minibatches, and what they lack."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData
from torch import Tensor

from scmvp_scvi._keys import MODALITIES, Source
from scmvp_scvi._minified import batches_with_counts, check_has_counts
from scmvp_scvi._registration import RegistrationMixin
from scmvp_scvi._validate import check_indices, warn_user

# What a user passes as `dataloader`: any iterable of minibatches, as torch's are.
Loader = Iterable[dict[str, Tensor]]


class MinibatchMixin(RegistrationMixin):
    """Minibatches of the cells that `SCMVPModel` is asked about."""

    def _minibatches(
        self,
        adata: MuData | None,
        indices: Sequence[int] | np.ndarray | None,
        batch_size: int | None,
    ) -> Iterator[dict[str, Tensor]]:
        """Validate the data and yield its minibatches in order."""
        adata = self._validate_anndata(adata)
        rows = (
            None if indices is None else check_indices(indices, adata.n_obs, cells=adata.obs_names)
        )
        yield from self._make_data_loader(adata, indices=rows, batch_size=batch_size)

    def _asked_minibatches(
        self,
        adata: MuData | None,
        indices: Sequence[int] | np.ndarray | None,
        batch_size: int | None,
        dataloader: Loader | None,
    ) -> Iterator[dict[str, Tensor]]:
        """Yield the minibatches of a loader, or of the data where there is none."""
        if dataloader is None:
            yield from self._minibatches(adata, indices, batch_size)
            return
        if adata is not None or indices is not None:
            raise ValueError("`dataloader` brings its own cells: leave `adata` and `indices` out.")
        tensors = None
        for tensors in dataloader:
            yield tensors
        if tensors is None:
            raise ValueError("`dataloader` must yield at least one minibatch, got none.")

    def _embed(
        self,
        adata: MuData | None,
        indices: Sequence[int] | np.ndarray | None,
        batch_size: int | None,
        dataloader: Loader | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield what the module finds in each minibatch."""
        for tensors in self._asked_minibatches(adata, indices, batch_size, dataloader):
            yield self.module.embed(tensors)

    def _cell_names(
        self, adata: MuData | None, indices: Sequence[int] | np.ndarray | None
    ) -> pd.Index:
        names = self._data(adata).obs_names
        if indices is None:
            return names
        return names[check_indices(indices, len(names), cells=names)]

    def _check_has_counts(self, needed_by: str, adata: MuData | None) -> None:
        """Refuse minified data, the model's own if ``adata`` is None, where counts are read."""
        check_has_counts(self._data(adata), needed_by=needed_by)

    def _loader_with_counts(
        self, needed_by: str, adata: MuData | None, loader: Loader | None
    ) -> Loader | None:
        """Refuse minified data at once, or in the minibatches of a loader, which is returned."""
        if loader is not None:
            return batches_with_counts(loader, needed_by=needed_by)
        self._check_has_counts(needed_by, adata)
        return None


def count_empty(outputs: dict[str, Any], source: Source) -> int:
    """Count the cells of a minibatch without counts in the channel that embeds them."""
    if source == "joint":
        return 0
    return int((outputs[MODALITIES[source].observed] == 0).sum())


def warn_about_empty(n_cells: int, source: Source) -> None:
    """Warn of cells that a channel has embedded without counts, if there are any."""
    if n_cells > 0:
        warn_user(
            f"{n_cells} cells have no {source} counts: their {source} embedding is that of "
            'an empty profile. "joint" embeds them from the other modality.',
        )
