"""Files are found compressed or not, and what is wrong with a folder is said."""

import shutil

import pytest

from scmvp_scvi.datasets import read_paired_seq, read_sci_car, read_snare_seq
from scmvp_scvi.datasets._files import find_files
from scmvp_scvi.datasets._registry import registry

BRAIN = registry()["share_seq_brain"]


@pytest.fixture
def brain(tmp_path):
    """Folder that holds the files of `share_seq_brain`, empty."""
    folder = tmp_path / "brain"  # alone in its own, which files are looked for in as well
    folder.mkdir()
    for file in BRAIN.files.values():
        (folder / file.name).touch()
    return folder


def test_files_are_found_without_their_compression_and_one_folder_down(brain):
    (brain / "GSM4156599_brain.peaks.bed.gz").rename(brain / "GSM4156599_brain.peaks.bed")
    found = find_files(brain.parent, BRAIN)
    assert found.keys() == BRAIN.files.keys()
    assert found["peaks"].name == "GSM4156599_brain.peaks.bed"


def test_folder_may_be_given_from_the_home_of_the_user(brain, monkeypatch):
    monkeypatch.setenv("HOME", str(brain.parent))
    assert find_files("~/brain", BRAIN) == find_files(brain, BRAIN)


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


def test_archive_that_is_not_unpacked_is_named_with_the_command_that_does(tmp_path):
    (tmp_path / "GSE130399_GSM3737488_GSM3737489_Cell_Mix.tar.gz").touch()
    match = 'Unpack the archive that is there: `tar -xf ".*Cell_Mix.tar.gz" -C ".*"`'
    with pytest.raises(FileNotFoundError, match=match):
        read_paired_seq(tmp_path)


def test_two_whole_copies_inside_the_folder_are_refused_with_the_names_of_both(brain):
    shutil.copytree(brain, brain.with_name("copy"))
    match = r'once, but `.*/brain`, `.*/copy` have all of them. Name .*: `folder=".*/brain"`'
    with pytest.raises(ValueError, match=match):
        find_files(brain.parent, BRAIN)
    (brain.with_name("copy") / BRAIN.files["peaks"].name).unlink()
    assert {path.parent for path in find_files(brain.parent, BRAIN).values()} == {brain}


def test_copy_in_the_folder_that_is_named_goes_before_those_inside_it(brain):
    for name in ("older", "newer"):
        shutil.copytree(brain, brain / name, ignore=shutil.ignore_patterns("older"))
    assert {path.parent for path in find_files(brain, BRAIN).values()} == {brain}


def test_compressed_file_goes_before_what_is_left_of_its_unpacking(brain):
    (brain / "GSM4156599_brain.peaks.bed").touch()
    assert find_files(brain, BRAIN)["peaks"].name == "GSM4156599_brain.peaks.bed.gz"
