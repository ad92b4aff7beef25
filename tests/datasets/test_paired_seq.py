"""Paired-seq files are read to what they were written from."""

import numpy as np
import pytest

from scmvp_scvi.datasets import read_paired_seq

GENES = ["ENSMUSG01\tXkr4", "ENSMUSG02\tSox17", "ENSMUSG03\tPcdha1", "ENSMUSG04\tPcdha1"]
GENE_NAMES = ["Xkr4", "Sox17", "Pcdha1_ENSMUSG03", "Pcdha1_ENSMUSG04"]
BINS = ["chr1:3000000-3001000", "chr1:3001000-3002000", "chrX:0-1000"]


@pytest.fixture
def write_paired_seq(truth, write, write_matrix_market):
    """Return a function that writes the two folders of a sample."""

    def write_paired_seq(
        folder, prefix, genes=GENES, peaks=BINS, suffix="", atac_counts=None, atac_cells=None
    ):
        rna, atac = folder / f"{prefix}_RNA", folder / f"{prefix}_DNA"
        write(rna / f"barcodes.tsv{suffix}", truth.cells)
        write(rna / f"genes.tsv{suffix}", genes)
        write_matrix_market(rna / f"matrix.mtx{suffix}", truth.rna_counts)
        write(atac / f"barcodes.tsv{suffix}", atac_cells or truth.atac_cells)
        write(atac / f"genes.tsv{suffix}", peaks)
        counts = truth.atac_counts if atac_counts is None else atac_counts
        write_matrix_market(atac / f"matrix.mtx{suffix}", counts)

    return write_paired_seq


def test_cortex_bins_are_read_to_what_was_written(tmp_path, write_paired_seq, assert_is_truth):
    write_paired_seq(tmp_path, "Adult_CTX")
    mdata = read_paired_seq(tmp_path, "adult_cortex", progress=False)
    assert_is_truth(mdata, GENE_NAMES, BINS)
    assert mdata.obs.columns.tolist() == []


def test_cell_lines_inside_an_unpacked_archive_are_read_with_their_clusters(
    tmp_path, truth, write, write_paired_seq, assert_is_truth
):
    folder = tmp_path / "Cell_Mix"
    write_paired_seq(folder, "Cell_Mix", ["A", '"B"', "A", "NA"], suffix=".gz")
    clusters = [f"{cell}\tcluster {i}\t0.1" for i, cell in enumerate(truth.cells[:4])]
    write(folder / "Cell_embeddings.xls", ["Cell_ID\tCluster\tUMAP1", *clusters])
    mdata = read_paired_seq(tmp_path, progress=False)
    assert_is_truth(mdata, ["A", "B", "A-1", "NA"], BINS)
    assert mdata.obs["cell_type"].tolist() == ["cluster 0", "cluster 2", "Unknown"]


def test_clusters_are_found_by_the_names_of_their_columns(
    tmp_path, truth, write, write_paired_seq
):
    write_paired_seq(tmp_path, "Adult_CTX")
    rows = [f"0.1\t0.2\t{cell}\tcluster {i}" for i, cell in enumerate(truth.cells)]
    write(tmp_path / "Cell_embeddings.xls", ["tSNE-1\ttSNE-2\tID\tCluster", *rows])
    mdata = read_paired_seq(tmp_path, "adult_cortex", progress=False)
    assert mdata.obs["cell_type"].tolist() == [f"cluster {i}" for i in truth.kept]


@pytest.mark.parametrize("header", [[], ["barcode\tgroup"]])
def test_clusters_of_a_table_with_or_without_header_are_those_of_their_cells(
    tmp_path, truth, write, write_paired_seq, header
):
    write_paired_seq(tmp_path, "Cell_Mix")
    rows = [f"{cell}\tcluster {i}" for i, cell in enumerate(truth.cells)]
    write(tmp_path / "Cell_embeddings.xls", [*header, *rows])
    mdata = read_paired_seq(tmp_path, progress=False)
    assert mdata.obs["cell_type"].tolist() == [f"cluster {i}" for i in truth.kept]


