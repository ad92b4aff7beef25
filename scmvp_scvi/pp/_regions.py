"""Peaks that lie in regions of a BED file, such as blacklists and satellite repeats."""

from __future__ import annotations

import re
from io import TextIOWrapper
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmvp_scvi._files import is_gzip, open_with_progress
from scmvp_scvi._validate import parse_peaks, prefix_change, shown, spelled_otherwise
from scmvp_scvi.pp._input import check_modality
from scmvp_scvi.pp._output import Removal, account_for, take

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData
    from numpy.typing import NDArray

_HEADERS = ("#", "track", "browser")
_MAX_SHOWN = 3  # spellings in a message


def mask_regions(
    mdata: MuData,
    bed: str | PathLike[str],
    *,
    key_added: str = "masked",
    subset: bool = False,
    atac_key: str = "atac",
) -> MuData:
    """Mark, or remove, the peaks that overlap regions of a BED file.

    Made for regions whose reads are artefacts: blacklists :cite:p:`Amemiya2019` and satellite
    repeats. One base in common is an overlap. Peaks may come in any order, and are read from
    their names, ``chr1:100-200`` or with other separators; they are taken as BED counts, from 0
    with the end excluded.

    Parameters
    ----------
    mdata
        The data.
    bed
        File with tab- or space-separated chromosome, start and end in its first three columns,
        compressed by gzip or not, of the genome that the peaks were called on.
    key_added
        Column of the modality's ``.var`` for the mask, true in the regions.
    subset
        Whether to remove these peaks.
    atac_key
        The modality.

    Returns
    -------
    A new MuData. With `subset`, ``.uns["scmvp_removed"]`` says how many peaks went.

    Raises
    ------
    TypeError
        If `bed` is not the path of a file.
    ValueError
        If a line of the file or the name of a peak is no region, if a peak is there twice, if the
        file is damaged, if the file and the peaks have no chromosome in common or spell one
        differently, or if no peak would be left.
    OSError
        If there is no such file, or it is a folder.
    """
    if not isinstance(bed, str | PathLike):
        raise TypeError(
            f"`bed` must be the path of a BED file, got a {type(bed).__name__}. Write a table to "
            'one: `table.to_csv("regions.bed", sep="\\t", header=False, index=False)`.'
        )
    check_modality(mdata, atac_key, argument="atac_key")
    peaks = parse_peaks(mdata[atac_key].var_names, atac_key)
    regions = _read_bed(Path(bed).expanduser())
    _check_chromosomes(peaks, regions, bed, atac_key)
    mask = _overlaps(peaks, regions)
    if subset and mask.all():
        raise ValueError(
            f"`subset=True` leaves no peak: all {mask.size} of `{atac_key}` overlap regions of "
            f"`{bed}`. Check that the file lists the regions to remove, and not those to keep."
        )
    masked = take(mdata, features={atac_key: ~mask} if subset else None)
    masked[atac_key].var[key_added] = mask[~mask] if subset else mask
    if subset:
        n_masked = int(mask.sum())
        row = Removal(
            "mask_regions", 1, "peaks", f"in regions of {bed}", n_masked, mask.size - n_masked
        )
        account_for(masked, [row])
    return masked


