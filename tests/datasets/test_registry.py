"""The list of data sets says of each where it is, who says so, and what reads it."""

import re
from pathlib import Path

import pytest

from scmvp_scvi import datasets
from scmvp_scvi.datasets._registry import find_dataset, registry

ENTRIES = registry().items()
PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_data_set_is_named_for_its_protocol_and_sample_and_has_a_reader(name, entry):
    assert name == f"{entry.protocol}_{entry.sample}"
    assert callable(getattr(datasets, f"read_{entry.protocol}"))
    assert find_dataset(entry.protocol, entry.sample) is entry


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_everything_to_download_has_a_url_and_a_name_without_folders(name, entry):
    for file in entry.downloads:
        assert file.url.startswith("https://")
        assert "/" not in file.name
        assert file.hash is None or file.hash.startswith(("md5:", "sha256:"))


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_every_data_set_says_where_its_layout_was_found_and_what_is_in_doubt(name, entry):
    assert entry.sources
    assert all(source.startswith("https://") for source in entry.sources)
    assert entry.verified or entry.doubts


def test_list_has_a_line_for_each_data_set():
    table = datasets.list_datasets()
    assert table.index.tolist() == list(registry())
    expected = 'datasets.read_share_seq(folder, "skin")'
    assert table.loc["share_seq_skin", "reader"] == expected


def test_list_has_the_files_of_each_data_set_with_their_sizes():
    files = datasets.list_datasets()["files"]
    for name, entry in ENTRIES:
        assert files[name] == {file.name: file.size_mb for file in entry.downloads}
    assert files["paired_seq_cell_mix"] == {
        "GSE130399_GSM3737488_GSM3737489_Cell_Mix.tar.gz": None
    }
    assert files["share_seq_skin"]["GSM4156597_skin_celltype.txt.gz"] == 0.26


@pytest.mark.parametrize(("name", "entry"), ENTRIES)
def test_documentation_tells_every_doubt(name, entry):
    page = re.sub(r"\s+", " ", PAGE)
    assert [doubt for doubt in entry.doubts if doubt not in page] == []


def test_documentation_tells_how_many_sizes_are_known():
    sizes = [file.size_mb for _, entry in ENTRIES for file in entry.downloads]
    known = sum(size is not None for size in sizes)
    assert f"{known} of the {len(sizes)} files" in PAGE
