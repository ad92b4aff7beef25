"""`AbundanceMixin`: how dense the cells of each sample are around each cell."""

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from torch import Tensor
from torch.distributions import Normal

from scmvp_scvi._embedding import EmbeddingMixin, check_dof, component_law
from scmvp_scvi._validate import check_integer_at_least, shown

# Cells times members times dimensions of the array of log densities.
_ENTRIES_PER_BLOCK = 2_000_000


class AbundanceMixin(EmbeddingMixin):
    """Differential abundance of `SCMVPModel`."""

    @torch.inference_mode()
    def differential_abundance(
        self,
        adata: MuData | None = None,
        sample_key: str | None = None,
        batch_size: int | None = None,
        num_cells_posterior: int | None = None,
        dof: float | None = 3.0,
    ) -> pd.DataFrame:
        """Log density of each sample's cells around each cell, to be compared between samples.

        The density of a sample is the mixture of its cells' posteriors, without the cell's own:
        with it, each cell would find its own sample denser than all others.

        Parameters
        ----------
        adata
            MuData with the features the model was trained on; None for the model's own data.
        sample_key
            Column with the sample of each cell, in ``adata.obs`` or the ``.obs`` of a modality.
        batch_size
            Cells a minibatch, to embed them.
        num_cells_posterior
            Cells, drawn at random, that stand for a sample with more; None for all.
        dof
            Degrees of freedom of the Student's t in place of each Gaussian posterior, whose tails
            are too light for cells that lie between others; None for the Gaussian.

        Returns
        -------
        ``(cells, samples)``, in nats, the names of the samples as strings. The difference of two
        columns, or of means over the samples of two conditions, is a log fold change of abundance
        at each cell.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If a sample has fewer than two cells.
        """
        self._check_if_trained(warn=False)
        if sample_key is None:
            raise ValueError("`sample_key` must name the column with the samples, got None.")
        if num_cells_posterior is not None:
            check_integer_at_least(num_cells_posterior, 2, name="num_cells_posterior")
        check_dof(dof)
        adata = self._validate_anndata(adata)
        column = self._grouping(adata, sample_key, "sample_key").astype("category")
        samples = column.cat.remove_unused_categories().cat.categories
        if not (printed := samples.map(str)).is_unique:
            alike = samples[printed.duplicated(keep=False)].map(repr)
            raise ValueError(
                f'Samples must have names that differ in print, but `sample_key="{sample_key}"` '
                f"has {shown(alike)}: give them values of one type."
            )
        posterior = self._posterior(adata, None, batch_size)
        densities = {}
        for name in samples:
            members = torch.as_tensor(np.flatnonzero(column == name), device=self.device)
            if len(members) < 2:
                raise ValueError(
                    f"Samples must have at least 2 cells, but {name!r} of "
                    f'`sample_key="{sample_key}"` has {len(members)}. Leave it out.'
                )
            if num_cells_posterior is not None:
                members = members[torch.randperm(len(members))[:num_cells_posterior]]
            densities[str(name)] = _log_density(posterior, members, dof).cpu().numpy()
        return pd.DataFrame(densities, index=adata.obs_names)


def _log_density(posterior: Normal, members: Tensor, dof: float | None) -> Tensor:
    """``(cells,)``, log of the mean density of the members' posteriors, each cell's own left out.

    ``members`` are rows of the posterior, whose batch shape is ``(cells, latent)``.
    """
    loc = posterior.loc
    law = component_law(loc[members], posterior.scale[members], dof)
    blocks = []
    for cells in torch.arange(len(loc), device=loc.device).split(
        max(1, _ENTRIES_PER_BLOCK // law.loc.numel())
    ):
        log_probs = law.log_prob(loc[cells][:, None]).sum(-1)
        is_own = cells[:, None] == members
        log_probs = log_probs.masked_fill(is_own, -torch.inf)
        n_others = len(members) - is_own.sum(1)
        blocks.append(log_probs.logsumexp(1) - n_others.log())
    return torch.cat(blocks)
