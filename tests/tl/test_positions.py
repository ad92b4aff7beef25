"""Places of genes, and pairs with peaks: strands, ends of windows, tables without columns."""

import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scmvp_scvi._validate import parse_peaks
from scmvp_scvi.tl._positions import check_same_chromosomes, gene_positions, pairs_within

DEFAULTS = {"modality": "rna", "chrom_key": "chrom", "tss_key": None, "strand_key": "strand"}
SAME = {"modality": "rna", "chrom_key": "chrom"}


def peaks_of(*names: str) -> pd.DataFrame:
    return parse_peaks(pd.Index(names), "atac")


def test_distance_is_positive_downstream_on_either_strand(genes):
    pairs = pairs_within(genes.assign(strand=["+", "-"]), peaks_of("chr1:1100-1200"), 500)
    assert pairs["distance"].tolist() == [150, -150]


def test_distance_without_strand_is_along_the_chromosome(genes):
    located = gene_positions(genes, **{**DEFAULTS, "strand_key": None})
    assert located["strand"].tolist() == [".", "."]
    pairs = pairs_within(located, peaks_of("chr1:1100-1200"), 500)
    assert pairs["distance"].tolist() == [150, 150]


@pytest.mark.parametrize(("middle", "n_pairs"), [(899, 0), (900, 1), (1_100, 1), (1_101, 0)])
def test_window_includes_its_ends(genes, middle, n_pairs):
    peaks = peaks_of(f"chr1:{middle - 10}-{middle + 10}")
    assert len(pairs_within(genes.iloc[:1], peaks, 100)) == n_pairs


def test_pairs_are_those_of_a_plain_loop(rng):
    genes = pd.DataFrame(
        {
            "chrom": rng.choice(["chr1", "chr2", "chrX"], 30),
            "tss": rng.integers(0, 10_000, 30),
            "strand": rng.choice(["+", "-"], 30),
        }
    )
    starts = rng.integers(0, 10_000, 50)
    chroms = rng.choice(["chr1", "chr2", "chr9"], 50)
    names = [f"{c}:{s}-{s + 7 + i}" for i, (c, s) in enumerate(zip(chroms, starts, strict=True))]
    peaks = peaks_of(*names)
    middle = (peaks["start"] + peaks["end"]) // 2
    expected = {
        (g, p, (middle.iloc[p] - gene.tss) * (1 if gene.strand == "+" else -1))
        for g, gene in genes.iterrows()
        for p in range(50)
        if peaks["chrom"].iloc[p] == gene.chrom and abs(middle.iloc[p] - gene.tss) <= 1_500
    }
    found = pairs_within(genes, peaks, 1_500)
    assert set(found.itertuples(index=False, name=None)) == expected
    assert len(found) == len(expected)


def test_site_is_the_end_that_the_strand_begins_at(genes):
    spans = genes.drop(columns="tss").assign(start=[100, 100], end=[300, 300])
    assert gene_positions(spans, **DEFAULTS)["tss"].tolist() == [100, 299]


@pytest.mark.parametrize("strand", [["1", "-1"], [1, -1], [1.0, -1.0], ["+", "-"]])
def test_strands_are_read_as_signs_or_numbers(genes, strand):
    located = gene_positions(genes.assign(strand=strand), **DEFAULTS)
    assert located["strand"].tolist() == ["+", "-"]


@pytest.mark.parametrize("column", ["chrom", "tss", "strand"])
def test_genes_without_a_position_are_left_out(genes, column):
    missing = genes.astype(object)
    missing.loc["fwd", column] = np.nan
    assert gene_positions(missing, **DEFAULTS).index.tolist() == ["rev"]


@pytest.mark.parametrize("column", ["tss", "start", "end"])
def test_positions_that_are_text_are_read_as_the_numbers_they_say(genes, column):
    spans = genes.assign(start=[100, 100], end=[300, 300])
    spans = spans if column == "tss" else spans.drop(columns="tss")
    expected = gene_positions(spans, **DEFAULTS)
    spans[column] = spans[column].astype(str)
    pd.testing.assert_frame_equal(gene_positions(spans, **DEFAULTS), expected)


@pytest.mark.parametrize("value", ["1,000", "unknown", np.inf, -1])
@pytest.mark.parametrize("column", ["tss", "start"])
def test_positions_that_are_none_are_named(genes, column, value):
    spans = genes.assign(start=[100, 100], end=[300, 300]).astype(object)
    spans = spans if column == "tss" else spans.drop(columns="tss")
    spans.loc["rev", column] = value
    match = rf'var\["{column}"\]` must hold positions, but 1 genes have `{value}`: `rev`'
    with pytest.raises(ValueError, match=match):
        gene_positions(spans, **DEFAULTS)


def test_genes_that_end_before_their_start_are_refused_and_the_way_out_swaps_both(genes):
    spans = genes.drop(columns="tss").assign(start=[100, 300], end=[300, 100])
    with pytest.raises(ValueError, match="must end after .* but 1 of 2 do not: `rev`") as error:
        gene_positions(spans, **DEFAULTS)
    adata = AnnData(np.ones((2, 2)), var=spans)
    (line,) = re.findall("`(var = [^`]*)`", str(error.value))
    exec(line, {"mdata": {"rna": adata}})
    assert gene_positions(adata.var, **DEFAULTS)["tss"].tolist() == [100, 299]


