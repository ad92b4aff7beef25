"""The notebooks run, on tiny data, and are committed with clean outputs of a full run."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SCMVP_DATA", ROOT.parent / "shared" / "data"))
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 600_000  # bytes, figures included
# what an output should not show: where it was made
PLACES = re.compile(r"/(home|root|tmp|work|Users|var|opt)/|site-packages")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run_quickly(name: str, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """Execute a notebook on tiny data, with the package of this checkout."""
    monkeypatch.setenv("SCMVP_NOTEBOOK_QUICK", "1")
    monkeypatch.setenv("SCMVP_DATA", str(DATA.resolve()))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(name)
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    return NotebookClient(notebook, timeout=600, resources=resources).execute()


def figures(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    shown = [output.get("data", {}) for output in outputs]
    return [data["image/png"] for data in shown if "image/png" in data]


def assert_runs_and_draws(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that raises fails the run; every figure of the full run must be there as well."""
    assert len(figures(run_quickly(name, monkeypatch))) == len(figures(read(name))) > 0


@pytest.mark.parametrize("name", ["quickstart", "cross_modal", "peak_gene_links"])
def test_notebook_on_generated_data_runs_on_tiny_data(name, monkeypatch):
    assert_runs_and_draws(name, monkeypatch)


def test_cortex_notebook_runs_on_a_few_cells(monkeypatch):
    file = DATA / "snareseq_adult_cortex.h5mu"
    if not file.exists():
        pytest.skip(f"needs {file}: set SCMVP_DATA to the folder of the real data")
    assert_runs_and_draws("snareseq_cortex", monkeypatch)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_committed_as_it_was_executed_from_top_to_bottom(name):
    counts = [cell.execution_count for cell in code_cells(read(name))]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_small_enough_for_the_repository(name):
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_of_a_notebook_show_no_errors_warnings_or_places(name):
    for cell in code_cells(read(name)):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
            shown = [output.get("text", ""), *output.get("data", {}).values()]
            texts = [text for text in shown if isinstance(text, str)]
            assert not any(PLACES.search(text) for text in texts if len(text) < 50_000)
