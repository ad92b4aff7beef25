"""The table of speed in the README is the one that the committed results give."""

import json

import pandas as pd
import pytest

import speed

MEDIANS = pd.DataFrame(json.loads(speed.CPU.file(".json").read_text())["medians"])


def test_table_of_the_readme_is_that_of_the_committed_results(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- speed table -->\nold\n<!-- end of speed table -->\nafter\n")
    speed.put_into_readme(MEDIANS, readme)
    written = readme.read_text().removeprefix("before\n").removesuffix("\nafter\n")
    assert "old" not in written
    assert written in speed.README.read_text()


@pytest.mark.parametrize("method", speed.METHODS)
def test_table_of_the_readme_has_one_row_a_method(method, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- speed table --><!-- end of speed table -->")
    speed.put_into_readme(MEDIANS, readme)
    assert readme.read_text().count(f"| {method} |") == 1
