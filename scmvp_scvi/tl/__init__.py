"""What a model and its data are asked afterwards: links of peaks to genes, and means of groups.

Every function leaves the object it is given as it is; of data that are new to a model, scvi-tools
notes in them that they are registered.
"""

from scmvp_scvi.tl._group_means import group_means
from scmvp_scvi.tl._metacells import metacells
from scmvp_scvi.tl._peak_gene_links import peak_gene_links
from scmvp_scvi.tl._permutation import PermutedExcess, permute_pairing, permuted_excess
from scmvp_scvi.tl._write import write_bedpe, write_interact, write_links

__all__ = [
    "PermutedExcess",
    "group_means",
    "metacells",
    "peak_gene_links",
    "permute_pairing",
    "permuted_excess",
    "write_bedpe",
    "write_interact",
    "write_links",
]
