"""The one door to private names of scvi-tools: what its next version may break."""

from scvi.data._constants import _ADATA_MINIFY_TYPE_UNS_KEY as MINIFY_TYPE_UNS_KEY
from scvi.data._constants import _MANAGER_UUID_KEY as MANAGER_UUID_KEY
from scvi.data._constants import _SCVI_UUID_KEY as DATA_UUID_KEY
from scvi.model._utils import parse_device_args
from scvi.model.base._constants import SAVE_KEYS
from scvi.model.base._de_core import _fdr_de_prediction as tag_by_expected_fdr
from scvi.train._config import merge_kwargs

__all__ = [
    "DATA_UUID_KEY",
    "MANAGER_UUID_KEY",
    "MINIFY_TYPE_UNS_KEY",
    "SAVE_KEYS",
    "merge_kwargs",
    "parse_device_args",
    "tag_by_expected_fdr",
]
