"""Configuration of the documentation, built by `make docs`."""

import inspect
import re
import sys
from importlib.metadata import metadata
from typing import Any

import requests
from jaxtyping import AbstractArray
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.ext.napoleon.docstring import NumpyDocstring
from sphinx.util import logging

logger = logging.getLogger(__name__)

_package = metadata("scmvp-scvi")

project = "scmvp_scvi"
author = "The scmvp_scvi developers"
copyright = f"2026, {author}"
version = release = _package["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "notebooks/*.py"]

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {
    "path_to_docs": "docs",
    "repository_branch": "main",
    "repository_url": "https://github.com/scmvp-scvi/scmvp_scvi",
    "use_repository_button": True,
}

# notebooks are committed with their outputs
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
always_use_bars_union = True
typehints_defaults = "comma"
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# single backticks in docstrings are names of arguments as often as of classes
default_role = "literal"

intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "mudata": ("https://mudata.readthedocs.io/stable/", None),
    "muon": ("https://muon.readthedocs.io/en/latest/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
    "python": ("https://docs.python.org/3", None),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
    "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
    "sklearn": ("https://scikit-learn.org/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}
nitpicky = True
nitpick_ignore = [
    # bases and parts of the public classes that are not public themselves
    ("py:class", "scmvp_scvi._abundance.AbundanceMixin"),
    ("py:class", "scmvp_scvi._counts.DenseCounts"),
    ("py:class", "scmvp_scvi._counts.SparseCounts"),
    ("py:class", "scmvp_scvi._differential.DifferentialMixin"),
    ("py:class", "scmvp_scvi._minify.MinifyMixin"),
    ("py:class", "scmvp_scvi._likelihood.LikelihoodMixin"),
    ("py:class", "scmvp_scvi._module.SCMVPLossOutput"),
    ("py:class", "scmvp_scvi._denoised.DenoisedMixin"),
    ("py:class", "scmvp_scvi._embedding.EmbeddingMixin"),
    ("py:class", "scmvp_scvi._predictive.PredictiveMixin"),
    ("py:class", "scmvp_scvi._query.QueryMixin"),
    ("py:class", "scmvp_scvi._registered_names.RegisteredNamesMixin"),
    ("py:class", "scmvp_scvi._registration.RegistrationMixin"),
    ("py:class", "scmvp_scvi._fitting_plan.FittingPlan"),
    ("py:class", "scmvp_scvi._surgery.Surgery"),
    ("py:class", "scmvp_scvi._wide_gradients.WideGradients"),
    ("py:class", "scmvp_scvi.nn._encoders.ChannelEncoder"),
    # documented without an inventory that Sphinx reads
    ("py:class", "huggingface_hub.repocard.ModelCard"),
    # the shapes of properties, which Sphinx writes without the formatter below
    ("py:class", "Tensor"),
    ("py:class", "jaxtyping.Float"),
    ("py:class", "jaxtyping.Int"),
    # a type of scvi-tools, in what the model inherits
    ("py:class", "MinifiedDataType"),
]
nitpick_ignore_regex = [
    # what numpy's `ArrayLike` is made of, and a package without an inventory
    ("py:class", r"numpy\._typing\..*"),
    ("py:class", r"sparse\..*"),
]
# the formatter below is a function, which Sphinx cannot cache
suppress_warnings = ["config.cache"]


def typehints_formatter(annotation: Any, config: Any) -> str | None:
    """Write ``Float[Tensor, "cells genes"]`` as a tensor and its axes."""
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return f":py:class:`~torch.Tensor` ``({annotation.dim_str.replace(' ', ', ')})``"
    return None


# where other projects define a class, and where they document it
_DOCUMENTED_AS = {
    "pandas.core.frame.": "pandas.",
    "pandas.core.indexes.base.": "pandas.",
    "pandas.core.series.": "pandas.",
    "torch.nn.modules.module.": "torch.nn.",
}


def _public_name(target: str) -> str:
    """Where users import a name from: ``a._b.c.D`` is ``a.D``."""
    for defined, documented in _DOCUMENTED_AS.items():
        target = target.replace(defined, documented)
    parts = target.split(".")
    private = next((i for i, part in enumerate(parts) if part.startswith("_")), len(parts) - 1)
    return ".".join([*parts[:private], parts[-1]])


def _resolve_public_name(app: Sphinx, env: Any, node: Any, contnode: Any) -> Any:
    """Point a reference to a private file at the public name, here or in another project."""
    target = _public_name(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or target == node["reftarget"]:
        return None
    node["reftarget"] = target
    python = env.get_domain("py")
    refdoc = node.get("refdoc", "")
    return python.resolve_xref(env, refdoc, app.builder, node["reftype"], target, node, contnode)


# seconds to wait for each inventory of another project
_PATIENCE = 10


def _can_be_fetched(url: str) -> bool:
    try:
        with requests.get(f"{url.rstrip('/')}/objects.inv", stream=True, timeout=_PATIENCE) as got:
            return bool(got.ok)
    except requests.RequestException:
        return False


def _names_of(project: str) -> str:
    """Regular expression of the names that a project of `intersphinx_mapping` documents."""
    if project != "python":
        return rf"{re.escape(project)}\..*"
    modules = "|".join(map(re.escape, sorted(sys.stdlib_module_names)))
    return rf"(?:{modules})\..*|Ellipsis"


def _leave_out_unreachable_projects(app: Sphinx, config: Config) -> None:
    """Without the inventory of a project, leave references to it unchecked, and those alone.

    References within this project are checked always, so that the documentation can be built,
    with warnings as errors, where there is no network.
    """
    projects = config.intersphinx_mapping
    missing = [name for name, (url, _) in projects.items() if not _can_be_fetched(url)]
    config.intersphinx_mapping = {
        name: entry for name, entry in projects.items() if name not in missing
    }
    config.nitpick_ignore_regex = [
        *config.nitpick_ignore_regex,
        *(("py:.*", _names_of(name)) for name in missing),
    ]
    if missing:
        logger.info(
            "Their inventories cannot be fetched, so references to %s are not checked.",
            ", ".join(missing),
        )


def _returns_as_prose(self: NumpyDocstring, section: str) -> list[str]:
    """Read the section as text: the types stand in the signature."""
    return self._format_block(":returns: ", self._dedent(self._consume_to_next_section()))


def _attribute_as_prose(self: NumpyDocstring) -> list[str]:
    """Read a property's docstring as text: what stands before a colon is not its type."""
    return self._dedent(self._consume_to_end())


def setup(app: Sphinx) -> None:
    """Adapt Sphinx to the style of the docstrings."""
    NumpyDocstring._parse_returns_section = _returns_as_prose
    NumpyDocstring._parse_attribute_docstring = _attribute_as_prose
    app.connect("missing-reference", _resolve_public_name, priority=400)
    # before intersphinx reads its mapping, at 800
    app.connect("config-inited", _leave_out_unreachable_projects, priority=700)
