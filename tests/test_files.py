"""Files are read alike compressed or not, and damaged ones are refused by name."""

import gzip
from io import StringIO

import pytest
import rich
from rich.console import Console

from scmvp_scvi._files import is_gzip, open_with_progress


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_bytes_are_the_same_whatever_the_name_and_the_progress_bar(pack, progress, tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(pack(b"1 2\n" * 1000))
    with open_with_progress(path, progress=progress) as stream:
        assert stream.read() == b"1 2\n" * 1000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (gzip.compress(b""), True),
        (b"\x1f\x8b", True),
        (b"\x1f", False),
        (b"", False),
        (b"a", False),
    ],
    # not by the bytes, of which some are the time: workers have to collect the same tests
    ids=["an empty file, compressed", "the two bytes", "one of them", "nothing", "another"],
)
def test_gzip_is_known_by_how_it_begins_and_not_by_its_name(content, expected, tmp_path):
    path = tmp_path / ("a.txt" if expected else "a.txt.gz")
    path.write_bytes(content)
    assert is_gzip(path) == expected


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


@pytest.mark.parametrize("progress", [True, False])
def test_progress_over_the_bytes_on_disk_is_shown_if_asked_for(progress, tmp_path, monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=screen, force_terminal=True, width=100))
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 1000))
    with open_with_progress(path, progress=progress) as stream:
        stream.read()
    size = path.stat().st_size
    assert ("Reading a.txt.gz" in screen.getvalue()) == progress
    assert (f"{size / 1000:.1f}/{size / 1000:.1f} kB" in screen.getvalue()) == progress
