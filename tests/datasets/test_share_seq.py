"""SHARE-seq files are read to what they were written from."""

import pytest

from scmvp_scvi import SCMVPModel
from scmvp_scvi.datasets import read_share_seq

GENES = ["Lef1", "Hoxc13", "Gm1", "Gm1"]
GENE_NAMES = ["Lef1", "Hoxc13", "Gm1", "Gm1-1"]
BED = ["chr1\t3094484\t3094784", "chr1\t3113499\t3113799", "chrX\t5\t305"]
PEAKS = ["chr1:3094484-3094784", "chr1:3113499-3113799", "chrX:5-305"]
RNA_CELLS = [f"R1.0{i},R2.01,R3.06,P1.5{3 + i % 2}" for i in range(5)]
# the same cells in the fragments: the last field is 48 less
OF_FRAGMENTS = [f"R1.0{i}.R2.01.R3.06.P1.0{5 + i % 2}" for i in range(5)]
WITH_DOTS = [cell.replace(",", ".") for cell in RNA_CELLS]
KEPT = [WITH_DOTS[i] for i in (0, 2, 4)]
SAMPLES = {
    "skin": ("GSM4156608_skin.late.anagen", "GSM4156597_skin.late.anagen", "GSM4156597_skin"),
    "brain": ("GSM4156610_brain", "GSM4156599_brain", "GSM4156599_brain"),
}


@pytest.fixture
def write_share_seq(tmp_path, truth, write, write_dense, write_matrix_market):
    """Return a function that writes the files of a sample."""

    def write_share_seq(sample, atac_cells, types=True):
        rna, atac, table = SAMPLES[sample]
        write_dense(
            tmp_path / f"{rna}.rna.counts.txt.gz", truth.rna_counts, GENES, RNA_CELLS, "gene"
        )
        in_order = [atac_cells[i] for i in truth.atac_order]
        write(tmp_path / f"{atac}.barcodes.txt.gz", [*in_order, "R1.90.P1.99", "R1.91.P1.99"])
        write(tmp_path / f"{atac}.peaks.bed.gz", BED)
        write_matrix_market(tmp_path / f"{atac}.counts.txt.gz", truth.atac_counts)
        if types:
            rows = zip(OF_FRAGMENTS, RNA_CELLS, "ABCDE", strict=True)
            lines = ["atac.bc\trna.bc\tcelltype", *("\t".join(row) for row in rows)]
            write(tmp_path / f"{table}_celltype.txt.gz", lines)

    return write_share_seq


@pytest.mark.parametrize("atac_cells", [WITH_DOTS, OF_FRAGMENTS])
def test_skin_is_read_to_what_was_written_whichever_barcodes_the_peaks_have(
    atac_cells, tmp_path, write_share_seq, assert_is_truth
):
    write_share_seq("skin", atac_cells)
    mdata = read_share_seq(tmp_path, progress=False)
    assert_is_truth(mdata, GENE_NAMES, PEAKS, KEPT)
    assert mdata.obs["cell_type"].tolist() == ["A", "C", "E"]
    assert mdata.obs["batch"].tolist() == ["P1.53"] * 3


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.filterwarnings("ignore:.* has fewer than 3 cells:UserWarning")
def test_what_was_read_registers_with_the_model_labels_and_all(tmp_path, write_share_seq):
    write_share_seq("skin", WITH_DOTS)
    mdata = read_share_seq(tmp_path, progress=False)
    modalities = {"rna_layer": "rna", "atac_layer": "atac"}
    SCMVPModel.setup_mudata(
        mdata, batch_key="batch", labels_key="cell_type", modalities=modalities
    )
    assert SCMVPModel(mdata).summary_stats["n_labels"] == 3


def test_brain_without_cell_types_is_read_to_what_was_written(
    tmp_path, write_share_seq, assert_is_truth
):
    write_share_seq("brain", WITH_DOTS, types=False)
    mdata = read_share_seq(tmp_path, "brain", progress=False)
    assert_is_truth(mdata, GENE_NAMES, PEAKS, KEPT)
    assert mdata.obs.columns.tolist() == ["batch"]


def test_barcodes_that_nothing_translates_have_no_partner(tmp_path, write_share_seq):
    write_share_seq("skin", OF_FRAGMENTS, types=False)
    match = r"none is: the RNA has `R1.00.R2.01.R3.06.P1.53`, .* the ATAC `R1.04.*P1.05`"
    with pytest.raises(ValueError, match=match):
        read_share_seq(tmp_path, progress=False)


def test_peaks_that_are_not_a_bed_file_are_refused(tmp_path, write_share_seq, write):
    write_share_seq("skin", WITH_DOTS)
    write(tmp_path / "GSM4156597_skin.late.anagen.peaks.bed.gz", ["chr1:1-2"] * 3)
    with pytest.raises(ValueError, match="columns chromosome, start and end, .* but it has 1"):
        read_share_seq(tmp_path, progress=False)


@pytest.mark.parametrize("repeated", [OF_FRAGMENTS, RNA_CELLS])
def test_barcode_that_is_there_twice_in_the_cell_types_is_refused_with_the_file(
    repeated, tmp_path, write_share_seq, write
):
    write_share_seq("skin", OF_FRAGMENTS)
    other = RNA_CELLS if repeated is OF_FRAGMENTS else OF_FRAGMENTS
    pairs = [(repeated[0], other[0]), (repeated[0], other[1])]
    rows = [f"{a}\t{b}\tT" if repeated is OF_FRAGMENTS else f"{b}\t{a}\tT" for a, b in pairs]
    write(tmp_path / "GSM4156597_skin_celltype.txt.gz", ["atac.bc\trna.bc\tcelltype", *rows])
    match = "GSM4156597_skin_celltype.txt.gz` must name each cell once"
    with pytest.raises(ValueError, match=match):
        read_share_seq(tmp_path, progress=False)
