"""Names of genes and peaks are unique and spelled one way."""

from pathlib import Path

import pandas as pd
import pytest

from scmvp_scvi._validate import parse_peaks
from scmvp_scvi.datasets._features import name_genes, name_peaks

PATH = Path("features.tsv")


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        ("chr1:10-20", "chr1:10-20"),
        ("chr1-10-20", "chr1:10-20"),
        ("chr1_10_20", "chr1:10-20"),
        ("chr1:10_20", "chr1:10-20"),
        ("chr1:10:20", "chr1:10-20"),
        ("1-10-20", "1:10-20"),
        ("chrUn_KI270742v1_10_20", "chrUn_KI270742v1:10-20"),
        ("hg19_chr1_10_20", "hg19_chr1:10-20"),
    ],
)
def test_peaks_are_spelled_one_way_however_they_are_published(published, expected):
    peaks = name_peaks(pd.Series([published]), path=PATH)
    assert peaks.index.tolist() == [expected]
    assert peaks[["start", "end"]].values.tolist() == [[10, 20]]
    # as the rest of the package reads the published name
    parsed = parse_peaks(pd.Index([published]), "atac")
    assert parsed.values.tolist() == peaks[list(parsed)].values.tolist()


def test_genomes_of_peaks_in_one_file_stay_apart():
    peaks = name_peaks(pd.Series(["hg19_chr1:1-2", "mm10_chr1:1-2"]), path=PATH)
    assert peaks["genome"].tolist() == ["hg19", "mm10"]
    assert peaks.index.is_unique


@pytest.mark.parametrize("names", [["chr1:1-2"], ["chr1_GL456210_random:1-2"]])
def test_peaks_of_one_genome_have_no_column_for_it(names):
    assert list(name_peaks(pd.Series(names), path=PATH)) == ["chrom", "start", "end"]


def test_few_names_that_are_no_peaks_are_listed():
    names = pd.Series(["chr1:1-2", "chr1:3-4", "unmapped"])
    with pytest.raises(ValueError, match="1 of its 3 names are not: `unmapped`. Remove these"):
        name_peaks(names, path=PATH)


def test_genes_in_place_of_peaks_are_asked_about():
    with pytest.raises(ValueError, match=r"RNA and ATAC swapped\?"):
        name_peaks(pd.Series(["Xkr4", "Sox17"]), path=PATH)


def test_peak_that_is_there_again_in_another_spelling_is_refused():
    with pytest.raises(ValueError, match="but 1 are there again: `chr1:1-2`"):
        name_peaks(pd.Series(["chr1:1-2", "chr1_1_2"]), path=PATH)


@pytest.mark.parametrize("name", ["chr1:9-1", "chr1:1-1"])
def test_peak_that_does_not_end_after_its_start_is_refused(name):
    match = f"must name peaks that end after their start, but 1 of its 2 do not: `{name}`"
    with pytest.raises(ValueError, match=match):
        name_peaks(pd.Series(["chr1:1-2", name]), path=PATH)


def test_symbols_that_genes_share_are_told_apart_by_their_ids():
    symbols, ids = pd.Series(["A", "B", "A", ""]), pd.Series(["g1", "g2", "g3", "g4"])
    genes = name_genes(symbols, ids=ids, path=PATH)
    assert genes.index.tolist() == ["A_g1", "B", "A_g3", "g4"]
    assert genes["gene_name"].tolist() == ["A", "B", "A", ""]


def test_symbols_without_ids_are_numbered():
    genes = name_genes(pd.Series(["A", "B", "A", "A"]), path=PATH)
    assert genes.index.tolist() == ["A", "B", "A-1", "A-2"]


def test_number_that_another_gene_has_for_a_name_is_passed_over():
    genes = name_genes(pd.Series(["A", "A", "A-1"]), path=PATH)
    assert genes.index.is_unique
    assert genes["gene_name"].tolist() == ["A", "A", "A-1"]


def test_species_of_genes_in_one_file_are_told_by_their_ids():
    ids = pd.Series(["ENSG01", "ENSMUSG01", "GRCh38_ENSG02", "transgene"])
    genes = name_genes(pd.Series(["A", "B", "C", "D"]), ids=ids, path=PATH)
    assert genes["genome"].tolist() == ["human", "mouse", "human", "unknown"]


def test_gene_that_is_spelled_like_a_peak_is_a_gene_among_genes():
    names = ["X-1-2", "A", "B"]
    assert name_genes(pd.Series(names), path=PATH).index.tolist() == names
