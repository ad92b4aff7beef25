"""`SCMVPModule`: the generative story of scMVP, its inference and its objective."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scvi.module.base import BaseMinifiedModeModuleClass, LossOutput, auto_move_data
from torch import Tensor
from torch.distributions import Normal

from scmvp_scvi._counts import Counts, read_counts
from scmvp_scvi._feature_sample import (
    FeatureSample,
    inclusion_probabilities,
    sample_evenly,
    sample_features,
)
from scmvp_scvi._keys import LOSS, MODALITIES, OUTPUT, POSTERIOR_OF, REGISTRY, Kind, Source
from scmvp_scvi._losses import cluster_divergence, label_surprise, latent_divergence
from scmvp_scvi._posteriors import choose_posterior, posterior_where, stack_posteriors
from scmvp_scvi._profiles import (
    imputed_atac,
    imputed_rna,
    log_normalized,
    log_tfidf,
    log_tfidf_of_shares,
)
from scmvp_scvi._rows import split_uses
from scmvp_scvi._wide_gradients import WideGradients
from scmvp_scvi.distributions._factored import FactoredZeroInflatedPoisson
from scmvp_scvi.distributions._gaussian_mixture import GaussianMixture, MixtureFit
from scmvp_scvi.nn._attention import ClusterAttention, SelfAttentionForm
from scmvp_scvi.nn._calibration import Calibration
from scmvp_scvi.nn._covariates import BatchRepresentation, Covariates, CovariateSizes
from scmvp_scvi.nn._decoders import ATACDecoder, ATACTarget, Dispersion, RNADecoder
from scmvp_scvi.nn._encoders import JointEncoder, ProfileBlock, atac_encoder, rna_encoder

DEFAULT_CYCLE_PEAKS = 8192
_DEFAULT_CYCLE_GENES = 2048
_BATCH_DIMS = 5  # of the vectors of batches, as in scvi-tools
_OTHER = {"rna": "atac", "atac": "rna"}


@dataclass
class SCMVPLossOutput(LossOutput):
    """scvi-tools' loss record and the mean of each part of the objective, for the log.

    The parts do not travel as ``extra_metrics``: scvi-tools logs those under inference mode, which
    breaks data-parallel training.
    """

    parts: dict[str, Tensor] = field(default_factory=dict)


class SCMVPModule(BaseMinifiedModeModuleClass):
    """Variational autoencoder of paired RNA and ATAC counts with a mixture prior :cite:p:`Li2022`.

    Parameters
    ----------
    n_genes, n_peaks
        Features of the two modalities.
    n_batch, n_labels
        Number of batches and of labels.
    n_categories
        Number of categories of each further categorical covariate.
    n_continuous
        Number of continuous covariates.
    n_hidden, n_hidden_atac, n_shared, n_latent
        Width of the RNA channel and decoder, of those of the ATAC, of the joint layer and of the
        latent space.
    n_heads
        Heads of the self attentions.
    self_attention
        Form of the self attentions, see `SelfAttention`.
    cluster_attention
        Whether the cluster posterior weights the decoders' last hidden layer.
    max_clusters
        Room for components in the mixture prior.
    dispersion
        What the inverse dispersion of the RNA counts depends on.
    atac_target
        What the ATAC decoder reconstructs: ``"counts"``, or ``"tfidf"``, the log1p of TF-IDF that
        the encoder reads, as published.
    encode_covariates
        Whether covariates enter the encoders; they always enter the decoders.
    center_batches
        Whether the encoders' first layers are centred by batch.
    batch_representation
        Whether a batch enters by weights of its own, or by a vector of a few numbers.
    dropout_rate
        Dropout on hidden layers.
    rna_input_dropout, atac_input_dropout
        Share of the input values dropped in training.
    """

    feature_statistics_known: Tensor

    def __init__(
        self,
        *,
        n_genes: int,
        n_peaks: int,
        n_batch: int,
        n_labels: int,
        n_categories: tuple[int, ...],
        n_continuous: int,
        n_hidden: int,
        n_hidden_atac: int,
        n_shared: int,
        n_latent: int,
        n_heads: int,
        self_attention: SelfAttentionForm,
        cluster_attention: bool,
        max_clusters: int,
        dispersion: Dispersion,
        atac_target: ATACTarget,
        encode_covariates: bool,
        center_batches: bool,
        batch_representation: BatchRepresentation,
        dropout_rate: float,
        rna_input_dropout: float,
        atac_input_dropout: float,
    ) -> None:
        super().__init__()
        self.dispersion = dispersion
        self.atac_target = atac_target
        by_vector = batch_representation == "embedding"
        decoded = CovariateSizes(
            (n_batch, *n_categories), n_continuous, _BATCH_DIMS if by_vector else 0
        )
        encoded = decoded if encode_covariates else CovariateSizes((), 0)
        n_centered = 0
        if center_batches:  # it takes off whatever a row of the batch would add: there is none
            n_centered = n_batch
            encoded = CovariateSizes((1, *encoded.n_categories[1:]), encoded.n_continuous)

        # one vector a batch, which all layers that the batch enters share
        self.batch_vectors = (
            torch.nn.Parameter(torch.randn(n_batch, _BATCH_DIMS)) if by_vector else None
        )
        self.rna_encoder = rna_encoder(
            n_genes, n_hidden, n_latent, encoded, dropout_rate, rna_input_dropout, n_centered
        )
        self.atac_encoder = atac_encoder(
            n_peaks,
            n_hidden_atac,
            n_latent,
            encoded,
            dropout_rate,
            atac_input_dropout,
            n_heads,
            self_attention,
            n_centered,
        )
        self.joint_encoder = JointEncoder(n_hidden, n_hidden_atac, n_shared, n_latent)
        self.calibrations = torch.nn.ModuleDict(
            {kind: Calibration(n_latent) for kind in MODALITIES}
        )
        self.prior = GaussianMixture(max_clusters, n_latent)
        self.rna_cluster_attention = self.atac_cluster_attention = None
        if cluster_attention:
            self.rna_cluster_attention = ClusterAttention(max_clusters, n_hidden)
            self.atac_cluster_attention = ClusterAttention(max_clusters, n_hidden_atac)
        n_dispersions = {"gene": 1, "gene-batch": n_batch, "gene-label": n_labels}[dispersion]
        self.rna_decoder = RNADecoder(
            n_latent, n_hidden, n_genes, decoded, dropout_rate, n_dispersions
        )
        self.atac_decoder = ATACDecoder(
            n_latent, n_hidden_atac, n_peaks, decoded, dropout_rate, n_heads, self_attention
        )
        self.register_buffer("rna_median_depth", torch.tensor(1.0))
        self.register_buffer("rna_depth_per_size_factor", torch.tensor(1.0))
        self.register_buffer("atac_depth_per_size_factor", torch.tensor(1.0))
        self.register_buffer("atac_idf", torch.ones(n_peaks))
        self.register_buffer("continuous_mean", torch.zeros(n_continuous))
        self.register_buffer("continuous_scale", torch.ones(n_continuous))
        self.register_buffer("feature_statistics_known", torch.tensor(False))

    # -- what is learned from the training cells before the first step --------------------------

    @torch.no_grad()
    def set_feature_statistics(
        self,
        *,
        rna_median_depth: float,
        rna_totals: np.ndarray,
        atac_totals: np.ndarray,
        n_cells: int,
        rna_depth_per_size_factor: float = 1.0,
        atac_depth_per_size_factor: float = 1.0,
        continuous_mean: np.ndarray | None = None,
        continuous_scale: np.ndarray | None = None,
    ) -> None:
        """Store the constants of the input transforms and start the output biases at the mean.

        Parameters
        ----------
        rna_median_depth
            Median RNA depth of the training cells, in counts.
        rna_totals, atac_totals
            ``(features,)``, sum of each feature's counts over the training cells.
        n_cells
            Number of training cells.
        rna_depth_per_size_factor, atac_depth_per_size_factor
            What turns a size factor into a depth: the ratio of their medians.
        continuous_mean, continuous_scale
            ``(covariates,)``, what the continuous covariates are centred and divided by; None
            leaves them as they are.
        """
        self.rna_median_depth.fill_(rna_median_depth)
        self.rna_depth_per_size_factor.fill_(rna_depth_per_size_factor)
        self.atac_depth_per_size_factor.fill_(atac_depth_per_size_factor)
        if continuous_mean is not None and continuous_scale is not None:
            self.continuous_mean.copy_(torch.as_tensor(continuous_mean))
            self.continuous_scale.copy_(torch.as_tensor(continuous_scale))
        # a feature without counts is treated as if it had been seen in half a cell
        rna, atac = (
            torch.as_tensor(totals, dtype=torch.float32, device=self.device).clamp_min(0.5)
            for totals in (rna_totals, atac_totals)
        )
        self.atac_idf.copy_(n_cells / atac)
        self.rna_decoder.start_at(rna / rna.sum())
        if self.atac_target == "tfidf":  # what a single count of each peak typically becomes
            one = (n_cells / atac.sum()).expand_as(atac)
            atac = atac * log_tfidf_of_shares(one, self.atac_idf)
        self.atac_decoder.start_at(atac / atac.sum())
        self.feature_statistics_known.fill_(True)

    @torch.no_grad()
    def take_mixture(self, fit: MixtureFit) -> None:
        """Give the prior a mixture, in place of the one it has if there is one.

        The cluster attentions weigh the cells of a new component as those of the old ones that
        its mean belonged to.

        Parameters
        ----------
        fit
            The mixture, of at most as many components as the prior has room for.

        Raises
        ------
        ValueError
            If it has more, or other dimensions; nothing is changed then.
        """
        self.prior.check_has_room_for(fit)
        if bool(self.prior.is_fitted):
            means = torch.as_tensor(fit.means).to(self.prior.means)
            shares = self.prior.cluster_probs(means)
            for attention in (self.rna_cluster_attention, self.atac_cluster_attention):
                if attention is not None:
                    attention.hand_over(shares)
        self.prior.copy_fit(fit)

    # -- input transforms: everything from raw counts --------------------------------------------

    def rna_profile(self, counts: Counts, depth: Float[Tensor, "cells 1"] | None = None) -> Counts:
        """Encoder input: log1p of counts per median depth, zero stays zero.

        Parameters
        ----------
        counts
            The counts, or some of them.
        depth
            Of the cells; None for the sum of these counts.
        """
        return log_normalized(counts, self.rna_median_depth, depth)

    def atac_profile(
        self, counts: Counts, depth: Float[Tensor, "cells 1"] | None = None
    ) -> Counts:
        """Encoder input: log1p of TF-IDF, zero stays zero; parameters as of `rna_profile`."""
        return log_tfidf(counts, self.atac_idf, depth)

    # -- inference: q(z | x, y) and the single channels (equations 1 to 10) ---------------------

    def _get_inference_input(self, tensors: dict[str, Tensor]) -> dict[str, Tensor | None]:
        known = {
            "batch": tensors[REGISTRY.BATCH],
            "categorical": tensors.get(REGISTRY.CATEGORICAL_COVARIATES),
            "continuous": tensors.get(REGISTRY.CONTINUOUS_COVARIATES),
            "rna_size_factor": tensors.get(REGISTRY.RNA_SIZE_FACTOR),
            "atac_size_factor": tensors.get(REGISTRY.ATAC_SIZE_FACTOR),
        }
        if REGISTRY.LATENT_MEAN not in tensors:
            return {"rna": tensors[REGISTRY.RNA], "atac": tensors[REGISTRY.ATAC], **known}
        # `qzm` and `qzv` are scvi-tools' own spelling: its `inference` tells the two cases by them
        return {
            "qzm": tensors[REGISTRY.LATENT_MEAN],
            "qzv": tensors[REGISTRY.LATENT_VARIANCE],
            "rna_depth": tensors[REGISTRY.RNA_DEPTH],
            "atac_depth": tensors[REGISTRY.ATAC_DEPTH],
            **known,
        }

    @auto_move_data
    def _regular_inference(
        self,
        rna: Tensor,
        atac: Tensor,
        batch: Tensor,
        categorical: Tensor | None = None,
        continuous: Tensor | None = None,
        rna_size_factor: Tensor | None = None,
        atac_size_factor: Tensor | None = None,
        wide_gradients: WideGradients | None = None,
    ) -> dict[str, Any]:
        """Embed a minibatch.

        A modality is observed in a cell if it has any count there. Cells with both modalities get
        q(z | x, y); a cell with one gets that channel's posterior.

        Parameters
        ----------
        rna, atac
            Raw counts, ``(cells, genes)`` and ``(cells, peaks)``, dense or CSR.
        batch
            ``(cells, 1)``, batch codes.
        categorical, continuous
            Further covariates, ``(cells, covariates)``.
        rna_size_factor, atac_size_factor
            ``(cells, 1)``, used by the decoders in place of the depth, which they are scaled to.
        wide_gradients
            What becomes of the gradient of the ATAC channel's first layer; None holds it.

        Returns
        -------
        The names in `OUTPUT`: the posteriors, ``z``, what the decoders reconstruct, the libraries.
        """
        rna_counts, atac_counts = read_counts(rna), read_counts(atac)
        covariates = self._bundled(batch, categorical, continuous)

        reads_counts = self.atac_target == "counts"
        atac_target = atac_counts if reads_counts else self.atac_profile(atac_counts)
        libraries = self._libraries(
            rna_counts.depth, atac_target.depth, rna_size_factor, atac_size_factor
        )
        rna_observed = libraries[OUTPUT.RNA_OBSERVED]
        atac_observed = libraries[OUTPUT.ATAC_OBSERVED]

        # the cycle reads the same wide weights at some features
        rna_weight, rna_weight_again = split_uses(self.rna_encoder.first_layer.weight)
        atac_weight, atac_weight_again = split_uses(self.atac_encoder.first_layer.weight)
        rna_features = self.rna_encoder(
            rna_counts,
            covariates,
            rna_observed,
            rna_weight,
            transform=partial(self.rna_profile, depth=rna_counts.depth),
        )
        atac_features = self.atac_encoder(
            atac_counts,
            covariates,
            atac_observed,
            atac_weight,
            wide_gradients,
            transform=partial(self.atac_profile, depth=atac_counts.depth),
        )
        qz_rna = self.rna_encoder.head(rna_features)
        qz_atac = self.atac_encoder.head(atac_features)
        qz_joint = self.joint_encoder(rna_features, atac_features)
        qz = choose_posterior(
            qz_joint,
            qz_rna,
            qz_atac,
            rna_observed,
            atac_observed,
            validate=not self.training,  # which in each step would synchronise with the device
        )
        return {
            OUTPUT.QZ: qz,
            OUTPUT.QZ_RNA: qz_rna,
            OUTPUT.QZ_ATAC: qz_atac,
            OUTPUT.Z: qz.rsample(),
            OUTPUT.RNA_COUNTS: rna_counts,
            OUTPUT.ATAC_TARGET: atac_target,
            OUTPUT.RNA_CYCLE_WEIGHT: rna_weight_again,
            OUTPUT.ATAC_CYCLE_WEIGHT: atac_weight_again,
            OUTPUT.COVARIATES: covariates,
            **libraries,
        }

    @auto_move_data
    def _cached_inference(
        self,
        qzm: Float[Tensor, "cells latent"],
        qzv: Float[Tensor, "cells latent"],
        rna_depth: Float[Tensor, "cells 1"],
        atac_depth: Float[Tensor, "cells 1"],
        batch: Tensor,
        categorical: Tensor | None = None,
        continuous: Tensor | None = None,
        rna_size_factor: Tensor | None = None,
        atac_size_factor: Tensor | None = None,
    ) -> dict[str, Any]:
        """Look up what `_regular_inference` found when the data were minified.

        Parameters
        ----------
        qzm, qzv
            Mean and variance of q(z | x, y).
        rna_depth, atac_depth
            Depth of what each decoder reconstructs; 0 where the modality was not observed.
        batch, categorical, continuous, rna_size_factor, atac_size_factor
            As in `_regular_inference`.

        Returns
        -------
        The names in `OUTPUT` without the counts and without the posteriors of single channels.
        """
        qz = Normal(qzm, qzv.sqrt())
        return {
            OUTPUT.QZ: qz,
            OUTPUT.Z: qz.rsample(),
            OUTPUT.COVARIATES: self._bundled(batch, categorical, continuous),
            **self._libraries(rna_depth, atac_depth, rna_size_factor, atac_size_factor),
        }

    def _bundled(
        self, batch: Tensor, categorical: Tensor | None, continuous: Tensor | None
    ) -> Covariates:
        """Covariates of a minibatch, its batch codes first, the continuous ones in one unit.

        As they are, a column of large numbers would drown z in the layers that it enters.
        """
        codes = () if categorical is None else categorical.split(1, dim=-1)
        if continuous is not None:
            continuous = (continuous - self.continuous_mean) / self.continuous_scale
        return Covariates((batch, *codes), continuous, self.batch_vectors)

    def _libraries(
        self,
        rna_depth: Float[Tensor, "cells 1"],
        atac_depth: Float[Tensor, "cells 1"],
        rna_size_factor: Tensor | None,
        atac_size_factor: Tensor | None,
    ) -> dict[str, Tensor]:
        """Libraries of the decoders, and which modalities were observed."""
        rna_library, atac_library = rna_depth, atac_depth
        if rna_size_factor is not None:
            rna_library = rna_size_factor * self.rna_depth_per_size_factor
        if atac_size_factor is not None:
            atac_library = atac_size_factor * self.atac_depth_per_size_factor
        return {
            # an empty cell has no library; any positive value does, its likelihood is masked
            OUTPUT.RNA_LIBRARY: rna_library.masked_fill(rna_depth <= 0, 1.0),
            OUTPUT.ATAC_LIBRARY: atac_library.masked_fill(atac_depth <= 0, 1.0),
            OUTPUT.RNA_OBSERVED: (rna_depth[:, 0] > 0).to(rna_depth),
            OUTPUT.ATAC_OBSERVED: (atac_depth[:, 0] > 0).to(atac_depth),
        }

    # -- generative model (equations 11 to 19) --------------------------------------------------

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        wanted = (
            OUTPUT.Z,
            OUTPUT.COVARIATES,
            OUTPUT.RNA_LIBRARY,
            OUTPUT.ATAC_LIBRARY,
            OUTPUT.RNA_OBSERVED,
            OUTPUT.ATAC_OBSERVED,
        )
        outputs = {key: inference_outputs[key] for key in wanted}
        return {**outputs, "labels": tensors.get(REGISTRY.LABELS)}

    @auto_move_data
    def generative(
        self,
        z: Float[Tensor, "cells latent"],
        covariates: Covariates,
        rna_library: Float[Tensor, "cells 1"],
        atac_library: Float[Tensor, "cells 1"],
        rna_observed: Float[Tensor, "cells"],
        atac_observed: Float[Tensor, "cells"],
        labels: Tensor | None = None,
        transform_batch: int | None = None,
    ) -> dict[str, Any]:
        """Decode points of the latent space.

        Parameters
        ----------
        z
            Points of the latent space.
        covariates
            Batch and other covariates of each cell.
        rna_library, atac_library
            Depths that the means are scaled to.
        rna_observed, atac_observed
            1 where the modality was measured.
        labels
            ``(cells, 1)``, needed for ``dispersion="gene-label"`` alone.
        transform_batch
            Decode every cell as if it came from this batch.

        Returns
        -------
        ``px`` and ``py``, the factored laws of RNA and ATAC counts, and p(c | z).
        """
        if transform_batch is not None:
            covariates = covariates.with_batch(transform_batch)
        cluster_probs = self.prior.cluster_probs(z)
        rna_weights, atac_weights = (
            z.new_ones(z.shape[0], 1) if attention is None else attention(cluster_probs)
            for attention in (self.rna_cluster_attention, self.atac_cluster_attention)
        )
        by_batch = covariates.batch if self.dispersion == "gene-batch" else None
        index = labels if self.dispersion == "gene-label" else by_batch
        px = self.rna_decoder(
            z,
            rna_weights,
            covariates,
            None if index is None else index.squeeze(-1).long(),
            rna_library,
            rna_observed,
        )
        py = self.atac_decoder(z, atac_weights, covariates, atac_library, atac_observed)
        return {OUTPUT.PX: px, OUTPUT.PY: py, OUTPUT.CLUSTER_PROBS: cluster_probs}

    def posterior_to_decode(
        self,
        embedded: dict[str, Any],
        decoded: Kind,
        source: Source = "joint",
    ) -> Normal:
        """Posterior that the profiles of a modality are decoded from.

        Where a cell's counts of it are not seen, it is predicted from the other modality, by the
        posterior of that channel, calibrated on cells that were held out: of new cells, a channel
        says something else than of those it has learned from.

        Parameters
        ----------
        embedded
            What `embed` returned.
        decoded
            The modality.
        source
            What the cells are embedded from: ``"joint"``, the modalities that they have.

        Returns
        -------
        Batch shape ``(cells, latent)``.
        """
        if source == "joint":
            seen = embedded[MODALITIES[decoded].observed].bool().unsqueeze(-1)
            # what a cell has is the other modality then
            qz = embedded[OUTPUT.QZ]
            return posterior_where(seen, qz, self.calibrations[_OTHER[decoded]](qz))
        channel: Normal = embedded[POSTERIOR_OF[source]]
        if source != decoded:
            channel = self.calibrations[source](channel)
        return channel

    # -- both, of a minibatch as it is loaded ----------------------------------------------------

    def embed(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Embed a minibatch, `inference` of what it holds.

        Parameters
        ----------
        tensors
            The minibatch.
        """
        outputs: dict[str, Any] = self.inference(**self._get_inference_input(tensors))
        return outputs

    def decode(
        self,
        tensors: dict[str, Tensor],
        embedded: dict[str, Any],
        *,
        z: Float[Tensor, "cells latent"] | None = None,
        transform_batch: int | None = None,
    ) -> dict[str, Any]:
        """Decode the cells of a minibatch, `generative` of where they are embedded.

        Parameters
        ----------
        tensors
            The minibatch.
        embedded
            What `embed` returned of it.
        z
            Points of the latent space; None for those that were drawn.
        transform_batch
            As in `generative`.
        """
        at = embedded if z is None else {**embedded, OUTPUT.Z: z}
        inputs = self._get_generative_input(tensors, at)
        outputs: dict[str, Any] = self.generative(**inputs, transform_batch=transform_batch)
        return outputs

    # -- cycle (section 3.6) --------------------------------------------------------------------

    def reencode(
        self,
        rna_profile: Iterator[ProfileBlock],
        atac_profile: Iterator[ProfileBlock],
        covariates: Covariates,
        rna_weight: Tensor | None = None,
        atac_weight: Tensor | None = None,
    ) -> tuple[Normal, Normal]:
        """Embed the imputed profiles, q(z | x_hat) and q(z | y_hat), each by its own channel.

        Parameters
        ----------
        rna_profile, atac_profile
            What `imputed_rna` and `imputed_atac` yield.
        covariates
            Batch and other covariates of each cell.
        rna_weight, atac_weight
            Views of the first layers' weights for this use, see `split_uses`.
        """
        rna_features = self.rna_encoder.of_imputed(rna_profile, covariates, rna_weight)
        atac_features = self.atac_encoder.of_imputed(atac_profile, covariates, atac_weight)
        return self.rna_encoder.head(rna_features), self.atac_encoder.head(atac_features)

    # -- objective (section 3.7) ----------------------------------------------------------------

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        *,
        kl_weight: float | int | Tensor = 1.0,
        alignment_weight: float = 1.0,
        cycle_weight: float = 0.015,
        cycle_cluster_weight: float = 0.015,
        label_weight: float = 1.0,
        component_of_label: Int[Tensor, "labels"] | None = None,
        n_cycle_genes: int = _DEFAULT_CYCLE_GENES,
        n_cycle_peaks: int = DEFAULT_CYCLE_PEAKS,
        n_peaks_per_step: int | None = None,
        peak_probabilities: Float[Tensor, "peaks"] | None = None,
        wide_gradients: WideGradients | None = None,
    ) -> SCMVPLossOutput:
        """Negative ELBO plus the weighted consistency terms, averaged over the cells.

        Outside of training every term is taken over all peaks. Backpropagate through ``loss``
        alone: on an accelerator the reconstruction losses of single cells have no gradient.

        Parameters
        ----------
        tensors
            The minibatch.
        inference_outputs, generative_outputs
            What `inference` and `generative` returned.
        kl_weight
            Weight of the KL to the mixture prior, warmed up by the training plan.
        alignment_weight
            Weight of KL(q(z | x, y) || q(z | one modality)) on the observed profiles.
        cycle_weight
            Weight of the same divergence on the imputed profiles.
        cycle_cluster_weight
            Weight of the divergence between the cluster posteriors of both.
        label_weight
            Weight of -log p(c | z) of the component that a cell's label names. At 1 the ELBO is
            that of the counts and the labels.
        component_of_label
            The component of each label, -1 for those that name none; None where no label does.
        n_cycle_genes, n_cycle_peaks
            Features of the imputed profiles, drawn anew in each step, that are embedded again;
            the others are dropped as input values are.
        n_peaks_per_step
            Peaks, drawn anew in each step, that the ATAC likelihood and the cycle are estimated
            from without bias; None for the exact likelihood.
        peak_probabilities
            ``peak_probabilities(n_peaks_per_step)`` if it has been computed; None computes it.
        wide_gradients
            Takes the gradients of the ATAC decoder's output weights block by block, and is told
            which rows the cycle reads as well; None leaves them to autograd.
        """
        inferred, decoded = inference_outputs, generative_outputs
        qz, px, py = inferred[OUTPUT.QZ], decoded[OUTPUT.PX], decoded[OUTPUT.PY]
        atac_target, peak_weights = inferred[OUTPUT.ATAC_TARGET], None
        sample = self._peaks_of_step(n_peaks_per_step, peak_probabilities)
        if sample is not None:
            atac_target = atac_target.select_columns(sample.columns)
            py = py.at(sample.columns, gradient_factors=1 / sample.weights)
            peak_weights = sample.weights

        log_scale = px.log_scale()  # once, for the cycle and the likelihood
        latent: dict[str, Tensor] = {}
        cluster: dict[str, Tensor] = {}
        if cycle_weight > 0 or cycle_cluster_weight > 0:
            cycle_rna, cycle_atac = self.reencode(
                self._cycle_rna_profile(log_scale, n_cycle_genes),
                self._cycle_atac_profile(py, sample, n_cycle_peaks, wide_gradients),
                inferred[OUTPUT.COVARIATES],
                inferred[OUTPUT.RNA_CYCLE_WEIGHT],
                inferred[OUTPUT.ATAC_CYCLE_WEIGHT],
            )
            latent, cluster = self._cycle_terms(qz, cycle_rna, cycle_atac)
        rna_log_prob = px.log_prob(inferred[OUTPUT.RNA_COUNTS], log_scale, for_mean=True)
        atac_log_prob = py.log_prob(atac_target, peak_weights, wide_gradients, for_mean=True)
        reconstruction = {
            LOSS.RNA_RECONSTRUCTION: -rna_log_prob,
            LOSS.ATAC_RECONSTRUCTION: -atac_log_prob,
        }
        kl = self.prior.kl(qz, inferred[OUTPUT.Z])
        alignment = self._alignment_terms(inferred)
        labelled = self._label_term(tensors, inferred[OUTPUT.Z], component_of_label)

        total = (
            sum(reconstruction.values())
            + kl_weight * kl
            + alignment_weight * sum(alignment.values())
            + cycle_weight * sum(latent.values())
            + cycle_cluster_weight * sum(cluster.values())
            + label_weight * sum(labelled.values())
        )
        parts = {**reconstruction, LOSS.KL: kl, **alignment, **latent, **cluster, **labelled}
        return SCMVPLossOutput(
            loss=total.mean(),
            reconstruction_loss=reconstruction,
            kl_local=kl,
            parts={name: part.detach().mean() for name, part in parts.items()},
        )

    def peak_probabilities(self, n_sampled: int) -> Float[Tensor, "peaks"]:
        """Probability of each peak to be among those of a step.

        Parameters
        ----------
        n_sampled
            Peaks of a step.
        """
        return inclusion_probabilities(self.atac_idf.reciprocal(), n_sampled)

    def _peaks_of_step(
        self, n_sampled: int | None, probabilities: Float[Tensor, "peaks"] | None
    ) -> FeatureSample | None:
        """Peaks that a step of training is estimated from; None for all."""
        if not self.training or n_sampled is None:
            return None
        if probabilities is None:
            probabilities = self.peak_probabilities(n_sampled)
        return sample_features(probabilities, min(n_sampled, len(probabilities)))

    def _label_term(
        self,
        tensors: dict[str, Tensor],
        z: Float[Tensor, "cells latent"],
        component_of_label: Int[Tensor, "labels"] | None,
    ) -> dict[str, Tensor]:
        """-log p(c | z) of the components that labels name, ``(cells,)``; nothing if none do."""
        if component_of_label is None:
            return {}
        components = component_of_label[tensors[REGISTRY.LABELS].squeeze(-1).long()]
        surprise = label_surprise(self.prior.cluster_log_probs(z), components)
        # before the fit of the mixture no component is a label's
        return {LOSS.LABELS: surprise * self.prior.is_fitted}

    def _cycle_rna_profile(
        self, log_scale: Float[Tensor, "cells genes"], n_cycle_genes: int
    ) -> Iterator[ProfileBlock]:
        """Imputed RNA profile to embed again: at some genes, or of all."""
        n_genes, sample = log_scale.shape[1], None
        if self.training and n_cycle_genes < n_genes:
            sample = sample_evenly(n_genes, n_cycle_genes, log_scale.device)
        return imputed_rna(log_scale, self.rna_median_depth, sample)

    def _cycle_atac_profile(
        self,
        py: FactoredZeroInflatedPoisson,
        sample: FeatureSample | None,
        n_cycle_peaks: int,
        wide_gradients: WideGradients | None,
    ) -> Iterator[ProfileBlock]:
        """Imputed ATAC profile to embed again: at some peaks of the step's, or of all."""
        n_peaks = len(py.rate_bias)
        if self.training and n_cycle_peaks < n_peaks:
            own = sample_evenly(n_peaks, n_cycle_peaks, py.rate_bias.device)
            if sample is None:
                if wide_gradients is not None:
                    read = (py.rate_weight, self.atac_encoder.first_layer.weight)
                    wide_gradients.hold(own.columns, read)
                py, sample = py.at(own.columns), own
            else:  # among the sampled rows, so that no other row is touched
                columns, weights = (t[own.columns] for t in (sample.columns, sample.weights))
                py = py.among(own.columns)
                sample = FeatureSample(columns, weights * own.weights)
        return imputed_atac(py, self.atac_idf, self.atac_target, sample)

    def _alignment_terms(self, inferred: dict[str, Any]) -> dict[str, Tensor]:
        """Divergence of each channel from the joint posterior, ``(cells,)``, 0 in unpaired cells.

        The channels learn from the joint posterior, not it from them.
        """
        qz = inferred[OUTPUT.QZ]
        target = Normal(qz.loc.detach(), qz.scale.detach(), validate_args=False)
        channels = stack_posteriors(inferred[OUTPUT.QZ_RNA], inferred[OUTPUT.QZ_ATAC])
        paired = inferred[OUTPUT.RNA_OBSERVED] * inferred[OUTPUT.ATAC_OBSERVED]
        of_rna, of_atac = latent_divergence(target, channels) * paired
        return {LOSS.ALIGNMENT_RNA: of_rna, LOSS.ALIGNMENT_ATAC: of_atac}

    def _cycle_terms(
        self, qz: Normal, cycle_rna: Normal, cycle_atac: Normal
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Both consistency terms of both modalities, each ``(cells,)``."""
        channels = stack_posteriors(cycle_rna, cycle_atac)
        of_rna, of_atac = latent_divergence(qz, channels)
        latent = {LOSS.CYCLE_RNA: of_rna, LOSS.CYCLE_ATAC: of_atac}
        points = torch.cat([qz.loc.unsqueeze(0), channels.loc])
        joint, *of_channels = self.prior.cluster_log_probs(points)
        of_rna, of_atac = cluster_divergence(joint, torch.stack(of_channels))
        cluster = {LOSS.CYCLE_CLUSTER_RNA: of_rna, LOSS.CYCLE_CLUSTER_ATAC: of_atac}
        return latent, cluster

    # -- sampling -------------------------------------------------------------------------------

    @torch.inference_mode()
    @auto_move_data
    def marginal_ll(self, tensors: dict[str, Tensor], n_mc_samples: int) -> Float[Tensor, "cells"]:
        """Importance-sampled estimate of log p(x, y) of each cell, in nats.

        Parameters
        ----------
        tensors
            The minibatch.
        n_mc_samples
            Draws of z from the posterior.

        Returns
        -------
        On the CPU.
        """
        outputs = self.embed(tensors)
        qz = outputs[OUTPUT.QZ]
        log_weights = []
        for _ in range(n_mc_samples):
            z = qz.sample()
            decoded = self.decode(tensors, outputs, z=z)
            log_likelihood = decoded[OUTPUT.PX].log_prob(outputs[OUTPUT.RNA_COUNTS])
            log_likelihood += decoded[OUTPUT.PY].log_prob(outputs[OUTPUT.ATAC_TARGET])
            log_weights.append(log_likelihood + self.prior.log_prob(z) - qz.log_prob(z).sum(-1))
        stacked = torch.stack(log_weights).cpu()
        return stacked.logsumexp(0) - math.log(n_mc_samples)
