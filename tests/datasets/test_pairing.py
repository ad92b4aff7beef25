"""Only cells with both modalities are kept, whatever their order and their names."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmvp_scvi.datasets._counts import Modality
from scmvp_scvi.datasets._pairing import pair


def modality(cells: list[str], path: str = "cells.tsv") -> Modality:
    """One feature, whose count is the number of the row."""
    counts = sp.csr_matrix(np.arange(1, len(cells) + 1, dtype=np.float32)[:, None])
    return Modality(counts, pd.Index(cells), pd.DataFrame(index=["x"]), Path(path))


def rows(mdata, name: str) -> list[float]:
    return mdata[name].X.toarray()[:, 0].tolist()


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_cells_without_a_partner_are_dropped_and_counted(caplog):
    with caplog.at_level(logging.INFO):
        mdata = pair(modality(["a", "b", "c"]), modality(["d", "c", "e", "a"]))
    assert mdata.obs_names.tolist() == ["a", "c"]
    assert (rows(mdata, "rna"), rows(mdata, "atac")) == ([1, 3], [4, 2])
    assert "Kept the 2 cells" in caplog.text
    assert "dropped 1 of 3 with RNA and 2 of 4 with ATAC" in caplog.text


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
@pytest.mark.parametrize(
    ("of_rna", "of_atac"),
    [
        *[("-1", ""), ("", "-2"), ("_RNA", "_ATAC"), (".cDNA", ".chromatin"), ("", "-DNA")],
        *[("-1_RNA", "_ATAC"), ("_RNA-1", "_ATAC")],
    ],
)
def test_suffixes_are_dropped_where_no_cell_matches_with_them(of_rna, of_atac):
    rna = modality([f"AC{of_rna}", f"GT{of_rna}"])
    labels = pd.DataFrame({"cell_type": ["T", "B"]}, index=rna.cells)
    mdata = pair(rna, modality([f"GT{of_atac}", f"AC{of_atac}"]), labels)
    assert mdata.obs_names.tolist() == ["AC", "GT"]
    assert rows(mdata, "atac") == [2, 1]
    assert mdata.obs["cell_type"].tolist() == ["T", "B"]


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
@pytest.mark.parametrize(("of_rna", "of_atac"), [("", "_ATAC"), ("_RNA", ""), ("_RNA", "_ATAC")])
def test_numbers_of_wells_stay_in_the_name_where_both_have_them(of_rna, of_atac):
    rna = modality([f"AC-1{of_rna}", f"AC-2{of_rna}"])
    mdata = pair(rna, modality([f"AC-2{of_atac}", f"GT-1{of_atac}"]))
    assert mdata.obs_names.tolist() == ["AC-2"]
    assert (rows(mdata, "rna"), rows(mdata, "atac")) == ([2], [1])


@pytest.mark.parametrize(
    ("of_rna", "of_atac"),
    [
        (["AC-1", "GT-1"], ["GT-2", "AC-2"]),  # another well
        (["AC-1_RNA"], ["AC-2_ATAC"]),
        (["AC-1", "AC-2"], ["AC"]),  # which of the two wells nobody knows
        (["AC-1", "GT-2"], ["AC", "GT"]),
        (["AC", "GT-1"], ["AC-1", "GT-2"]),
    ],
)
def test_cells_of_different_wells_are_never_paired(of_rna, of_atac):
    match = (
        f"none is: the RNA has `{of_rna[0]}`.* .`a.tsv`., the ATAC `{of_atac[0]}`.* .`b.tsv`.. "
        "Take both from the same sample"
    )
    with pytest.raises(ValueError, match=match):
        pair(modality(of_rna, "a.tsv"), modality(of_atac, "b.tsv"))


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_suffixes_are_dropped_where_more_cells_match_without_them():
    cells = ["AC", "AG", "AT", "CA"]
    rna = modality([*(f"{cell}_RNA" for cell in cells), "x"])
    mdata = pair(rna, modality(["x", *(f"{cell}_ATAC" for cell in cells)]))
    assert mdata.obs_names.tolist() == [*cells, "x"]
    assert rows(mdata, "atac") == [2, 3, 4, 5, 1]


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_few_pairs_are_warned_about_with_names_of_both():
    match = "Only 1 cells have both modalities, of 3 with RNA and 4 with ATAC: the RNA has `a`"
    with pytest.warns(UserWarning, match=match):
        pair(modality(["a", "b", "c"]), modality(["a", "d", "e", "f"]))


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_columns_of_two_tables_go_with_their_cells():
    rna_obs = pd.DataFrame({"cell_type": ["T", "B"], "depth": ["1", "2"]}, ["AC_RNA", "GT_RNA"])
    atac_obs = pd.DataFrame({"tsse": ["3", "4"], "depth": ["8", "9"]}, ["GT_ATAC", "AC_ATAC"])
    mdata = pair(modality(rna_obs.index), modality(atac_obs.index), rna_obs, atac_obs)
    assert mdata.obs["cell_type"].tolist() == ["T", "B"]
    assert mdata.obs["depth"].tolist() == [1, 2]
    assert mdata.obs["tsse"].tolist() == [4, 3]


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_what_is_missing_in_the_labels_is_unknown():
    cells = ["a", "b", "c", "d"]
    obs = pd.DataFrame({"cell_type": ["T", "NA", ""]}, index=cells[:3])
    mdata = pair(modality(cells), modality(cells), obs)
    assert mdata.obs["cell_type"].tolist() == ["T", "Unknown", "Unknown", "Unknown"]
    assert mdata.obs["cell_type"].dtype == "category"


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_numbers_are_numbers_but_in_labels_and_batches():
    cells = ["a", "b"]
    columns = {"batch": ["1", "2"], "cell_type": ["0", "NA"], "tsne_1": ["0.5", "NA"]}
    mdata = pair(modality(cells), modality(cells), pd.DataFrame(columns, index=cells))
    assert mdata.obs["batch"].tolist() == ["1", "2"]
    assert mdata.obs["cell_type"].tolist() == ["0", "Unknown"]
    np.testing.assert_array_equal(mdata.obs["tsne_1"], [0.5, np.nan])


def test_cell_that_is_there_twice_is_refused_with_the_file():
    match = "`b.tsv` must name each cell once, but 1 of its 2 names are there again: `a`"
    with pytest.raises(ValueError, match=match):
        pair(modality(["a", "b"], "a.tsv"), modality(["a", "a"], "b.tsv"))
