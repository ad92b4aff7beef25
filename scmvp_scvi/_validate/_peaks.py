"""Where peaks are, by their names or columns, and the spelling of chromosomes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from scmvp_scvi._validate._messages import shown, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

# `chr1:100-200`, also with other separators. The name of the chromosome may hold separators too,
# but none at its end, where it would take the sign of a start below zero.
PEAK_NAME = r"^(?P<chrom>.*?[^:_-])[:_-](?P<start>\d+)[-_:](?P<end>\d+)$"


class ReadPeaks(NamedTuple):
    """What names say of peaks, and the names that say nothing, or nothing possible."""

    table: pd.DataFrame  # `chrom`, `start` and `end`, Int64; missing where the name is unreadable
    is_unreadable: NDArray[np.bool_]  # (peaks,)
    is_reversed: NDArray[np.bool_]  # (peaks,), true where the end is not after the start


def read_peaks(names: pd.Series) -> ReadPeaks:
    """Read the place of each peak from its name, whatever the names are like.

    Parameters
    ----------
    names
        ``(peaks,)``, such as ``chr1:100-200``, or missing. Their index is that of the table.
    """
    table = names.str.extract(PEAK_NAME).astype({"start": "Int64", "end": "Int64"})
    is_reversed = (table["start"] >= table["end"]).fillna(False)
    return ReadPeaks(table, table["chrom"].isna().to_numpy(), is_reversed.to_numpy(bool))


def check_are_genes(genes: pd.Index, others: pd.Index, *, subject: str, swap: str) -> None:
    """Refuse a modality of genes whose features are mostly named like peaks.

    Parameters
    ----------
    genes, others
        Names of its features, and of those of the modality of the peaks.
    subject
        The modality, as the user spells it.
    swap
        What the user writes to have the two take each other's place.

    Raises
    ------
    ValueError
        With the way out: to swap them if the others are not named like peaks.
    """
    if _share_of_peaks(genes) <= 0.5:
        return
    way_out = "Build the MuData with genes in one modality and peaks in the other."
    if _share_of_peaks(others) < 0.5:
        way_out = f"Swap them: `{swap}`."
    raise ValueError(
        f"{subject} must be the modality of the genes, but its features are named like peaks: "
        f"{shown(genes)}. {way_out}"
    )


def _share_of_peaks(names: pd.Index) -> float:
    return float(names.astype(str).str.match(PEAK_NAME).mean()) if len(names) > 0 else 0.0


def parse_peaks(names: pd.Index, modality: str) -> pd.DataFrame:
    """Read the place of each peak of a modality from its name.

    Parameters
    ----------
    names, modality
        ``(peaks,)``, such as ``chr1:100-200``, and the key of the modality that has them.

    Returns
    -------
    ``chrom``, ``start`` and ``end``, indexed by the names.

    Raises
    ------
    ValueError
        If a name is not that of a peak, a peak does not end after its start, two names are those
        of the same peak, or a chromosome has two spellings.
    """
    return _parse(
        names,
        modality,
        place=f"{spelled(modality)}.var_names",
        afterwards="; mdata.update()",
        instead="the modality of the peaks as `atac_key`",
    )


def parse_peak_columns(table: pd.DataFrame, *, argument: str) -> pd.DataFrame:
    """Read the place of each peak from the columns of a table.

    Parameters
    ----------
    table, argument
        ``(groups, peaks)``, and the argument that gives it.

    Returns
    -------
    As `parse_peaks`.

    Raises
    ------
    ValueError
        As `parse_peaks`.
    """
    return _parse(
        table.columns,
        argument,
        place=f"{argument}.columns",
        afterwards="",
        instead="a table of peaks",
    )


def midpoints(peaks: pd.DataFrame) -> NDArray[np.int64]:
    """``(peaks,)``, the middle of each, rounded down.

    Parameters
    ----------
    peaks
        ``start`` and ``end``, in base pairs.
    """
    middle: NDArray[np.int64] = ((peaks["start"] + peaks["end"]) // 2).to_numpy()
    return middle


def _parse(
    names: pd.Index, subject: str, *, place: str, afterwards: str, instead: str
) -> pd.DataFrame:
    """Read peaks of a subject whose names are assigned to at a place, and what is to be run then.

    What can be passed instead is a part of a sentence.
    """
    peaks, is_unreadable, is_reversed = read_peaks(names.to_series().astype(str))
    if is_unreadable.any():
        raise ValueError(
            f"The peaks of `{subject}` must be named `chromosome:start-end`, but "
            f"{is_unreadable.sum()} of {len(names)} are not: {shown(names[is_unreadable])}. "
            f"Rename them, `{place} = ...{afterwards}`, or pass {instead}."
        )
    if is_reversed.any():
        raise ValueError(
            f"The peaks of `{subject}` must end after their start, but {is_reversed.sum()} of "
            f"{len(names)} do not: {shown(names[is_reversed])}. Remove or rename them."
        )
    is_again = peaks.duplicated().to_numpy()
    if is_again.any():
        raise ValueError(
            f"Each peak of `{subject}` must be there once, but {is_again.sum()} of {len(names)} "
            f"are there again in another spelling: {shown(names[is_again])}. Keep one of each."
        )
    otherwise = spelled_otherwise(peaks["chrom"].unique())
    if otherwise:
        name, wanted = next(iter(otherwise.items()))
        pattern = f"^({'|'.join(map(re.escape, otherwise))})(?=[:_-][0-9]+[:_-][0-9]+$)"
        raise ValueError(
            f"The peaks of `{subject}` must spell each chromosome in one way, but have "
            f"{len(otherwise)} in two, such as `{name}` and `{wanted}`. If these are one "
            f"chromosome, rename it: `names = {otherwise}; {place} = {place}.str.replace("
            f'r"{pattern}", lambda found: names[found[0]], regex=True){afterwards}`.'
        )
    return peaks.astype({"start": np.int64, "end": np.int64})


def spelled_otherwise(chromosomes: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
    """Find chromosomes that have several spellings, ``1`` and ``chr1``, on two sides or on one.

    Parameters
    ----------
    chromosomes, others
        Names of either side. Those of one side alone, such as unplaced contigs, are usual.

    Returns
    -------
    Names of `chromosomes` to what they should be called: as `others` call them or, where these do
    not have the chromosome, by the spelling that begins with ``chr``.
    """
    chromosomes = list(dict.fromkeys(chromosomes))
    wanted: dict[str, str] = {}
    for name in sorted(chromosomes, key=lambda name: not name.startswith("chr")):
        wanted.setdefault(_bare(name), name)
    wanted |= {_bare(name): name for name in others}
    return {name: wanted[_bare(name)] for name in chromosomes if name != wanted[_bare(name)]}


def prefix_change(renamed: Mapping[str, str]) -> Literal["added", "removed"] | None:
    """Tell whether the prefix ``chr`` is all that two spellings differ in.

    Parameters
    ----------
    renamed
        Names of chromosomes to what they should be called, as `spelled_otherwise` returns them.
    """
    if all(wanted == f"chr{name}" for name, wanted in renamed.items()):
        return "added"
    if all(name == f"chr{wanted}" for name, wanted in renamed.items()):
        return "removed"
    return None


def _bare(chromosome: str) -> str:
    return chromosome.casefold().removeprefix("chr")
