"""A seeded generator of paired RNA and ATAC counts whose types, markers and links are known."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import sparse

from scmvp_scvi._mudata import mudata_of
from scmvp_scvi._validate import check_in, check_integer_at_least, midpoints

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

# One child generator per quantity, so that an option of one leaves the draws of the others alone.
# The order fixes the bytes of every seed: append, never insert.
_STREAMS = (
    "type_sizes",
    "type_order",
    "batches",
    "confounding",
    "missing",
    "rna_depth",
    "atac_depth",
    "rna_baseline",
    "atac_baseline",
    "rna_markers",
    "atac_markers",
    "rna_batch",
    "atac_batch",
    "peak_positions",
    "gene_positions",
    "links",
    "gc",
    "activity",
    "rna_noise",
    "rna_counts",
    "linked_counts",
    "fragment_totals",
    "fragments",
)

# Expected counts per feature of a median cell, which set the sparsity whatever the size.
_COUNTS_PER_GENE = 0.28
_FRAGMENTS_PER_PEAK = 0.025
# Standard deviations of natural logarithms.
_DEPTH_SPREAD = 0.35
_GENE_SPREAD = 1.0
_PEAK_SPREAD = 1.0
# Every type keeps this share of what equal sizes would give it.
_TYPE_SIZE_FLOOR = 0.3
# Share of the markers that a whole lineage has in common.
_LINEAGE_SHARE = 1 / 3
# A genome of 200,000 peaks at this spacing is as long as the human one.
_MEAN_GAP = 15_000
_PEAK_WIDTHS = (450, 550)
_N_CHROMOSOMES = 5
_LINK_EFFECTS = (0.6, 1.2)
_GC_MEAN, _GC_SPREAD, _GC_CORRELATION = 0.47, 0.07, 0.5
# Entries of the largest array that is held for one block of cells.
_BLOCK_ENTRIES = 4_000_000


class _Links(NamedTuple):
    """The planted links, one entry per linked peak."""

    gene_idx: Indices
    peak_idx: Indices
    distance: Indices
    effect: Floats


class _Programme(NamedTuple):
    """What the types and the batches do to the features of one modality."""

    baseline: Floats  # (features,)
    log_fold: Floats  # (types, features)
    batch_effect: Floats  # (batches, features)

    @property
    def type_profile(self) -> Floats:
        """``(types, features)``, share of the depth in each type, without batch."""
        return _to_shares(self.baseline * np.exp(self.log_fold))

    @property
    def profile(self) -> Floats:
        """``(types, batches, features)``, share of the depth in each type and batch."""
        return _to_shares(self.type_profile[:, None] * self.batch_effect)


def synthetic(
    n_cells: int = 1_000,
    n_genes: int = 500,
    n_peaks: int = 2_000,
    n_types: int = 8,
    n_batches: int = 2,
    *,
    n_lineages: int | None = None,
    rna_depth: float | None = None,
    atac_depth: float | None = None,
    rna_dispersion: float = 0.2,
    marker_fraction: float = 0.2,
    rna_marker_strength: float = 2.1,
    atac_marker_strength: float = 1.4,
    linked_fraction: float = 0.8,
    links_per_gene: int = 2,
    link_strength: float = 0.8,
    window: int = 100_000,
    batch_strength: float = 0.2,
    batch_confounding: float = 0.0,
    missing_rna: float = 0.0,
    missing_atac: float = 0.0,
    seed: int = 0,
) -> MuData:
    r"""Draw paired RNA and ATAC counts of cells whose types, markers and links are planted.

    Parameters
    ----------
    n_cells
        Number of cells.
    n_genes
        Number of genes.
    n_peaks
        Number of peaks.
    n_types
        Number of cell types. Their sizes are unequal: a Dirichlet draw over a floor.
    n_batches
        Number of batches.
    n_lineages
        Number of lineages, groups of types that share markers; by default one per three types.
    rna_depth
        Median over cells of the expected number of RNA counts, were all batches alike; by default
        0.28 per gene, which leaves 10 to 20 % of the entries non-zero.
    atac_depth
        Median over cells of the expected number of ATAC fragments, were all batches alike; by
        default 0.025 per peak, which leaves 1 to 3 % of the entries non-zero.
    rna_dispersion
        Variance of the gamma factor of mean one on each RNA mean; 0 gives Poisson counts.
    marker_fraction
        Share of the genes, and of the peaks without a link, that mark a type or a lineage.
    rna_marker_strength
        Mean log fold change, in nats, of a marker gene in the types that it marks. Each marker
        has its own, between half and one and a half times this.
    atac_marker_strength
        The same of a marker peak without a link; a linked peak follows its gene.
    linked_fraction
        Share of the marker genes that have linked peaks.
    links_per_gene
        Number of peaks linked to such a gene: one always, the others as far as its window holds
        free peaks, since a peak is linked to one gene at most.
    link_strength
        Standard deviation, in nats, of the activity of a linked gene among cells of one type,
        which its peaks follow. At 0 a link shows between types only.
    window
        Largest distance in base pairs from a TSS to the midpoint of a linked peak. The peaks of
        the window that are not linked to the gene are the decoys.
    batch_strength
        Standard deviation, in nats, of the effect of a batch on each gene, on each peak and on
        the two depths; the effects on a feature or a depth cancel over the batches.
    batch_confounding
        Probability that the batch of a cell is fixed by its type rather than independent of it.
    missing_rna
        Share of the cells whose RNA is empty.
    missing_atac
        Share of the cells whose ATAC is empty; never the same cells as those without RNA.
    seed
        Seed of all draws. Each quantity has a generator of its own.

    Returns
    -------
    Modalities ``"rna"`` and ``"atac"``, whose ``X`` are raw counts, CSR of float32, with

    - ``.obs``: ``cell_type``, ``lineage``, ``batch``; ``rna_depth`` and ``atac_depth``, the
      expected number of counts :math:`d_i` (0 where the modality is missing); ``rna_missing``
      and ``atac_missing``.
    - ``["rna"].var``: ``chrom``, ``tss`` (0-based), ``strand``; ``marker_of``, a type, a lineage
      or ``""``; ``baseline``, the share of the gene before any marker effect.
    - ``["atac"].var``: ``chrom``, ``start``, ``end`` (0-based, end excluded), which are also the
      name ``chrom:start-end``; ``gc``, the GC content, correlated with ``baseline``;
      ``marker_of`` and ``baseline``. A linked peak marks what its gene marks.
    - ``[...].varm["type_profile"]``: ``(features, types)``, the profile :math:`p_{tf}` of each
      type without batch, summing to one over features, types as ordered in ``cell_type``.
    - ``[...].varm["batch_effect"]``: ``(features, batches)``, the factors :math:`b_{kf}`.
    - ``.uns["truth"]["links"]``: a table of ``gene``, ``peak``, ``distance`` (from the TSS to the
      midpoint of the peak, in base pairs, positive downstream) and ``effect`` :math:`w`.

    Raises
    ------
    TypeError
        If an argument is not a number, or the seed or a number of things not an integer.
    ValueError
        If an argument is out of range, or the arguments contradict each other.

    Notes
    -----
    Cell :math:`i` of type :math:`t` and batch :math:`k` has counts, independent given :math:`m`,

    .. math::
        x_{if} \sim \text{Poisson}\Big(d_i \, m_{if} \,
        \frac{p_{tf} b_{kf}}{\sum_{f'} p_{tf'} b_{kf'}}\Big),

    in both modalities, where :math:`m_{if}` has mean one, so that the mean given type, batch and
    depth is :math:`d_i` times the fraction, exactly. With :math:`a_{ig}` a normal draw of
    standard deviation ``link_strength`` per cell and linked gene, :math:`m` is
    :math:`\exp(a_{ig} - \text{Var}[a_{ig}] / 2)` on that gene and
    :math:`\exp(w a_{ig} - \text{Var}[w a_{ig}] / 2)` on a peak linked to it with effect
    :math:`w`; on every gene it has a gamma factor besides, of variance ``rna_dispersion``. The
    type acts on a linked peak the same way, :math:`w` times its log fold change on the gene.

    The peaks without a link have :math:`m = 1`. Their counts are drawn as one Poisson total per
    cell, each fragment then falling on a peak with probability proportional to its mean, which
    gives the same law as independent counts. Nothing of size cells times peaks is ever dense.

    Examples
    --------
    >>> from scmvp_scvi.datasets import synthetic
    >>> mdata = synthetic(n_cells=200, n_types=4)
    >>> mdata["atac"].shape
    (200, 2000)
    """
    _check_arguments(locals())
    n_lineages = -(-n_types // 3) if n_lineages is None else n_lineages
    rna_depth = _COUNTS_PER_GENE * n_genes if rna_depth is None else rna_depth
    atac_depth = _FRAGMENTS_PER_PEAK * n_peaks if atac_depth is None else atac_depth
    n_linked_genes = _n_linked_genes(n_genes, marker_fraction, linked_fraction)

    rngs = _spawn(seed)
    lineage_of_type = np.arange(n_types) * n_lineages // n_types
    obs = _plant_cells(rngs, n_cells, lineage_of_type, n_batches, batch_confounding)
    batch_idx = obs["batch"].cat.codes.to_numpy()
    for name, median in (("rna_depth", rna_depth), ("atac_depth", atac_depth)):
        spread = np.exp(_DEPTH_SPREAD * rngs[name].standard_normal(n_cells))
        batch_factor = _draw_batch_effect(rngs[name], n_batches, 1, batch_strength)
        obs[name] = median * spread * batch_factor[batch_idx, 0]

    gene_owner, gene_log_fold = _plant_markers(
        rngs["rna_markers"],
        np.arange(n_genes),
        n_genes,
        marker_fraction,
        rna_marker_strength,
        lineage_of_type,
    )
    markers = np.flatnonzero(gene_owner >= 0)
    linked_genes = np.sort(rngs["links"].permutation(markers)[:n_linked_genes])
    peaks = _place_peaks(rngs["peak_positions"], n_peaks, window)
    genes, anchors = _place_genes(rngs["gene_positions"], n_genes, linked_genes, peaks, window)
    links = _plant_links(
        rngs["links"], linked_genes, anchors, genes, peaks, links_per_gene, window
    )

    peak_owner, peak_log_fold = _plant_markers(
        rngs["atac_markers"],
        np.setdiff1d(np.arange(n_peaks), links.peak_idx),
        n_peaks,
        marker_fraction,
        atac_marker_strength,
        lineage_of_type,
    )
    peak_owner[links.peak_idx] = gene_owner[links.gene_idx]
    peak_log_fold[:, links.peak_idx] = links.effect * gene_log_fold[:, links.gene_idx]

    rna = _Programme(
        _to_shares(np.exp(_GENE_SPREAD * rngs["rna_baseline"].standard_normal(n_genes))),
        gene_log_fold,
        _draw_batch_effect(rngs["rna_batch"], n_batches, n_genes, batch_strength),
    )
    openness = rngs["atac_baseline"].standard_normal(n_peaks)
    atac = _Programme(
        _to_shares(np.exp(_PEAK_SPREAD * openness)),
        peak_log_fold,
        _draw_batch_effect(rngs["atac_batch"], n_batches, n_peaks, batch_strength),
    )
    peaks["gc"] = _draw_gc(rngs["gc"], openness)
    rna_counts, atac_counts = _draw_counts(
        rngs, obs, rna.profile, atac.profile, links, rna_dispersion, link_strength
    )

    rna_missing, atac_missing = _draw_missing(rngs["missing"], n_cells, missing_rna, missing_atac)
    obs = obs.assign(
        rna_depth=obs["rna_depth"].where(~rna_missing, 0.0),
        atac_depth=obs["atac_depth"].where(~atac_missing, 0.0),
        rna_missing=rna_missing,
        atac_missing=atac_missing,
    )
    groups = [*obs["cell_type"].cat.categories, *obs["lineage"].cat.categories]
    genes["marker_of"] = _name_owners(gene_owner, groups)
    peaks["marker_of"] = _name_owners(peak_owner, groups)
    modalities = {
        "rna": _to_anndata(_empty_rows(rna_counts, rna_missing), obs.index, genes, rna),
        "atac": _to_anndata(_empty_rows(atac_counts, atac_missing), obs.index, peaks, atac),
    }
    mdata = mudata_of(modalities, obs)
    mdata.uns["truth"] = {
        "links": pd.DataFrame(
            {
                "gene": genes.index[links.gene_idx],
                "peak": peaks.index[links.peak_idx],
                "distance": links.distance,
                "effect": links.effect,
            }
        )
    }
    return mdata


def _n_linked_genes(n_genes: int, marker_fraction: float, linked_fraction: float) -> int:
    return round(linked_fraction * round(marker_fraction * n_genes))


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of `synthetic`."""
    has_default = ("n_lineages", "rna_depth", "atac_depth")
    given = {k: v for k, v in arguments.items() if v is not None or k not in has_default}
    numbers = ("n_cells", "n_genes", "n_peaks", "n_types", "n_lineages", "n_batches")
    strengths = ("rna_marker_strength", "atac_marker_strength", "link_strength", "batch_strength")
    magnitudes = ("rna_depth", "atac_depth", "rna_dispersion", *strengths)
    fractions = ("marker_fraction", "linked_fraction")
    for name, value in given.items():
        if name in (*numbers, "links_per_gene", "window"):
            check_integer_at_least(value, 1, name=name)
        elif name == "seed":
            check_integer_at_least(value, 0, name=name)
        elif name in magnitudes:
            check_in(value, "[0, inf)", name=name)
        elif name in (*fractions, "batch_confounding", "missing_rna", "missing_atac"):
            check_in(value, "[0, 1]", name=name)
    for name, most in (
        ("n_types", "n_cells"),
        ("n_batches", "n_cells"),
        ("n_lineages", "n_types"),
    ):
        if name in given and given[name] > given[most]:
            raise ValueError(
                f"`{name}` must be at most `{most}`, {given[most]}, got {given[name]}."
            )
    n_linked_genes = _n_linked_genes(*(given[name] for name in ("n_genes", *fractions)))
    if n_linked_genes > given["n_peaks"]:
        raise ValueError(
            f"`n_peaks` must be at least the number of linked genes, {n_linked_genes}, got "
            f"{given['n_peaks']}. Raise `n_peaks`, or lower `linked_fraction` or "
            "`marker_fraction`."
        )
    missing_rna, missing_atac = given["missing_rna"], given["missing_atac"]
    if missing_rna + missing_atac > 1:
        raise ValueError(
            "`missing_rna` + `missing_atac` must be at most 1, as no cell lacks both, got "
            f"{missing_rna} + {missing_atac}."
        )


def _spawn(seed: int) -> dict[str, Generator]:
    """One independent generator for each of the streams."""
    children = np.random.SeedSequence(seed).spawn(len(_STREAMS))
    return {
        name: np.random.default_rng(child) for name, child in zip(_STREAMS, children, strict=True)
    }


def _to_shares(weights: Floats) -> Floats:
    """Rescale the last axis to sum to one."""
    total: Floats = weights.sum(axis=-1, keepdims=True)
    return weights / total


def _plant_cells(
    rngs: Mapping[str, Generator],
    n_cells: int,
    lineage_of_type: Indices,
    n_batches: int,
    confounding: float,
) -> pd.DataFrame:
    """Type, lineage and batch of each cell; no type is empty."""
    n_types = len(lineage_of_type)
    shares = _TYPE_SIZE_FLOOR / n_types + (1 - _TYPE_SIZE_FLOOR) * rngs["type_sizes"].dirichlet(
        np.full(n_types, 2.0)
    )
    sizes = 1 + rngs["type_sizes"].multinomial(n_cells - n_types, shares)
    type_idx = rngs["type_order"].permutation(np.repeat(np.arange(n_types), sizes))
    batch_idx = rngs["batches"].permutation(n_cells) % n_batches
    is_confounded = rngs["confounding"].random(n_cells) < confounding
    batch_idx = np.where(is_confounded, type_idx % n_batches, batch_idx)
    n_lineages = int(lineage_of_type[-1]) + 1
    return pd.DataFrame(
        {
            "cell_type": _to_categorical(type_idx, "type", n_types),
            "lineage": _to_categorical(lineage_of_type[type_idx], "lineage", n_lineages),
            "batch": _to_categorical(batch_idx, "batch", n_batches),
        },
        index=pd.Index([f"cell_{i}" for i in range(n_cells)]),
    )


def _to_categorical(codes: Indices, prefix: str, n_categories: int) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, [f"{prefix}_{i}" for i in range(n_categories)])


def _draw_batch_effect(rng: Generator, n_batches: int, n_features: int, strength: float) -> Floats:
    """``(batches, features)``, factors whose logarithms sum to zero over the batches."""
    log_effect = rng.standard_normal((n_batches, n_features))
    if n_batches > 1:
        # Centring takes one degree of freedom, and the promised variance with it.
        log_effect *= np.sqrt(n_batches / (n_batches - 1))
    effect: Floats = np.exp(strength * (log_effect - log_effect.mean(axis=0)))
    return effect


def _plant_markers(
    rng: Generator,
    candidates: Indices,
    n_features: int,
    fraction: float,
    strength: float,
    lineage_of_type: Indices,
) -> tuple[Indices, Floats]:
    """Choose markers among the candidates and deal them out to types and lineages.

    Returns
    -------
    The owner of each feature, ``(features,)``, a type or the number of types plus a lineage or
    -1; and the log fold changes, ``(types, features)``, in nats.
    """
    n_types, n_lineages = len(lineage_of_type), int(lineage_of_type[-1]) + 1
    members = np.vstack([np.eye(n_types), lineage_of_type == np.arange(n_lineages)[:, None]])
    n_markers = round(fraction * len(candidates))
    # A lone lineage holds every cell: its markers would mark nothing.
    n_lineage_markers = round(_LINEAGE_SHARE * n_markers) if n_lineages > 1 else 0
    owners = np.concatenate(
        [
            np.arange(n_markers - n_lineage_markers) % n_types,
            n_types + np.arange(n_lineage_markers) % n_lineages,
        ]
    )
    markers = rng.permutation(candidates)[:n_markers]
    owner = np.full(n_features, -1)
    owner[markers] = owners
    log_fold = np.zeros((n_types, n_features))
    log_fold[:, markers] = members[owners].T * strength * rng.uniform(0.5, 1.5, n_markers)
    return owner, log_fold


def _name_owners(owner: Indices, groups: list[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(owner + 1, ["", *groups])


def _place_peaks(rng: Generator, n_peaks: int, window: int) -> pd.DataFrame:
    """Positions of the peaks, sorted and disjoint, named ``chrom:start-end``."""
    chrom_idx = np.arange(n_peaks) * _N_CHROMOSOMES // n_peaks
    width = rng.integers(*_PEAK_WIDTHS, size=n_peaks, endpoint=True)
    gap = 1 + rng.exponential(_MEAN_GAP, n_peaks).astype(np.int64)
    end = np.cumsum(gap + width)
    first = np.searchsorted(chrom_idx, chrom_idx)
    # The margin of one window keeps every TSS at a position that exists.
    end += window - (end - gap - width)[first]
    peaks = pd.DataFrame(
        {
            "chrom": _to_chromosomes(chrom_idx),
            "start": end - width,
            "end": end,
        }
    )
    names = peaks["chrom"].astype(str) + ":" + peaks["start"].astype(str)
    return peaks.set_index(pd.Index(names + "-" + peaks["end"].astype(str)))


def _to_chromosomes(chrom_idx: Indices) -> pd.Categorical:
    return pd.Categorical.from_codes(chrom_idx, [f"chr{i + 1}" for i in range(_N_CHROMOSOMES)])


def _place_genes(
    rng: Generator, n_genes: int, linked_genes: Indices, peaks: pd.DataFrame, window: int
) -> tuple[pd.DataFrame, Indices]:
    """Put the TSS of each gene within the window of a peak, its anchor.

    Returns
    -------
    The positions of the genes, and ``(genes,)`` their anchors, of which those of linked genes are
    distinct.
    """
    anchors = rng.integers(len(peaks), size=n_genes)
    anchors[linked_genes] = rng.permutation(len(peaks))[: len(linked_genes)]
    offset = rng.integers(-window, window, size=n_genes, endpoint=True)
    genes = pd.DataFrame(
        {
            "chrom": peaks["chrom"].array[anchors],
            "tss": midpoints(peaks)[anchors] + offset,
            "strand": pd.Categorical.from_codes(rng.integers(2, size=n_genes), ["+", "-"]),
        },
        index=pd.Index([f"gene_{g}" for g in range(n_genes)]),
    )
    return genes, anchors


def _plant_links(
    rng: Generator,
    linked_genes: Indices,
    anchors: Indices,
    genes: pd.DataFrame,
    peaks: pd.DataFrame,
    links_per_gene: int,
    window: int,
) -> _Links:
    """Link each gene to its anchor and to free peaks of its window."""
    middle = midpoints(peaks)
    # Chromosomes laid end to end, further apart than a window, are searched as one sorted array.
    stride = int(middle.max()) + 2 * window + 1
    peak_position = peaks["chrom"].cat.codes.to_numpy().astype(np.int64) * stride + middle
    tss = genes["tss"].to_numpy()
    gene_position = genes["chrom"].cat.codes.to_numpy().astype(np.int64) * stride + tss
    first = np.searchsorted(peak_position, gene_position - window, side="left")
    last = np.searchsorted(peak_position, gene_position + window, side="right")

    is_free = np.ones(len(peaks), dtype=bool)
    is_free[anchors[linked_genes]] = False
    gene_idx, peak_idx = [linked_genes], [anchors[linked_genes]]
    for gene in linked_genes:
        free = first[gene] + np.flatnonzero(is_free[first[gene] : last[gene]])
        others = rng.permutation(free)[: links_per_gene - 1]
        is_free[others] = False
        gene_idx.append(np.full(len(others), gene))
        peak_idx.append(others)
    gene_of, peak_of = np.concatenate(gene_idx), np.concatenate(peak_idx)
    order = np.lexsort([peak_of, gene_of])
    gene_of, peak_of = gene_of[order], peak_of[order]
    downstream = np.where(genes["strand"].array[gene_of] == "+", 1, -1)
    return _Links(
        gene_of,
        peak_of,
        (middle[peak_of] - tss[gene_of]) * downstream,
        rng.uniform(*_LINK_EFFECTS, size=len(gene_of)),
    )


def _draw_gc(rng: Generator, openness: Floats) -> Floats:
    """``(peaks,)``, GC content correlated with ``openness``, a standard normal score."""
    noise = rng.standard_normal(len(openness))
    score = _GC_CORRELATION * openness + np.sqrt(1 - _GC_CORRELATION**2) * noise
    gc: Floats = np.clip(_GC_MEAN + _GC_SPREAD * score, 0.2, 0.8)
    return gc


def _draw_counts(
    rngs: Mapping[str, Generator],
    obs: pd.DataFrame,
    rna_profile: Floats,
    atac_profile: Floats,
    links: _Links,
    dispersion: float,
    link_strength: float,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Draw both modalities, a block of cells at a time; the blocks do not change the draws.

    Returns
    -------
    The counts of RNA, ``(cells, genes)``, and of ATAC, ``(cells, peaks)``.
    """
    type_idx = obs["cell_type"].cat.codes.to_numpy()
    batch_idx = obs["batch"].cat.codes.to_numpy()
    n_peaks = atac_profile.shape[-1]
    linked_genes, column_of_gene = np.unique(links.gene_idx, return_inverse=True)
    unlinked = np.setdiff1d(np.arange(n_peaks), links.peak_idx)
    # With a leading zero, peak j of the unlinked ones owns the interval from entry j to j + 1.
    cumulative = np.insert(np.cumsum(atac_profile[..., unlinked], axis=-1), 0, 0.0, axis=-1)

    widest = max(rna_profile.shape[-1], len(links.peak_idx), int(obs["atac_depth"].mean()))
    block = max(1, _BLOCK_ENTRIES // widest)
    rna_blocks, atac_blocks = [], []
    for start in range(0, len(obs), block):
        cells = slice(start, start + block)
        types, batches = type_idx[cells], batch_idx[cells]
        rna_depth = obs["rna_depth"].to_numpy()[cells, None]
        atac_depth = obs["atac_depth"].to_numpy()[cells, None]
        activity = rngs["activity"].standard_normal((len(types), len(linked_genes)))
        activity *= link_strength

        rna_mean = rna_depth * rna_profile[types, batches]
        rna_mean[:, linked_genes] *= np.exp(activity - link_strength**2 / 2)
        if dispersion > 0:
            rna_mean *= rngs["rna_noise"].gamma(1 / dispersion, dispersion, rna_mean.shape)
        rna_blocks.append(_to_csr(rngs["rna_counts"].poisson(rna_mean)))

        linked_mean = atac_depth * atac_profile[types[:, None], batches[:, None], links.peak_idx]
        linked_mean *= np.exp(
            links.effect * activity[:, column_of_gene] - (links.effect * link_strength) ** 2 / 2
        )
        linked = _to_csr(rngs["linked_counts"].poisson(linked_mean))
        fragments = _draw_fragments(rngs, atac_depth[:, 0], types, batches, cumulative)
        atac_blocks.append(
            _to_columns(linked, links.peak_idx, n_peaks)
            + _to_columns(fragments, unlinked, n_peaks)
        )
    return sparse.vstack(rna_blocks, format="csr"), sparse.vstack(atac_blocks, format="csr")


def _draw_fragments(
    rngs: Mapping[str, Generator],
    depth: Floats,
    types: Indices,
    batches: Indices,
    cumulative: Floats,
) -> sparse.csr_matrix:
    """``(cells, unlinked peaks)``, independent Poisson counts, drawn one fragment at a time."""
    totals = rngs["fragment_totals"].poisson(depth * cumulative[types, batches, -1])
    level = rngs["fragments"].random(totals.sum())
    type_of, batch_of = np.repeat(types, totals), np.repeat(batches, totals)
    peak = np.empty(len(level), dtype=np.int64)
    for t, k in set(zip(types.tolist(), batches.tolist(), strict=True)):
        here = (type_of == t) & (batch_of == k)
        edges = cumulative[t, k]
        peak[here] = np.searchsorted(edges, level[here] * edges[-1], side="right") - 1
    offsets = np.concatenate([[0], np.cumsum(totals)])
    counts = sparse.csr_matrix(
        (np.ones(len(peak), dtype=np.float32), peak, offsets),
        shape=(len(types), cumulative.shape[-1] - 1),
    )
    counts.sum_duplicates()
    return counts


def _to_csr(counts: Indices) -> sparse.csr_matrix:
    return sparse.csr_matrix(counts.astype(np.float32))


def _to_columns(counts: sparse.csr_matrix, columns: Indices, n_columns: int) -> sparse.csr_matrix:
    """Move column ``j`` to ``columns[j]`` of a matrix of ``n_columns``."""
    moved = sparse.csr_matrix(
        (counts.data, columns[counts.indices], counts.indptr), shape=(counts.shape[0], n_columns)
    )
    moved.sort_indices()
    return moved


def _draw_missing(
    rng: Generator, n_cells: int, missing_rna: float, missing_atac: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells lack RNA and which lack ATAC, ``(cells,)`` each; none lacks both."""
    order = rng.permutation(n_cells)
    n_rna_missing = round(missing_rna * n_cells)
    # rounding both shares up must not empty a cell twice
    first_without_atac = max(n_rna_missing, n_cells - round(missing_atac * n_cells))
    return order < n_rna_missing, order >= first_without_atac


def _empty_rows(counts: sparse.csr_matrix, is_empty: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Remove the counts of some cells after the draw, so that the other cells keep theirs."""
    if is_empty.any():
        counts.data[np.repeat(is_empty, np.diff(counts.indptr))] = 0
        counts.eliminate_zeros()
    return counts


def _to_anndata(
    counts: sparse.csr_matrix, cells: pd.Index, features: pd.DataFrame, programme: _Programme
) -> AnnData:
    return AnnData(
        counts,
        obs=pd.DataFrame(index=cells),
        var=features.assign(baseline=programme.baseline),
        varm={
            "type_profile": programme.type_profile.T.astype(np.float32),
            "batch_effect": programme.batch_effect.T.astype(np.float32),
        },
    )
