"""`QueryMixin`: a trained model takes in cells of new batches."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse

from scmvp_scvi._data import layers_of, registered_modalities
from scmvp_scvi._keys import MODALITIES, REGISTRY
from scmvp_scvi._mudata import as_csr, layer_names, mudata_of, reindexed
from scmvp_scvi._registered_names import RegisteredNamesMixin
from scmvp_scvi._registration import RegistrationMixin
from scmvp_scvi._scvi import parse_device_args
from scmvp_scvi._surgery import Surgery, extend_state
from scmvp_scvi._validate import (
    check_is_mudata,
    check_modalities,
    check_unique_features,
    did_you_mean,
    find_obs_column,
    shown,
    spelled,
    warn_user,
)

# options of scvi-tools that have nothing to act on here, and why
_NOT_OFFERED = {
    "inplace": "data are never changed in place; take the MuData that is returned",
    "inplace_subset_query_vars": (
        "data are never changed in place; "
        "call `mdata = SCMVPModel.prepare_query_mudata(mdata, reference_model)` first"
    ),
    "registry": "queries are read from a MuData; pass `mdata`",
    "datamodule": "queries are read from a MuData; pass `mdata`",
    "freeze_classifier": "the model has no classifier; leave it out",
    "transfer_batch": "new batches are what a query is for; leave it out",
}


class QueryMixin(RegistrationMixin, RegisteredNamesMixin):
    """Transfer of a trained `SCMVPModel` to new batches."""

    # what a query model learns, as `Surgery` has it; None for models that learn everything
    surgery_: dict[str, Any] | None = None

    @classmethod
    def load_query_data(
        cls,
        mdata: MuData,
        reference_model: "Self | str | PathLike[str]",
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
        unfrozen: bool = False,
        freeze_dropout: bool = False,
        freeze_expression: bool = True,
        freeze_decoder_first_layer: bool = True,
        freeze_batchnorm_encoder: bool = True,
        freeze_batchnorm_decoder: bool = True,
        **not_offered: Any,
    ) -> Self:
        """Make a model of new batches from a trained one: scArches :cite:p:`Lotfollahi2022`.

        Call `train` on what is returned. It learns the weights of categories that the reference
        does not know, the means of new batches where batches are centred, and nothing else: prior,
        mixture, constants of the input transforms and all other parameters are the reference's,
        and for cells of the reference every answer stays as it was. Saved and loaded, the model
        still learns no more than that.

        Parameters
        ----------
        mdata
            The query, organised as the data of the reference. Batches and categories of covariates
            may be new. The model registers it.
        reference_model
            A trained model, or the folder of a saved one.
        accelerator, device
            Where the new model goes, as in :meth:`scvi.model.base.BaseModelClass.load`.
        unfrozen
            Learn everything, starting at the reference; the other options are not read then.
        freeze_dropout
            Train without dropout, of inputs as well.
        freeze_expression
            Keep the first layers of the encoders. False changes the embedding of all cells.
        freeze_decoder_first_layer
            Keep the first layers of the decoders. False changes the decoded profiles of all cells.
        freeze_batchnorm_encoder, freeze_batchnorm_decoder
            Keep weights and running statistics of BatchNorm. scvi-tools lets those of the decoder
            learn by default, which changes the decoded profiles of the reference.
        **not_offered
            Other options of scvi-tools' ``load_query_data``, which are refused.

        Returns
        -------
        A model of the query, to be trained.

        Raises
        ------
        TypeError
            For options that the model does not have, or a reference of another class.
        RuntimeError
            If the reference has not been trained.
        ValueError
            If features differ from the reference's, if labels are new, or if there is nothing to
            learn.

        Examples
        --------
        >>> query = SCMVPModel.prepare_query_mudata(query, reference)
        >>> model = SCMVPModel.load_query_data(query, reference)
        >>> model.train(max_epochs=100)
        """
        _refuse(not_offered)
        reference = cls._reference(reference_model)
        reference._check_if_trained(
            warn=False, message="`reference_model` must be trained: call its `train` first."
        )
        arguments = reference.registry["setup_args"]
        # before the set-up, which would leave its mark on a query that is refused
        check_is_mudata(mdata)
        layers = layers_of(arguments)
        check_modalities(mdata, arguments["modalities"], layers)
        _check_labels(mdata, reference)
        cls.setup_mudata(
            mdata, source_registry=reference.registry, extend_categories=True, **arguments
        )
        model = cls(mdata, **reference.init_params_["non_kwargs"])
        state, known_rows = extend_state(reference.module.state_dict(), model.module.state_dict())
        model.module.load_state_dict(state)
        model.module.eval()
        _, _, where = parse_device_args(
            accelerator, device, return_device="torch", validate_single_device=True
        )
        model.to_device(where)
        if unfrozen:
            return model
        learned = (
            *(() if freeze_expression else _blocks("encoder.first_layer")),
            *(() if freeze_decoder_first_layer else _blocks("decoder.first_layer")),
            *(() if freeze_batchnorm_encoder else _blocks("encoder.attention.batch_norm")),
            *(() if freeze_batchnorm_decoder else _blocks("decoder.attention.batch_norm")),
        )
        if not known_rows and not learned:
            raise ValueError(
                "`mdata` must bring a batch or another category that the reference does not know, "
                f"got {_known_batches(reference)} alone: there is nothing to learn. Ask the "
                "reference itself, `reference_model.get_latent_representation(mdata)`, or set "
                "`unfrozen=True` to train all of it further."
            )
        model.surgery_ = Surgery(known_rows, learned, freeze_dropout)._asdict()
        return model

    @classmethod
    def prepare_query_mudata(
        cls,
        mdata: MuData,
        reference_model: "Self | str | PathLike[str]",
        *,
        return_reference_var_names: bool = False,
        **not_offered: Any,
    ) -> MuData | dict[str, pd.Index]:
        """Bring the features of a query into those of the reference, by their names.

        Features that the reference does not have are left out, and the others are put into its
        order. Those that the query lacks get zeros that are not stored; the model reads them as
        not expressed and not open. A modality that the query lacks gets no counts in any cell: the
        model reads it as not measured, whatever its size factors, which are 1 where there are
        none. If the reference was set up with labels and the query has none, all its cells are
        unlabeled.

        Parameters
        ----------
        mdata
            The query, its modalities named as in the reference, of which one may be missing;
            others are passed on as they are. Those on disk are read into memory.
        reference_model
            A model, or the folder of a saved one.
        return_reference_var_names
            Return the features of the reference, modality to names, and do nothing else.
        **not_offered
            Other options of scvi-tools' ``prepare_query_mudata``, which are refused.

        Returns
        -------
        A new MuData for `load_query_data`; the one that is passed in stays as it is.

        Raises
        ------
        TypeError, KeyError, ValueError
            If ``mdata`` is no MuData, lacks both modalities or a layer, repeats a name, or shares
            no feature with the reference; or if it has no labels, and no name of unlabeled cells
            fits those of the reference, which are numbers.

        Warns
        -----
        UserWarning
            If features or a modality are missing.
        """
        _refuse(not_offered)
        reference = cls._reference(reference_model)
        arguments = reference.registry["setup_args"]
        modalities = dict(arguments["modalities"])
        names = {key: pd.Index(known) for key, known in reference.get_var_names().items()}
        if return_reference_var_names:
            return names
        check_is_mudata(mdata)
        layers = layers_of(arguments)
        there = [name for name in layers if modalities[name] in mdata.mod] or list(layers)
        check_modalities(
            mdata,
            {name: modalities[name] for name in there},
            {name: layers[name] for name in there},
        )
        # what is on disk can be neither copied nor sliced as it is; columns may be added to others
        given = {key: adata.to_memory(copy=key not in names) for key, adata in mdata.mod.items()}
        matched = {}
        for name, layer in layers.items():
            modality = modalities[name]
            matched[modality] = (
                match_features(given[modality], names[modality], modality)
                if name in there
                else _not_measured(mdata, names[modality], modality, layer)
            )
        prepared = mudata_of({**given, **matched}, mdata.obs, uns=dict(mdata.uns))
        for of_cells, kept in ((mdata.obsm, prepared.obsm), (mdata.obsp, prepared.obsp)):
            for key, array in of_cells.items():
                if key not in mdata.mod:  # those are mudata's own: which rows each modality has
                    kept[key] = array.copy()
        if (table := _table_without("labels_key", prepared, arguments)) is not None:
            table[arguments["labels_key"]] = _unlabeled_category(reference)
        for name in layers.keys() - set(there):  # nothing will read them
            argument = name.replace("layer", "size_factor_key")
            if (table := _table_without(argument, prepared, arguments)) is not None:
                table[arguments[argument]] = 1.0
        return prepared

    @classmethod
    def _reference(cls, reference_model: "Self | str | PathLike[str]") -> Self:
        if isinstance(reference_model, str | PathLike):
            return cls.load(str(reference_model), adata=False, accelerator="cpu")
        if not isinstance(reference_model, cls):
            raise TypeError(
                f"`reference_model` must be a trained {cls.__name__} or the folder of a saved "
                f"one, got {type(reference_model).__name__}."
            )
        return reference_model


def _table_without(
    argument: str, mdata: MuData, arguments: Mapping[str, Any]
) -> pd.DataFrame | None:
    """Table that lacks the column which an argument of the set-up names; None if none does."""
    key, holder = arguments[argument], arguments["modalities"].get(argument)
    if key is None or (holder is not None and holder not in mdata.mod):
        return None
    table: pd.DataFrame = (mdata if holder is None else mdata.mod[holder]).obs
    return None if key in table else table


def match_features(adata: AnnData, names: pd.Index, modality: str) -> AnnData:
    """Copy one modality with the features of a reference, in its order; missing ones are zero.

    Parameters
    ----------
    adata, modality
        The modality and its key.
    names
        Features of the reference.

    Returns
    -------
    With missing features, ``.X`` and the layers are CSR matrices, columns of ``.var`` are missing
    for them, and ``.varm`` and ``.varp`` are left out. ``.raw`` keeps the features that it has.
    """
    check_unique_features(adata, modality)
    source = adata.var_names.get_indexer(names)
    missing = names[source < 0]
    if len(missing) == 0:
        return adata[:, names].copy()
    if len(missing) == len(names):
        raise ValueError(
            f"`{modality}` must share features with the reference, but no name is in both: "
            f"`{adata.var_names[0]}` is one of the query, `{names[0]}` one of the reference. If "
            "they differ in spelling alone, rename those of the query."
        )
    warn_user(
        f"`{modality}` lacks {len(missing)} of the {len(names)} features of the reference, which "
        f"count as zero in all its cells: {shown(missing)}. The more there are, the less its "
        "embedding means; counting the query on the features of the reference avoids it.",
    )
    matched = AnnData(
        X=None if adata.X is None else _take_columns(adata.X, source),
        obs=adata.obs.copy(),
        var=reindexed(adata.var, names),
        uns=dict(adata.uns),
        obsm={key: array.copy() for key, array in adata.obsm.items()},
        obsp={key: array.copy() for key, array in adata.obsp.items()},
        layers={key: _take_columns(adata.layers[key], source) for key in layer_names(adata)},
    )
    if adata.raw is not None:
        matched.raw = adata.raw.to_adata()
    return matched


def _not_measured(mdata: MuData, names: pd.Index, modality: str, layer: str | None) -> AnnData:
    """Modality without a count in any cell, with the features of a reference."""
    warn_user(
        f"The query has no modality `{modality}`, but {shown(mdata.mod)}: its cells are taken for "
        f"not measured in `{modality}`, and embedded from the other modality alone."
        f"{did_you_mean(modality, mdata.mod)}",
    )
    empty = AnnData(
        sparse.csr_matrix((mdata.n_obs, len(names)), dtype=np.float32),
        obs=pd.DataFrame(index=mdata.obs_names),
        var=pd.DataFrame(index=names),
    )
    if layer is not None:
        empty.layers[layer] = empty.X
    return empty


def _take_columns(matrix: Any, source: NDArray[np.int64]) -> sparse.csr_matrix:
    """Columns of a matrix by position, empty ones for -1, as the product with a selection."""
    counts = as_csr(matrix)
    wanted = np.flatnonzero(source >= 0)
    selection = sparse.csr_matrix(
        (np.ones(len(wanted), counts.dtype), (source[wanted], wanted)),
        shape=(counts.shape[1], len(source)),
    )
    taken = sparse.csr_matrix(counts @ selection)
    taken.sort_indices()
    return taken


def _refuse(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name == "inplace" and value is False:  # what happens anyway
            continue
        reason = _NOT_OFFERED.get(name, "there is no such option")
        raise TypeError(f"`{name}` is not offered: {reason}.")


def _blocks(suffix: str) -> tuple[str, ...]:
    """Names of the two channels' blocks."""
    return tuple(f"{channel}_{suffix}" for channel in MODALITIES)


