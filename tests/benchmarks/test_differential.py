"""Ranks of markers against plain loops; all types of the cortex within minutes."""

import time

import numpy as np
import pandas as pd
import pytest

import differential
from harness.data import DATA

MARKERS = pd.read_csv(differential.MARKERS)


@pytest.fixture
def table() -> pd.DataFrame:
    """Two groups, each in the order of its test."""
    changes = {"A": [2.0, -3.0, 1.0], "B": [-1.0, 4.0, -0.5]}
    parts = [
        pd.DataFrame({"lfc_median": values, "group1": group}, index=["x", "y", "z"])
        for group, values in changes.items()
    ]
    return pd.concat(parts)


def test_ranks_count_the_features_that_are_higher_in_the_order_of_the_table(table):
    assert differential.ranks_of_higher(table, "A").to_dict() == {"x": 1, "z": 2}
    assert differential.ranks_of_higher(table, "B").to_dict() == {"y": 1}


def test_middles_of_peaks_are_halfway_between_start_and_end():
    middles = differential.middles_of(pd.Index(["chr1:100-200", "chrX:7-10"]))
    assert middles["chrom"].tolist() == ["chr1", "chrX"]
    assert middles["middle"].tolist() == [150, 8.5]


def test_every_marker_has_a_source_and_a_place():
    assert set(MARKERS["source"]) == set(differential.SOURCES)
    assert MARKERS["chrom"].str.fullmatch(r"chr(\d+|X)").all()
    assert set(MARKERS["strand"]) <= {"+", "-"}
    assert not MARKERS.duplicated(["cell_type", "gene"]).any()
    assert (MARKERS.groupby("gene")["tss"].nunique() == 1).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* have no counts in:UserWarning")
def test_all_types_of_the_cortex_are_compared_within_five_minutes(train, register):
    try:
        mdata = DATA["cortex"].load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    model = train(register(mdata), max_epochs=1)
    start = time.perf_counter()
    genes = model.differential_expression(groupby="cell_type", silent=True)
    peaks = model.differential_accessibility(groupby="cell_type", silent=True)
    assert time.perf_counter() - start < 300
    for table, size in ((genes, mdata["rna"].n_vars), (peaks, mdata["atac"].n_vars)):
        assert (table.groupby("group1").size() == size).all()
        assert table["group1"].nunique() == 22
        assert np.isfinite(table["lfc_median"]).all()
