"""The layers of the package, its doors to scvi-tools, and what importing it must leave alone."""

import ast
import importlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "scmvp_scvi"
ROOT = Path(find_spec(PACKAGE).origin).parent

# Bottom row first. A file imports from the rows above its own in this table, never from its row.
LAYERS = (
    {
        "_keys",
        "_scvi",
        "_kernels",
        "_files",
        "_mudata",
        "_wide_gradients",
        "_side_by_side",
        "_rows",
        "_feature_sample",
        "_size_rules",
        "_neighbors",
        "_panels",
        "_posteriors",
        "_zarr",
        "_validate._blocks",
        "_validate._messages",
    },
    {"_validate._names", "_validate._peaks"},
    {"_counts"},
    {
        "_products",
        "_validate._arguments",
        "_validate._columns",
        "_validate._counts",
        "_validate._depths",
        "_validate._groups",
        "_validate._mudata",
    },
    {"_validate"},
    {
        "distributions._blockwise",
        "distributions._cubature",
        "distributions._expected_log1p",
        "distributions._gaussian_mixture",
        "distributions._zero_inflated_poisson",
        "_minified",
    },
    {"distributions._negative_binomial_sum", "distributions._zero_inflated_poisson_sum"},
    {"distributions._factored"},
    {"nn._attention", "nn._calibration", "nn._covariates"},
    {"nn._encoders", "nn._decoders"},
    {
        "_channel_fit",
        "_count_sums",
        "_data",
        "_dispersion_fit",
        "_losses",
        "_prior_fit",
        "_profiles",
        "_rate_fit",
        "_schedule",
        "_surgery",
    },
    {"_as_registered"},
    {"_module", "_optimizer", "_data_splitter"},
    {"_plan_arguments", "_recorded_step"},
    {"_steps"},
    {"_logged_plan"},
    {"_fitting_plan"},
    {"_training_plan", "_registered_names", "_registration"},
    {"_bayes_factors", "_train_runner", "_train_arguments", "_minibatches", "_query"},
    {"_embedding", "_denoised", "_differential", "_likelihood", "_minify"},
    {"_abundance", "_predictive"},
    {"_model"},
)
# Beside the model: no layer imports these, and they import only these files and their own.
BESIDE = {"datasets", "hub", "metrics", "pp", "tl", "pl"}
BESIDE_MAY_IMPORT = {"_files", "_keys", "_mudata", "_neighbors", "_panels", "_validate"}
# These faces, `__init__.py`, only re-export: the face of the package alone imports them.
FACES = {"", "distributions", "nn", *BESIDE}

RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}


class Import(NamedTuple):
    """One imported module, and the name taken from it if there is one."""

    module: str
    name: str | None


