"""The files of a data set, found in a folder."""

from pathlib import Path

from scmvp_scvi._validate import shown
from scmvp_scvi.datasets._registry import Dataset, registry


def find_files(folder: str | Path, dataset: Dataset) -> dict[str, Path]:
    """Find the files of a data set, compressed or not, in a folder or in one inside it.

    Where one place has all that are needed, the folder itself first, nothing is taken from the
    others, which may hold another sample; but the optional ones may lie in the folder itself.

    Parameters
    ----------
    folder
        Where the files are.
    dataset
        The data set whose files are looked for.

    Returns
    -------
    What the reader asks for, as the registry calls it, to the file. Optional files that are not
    there are left out.

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    FileNotFoundError
        If a file is missing.
    ValueError
        If several folders inside it have all that are needed, and the folder itself has not.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise NotADirectoryError(
            f"`folder` must be a folder with the files of {dataset.accession}, but `{folder}` is "
            f"{'a file' if folder.exists() else 'not there'}. "
            f'`datasets.download("{dataset.name}", folder)` makes it.'
        )
    needed = [file.name for file in dataset.files.values() if not file.optional]
    whole = [place for place in _places(folder) if all(_in(place, name) for name in needed)]
    if len(whole) > 1 and whole[0] != folder:
        raise ValueError(
            f"`folder` must hold the files of {dataset.accession} once, but {shown(whole)} have "
            f'all of them. Name the one to read: `folder="{whole[0]}"`.'
        )
    places = [whole[0], folder] if whole else _places(folder)
    found = {role: _find(places, file.name) for role, file in dataset.files.items()}
    missing = [
        file.name
        for role, file in dataset.files.items()
        if found[role] is None and not file.optional
    ]
    if missing:
        raise FileNotFoundError(
            f"`{folder}` must hold the files of {dataset.accession}, compressed or not, but "
            f"{len(missing)} of them are missing: {shown(missing)}. The folder has "
            f"{shown(sorted(path.name for path in folder.iterdir()))}. "
            f"{_way_out(folder, dataset)}"
        )
    return {role: path for role, path in found.items() if path is not None}


def _places(folder: Path) -> list[Path]:
    # Archives unpack into a folder of their own as often as not.
    return [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]


def _find(places: list[Path], name: str) -> Path | None:
    return next((path for place in places if (path := _in(place, name))), None)


def _in(place: Path, name: str) -> Path | None:
    plain = name.removesuffix(".gz")
    # of both the compressed one: of a file that was not unpacked to its end nothing tells that
    candidates = (place / variant for variant in (f"{plain}.gz", plain))
    return next((path for path in candidates if path.is_file()), None)


def _way_out(folder: Path, wanted: Dataset) -> str:
    if wanted.archive and (folder / wanted.archive.name).is_file():
        archive = folder / wanted.archive.name
        return f'Unpack the archive that is there: `tar -xf "{archive}" -C "{folder}"`.'
    for other in registry().values():
        needed = (file.name for file in other.files.values() if not file.optional)
        is_whole = all(_find(_places(folder), name) for name in needed)
        if is_whole:
            return f"These are the files of {other.accession}: use `{other.reader}`."
    return f'Fetch them with `datasets.download("{wanted.name}", "{folder}")`.'
