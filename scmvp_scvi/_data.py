"""What is registered of a MuData: its checks, its fields, and sums over the training cells."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from mudata import MuData
from scipy import sparse
from scvi.data import AnnDataManager, fields

from scmvp_scvi._keys import MODALITIES, REGISTRY
from scmvp_scvi._minified import is_minified, minified_fields
from scmvp_scvi._validate import (
    begins_with_counts,
    check_categories,
    check_column_names,
    check_counts,
    check_feature_names,
    check_is_mudata,
    check_modalities,
    check_no_cell_is_empty_in_both,
    check_no_missing,
    check_numeric_finite,
    check_paired,
    check_positive_column,
    check_unique_features,
    find_counts,
    find_obs_column,
    same_names,
    shown,
    warn_about_columns_on_disk,
    warn_about_empty,
    warn_about_reads,
)

_ROWS_PER_BLOCK = 4096
_POISSON_CELLS = 10  # that the variance of a sum is steadied by


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
_FIELDS: dict[str, tuple[str, Callable[..., fields.BaseAnnDataField]]] = {
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
_CATEGORIES = ("batch_key", "labels_key", "categorical_covariate_keys")
_SIZE_FACTORS = ("rna_size_factor_key", "atac_size_factor_key")
_CONTINUOUS = "continuous_covariate_keys"
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
    for argument in ("batch_key", "labels_key", *_SIZE_FACTORS):
        key = arguments.get(argument)
        if not isinstance(key, (str, type(None))):
            raise TypeError(f"`{argument}` must be the name of one column of `.obs`, got {key!r}.")
    expected_features = None if source_registry is None else registered_features(source_registry)
    layers = layers_of(arguments)
    check_modalities(mdata, modalities, layers)
    # `check_modalities` has made sure that both are named
    rna, atac = str(modalities["rna_layer"]), str(modalities["atac_layer"])
    check_paired(mdata, rna, atac)
    empty = {}
    for kind, keys in MODALITIES.items():
        argument = keys.layer
        modality, layer = str(modalities[argument]), layers[argument]
        adata = mdata.mod[modality]
        check_unique_features(adata, modality)
        if expected_features is not None:
            check_feature_names(expected_features[keys.counts], adata.var_names, modality=modality)
        if is_minified(mdata):
            continue
        counts = find_counts(adata, layer, argument=argument, modality=modality)
        _check_reads_dense_from_disk(mdata, counts, argument=argument, modality=modality)
        check_counts(
            counts, argument=argument, modality=modality, layer=layer, layers=adata.layers
        )
        warn_about_columns_on_disk(counts, argument=argument, modality=modality)
        if kind == "atac" and expected_features is None:
            warn_about_reads(counts, modality=modality, layer=layer)
        empty[modality] = warn_about_empty(
            counts, modality=modality, layer=layer, features_may_go=expected_features is None
        )
    if not is_minified(mdata):
        check_no_cell_is_empty_in_both(
            empty,
            cell_names=mdata.obs_names,
            layers={rna: layers["rna_layer"], atac: layers["atac_layer"]},
        )
        if source_registry is None and np.logical_or(*empty.values()).all():
            raise ValueError(
                f"Some cells must have counts in both `{rna}` and `{atac}`, for the model learns "
                "from them how the modalities belong together, but none of the "
                f"{mdata.n_obs} has. Give a cell the same name in both modalities, add cells "
                "where both were measured, or embed these by a model that knows such cells: "
                "`model.get_latent_representation(mdata)`."
            )
    for argument in ("categorical_covariate_keys", _CONTINUOUS):
        check_column_names(arguments.get(argument), argument=argument)
    # categories of new data are those of the model, or else each needs cells that train it
    needs_cells = source_registry is None or extends_categories
    _check_columns(mdata, arguments, modalities, needs_cells=needs_cells)
    if source_registry is not None:
        _check_known_categories(
            mdata, arguments, modalities, source_registry, may_be_new=extends_categories
        )


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


def check_still_as_registered(mdata: MuData, registry: Mapping[str, Any]) -> None:
    """Check what is quick to check of data that were registered, and perhaps changed since.

    Cells and features are compared by name; of the counts the first thousands are looked at.

    Parameters
    ----------
    mdata
        The data.
    registry
        Of the model.

    Raises
    ------
    ValueError
        If the modalities hold other cells than one another, if covariates are those of other
        cells, if features are others or in another order, if counts have been transformed, or if
        size factors are no longer above zero.
    """
    arguments, features = registry["setup_args"], registered_features(registry)
    modalities = arguments["modalities"]
    check_paired(mdata, modalities["rna_layer"], modalities["atac_layer"])
    _check_tables_are_of_the_cells(mdata, registry)
    for argument, _, column in _columns(mdata, arguments, modalities, _SIZE_FACTORS):
        check_positive_column(column, argument=argument)
    for keys in MODALITIES.values():
        argument = keys.layer
        modality, layer = modalities[argument], arguments[argument]
        adata = mdata.mod[modality]
        check_feature_names(features[keys.counts], adata.var_names, modality=modality)
        if is_minified(mdata):
            continue
        counts = find_counts(adata, layer, argument=argument, modality=modality)
        if not begins_with_counts(counts):
            with warnings.catch_warnings():  # of half counts, which the set-up has warned of
                warnings.simplefilter("ignore")
                check_counts(
                    counts, argument=argument, modality=modality, layer=layer, layers=adata.layers
                )


def _tables(mdata: MuData, registry: Mapping[str, Any]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield each registered table of `.obsm` that is there: where, its key, and itself."""
    modalities = registry["setup_args"]["modalities"]
    for argument in ("categorical_covariate_keys", _CONTINUOUS):
        place = registry["field_registries"][_FIELDS[argument][0]]["data_registry"]
        modality = modalities.get(argument)
        holder = mdata if modality is None else mdata.mod[modality]
        if place and place["attr_key"] in holder.obsm:
            name = "mdata" if modality is None else f'mdata["{modality}"]'
            yield name, place["attr_key"], holder.obsm[place["attr_key"]]


