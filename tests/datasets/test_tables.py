"""Tables are read as text, dense counts in blocks."""

import numpy as np
import pandas as pd
import pytest

from scmvp_scvi.datasets import _tables
from scmvp_scvi.datasets._features import name_genes


def test_names_that_look_like_numbers_or_nothing_are_kept(tmp_path, write):
    path = write(tmp_path / "a.tsv", ["01", '"NA"', "nan", "1e5"])
    assert _tables.read_list(path)[0].tolist() == ["01", "NA", "nan", "1e5"]


def test_mark_at_the_start_of_a_text_is_no_part_of_the_first_name(tmp_path):
    path = tmp_path / "counts.tsv"
    path.write_text("a\tb\ng0\t1\t2\n", encoding="utf-8-sig")
    read = _tables.read_dense_counts(path, name_genes, progress=False)
    assert read.cells.tolist() == ["a", "b"]


def test_empty_file_is_refused(tmp_path, write):
    with pytest.raises(ValueError, match="a.tsv` must be a table of text, but: No columns"):
        _tables.read_list(write(tmp_path / "a.tsv", []))


@pytest.mark.parametrize("corner", [None, "gene"])
@pytest.mark.parametrize("block_entries", [1, 30, 10_000])
def test_dense_counts_are_the_same_in_blocks_of_any_size(
    block_entries, corner, tmp_path, monkeypatch, write_dense
):
    monkeypatch.setattr(_tables, "_BLOCK_ENTRIES", block_entries)
    counts = np.random.default_rng(0).poisson(0.5, (20, 7))
    features, cells = [f"g{i}" for i in range(20)], [f"c{i}" for i in range(7)]
    path = write_dense(tmp_path / "counts.tsv.gz", counts, features, cells, corner)
    read = _tables.read_dense_counts(path, name_genes, progress=False)
    np.testing.assert_array_equal(read.counts.toarray(), counts.T)
    assert read.cells.tolist() == cells
    assert read.features.index.tolist() == features


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_blank_lines_of_a_dense_table_are_skipped(place, tmp_path, write):
    lines = ["gene\ta\tb", "x\t1\t2", "y\t3\t4"]
    path = write(tmp_path / "counts.tsv", [*lines[:place], "", *lines[place:]])
    read = _tables.read_dense_counts(path, name_genes, progress=False)
    np.testing.assert_array_equal(read.counts.toarray(), [[1, 3], [2, 4]])
    assert read.features.index.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["gene\ta\tb", "x\t1\ttwo"], "could not convert string 'two'"),
        (["gene\ta\tb", "x\t1\t2", "y\t1"], "number of columns changed from 2 to 1"),
        (["gene\ta\tb"], "it has no features"),
        ([], "it has no features"),
        (["gene,a,b", "x,1,2"], "its first line has no tab: 'gene,a,b'"),
    ],
)
def test_dense_table_that_is_none_is_refused(lines, found, tmp_path, write):
    path = write(tmp_path / "counts.tsv", lines)
    with pytest.raises(ValueError, match=f"counts.tsv` must be a table of counts, .*{found}"):
        _tables.read_dense_counts(path, name_genes, progress=False)


def test_dense_table_that_is_cut_off_is_refused(tmp_path, write_dense):
    counts = np.random.default_rng(0).poisson(1, (300, 3))
    names = [f"g{i}" for i in range(300)]
    path = write_dense(tmp_path / "counts.tsv.gz", counts, names, ["a", "b", "c"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="counts.tsv.gz` must be a whole gzip file"):
        _tables.read_dense_counts(path, name_genes, progress=False)


def test_required_columns_pass_whatever_else_is_there(tmp_path, write):
    path = write(tmp_path / "a.csv", ["b,a", "1,2"])
    table = _tables.read_table(path, separator=",", columns=["a"])
    pd.testing.assert_frame_equal(table, pd.DataFrame({"b": ["1"], "a": ["2"]}))


def test_cell_that_is_there_twice_in_the_header_keeps_its_name(tmp_path, write):
    path = write(tmp_path / "counts.tsv", ['"a"\t"a"', "01\t1\t2"])
    read = _tables.read_dense_counts(path, name_genes, progress=False)
    assert read.cells.tolist() == ["a", "a"]
    assert read.features.index.tolist() == ["01"]


def test_header_that_is_too_short_is_refused(tmp_path, write):
    path = write(tmp_path / "counts.tsv", ["a\tb", "x\t1\t2\t3\t4"])
    with pytest.raises(ValueError, match="counts.tsv` must be 1 features by 2 cells, .* 1 by 4"):
        _tables.read_dense_counts(path, name_genes, progress=False)
