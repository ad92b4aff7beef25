"""`LikelihoodMixin`: how probable the counts are under a trained model."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mudata import MuData
from torch import Tensor

from scmvp_scvi._minibatches import Loader, MinibatchMixin
from scmvp_scvi._module import SCMVPLossOutput
from scmvp_scvi._validate import check_integer_at_least


class LikelihoodMixin(MinibatchMixin):
    """ELBO, reconstruction error and marginal likelihood of `SCMVPModel`.

    Scvi-tools refuses the first two wherever the model's own data are minified, and computes the
    whole loss for them; here they take counts as ``adata``, and no cycle is run.
    """

    @torch.inference_mode()
    def get_elbo(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
        dataloader: Loader | None = None,
        return_mean: bool = True,
    ) -> float | Tensor:
        """Evidence lower bound of the counts, in nats; higher is better.

        Parameters
        ----------
        adata, indices, batch_size, dataloader
            As in `get_latent_representation`; counts are needed.
        return_mean
            Average over the cells.

        Returns
        -------
        The mean over the cells, a tensor without axes as of scvi-tools, or ``(cells,)``.

        Raises
        ------
        TypeError, KeyError, ValueError, RuntimeError
            As in `get_latent_representation`; minified data have lost the counts.
        """
        losses = self._losses("`get_elbo`", adata, indices, batch_size, dataloader)
        of_cells = torch.cat(
            [
                -sum(loss.reconstruction_loss.values()) - sum(loss.kl_local.values())
                for loss in losses
            ]
        )
        return of_cells.mean() if return_mean else of_cells

    @torch.inference_mode()
    def get_reconstruction_error(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
        dataloader: Loader | None = None,
        return_mean: bool = True,
    ) -> dict[str, float | Tensor]:
        """Negative log likelihood of the counts given draws of z, for each modality, in nats.

        Lower is better.

        Parameters
        ----------
        adata, indices, batch_size, dataloader, return_mean
            As in `get_elbo`.

        Returns
        -------
        ``"reconstruction_loss_rna"`` and ``"reconstruction_loss_atac"`` to the mean over the
        cells, or to ``(cells,)``.

        Raises
        ------
        TypeError, KeyError, ValueError, RuntimeError
            As in `get_latent_representation`; minified data have lost the counts.
        """
        losses = self._losses("`get_reconstruction_error`", adata, indices, batch_size, dataloader)
        parts = [loss.reconstruction_loss for loss in losses]
        of_cells = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return {
            name: values.mean() if return_mean else values for name, values in of_cells.items()
        }

    @torch.inference_mode()
    def get_marginal_ll(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_mc_samples: int = 1_000,
        batch_size: int | None = None,
        return_mean: bool = True,
        dataloader: Loader | None = None,
    ) -> float | Tensor:
        """Importance-sampled estimate of the marginal log-likelihood log p(x, y), in nats.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        n_mc_samples
            Draws of z a cell.
        return_mean
            Average over the cells.
        dataloader
            Minibatches of counts, in place of ``adata`` and ``indices``.

        Returns
        -------
        The mean over the cells, or ``(cells,)``. The estimate is biased downwards, less so with
        more draws.

        Raises
        ------
        TypeError, KeyError, ValueError, RuntimeError
            As in `get_latent_representation`; minified data have lost the counts.
        """
        check_integer_at_least(n_mc_samples, 1, name="n_mc_samples")
        minibatches = self._minibatches_with_counts(
            "`get_marginal_ll`", adata, indices, batch_size, dataloader
        )
        of_cells = torch.cat(
            [self.module.marginal_ll(tensors, n_mc_samples) for tensors in minibatches]
        )
        return of_cells.mean().item() if return_mean else of_cells

    def _losses(self, *asked: Any) -> Iterator[SCMVPLossOutput]:
        """Losses of the minibatches, without the consistency terms, which no likelihood needs."""
        without_cycle = {"cycle_weight": 0.0, "cycle_cluster_weight": 0.0}
        for tensors in self._minibatches_with_counts(*asked):
            yield self.module(tensors, loss_kwargs=without_cycle)[2]

    def _minibatches_with_counts(
        self,
        needed_by: str,
        adata: MuData | None,
        indices: Sequence[int] | np.ndarray | None,
        batch_size: int | None,
        dataloader: Loader | None,
    ) -> Iterator[dict[str, Tensor]]:
        """Minibatches of a loader or of data, for what reads their counts with a trained model."""
        self._check_if_trained(warn=False)
        loader = self._loader_with_counts(needed_by, adata, dataloader)
        return self._asked_minibatches(adata, indices, batch_size, loader)
