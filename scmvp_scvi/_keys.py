"""Strings that name tensors, outputs of the module and loss parts; what belongs to a modality."""

from typing import Literal, NamedTuple

from scvi import REGISTRY_KEYS as _SCVI_KEYS


class _RegistryKeys(NamedTuple):
    """Names of the data fields, as the minibatch dictionary spells them.

    The values shared with scvi-tools are taken from it, so that its mixins find their tensors.
    """

    RNA: str = _SCVI_KEYS.X_KEY
    ATAC: str = _SCVI_KEYS.ATAC_X_KEY
    BATCH: str = _SCVI_KEYS.BATCH_KEY
    LABELS: str = _SCVI_KEYS.LABELS_KEY
    CATEGORICAL_COVARIATES: str = _SCVI_KEYS.CAT_COVS_KEY
    CONTINUOUS_COVARIATES: str = _SCVI_KEYS.CONT_COVS_KEY
    RNA_SIZE_FACTOR: str = _SCVI_KEYS.SIZE_FACTOR_KEY
    ATAC_SIZE_FACTOR: str = "atac_size_factor"
    LATENT_MEAN: str = _SCVI_KEYS.LATENT_QZM_KEY
    LATENT_VARIANCE: str = _SCVI_KEYS.LATENT_QZV_KEY
    RNA_DEPTH: str = "rna_depth"
    ATAC_DEPTH: str = "atac_depth"
    MINIFY_TYPE: str = _SCVI_KEYS.MINIFY_TYPE_KEY


class _ModuleKeys(NamedTuple):
    """Names of what `inference` and `generative` of the module return.

    ``z`` and ``qz`` are scvi-tools' own spelling: its `VAEMixin` reads them.
    """

    Z: str = "z"
    QZ: str = "qz"
    QZ_RNA: str = "qz_rna"
    QZ_ATAC: str = "qz_atac"
    RNA_COUNTS: str = "rna_counts"
    ATAC_TARGET: str = "atac_target"  # what the decoder reconstructs, the counts or their TF-IDF
    RNA_LIBRARY: str = "rna_library"
    ATAC_LIBRARY: str = "atac_library"
    RNA_OBSERVED: str = "rna_observed"
    ATAC_OBSERVED: str = "atac_observed"
    RNA_CYCLE_WEIGHT: str = "rna_cycle_weight"  # of the first layer, for its use by the cycle
    ATAC_CYCLE_WEIGHT: str = "atac_cycle_weight"
    COVARIATES: str = "covariates"
    CLUSTER_PROBS: str = "cluster_probs"
    PX: str = "px"
    PY: str = "py"


class _LossParts(NamedTuple):
    """Names under which the parts of the objective are logged."""

    RNA_RECONSTRUCTION: str = "reconstruction_loss_rna"
    ATAC_RECONSTRUCTION: str = "reconstruction_loss_atac"
    KL: str = "kl_mixture"
    ALIGNMENT_RNA: str = "alignment_rna"
    ALIGNMENT_ATAC: str = "alignment_atac"
    CYCLE_RNA: str = "cycle_latent_rna"
    CYCLE_ATAC: str = "cycle_latent_atac"
    CYCLE_CLUSTER_RNA: str = "cycle_cluster_rna"
    CYCLE_CLUSTER_ATAC: str = "cycle_cluster_atac"
    LABELS: str = "label_surprise"


REGISTRY = _RegistryKeys()
OUTPUT = _ModuleKeys()
LOSS = _LossParts()


Kind = Literal["rna", "atac"]  # of a modality
Source = Literal["joint", "rna", "atac"]  # what a cell is embedded from


class ModalityKeys(NamedTuple):
    """What belongs to one modality, by the names that the parts of the package have for it."""

    layer: str  # the argument of `setup_mudata`
    features: str  # the argument that chooses some
    counts: str  # in a minibatch, as the next
    size_factor: str
    posterior: str  # of its channel, in the outputs of the module, as all below
    library: str
    observed: str
    law: str


# by kind, which is the key that a modality has in the data where it has no other
MODALITIES: dict[Kind, ModalityKeys] = {
    "rna": ModalityKeys(
        layer="rna_layer",
        features="gene_list",
        counts=REGISTRY.RNA,
        size_factor=REGISTRY.RNA_SIZE_FACTOR,
        posterior=OUTPUT.QZ_RNA,
        library=OUTPUT.RNA_LIBRARY,
        observed=OUTPUT.RNA_OBSERVED,
        law=OUTPUT.PX,
    ),
    "atac": ModalityKeys(
        layer="atac_layer",
        features="region_list",
        counts=REGISTRY.ATAC,
        size_factor=REGISTRY.ATAC_SIZE_FACTOR,
        posterior=OUTPUT.QZ_ATAC,
        library=OUTPUT.ATAC_LIBRARY,
        observed=OUTPUT.ATAC_OBSERVED,
        law=OUTPUT.PY,
    ),
}

# what cells are embedded from, and the name of that posterior in the outputs of the module
POSTERIOR_OF: dict[Source, str] = {
    "joint": OUTPUT.QZ,
    **{kind: keys.posterior for kind, keys in MODALITIES.items()},
}