def module_name(path: Path) -> str:
    """Dotted name inside the package: ``nn._attention``; a face is its folder, the root is ""."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(source: str) -> set[Import]:
    """All imports of a file, also those inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {Import(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            found |= {Import(origin, alias.name) for alias in node.names}
    return found


def own_target(imported: Import) -> str | None:
    """Name inside the package of what an import loads; None if it is another package's."""
    module, name = imported
    if module != PACKAGE and not module.startswith(f"{PACKAGE}."):
        return None
    inside = module.removeprefix(PACKAGE).removeprefix(".")
    submodule = ".".join(part for part in (inside, name) if part)
    return submodule if submodule in IMPORTS else inside


def family(name: str) -> str:
    """Folder of a file, or the file itself where it stands in no folder."""
    return name.split(".")[0]


def may_import(name: str, target: str) -> bool:
    """Whether the table allows the file ``name`` to import the file ``target``."""
    if name == "":
        return True
    if target in FACES:
        return False
    if name in FACES and family(target) == name:
        return True
    if family(name) in BESIDE:
        return target in BESIDE_MAY_IMPORT or family(target) == family(name)
    return target in RANK and RANK[target] < RANK.get(name, -1)


IMPORTS: dict[str, set[Import]] = {
    module_name(path): imports_of(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.rglob("*.py"))
}
# Edges between files of the package.
GRAPH = {
    name: {target for imported in found if (target := own_target(imported)) is not None} - {name}
    for name, found in IMPORTS.items()
}


def test_the_parser_sees_imports_in_functions_and_under_type_checking() -> None:
    source = "if TYPE_CHECKING:\n    import a.b\ndef f():\n    from c import d as e"
    assert imports_of(source) == {Import("a.b", None), Import("c", "d")}


def test_the_parser_reads_the_package_itself() -> None:
    leaves = {name for name in IMPORTS if name not in FACES}
    assert {"_module", "_model", "nn._attention"} <= leaves
    assert "_keys" in GRAPH["_module"]


@pytest.mark.parametrize("name", IMPORTS)
def test_every_file_has_a_place_in_the_table(name: str) -> None:
    placed = name in RANK or name in FACES or family(name) in BESIDE
    assert placed, (
        f"{PACKAGE}/{name.replace('.', '/')}.py is in no layer: "
        "place it in LAYERS or BESIDE of tests/test_architecture.py."
    )


@pytest.mark.parametrize("name", GRAPH)
def test_every_file_imports_from_lower_layers_only(name: str) -> None:
    forbidden = sorted(target for target in GRAPH[name] if not may_import(name, target))
    assert forbidden == [], f"`{name}` must not import {forbidden}: see LAYERS and BESIDE."


def test_there_is_no_import_cycle() -> None:
    left = {name: set(targets) for name, targets in GRAPH.items()}
    while free := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in free}
    assert left == {}, f"These files import each other in a circle: {sorted(left)}."


def test_no_file_imports_from_the_face_of_the_package() -> None:
    offenders = [name for name, targets in GRAPH.items() if name != "" and "" in targets]
    assert offenders == [], f"Import from the leaf file, not from `{PACKAGE}`: {offenders}."


def test_no_file_imports_relatively() -> None:
    offenders = [n for n, found in IMPORTS.items() if any(i.module.startswith(".") for i in found)]
    assert offenders == []


def test_only_one_file_imports_private_names_of_scvi_tools() -> None:
    def is_private(imported: Import) -> bool:
        parts = [*imported.module.split("."), imported.name or ""]
        return parts[0] == "scvi" and any(part.startswith("_") for part in parts)

    offenders = [name for name, found in IMPORTS.items() if any(map(is_private, found))]
    assert set(offenders) <= {"_scvi"}, "Private names of scvi-tools come through `_scvi` alone."


def test_what_stands_beside_the_model_never_imports_torch() -> None:
    beside = [name for name in IMPORTS if family(name) in BESIDE]
    roots = {name: {family(imported.module) for imported in IMPORTS[name]} for name in beside}
    assert [name for name in beside if "torch" in roots[name]] == []


@pytest.mark.parametrize("name", IMPORTS)
def test_every_name_in_all_exists(name: str) -> None:
    module = importlib.import_module(f"{PACKAGE}.{name}".removesuffix("."))
    exported = getattr(module, "__all__", [])
    assert [entry for entry in exported if not hasattr(module, entry)] == []
    assert len(exported) == len(set(exported))


# Process-wide state after an import; torch's thread count starts at a value nobody would set.
_STATE_AFTER_IMPORT = """
import importlib, json, logging, sys, warnings
import torch
torch.set_num_threads(3)
importlib.import_module("scvi")
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({
    "torch threads": torch.get_num_threads(),
    "torch defaults": [str(torch.get_default_dtype()), torch.backends.cudnn.benchmark],
    "warning filters": [str(entry) for entry in warnings.filters],
    "root handlers": [str(type(handler)) for handler in logging.getLogger().handlers],
    "root level": logging.getLogger().level,
}))
"""


def state_after_import(*names: str) -> dict[str, object]:
    """Process-wide state of a fresh interpreter that imports scvi-tools and ``names``."""
    command = [sys.executable, "-c", _STATE_AFTER_IMPORT, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_changes_no_more_than_importing_scvi_tools() -> None:
    assert state_after_import(PACKAGE) == state_after_import()


@pytest.mark.parametrize("optional", ["huggingface_hub", "pooch", "ray"])
def test_importing_the_package_does_not_import_what_only_its_extras_bring(optional: str) -> None:
    command = f"import {PACKAGE}, sys; sys.exit({optional!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0
