"""Tables written block by block are read back by anndata as they were."""

import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from scmvp_scvi._zarr import write_table

CELLS, PEAKS = pd.Index([f"cell{i}" for i in range(7)]), pd.Index(list("abcde"))


@pytest.fixture
def table(rng) -> np.ndarray:
    """Seven cells by five peaks, half of the entries zero, the middle cells without any."""
    table = (rng.random((7, 5)) * rng.integers(0, 2, (7, 5))).astype(np.float32)
    table[3:6] = 0
    return table


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("block_size", [1, 3, 7, 100])
def test_blocks_of_any_size_are_read_back_as_the_whole(tmp_path, table, form, block_size):
    blocks = (form(table[i : i + block_size]) for i in range(0, 7, block_size))
    write_table(tmp_path / "table.zarr", blocks, CELLS, PEAKS)
    found = ad.read_zarr(tmp_path / "table.zarr")
    assert sparse.issparse(found.X) == (form is sparse.csr_matrix)
    dense = found.X.toarray() if sparse.issparse(found.X) else found.X
    np.testing.assert_array_equal(dense, table)
    assert list(found.obs_names) == list(CELLS)
    assert list(found.var_names) == list(PEAKS)


def test_places_of_rows_have_room_for_more_values_than_32_bits_count(tmp_path, table):
    write_table(tmp_path / "table.zarr", [sparse.csr_matrix(table)], CELLS, PEAKS)
    assert zarr.open_group(tmp_path / "table.zarr", mode="r")["X/indptr"].dtype == np.int64


def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path, table):
    path = tmp_path / "table.zarr"
    write_table(path, [table], CELLS, PEAKS)
    with pytest.raises(FileExistsError, match="`overwrite=True`"):
        write_table(path, [2 * table], CELLS, PEAKS)
    np.testing.assert_array_equal(ad.read_zarr(path).X, table)
    write_table(path, [2 * table], CELLS, PEAKS, overwrite=True)
    np.testing.assert_array_equal(ad.read_zarr(path).X, 2 * table)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("n_blocks", [0, 1, 6])
def test_what_is_there_is_kept_where_a_block_cannot_be_had(tmp_path, table, form, n_blocks):
    def blocks():
        for i in range(n_blocks):
            yield form(2 * table[i : i + 1])
        raise ValueError("no such cells")

    path = tmp_path / "table.zarr"
    write_table(path, [table], CELLS, PEAKS)
    with pytest.raises(ValueError, match="no such cells"):
        write_table(path, blocks(), CELLS, PEAKS, overwrite=True)
    np.testing.assert_array_equal(ad.read_zarr(path).X, table)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_replaced(tmp_path, table):
    path = tmp_path / "table.zarr"
    path.write_text("a file")
    write_table(path, [table], CELLS, PEAKS, overwrite=True)
    np.testing.assert_array_equal(ad.read_zarr(path).X, table)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("overwrite", [False, True])
def test_neighbours_of_any_name_stay_as_they_are(tmp_path, table, overwrite):
    neighbours = [tmp_path / f"table.zarr{end}" for end in (".old", ".part", "~", ".new")]
    for neighbour in neighbours:
        neighbour.mkdir()
        (neighbour / "notes.txt").write_text("mine")
    if overwrite:
        write_table(tmp_path / "table.zarr", [2 * table], CELLS, PEAKS)
    write_table(tmp_path / "table.zarr", [table], CELLS, PEAKS, overwrite=overwrite)
    assert {path.read_text() for path in tmp_path.glob("*/notes.txt")} == {"mine"}
    assert set(tmp_path.iterdir()) == {tmp_path / "table.zarr", *neighbours}
    for neighbour in neighbours:
        assert [path.name for path in neighbour.iterdir()] == ["notes.txt"]


