"""The matrices of Cell Ranger ARC are read to what they were written from, or refused."""

import gzip
import re
from io import StringIO

import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import rich
import scipy.sparse as sp
from rich.console import Console

from scmvp_scvi import SCMVPModel
from scmvp_scvi.datasets import read_10x_multiome
from scmvp_scvi.tl._positions import gene_positions, pairs_within

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


@pytest.fixture
def folder(tmp_path, counts, features, write, write_matrix_market):
    write_matrix_market(tmp_path / "matrix.mtx.gz", counts)
    write(tmp_path / "barcodes.tsv.gz", BARCODES)
    write(tmp_path / "features.tsv.gz", ["\t".join(row[:3]) for row in features])
    return tmp_path


def test_hdf5_file_is_read_to_what_was_written(h5, assert_is_truth):
    mdata = read_10x_multiome(h5)
    assert_is_truth(mdata, GENE_NAMES, PEAKS)
    assert mdata.obs["batch"].tolist() == ["1", "1", "2", "2", "2"]
    assert mdata["rna"].var["genome"].tolist() == ["human"] * 3 + ["mouse"]


@pytest.mark.parametrize("layout", ["h5", "folder"])
def test_transcription_starts_of_the_file_are_enough_for_links(
    layout, request, tmp_path, features, write
):
    # MIR1302-2HG starts at the first or the last base, FAM138A, on the other strand, at one alone
    places = [("chr1", 29553, 30267), ("chr1", 36080, 36081), ("", "", ""), ("chr2", 0, 1)]
    if layout == "h5":
        path = request.getfixturevalue("h5")
        intervals = ["{}:{}-{}".format(*place) if place[0] else "NA" for place in places]
        with h5py.File(path, "a") as file:
            file["matrix/features/interval"] = np.array([*intervals, *PEAKS], dtype="S")
    else:
        path = request.getfixturevalue("folder")
        places += [tuple(re.split("[:-]", peak)) for peak in PEAKS]
        lines = [(*row[:3], *place) for row, place in zip(features, places, strict=True)]
        write(path / "features.tsv.gz", ["\t".join(map(str, line)) for line in lines])
    mdata = read_10x_multiome(path)
    mdata.write(tmp_path / "kept.h5mu")
    genes = mudata.read_h5mu(tmp_path / "kept.h5mu")["rna"].var
    assert genes["chrom"].isna().tolist() == genes["tss"].isna().tolist() == [0, 0, 1, 0]
    assert genes["chrom"].dropna().tolist() == ["chr1", "chr1", "chr2"]
    assert genes["tss"].dropna().tolist() == [(29553 + 30266) // 2, 36080, 0]
    near = pairs_within(
        gene_positions(genes, modality="rna", chrom_key="chrom", tss_key=None, strand_key=None),
        pd.DataFrame({"chrom": ["chr1"], "start": [36070], "end": [36090]}),
        window=1_000,
    )
    assert near.to_numpy().tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(("layout", "reader"), [("h5", "read_10x_h5"), ("folder", "read_10x_mtx")])
def test_features_of_other_types_are_left_out_with_a_warning_that_counts_them(
    layout, reader, request, features, counts
):
    kinds = ["Antibody Capture", "CRISPR Guide Capture", "Antibody Capture"]
    features[1:4] = [(f"other{i}", f"other{i}", kind, "") for i, kind in enumerate(kinds)]
    path = request.getfixturevalue(layout)
    match = "left out: 2 of `Antibody Capture`, 1 of `CRISPR Guide Capture`. .*muon." + reader
    with pytest.warns(UserWarning, match=match) as caught:
        mdata = read_10x_multiome(path)
    assert {warning.filename for warning in caught if "muon." in str(warning.message)} == {
        __file__
    }
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), counts[:1].T)
    np.testing.assert_array_equal(mdata["atac"].X.toarray(), counts[4:].T)


def test_interval_of_the_wrong_length_is_refused(h5):
    with h5py.File(h5, "a") as file:
        file["matrix/features/interval"] = np.array(["chr1:1-2"], dtype="S")
    with pytest.raises(ValueError, match="`matrix/features/interval` of .* but it has 1"):
        read_10x_multiome(h5)


