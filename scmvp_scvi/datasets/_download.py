"""Fetch the published files of a data set."""

import gzip
import logging
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py

from scmvp_scvi._validate import check_one_of
from scmvp_scvi.datasets._registry import DataFile, registry

logger = logging.getLogger(__name__)

_N_RETRIES = 3
_BLOCK_BYTES = 1 << 20
_TIMEOUT = 60  # seconds of silence


def download(name: str, folder: str | Path, *, progress: bool = True) -> Path:
    """Download the published files of a data set.

    Files that are there already are kept, if they are whole. A broken download is tried again up
    to three times and goes on where it broke off, as does the next call.

    Parameters
    ----------
    name
        Name of the data set in :func:`list_datasets`.
    folder
        Where to put the files; it is made if need be.
    progress
        Whether to show a progress bar.

    Returns
    -------
    The folder, which the reader of the data set takes.

    Raises
    ------
    ImportError
        If pooch is not installed.
    ValueError
        If there is no such data set, or a file is not the published one or not whole.
    OSError
        If the server cannot be reached.

    Notes
    -----
    A file is compared with the published hash where one is known; otherwise a compressed file is
    unpacked once, and an ``.h5`` file opened, which shows whether it is whole. A file that is not
    is removed.
    """
    check_one_of(name, registry(), name="name")
    dataset, folder = registry()[name], Path(folder).expanduser()
    for file in dataset.downloads:
        try:
            _fetch(file, folder, progress=progress)
        except OSError as error:
            if not file.optional:
                raise
            logger.warning("%s The data can be read without it.", error)
        else:
            _check_is_whole(folder / file.name, file)
    if dataset.archive:
        path = folder / dataset.archive.name
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        except tarfile.TarError as error:
            raise _not_whole(path, dataset.archive, "tar archive", error) from error
    logger.info("The files of %s are in %s: `%s` reads them.", name, folder, dataset.reader)
    return folder


def _fetch(file: DataFile, folder: Path, *, progress: bool) -> None:
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "Downloads need pooch and tqdm: `pip install pooch tqdm`, or "
            "`pip install '.[datasets]'` in a clone of this package."
        ) from error
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={file.name: file.hash},
        urls={file.name: file.url},
        retry_if_failed=_N_RETRIES,
    )
    logger.info("Fetching %s%s.", file.name, f", {file.size_mb:g} MB" if file.size_mb else "")
    try:
        fetcher.fetch(file.name, downloader=_resuming(folder / f"{file.name}.part", progress))
    except OSError as error:
        raise OSError(
            f"`{file.name}` could not be fetched from {file.url}: {error}. Try again later, or "
            f"fetch it in a browser and put it into `{folder}`."
        ) from error


def _resuming(part: Path, progress: bool) -> Callable[[str, str, object], None]:
    """Downloader for pooch that keeps what has arrived in ``part`` and asks for the rest alone."""
    import requests  # comes with pooch, and urllib3 with it
    import urllib3
    from tqdm.auto import tqdm

    def fetch(url: str, output_file: str, fetcher: object) -> None:
        del fetcher
        done = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={done}-"} if done else {}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()  # longer than what is there now
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                done = 0  # the server sends the whole file
            total = done + int(response.headers.get("Content-Length", 0))
            bar = tqdm(
                total=total or None,
                initial=done,
                unit="B",
                unit_scale=True,
                desc=part.stem,
                disable=not progress,
            )
            with part.open("ab" if done else "wb") as stream, bar:
                # as it is stored: some servers take the compression of a file for that of the
                # transfer, which `requests` would undo
                try:
                    for block in response.raw.stream(_BLOCK_BYTES, decode_content=False):
                        stream.write(block)
                        bar.update(len(block))
                except urllib3.exceptions.HTTPError as error:  # pooch tries anew after these
                    raise requests.ConnectionError(error) from error
        part.replace(output_file)

    return fetch


def _check_is_whole(path: Path, file: DataFile) -> None:
    kinds = {".gz": ("gzip file", _read_gzip), ".h5": ("HDF5 file", _open_hdf5)}
    if file.hash is not None:
        return
    kind, read = kinds.get(path.suffix, ("file", _check_is_not_empty))
    try:
        read(path)
    except (EOFError, OSError, zlib.error) as error:
        raise _not_whole(path, file, kind, error) from error


def _not_whole(path: Path, file: DataFile, kind: str, error: Exception) -> ValueError:
    """Remove a file, and word what is wrong with it."""
    path.unlink()
    return ValueError(
        f"`{file.name}` of {file.url} must be a whole {kind}, but: {error}. It was removed: "
        "download it again, and if that does not help, see whether the URL still holds it."
    )


def _check_is_not_empty(path: Path) -> None:
    if path.stat().st_size == 0:
        raise EOFError("it has no bytes")


def _read_gzip(path: Path) -> None:
    _check_is_not_empty(path)  # which the gzip module reads without a word
    with gzip.open(path) as stream:
        while stream.read(_BLOCK_BYTES):
            pass


def _open_hdf5(path: Path) -> None:
    # A file of HDF5 knows how long it is.
    h5py.File(path).close()
