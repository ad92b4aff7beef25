"""One MuData of two modalities: the cells that have both, in one order."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from anndata import AnnData
from mudata import MuData

from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._validate import shown, warn_about_few_pairs, warn_user
from scmvp_scvi.datasets._counts import Modality

logger = logging.getLogger(__name__)

# The modality, which some files add to a barcode, before the number of the well or at the end.
_MODALITY = r"(?i)[-_.](?:rna|cdna|atac|dna|chromatin)(?=(?:-\d+)?$)"
_WELL = r"-(\d+)$"
# Columns that stay categories where their values are numbers.
_CATEGORIES = ("cell_type", "batch")
_UNKNOWN = "Unknown"


def pair(
    rna: Modality,
    atac: Modality,
    rna_obs: pd.DataFrame | None = None,
    atac_obs: pd.DataFrame | None = None,
) -> MuData:
    """Keep the cells that both modalities have, in the order of the RNA.

    Cells are the same if their names are. The names are also compared without the modality,
    ``_RNA``, ``.atac`` and the like, and without the well, ``-1``, where one of the two files has
    none and the other has one alone; of these spellings, that with most pairs is taken.

    Parameters
    ----------
    rna, atac
        The two modalities.
    rna_obs, atac_obs
        Tables of cells, each cell once, named as those of `rna` or `atac`; cells may be missing.
        A column of both is that of `rna_obs`.

    Returns
    -------
    The joint data, with the tables as ``.obs``. Columns of numbers become numbers; all others, and
    the cell types and batches in any case, become categories, of which what is missing or ``NA``
    is ``"Unknown"``.

    Raises
    ------
    ValueError
        If a cell is there twice in one modality, or no cell is in both.

    Warns
    -----
    UserWarning
        If less than half of the smaller modality is in both, or a table has none of these cells.
    """
    for modality in (rna, atac):
        check_each_once(modality.cells, modality.cells_path)
    rna_cells, atac_cells = max(_spellings(rna.cells, atac.cells), key=_n_pairs)
    cells = rna_cells[rna_cells.isin(atac_cells)]
    _report(rna, atac, len(cells))
    taken = {"rna": rna_cells.get_indexer(cells), "atac": atac_cells.get_indexer(cells)}
    modalities = {
        name: AnnData(
            modality.counts[taken[name]], obs=pd.DataFrame(index=cells), var=modality.features
        )
        for name, modality in (("rna", rna), ("atac", atac))
    }
    # mudata 0.3 would copy the columns of the modalities into the joint tables otherwise.
    with without_pulling():
        mdata = MuData(modalities)
    tables = [
        table.reindex(modality.cells[taken[name]]).set_axis(cells)
        for name, modality, table in (("rna", rna, rna_obs), ("atac", atac, atac_obs))
        if table is not None
    ]
    if any(table.isna().all(axis=None) for table in tables):
        warn_user(
            "The table of the cells has none of the "
            f"{len(cells)} cells that have both modalities, {shown(cells)}: what it says of cells "
            "is missing. Is it that of another sample?",
        )
    if tables:
        obs = pd.concat(tables, axis="columns")
        mdata.obs = obs.loc[:, ~obs.columns.duplicated()].apply(_to_typed)
    return mdata


def check_each_once(cells: pd.Index, path: Path) -> None:
    """Refuse a file that names a cell twice.

    Parameters
    ----------
    cells, path
        The names, and the file that has them.

    Raises
    ------
    ValueError
        If a name is there again.
    """
    is_again = cells.duplicated()
    if is_again.any():
        raise ValueError(
            f"`{path}` must name each cell once, but {is_again.sum()} of its {len(cells)} names "
            f"are there again: {shown(cells[is_again])}. Is the file that of one sample? If so, "
            "keep one of each, also in the matrix that the file belongs to, if it does."
        )


def _spellings(rna: pd.Index, atac: pd.Index) -> Iterator[tuple[pd.Index, pd.Index]]:
    """Names to compare, those that are closest to the published ones first."""
    yield rna, atac
    rna, atac = _without(_MODALITY, rna), _without(_MODALITY, atac)
    yield rna, atac
    wells = [names.str.extract(_WELL, expand=False) for names in (rna, atac)]
    has_one = [found.notna().all() and found.nunique() == 1 for found in wells]
    has_none = [found.isna().all() for found in wells]
    # Of several wells, a barcode without number does not say which.
    if has_one[0] and has_none[1]:
        yield _without(_WELL, rna), atac
    if has_none[0] and has_one[1]:
        yield rna, _without(_WELL, atac)


def _without(pattern: str, names: pd.Index) -> pd.Index:
    stripped = names.str.replace(pattern, "", regex=True)
    # What tells cells apart is part of the name.
    return stripped if stripped.is_unique else names


def _n_pairs(names: tuple[pd.Index, pd.Index]) -> int:
    return int(names[0].isin(names[1]).sum())


def _report(rna: Modality, atac: Modality, n_pairs: int) -> None:
    """Say how many cells have a partner, refuse if none has, and warn of few."""
    n_rna, n_atac = len(rna.cells), len(atac.cells)
    examples = (
        f"the RNA has {shown(rna.cells)} (`{rna.cells_path}`), the ATAC {shown(atac.cells)} "
        f"(`{atac.cells_path}`)"
    )
    way_out = "Take both from the same sample, or rename the cells in one of the two files."
    if n_pairs == 0:
        raise ValueError(
            f"A cell must be named alike in both modalities, but none is: {examples}. {way_out}"
        )
    warn_about_few_pairs(n_pairs, n_rna, n_atac, examples=examples, way_out=way_out)
    logger.info(
        "Kept the %d cells that have both modalities, dropped %d of %d with RNA and %d of %d "
        "with ATAC for want of a partner.",
        n_pairs,
        n_rna - n_pairs,
        n_rna,
        n_atac - n_pairs,
        n_atac,
    )


def _to_typed(column: pd.Series) -> pd.Series:
    named = column.where(~column.isin(["", "NA", "nan"]))
    numbers = pd.to_numeric(named, errors="coerce")
    if column.name not in _CATEGORIES and numbers.notna().equals(named.notna()):
        return numbers
    return named.fillna(_UNKNOWN).astype("category")
