"""`PredictiveMixin`: counts drawn from a trained model, and how its genes vary together."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from sparse import COO, GCXS, concatenate, stack

from scmvp_scvi._data import registered_modality
from scmvp_scvi._denoised import DenoisedMixin
from scmvp_scvi._keys import MODALITIES, OUTPUT, Kind
from scmvp_scvi._registered_names import Batch
from scmvp_scvi._validate import check_integer_at_least, check_one_of
from scmvp_scvi.distributions._factored import Law

_FEATURES_PER_BLOCK = 8192


class PredictiveMixin(DenoisedMixin):
    """Posterior predictive counts of `SCMVPModel`, and correlations of its genes."""

    @torch.inference_mode()
    def posterior_predictive_sample(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 1,
        gene_list: Sequence[str] | None = None,
        region_list: Sequence[str] | None = None,
        transform_batch: Batch | None = None,
        batch_size: int | None = None,
        modality: Kind | None = None,
    ) -> dict[str, GCXS]:
        """Draw counts of new cells like the given ones: z from the posterior, then counts from it.

        The draws have the depth of their cell. They are compressed a minibatch and a block of
        features at a time, so that the dense counts are never held.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        n_samples
            Draws a cell.
        gene_list, region_list
            Genes and peaks to draw, in this order; None for all.
        transform_batch
            Batch to decode all cells in; None for each cell's own.
        modality
            Draw one modality alone; None for both.

        Returns
        -------
        The counts by the modality's name in the data, as scvi-tools'
        :class:`~scvi.criticism.PosteriorPredictiveCheck` reads them: ``(cells, features)`` for one
        sample, ``(cells, features, n_samples)`` for several.

        Raises
        ------
        ValueError
            If the model reconstructs TF-IDF, which is no law of counts, and ATAC is asked for.
        """
        self._check_if_trained(warn=False)
        check_integer_at_least(n_samples, 1, name="n_samples")
        check_one_of(modality, (None, *MODALITIES), name="modality")
        asked = tuple(MODALITIES) if modality is None else (modality,)
        if "atac" in asked and self.module.atac_target == "tfidf":
            raise ValueError(
                'A model with `atac_target="tfidf"` has no law of ATAC counts to draw from: pass '
                '`modality="rna"`.'
            )
        lists: dict[Kind, Sequence[str] | None] = {"rna": gene_list, "atac": region_list}
        for kind, names in lists.items():
            if names is not None and kind not in asked:
                raise ValueError(
                    f"`{MODALITIES[kind].features}` chooses features that `modality={modality!r}` "
                    "does not draw: leave one of them out."
                )
        chosen = {kind: self._feature_positions(kind, names) for kind, names in lists.items()}
        batch = self._one_batch_code(transform_batch)
        drawn: dict[Kind, list[COO]] = {name: [] for name in asked}
        for tensors in self._minibatches(adata, indices, batch_size):
            outputs = self.module.embed(tensors)
            samples: dict[Kind, list[COO]] = {name: [] for name in asked}
            for _ in range(n_samples):
                z = outputs[OUTPUT.QZ].sample()
                laws = self.module.decode(tensors, outputs, z=z, transform_batch=batch)
                for name in asked:
                    samples[name].append(_draw(laws[MODALITIES[name].law], chosen[name]))
            for name, parts in samples.items():
                drawn[name].append(parts[0] if n_samples == 1 else stack(parts, axis=-1))
        return {
            registered_modality(self.registry, name): GCXS.from_coo(
                concatenate(parts), compressed_axes=(0,)
            )
            for name, parts in drawn.items()
        }

    def get_feature_correlation_matrix(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        n_samples: int = 10,
        batch_size: int | None = None,
        transform_batch: Batch | None = None,
        correlation_type: Literal["spearman", "pearson"] = "spearman",
        gene_list: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Correlation of genes over cells and draws of their denoised expression.

        Denoised profiles agree better than counts do: a correlation here says what the latent
        space ties together, not how far a gene's counts are noise of their own.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        n_samples
            Draws of z a cell.
        transform_batch
            Batch to decode all cells in; None for each cell's own, which counts differences
            between the batches as correlation.
        correlation_type
            Of the ranks, ``"spearman"``, or of the values, ``"pearson"``.
        gene_list
            Genes to correlate; None for all.

        Returns
        -------
        ``(genes, genes)``, indexed by gene.

        Raises
        ------
        ValueError
            If there is one draw of one cell.
        """
        check_one_of(correlation_type, ("spearman", "pearson"), name="correlation_type")
        check_integer_at_least(n_samples, 1, name="n_samples")
        draws = self.get_normalized_expression(
            adata,
            indices,
            transform_batch=transform_batch,
            gene_list=gene_list,
            n_samples=n_samples,
            return_mean=False,
            batch_size=batch_size,
            return_numpy=True,
        )
        genes = self._feature_names("rna")[self._feature_positions("rna", gene_list)]
        table = pd.DataFrame(draws.reshape(-1, len(genes)), columns=genes)
        if len(table) < 2:
            raise ValueError(
                "Correlations need at least two draws, got one cell and `n_samples=1`: ask for "
                "more of either."
            )
        values = table.rank() if correlation_type == "spearman" else table
        return pd.DataFrame(np.corrcoef(values, rowvar=False), index=genes, columns=genes)


def _draw(law: Law, chosen: np.ndarray) -> COO:
    """``(cells, chosen)``, counts; none where a cell lacks the modality."""
    blocks = []
    for start in range(0, len(chosen), _FEATURES_PER_BLOCK):
        some = torch.as_tensor(chosen[start : start + _FEATURES_PER_BLOCK])
        counts = law.distribution(some.to(law.hidden.device)).sample()
        counts = counts * law.observed[:, None]
        blocks.append(COO.from_numpy(counts.cpu().numpy().astype(np.int32)))
    return concatenate(blocks, axis=1)
