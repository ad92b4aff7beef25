"""Pages of the documentation name what there is: what users can import and call, and tests."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import scmvp_scvi
from scmvp_scvi import SCMVPModel

PACKAGE = "scmvp_scvi"
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
GUARD = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
# the indented lines of the autosummary tables, without their options
LISTED = re.findall(r"^   (?!:)([\w.]+)$", PAGE, flags=re.MULTILINE)
MODULES = sorted(n for n in scmvp_scvi.__all__ if inspect.ismodule(getattr(scmvp_scvi, n)))


def own_public_methods(model: type) -> set[str]:
    """Public methods that a file of this package defines, inherited ones included."""
    return {
        name
        for cls in model.__mro__
        if cls.__module__.split(".")[0] == PACKAGE
        for name in vars(cls)
        if not name.startswith("_") and callable(getattr(model, name))
    }


def listed_below(prefix: str) -> list[str]:
    """Names that the page lists as ``prefix.name``."""
    return sorted(
        entry.removeprefix(f"{prefix}.") for entry in LISTED if entry.startswith(f"{prefix}.")
    )


def test_modules_of_the_api_page_are_those_that_the_package_exports():
    heads = {entry.split(".")[0] for entry in LISTED}
    assert heads == set(scmvp_scvi.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_exported_name_of_a_module_is_on_the_api_page_once(module):
    exported = importlib.import_module(f"{PACKAGE}.{module}").__all__
    assert listed_below(module) == sorted(exported)


def test_every_public_method_of_the_model_is_on_the_api_page_once():
    assert listed_below("SCMVPModel") == sorted(own_public_methods(SCMVPModel))


def test_every_test_that_a_page_names_as_a_guard_exists():
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    named = {guard for page in pages for guard in GUARD.findall(page)}
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_public_method_of_the_model_has_a_docstring_to_show():
    methods = own_public_methods(SCMVPModel)
    assert [name for name in methods if not inspect.getdoc(getattr(SCMVPModel, name))] == []
