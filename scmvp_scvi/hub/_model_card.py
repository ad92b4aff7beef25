"""The card of a trained model: what it was trained on, how, how well, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from scmvp_scvi._keys import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from huggingface_hub import ModelCard
    from scvi.model.base import BaseModelClass

_LOGGED = (
    "elbo_train",
    "elbo_validation",
    "reconstruction_loss_validation",
    "validation_loss",
)

_PAGE = """\
---
{header}
---

# {title}

scMVP is a deep generative model of cells in which RNA and chromatin accessibility (ATAC) were measured together. It embeds
both modalities in one latent space, clusters the cells there, and returns denoised profiles of each modality. This model
was trained with [scmvp_scvi](https://github.com/scmvp-scvi/scmvp_scvi) on [scvi-tools](https://scvi-tools.org).

{description}

## Data

{data}

## Settings

{settings}

Set-up of the data:

{setup}

## Training

{training}

## Metrics

{metrics}

## Use

```python
from scvi.hub import HubModel

model = HubModel.pull_from_huggingface_hub("user/repository", revision="main").model
latent = model.get_latent_representation()
```

`pip install 'scmvp-scvi[hub] @ git+https://github.com/scmvp-scvi/scmvp_scvi'` brings what this needs.
Cells of one's own, a MuData of the same features with raw counts, are passed as `adata`. Saved models are
pickles: load only what you trust.

## Licence

{license}

## Citation

```bibtex
@article{{Li2022,
  author  = {{Li, G. and Fu, S. and Wang, S. and Zhu, C. and Duan, B. and Tang, C. and Chen, X. and Chuai, G. and Wang, P. and Liu, Q.}},
  title   = {{A deep generative model for multi-view profiling of single-cell RNA-seq and ATAC-seq data}},
  journal = {{Genome Biology}},
  volume  = {{23}},
  pages   = {{20}},
  year    = {{2022}},
  doi     = {{10.1186/s13059-021-02595-6}},
}}
```
{references}
"""  # noqa: E501  lines of the page, not of the code


def model_card(
    model: BaseModelClass,
    *,
    license: str,
    title: str = "scMVP model",
    description: str = "",
    metrics: Mapping[str, float] | None = None,
    tissues: Sequence[str] = (),
    references: Sequence[str] = (),
) -> ModelCard:
    """Write the card of a trained model, for :class:`scvi.hub.HubModel`.

    What the model knows of itself is filled in: features, cells, settings, set-up, the last values
    of the training log, and versions.

    Parameters
    ----------
    model
        A trained `SCMVPModel`; its data may be minified, or left out.
    license
        Licence of model and data, an identifier of SPDX in lower case such as ``"cc-by-4.0"``.
    title, description
        Heading, and what others should know: organism, assay, how cells were chosen. Markdown.
    metrics
        Name to value of what was measured, such as the agreement with known labels.
    tissues
        Tissues of the cells, for the search.
    references
        Works to cite besides that of the model, such as the source of the data. Markdown.

    Returns
    -------
    A `huggingface_hub.ModelCard`; ``str(card)`` is the page.

    Raises
    ------
    ImportError
        If huggingface_hub is not installed.
    RuntimeError
        If the model is not trained.
    TypeError
        If there is no licence, or what should be a list or a mapping is another thing.

    Examples
    --------
    >>> card = hub.model_card(model, license="cc-by-4.0", metrics={"Leiden NMI": 0.76})
    >>> model.save("cortex", save_anndata=True)
    >>> HubModel("cortex", metadata=metadata, model_card=card).save()
    """
    try:
        from huggingface_hub import ModelCard, ModelCardData
    except ImportError as error:
        raise ImportError(
            "`model_card` needs huggingface_hub: `pip install huggingface-hub requests`, or "
            "`pip install '.[hub]'` in a clone of this package."
        ) from error
    if not model.is_trained:
        raise RuntimeError("`model` must be trained before it gets a card: call `model.train()`.")
    _check_arguments(license, metrics, tissues, references)
    header = ModelCardData(
        license=license, library_name="scvi-tools", tags=_tags(model.registry, tissues)
    )
    settings = model.init_params_["non_kwargs"]
    setup = {
        name: value for name, value in model.registry["setup_args"].items() if value is not None
    }
    page = _PAGE.format(
        header=header.to_yaml(),
        title=title,
        description=description,
        data=_table(_data_facts(model)),
        settings=_table(_as_code(settings)),
        setup=_table(_as_code(setup)),
        training=_table(_training_facts(model)),
        metrics=_table(metrics) if metrics else "None were given.",
        license=f"`{license}`",
        references="\n".join(f"- {work}" for work in references),
    )
    return ModelCard(page)


def _check_arguments(license: Any, metrics: Any, tissues: Any, references: Any) -> None:
    """Refuse what would be published in pieces, or as the word None."""
    if not isinstance(license, str) or not license:
        raise TypeError(
            f'`license` must be the identifier of a licence, such as "cc-by-4.0", got {license!r}.'
        )
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(
            f"`metrics` must map names to values, got a {type(metrics).__name__}: pass "
            '`metrics={"Leiden NMI": ...}`.'
        )
    for values, name in ((tissues, "tissues"), (references, "references")):
        if isinstance(values, str):
            raise TypeError(
                f"`{name}` must be a list, got {values!r}, whose letters it would name: pass "
                f"[{values!r}]."
            )


def _tags(registry: Mapping[str, Any], tissues: Sequence[str]) -> list[str]:
    """Tags in the form that the hub of scvi-tools is searched by."""
    return [
        "biology",
        "genomics",
        "single-cell",
        f"model_cls_name:{registry['model_name']}",
        f"scvi_version:{registry['scvi_version']}",
        f"anndata_version:{version('anndata')}",
        "modality:rna",
        "modality:atac",
        *(f"tissue:{tissue}" for tissue in tissues),
    ]


def _data_facts(model: BaseModelClass) -> dict[str, Any]:
    fields, counts = model.registry["field_registries"], model.summary_stats
    facts = {"cells": counts["n_cells"]}
    for what, key in (("genes", REGISTRY.RNA), ("peaks", REGISTRY.ATAC)):
        names = fields[key]["state_registry"]["column_names"]
        modality = fields[key]["data_registry"]["mod_key"]
        facts[what] = f"{len(names):,} in `{modality}`, named like `{names[0]}`"
    facts["batches"] = counts["n_batch"]
    facts["labels"] = counts["n_labels"] if model.registry["setup_args"]["labels_key"] else "none"
    facts["counts"] = (
        "replaced by the posterior of each cell (minified)"
        if REGISTRY.MINIFY_TYPE in fields
        else "as registered"
    )
    return facts


def _training_facts(model: BaseModelClass) -> dict[str, Any]:
    """Last values of the log, in nats a cell, where the model has one."""
    history = model.history or {}
    logged = {name: history[name] for name in _LOGGED if name in history}
    facts: dict[str, Any] = {"components in use": model.module.prior.n_clusters}
    if "elbo_train" in logged:
        facts["epochs"] = len(logged["elbo_train"])
    facts |= {f"`{name}`": float(frame.iloc[-1, 0]) for name, frame in logged.items()}
    versions = (("scmvp_scvi", "scmvp-scvi"), ("scvi-tools", "scvi-tools"), ("torch", "torch"))
    return facts | {f"version of {name}": version(package) for name, package in versions}


def _as_code(arguments: Mapping[str, Any]) -> dict[str, str]:
    return {f"`{name}`": f"`{value!r}`" for name, value in arguments.items()}


def _table(facts: Mapping[str, Any]) -> str:
    """Two columns in Markdown."""
    rows = (f"| {_cell(name)} | {_cell(value)} |" for name, value in facts.items())
    return "\n".join(["|  |  |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    if isinstance(value, int):
        text = f"{value:,}"
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
