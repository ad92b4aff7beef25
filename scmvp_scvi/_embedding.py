"""`EmbeddingMixin`: where a trained model places cells, and in which cluster."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scvi.model.base import VAEMixin
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    StudentT,
)

from scmvp_scvi._keys import OUTPUT, POSTERIOR_OF, REGISTRY, Source
from scmvp_scvi._minibatches import (
    Loader,
    MinibatchMixin,
    count_empty,
    warn_about_empty,
)
from scmvp_scvi._registered_names import RegisteredNamesMixin
from scmvp_scvi._validate import check_in, check_integer_at_least, check_one_of


class EmbeddingMixin(MinibatchMixin, RegisteredNamesMixin, VAEMixin):
    """Embedding and cluster posterior of the cells of `SCMVPModel`."""

    @torch.inference_mode()
    def get_latent_representation(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        modality: Source = "joint",
        give_mean: bool = True,
        batch_size: int | None = None,
        return_dist: bool = False,
        dataloader: Loader | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Embed cells: q(z | x, y), or the posterior of one modality's channel alone.

        Parameters
        ----------
        adata
            MuData with the features the model was trained on; None for the model's own data.
        indices
            Rows of ``adata``, integers or a boolean mask; None for all cells.
        modality
            ``"joint"``, where cells without counts in one modality are embedded from the other;
            ``"rna"`` or ``"atac"`` for the channel alone.
        give_mean
            Return the mean of the posterior; a draw from it otherwise.
        batch_size
            Cells a minibatch.
        return_dist
            Return the mean and the variance.
        dataloader
            Minibatches to embed, in place of ``adata`` and ``indices``.

        Returns
        -------
        ``(cells, latent)``, in the order of the cells asked for, ready for ``.obsm``; with
        ``return_dist`` the means and the variances.

        Raises
        ------
        TypeError
            If ``adata`` is no MuData.
        KeyError
            If it lacks a feature, a layer or a column that the model reads.
        ValueError
            If it does not hold counts, holds values that the model does not know, or is minified
            and counts are needed; if there is no such modality, or ``indices`` are out of range.
        RuntimeError
            If the model is not trained.

        Warns
        -----
        UserWarning
            If cells have no counts in the channel that embeds them.
        """
        check_one_of(modality, tuple(POSTERIOR_OF), name="modality")
        self._check_if_trained(warn=False)
        if modality != "joint":
            needed_by = f'`modality="{modality}"`'
            dataloader = self._loader_with_counts(needed_by, adata, dataloader)
        means, variances, n_empty = [], [], 0
        for outputs in self._embed(adata, indices, batch_size, dataloader):
            posterior = outputs[POSTERIOR_OF[modality]]
            n_empty += count_empty(outputs, modality)
            as_mean = give_mean or return_dist
            # copies, so that a million small arrays do not hold the memory of their minibatches
            means.append((posterior.loc if as_mean else posterior.sample()).cpu().numpy().copy())
            if return_dist:
                variances.append(posterior.variance.cpu().numpy().copy())
        warn_about_empty(n_empty, modality)
        if return_dist:
            return np.concatenate(means), np.concatenate(variances)
        return np.concatenate(means)

    @torch.inference_mode()
    def get_cluster_probabilities(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Posterior probability p(c | z) of each component of the mixture (equations 11, 12).

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        n_samples
            Average p(c | z) over this many draws of z; None evaluates it at the posterior mean.

        Returns
        -------
        ``(cells, clusters)``, indexed by cell; rows sum to one. Columns are the component numbers,
        or the labels that seeded the components, both as strings.

        Raises
        ------
        RuntimeError
            If the mixture has not been fitted, as in a checkpoint of the first epochs.
        """
        if n_samples is not None:
            check_integer_at_least(n_samples, 1, name="n_samples")
        self._check_if_trained(warn=False)
        prior = self.module.prior
        if not bool(prior.is_fitted):
            raise RuntimeError(
                "There are no clusters: this is a checkpoint from before the mixture was fitted, "
                "after the share `mixture_start` of the epochs. Load a later one, or train on."
            )
        probs = []
        for outputs in self._embed(adata, indices, batch_size):
            qz = outputs[OUTPUT.QZ]
            z = qz.loc if n_samples is None else qz.sample((n_samples,))
            of_batch = prior.cluster_probs(z)[..., prior.active]
            probs.append((of_batch if n_samples is None else of_batch.mean(0)).cpu())
        return pd.DataFrame(
            torch.cat(probs).numpy(),
            index=self._cell_names(adata, indices),
            columns=self._cluster_names(),
        )

    def predict_clusters(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
    ) -> pd.Series:
        """Most probable component of each cell, argmax of `get_cluster_probabilities`.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.

        Returns
        -------
        Categorical, indexed by cell, ready for ``.obs``; its categories are all components in
        use, whether or not a cell falls to them, as strings: compare with labels that are numbers
        by ``labels.astype(str)``.
        """
        probs = self.get_cluster_probabilities(adata, indices, batch_size=batch_size)
        codes = probs.to_numpy().argmax(1)
        clusters = pd.Categorical.from_codes(codes, categories=probs.columns)
        return pd.Series(clusters, index=probs.index, name="scmvp_cluster")

    def _cluster_names(self) -> pd.Index:
        """Names of the components in use: the seeding labels, or numbers as strings."""
        if self._has_labels:
            names = self._seeding_labels(self._unlabeled_category)
            return pd.Index([str(name) for name in names])
        return pd.Index([str(i) for i in range(self.module.prior.n_clusters)])

    @torch.inference_mode()
    def get_aggregated_posterior(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
        dof: float | None = 3.0,
    ) -> MixtureSameFamily:
        """Mixture of the posteriors of cells, what `differential_abundance` compares.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        dof
            Degrees of freedom of Student's t components of the posteriors' location and scale;
            None for the Gaussian posteriors themselves.
        """
        check_dof(dof)
        posterior = self._posterior(adata, indices, batch_size)
        components = component_law(posterior.loc, posterior.scale, dof)
        equal = Categorical(logits=torch.zeros(len(posterior.loc), device=self.device))
        return MixtureSameFamily(equal, Independent(components, 1))

    def _posterior(
        self,
        adata: MuData | None,
        indices: Sequence[int] | np.ndarray | None,
        batch_size: int | None,
    ) -> Normal:
        """q(z | x, y) of the cells, batch shape ``(cells, latent)``."""
        means, variances = self.get_latent_representation(
            adata, indices, batch_size=batch_size, return_dist=True
        )
        # in the same places, scvi-tools 1.4 takes the variance for the scale
        scale = torch.as_tensor(variances, device=self.device).sqrt()
        return Normal(torch.as_tensor(means, device=self.device), scale)

    @torch.inference_mode()
    def get_batch_representation(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Vector of the batch of each cell, of a model with ``batch_representation="embedding"``.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.

        Returns
        -------
        ``(cells, 5)``, equal rows for cells of one batch.

        Raises
        ------
        ValueError
            If the batches of the model have no vectors.
        """
        vectors = self.module.batch_vectors
        if vectors is None:
            raise ValueError(
                '`get_batch_representation` needs `batch_representation="embedding"`, got a model '
                'with "one-hot", whose batches have weights in each layer and no vector. Train '
                '`SCMVPModel(mdata, batch_representation="embedding")`.'
            )
        self._check_if_trained(warn=False)
        codes = [
            tensors[REGISTRY.BATCH][:, 0]
            for tensors in self._minibatches(adata, indices, batch_size)
        ]
        return vectors[torch.cat(codes).to(vectors.device)].cpu().numpy()


def check_dof(dof: float | None) -> None:
    """Refuse degrees of freedom that `component_law` has no law for."""
    if dof is not None:
        check_in(dof, "(0, inf)", name="dof")


def component_law(loc: Tensor, scale: Tensor, dof: float | None) -> Normal | StudentT:
    """Law of the components of a mixture of posteriors, these themselves if ``dof`` is None."""
    return Normal(loc, scale) if dof is None else StudentT(dof, loc, scale)
