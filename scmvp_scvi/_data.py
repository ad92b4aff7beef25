"""What is registered of a MuData: its checks, and its fields."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import h5py
import numpy as np
import pandas as pd
from mudata import MuData
from scvi.data import fields

from scmvp_scvi._keys import MODALITIES, REGISTRY, Kind
from scmvp_scvi._minified import is_minified, minified_fields
from scmvp_scvi._validate import (
    check_are_genes,
    check_categories,
    check_column_names,
    check_counts,
    check_feature_names,
    check_has_cells,
    check_is_mudata,
    check_modalities,
    check_no_cell_is_empty_in_both,
    check_no_missing,
    check_numeric_finite,
    check_paired,
    check_positive_column,
    check_some_cell_has_both,
    check_unique_features,
    find_counts,
    find_empty_cells,
    find_obs_column,
    shown,
    spelled,
    warn_about_columns_on_disk,
    warn_about_reads,
)


class _JointCategories(fields.CategoricalJointObsField):
    """Scvi-tools' field of categorical covariates, with the codes of the model for all data."""

    def _make_array_categorical(
        self, adata: Any, category_dict: dict[str, list[str]] | None = None
    ) -> dict[str, Any]:
        # pandas leaves categories in their order where only the order is to change
        if category_dict is not None:
            table = getattr(adata, self.attr_name)[self.attr_key]
            for key in self.attr_keys:
                table[key] = table[key].astype(object)
        made: dict[str, Any] = super()._make_array_categorical(adata, category_dict)
        return made


_layer = partial(
    fields.MuDataLayerField,
    is_count_data=False,  # every value has been checked, upstream looks at twenty
    mod_required=True,
)
_size_factor = partial(fields.MuDataNumericalObsField, required=False)
# argument of `setup_mudata`: name in a minibatch, and scvi-tools' field
FIELDS: dict[str, tuple[str, Callable[..., fields.BaseAnnDataField]]] = {
    "rna_layer": (REGISTRY.RNA, _layer),
    "atac_layer": (REGISTRY.ATAC, _layer),
    "batch_key": (REGISTRY.BATCH, fields.MuDataCategoricalObsField),
    "labels_key": (REGISTRY.LABELS, fields.MuDataCategoricalObsField),
    "rna_size_factor_key": (REGISTRY.RNA_SIZE_FACTOR, _size_factor),
    "atac_size_factor_key": (REGISTRY.ATAC_SIZE_FACTOR, _size_factor),
    "categorical_covariate_keys": (
        REGISTRY.CATEGORICAL_COVARIATES,
        fields.MuDataWrapper(_JointCategories),
    ),
    "continuous_covariate_keys": (
        REGISTRY.CONTINUOUS_COVARIATES,
        fields.MuDataNumericalJointObsField,
    ),
}
# those that name one column of `.obs`, or several
CATEGORIES = ("batch_key", "labels_key", "categorical_covariate_keys")
SIZE_FACTORS = ("rna_size_factor_key", "atac_size_factor_key")
CONTINUOUS = "continuous_covariate_keys"
_WAYS_OUT_OF_UNKNOWN = {
    "batch_key": (
        "Rename those that mean a known one, or have the model learn new ones: "
        "`query = SCMVPModel.load_query_data(mdata, model)`"
    ),
    "labels_key": (
        "Rename those that mean a known one; no embedding goes by labels, so that any known one "
        "will do for cells without"
    ),
}