def test_matrix_of_as_many_cells_as_genes_is_not_taken_for_its_transpose(
    tmp_path, rng, write, write_matrix_market
):
    counts = rng.poisson(2.0, (8, 4))  # four genes and four peaks of four cells
    names = [f"g{i}\tG{i}\tGene Expression" for i in range(4)]
    names += [f"chr1:{i}0-{i}9\tchr1:{i}0-{i}9\tPeaks" for i in range(1, 5)]
    write_matrix_market(tmp_path / "matrix.mtx.gz", counts)
    write(tmp_path / "barcodes.tsv.gz", [f"AAA{base}-1" for base in "ACGT"])
    write(tmp_path / "features.tsv.gz", names)
    mdata = read_10x_multiome(tmp_path)
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), counts[:4].T)
    np.testing.assert_array_equal(mdata["atac"].X.toarray(), counts[4:].T)


@pytest.mark.parametrize("symbol", ["nan", "NA", "None", "null"])
def test_gene_whose_symbol_looks_like_a_missing_value_keeps_it(folder, write, features, symbol):
    features[0] = ("ENSG01", symbol, "Gene Expression")
    write(folder / "features.tsv.gz", ["\t".join(row[:3]) for row in features])
    mdata = read_10x_multiome(folder)
    assert mdata["rna"].var_names.tolist() == [symbol, *GENE_NAMES[1:]]


def test_folder_of_two_layouts_is_refused_with_the_file_to_move(folder, write):
    write(folder / "genes.tsv", ["ENSG01\tTP53"])
    with pytest.raises(ValueError, match="it has `genes.tsv` of the older layout"):
        read_10x_multiome(folder)


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


def test_file_may_be_given_from_the_home_of_the_user(h5, assert_is_truth, monkeypatch):
    monkeypatch.setenv("HOME", str(h5.parent))
    assert_is_truth(read_10x_multiome(f"~/{h5.name}", progress=False), GENE_NAMES, PEAKS)


def test_folder_of_a_matrix_is_read_to_what_was_written(folder, assert_is_truth):
    assert_is_truth(read_10x_multiome(folder), GENE_NAMES, PEAKS)


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("layout", ["h5", "folder"])
def test_progress_is_shown_if_asked_for(layout, progress, request, monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=screen, force_terminal=True, width=100))
    path = request.getfixturevalue(layout)
    read_10x_multiome(path, progress=progress)
    assert (f"Reading {path.name}" in screen.getvalue()) == progress
    assert (f"Checking {path.name}" in screen.getvalue()) == (progress and layout == "h5")


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


def shorten(file, name, n):
    values = file[f"matrix/{name}"][:-n]
    del file[f"matrix/{name}"]
    file[f"matrix/{name}"] = values


@pytest.mark.parametrize(
    ("name", "n", "rule"),
    [
        ("barcodes", 1, "each of 5 cells, but it has 4"),
        ("features/id", 2, "each of 7 features, but it has 5"),
        ("features/name", 2, "each of 7 features, but it has 5"),
        ("features/feature_type", 1, "each of 7 features, but it has 6"),
        ("indptr", 1, "each of 6 ends, one more than cells, but it has 5"),
        ("indices", 2, r"each of \d+ values, as `matrix/indptr` says"),
        ("data", 2, r"each of \d+ values, as `matrix/indptr` says"),
    ],
)
def test_part_of_another_length_is_refused_by_name(h5, name, n, rule):
    with h5py.File(h5, "a") as file:
        shorten(file, name, n)
    match = rf"`matrix/{name}` of `.*matrix.h5` must have an entry for {rule}.* Download it"
    with pytest.raises(ValueError, match=match):
        read_10x_multiome(h5)


@pytest.mark.parametrize("name", ["barcodes", "features", "features/feature_type", "indptr"])
def test_missing_part_is_refused_by_name(h5, name):
    with h5py.File(h5, "a") as file:
        del file[f"matrix/{name}"]
    match = rf"matrix.h5` must have `shape`.* but `{name}.* is missing. Download it again"
    with pytest.raises(ValueError, match=match):
        read_10x_multiome(h5)


def test_cell_that_is_there_twice_is_refused(h5):
    with h5py.File(h5, "a") as file:
        file["matrix/barcodes"][1] = BARCODES[0].encode()
    match = "matrix.h5` must name each cell once, but 1 of its 5 names .*: `AAAC-1`"
    with pytest.raises(ValueError, match=match):
        read_10x_multiome(h5)


