"""The one door to private names of scvi-tools: what its next version may break."""

from scvi.model._utils import parse_device_args
from scvi.model.base._de_core import _fdr_de_prediction as tag_by_expected_fdr

__all__ = ["parse_device_args", "tag_by_expected_fdr"]