def check_data(
    mdata: MuData,
    arguments: Mapping[str, Any],
    modalities: Mapping[str, str | None],
    source_registry: Mapping[str, Any] | None = None,
    *,
    extends_categories: bool = False,
) -> None:
    """Check everything that would go wrong silently, or late, with data as they were given.

    Minified data have no counts to check.

    Parameters
    ----------
    mdata
        The data.
    arguments
        Arguments of `setup_mudata`: layers and keys.
    modalities
        Argument to the modality it is looked up in, None for ``mdata`` itself.
    source_registry
        Of the model, for new data: they must have its features and its categories.
    extends_categories
        Whether categories of new data that the model does not know get weights in it.

    Raises
    ------
    TypeError, KeyError, ValueError
        Naming the argument, the rule, what was found, and the way out.
    """
    check_is_mudata(mdata)
    for argument in ("batch_key", "labels_key", *SIZE_FACTORS):
        key = arguments.get(argument)
        if not isinstance(key, (str, type(None))):
            raise TypeError(f"`{argument}` must be the name of one column of `.obs`, got {key!r}.")
    expected_features = None if source_registry is None else registered_features(source_registry)
    layers = layers_of(arguments)
    check_modalities(mdata, modalities, layers)
    # `check_modalities` has made sure that both are named
    rna, atac = str(modalities["rna_layer"]), str(modalities["atac_layer"])
    check_paired(mdata, rna, atac)
    if expected_features is None:
        check_are_genes(
            mdata[rna].var_names,
            mdata[atac].var_names,
            subject=f"`rna_layer`: `{spelled(rna)}`",
            swap=f'modalities={{"rna_layer": "{atac}", "atac_layer": "{rna}"}}',
        )
    for keys in MODALITIES.values():
        modality = str(modalities[keys.layer])
        adata = mdata.mod[modality]
        check_unique_features(adata, modality)
        if expected_features is not None:
            names = expected_features[keys.counts]
            check_feature_names(names, adata.var_names, modality=modality)
    if not is_minified(mdata):
        _check_all_counts(mdata, modalities, layers, for_model=expected_features is not None)
    for argument in ("categorical_covariate_keys", CONTINUOUS):
        check_column_names(arguments.get(argument), argument=argument)
    # categories of new data are those of the model, or else each needs cells that train it
    needs_cells = source_registry is None or extends_categories
    _check_columns(mdata, arguments, modalities, needs_cells=needs_cells)
    if source_registry is not None:
        _check_known_categories(
            mdata, arguments, modalities, source_registry, may_be_new=extends_categories
        )


def _check_all_counts(
    mdata: MuData,
    modalities: Mapping[str, str | None],
    layers: Mapping[str, str | None],
    *,
    for_model: bool,
) -> None:
    """Check the counts of both modalities, for a model that is trained or for a new one."""
    empty = {}
    for kind, keys in MODALITIES.items():
        modality, layer = str(modalities[keys.layer]), layers[keys.layer]
        adata = mdata.mod[modality]
        counts = find_counts(adata, layer, argument=keys.layer, modality=modality)
        _check_reads_dense_from_disk(mdata, counts, argument=keys.layer, modality=modality)
        check_counts(counts, argument=keys.layer, modality=modality, layer=layer, adata=adata)
        check_has_cells(counts, modality)
        warn_about_columns_on_disk(counts, argument=keys.layer, modality=modality)
        if kind == "atac" and not for_model:
            warn_about_reads(counts, modality=modality, layer=layer)
        empty[modality] = find_empty_cells(
            counts, modality=modality, layer=layer, features_may_go=not for_model
        )
    check_no_cell_is_empty_in_both(
        empty,
        cell_names=mdata.obs_names,
        layers={str(modalities[name]): layer for name, layer in layers.items()},
    )
    if not for_model:
        check_some_cell_has_both(empty)


def _check_reads_dense_from_disk(
    mdata: MuData, counts: Any, *, argument: str, modality: str
) -> None:
    """Refuse a dense matrix on disk of a MuData in memory, whose rows scvi-tools cannot read."""
    if isinstance(counts, h5py.Dataset) and not mdata.isbacked:
        raise TypeError(
            f'`{argument}`: the counts of `mdata["{modality}"]` must be in memory, or sparse, '
            "where `mdata` was built in memory, got a dense matrix on disk. Read it, "
            f'`mdata.mod["{modality}"] = mdata["{modality}"].to_memory()`, or write `mdata` and '
            "read all of it from disk: `mudata.read_h5mu(file, backed=True)`."
        )


def is_on_disk(mdata: MuData) -> bool:
    """Whether the data or one of their modalities are read from disk.

    Parameters
    ----------
    mdata
        The data.
    """
    return bool(mdata.isbacked or any(adata.isbacked for adata in mdata.mod.values()))


def _check_columns(
    mdata: MuData,
    arguments: Mapping[str, Any],
    modalities: Mapping[str, str | None],
    *,
    needs_cells: bool,
) -> None:
    checks = {
        **dict.fromkeys(CATEGORIES, check_categories if needs_cells else check_no_missing),
        **dict.fromkeys(SIZE_FACTORS, check_positive_column),
        CONTINUOUS: check_numeric_finite,
    }
    for argument, _, column in columns_of(mdata, arguments, modalities, checks):
        checks[argument](column, argument=argument)


