"""One MuData of two modalities: the cells that have both, in one order."""

import logging

import mudata
import pandas as pd
from anndata import AnnData
from mudata import MuData

from scmvp_scvi._validate import shown
from scmvp_scvi.datasets._counts import Modality

logger = logging.getLogger(__name__)

# What some files add to a barcode: the modality, or the number of the well.
_SUFFIX = r"(?i)(?:[-_.](?:rna|cdna|atac|dna|chromatin)|-\d+)$"
# Columns that stay categories where their values are numbers.
_CATEGORIES = ("cell_type", "batch")
_UNKNOWN = "Unknown"


def pair(rna: Modality, atac: Modality, obs: pd.DataFrame | None = None) -> MuData:
    """Keep the cells that both modalities have, in the order of the RNA.

    Cells are the same if their names are. If no name is in both, the names are compared without
    what follows the barcode: ``-1``, ``_RNA``, ``.atac`` and the like.

    Parameters
    ----------
    rna, atac
        The two modalities.
    obs
        Table of cells, indexed as those of `rna`; cells may be missing.

    Returns
    -------
    The joint data, with `obs` as ``.obs``. Columns of numbers become numbers; all others, and the
    cell types and batches in any case, become categories, of which what is missing or ``NA`` is
    ``"Unknown"``.

    Raises
    ------
    ValueError
        If a cell is there twice in one modality or in `obs`, or no cell is in both.
    """
    rna_cells = _unique(rna.cells, "the RNA")
    atac_cells = _unique(atac.cells, "the ATAC")
    if rna_cells.intersection(atac_cells).empty:
        rna_cells, atac_cells = _without_suffix(rna_cells), _without_suffix(atac_cells)
    cells = rna_cells[rna_cells.isin(atac_cells)]
    if cells.empty:
        raise ValueError(
            "A cell must be named alike in both modalities, but none is: the RNA has "
            f"{shown(rna.cells)}, the ATAC {shown(atac.cells)}. Take both from the same sample, "
            "or rename the cells in one of the two files."
        )
    logger.info(
        "Kept the %d cells that have both modalities, dropped %d of %d with RNA and %d of %d "
        "with ATAC for want of a partner.",
        len(cells),
        len(rna_cells) - len(cells),
        len(rna_cells),
        len(atac_cells) - len(cells),
        len(atac_cells),
    )
    modalities = {
        "rna": AnnData(
            rna.counts[rna_cells.get_indexer(cells)],
            obs=pd.DataFrame(index=cells),
            var=rna.features,
        ),
        "atac": AnnData(
            atac.counts[atac_cells.get_indexer(cells)],
            obs=pd.DataFrame(index=cells),
            var=atac.features,
        ),
    }
    # mudata 0.3 would copy the columns of the modalities into the joint tables otherwise.
    with mudata.set_options(pull_on_update=False):
        mdata = MuData(modalities)
    if obs is not None:
        _unique(obs.index, "the table of cells")
        published_names = rna.cells[rna_cells.isin(cells)]
        mdata.obs = obs.reindex(published_names).set_axis(cells).apply(_to_typed)
    return mdata


def _unique(cells: pd.Index, place: str) -> pd.Index:
    is_again = cells.duplicated()
    if is_again.any():
        raise ValueError(
            f"Each cell must be there once, but {is_again.sum()} of the {len(cells)} names in "
            f"{place} are there again: {shown(cells[is_again])}. Is the file that of one sample?"
        )
    return cells


def _without_suffix(cells: pd.Index) -> pd.Index:
    stripped = cells.str.replace(_SUFFIX, "", regex=True)
    # Where a suffix tells cells apart it is part of the name.
    return stripped if stripped.is_unique else cells


def _to_typed(column: pd.Series) -> pd.Series:
    named = column.where(~column.isin(["", "NA", "nan"]))
    numbers = pd.to_numeric(named, errors="coerce")
    if column.name not in _CATEGORIES and numbers.notna().equals(named.notna()):
        return numbers
    return named.fillna(_UNKNOWN).astype("category")
