"""The published data sets that can be downloaded and read, as `registry.toml` lists them."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import pandas as pd

from scmvp_scvi._validate import check_one_of


@dataclass(frozen=True)
class DataFile:
    """One published file; without a URL it comes out of the archive of its data set."""

    name: str
    url: str | None = None
    hash: str | None = None
    size_mb: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class Dataset:
    """One data set: `files` maps what a reader asks for to the published file."""

    name: str
    protocol: str
    sample: str
    accession: str
    organism: str
    citation: str
    licence: str
    files: Mapping[str, DataFile]
    verified: bool
    doubts: tuple[str, ...]
    sources: tuple[str, ...]
    archive: DataFile | None = None

    @property
    def reader(self) -> str:
        """Call that reads the files, as a user writes it."""
        arguments = "folder" if self.protocol == "10x_multiome" else f'folder, "{self.sample}"'
        return f"datasets.read_{self.protocol}({arguments})"

    @property
    def downloads(self) -> tuple[DataFile, ...]:
        """What has to be fetched: the archive, or else the files."""
        return (self.archive,) if self.archive else tuple(self.files.values())


def list_datasets() -> pd.DataFrame:
    """List the published data sets that can be downloaded and read.

    Returns
    -------
    One row per data set, indexed by the name that :func:`download` takes: ``reader``, the call
    that reads it; ``accession``, ``organism``, ``citation`` and ``licence``; ``files``, what is
    downloaded, name to size in MB, which is None where no public source states it, as for most;
    ``verified``, whether the reader was tried on the published files themselves; ``doubts``, what
    no public source settles; ``sources``, where names, layout, sizes and hashes were found.

    Examples
    --------
    >>> from scmvp_scvi import datasets
    >>> datasets.list_datasets().loc["snare_seq_adult_cortex", "accession"]
    'GSE126074'
    >>> datasets.list_datasets().loc["10x_multiome_pbmc_10k", "files"]
    {'pbmc_granulocyte_sorted_10k_filtered_feature_bc_matrix.h5': 162}
    """
    columns = "reader accession organism citation licence verified doubts sources".split()
    entries = registry().values()
    rows = [[getattr(entry, column) for column in columns] for entry in entries]
    table = pd.DataFrame(rows, index=pd.Index(list(registry()), name="name"), columns=columns)
    files = [{file.name: file.size_mb for file in entry.downloads} for entry in entries]
    table.insert(columns.index("verified"), "files", files)
    return table


def find_dataset(protocol: str, sample: str) -> Dataset:
    """Look up the data set of a protocol by its sample.

    Raises
    ------
    ValueError
        If the protocol has no such sample.
    """
    samples = {entry.sample: entry for entry in registry().values() if entry.protocol == protocol}
    check_one_of(sample, samples, name="sample")
    return samples[sample]


@cache
def registry() -> Mapping[str, Dataset]:
    """Read `registry.toml`: name to data set."""
    text = files("scmvp_scvi.datasets").joinpath("registry.toml").read_text(encoding="utf-8")
    return MappingProxyType(
        {name: _to_dataset(name, table) for name, table in tomllib.loads(text).items()}
    )


def _to_dataset(name: str, table: dict[str, Any]) -> Dataset:
    archive = table.pop("archive", None)
    return Dataset(
        name=name,
        files={role: DataFile(**entry) for role, entry in table.pop("files").items()},
        archive=DataFile(**archive) if archive else None,
        doubts=tuple(table.pop("doubts")),
        sources=tuple(table.pop("sources")),
        **table,
    )
