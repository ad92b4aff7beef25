"""Which form of the code a result was made by: fingerprints that only what runs can change."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from harness.methods.base import Method

HERE = Path(__file__).parent
PACKAGE = "scmvp_scvi"
# what prepares the data, makes the task and scores it
TASK = (HERE / "data.py", HERE / "protocols.py", *sorted((HERE / "scores").glob("*.py")))


def fingerprint(files: Iterable[Path]) -> str:
    """Digest of what Python reads of some files: comments, layout and docstrings are left out."""
    digest = hashlib.sha256()
    for file in files:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                node.body = node.body[ast.get_docstring(node) is not None :]
        digest.update(f"{file.name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:12]


def forms(method: Method) -> dict[str, str]:
    """Fingerprints of the tasks and scores, and of this package where the method is made of it."""
    found = {"task": _task()}
    if PACKAGE.replace("_", "-") in method.packages:
        found[PACKAGE] = _package()
    return found


@cache  # of what was imported, not of what is edited during a long run
def _task() -> str:
    return fingerprint(TASK)


@cache
def _package() -> str:
    return fingerprint(sorted(Path(find_spec(PACKAGE).origin).parent.rglob("*.py")))