def _check_tables_are_of_the_cells(mdata: MuData, registry: Mapping[str, Any]) -> None:
    """Refuse covariates of other cells: mudata's own filters can leave tables as they were."""
    for holder, key, table in _tables(mdata, registry):
        if same_names(table.index, mdata.obs_names):
            continue
        is_renamed = len(table) == mdata.n_obs and not table.index.isin(mdata.obs_names).any()
        if not is_renamed:
            raise ValueError(
                f'`{holder}.obsm["{key}"]`, the covariates that the set-up keeps there, must have '
                f"the {mdata.n_obs} cells of the data in their order, but has {len(table)} cells, "
                "others or in another order, as after `muon.pp.intersect_obs` or "
                "`mdata.update()`. "
                f'Remove it, `del {holder}.obsm["{key}"]`, and pass `mdata.copy()` as the data.'
            )


def registered_values(manager: AnnDataManager) -> dict[str, Any]:
    """Copy the codes and continuous covariates that the data hold, by registry key.

    Parameters
    ----------
    manager
        Of the data. What has been removed from them is left out.
    """
    names = [_FIELDS[argument][0] for argument in (*_CATEGORIES, _CONTINUOUS)]
    values = {}
    for name in names:
        if name in manager.data_registry:
            try:
                values[name] = manager.get_from_registry(name).copy()
            except (KeyError, ValueError):
                continue
    return values


def is_as_registered(manager: AnnDataManager, modalities: Mapping[str, Any]) -> bool:
    """Whether the data hold the codes and covariates of their columns, as the model has them.

    Parameters
    ----------
    manager, modalities
        As in `check_columns_as_registered`.
    """
    mdata, registry = manager.adata, manager.registry
    values = registered_values(manager)
    arguments = registry["setup_args"]
    of_one = [
        _FIELDS[argument][0]
        for argument in ("batch_key", "labels_key")
        if arguments.get(argument) is None
    ]
    return (
        all(same_names(table.index, mdata.obs_names) for *_, table in _tables(mdata, registry))
        # of data without batches or labels, which are all of one
        and all(name in values and not np.any(values[name] != 0) for name in of_one)
        and _changed_column(manager, modalities, values) is None
    )