def test_clusters_are_those_of_the_sample_where_another_lies_beside_it(
    tmp_path, truth, write, write_paired_seq
):
    for folder, prefix, cluster in (("a", "Adult_CTX", "neuron"), ("b", "FB", "progenitor")):
        write_paired_seq(tmp_path / folder, prefix)
        rows = [f"{cell}\t{cluster}" for cell in truth.cells]
        write(tmp_path / folder / "Cell_embeddings.xls", ["Cell_ID\tCluster", *rows])
    mdata = read_paired_seq(tmp_path, "fetal_forebrain", progress=False)
    assert set(mdata.obs["cell_type"]) == {"progenitor"}


def test_table_of_other_cells_is_warned_about(tmp_path, write, write_paired_seq):
    write_paired_seq(tmp_path, "Cell_Mix")
    write(tmp_path / "Cell_embeddings.xls", ["Cell_ID\tCluster", "elsewhere\t1"])
    with pytest.warns(UserWarning, match="none of the 3 cells that have both modalities"):
        read_paired_seq(tmp_path, progress=False)


def test_transposed_matrix_is_read_as_the_other(
    tmp_path, truth, write_paired_seq, assert_is_truth
):
    write_paired_seq(tmp_path, "FB", atac_counts=truth.atac_counts.T)
    mdata = read_paired_seq(tmp_path, "fetal_forebrain", progress=False)
    assert_is_truth(mdata, GENE_NAMES, BINS)


def test_suffixes_of_barcodes_are_dropped_where_nothing_matches_with_them(
    tmp_path, truth, write_paired_seq, assert_is_truth
):
    with_suffix = [f"{cell}_ATAC" for cell in truth.atac_cells]
    write_paired_seq(tmp_path, "Cell_Mix", atac_cells=with_suffix)
    assert_is_truth(read_paired_seq(tmp_path, progress=False), GENE_NAMES, BINS)


def test_third_column_of_a_feature_table_is_no_symbol(tmp_path, write_paired_seq, assert_is_truth):
    write_paired_seq(tmp_path, "FB", genes=[f"{line}\tGene Expression" for line in GENES])
    mdata = read_paired_seq(tmp_path, "fetal_forebrain", progress=False)
    assert_is_truth(mdata, GENE_NAMES, BINS)


def test_cell_that_has_two_clusters_is_refused_with_the_file(tmp_path, write, write_paired_seq):
    write_paired_seq(tmp_path, "Cell_Mix")
    write(tmp_path / "Cell_embeddings.xls", ["Cell_ID\tCluster", "a\t1", "a\t2"])
    match = "Cell_embeddings.xls` must name each cell once, but 1 of its 2 names .*: `a`"
    with pytest.raises(ValueError, match=match):
        read_paired_seq(tmp_path, progress=False)


def test_swapped_modalities_are_asked_about(tmp_path, write_paired_seq):
    write_paired_seq(tmp_path, "Cell_Mix", genes=[*BINS, "Xkr4"], peaks=["A", "B", "C"])
    match = r"genes.tsv` must name genes, but 3 of its 4 names are peaks: .*swapped\?"
    with pytest.raises(ValueError, match=match):
        read_paired_seq(tmp_path, progress=False)


def test_table_of_another_length_is_refused_with_both_sizes(tmp_path, truth, write_paired_seq):
    write_paired_seq(tmp_path, "Cell_Mix", atac_counts=np.vstack([truth.atac_counts] * 2))
    match = "matrix.mtx` must be 3 features by 5 cells, .* but it is 6 by 5"
    with pytest.raises(ValueError, match=match):
        read_paired_seq(tmp_path, progress=False)


def test_clusters_without_a_column_for_them_are_refused(tmp_path, write, write_paired_seq):
    write_paired_seq(tmp_path, "Cell_Mix")
    write(tmp_path / "Cell_embeddings.xls", ["Cell_ID", "a"])
    with pytest.raises(ValueError, match="Cell_embeddings.xls` must have the columns cell and"):
        read_paired_seq(tmp_path, progress=False)
