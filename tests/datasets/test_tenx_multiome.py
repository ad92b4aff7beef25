"""The matrices of Cell Ranger ARC are read to what they were written from."""

import h5py
import numpy as np
import pytest
import scipy.sparse as sp

from scmvp_scvi import SCMVPModel
from scmvp_scvi.datasets import read_10x_multiome

GENES = [("ENSG01", "TP53"), ("ENSG02", "MATR3"), ("ENSG03", "MATR3"), ("ENSMUSG04", "Trp53")]
GENE_NAMES = ["TP53", "MATR3_ENSG02", "MATR3_ENSG03", "Trp53"]
PEAKS = ["chr1:9-20", "chr1:30-40", "KI270728.1:1-9"]
BARCODES = ["AAAC-1", "AAAG-1", "AAAT-2", "AACA-2", "AACC-2"]


@pytest.fixture
def features():
    genes = [(*gene, "Gene Expression", "GRCh38") for gene in GENES]
    return [*genes, *((peak, peak, "Peaks", "GRCh38") for peak in PEAKS)]


@pytest.fixture
def counts(truth):
    """``(features, cells)``, all cells having both modalities."""
    truth.cells, truth.kept = BARCODES, range(5)
    return np.hstack([truth.rna, truth.atac]).T


@pytest.fixture
def h5(tmp_path, counts, features):
    path = tmp_path / "filtered_feature_bc_matrix.h5"
    matrix = sp.csc_matrix(counts)
    ids, names, types, genomes = zip(*features, strict=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["shape"] = np.array(matrix.shape, dtype="int32")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["barcodes"] = np.array(BARCODES, dtype="S")
        table = group.create_group("features")
        columns = {"id": ids, "name": names, "feature_type": types, "genome": genomes}
        for name, values in columns.items():
            table[name] = np.array(values, dtype="S")
        table["_all_tag_keys"] = np.array(["genome"], dtype="S")
    return path


def test_hdf5_file_is_read_to_what_was_written(h5, assert_is_truth):
    mdata = read_10x_multiome(h5)
    assert_is_truth(mdata, GENE_NAMES, PEAKS)
    assert mdata.obs["batch"].tolist() == ["1", "1", "2", "2", "2"]
    assert mdata["rna"].var["genome"].tolist() == ["human"] * 3 + ["mouse"]


def test_two_genomes_in_one_file_stay_apart(h5):
    table = {
        "id": ["GRCh38_ENSG01", "GRCh38_ENSG02", "mm10___ENSMUSG01", "mm10___ENSMUSG02"],
        "name": ["GRCh38_TP53", "GRCh38_ACTB", "mm10___Trp53", "mm10___Actb"],
    }
    peaks = ["GRCh38_chr1:9-20", "mm10_chr1:9-20", "mm10_chr2:1-9"]
    with h5py.File(h5, "a") as file:
        for column, genes in table.items():
            del file[f"matrix/features/{column}"]
            file[f"matrix/features/{column}"] = np.array(genes + peaks, dtype="S")
    mdata = read_10x_multiome(h5)
    assert mdata["rna"].var["genome"].tolist() == ["human", "human", "mouse", "mouse"]
    assert mdata["rna"].var_names.tolist() == table["name"]
    assert mdata["atac"].var["genome"].tolist() == ["GRCh38", "mm10", "mm10"]
    assert mdata["atac"].var_names.tolist() == peaks


def test_folder_of_one_hdf5_file_is_read_as_the_file(h5, assert_is_truth):
    assert_is_truth(read_10x_multiome(h5.parent), GENE_NAMES, PEAKS)


def test_folder_of_a_matrix_is_read_to_what_was_written(
    tmp_path, counts, features, write, write_matrix_market, assert_is_truth
):
    write_matrix_market(tmp_path / "matrix.mtx.gz", counts)
    write(tmp_path / "barcodes.tsv.gz", BARCODES)
    write(tmp_path / "features.tsv.gz", ["\t".join(row[:3]) for row in features])
    assert_is_truth(read_10x_multiome(tmp_path), GENE_NAMES, PEAKS)


@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
@pytest.mark.filterwarnings("ignore:.* has fewer than 3 cells:UserWarning")
def test_what_was_read_registers_with_the_model(h5):
    mdata = read_10x_multiome(h5)
    modalities = {"rna_layer": "rna", "atac_layer": "atac"}
    SCMVPModel.setup_mudata(mdata, batch_key="batch", modalities=modalities)
    model = SCMVPModel(mdata, n_clusters=2)
    assert model.summary_stats["n_batch"] == 2


def test_matrix_without_peaks_is_refused_with_what_it_has(h5):
    with h5py.File(h5, "a") as file:
        file["matrix/features/feature_type"][:] = b"Gene Expression"
    with pytest.raises(ValueError, match="but `atac` is missing: it has `rna`"):
        read_10x_multiome(h5)


def test_hdf5_file_that_is_cut_off_is_refused(h5):
    h5.write_bytes(h5.read_bytes()[:1000])
    with pytest.raises(OSError, match="filtered_feature_bc_matrix.h5` must be the matrix of"):
        read_10x_multiome(h5)


def test_file_of_another_kind_is_refused_with_what_reads_it(tmp_path):
    path = tmp_path / "data.h5mu"
    with h5py.File(path, "w") as file:
        file.create_group("mod")
    with pytest.raises(ValueError, match="but it has `mod`. An `.h5mu` file is read by"):
        read_10x_multiome(path)


def test_folder_without_a_matrix_is_refused_with_what_it_has(tmp_path, write):
    write(tmp_path / "web_summary.html", ["<html>"])
    with pytest.raises(
        FileNotFoundError, match="or one `.h5` file, but it has `web_summary.html`"
    ):
        read_10x_multiome(tmp_path)


def test_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.h5` is not there"):
        read_10x_multiome(tmp_path / "nowhere.h5")
