"""Links as files for genome browsers and for other tools."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scmvp_scvi._validate import check_has_columns, midpoints, shown

if TYPE_CHECKING:
    from os import PathLike

_COLUMNS = ("gene", "peak", "chrom", "start", "end", "tss", "strand", "distance", "score")
_POSITIONS = ["start", "end", "tss", "distance"]
_NAMES = ["gene", "peak", "chrom"]
_LARGEST_BROWSER_SCORE = 1000


def write_bedpe(links: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write links as BEDPE, the peak first and the TSS second.

    Ten columns as bedtools reads them, ``name`` being ``gene|peak``, then ``z_score``,
    ``p_value``, ``q_value`` and ``distance`` where the links have them. Positions count from 0
    with the end excluded. The line of column names starts with ``#``.

    Parameters
    ----------
    links
        What `peak_gene_links` returned, or some of its rows.
    path
        The file; compressed if its name ends with ``.gz``.

    Raises
    ------
    TypeError, KeyError
        If `links` is no table, or a column is missing.
    ValueError
        If a position or a name of a gene or peak is missing.
    """
    links = _checked(links)
    table = pd.DataFrame(
        {
            "#chrom1": links["chrom"],
            "start1": links["start"],
            "end1": links["end"],
            "chrom2": links["chrom"],
            "start2": links["tss"],
            "end2": links["tss"] + 1,
            "name": links["gene"] + "|" + links["peak"],
            "score": links["score"],
            "strand1": ".",
            "strand2": links["strand"],
        }
    )
    further = ["z_score", "p_value", "q_value", "distance"]
    table = table.join(links[[name for name in further if name in links]])
    _write(table, path)


def write_links(links: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write links as the table of a GRanges, as Signac holds them :cite:p:`Stuart2021`.

    The columns are ``seqnames``, ``start``, ``end``, ``width``, ``strand`` (``*``), ``score``,
    ``gene``, ``peak``, ``zscore`` and ``pvalue``, then ``qvalue`` and ``distance``. A range is
    from the TSS to the midpoint of the peak, whichever comes first, and counts from 1 with the
    end included. In R: ``Links(object[["peaks"]]) <- makeGRangesFromDataFrame(read.delim(path),
    keep.extra.columns = TRUE)``.

    Parameters
    ----------
    links
        What `peak_gene_links` returned, or some of its rows.
    path
        The file; compressed if its name ends with ``.gz``.

    Raises
    ------
    TypeError, KeyError
        If `links` is no table, or a column is missing.
    ValueError
        If a position or a name of a gene or peak is missing.
    """
    links = _checked(links)
    first = np.minimum(midpoints(links), links["tss"]) + 1
    last = np.maximum(midpoints(links), links["tss"]) + 1
    table = pd.DataFrame(
        {
            "seqnames": links["chrom"],
            "start": first,
            "end": last,
            "width": last - first + 1,
            "strand": "*",
            "score": links["score"],
            "gene": links["gene"],
            # Signac's separators
            "peak": links["chrom"] + links[["start", "end"]].astype(str).radd("-").sum(axis=1),
        }
    )
    further = {"z_score": "zscore", "p_value": "pvalue", "q_value": "qvalue"}
    extra = links[[name for name in [*further, "distance"] if name in links]]
    _write(table.join(extra.rename(columns=further)), path, missing="NA")


def write_interact(
    links: pd.DataFrame, path: str | PathLike[str], *, name: str = "peak-gene links"
) -> None:
    """Write links as a custom track of the UCSC genome browser, ``interact`` (bed5+13).

    The peak is the source and the TSS the target. The browser's score, from 0 to 1000, is the
    absolute correlation times 1000, and ``value`` the correlation. The strand of a peak and
    missing ones are ``.``.

    Parameters
    ----------
    links
        What `peak_gene_links` returned, or some of its rows: browsers are slow beyond some
        thousand.
    path
        The file; compressed if its name ends with ``.gz``.
    name
        Name of the track.

    Raises
    ------
    TypeError, KeyError
        If `links` is no table, or a column is missing.
    ValueError
        If a position, a score, or a name of a gene or peak is missing, or `name` is not one line
        of text without double quotes.
    """
    links = _checked(links)
    if not isinstance(name, str) or len(name.splitlines()) > 1:
        raise ValueError(f"`name` must be one line of text, got {name!r}.")
    if '"' in name:
        raise ValueError(f"`name` must not have double quotes, got {name!r}.")
    if links["score"].isna().any():
        raise ValueError(
            "`links` must have a score each, but some are NaN. Leave them out: "
            '`links.dropna(subset=["score"])`.'
        )
    browser_score = (links["score"].abs().clip(upper=1) * _LARGEST_BROWSER_SCORE).round()
    gene, peak = (links[column].str.replace(r"\s", "_", regex=True) for column in ("gene", "peak"))
    table = pd.DataFrame(
        {
            "#chrom": links["chrom"],
            "chromStart": np.minimum(links["start"], links["tss"]),
            "chromEnd": np.maximum(links["end"], links["tss"] + 1),
            "name": gene + "/" + peak,
            "score": browser_score.astype(int),
            "value": links["score"],
            "exp": ".",
            "color": "0",
            "sourceChrom": links["chrom"],
            "sourceStart": links["start"],
            "sourceEnd": links["end"],
            "sourceName": peak,
            "sourceStrand": ".",
            "targetChrom": links["chrom"],
            "targetStart": links["tss"],
            "targetEnd": links["tss"] + 1,
            "targetName": gene,
            "targetStrand": links["strand"],
        }
    )
    track = f'track type=interact name="{name}" interactDirectional=true visibility=full\n'
    _write(table, path, track)


def _checked(links: pd.DataFrame) -> pd.DataFrame:
    """Links with positions as whole numbers, which a merge makes floats, one label a row.

    Names are text, also where they were read from a file as numbers or are categories.
    """
    check_has_columns(links, _COLUMNS, argument="links", made_by="tl.peak_gene_links")
    links = links.reset_index(drop=True)  # `concat` repeats labels, which columns are joined by
    lost = links[_POSITIONS + _NAMES].isna().any(axis=1)
    if lost.any():
        raise ValueError(
            f"`links` must have positions, but {lost.sum()} of {len(links)} lack one, or a name: "
            f"{shown(links.loc[lost, 'peak'])}. Leave them out."
        )
    types = {**dict.fromkeys(_POSITIONS, np.int64), **dict.fromkeys(_NAMES, str)}
    return links.astype({**types, "strand": object})


def _write(
    table: pd.DataFrame, path: str | PathLike[str], header: str = "", missing: str = "."
) -> None:
    path = Path(path).expanduser()
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(header)
        table.to_csv(
            file, sep="\t", index=False, na_rep=missing, float_format="%.6g", lineterminator="\n"
        )
