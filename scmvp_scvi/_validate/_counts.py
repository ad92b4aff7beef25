"""Check that a matrix holds raw counts, by every value in it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from scmvp_scvi._validate._blocks import (
    has_repeated_entries,
    is_backed_sparse,
    is_dense,
    value_blocks,
)
from scmvp_scvi._validate._messages import spelled_matrix, warn_user

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

# Above this share of fractional values the matrix is taken for a transformed one.
_MAX_FRACTIONAL_SHARE = 0.1
_STANDARD_ERRORS = 4  # that even counts must be ahead of odd ones by


class _ValueSummary(NamedTuple):
    """What the values of a matrix are like; zeros, stored or not, are left out of every count."""

    n_nonzero: int = 0
    n_not_finite: int = 0
    minimum: float = 0.0
    n_fractional: int = 0
    n_half: int = 0
    fractional_example: float = 0.0

    @property
    def is_counts(self) -> bool:
        """Whether all values are integers of zero or more."""
        return self.n_not_finite == 0 and self.n_fractional == 0 and self.minimum >= 0


def check_counts(
    matrix: Any,
    *,
    argument: str,
    modality: str,
    layer: str | None = None,
    adata: AnnData | None = None,
) -> None:
    """Refuse a matrix that does not hold counts; every value is read, block by block.

    Binary values pass in silence, and so does a matrix of zeros. Up to a tenth of fractional
    values is warned about, as some protocols give half counts.

    Parameters
    ----------
    matrix
        ``(cells, features)``: CSR or CSC matrix, dense array, or one of these on disk.
    argument
        The argument that names the layer, such as ``"atac_layer"``.
    modality
        Key of the modality.
    layer
        Where the matrix comes from: the name of a layer, or None for `.X`.
    adata
        The modality. Where else it holds counts is told in the error.

    Raises
    ------
    TypeError
        If the matrix is of a kind that scvi-tools cannot register.
    ValueError
        If values are NaN, infinite or negative, if more than a tenth of them is fractional, or if
        a sparse matrix stores an entry in parts.
    """
    place = spelled_matrix(modality, layer)
    _check_matrix_type(matrix, argument, place)
    if has_repeated_entries(matrix):
        # the transforms of the encoder are no sums: log1p of a count is not that of its parts
        where = "" if sp.issparse(matrix) else ", read into memory"
        raise ValueError(
            f"`{argument}`: `{place}` must store each entry once, but has entries that are the "
            f"sum of several. Add them up{where}: `{place}.sum_duplicates()`."
        )
    summary = _summarize_values(matrix)
    if summary.is_counts:
        return
    way_out = partial(_where_counts_are, argument, modality, layer, adata)
    subject = f"`{argument}`: `{place}` must hold raw counts, but"
    share = f"{summary.n_fractional / max(summary.n_nonzero, 1):.1%}"
    if summary.n_not_finite > 0:
        raise ValueError(
            f"{subject} {summary.n_not_finite} values are NaN or infinite. {way_out()}"
        )
    if summary.minimum < 0:
        raise ValueError(
            f"{subject} there are negative values, down to {summary.minimum:.4g}: the data look "
            f"scaled or centred. {way_out()}"
        )
    if summary.n_fractional > _MAX_FRACTIONAL_SHARE * summary.n_nonzero:
        rounding = "round" if is_dense(matrix) else "rint"
        raise ValueError(
            f"{subject} {share} of the non-zero values are not integers, such as "
            f"{summary.fractional_example:.4g}: the data look log-normalized, TF-IDF or otherwise "
            f"transformed. {way_out()} If they are estimated counts, round them: "
            f"`{place} = {place}.{rounding}()`."
        )
    halves = "all of them half counts (n + 0.5)" if summary.n_half == summary.n_fractional else ""
    warn_user(
        f"`{argument}`: {summary.n_fractional} of {summary.n_nonzero} non-zero values ({share}) "
        f"of `{place}` are not integers, "
        f"{halves or f'such as {summary.fractional_example:.4g}'}. "
        "The likelihoods accept them as they are; to have integers, round them first.",
    )


def warn_about_reads(matrix: Any, *, modality: str, layer: str | None = None) -> None:
    """Warn where counts look like reads, of which each fragment gives two.

    More even than odd counts, beyond chance, are what no Poisson or negative binomial law of any
    mean gives. The first values of the matrix are looked at.

    Parameters
    ----------
    matrix
        ``(cells, peaks)``, counts that `check_counts` accepts.
    modality, layer
        Key of the modality, and the layer with its counts; None for ``.X``.
    """
    first = next(value_blocks(matrix), np.empty(0))
    n_odd = int(np.count_nonzero(first % 2 == 1))
    n_even = int(np.count_nonzero((first % 2 == 0) & (first > 0)))
    if n_even - n_odd <= _STANDARD_ERRORS * math.sqrt(n_even + n_odd):
        return
    from_layer = "" if layer is None else f', read_layer="{layer}"'
    warn_user(
        f"The counts in `{modality}` look like reads, two for each fragment: of the first "
        f"{n_even + n_odd}, {n_even} are even and {n_odd} odd. The law of the model is that of "
        "fragments, and reads count each of them twice. Unless a layer has them, estimate "
        "fragments: `mdata = scmvp_scvi"
        f'.pp.reads_to_fragments(mdata, atac_key="{modality}"{from_layer})`, then pass '
        '`atac_layer="fragments"`.',
    )


def warn_about_columns_on_disk(matrix: Any, *, argument: str, modality: str) -> None:
    """Warn of a matrix on disk of which no rows can be read without all others.

    Parameters
    ----------
    matrix, argument, modality
        As in `check_counts`.
    """
    if is_backed_sparse(matrix) and matrix.format == "csc":
        warn_user(
            f"`{argument}`: the counts of `{modality}` are a csc_matrix on disk, which is read "
            "whole for each minibatch. Read the data into memory, or write them with the counts "
            "as a csr_matrix.",
        )


def begins_with_counts(matrix: Any) -> bool:
    """Whether the first values of a matrix are finite integers of zero or more.

    Parameters
    ----------
    matrix
        As in `check_counts`.
    """
    first = next(value_blocks(matrix), np.empty(0))
    return first.size == 0 or _add_block(_ValueSummary(), first).is_counts


def _check_matrix_type(matrix: Any, argument: str, place: str) -> None:
    kind = type(matrix).__name__
    if sp.issparse(matrix) and not isinstance(matrix, sp.csr_matrix | sp.csc_matrix):
        target = "csc_matrix" if matrix.format == "csc" else "csr_matrix"
        raise TypeError(
            f"`{argument}`: `{place}` is a {kind}, which scvi-tools cannot register. Convert it: "
            f"`{place} = scipy.sparse.{target}({place})`."
        )
    if isinstance(matrix, np.ma.MaskedArray):
        raise TypeError(
            f"`{argument}`: `{place}` is a masked array, of which no one can say what its masked "
            f"counts were. Fill them: `{place} = {place}.filled(0)`."
        )
    if not (sp.issparse(matrix) or is_backed_sparse(matrix) or is_dense(matrix)):
        raise TypeError(
            f"`{argument}`: `{place}` must be a `scipy.sparse.csr_matrix`, a `csc_matrix` or a "
            f"two-dimensional NumPy array, got {kind}. Convert it, for instance "
            f"`{place} = scipy.sparse.csr_matrix({place})`."
        )
    if matrix.dtype.kind not in "biuf":
        raise TypeError(
            f"`{argument}`: `{place}` must hold numbers, got dtype {matrix.dtype}. Convert it: "
            f'`{place} = {place}.astype("float32")`.'
        )


def _summarize_values(matrix: Any) -> _ValueSummary:
    summary = _ValueSummary()
    for block in value_blocks(matrix):
        if block.size > 0:
            summary = _add_block(summary, block)
    return summary


def _add_block(summary: _ValueSummary, block: NDArray[Any]) -> _ValueSummary:
    # NaN and infinity show in the extremes, so that clean blocks need no mask for them.
    low, high = float(block.min()), float(block.max())
    n_not_finite = 0
    if not (math.isfinite(low) and math.isfinite(high)):
        n_not_finite = int(np.count_nonzero(~np.isfinite(block)))
    n_fractional = n_half = 0
    example = summary.fractional_example
    if block.dtype.kind == "f":
        is_fractional = np.floor(block) != block
        n_fractional = int(np.count_nonzero(is_fractional))
        if n_fractional > 0:
            fractional = block[is_fractional]
            n_half = int(np.count_nonzero(fractional % 1 == 0.5))
            example = example if summary.n_fractional > 0 else float(fractional[0])
    return _ValueSummary(
        summary.n_nonzero + int(np.count_nonzero(block)),
        summary.n_not_finite + n_not_finite,
        min(summary.minimum, low),
        summary.n_fractional + n_fractional,
        summary.n_half + n_half,
        example,
    )


def _where_counts_are(
    argument: str, modality: str, layer: str | None, adata: AnnData | None
) -> str:
    nowhere_else = f"Store the raw counts in a layer and name it with `{argument}`."
    if adata is None:
        return nowhere_else
    named = [
        name
        for name, matrix in adata.layers.items()
        if name not in (None, layer) and _is_counts_matrix(matrix)
    ]
    if named:
        choices = " or ".join(f'`{argument}="{name}"`' for name in named)
        return f"These layers hold integer counts: pass {choices}."
    raw = adata.raw
    if raw is not None and adata.var_names.isin(raw.var_names).all() and _is_counts_matrix(raw.X):
        place = f'mdata["{modality}"]'
        return (
            f"`{place}.raw` holds integer counts: put them into a layer, "
            f'`{place}.layers["counts"] = {place}.raw[:, {place}.var_names].X`, and pass '
            f'`{argument}="counts"`.'
        )
    return nowhere_else


def _is_counts_matrix(matrix: Any) -> bool:
    try:
        _check_matrix_type(matrix, "", "")
    except TypeError:
        return False
    return _summarize_values(matrix).is_counts
