"""The data sets of the benchmark, each read or drawn in the same form.

Modalities ``rna`` and ``atac`` hold raw counts of the same cells, ``.obs["cell_type"]`` a label of
each. ``.obs["batch"]`` is there only where batches differ by more than chance, and then methods
that can correct for batches do.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mudata
import numpy as np
from mudata import MuData
from scipy import sparse

from scmvp_scvi import datasets, pp
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._neighbors import preserved_torch_threads

Counts = dict[str, sparse.csr_matrix]
FOLDER = Path(__file__).parents[2] / ".." / "shared" / "data"


class DataSet(NamedTuple):
    """How to get a data set, and what it is in a line of the report.

    Where the model stands is not asked of a control, whose batches no method should correct for.
    """

    load: Callable[[], MuData]
    caption: str
    is_generated: bool = False
    is_control: bool = False
    has_batches: bool = False


def build(counts: Counts, cells: MuData) -> MuData:
    """Put counts into a MuData with the cells and features of another and nothing else of it."""
    parts = {}
    for modality, values in counts.items():
        parts[modality] = mudata.AnnData(
            values, obs=cells[modality].obs[[]].copy(), var=cells[modality].var[[]].copy()
        )
    with without_pulling():
        mdata = MuData(parts)
    mdata.obs = cells.obs.copy()
    return mdata


def counts_of(mdata: MuData) -> Counts:
    """Counts of both modalities."""
    return {modality: mdata[modality].X for modality in ("rna", "atac")}


def subset(mdata: MuData, rows: np.ndarray) -> MuData:
    """Return a copy of some cells."""
    counts = {modality: values[rows] for modality, values in counts_of(mdata).items()}
    with without_pulling():
        return build(counts, mdata[rows])


def without(mdata: MuData, modality: str) -> MuData:
    """Return the cells with no counts in a modality, so that none can be seen by mistake."""
    counts = counts_of(mdata)
    unseen = sparse.csr_matrix(counts[modality].shape, dtype=np.float32)
    return build({**counts, modality: unseen}, mdata)


def read(
    file: str,
    unassigned: str | None = None,
    n_cells: int | None = None,
    has_batches: bool = False,
    has_reads: bool = False,
) -> MuData:
    """Read the cells with a label from a file in the folder that ``SCMVP_DATA`` names.

    Parameters
    ----------
    file
        Name of the file.
    unassigned
        Label of cells without a type.
    n_cells
        Draw so many of the cells, the same whatever the seed of a run.
    has_batches
        Whether methods shall correct for ``.obs["batch"]``.
    has_reads
        Whether ATAC counts are reads, two for each fragment, from which fragments are estimated:
        halves of the reads of a fragment would tell of one another.
    """
    path = Path(os.environ.get("SCMVP_DATA", FOLDER)) / file
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: set SCMVP_DATA to the folder of the data.")
    with warnings.catch_warnings(), without_pulling():
        warnings.simplefilter("ignore", FutureWarning)
        mdata = mudata.read_h5mu(path)
    mdata.obs = mdata.obs[["cell_type", "batch"] if has_batches else ["cell_type"]]
    mdata.obs["cell_type"] = mdata.obs["cell_type"].astype(str)
    rows = np.flatnonzero(mdata.obs["cell_type"] != unassigned)
    if n_cells is not None:
        rows = rows[np.sort(np.random.default_rng(0).permutation(len(rows))[:n_cells])]
    mdata = subset(mdata, rows)
    if has_reads:
        fragments = pp.reads_to_fragments(mdata)["atac"].layers["fragments"]
        mdata = build({**counts_of(mdata), "atac": fragments}, mdata)
    return mdata


def in_batches_of_other_shares(mdata: MuData) -> MuData:
    """Put cells into two batches by chance, which is another for each type and all that differs.

    Parameters
    ----------
    mdata
        Cells without batches.
    """
    rng = np.random.default_rng(0)
    types, codes = np.unique(mdata.obs["cell_type"], return_inverse=True)
    is_first = rng.uniform(size=mdata.n_obs) < rng.uniform(size=len(types))[codes]
    mdata.obs["batch"] = np.where(is_first, "first", "second")
    return mdata


def generate(n_batches: int = 1, **options: float) -> MuData:
    """Draw cells with planted types, by the options of `datasets.synthetic`."""
    with preserved_torch_threads():
        mdata = datasets.synthetic(n_batches=n_batches, **options)
    mdata.obs = mdata.obs[["cell_type", "batch"] if n_batches > 1 else ["cell_type"]].astype(str)
    return subset(mdata, np.arange(mdata.n_obs))


CORTEX = "SNARE-seq of the adult mouse cortex"
DATA: dict[str, DataSet] = {
    "cortex": DataSet(
        partial(read, "snareseq_adult_cortex.h5mu", "Mis"),
        f"{CORTEX}: 9,190 cells of 22 types, 1,677 genes, 25,734 peaks",
    ),
    "cortex-4k": DataSet(
        partial(read, "snareseq_adult_cortex.h5mu", "Mis", n_cells=4_000),
        f"{CORTEX}: 4,000 of its cells, the same for all seeds, and all features",
    ),
    "cortex-4k-shares": DataSet(
        lambda: in_batches_of_other_shares(DATA["cortex-4k"].load()),
        f"{CORTEX}: the 4,000 cells in two made-up batches that differ in the shares of the types "
        "alone",
        is_control=True,
        has_batches=True,
    ),
    "bmmc": DataSet(
        partial(read, "neurips_bmmc_starter.h5mu", has_batches=True, has_reads=True),
        "Multiome of bone marrow: 500 cells of 21 types from 2 donors, 600 genes, 600 peaks",
        has_batches=True,
    ),
    "kidney": DataSet(
        partial(read, "scicar_kidney_sample.h5mu", "nan", has_reads=True),
        "sci-CAR of the mouse kidney: 441 cells of 14 types, 1,482 genes, 1,499 peaks",
    ),
    **{
        f"generated-{n_types}{suffix}": DataSet(
            partial(
                generate,
                n_cells=1_500,
                n_genes=500,
                n_peaks=2_000,
                n_types=n_types,
                rna_depth=140 * depth,
                atac_depth=50 * depth,
            ),
            f"Generated: 1,500 cells of {n_types} types, 500 genes, 2,000 peaks, median depths "
            f"{140 * depth:g} and {50 * depth:g}",
            is_generated=True,
        )
        for n_types in (5, 15)
        for suffix, depth in (("", 1.0), ("-shallow", 0.25))
    },
    "generated-20-deep": DataSet(
        partial(
            generate,
            n_cells=2_000,
            n_genes=1_000,
            n_peaks=6_000,
            n_types=20,
            rna_depth=2_500,
            atac_depth=3_000,
            rna_marker_strength=1.5,
            atac_marker_strength=1.0,
        ),
        "Generated, as deep as a multiome of single nuclei, types hard to tell: 2,000 cells of 20 "
        "types, 1,000 genes, 6,000 peaks, median depths 2,500 and 3,000",
        is_generated=True,
    ),
    "generated-12-batches": DataSet(
        partial(
            generate,
            n_batches=3,
            batch_confounding=0.3,
            n_cells=2_000,
            n_genes=500,
            n_peaks=2_000,
            n_types=12,
            rna_depth=280,
            atac_depth=100,
        ),
        "Generated: 2,000 cells of 12 types in 3 batches, which hold other shares of them, 500 "
        "genes, 2,000 peaks, median depths 280 and 100",
        has_batches=True,
        is_generated=True,
    ),
}