def _read_bed(bed: Path) -> pd.DataFrame:
    """``chrom``, ``start`` and ``end`` of each region."""
    if not bed.exists():
        raise FileNotFoundError(
            f"`bed` must be a BED file, but `{bed}` is not there. Check the path."
        )
    if bed.is_dir():
        raise IsADirectoryError(
            f"`bed` must be a BED file, but `{bed}` is a folder. Name the file."
        )
    regions = []
    with open_with_progress(bed, progress=False) as stream:
        try:
            for number, line in enumerate(TextIOWrapper(stream, encoding="utf-8-sig"), start=1):
                if line.strip() and not line.startswith(_HEADERS):
                    regions.append(_parse_bed_line(line, f"Line {number} of `{bed}`"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"`bed`: `{bed}` must be text, compressed by gzip or not, but: {error}. Convert "
                "it, bigBed for instance with `bigBedToBed`."
            ) from error
    if not regions:
        raise ValueError(f"`bed`: `{bed}` must hold at least one region, but it has none.")
    return pd.DataFrame(regions, columns=["chrom", "start", "end"])


def _parse_bed_line(line: str, place: str) -> tuple[str, int, int]:
    rule = "must be chromosome, start and end, separated by tabs or spaces"
    columns = line.split()
    try:
        chrom, start, end = columns[0], int(columns[1]), int(columns[2])
    except (IndexError, ValueError):
        raise ValueError(
            f"{place} {rule}, got {line.rstrip()!r}. Pass a BED file as `bed`; lines of comments "
            f"start with {', '.join(f'`{header}`' for header in _HEADERS)}."
        ) from None
    if not 0 <= start <= end:
        raise ValueError(
            f"{place} {rule}, the start from 0 and not after the end, got {line.rstrip()!r}. "
            "Correct or remove the line."
        )
    return chrom, start, end


def _check_chromosomes(
    peaks: pd.DataFrame, regions: pd.DataFrame, bed: str | PathLike[str], atac_key: str
) -> None:
    """Refuse a file that spells a chromosome unlike the peaks: it would not overlap, in silence.

    Chromosomes on one side alone are usual, such as unplaced contigs.
    """
    of_peaks, of_regions = pd.unique(peaks["chrom"]), pd.unique(regions["chrom"])
    otherwise = spelled_otherwise(of_regions, of_peaks)
    if otherwise:
        renamed = [f"`{name}` for `{wanted}`" for name, wanted in otherwise.items()]
        raise ValueError(
            f"`bed` must name chromosomes as the peaks of `{atac_key}` do, but `{bed}` has "
            f"{', '.join(renamed[:_MAX_SHOWN])}{' and more' * (len(renamed) > _MAX_SHOWN)}. If "
            f"the genome is the same, rename them in the file{_command(otherwise, bed)}."
        )
    if not np.isin(of_regions, of_peaks).any():
        raise ValueError(
            "`bed` must be of the genome that the peaks were called on, but no chromosome of "
            f"`{bed}` is one of the peaks of `{atac_key}`: it has {shown(of_regions)}, the peaks "
            f"have {shown(of_peaks)}. Use the file of that genome."
        )


def _command(otherwise: Mapping[str, str], bed: str | PathLike[str]) -> str:
    """How to rename, where the prefix alone is in the way."""
    change = prefix_change(otherwise)
    if change is None:
        return ""
    names = "|".join(map(re.escape, otherwise))
    edit = f"sed -E 's/^({names})\\b/chr\\1/'" if change == "added" else "sed 's/^chr//'"
    is_compressed = is_gzip(Path(bed).expanduser())
    command = f"gzip -cd < {bed} | {edit}" if is_compressed else f"{edit} {bed}"
    return f", for instance with `{command}`"


def _overlaps(peaks: pd.DataFrame, regions: pd.DataFrame) -> NDArray[np.bool_]:
    """``(peaks,)``, true where a peak and a region have a base in common."""
    mask = np.zeros(len(peaks), bool)
    # a region of length zero, such as a place of insertion, has no base
    regions = regions[regions["start"] < regions["end"]]
    rows_of_chrom = peaks.reset_index(drop=True).groupby("chrom", sort=False).indices
    for chrom, found in regions.sort_values("start").groupby("chrom", sort=False):
        rows = rows_of_chrom.get(chrom, [])
        # Of the regions that start before the end of a peak, one reaches into it if the furthest
        # end of them all does.
        n_before = np.searchsorted(found["start"], peaks["end"].iloc[rows], side="left")
        furthest = np.concatenate([[-1], np.maximum.accumulate(found["end"])])
        mask[rows] = furthest[n_before] > peaks["start"].iloc[rows].to_numpy()
    return mask