def _check_known_categories(
    mdata: MuData,
    arguments: Mapping[str, Any],
    modalities: Mapping[str, str | None],
    registry: Mapping[str, Any],
    *,
    may_be_new: bool,
) -> None:
    """Refuse batches, labels and other categories that a model has no weights for.

    Scvi-tools passes an unknown 0. Those that get weights must be of the type of the known ones,
    or they cannot be told apart by name, nor put in order.
    """
    states = {key: field["state_registry"] for key, field in registry["field_registries"].items()}
    known = {
        argument: states[FIELDS[argument][0]]["categorical_mapping"]
        for argument in ("batch_key", "labels_key")
    }
    of_model = registry["setup_args"]
    for argument in known:
        if arguments.get(argument) is None and of_model[argument] is not None:
            raise ValueError(
                f"`{argument}` must be given, for the model was set up with one, "
                f"{of_model[argument]!r}: name the column of these data that holds the same."
            )
    covariates = states[REGISTRY.CATEGORICAL_COVARIATES].get("mappings", {})
    for argument, key, column in columns_of(mdata, arguments, modalities, CATEGORIES):
        names = known.get(argument, covariates.get(key))
        if names is None:
            continue  # a covariate of another name, of which scvi-tools speaks
        unknown = pd.Index(column.unique()).difference(pd.Index(names), sort=False)
        are_names, are_known_by_name = (
            {isinstance(value, str) for value in values} for values in (unknown, names)
        )
        if len(unknown) == 0 or (may_be_new and are_names <= are_known_by_name):
            continue
        way_out = _WAYS_OUT_OF_UNKNOWN.get(argument, "Rename those that mean a known one")
        if may_be_new or set(map(str, unknown)) <= set(map(str, names)):
            known_as, found_as = (type(values[0]).__name__ for values in (names, unknown))
            way_out = f"They are of type {known_as}, and {found_as} in the data: convert them"
            if argument == "labels_key":
                way_out += ", and give cells without a label any known one"
        rule = "categories of the type of those" if may_be_new else "categories"
        raise ValueError(
            f"`{key}`, `{argument}` of the set-up, must hold {rule} that the model knows, "
            f"{shown(names)}, got {shown(unknown)}. {way_out}."
        )


def columns_of(
    mdata: MuData,
    arguments: Mapping[str, Any],
    modalities: Mapping[str, str | None],
    names: Iterable[str],
) -> Iterator[tuple[str, str, pd.Series]]:
    """Yield each column that some arguments name: the argument, the key and the column.

    Parameters
    ----------
    mdata, arguments, modalities
        As in `check_data`.
    names
        The arguments.
    """
    modality_keys = str(modalities["rna_layer"]), str(modalities["atac_layer"])
    for argument in names:
        asked = arguments.get(argument)
        for key in [asked] if isinstance(asked, str) else asked or []:
            column = find_obs_column(
                mdata,
                key,
                argument=argument,
                modality=modalities.get(argument),
                modality_keys=modality_keys,
            )
            yield argument, key, column


def data_fields(
    mdata: MuData, arguments: Mapping[str, Any], modalities: Mapping[str, str | None]
) -> list[fields.BaseAnnDataField]:
    """Fields of the registry, in scvi-tools' terms; arguments as in `check_data`."""
    registered = [
        make(name, arguments[argument], mod_key=modalities.get(argument))
        for argument, (name, make) in FIELDS.items()
    ]
    return registered + (minified_fields() if is_minified(mdata) else [])


def registered_modality(registry: Mapping[str, Any], kind: Kind) -> str:
    """Key of a modality of the data in a registry, of kind ``"rna"`` or ``"atac"``."""
    key: str = registry["setup_args"]["modalities"][MODALITIES[kind].layer]
    return key


def registered_modalities(registry: Mapping[str, Any]) -> tuple[str, str]:
    """Keys of the RNA and of the ATAC modality in a registry."""
    return registered_modality(registry, "rna"), registered_modality(registry, "atac")


def registered_features(registry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Feature names of both modalities in a registry, by registry key."""
    states = registry["field_registries"]
    return {
        keys.counts: np.asarray(states[keys.counts]["state_registry"]["column_names"])
        for keys in MODALITIES.values()
    }


def layers_of(arguments: Mapping[str, Any]) -> dict[str, str | None]:
    """Layers of the counts, by argument of `setup_mudata`; None for ``.X``."""
    return {keys.layer: arguments.get(keys.layer) for keys in MODALITIES.values()}
