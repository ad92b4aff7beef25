"""Files opened for reading, decompressed if need be, with a progress bar."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from rich.progress import wrap_file

_GZIP_MAGIC = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does, whatever its name ends with."""
    with path.open("rb") as file:
        return _begins_as_gzip(file)


@contextmanager
def open_with_progress(path: Path, *, progress: bool) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed if need be, whatever its name ends with.

    Parameters
    ----------
    path
        The file.
    progress
        Whether to show a progress bar over the bytes on disk.

    Raises
    ------
    ValueError
        While reading, if the compressed file is damaged or ends too early.
    """
    with (
        path.open("rb") as file,
        wrap_file(
            file,
            path.stat().st_size,
            description=f"Reading {path.name}",
            transient=True,
            disable=not progress,
        ) as counted,
    ):
        is_compressed = _begins_as_gzip(file)
        try:
            yield cast("BinaryIO", gzip.GzipFile(fileobj=counted)) if is_compressed else counted
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"`{path}` must be a whole gzip file, but it is cut off or damaged: {error}. "
                "Remove it and download it again."
            ) from error


def _begins_as_gzip(file: BufferedReader) -> bool:
    """Look without reading: a pipe cannot be opened again, or read from its start."""
    return file.peek(2)[:2] == _GZIP_MAGIC
