"""10x Multiome: the feature-barcode matrix of Cell Ranger ARC, as HDF5 or as a folder."""

import warnings
import zlib
from functools import partial
from pathlib import Path

import pandas as pd
from mudata import MuData
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from scmvp_scvi._validate import read_peaks, shown, warn_user
from scmvp_scvi.datasets._counts import to_modality
from scmvp_scvi.datasets._features import name_genes, name_peaks
from scmvp_scvi.datasets._pairing import pair
from scmvp_scvi.datasets._tenx_files import (
    BARCODES_FILE,
    FEATURES_FILE,
    INTERVAL,
    MATRIX_FILE,
    check_folder,
    check_h5,
    find_matrix,
    no_matrix_market,
)

# The well stands behind the barcode: `AAACAGCCAAACAACA-1`.
_WELL = r"-(\d+)$"
_READ = ("rna", "atac")  # of the modalities, as muon calls them


def read_10x_multiome(path: str | Path, *, progress: bool = True) -> MuData:
    """Read the feature-barcode matrix of a 10x Multiome experiment.

    Parameters
    ----------
    path
        The file ``filtered_feature_bc_matrix.h5``, a folder that holds one such file, or the
        folder ``filtered_feature_bc_matrix`` with ``matrix.mtx.gz``, ``features.tsv.gz`` and
        ``barcodes.tsv.gz``.
    progress
        Whether to show what goes on: a progress bar of the check of an ``.h5`` file, and the time
        that the reading takes.

    Returns
    -------
    Modalities ``"rna"`` and ``"atac"``, the same cells in the same order, whose ``X`` are raw
    counts, CSR of float32, with

    - ``.obs``: ``batch``, the number of the well that the names of the cells end with.
    - ``["rna"].var``, named by the symbol, or by ``symbol_id`` where genes share one:
      ``gene_id``, ``gene_name``, and ``genome``, human or mouse. Where the file says where genes
      begin, also ``interval``, as muon names it, from the first to the last TSS of the transcripts
      of a gene; and read from it ``chrom`` and ``tss``, the middle, 0-based. Strands it has not.
    - ``["atac"].var``, named ``chrom:start-end``: ``chrom``, ``start``, ``end``, 0-based; and
      ``genome``, if several share the file.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is another kind of file, parts of it are missing or of different lengths, a modality
        is missing, or the values are not counts.

    Warns
    -----
    UserWarning
        If there are features of other types, such as antibodies, which are left out.

    Notes
    -----
    The file is read by :func:`muon.read_10x_h5` or :func:`muon.read_10x_mtx`, which take some
    damaged files for whole ones: its parts are compared with each other first.
    """
    path = find_matrix(Path(path).expanduser())
    with warnings.catch_warnings():
        # muon warns at its import, mudata at every construction.
        warnings.simplefilter("ignore", FutureWarning)
        # Shared symbols are told apart below.
        warnings.filterwarnings("ignore", message="var(iable)?[ _]names are not unique")
        mdata = _read(path, progress=progress)
    missing = [name for name in _READ if name not in mdata.mod]
    if missing:
        raise ValueError(
            f"`{path}` must hold the feature types `Gene Expression` and `Peaks`, read as `rna` "
            f"and `atac`, but {shown(missing)} is missing: it has {shown(mdata.mod)}. Take the "
            "matrix of Cell Ranger ARC, not that of one of the modalities."
        )
    _warn_about_other_types(mdata, path)
    counts_path, features_path, cells_path = (
        path / name if path.is_dir() else path
        for name in (MATRIX_FILE, FEATURES_FILE, BARCODES_FILE)
    )
    rna, atac = mdata["rna"], mdata["atac"]
    symbols, ids = pd.Series(rna.var_names), rna.var["gene_ids"].reset_index(drop=True)
    genes = name_genes(symbols, ids=ids, path=features_path)
    if INTERVAL in rna.var:
        genes[[INTERVAL, "chrom", "tss"]] = _place(rna.var[INTERVAL], genes.index)
    peaks = name_peaks(pd.Series(atac.var_names), path=features_path)
    batch = rna.obs_names.to_series().str.extract(_WELL, expand=False)
    return pair(
        to_modality(rna.X.T, rna.obs_names, genes, path=counts_path, cells_path=cells_path),
        to_modality(atac.X.T, atac.obs_names, peaks, path=counts_path, cells_path=cells_path),
        None if batch.isna().any() else pd.DataFrame({"batch": batch}),
    )


def _warn_about_other_types(mdata: MuData, path: Path) -> None:
    others = [adata.var["feature_types"] for key, adata in mdata.mod.items() if key not in _READ]
    if others:
        n_of_type = pd.concat(others).value_counts(sort=False)
        named = ", ".join(f"{n} of `{name}`" for name, n in n_of_type.items() if n > 0)
        reader = "read_10x_mtx" if path.is_dir() else "read_10x_h5"
        warn_user(
            "Features of types other than `Gene Expression` and `Peaks` are left out: "
            f'{named}. To have them, read the file with `muon.{reader}("{path}")`.',
        )


def _place(intervals: pd.Series, names: pd.Index) -> pd.DataFrame:
    """Chromosome and middle of each interval; missing where there is none, ``NA`` in the file."""
    ends = read_peaks(intervals).table
    middle = (ends["start"] + ends["end"] - 1) // 2
    # a category may be missing, a string in a file of AnnData may not
    columns = {INTERVAL: intervals, "chrom": ends["chrom"].astype("category"), "tss": middle}
    return pd.DataFrame(columns).set_axis(names)


def _read(path: Path, *, progress: bool) -> MuData:
    # Here, as its import takes longer than that of the package.
    import muon

    features = None
    if path.is_dir():
        features = check_folder(path)
        read = partial(muon.read_10x_mtx, path, extended=False, make_unique=False)
    else:
        check_h5(path, progress=progress)
        read = partial(muon.read_10x_h5, path, extended=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=not progress) as bar:
        # How far it is, muon does not tell.
        bar.add_task(f"Reading {path.name}", total=None)
        try:
            mdata = read()
        except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
            if not path.is_dir():
                raise
            # The tables were read and found to fit: what is left is the entries of the matrix.
            raise ValueError(no_matrix_market(path / MATRIX_FILE, error)) from error
    if features is not None and "rna" in mdata.mod:
        # pandas, by which the tables were read, takes genes such as `nan` for missing ones
        genes = features[features["feature_type"] == "Gene Expression"]
        mdata["rna"].var_names = genes["name"].to_numpy()
        mdata["rna"].var["gene_ids"] = genes["id"].to_numpy()
        if INTERVAL in genes:
            mdata["rna"].var[INTERVAL] = genes[INTERVAL].to_numpy()
    return mdata
