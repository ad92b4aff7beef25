"""sci-CAR files are read to what they were written from."""

import mudata
import numpy as np
import pytest

from scmvp_scvi.datasets import read_sci_car

PREFIXES = {
    "a549": ("GSM3271040_RNA_sciCAR_A549", "GSM3271041_ATAC_sciCAR_A549"),
    "mouse_kidney": ("GSM3271044_RNA_mouse_kidney", "GSM3271045_ATAC_mouse_kidney"),
}
GENES = [
    "gene_id,gene_type,gene_short_name",
    '"ENSG00000111640.10","protein_coding","GAPDH"',
    '"ENSMUSG00000057666.18","protein_coding","Gapdh"',
    '"ENSG00000228327","lincRNA","RP11-206L10.2"',
    '"ENSG00000232995","antisense","RP11-206L10.2"',
]
GENE_NAMES = [
    "GAPDH",
    "Gapdh",
    "RP11-206L10.2_ENSG00000228327",
    "RP11-206L10.2_ENSG00000232995",
]
CELLS = {
    "a549": (
        "sample,cell_name,experiment,treatment_time",
        ["A549,coassay,1", "3T3,coassay,NA", "293T,coassay,NA", "A549,coassay,3", "NA,coassay,NA"],
    ),
    "mouse_kidney": (
        "sample,replicate,experiment,tsne_1,tsne_2,cell_name",
        [f"Replicate {1 + i % 2},coassay,0.1,0.2,Type {i}" for i in range(5)],
    ),
}


@pytest.fixture
def write_sci_car(tmp_path, truth, write, write_matrix_market):
    """Return a function that writes the six files of a sample."""

    def write_sci_car(sample, peaks, suffix=".txt.gz", atac_counts=None, of_rna="", of_atac=""):
        rna, atac = (tmp_path / prefix for prefix in PREFIXES[sample])
        header, rows = CELLS[sample]
        cells = [f"{cell}{of_rna},{row}" for cell, row in zip(truth.cells, rows, strict=True)]
        write(tmp_path / f"{rna.name}_cell{suffix}", [header, *cells])
        write(tmp_path / f"{rna.name}_gene{suffix}", GENES)
        write_matrix_market(tmp_path / f"{rna.name}_gene_count{suffix}", truth.rna_counts)
        write(
            tmp_path / f"{atac.name}_cell{suffix}",
            [
                "sample,source,group,experiment",
                *(f"{c}{of_atac},Human,A549_1h,x" for c in truth.atac_cells),
            ],
        )
        write(
            tmp_path / f"{atac.name}_peak{suffix}",
            ["id,peak,chr,start,end", *(f"{i},{p},c,1,2" for i, p in enumerate(peaks, 1))],
        )
        counts = truth.atac_counts if atac_counts is None else atac_counts
        write_matrix_market(tmp_path / f"{atac.name}_peak_count{suffix}", counts, "real")
        return tmp_path

    return write_sci_car


def test_cell_lines_of_two_species_are_read_to_what_was_written(write_sci_car, assert_is_truth):
    folder = write_sci_car("a549", ["1-10000-10500", "GL000205.2-7-90", "chr1-10000-10500"])
    mdata = read_sci_car(folder, progress=False)
    names = ["1:10000-10500", "GL000205.2:7-90", "chr1:10000-10500"]
    assert_is_truth(mdata, GENE_NAMES, names)
    assert mdata["rna"].var["genome"].tolist() == ["human", "mouse", "human", "human"]
    assert mdata["rna"].var["gene_id"].tolist()[0] == "ENSG00000111640.10"
    assert mdata.obs["cell_type"].tolist() == ["A549", "293T", "Unknown"]
    np.testing.assert_array_equal(mdata.obs["treatment_time"], [1, np.nan, np.nan])
    assert mdata.obs["source"].tolist() == ["Human"] * 3


def test_columns_of_both_tables_of_cells_are_kept_where_names_differ_in_the_modality(
    write_sci_car, assert_is_truth
):
    peaks = ["1-1-2", "2-1-2", "3-1-2"]
    folder = write_sci_car("a549", peaks, of_rna="_RNA", of_atac="_ATAC")
    mdata = read_sci_car(folder, progress=False)
    assert_is_truth(mdata, GENE_NAMES, ["1:1-2", "2:1-2", "3:1-2"])
    assert mdata.obs["cell_type"].tolist() == ["A549", "293T", "Unknown"]
    assert mdata.obs["source"].tolist() == ["Human"] * 3
    assert mdata.obs["group"].tolist() == ["A549_1h"] * 3


def test_kidney_in_plain_files_is_read_to_what_was_written(write_sci_car, assert_is_truth):
    folder = write_sci_car("mouse_kidney", ["chr1-10-20", "chr2-10-20", "chrX-10-20"], ".txt")
    mdata = read_sci_car(folder, "mouse_kidney", progress=False)
    assert_is_truth(mdata, GENE_NAMES, ["chr1:10-20", "chr2:10-20", "chrX:10-20"])
    assert mdata.obs["cell_type"].tolist() == ["Type 0", "Type 2", "Type 4"]
    assert mdata.obs["batch"].tolist() == ["Replicate 1"] * 3


def test_halves_of_the_atac_are_rounded_up(write_sci_car, truth, assert_is_truth):
    halved = truth.atac_counts - 0.5 * (truth.atac_counts > 0)
    folder = write_sci_car(
        "mouse_kidney", ["chr1-1-2", "chr2-1-2", "chr3-1-2"], atac_counts=halved
    )
    mdata = read_sci_car(folder, "mouse_kidney", progress=False)
    assert_is_truth(mdata, GENE_NAMES, ["chr1:1-2", "chr2:1-2", "chr3:1-2"])


def test_what_was_read_is_saved_and_opened_again(write_sci_car, tmp_path, assert_is_truth):
    folder = write_sci_car("a549", ["1-1-2", "2-1-2", "3-1-2"])
    read_sci_car(folder, progress=False).write(tmp_path / "saved.h5mu")
    saved = mudata.read_h5mu(tmp_path / "saved.h5mu")
    assert_is_truth(saved, GENE_NAMES, ["1:1-2", "2:1-2", "3:1-2"])
    assert saved.obs["cell_type"].tolist() == ["A549", "293T", "Unknown"]


def test_missing_column_is_named_with_those_that_are_there(write_sci_car, tmp_path, write):
    folder = write_sci_car("a549", ["1-1-2", "2-1-2", "3-1-2"])
    write(tmp_path / "GSM3271040_RNA_sciCAR_A549_cell.txt.gz", ["cell,cell_name", "a,A549"])
    match = "`sample` is missing: it has `cell`, `cell_name`"
    with pytest.raises(KeyError, match=match):
        read_sci_car(folder, progress=False)


def test_swapped_files_are_asked_about(write_sci_car, tmp_path):
    folder = write_sci_car("a549", ["1-1-2", "2-1-2", "3-1-2"])
    rna, atac = (tmp_path / f"{prefix}_cell.txt.gz" for prefix in PREFIXES["a549"])
    content = rna.read_bytes()
    rna.write_bytes(atac.read_bytes())
    atac.write_bytes(content)
    match = "RNA_sciCAR_A549_cell.txt.gz` .*`cell_name` is missing.* RNA and ATAC are not swapped"
    with pytest.raises(KeyError, match=match):
        read_sci_car(folder, progress=False)
