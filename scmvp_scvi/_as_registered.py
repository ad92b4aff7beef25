"""Whether data still are what the set-up registered, for users change data in between."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData
from scvi.data import AnnDataManager

from scmvp_scvi._data import (
    CATEGORIES,
    CONTINUOUS,
    FIELDS,
    SIZE_FACTORS,
    columns_of,
    registered_features,
)
from scmvp_scvi._keys import MODALITIES, REGISTRY
from scmvp_scvi._minified import is_minified
from scmvp_scvi._validate import (
    begins_with_counts,
    check_counts,
    check_feature_names,
    check_paired,
    check_positive_column,
    find_counts,
    same_names,
    spelled,
)


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
    for argument, _, column in columns_of(mdata, arguments, modalities, SIZE_FACTORS):
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
                    counts, argument=argument, modality=modality, layer=layer, adata=adata
                )


def _tables(mdata: MuData, registry: Mapping[str, Any]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield each registered table of `.obsm` that is there: where, its key, and itself."""
    modalities = registry["setup_args"]["modalities"]
    for argument in ("categorical_covariate_keys", CONTINUOUS):
        place = registry["field_registries"][FIELDS[argument][0]]["data_registry"]
        modality = modalities.get(argument)
        holder = mdata if modality is None else mdata.mod[modality]
        if place and place["attr_key"] in holder.obsm:
            yield spelled(modality), place["attr_key"], holder.obsm[place["attr_key"]]


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
    names = [FIELDS[argument][0] for argument in (*CATEGORIES, CONTINUOUS)]
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
    covariates = values.get(REGISTRY.CATEGORICAL_COVARIATES, pd.DataFrame())
    arguments = registry["setup_args"]
    of_one = [
        FIELDS[argument][0]
        for argument in ("batch_key", "labels_key")
        if arguments.get(argument) is None
    ]
    return (
        all(same_names(table.index, mdata.obs_names) for *_, table in _tables(mdata, registry))
        # of data without batches or labels, which are all of one
        and all(name in values and not np.any(values[name] != 0) for name in of_one)
        and _changed_column(manager, modalities, values) is None
        # codes that mudata has made floating-point numbers of are to be written anew
        and not any(dtype.kind == "f" for dtype in covariates.dtypes)
    )


def _whole(codes: np.ndarray) -> np.ndarray:
    """Codes as integers, where mudata has made floating-point numbers of them in an update."""
    if codes.dtype.kind == "f" and bool((codes == np.floor(codes)).all()):
        return codes.astype(int)
    return codes


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
    for argument, key, column in columns_of(
        manager.adata, arguments, modalities, (*CATEGORIES, CONTINUOUS)
    ):
        name = FIELDS[argument][0]
        if name not in values or len(values[name]) != len(column):
            return argument, key
        found, registered = column.to_numpy(), values[name]
        if argument == CONTINUOUS:
            is_same = pd.api.types.is_numeric_dtype(column.dtype) and np.array_equal(
                registered[key].to_numpy(float), column.to_numpy(float, na_value=np.nan)
            )
        else:
            is_joint = argument == "categorical_covariate_keys"
            state = manager.get_state_registry(name)
            codes = _whole(registered[key].to_numpy() if is_joint else registered.ravel())
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
