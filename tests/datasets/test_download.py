"""Downloads from a server on this machine: kept, tried again, checked, unpacked."""

import gzip
import hashlib
import io
import logging
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import pytest

from scmvp_scvi.datasets import _download, _registry, download

# no time stamp: the bytes name a test, which has to have the same name in every worker
GOOD = gzip.compress(b"1 1 1\n" * 1000, mtime=0)


class Handler(SimpleHTTPRequestHandler):
    """Serve a folder and remember what was asked for; the first request may fail."""

    asked: list[str] = []
    ranges: list[str | None] = []
    n_failures = 0
    breaks_off_at: int | None = None  # the first answer ends there
    knows_ranges = True
    content_encoding: str | None = None

    def do_GET(self):
        self.asked.append(self.path)
        self.ranges.append(self.headers["Range"])
        if len(self.asked) <= self.n_failures:
            self.send_error(503)
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if self.knows_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if self.content_encoding is not None:
            self.send_header("Content-Encoding", self.content_encoding)
        self.end_headers()
        stop = self.breaks_off_at if len(self.asked) == 1 else None
        self.wfile.write(content[start:stop])

    def log_message(self, *args):
        """Stay quiet."""


@pytest.fixture
def handler():
    return type("Fresh", (Handler,), {"asked": [], "ranges": []})


@pytest.fixture
def publish(tmp_path, monkeypatch, handler):
    """Return a function that serves files and puts them on the list as the data set `mine`."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "server"))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def publish(content: bytes, hash=None, archive=False, optional=False, name="counts.mtx.gz"):
        (tmp_path / "server").mkdir()
        name = "files.tar.gz" if archive else name
        (tmp_path / "server" / name).write_bytes(content)
        url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
        file = _registry.DataFile(name, url, hash, optional=optional)
        entry = _registry.Dataset(
            *("mine", "snare_seq", "mine", "GSE1", "mouse", "me", "free"),
            files={"counts": _registry.DataFile("inside.txt") if archive else file},
            verified=False,
            doubts=(),
            sources=(),
            archive=file if archive else None,
        )
        monkeypatch.setattr(_download, "registry", lambda: {"mine": entry})

    yield publish
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    """Try again at once."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def test_file_is_the_published_one_and_is_fetched_once(tmp_path, publish, handler):
    publish(GOOD, hash=f"md5:{hashlib.md5(GOOD).hexdigest()}")
    folder = download("mine", tmp_path / "new" / "folder", progress=False)
    download("mine", folder, progress=False)
    assert (folder / "counts.mtx.gz").read_bytes() == GOOD
    assert handler.asked == ["/counts.mtx.gz"]


def test_file_is_kept_as_it_is_stored_whatever_the_server_calls_its_compression(
    tmp_path, publish, handler
):
    handler.content_encoding, handler.breaks_off_at = "x-gzip", 20
    publish(GOOD, hash=f"md5:{hashlib.md5(GOOD).hexdigest()}")
    download("mine", tmp_path / "data", progress=False)
    assert (tmp_path / "data" / "counts.mtx.gz").read_bytes() == GOOD
    assert handler.ranges == [None, "bytes=20-"]


def test_folder_may_be_given_from_the_home_of_the_user(tmp_path, publish, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    publish(GOOD)
    assert download("mine", "~/data", progress=False) == tmp_path / "data"
    assert [path.read_bytes() for path in (tmp_path / "data").iterdir()] == [GOOD]


def test_failing_server_is_tried_again(tmp_path, publish, handler):
    publish(GOOD)
    handler.n_failures = 2
    download("mine", tmp_path, progress=False)
    assert len(handler.asked) == 3


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_broken_download_goes_on_where_it_broke_off(
    tmp_path, publish, handler, monkeypatch, knows_ranges
):
    monkeypatch.setattr(_download, "_BLOCK_BYTES", 16)
    publish(GOOD, hash=f"md5:{hashlib.md5(GOOD).hexdigest()}")
    handler.breaks_off_at, handler.knows_ranges = 40, knows_ranges
    folder = download("mine", tmp_path / "folder", progress=False)
    assert handler.ranges == [None, "bytes=40-"]  # with two and a half blocks
    assert (folder / "counts.mtx.gz").read_bytes() == GOOD
    assert [path.name for path in folder.iterdir()] == ["counts.mtx.gz"]


def test_next_call_goes_on_with_what_an_earlier_one_left(tmp_path, publish, handler):
    publish(GOOD, hash=f"md5:{hashlib.md5(GOOD).hexdigest()}")
    (tmp_path / "counts.mtx.gz.part").write_bytes(GOOD[:30])
    download("mine", tmp_path, progress=False)
    assert handler.ranges == ["bytes=30-"]
    assert (tmp_path / "counts.mtx.gz").read_bytes() == GOOD


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path, publish, handler):
    publish(GOOD)
    (tmp_path / "counts.mtx.gz.part").write_bytes(GOOD + b"more")
    download("mine", tmp_path, progress=False)
    assert handler.ranges[-1] is None
    assert (tmp_path / "counts.mtx.gz").read_bytes() == GOOD