def check_columns_as_registered(
    manager: AnnDataManager,
    modalities: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
) -> None:
    """Refuse columns that changed since the set-up: a model reads what was registered then.

    Parameters
    ----------
    manager
        Of the data.
    modalities
        Argument of `setup_mudata` to the modality it is looked up in, None for ``mdata`` itself.
    values
        What `registered_values` returned at the set-up; None for what the data hold.

    Raises
    ------
    ValueError
        If batches, labels or covariates are no longer those of the set-up.
    """
    changed = _changed_column(manager, modalities, values or registered_values(manager))
    if changed is not None:
        argument, key = changed
        raise ValueError(
            f"`{key}`, `{argument}` of the set-up, has changed since `setup_mudata`, which keeps "
            "what was there then. Put the column back, and other values into another column; or "
            "pass `mdata.copy()` to ask about cells as the column has them now; or run "
            "`setup_mudata` again and build a new model."
        )


def _changed_column(
    manager: AnnDataManager, modalities: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[str, str] | None:
    """Argument and key of a column that does not hold what was registered, None if all do."""
    arguments = manager.registry["setup_args"]
    for argument, key, column in _columns(
        manager.adata, arguments, modalities, (*_CATEGORIES, _CONTINUOUS)
    ):
        name = _FIELDS[argument][0]
        if name not in values or len(values[name]) != len(column):
            return argument, key
        found, registered = column.to_numpy(), values[name]
        if argument == _CONTINUOUS:
            is_same = pd.api.types.is_numeric_dtype(column.dtype) and np.array_equal(
                registered[key].to_numpy(float), column.to_numpy(float, na_value=np.nan)
            )
        else:
            is_joint = argument == "categorical_covariate_keys"
            state = manager.get_state_registry(name)
            codes = registered[key].to_numpy() if is_joint else registered.ravel()
            names = state["mappings"][key] if is_joint else state["categorical_mapping"]
            # other set-ups have other codes, and cells that were renamed have none
            is_same = (
                codes.dtype.kind in "iu"
                and bool(((codes >= 0) & (codes < len(names))).all())
                and not column.isna().any()  # pandas.NA cannot be compared
                and np.array_equal(np.asarray(names, object)[codes], found.astype(object))
            )
        if not is_same:
            return argument, key
    return None


def _check_columns(
    mdata: MuData,
    arguments: Mapping[str, Any],
    modalities: Mapping[str, str | None],
    *,
    needs_cells: bool,
) -> None:
    checks = {
        **dict.fromkeys(_CATEGORIES, check_categories if needs_cells else check_no_missing),
        **dict.fromkeys(_SIZE_FACTORS, check_positive_column),
        _CONTINUOUS: check_numeric_finite,
    }
    for argument, _, column in _columns(mdata, arguments, modalities, checks):
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
        argument: states[_FIELDS[argument][0]]["categorical_mapping"]
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
    for argument, key, column in _columns(mdata, arguments, modalities, _CATEGORIES):
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


def _columns(
    mdata: MuData,
    arguments: Mapping[str, Any],
    modalities: Mapping[str, str | None],
    names: Iterable[str],
) -> Iterator[tuple[str, str, pd.Series]]:
    """Yield each column that these arguments name: the argument, the key and the column."""
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
        for argument, (name, make) in _FIELDS.items()
    ]
    return registered + (minified_fields() if is_minified(mdata) else [])


def registered_modalities(registry: Mapping[str, Any]) -> tuple[str, str]:
    """Keys of the RNA and of the ATAC modality in a registry."""
    modalities = registry["setup_args"]["modalities"]
    return modalities["rna_layer"], modalities["atac_layer"]


