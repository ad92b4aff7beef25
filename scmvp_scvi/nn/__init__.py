"""Layers: attentions, encoders and decoders of scMVP."""

from scmvp_scvi.nn._attention import ClusterAttention, MaskAttention, SelfAttention
from scmvp_scvi.nn._covariates import Covariates, CovariateSizes
from scmvp_scvi.nn._decoders import ATACDecoder, RNADecoder
from scmvp_scvi.nn._encoders import JointEncoder, atac_encoder, rna_encoder

__all__ = [
    "ATACDecoder",
    "ClusterAttention",
    "CovariateSizes",
    "Covariates",
    "JointEncoder",
    "MaskAttention",
    "RNADecoder",
    "SelfAttention",
    "atac_encoder",
    "rna_encoder",
]
