"""SNARE-seq files are read to what they were written from."""

import pytest

from scmvp_scvi.datasets import read_snare_seq

PEAKS = ["chr1:4914570-4914685", "chr1_GL456210_random:1-90", "chrX:5-10"]
GENES = ["0610040J01Rik", "1700017B05Rik", "Pcdha1", "Pcdha1"]
GENE_NAMES = ["0610040J01Rik", "1700017B05Rik", "Pcdha1", "Pcdha1-1"]
MIX = "GSE126074_CellLineMixture_SNAREseq"


@pytest.fixture
def write_snare_seq(tmp_path, truth, write, write_matrix_market):
    """Return a function that writes the six files of a sample of cortex."""

    def write_snare_seq(sample, peaks=PEAKS):
        start = tmp_path / f"GSE126074_{sample}_SNAREseq_"
        write(tmp_path / f"{start.name}cDNA.barcodes.tsv.gz", [f'"{c}"' for c in truth.cells])
        write(tmp_path / f"{start.name}cDNA.genes.tsv.gz", GENES)
        write_matrix_market(tmp_path / f"{start.name}cDNA.counts.mtx.gz", truth.rna_counts)
        write(tmp_path / f"{start.name}chromatin.barcodes.tsv.gz", truth.atac_cells)
        write(tmp_path / f"{start.name}chromatin.peaks.tsv.gz", peaks)
        write_matrix_market(tmp_path / f"{start.name}chromatin.counts.mtx.gz", truth.atac_counts)

    return write_snare_seq


def test_cortex_is_read_to_what_was_written_with_its_libraries(
    tmp_path, truth, write_snare_seq, assert_is_truth
):
    truth.cells = ["09A_CAGC", "09A_CGCC", "09B_CAGC", "09B_TTTT", "10A_ACGT"]
    write_snare_seq("AdBrainCortex")
    mdata = read_snare_seq(tmp_path, progress=False)
    assert_is_truth(mdata, GENE_NAMES, PEAKS)
    assert mdata.obs["batch"].tolist() == ["09A", "09B", "10A"]


def test_newborn_cortex_without_libraries_in_its_names_has_no_batch(
    tmp_path, write_snare_seq, assert_is_truth
):
    write_snare_seq("P0_BrainCortex")
    mdata = read_snare_seq(tmp_path, "p0_cortex", progress=False)
    assert_is_truth(mdata, GENE_NAMES, PEAKS)
    assert mdata.obs.columns.tolist() == []


@pytest.mark.parametrize("corner", [None, "gene"])
@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_dense_tables_of_cell_lines_are_read_to_what_was_written(
    corner, suffix, tmp_path, truth, write_dense, assert_is_truth
):
    counts = tmp_path / f"{MIX}_cDNA_counts{suffix}"
    write_dense(counts, truth.rna_counts, GENES, truth.cells, corner)
    write_dense(
        tmp_path / f"{MIX}_chromatin_counts{suffix}",
        truth.atac_counts,
        ["chr1-1-2", "chr1_5_9", "chr2:3-7"],
        truth.atac_cells,
        corner,
    )
    mdata = read_snare_seq(tmp_path, "cell_mix", progress=False)
    assert_is_truth(mdata, GENE_NAMES, ["chr1:1-2", "chr1:5-9", "chr2:3-7"])


def test_repeated_peak_is_refused(tmp_path, write_snare_seq):
    write_snare_seq("AdBrainCortex", ["chr1:1-2", "chr1:5-9", "chr1-1-2"])
    match = "peaks.tsv.gz` must name each peak once, but 1 are there again: `chr1:1-2`"
    with pytest.raises(ValueError, match=match):
        read_snare_seq(tmp_path, progress=False)
