"""What the reading benchmark writes is read as it was drawn, and the docs quote its result."""

import json
from pathlib import Path

import numpy as np
import pytest

import reading

RECORD = json.loads((reading.RESULTS / "reading.json").read_text())
PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("layout", reading.READERS)
def test_layout_is_read_to_what_was_drawn(layout, tmp_path):
    rna, atac = reading.draw(20, 30, 10, seed=0), reading.draw(20, 50, 10, seed=1)
    mdata = reading.READERS[layout](reading.WRITERS[layout](rna, atac, tmp_path))
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), rna.toarray())
    np.testing.assert_array_equal(mdata["atac"].X.toarray(), atac.toarray())


def test_drawn_cells_have_as_many_counts_as_asked_for_and_no_value_twice():
    counts = reading.draw(7, 40, 12, seed=0)
    assert counts.sum(axis=1).A1.tolist() == [12] * 7
    assert counts.has_canonical_format


def test_reading_stays_under_three_gigabytes():
    assert {row["layout"] for row in RECORD["rows"]} == set(reading.READERS)
    for row in RECORD["rows"]:
        assert (row["cells"], row["peaks"]) == (10_000, 250_000)
        assert row["peak_memory_gb"] < 3


@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: row["layout"])
def test_documentation_quotes_the_result(row):
    quoted = f"| {row['layout']} | {row['file_gb']} | {row['seconds']} | {row['peak_memory_gb']} |"
    assert quoted in PAGE