def test_server_that_keeps_failing_is_named_with_the_way_out(tmp_path, publish, handler):
    publish(GOOD)
    handler.n_failures = 99
    with pytest.raises(OSError, match="counts.mtx.gz` could not be fetched from http://127"):
        download("mine", tmp_path / "folder", progress=False)
    assert list((tmp_path / "folder").iterdir()) == []


def test_optional_file_that_cannot_be_fetched_is_warned_about(tmp_path, publish, handler, caplog):
    publish(GOOD, optional=True)
    handler.n_failures = 99
    download("mine", tmp_path / "folder", progress=False)
    assert "counts.mtx.gz` could not be fetched" in caplog.text
    assert "can be read without it" in caplog.text


def test_file_with_another_hash_is_refused_and_not_kept(tmp_path, publish):
    publish(GOOD, hash=f"md5:{'0' * 32}")
    with pytest.raises(ValueError, match=r"[Hh]ash of downloaded file"):
        download("mine", tmp_path / "folder", progress=False)
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("content", [GOOD[:-10], b"<html>Not found</html>"])
def test_file_that_is_not_whole_is_refused_and_removed(content, tmp_path, publish):
    publish(content)
    with pytest.raises(ValueError, match="counts.mtx.gz` of http.* must be a whole gzip file"):
        download("mine", tmp_path / "folder", progress=False)
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("end", [-100, None])
def test_hdf5_file_is_kept_only_if_it_is_whole(end, tmp_path, publish):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["data"] = list(range(1000))
    content = (tmp_path / "whole.h5").read_bytes()
    publish(content[:end], name="matrix.h5")
    folder = tmp_path / "folder"
    if end is None:
        assert (download("mine", folder, progress=False) / "matrix.h5").read_bytes() == content
        return
    with pytest.raises(ValueError, match="matrix.h5` of http.* must be a whole HDF5 file, .* was"):
        download("mine", folder, progress=False)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("a.gz", "gzip file"), ("a.h5", "HDF5 file"), ("a.xls", "file")]
)
def test_file_without_a_byte_is_refused_and_removed(tmp_path, publish, name, kind):
    publish(GOOD, name=name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).touch()
    with pytest.raises(ValueError, match=f"`{name}` of http.* must be a whole {kind}, but: .* It"):
        download("mine", tmp_path / "folder", progress=False)
    assert list((tmp_path / "folder").iterdir()) == []


def test_archive_that_is_none_is_refused_and_removed(tmp_path, publish):
    publish(GOOD, archive=True)
    with pytest.raises(ValueError, match="files.tar.gz` of http.* must be a whole tar archive, b"):
        download("mine", tmp_path / "folder", progress=False)
    assert list((tmp_path / "folder").iterdir()) == []


def test_archive_is_unpacked(tmp_path, publish):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        (tmp_path / "inside.txt").write_text("hello")
        archive.add(tmp_path / "inside.txt", "mine/inside.txt")
    publish(packed.getvalue(), archive=True)
    folder = download("mine", tmp_path / "folder", progress=False)
    assert (folder / "mine" / "inside.txt").read_text() == "hello"


def test_progress_is_shown_and_the_reader_is_named(tmp_path, publish, capsys, caplog):
    publish(GOOD)
    with caplog.at_level(logging.INFO):
        download("mine", tmp_path / "folder")
    assert "100%" in capsys.readouterr().err
    assert 'read_snare_seq(folder, "mine")' in caplog.text


def test_name_that_is_not_on_the_list_is_refused():
    with pytest.raises(ValueError, match="`name` must be one of 'sci_car_a549'"):
        download("pbmc", "folder")


def test_missing_pooch_is_named_with_how_to_install_it(tmp_path, publish, monkeypatch):
    publish(GOOD)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[datasets\]'"):
        download("mine", tmp_path)
