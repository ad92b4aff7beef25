"""Wide tables written to zarr block by block, in the layout that anndata reads."""

import shutil
import tempfile
import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import sparse_dataset, write_elem
from scipy import sparse

_VALUES_PER_CHUNK = 2**17  # of a sparse table: half a MiB; anndata takes the size of a block


def write_table(
    path: str | Path,
    blocks: Iterable[np.ndarray | sparse.csr_matrix],
    rows: pd.Index,
    columns: pd.Index,
    *,
    overwrite: bool = False,
) -> None:
    """Write a table of cells by features as an AnnData in zarr; one block is in memory at a time.

    It is written beside ``path``, in a new hidden folder that nothing else is in, and takes its
    name once it is whole. What is at ``path`` stays until then, and is moved there to be removed.

    Parameters
    ----------
    path
        Folder of the zarr store.
    blocks
        Rows of the table in order, ``(cells, features)`` each, all dense or all CSR.
    rows, columns
        Names of the cells and of the features.
    overwrite
        Whether to replace what is at ``path``.

    Raises
    ------
    FileExistsError
        If there is something at ``path`` and it may not be replaced.
    """
    path = Path(path).expanduser()
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"`path` must be free, but `{path}` exists: choose another one, or set "
            "`overwrite=True` to replace it."
        )
    path = path.resolve()  # a link stays, and what it points to is replaced
    path.parent.mkdir(parents=True, exist_ok=True)
    # of a name that nobody has: neighbours of other names are the user's
    own = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    new, old = own / "new", own / "old"
    try:
        _write_blocks(new, blocks, rows, columns)
    except BaseException:
        shutil.rmtree(own, ignore_errors=True)
        raise
    if overwrite and path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(own)


def _write_blocks(
    path: Path,
    blocks: Iterable[np.ndarray | sparse.csr_matrix],
    rows: pd.Index,
    columns: pd.Index,
) -> None:
    blocks = iter(blocks)
    first = next(blocks)
    with warnings.catch_warnings():
        # of a default of anndata to come; either way it reads what is written
        warnings.filterwarnings("ignore", "zarr v3 autosharding", UserWarning)
        # anndata 0.12 writes no names of pandas' string type, nor an index named with a slash
        obs, var = (
            pd.DataFrame(index=names.astype(object).rename(None)) for names in (rows, columns)
        )
        group = zarr.open_group(path, mode="w")
        write_elem(group, "/", AnnData(obs=obs, var=var))
        if sparse.issparse(first):
            # places of later rows can exceed what the first block needs
            how = {"indptr_dtype": np.int64, "chunks": (_VALUES_PER_CHUNK,)}
            write_elem(group, "X", first, dataset_kwargs=how)
            table = sparse_dataset(group["X"])
            for block in blocks:
                table.append(block)
            return
        table = group.create_array(
            "X",
            shape=(len(rows), len(columns)),
            chunks=first.shape,
            dtype=first.dtype,
            attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
        )
        start = 0
        for block in chain([first], blocks):
            table[start : start + len(block)] = block
            start += len(block)