def test_gene_of_no_length_is_refused(genes):
    with pytest.raises(ValueError, match="must end after their start, but 2 of 2 do not: `fwd`"):
        gene_positions(genes.drop(columns="tss").assign(start=9, end=9), **DEFAULTS)


def test_odd_strands_of_genes_without_a_site_are_refused_with_what_leaves_these_out(genes):
    spans = genes.drop(columns="tss").assign(start=100, end=300, strand=[".", "-"])
    adata = AnnData(np.ones((2, 2)), var=spans.astype({"strand": "category"}))
    with pytest.raises(ValueError, match="1 genes have `.`: `fwd`. Correct them, or lea") as error:
        gene_positions(adata.var, **DEFAULTS)
    (line,) = re.findall("or leave these genes out: `([^`]*)`", str(error.value))
    exec(line, {"mdata": {"rna": adata}})
    assert gene_positions(adata.var, **DEFAULTS).index.tolist() == ["rev"]


def test_genes_as_muon_reads_them_are_told_what_reads_their_intervals():
    genes = pd.DataFrame({"interval": ["chr1:100-300"]}, index=["gene"])
    match = "`chrom_key=.*`datasets.read_10x_multiome` reads it from `interval`, and the sites"
    with pytest.raises(KeyError, match=match):
        gene_positions(genes, **DEFAULTS)


def test_strand_that_tells_the_site_cannot_be_gone_without(genes):
    spans = genes.drop(columns=["tss", "strand"]).assign(start=100, end=300)
    with pytest.raises(KeyError, match="`strand_key=.*Add it from the annotation"):
        gene_positions(spans, **DEFAULTS)


def test_odd_strands_are_named(genes):
    with pytest.raises(ValueError, match=r"1 genes have `forward`: `fwd`"):
        gene_positions(genes.assign(strand=["forward", "-"]), **DEFAULTS)


def test_missing_strand_column_says_how_to_go_without(genes):
    with pytest.raises(KeyError, match="Pass `strand_key=None` to measure"):
        gene_positions(genes.drop(columns="strand"), **DEFAULTS)


def test_missing_chromosome_column_suggests_one_spelled_alike(genes):
    with pytest.raises(KeyError, match=r"`chrom_key=.*Did you mean `Chrom`\?"):
        gene_positions(genes.rename(columns={"chrom": "Chrom"}), **DEFAULTS)


def test_table_without_sites_says_what_it_needs(genes):
    with pytest.raises(KeyError, match="must say where genes start"):
        gene_positions(genes.drop(columns="tss"), **DEFAULTS)


@pytest.mark.parametrize(
    ("peak", "chrom", "way_out"),
    [
        ("chr1:1-9", "1", r'column = mdata\["rna"\].*= "chr" \+ column'),
        ("1:1-9", "chr1", r'column.str.removeprefix\("chr"\)'),
        ("chr1:1-9", "scaffold_3", "Check that both are of one genome"),
    ],
)
def test_chromosomes_spelled_differently_are_refused_with_the_mapping(genes, peak, chrom, way_out):
    with pytest.raises(ValueError, match=way_out):
        check_same_chromosomes(genes.assign(chrom=chrom), peaks_of(peak), **SAME)


def test_a_contig_of_one_name_does_not_hide_chromosomes_of_two(genes):
    chrom = ["1", "KI270711.1", *["X"] * (len(genes) - 2)]
    peaks = peaks_of("chr1:1-9", "KI270711.1:1-9", "chr3:1-9")
    with pytest.raises(ValueError, match=r"some have two names.*column.replace\({'1': 'chr1'}\)"):
        check_same_chromosomes(genes.assign(chrom=chrom), peaks, **SAME)


@pytest.mark.parametrize(
    ("chroms", "peak"),
    [
        (["Chr1", "Chr1"], "chr1:1-9"),
        (["CHR1", "CHR1"], "chr1:1-9"),
        (["1", "1"], "Chr1:1-9"),
        (["chr1", "1"], "chr1:1-9"),  # two annotations that were joined
        (["chr1", "1"], "1:1-9"),
        (["chrX", "X"], "chr1:1-9"),
        (["1", "1"], "chr1:1-9"),
        (["chr1", "chr1"], "1:1-9"),
    ],
)
def test_line_that_renames_chromosomes_gives_each_the_name_that_the_peaks_have(
    genes, chroms, peak
):
    adata = AnnData(np.ones((2, 2)), var=genes.assign(chrom=pd.Categorical(chroms)))
    with pytest.raises(ValueError, match="spelled differently") as error:
        check_same_chromosomes(adata.var, peaks_of(peak), **SAME)
    (line,) = re.findall("`(column = [^`]*)`", str(error.value))
    exec(line, {"mdata": {"rna": adata}})
    expected = "chrX" if "X" in chroms else peak.removesuffix(":1-9")
    assert adata.var["chrom"].tolist() == [expected] * 2


def test_chromosomes_on_one_side_alone_are_left_as_they_are(genes):
    chrom = ["chr1", *["chrM"] * (len(genes) - 1)]
    check_same_chromosomes(genes.assign(chrom=chrom), peaks_of("chr1:1-9", "chr3:1-9"), **SAME)


def test_numbers_of_chromosomes_are_read_as_such_though_one_is_missing(genes):
    chrom = np.arange(1.0, len(genes) + 1)
    chrom[-1] = np.nan
    found = gene_positions(genes.assign(chrom=chrom), **DEFAULTS)["chrom"]
    assert list(found) == [str(i) for i in range(1, len(genes))]