def test_what_others_put_there_in_the_meantime_is_kept(tmp_path, table):
    path = tmp_path / "table.zarr"

    def blocks():
        write_table(path, [2 * table], CELLS, PEAKS)  # by another process
        yield table

    with pytest.raises(OSError, match="table.zarr"):
        write_table(path, blocks(), CELLS, PEAKS)
    np.testing.assert_array_equal(ad.read_zarr(path).X, 2 * table)
    (own,) = tmp_path.glob(".table.zarr.*/new")
    np.testing.assert_array_equal(ad.read_zarr(own).X, table)


def test_neither_table_is_lost_where_the_old_one_cannot_be_removed(tmp_path, table, monkeypatch):
    path = tmp_path / "table.zarr"
    write_table(path, [table], CELLS, PEAKS)

    rmtree = shutil.rmtree  # which zarr needs too

    def fail(path, **kwargs):
        if (path / "old").exists():
            raise OSError("in use")
        rmtree(path, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.raises(OSError, match="in use"):
        write_table(path, [2 * table], CELLS, PEAKS, overwrite=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(ad.read_zarr(path).X, 2 * table)
    (old,) = tmp_path.glob(".table.zarr.*/old")
    np.testing.assert_array_equal(ad.read_zarr(old).X, table)


def test_table_and_the_folders_above_it_are_as_open_to_others_as_new_folders_are(tmp_path, table):
    path = tmp_path / "new" / "table.zarr"
    write_table(path, [table], CELLS, PEAKS)
    (tmp_path / "plain").mkdir()
    expected = (tmp_path / "plain").stat().st_mode
    assert (path.stat().st_mode, path.parent.stat().st_mode) == (expected, expected)


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, table):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "table.zarr"
    link.symlink_to(tmp_path / "disk", target_is_directory=True)
    write_table(link, [table], CELLS, PEAKS, overwrite=True)
    assert link.is_symlink()
    np.testing.assert_array_equal(ad.read_zarr(tmp_path / "disk").X, table)


def test_chunks_of_a_sparse_table_do_not_depend_on_how_much_the_first_block_holds(tmp_path, table):
    chunks = []
    for first in (0 * table, table):
        path = tmp_path / f"{len(chunks)}.zarr"
        blocks = [sparse.csr_matrix(first), sparse.csr_matrix(table)]
        write_table(path, blocks, CELLS.append("more" + CELLS), PEAKS)
        group = zarr.open_group(path, mode="r")
        chunks.append([group[f"X/{name}"].chunks for name in ("data", "indices", "indptr")])
    assert chunks[0] == chunks[1]


@pytest.mark.parametrize(
    "names",
    [
        CELLS.astype("string"),
        CELLS.rename("sample/barcode"),
        pd.CategoricalIndex(CELLS),
    ],
    ids=["strings", "named", "categories"],
)
def test_names_are_written_whatever_holds_them(tmp_path, table, names):
    write_table(tmp_path / "table.zarr", [table], names, PEAKS.rename("peak/name"))
    found = ad.read_zarr(tmp_path / "table.zarr")
    assert (list(found.obs_names), list(found.var_names)) == (list(CELLS), list(PEAKS))


def test_path_may_be_given_from_the_home_of_the_user(tmp_path, table, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_table("~/table.zarr", [table], CELLS, PEAKS)
    np.testing.assert_array_equal(ad.read_zarr(tmp_path / "table.zarr").X, table)


def test_a_block_is_made_only_when_the_last_one_is_written(tmp_path, table):
    path, seen = tmp_path / "table.zarr", []

    def blocks():
        for i in range(7):
            seen.append(i)
            if i == 4:  # the four blocks before are in the store already
                (own,) = tmp_path.glob(".table.zarr.*/new")
                part = zarr.open_group(own, mode="r")
                np.testing.assert_array_equal(ad.io.read_elem(part["X"])[:4], table[:4])
            yield table[i : i + 1]

    write_table(path, blocks(), CELLS, PEAKS)
    assert seen == list(range(7))
