"""10x Multiome: the feature-barcode matrix of Cell Ranger ARC, as HDF5 or as a folder."""

import warnings
import zlib
from pathlib import Path

import h5py
import pandas as pd
from mudata import MuData

from scmvp_scvi._validate import shown
from scmvp_scvi.datasets._counts import to_modality
from scmvp_scvi.datasets._features import name_genes, name_peaks
from scmvp_scvi.datasets._pairing import pair

# The well stands behind the barcode: `AAACAGCCAAACAACA-1`.
_WELL = r"-(\d+)$"


def read_10x_multiome(path: str | Path) -> MuData:
    """Read the feature-barcode matrix of a 10x Multiome experiment.

    Parameters
    ----------
    path
        The file ``filtered_feature_bc_matrix.h5``, a folder that holds one such file, or the
        folder ``filtered_feature_bc_matrix`` with ``matrix.mtx.gz``, ``features.tsv.gz`` and
        ``barcodes.tsv.gz``.

    Returns
    -------
    Modalities ``"rna"`` and ``"atac"``, the same cells in the same order, whose ``X`` are raw
    counts, CSR of float32, with

    - ``.obs``: ``batch``, the number of the well that the names of the cells end with.
    - ``["rna"].var``, named by the symbol, or by ``symbol_id`` where genes share one:
      ``gene_id``, ``gene_name``, and ``genome``, human or mouse.
    - ``["atac"].var``, named ``chrom:start-end``: ``chrom``, ``start``, ``end``, 0-based; and
      ``genome``, if several share the file.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is another kind of file, a modality is missing, or the values are not counts.

    Notes
    -----
    The file is read by :func:`muon.read_10x_h5` or :func:`muon.read_10x_mtx`.
    """
    path = _find_matrix(Path(path))
    with warnings.catch_warnings():
        # muon warns at its import, mudata at every construction.
        warnings.simplefilter("ignore", FutureWarning)
        # Shared symbols are told apart below.
        warnings.filterwarnings("ignore", message="var(iable)?[ _]names are not unique")
        mdata = _read(path)
    missing = [name for name in ("rna", "atac") if name not in mdata.mod]
    if missing:
        raise ValueError(
            f"`{path}` must hold the feature types `Gene Expression` and `Peaks`, read as `rna` "
            f"and `atac`, but {shown(missing)} is missing: it has {shown(mdata.mod)}. Take the "
            "matrix of Cell Ranger ARC, not that of one of the modalities."
        )
    rna, atac = mdata["rna"], mdata["atac"]
    symbols, ids = pd.Series(rna.var_names), rna.var["gene_ids"].reset_index(drop=True)
    genes = name_genes(symbols, ids=ids, path=path)
    peaks = name_peaks(pd.Series(atac.var_names), path=path)
    batch = rna.obs_names.to_series().str.extract(_WELL, expand=False)
    return pair(
        to_modality(rna.X, rna.obs_names, genes, path=path, cells_path=path),
        to_modality(atac.X, atac.obs_names, peaks, path=path, cells_path=path),
        None if batch.isna().any() else pd.DataFrame({"batch": batch}),
    )


def _find_matrix(path: Path) -> Path:
    if not path.is_dir() or any(path.glob("matrix.mtx*")):
        if not path.exists():
            raise FileNotFoundError(
                f"`path` must be an `.h5` file or a folder of Cell Ranger ARC, but `{path}` is "
                "not there."
            )
        return path
    matrices = sorted(path.glob("*.h5"))
    if len(matrices) != 1:
        raise FileNotFoundError(
            f"`{path}` must hold `matrix.mtx.gz` or one `.h5` file, but it has "
            f"{shown(sorted(entry.name for entry in path.iterdir()))}. Pass the path of the file."
        )
    return matrices[0]


def _read(path: Path) -> MuData:
    # Here, as its import takes longer than that of the package.
    import muon

    try:
        if path.is_dir():
            return muon.read_10x_mtx(path, extended=False, make_unique=False)
        with h5py.File(path) as file:
            groups = list(file)
        if "matrix" in groups:
            return muon.read_10x_h5(path, extended=False)
    except (OSError, EOFError, zlib.error) as error:
        raise OSError(
            f"`{path}` must be the matrix of Cell Ranger ARC, but it cannot be read: {error}. "
            "Download it again if it is cut off."
        ) from error
    raise ValueError(
        f"`{path}` must be the matrix of Cell Ranger ARC, with the group `matrix`, but it has "
        f"{shown(groups)}. An `.h5mu` file is read by `mudata.read_h5mu`."
    )
