"""Files are found compressed or not, and what is wrong with a folder or a file is said."""

import gzip

import pytest

from scmvp_scvi.datasets import read_paired_seq, read_sci_car, read_snare_seq
from scmvp_scvi.datasets._files import find_files, open_with_progress
from scmvp_scvi.datasets._registry import registry

BRAIN = registry()["share_seq_brain"]


@pytest.fixture
def brain(tmp_path):
    """Folder that holds the files of `share_seq_brain`, empty."""
    for file in BRAIN.files.values():
        (tmp_path / file.name).touch()
    return tmp_path


def test_files_are_found_without_their_compression_and_one_folder_down(brain):
    (brain / "GSM4156599_brain.peaks.bed.gz").rename(brain / "GSM4156599_brain.peaks.bed")
    found = find_files(brain.parent, BRAIN)
    assert found.keys() == BRAIN.files.keys()
    assert found["peaks"].name == "GSM4156599_brain.peaks.bed"


def test_optional_file_may_be_missing(brain):
    (brain / BRAIN.files["cell_types"].name).unlink()
    assert "cell_types" not in find_files(brain, BRAIN)


def test_missing_table_is_named_with_what_is_there_and_how_to_get_it(brain):
    (brain / BRAIN.files["peaks"].name).unlink()
    match = (
        "1 of them are missing: `GSM4156599_brain.peaks.bed.gz`. The folder has .*"
        r'`datasets.download\("share_seq_brain"'
    )
    with pytest.raises(FileNotFoundError, match=match):
        find_files(brain, BRAIN)


def test_folder_of_another_protocol_is_recognized(brain):
    match = r'files of GSE140203: use `datasets.read_share_seq\(folder, "brain"\)`'
    with pytest.raises(FileNotFoundError, match=match):
        read_sci_car(brain)


def test_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere` is not there"):
        read_snare_seq(tmp_path / "nowhere")


def test_sample_that_is_not_known_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="`sample` must be one of 'cell_mix', 'adult_cortex'"):
        read_paired_seq(tmp_path, "kidney")


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_bytes_are_the_same_whatever_the_name_and_the_progress_bar(pack, progress, tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(pack(b"1 2\n" * 1000))
    with open_with_progress(path, progress=progress) as stream:
        assert stream.read() == b"1 2\n" * 1000


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:40] + b"????" + b[44:]])
def test_damaged_gzip_is_refused_with_the_way_out(damage, tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(damage(gzip.compress(bytes(range(256)) * 10)))
    match = "a.txt.gz` must be a whole gzip file, .* Remove it and download it again"
    with (
        pytest.raises(ValueError, match=match),
        open_with_progress(path, progress=False) as stream,
    ):
        stream.read()