def _known_batches(reference: QueryMixin) -> str:
    if reference.registry["setup_args"]["batch_key"] is None:
        return "a reference that was set up without `batch_key`"
    return f"the batches {shown(reference._categories(REGISTRY.BATCH))}"


def _unlabeled_category(reference: QueryMixin) -> Any:
    """Return what cells without a label are called, if it can stand beside the known labels."""
    unlabeled = reference._unlabeled_category
    known = reference._categories(REGISTRY.LABELS)
    if isinstance(unlabeled, str) != isinstance(known[0], str):
        arguments = reference.registry["setup_args"]
        key, holder = arguments["labels_key"], arguments["modalities"].get("labels_key")
        table = f"{spelled(holder)}.obs"
        raise ValueError(
            f'`{table}` must have the column "{key}", `labels_key` of the reference: its labels '
            f"are of type {type(known[0]).__name__}, {shown(known)}, and {unlabeled!r}, as cells "
            "without a label are called, is no such. Give them a known label, by which no "
            f'embedding goes, `{table}["{key}"] = {known[0]!r}`, or train the reference on labels '
            "that are strings."
        )
    return unlabeled


def _check_labels(mdata: MuData, reference: QueryMixin) -> None:
    """Refuse labels that seed no component of the reference's mixture."""
    arguments = reference.registry["setup_args"]
    key, modalities = arguments["labels_key"], arguments["modalities"]
    if key is None:
        return
    unlabeled = reference._unlabeled_category
    column = find_obs_column(
        mdata,
        key,
        argument="labels_key",
        modality=modalities.get("labels_key"),
        modality_keys=registered_modalities(reference.registry),
    )
    known = [*reference._categories(REGISTRY.LABELS), unlabeled]
    new = [label for label in column.unique() if label not in known]
    if new:
        raise ValueError(
            f"`{key}` must hold labels of the reference, whose mixture stays as it is, got "
            f"{shown(new)}. Set them to {unlabeled!r}, and keep the names in another column."
        )
