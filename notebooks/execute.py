"""Execute notebooks in place, each in its own folder, and keep their outputs.

python notebooks/execute.py [notebooks/quickstart.ipynb ...]
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(file: Path) -> nbformat.NotebookNode:
    """Run all cells of a notebook in order, in a fresh kernel; the file stays as it is."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        # times of execution would change the file each time
        record_timing=False,
        resources={"metadata": {"path": str(file.parent)}},
    )
    client.execute()
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(Path(__file__).parent.glob("*.ipynb")):
        nbformat.write(execute(Path(name)), name)
        print(f"{name} executed", flush=True)
