"""Files of links: columns, positions, and what other readers make of them."""

import gzip
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from scmvp_scvi import tl


@pytest.fixture
def links() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "gene": ["ABC", "odd gene"],
            "peak": ["chr1:100-201", "chr2:500-600"],
            "chrom": ["chr1", "chr2"],
            "start": [100, 500],
            "end": [201, 600],
            "tss": [1_000, 90],
            "strand": ["+", "-"],
            "distance": [-850, -460],
            "score": [0.25, -0.5],
            "z_score": [3.0, np.nan],
            "p_value": [0.01, np.nan],
            "q_value": [0.02, np.nan],
        }
    )


def test_bedpe_has_the_peak_first_and_the_site_second(links, tmp_path):
    tl.write_bedpe(links, tmp_path / "links.bedpe")
    header, first, second = (tmp_path / "links.bedpe").read_text().splitlines()
    assert header.startswith("#chrom1\tstart1\tend1\tchrom2\tstart2\tend2\tname\tscore")
    assert first.split("\t") == (
        "chr1 100 201 chr1 1000 1001 ABC|chr1:100-201 0.25 . + 3 0.01 0.02 -850".split()
    )
    assert second.split("\t")[-4:] == [".", ".", ".", "-460"]


def test_links_are_ranges_from_one_end_to_the_other(links, tmp_path):
    tl.write_links(links, tmp_path / "links.tsv")
    table = pd.read_csv(tmp_path / "links.tsv", sep="\t")
    assert list(table)[:10] == (
        "seqnames start end width strand score gene peak zscore pvalue".split()
    )
    assert table[["start", "end", "width"]].to_numpy().tolist() == [
        [151, 1_001, 851],
        [91, 551, 461],
    ]
    assert table["peak"].tolist() == ["chr1-100-201", "chr2-500-600"]
    assert table["pvalue"].isna().tolist() == [False, True]


def test_interact_has_eighteen_columns_without_spaces(links, tmp_path):
    tl.write_interact(links, tmp_path / "links.interact", name="mine")
    track, names, *rows = (tmp_path / "links.interact").read_text().splitlines()
    assert track.startswith('track type=interact name="mine"')
    assert [len(row.split()) for row in [names, *rows]] == [18, 18, 18]
    assert rows[0].split()[:6] == ["chr1", "100", "1001", "ABC/chr1:100-201", "250", "0.25"]
    assert rows[1].split()[1:6] == ["90", "600", "odd_gene/chr2:500-600", "500", "-0.5"]


@pytest.mark.parametrize("write", [tl.write_bedpe, tl.write_links, tl.write_interact])
def test_names_that_end_with_gz_are_compressed(links, tmp_path, write):
    write(links, tmp_path / "links.gz")
    write(links, tmp_path / "links")
    assert gzip.open(tmp_path / "links.gz", "rt").read() == (tmp_path / "links").read_text()


@pytest.mark.parametrize("write", [tl.write_bedpe, tl.write_links, tl.write_interact])
def test_path_may_be_in_the_home_of_the_user_and_end_with_gz_in_capitals(
    links, tmp_path, write, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(links, "~/links.GZ")
    write(links, tmp_path / "links")
    assert gzip.open(tmp_path / "links.GZ", "rt").read() == (tmp_path / "links").read_text()


@pytest.mark.parametrize("write", [tl.write_bedpe, tl.write_links, tl.write_interact])
@pytest.mark.parametrize("kept_as", ["csv", "category"])
def test_links_that_were_kept_in_a_file_or_as_categories_are_written_as_before(
    links, tmp_path, write, kept_as
):
    links = links.assign(chrom=["1", "2"], peak=["1:100-201", "2:500-600"])
    write(links, tmp_path / "expected")
    if kept_as == "csv":
        again = pd.read_csv(StringIO(links.to_csv(index=False)))
        assert again["chrom"].dtype == np.int64
    else:
        again = links.astype(dict.fromkeys(["gene", "peak", "chrom", "strand"], "category"))
    write(again, tmp_path / "links")
    assert (tmp_path / "links").read_text() == (tmp_path / "expected").read_text()


@pytest.mark.parametrize("write", [tl.write_bedpe, tl.write_links, tl.write_interact])
def test_positions_that_a_merge_made_floats_are_written_to_the_base(links, tmp_path, write):
    far = links.assign(tss=links["tss"] + 12_742_100)
    write(far, tmp_path / "expected")
    write(far.astype({"tss": float, "start": float, "distance": float}), tmp_path / "links")
    assert (tmp_path / "links").read_text() == (tmp_path / "expected").read_text()
    with pytest.raises(ValueError, match="`links` must have positions, but 1 of"):
        write(far.assign(tss=far["tss"].astype(float).where(far.index > 0)), tmp_path / "links")


@pytest.mark.parametrize("write", [tl.write_bedpe, tl.write_links, tl.write_interact])
def test_rows_of_one_label_stay_apart(links, tmp_path, write):
    write(links.assign(q_value=[0.02, 0.5]), tmp_path / "expected")
    write(links.assign(q_value=[0.02, 0.5]).set_axis([7, 7]), tmp_path / "links")
    assert (tmp_path / "links").read_text() == (tmp_path / "expected").read_text()


@pytest.mark.parametrize("write", [tl.write_bedpe, tl.write_links, tl.write_interact])
def test_missing_columns_are_named(links, tmp_path, write):
    with pytest.raises(KeyError, match="has no `tss`"):
        write(links.drop(columns="tss"), tmp_path / "links")


@pytest.mark.parametrize("form", [object, "category"])
def test_missing_strand_is_a_point_and_a_missing_name_is_refused(links, tmp_path, form):
    links.loc[0, "strand"] = np.nan
    tl.write_bedpe(links.astype({"strand": form}), tmp_path / "links")
    strands = [row.split("\t")[9] for row in (tmp_path / "links").read_text().splitlines()[1:]]
    assert strands == [".", "-"]
    links.loc[1, "gene"] = np.nan
    with pytest.raises(ValueError, match="1 of 2 lack one, or a name: `chr2:500-600`"):
        tl.write_bedpe(links, tmp_path / "links")


@pytest.mark.parametrize("write", [tl.write_bedpe, tl.write_links, tl.write_interact])
def test_what_is_no_table_is_refused(tmp_path, write):
    with pytest.raises(TypeError, match="`links` must be a table, as `tl.peak_gene_links` ret"):
        write([1], tmp_path / "links")


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", None])
def test_interact_refuses_a_name_that_is_not_one_line_of_text(links, tmp_path, name):
    with pytest.raises(ValueError, match="`name` must be one line of text, got"):
        tl.write_interact(links, tmp_path / "links", name=name)


def test_interact_refuses_missing_scores(links, tmp_path):
    with pytest.raises(ValueError, match=r"some are NaN.*dropna"):
        tl.write_interact(links.assign(score=np.nan), tmp_path / "links")


def test_interact_refuses_a_name_that_ends_the_quotes(links, tmp_path):
    with pytest.raises(ValueError, match="`name` must not have double quotes"):
        tl.write_interact(links, tmp_path / "links", name='a"b')


def test_links_that_were_found_can_be_written_and_read(planted, tmp_path):
    links = tl.peak_gene_links(planted, window=100_000, n_matched=0)
    tl.write_bedpe(links, tmp_path / "links.bedpe")
    table = pd.read_csv(tmp_path / "links.bedpe", sep="\t", na_values=".")
    np.testing.assert_allclose(table["score"], links["score"], rtol=1e-5)
    assert (table["start2"] == links["tss"]).all()