@pytest.mark.parametrize("index", [7, 99, -1])
def test_feature_that_is_not_there_is_refused(h5, index):
    with h5py.File(h5, "a") as file:
        file["matrix/indices"][0] = index
    match = rf"`matrix/indices` of `.*` must lie between 0 and 6, .* they go from .*{index}"
    with pytest.raises(ValueError, match=match):
        read_10x_multiome(h5)


def test_ends_of_cells_that_fall_are_refused(h5):
    with h5py.File(h5, "a") as file:
        file["matrix/indptr"][1] = file["matrix/indptr"][2] + 1
    with pytest.raises(ValueError, match="`matrix/indptr` of .* must begin at 0 and never fall"):
        read_10x_multiome(h5)


@pytest.mark.parametrize("name", ["features.tsv.gz", "barcodes.tsv.gz"])
def test_folder_without_a_table_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"must hold .*, but `{name}` is missing"):
        read_10x_multiome(folder)


def test_folder_of_plain_files_is_refused_with_the_command_that_compresses_them(folder):
    for path in list(folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    match = "gzip matrix.mtx features.tsv barcodes.tsv"
    with pytest.raises(FileNotFoundError, match=match):
        read_10x_multiome(folder)


def test_folder_of_files_with_a_prefix_is_refused(folder):
    for path in list(folder.iterdir()):
        path.rename(folder / f"GSM1_{path.name}")
    with pytest.raises(FileNotFoundError, match="has `GSM1_barcodes.* names without prefix"):
        read_10x_multiome(folder)


@pytest.mark.parametrize("name", ["features.tsv.gz", "barcodes.tsv.gz", "matrix.mtx.gz"])
def test_gzip_that_is_cut_off_is_refused_by_name(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=f"{name}` must be a whole .*[Dd]ownload it again"):
        read_10x_multiome(folder)


@pytest.mark.parametrize("cut", [b"<html>", b"%%MatrixMarket matrix coordinate integer general\n"])
def test_matrix_that_is_none_is_refused_by_name(folder, cut):
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(cut))
    with pytest.raises(ValueError, match="matrix.mtx.gz` must be a whole MatrixMarket file, but"):
        read_10x_multiome(folder)


def test_matrix_whose_last_lines_are_missing_is_refused_by_name(folder):
    path = folder / "matrix.mtx.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-12]))
    with pytest.raises(ValueError, match="matrix.mtx.gz` must be a whole MatrixMarket file, but"):
        read_10x_multiome(folder)


@pytest.mark.parametrize(("name", "axis"), [("features", "7 rows"), ("barcodes", "5 columns")])
def test_table_of_another_length_than_the_matrix_is_refused(folder, name, axis):
    path = folder / f"{name}.tsv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[:-1])))
    match = f"{name}.tsv.gz` must have a line for each of the {axis} .* has {len(lines) - 1}"
    with pytest.raises(ValueError, match=match):
        read_10x_multiome(folder)


def test_transposed_matrix_is_refused(folder, counts, write_matrix_market):
    write_matrix_market(folder / "matrix.mtx.gz", counts.T)
    with pytest.raises(ValueError, match="features.tsv.gz` must have .* each of the 5 rows"):
        read_10x_multiome(folder)


def test_features_without_their_type_are_refused(folder, write):
    write(folder / "features.tsv.gz", ["\t".join(gene) for gene in GENES])
    with pytest.raises(ValueError, match="must have the columns id, name and type, .* it has 2"):
        read_10x_multiome(folder)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("barcodes.tsv.gz", (b"AAAG-1", b"AAAC-1"), "must name each cell once, .*: `AAAC-1`"),
        ("features.tsv.gz", (b"chr1:30-40", b"chr1:9-20"), "must name each peak once"),
        ("matrix.mtx.gz", (b"integer", b"real"), "must hold counts, .* it has 0.5"),
    ],
)
def test_what_is_wrong_in_a_folder_is_said_of_the_file(folder, counts, name, change, match):
    path = folder / name
    text = gzip.decompress(path.read_bytes()).replace(*change)
    if name == "matrix.mtx.gz":
        text = text.replace(f" {counts.max()}\n".encode(), b" 0.5\n")
    path.write_bytes(gzip.compress(text))
    with pytest.raises(ValueError, match=f"{name}` {match}"):
        read_10x_multiome(folder)
