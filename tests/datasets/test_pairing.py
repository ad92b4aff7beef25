"""Only cells with both modalities are kept, whatever their order and their names."""

import logging

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scmvp_scvi.datasets._counts import Modality
from scmvp_scvi.datasets._pairing import pair


def modality(cells: list[str]) -> Modality:
    """One feature, whose count is the number of the row."""
    counts = sp.csr_matrix(np.arange(1, len(cells) + 1, dtype=np.float32)[:, None])
    return Modality(counts, pd.Index(cells), pd.DataFrame(index=["x"]))


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
    ("of_rna", "of_atac"), [("-1", ""), ("_RNA", "_ATAC"), (".cDNA", ".chromatin"), ("", "-DNA")]
)
def test_suffixes_are_dropped_where_no_cell_matches_with_them(of_rna, of_atac):
    rna = modality([f"AC{of_rna}", f"GT{of_rna}"])
    labels = pd.DataFrame({"cell_type": ["T", "B"]}, index=rna.cells)
    mdata = pair(rna, modality([f"GT{of_atac}", f"AC{of_atac}"]), labels)
    assert mdata.obs_names.tolist() == ["AC", "GT"]
    assert rows(mdata, "atac") == [2, 1]
    assert mdata.obs["cell_type"].tolist() == ["T", "B"]


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_suffixes_that_tell_cells_apart_are_part_of_the_name():
    mdata = pair(modality(["AC-1", "AC-2"]), modality(["AC-2", "GT-1"]))
    assert mdata.obs_names.tolist() == ["AC-2"]
    with pytest.raises(ValueError, match="none is: the RNA has `AC-1`, `AC-2`, the ATAC `AC`"):
        pair(modality(["AC-1", "AC-2"]), modality(["AC"]))


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


@pytest.mark.filterwarnings("ignore:var_names are not unique:UserWarning")
def test_cell_that_is_there_twice_in_the_table_is_refused():
    obs = pd.DataFrame({"cell_type": ["T", "B"]}, index=["a", "a"])
    with pytest.raises(ValueError, match="1 of the 2 names in the table of cells"):
        pair(modality(["a"]), modality(["a"]), obs)


def test_cell_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="1 of the 2 names in the ATAC are there again: `a`"):
        pair(modality(["a", "b"]), modality(["a", "a"]))