def registered_features(registry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Feature names of both modalities in a registry, by registry key."""
    states = registry["field_registries"]
    return {
        key: np.asarray(states[key]["state_registry"]["column_names"])
        for key in (keys.counts for keys in MODALITIES.values())
    }


def layers_of(arguments: Mapping[str, Any]) -> dict[str, str | None]:
    """Layers of the counts, by argument of `setup_mudata`; None for ``.X``."""
    return {keys.layer: arguments.get(keys.layer) for keys in MODALITIES.values()}


def feature_statistics(adata_manager: AnnDataManager, indices: np.ndarray) -> dict[str, Any]:
    """Sums over the training cells that the input transforms need, in blocks of rows.

    Parameters
    ----------
    adata_manager
        Of the registered data.
    indices
        ``(cells,)``, rows of the training cells.

    Returns
    -------
    Arguments of `SCMVPModule.set_feature_statistics`.
    """
    rna = adata_manager.get_from_registry(REGISTRY.RNA)
    atac = adata_manager.get_from_registry(REGISTRY.ATAC)
    rna_totals, atac_totals = np.zeros(rna.shape[1]), np.zeros(atac.shape[1])
    rna_depths, atac_depths = [], []
    for rows in _blocks_of(np.sort(indices)):
        rna_block, atac_block = rna[rows], atac[rows]
        rna_depths.append(_sums(rna_block, 1))
        atac_depths.append(_sums(atac_block, 1))
        rna_totals += _sums(rna_block, 0)
        atac_totals += _sums(atac_block, 0)
    rna_depth, atac_depth = np.concatenate(rna_depths), np.concatenate(atac_depths)
    statistics = {
        "rna_median_depth": _median_of_measured(rna_depth, rna_depth),
        "rna_totals": rna_totals,
        "atac_totals": atac_totals,
        "n_cells": len(indices),
    }
    for name, key, depth in (
        ("rna_depth_per_size_factor", REGISTRY.RNA_SIZE_FACTOR, rna_depth),
        ("atac_depth_per_size_factor", REGISTRY.ATAC_SIZE_FACTOR, atac_depth),
    ):
        if key in adata_manager.data_registry:
            factors = adata_manager.get_from_registry(key)[np.sort(indices)].ravel()
            # cells that were not measured have a factor too, which may be anything
            of_depths, of_factors = (_median_of_measured(v, depth) for v in (depth, factors))
            statistics[name] = of_depths / of_factors
    return statistics


class RawMeans(NamedTuple):
    """Means of raw counts over the cells of a group."""

    mean: np.ndarray  # (features,), counts
    detected: np.ndarray  # (features,), share of the cells with a count
    normalized: np.ndarray  # (features,), counts per ten thousand of the cell's depth
    log_variance: np.ndarray  # (features,), sampling variance of the logarithm of the mean
    depth: float  # counts of all cells and features together


def raw_means(counts: Any, rows: np.ndarray) -> RawMeans:
    """Average the counts of a group of cells, in blocks of rows.

    Cells without any count were not measured, and do not count.

    Parameters
    ----------
    counts
        ``(cells, features)``, a registered count matrix.
    rows
        ``(chosen,)``, positions in ascending order.
    """
    n_measured = 0
    total, squares, detected, normalized = np.zeros((4, counts.shape[1]))
    for some in _blocks_of(rows):
        block = sparse.csr_matrix(counts[some], dtype=np.float64)  # squares fit no small integer
        depth = _sums(block, 1)
        total += _sums(block, 0)
        squares += _sums(block.multiply(block), 0)
        detected += _sums(block > 0, 0)
        n_measured += int((depth > 0).sum())
        # a cell without counts adds nothing, whatever it is divided by
        normalized += block.T @ (1e4 / np.maximum(depth, 1))
    n_cells = max(n_measured, 1)
    n_free = max(n_cells - 1, 1)
    variance = (squares - total**2 / n_cells) * n_cells / n_free
    # a few cells can be alike by chance: as if some more had varied as Poisson's law has it
    steadied = (n_free * variance + _POISSON_CELLS * total) / (n_free + _POISSON_CELLS)
    variance = np.maximum(variance, steadied)
    # one more count keeps the logarithm of a feature without counts finite
    log_variance = (variance + 1) / (total + 1) ** 2
    return RawMeans(
        total / n_cells, detected / n_cells, normalized / n_cells, log_variance, total.sum()
    )


def has_empty_cells(adata_manager: AnnDataManager, key: str, rows: np.ndarray) -> bool:
    """Whether any of the cells has no count in the modality that is registered as ``key``."""
    counts = adata_manager.get_from_registry(key)
    return any(bool((_sums(counts[some], 1) == 0).any()) for some in _blocks_of(np.sort(rows)))


def _blocks_of(rows: np.ndarray) -> list[np.ndarray]:
    """Cut rows into blocks whose counts fit into memory."""
    return np.array_split(rows, max(1, -(-len(rows) // _ROWS_PER_BLOCK)))


def _sums(block: Any, axis: int) -> np.ndarray:
    """Sums of a block of cells in double precision, for counts may be of a type that is small."""
    return np.asarray(block.sum(axis, dtype=float)).ravel()


def _median_of_measured(values: np.ndarray, depth: np.ndarray) -> float:
    """Median over the cells that have any count; 1 if none has."""
    measured = depth > 0
    return float(np.median(values[measured])) if measured.any() else 1.0
