"""`SCMVPModel`: what the user holds."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData, read_h5mu
from scipy import sparse
from scvi import settings
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.dataloaders import AnnDataLoader
from scvi.model.base import BaseMinifiedModeModelClass, UnsupervisedTrainingMixin

from scmvp_scvi._data import (
    check_columns_as_registered,
    check_data,
    check_still_as_registered,
    data_fields,
    is_as_registered,
    is_on_disk,
    registered_features,
    registered_modalities,
    registered_values,
)
from scmvp_scvi._data_splitter import SCMVPDataSplitter, checked_parts, silence_csr_warnings
from scmvp_scvi._denoised import DenoisedMixin
from scmvp_scvi._differential import DifferentialMixin
from scmvp_scvi._embedding import EmbeddingMixin
from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._likelihood import LikelihoodMixin
from scmvp_scvi._minified import (
    LOAD_WITH_COUNTS,
    check_has_counts,
    check_minified_by,
    forget_registration,
    is_minified,
)
from scmvp_scvi._minify import MinifyMixin
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._predictive import PredictiveMixin
from scmvp_scvi._query import QueryMixin
from scmvp_scvi._scvi import DATA_UUID_KEY, SAVE_KEYS, is_latest, keep_codes, register_again
from scmvp_scvi._surgery import surgery_from
from scmvp_scvi._train_runner import SCMVPTrainRunner
from scmvp_scvi._training_plan import SCMVPTrainingPlan, arguments_of_plan
from scmvp_scvi._validate import (
    check_fraction,
    check_integer_at_least,
    check_is_mudata,
    check_one_of,
    check_positive_share,
    did_you_mean,
    has_views,
    mapping_of,
    shown,
)
from scmvp_scvi.nn._attention import SelfAttentionForm
from scmvp_scvi.nn._covariates import BatchRepresentation
from scmvp_scvi.nn._decoders import Dispersion

_CELLS_SEEN = 200_000  # by default training shows this many cells to the model, repeats included
# with more, a model of five hundred cells overfits, and predicts held-out counts worse
_MIN_EPOCHS, _MAX_EPOCHS = 10, 100
# a model of few cells predicts held-out counts better with it; ten thousand neither gain nor lose
_FEW_CELLS, _DROPOUT_OF_FEW = 5_000, 0.1
# arguments of the data splitter and of PyTorch's loader, which it makes
_OF_SPLITTER = ("external_indexing", "pin_memory", "num_workers", "drop_last")
# further modalities may lack cells, which scvi-tools would refuse
_CHECKED_BY_US = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)
# arguments of the plan that the model brings, and where users choose them
_OF_MODEL = {
    "n_clusters": "pass it to `SCMVPModel(...)`",
    "seeding_labels": "pass `labels_key` to `SCMVPModel.setup_mudata`",
    "surgery": "pass `unfrozen=True` to `SCMVPModel.load_query_data` for a query that learns all",
}


class SCMVPModel(
    DifferentialMixin,
    PredictiveMixin,
    MinifyMixin,
    LikelihoodMixin,
    DenoisedMixin,
    EmbeddingMixin,
    QueryMixin,
    UnsupervisedTrainingMixin,
    BaseMinifiedModeModelClass,
):
    """Joint model of RNA and ATAC measured in the same cells :cite:p:`Li2022`.

    Parameters
    ----------
    mdata
        MuData that `setup_mudata` has registered.
    registry
        Registry of a saved model, in place of data.
    n_clusters
        Components of the mixture prior; None lets Leiden on the latent space choose, at the
        resolution ``plan_kwargs={"cluster_resolution": 1.0}`` of `train`, or takes one component a
        label if ``labels_key`` was registered.
    max_clusters
        Room for components if Leiden chooses their number.
    unlabeled_category
        Label of cells that seed no component.
    n_latent
        Dimensions of the latent space.
    n_hidden
        Width of the RNA channel and of its decoder.
    n_hidden_atac
        Width of the ATAC channel and of its decoder, which weigh most in time and memory.
    n_shared
        Width of the layer over both channels.
    n_heads
        Heads of the self attentions; divides ``n_hidden_atac``.
    self_attention
        ``"token"`` as published, ``"scalar"`` as in the authors' code; see
        :class:`~scmvp_scvi.nn.SelfAttention`.
    cluster_attention
        Whether p(c | z) weights the decoders' last hidden layer.
    dispersion
        Inverse dispersion of the RNA counts: one a gene, or one a gene and batch or label, where
        data without ``batch_key`` or ``labels_key`` are one batch or label.
    atac_target
        What the ATAC decoder reconstructs: the counts, or the log1p of their TF-IDF.
    encode_covariates
        Whether batch and covariates enter the encoders as well as the decoders.
    center_batches
        Whether the encoders subtract, in their first layers, the difference between the mean of a
        batch and that of all cells. Batches mix more. So do types that only one batch has: for
        batches of similar composition.
    batch_representation
        ``"one-hot"``: weights of its own for each batch; ``"embedding"``: a vector of five numbers
        for each batch, which `get_batch_representation` returns and all layers share. The vector
        suits many batches.
    dropout_rate
        Dropout on hidden layers, in training; more than a tenth can ruin the clusters of deep
        data. None for 0.1 up to 5,000 cells, which the model overfits without, and 0 above.
    rna_input_dropout, atac_input_dropout
        Share of a cell's input values dropped in training; keeps the channels from memorising
        their training cells.

    Examples
    --------
    >>> mdata = scmvp_scvi.datasets.synthetic()
    >>> SCMVPModel.setup_mudata(mdata)
    >>> model = SCMVPModel(mdata)
    >>> model.train()
    >>> mdata.obsm["X_scmvp"] = model.get_latent_representation()
    >>> mdata.obs["scmvp_cluster"] = model.predict_clusters()

    Notes
    -----
    Saved models are pickles: load only what you trust.
    """

    _module_cls = SCMVPModule
    _training_plan_cls = SCMVPTrainingPlan
    _train_runner_cls = SCMVPTrainRunner
    _data_splitter_cls = SCMVPDataSplitter
    _copy_of_view = ""  # uuid of the copy of the view that was asked about last
    _own_values: tuple[str, dict[str, Any]] = ("", {})  # of the manager, what the set-up read

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_clusters: int | None = None,
        max_clusters: int = 50,
        unlabeled_category: str = "Unknown",
        n_latent: int = 30,
        n_hidden: int = 128,
        n_hidden_atac: int = 64,
        n_shared: int = 256,
        n_heads: int = 8,
        self_attention: SelfAttentionForm = "token",
        cluster_attention: bool = True,
        dispersion: Dispersion = "gene",
        atac_target: Literal["counts", "tfidf"] = "counts",
        encode_covariates: bool = False,
        center_batches: bool = False,
        batch_representation: BatchRepresentation = "one-hot",
        dropout_rate: float | None = None,
        rna_input_dropout: float = 0.1,
        atac_input_dropout: float = 0.7,
    ) -> None:
        self._check_is_set_up(mdata, registry)
        super().__init__(mdata, registry)
        if mdata is not None:
            keep_codes(self.adata_manager)
            self._keep_values()
        silence_csr_warnings()
        if dropout_rate is None:  # recorded as a number: a query has another number of cells
            dropout_rate = default_dropout_rate(self.summary_stats["n_cells"])
        _check_architecture(locals())
        if atac_target == "tfidf" and self.registry["setup_args"]["atac_size_factor_key"]:
            raise ValueError(
                '`atac_target="tfidf"` has depth normalised away, so that ATAC size factors have '
                "nothing to scale: leave `atac_size_factor_key` out of `setup_mudata`, or "
                'reconstruct the counts, `atac_target="counts"`.'
            )
        stats = self.summary_stats
        if center_batches and stats["n_batch"] < 2:
            raise ValueError(
                "`center_batches` centres the cells of each batch, and there is one batch: name "
                "the column of the batches with `batch_key` in `setup_mudata`, or leave it out."
            )
        cat_covs = self.registry["field_registries"][REGISTRY.CATEGORICAL_COVARIATES]
        self.module = SCMVPModule(
            n_genes=stats["n_vars"],
            n_peaks=stats[f"n_{REGISTRY.ATAC}"],
            n_batch=stats["n_batch"],
            n_labels=stats["n_labels"],
            n_categories=tuple(cat_covs["state_registry"].get("n_cats_per_key", ())),
            n_continuous=stats.get("n_extra_continuous_covs", 0),
            n_hidden=n_hidden,
            n_hidden_atac=n_hidden_atac,
            n_shared=n_shared,
            n_latent=n_latent,
            n_heads=n_heads,
            self_attention=self_attention,
            cluster_attention=cluster_attention,
            max_clusters=self._room_for_clusters(n_clusters, max_clusters, unlabeled_category),
            dispersion=dispersion,
            atac_target=atac_target,
            encode_covariates=encode_covariates,
            center_batches=center_batches,
            batch_representation=batch_representation,
            dropout_rate=dropout_rate,
            rna_input_dropout=rna_input_dropout,
            atac_input_dropout=atac_input_dropout,
        )
        self.module.minified_data_type = self.minified_data_type
        components = "one a label" if self._has_labels else n_clusters or "chosen by Leiden"
        self._model_summary_string = (
            f"SCMVPModel with n_latent: {n_latent}, n_hidden: {n_hidden}, clusters: {components}, "
            f"self_attention: {self_attention}, dispersion: {dispersion}, "
            f"atac_target: {atac_target}"
        )
        self.init_params_ = self._get_init_params(locals())
        # a model without data would save `mdata=None`, and loading would pass `mdata` twice
        self.init_params_["non_kwargs"].pop("mdata", None)
        # in loading, scvi-tools drops an argument of this name, but not from here
        self.init_params_["kwargs"] = {"labels": {"unlabeled_category": unlabeled_category}}

    # -- data -----------------------------------------------------------------------------------

    @classmethod
    def _check_is_set_up(cls, mdata: MuData | None, registry: dict[str, Any] | None) -> None:
        """Refuse data that no set-up has registered, which scvi-tools calls AnnData."""
        if mdata is None and registry is None:
            raise ValueError("`SCMVPModel` needs `mdata`, or the `registry` of a model, got none.")
        if mdata is None:
            return
        check_is_mudata(mdata)
        if not isinstance(registry, (Mapping, type(None))):
            raise TypeError(
                "`registry` must be the registry of a saved model, in place of data, got "
                f"{registry!r}. Name all other arguments: `SCMVPModel(mdata, n_latent=...)`."
            )
        try:
            is_set_up = cls._get_most_recent_anndata_manager(mdata) is not None
        except ValueError:  # of a copy, in words of AnnData
            is_set_up = False
        if not is_set_up:
            raise ValueError(
                "`mdata` must be set up first, itself and not what it was copied from, got one "
                "that is not. Run `SCMVPModel.setup_mudata(mdata)`, with "
                '`modalities={"rna_layer": ..., "atac_layer": ...}` if they are not `rna` and '
                "`atac`."
            )

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        rna_layer: str | None = None,
        atac_layer: str | None = None,
        batch_key: str | None = None,
        labels_key: str | None = None,
        rna_size_factor_key: str | None = None,
        atac_size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        modalities: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a MuData whose modalities hold raw counts of the same cells.

        Nothing is reordered, densified or copied; the checks say what to change.

        Parameters
        ----------
        mdata
            The data: two modalities with the same cells in the same order.
        rna_layer, atac_layer
            Layer with the raw counts; None for ``.X``. ATAC counts may be fragments or
            binary; counts of both ends of a fragment, reads or cut sites, are warned about.
        batch_key
            Column with the batch of each cell.
        labels_key
            Column with labels; they seed the components of the mixture prior.
        rna_size_factor_key, atac_size_factor_key
            Columns with size factors, positive, used in place of the observed depth. Their median
            over the training cells with counts is scaled to the median depth of these: a common
            factor does not matter, as long as new cells have it too.
        categorical_covariate_keys, continuous_covariate_keys
            Columns with further covariates.
        modalities
            Argument name to modality: where each of the above is. Of what is left out,
            ``rna_layer`` is in the modality ``rna`` and ``atac_layer`` in ``atac``; keys are
            looked up in ``mdata.obs``.
        **kwargs
            Passed to :meth:`scvi.data.AnnDataManager.register_fields`: ``source_registry``, and
            the options that it takes with it.

        Raises
        ------
        TypeError, KeyError, ValueError
            For unknown arguments and for data that would give wrong results, with the way out.

        Examples
        --------
        >>> SCMVPModel.setup_mudata(mdata, batch_key="donor")

        With modalities of other names, and the donors in the table of one of them:

        >>> SCMVPModel.setup_mudata(
        ...     mdata,
        ...     batch_key="donor",
        ...     modalities={"rna_layer": "gex", "atac_layer": "peaks", "batch_key": "gex"},
        ... )
        """
        check_is_mudata(mdata)
        modalities = _with_usual_modalities(mdata, modalities)
        # copies, for callers may go on to use their lists
        setup_method_args = deepcopy(cls._get_setup_method_args(**locals()))
        known = set(setup_method_args["setup_args"]) - {"modalities"}
        if "source_registry" not in kwargs:  # which comes with options of scvi-tools' own
            _check_are_known(kwargs, known, what="`setup_mudata` takes no argument")
        _check_are_known(modalities, known, what="`modalities` names no argument")
        where = _modality_of_each_argument(cls, mdata, modalities, setup_method_args)
        arguments = setup_method_args["setup_args"]
        check_data(
            mdata,
            arguments,
            where,
            kwargs.get("source_registry"),
            extends_categories=bool(kwargs.get("extend_categories")),
        )
        earlier = cls._setup_adata_manager_store.get(mdata.uns.get(DATA_UUID_KEY))
        if earlier is not None and earlier.adata is not mdata:
            forget_registration(mdata)  # inherited from the data they were copied from
        manager = AnnDataManager(
            fields=data_fields(mdata, arguments, where),
            setup_method_args=setup_method_args,
            validation_checks=_CHECKED_BY_US,
        )
        manager.register_fields(mdata, **kwargs)
        cls.register_manager(manager)

    @classmethod
    def setup_anndata(cls, adata: AnnData, **kwargs: Any) -> None:
        """Refuse an AnnData: two modalities live in a MuData.

        Raises
        ------
        TypeError
            Always, with the way out.
        """
        del kwargs
        check_is_mudata(adata)
        raise TypeError("`setup_anndata` is not for MuData: call `SCMVPModel.setup_mudata`.")

    @classmethod
    def load(
        cls, dir_path: str, adata: MuData | bool | None = None, *args: Any, **kwargs: Any
    ) -> "SCMVPModel":
        """Load a model that `save` has written.

        Parameters
        ----------
        dir_path
            Its folder.
        adata
            A MuData with the features of the model, which need not be set up; None for the data
            that were saved with the model, False for no data. Without data, the first that a
            method is given become those of the model.
        *args, **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.load`: device, prefix of the files,
            where to download them.

        Raises
        ------
        TypeError
            If ``adata`` is no MuData.
        ValueError
            If the data do not fit the model, or are minified by another one.
        """
        if not (adata is None or adata is False):
            check_is_mudata(adata)
        if adata is None:
            adata = _saved_without_first_modality(dir_path, *args, **kwargs)
        if isinstance(adata, MuData) and _lacks_first_modality(adata):
            # which scvi-tools would take for minified data
            model = super().load(dir_path, False, *args, **kwargs)
            model._validate_anndata(adata)
        else:
            model = super().load(dir_path, adata, *args, **kwargs)
        if model.adata is not None:
            check_minified_by(model.adata, model.module.state_dict())
        return model

    def save(
        self,
        dir_path: str,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Save the model, and its data if asked to.

        Parameters
        ----------
        dir_path
            Folder to write to.
        prefix
            Of the names of the files.
        overwrite
            Whether the folder may be there.
        save_anndata
            Whether to write the data of the model as well.
        *args, **kwargs
            Passed to :meth:`scvi.model.base.BaseModelClass.save`: arguments of what writes.

        Raises
        ------
        ValueError
            If the folder is there, or if the data are no longer those of the set-up.
        """
        if save_anndata and self.adata is not None:
            self._validate_anndata()  # changed data would be saved with a model they do not fit
        super().save(dir_path, prefix, overwrite, save_anndata, *args, **kwargs)

    def get_var_names(self, legacy_mudata_format: bool = False) -> dict[str, Any]:
        """Names of the features the model was set up with, modality to names.

        Parameters
        ----------
        legacy_mudata_format
            Return all names in one array as scvi-tools does, where there are data.
        """
        if legacy_mudata_format and self.adata is not None:
            return super().get_var_names(legacy_mudata_format=True)
        # of further modalities, which the model does not read, loaded data may have none
        modalities = registered_modalities(self.registry)
        return dict(zip(modalities, registered_features(self.registry).values(), strict=True))

    def view_anndata_setup(
        self, adata: MuData | None = None, hide_state_registries: bool = False
    ) -> None:
        """Print what was set up of the model's data, or of others that are registered.

        Parameters
        ----------
        adata
            The data; None for those of the model.
        hide_state_registries
            Leave out the details of each field.
        """
        super().view_anndata_setup(self._data(adata), hide_state_registries)

    def _validate_anndata(self, adata: MuData | None = None, copy_if_view: bool = True) -> MuData:
        """Check new data against the model before scvi-tools registers it."""
        mdata = self._data(adata)
        check_is_mudata(mdata, allow_view=copy_if_view)
        is_copy = has_views(mdata)
        if is_copy:
            if is_on_disk(mdata):
                raise ValueError(
                    "`adata` is a view of data on disk, which cannot be copied to be registered. "
                    "Pass the data themselves and the cells as `indices`, or read them first."
                )
            mdata = adata = mdata.copy()
        # a copy carries the mark of registered data, whatever was done to it since
        if self._is_registered(mdata):
            check_still_as_registered(mdata, self.registry)
            self._renew_registration(mdata)
        else:
            self._check_new_data(mdata)
        validated = super()._validate_anndata(adata, copy_if_view=copy_if_view)
        # which scvi-tools leaves out of what it transfers, and needs of a model's own data
        manager = self.get_anndata_manager(validated)
        manager.registry.setdefault("setup_method_name", self.registry["setup_method_name"])
        if is_copy:  # which scvi-tools would keep for each call with a view
            managers = self._per_instance_manager_store[self.id]
            managers.pop(self._copy_of_view, None)
            self._copy_of_view = validated.uns[DATA_UUID_KEY]
        self._keep_values()  # data can become the model's own later on
        return validated

    def _keep_values(self) -> None:
        """Keep codes and covariates of the model's own data, which are those of its registry."""
        manager = self.adata_manager
        if manager is not None and self._own_values[0] != manager.id:
            self._own_values = manager.id, registered_values(manager)

    def _renew_registration(self, mdata: MuData) -> None:
        """Register data again that no longer hold what this model registered.

        Other registrations write their codes to the same places; users change columns, and remove
        what they do not know. Own columns that changed are refused, for the model was trained on
        what they held; those of other data are read as they are.
        """
        managers = self._per_instance_manager_store[self.id].values()
        manager = next(manager for manager in managers if manager.adata is mdata)
        arguments = self.registry["setup_args"]
        where = _modality_of_each_argument(
            type(self), mdata, arguments["modalities"], {"setup_args": arguments}
        )
        if is_latest(manager) and is_as_registered(manager, where):
            return
        is_own = manager is self.adata_manager
        if not (is_own and is_latest(manager)):
            self._check_against_setup(mdata)
        if is_own:
            kept = self._own_values[1]
            are_of_these_cells = all(len(values) == mdata.n_obs for values in kept.values())
            if are_of_these_cells or is_latest(manager):
                check_columns_as_registered(manager, where, kept if are_of_these_cells else None)
        register_again(manager)

    def _data(self, adata: MuData | None = None) -> MuData:
        """Return the data that are asked about: those given, or else the model's own."""
        if adata is not None:
            return adata
        if self.adata is None:
            raise ValueError(
                "The model was loaded without data: pass them as `adata` where a method takes it, "
                "or load the model with them, `SCMVPModel.load(folder, adata=mdata)`."
            )
        return self.adata

    def _check_new_data(self, mdata: MuData) -> None:
        if is_minified(mdata):
            if self.get_anndata_manager(mdata) is None:  # no copy of data of this model
                check_minified_by(mdata, self.module.state_dict())
                raise ValueError(
                    "Minified data are read by a model that was loaded with them: "
                    "`SCMVPModel.load(folder, adata=mdata)`, or pass the data with counts."
                )
        elif self.minified_data_type is not None:
            # scvi-tools would look for the fields of minified data in them
            self._register_manager_for_instance(self._new_manager(mdata))
        else:
            self._check_against_setup(mdata)

    def _check_against_setup(self, mdata: MuData) -> dict[str, str | None]:
        """Check data by the model's own set-up; return the modality of each argument."""
        arguments = self.registry["setup_args"]
        where = _modality_of_each_argument(
            type(self), mdata, arguments["modalities"], {"setup_args": arguments}
        )
        check_data(mdata, arguments, where, self.registry)
        return where

    def _new_manager(self, mdata: MuData) -> AnnDataManager:
        """Register data with the fields that they have themselves, minified or not."""
        where = self._check_against_setup(mdata)
        if mdata.uns.get(DATA_UUID_KEY) in self._per_instance_manager_store.get(self.id, {}):
            forget_registration(mdata)  # inherited from the data they were copied from
        setup = ("model_name", "setup_method_name", "setup_args")
        manager = AnnDataManager(
            fields=data_fields(mdata, self.registry["setup_args"], where),
            setup_method_args={key: self.registry[key] for key in setup},
            validation_checks=_CHECKED_BY_US,
        )
        manager.register_fields(mdata, source_registry=self.registry)
        return manager

    def _make_data_loader(
        self, adata: MuData, indices: Sequence[int] | np.ndarray | None = None, **kwargs: Any
    ) -> AnnDataLoader:
        """Make scvi-tools' loader of minibatches that stay sparse."""
        if is_on_disk(adata) and indices is not None and (np.diff(indices) <= 0).any():
            raise ValueError(
                "`indices` must ascend without repeats where the data are on disk, which are read "
                "in that order, got others. Sort them, or read the data into memory."
            )
        kwargs.setdefault("load_sparse_tensor", True)
        if kwargs.get("batch_size") is not None:
            check_integer_at_least(kwargs["batch_size"], 1, name="batch_size")
            kwargs["batch_size"] = int(kwargs["batch_size"])  # torch takes no other integers
        return super()._make_data_loader(adata, indices, **kwargs)

    def _categories(self, key: str) -> np.ndarray:
        """Names of the categories of a registered key, in the order of their codes."""
        return self.registry["field_registries"][key]["state_registry"]["categorical_mapping"]

    def _feature_names(self, key: str) -> np.ndarray:
        return registered_features(self.registry)[key]

    @property
    def _has_labels(self) -> bool:
        return self.registry["setup_args"]["labels_key"] is not None

    # -- clusters -------------------------------------------------------------------------------

    def _seeding_labels(self, unlabeled_category: str) -> list[Any]:
        """Labels that seed a component, in the order of the components."""
        return [name for name in self._categories(REGISTRY.LABELS) if name != unlabeled_category]

    def _room_for_clusters(
        self, n_clusters: int | None, max_clusters: int, unlabeled_category: str
    ) -> int:
        if not self._has_labels:
            return max_clusters if n_clusters is None else n_clusters
        self._warn_about_unlabeled(unlabeled_category)
        n_labels = len(self._seeding_labels(unlabeled_category))
        if n_labels == 0:
            raise ValueError(
                "`labels_key` must name a column with labels that seed components, but all cells "
                f"have the category of unlabeled cells, {unlabeled_category!r}. Leave it out."
            )
        if n_clusters not in (None, n_labels):
            raise ValueError(
                f"`n_clusters` must be None or the number of labels, {n_labels}, where labels "
                f"seed the components, got {n_clusters}. Leave `labels_key` out of "
                "`setup_mudata` to choose the number freely."
            )
        return n_labels

    def _warn_about_unlabeled(self, unlabeled_category: str) -> None:
        """Warn where the name of unlabeled cells is none, and cells that have none seed."""
        names = [str(name) for name in self._categories(REGISTRY.LABELS)]
        if str(unlabeled_category) in names:
            return
        default = signature(SCMVPModel).parameters["unlabeled_category"].default
        near = [name for name in names if name.lower() == str(unlabeled_category).lower()]
        if near:
            way_out = f"If `{near[0]}` is its name, pass `unlabeled_category={near[0]!r}`."
        elif isinstance(unlabeled_category, str) and unlabeled_category != default:
            # a number is no misspelling: one that no cell has yet can be for those of a query
            way_out = f"The labels are {shown(names)}."
        else:
            return
        warnings.warn(
            f"`unlabeled_category={unlabeled_category!r}` is no label of `labels_key`, so that "
            f"each label seeds a component, that of unlabeled cells as well. {way_out}",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )

    def _cluster_names(self) -> pd.Index:
        """Names of the components in use: the seeding labels, or numbers as strings."""
        if self._has_labels:
            unlabeled = self.init_params_["non_kwargs"]["unlabeled_category"]
            return pd.Index([str(name) for name in self._seeding_labels(unlabeled)])
        return pd.Index([str(i) for i in range(self.module.prior.n_clusters)])

    # -- training -------------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        load_sparse_tensor: bool = True,
        batch_size: int = 64,
        early_stopping: bool = False,
        check_val_every_n_epoch: int | None = 1,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model: a broad Gaussian prior first, then the mixture.

        Parameters
        ----------
        max_epochs
            Passes over the training cells; None for as many as show the model 200,000 cells, at
            least 10 and at most 100: 20 for ten thousand cells.
        accelerator, devices
            Of Lightning: ``"cpu"``, ``"gpu"``, ``"auto"``, and how many. Several need
            ``strategy="ddp"``.
        train_size, validation_size
            Shares of the cells; the rest is held out as a test set. By default 0.9 and 0.1.
        shuffle_set_split
            Whether the split is random.
        load_sparse_tensor
            Whether sparse counts stay sparse in the minibatches, or are written out.
        batch_size
            Cells a minibatch.
        early_stopping
            Stop when the validation ELBO no longer improves. It is watched once the last mixture
            has its full weight, by default after 70 % of the epochs, and at once if the model has
            been trained before; training stops after a tenth of the epochs without improvement.
            ``early_stopping_warmup_epochs`` and ``early_stopping_patience`` change both, in
            validations.
        check_val_every_n_epoch
            Epochs between validations, where cells are held out for it; None for none.
        datasplitter_kwargs
            Passed to :class:`scvi.dataloaders.DataSplitter`, such as ``external_indexing``.
        plan_kwargs
            Passed to `SCMVPTrainingPlan`: learning rate, schedules, weights of the terms.
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`. Checkpoints go by the validation ELBO unless
            ``checkpointing_monitor`` says otherwise: the weight of the KL in the loss changes.
            What scvi-tools' ``plan_config`` and ``trainer_config``, as mappings, say counts where
            it is not an argument here.

        Raises
        ------
        TypeError
            For arguments that go elsewhere, or that are not offered.
        ValueError
            If the data are minified, or no longer what was set up; if there are too few cells for
            the clusters; if early stopping or checkpoints have no cells to go by; or if the
            training diverges, after which the model is to be built or loaded anew.
        """
        mdata = self._data()
        check_has_counts(mdata, needed_by="`train`", way_out=LOAD_WITH_COUNTS)
        with warnings.catch_warnings():  # of what the set-up has warned of
            warnings.simplefilter("ignore")
            where = self._check_against_setup(mdata)  # it may have been changed since
            check_still_as_registered(mdata, self.registry)
            self._renew_registration(mdata)  # another set-up of the same data has other codes
        check_columns_as_registered(self.adata_manager, where)
        if max_epochs is None:
            max_epochs = default_max_epochs(mdata.n_obs)
        check_integer_at_least(max_epochs, 1, name="max_epochs")
        _check_trainer_arguments(trainer_kwargs)
        _check_strategy(devices, trainer_kwargs)
        plan_config = mapping_of(trainer_kwargs.pop("plan_config", None), name="plan_config")
        plan_kwargs = {**plan_config, **mapping_of(plan_kwargs, name="plan_kwargs")}
        _check_plan_arguments(plan_kwargs)
        # BatchNorm cannot train on one cell
        check_integer_at_least(batch_size, 2, name="batch_size")
        splitter_kwargs = dict(datasplitter_kwargs or {})
        if splitter_kwargs.get("external_indexing") is None:
            _check_split(train_size, validation_size)
        else:
            splitter_kwargs["external_indexing"] = checked_parts(
                splitter_kwargs["external_indexing"], mdata.n_obs, cells=mdata.obs_names
            )
        n_clusters = self.init_params_["non_kwargs"]["n_clusters"]
        unlabeled = self.init_params_["non_kwargs"]["unlabeled_category"]
        seeding = [
            list(self._categories(REGISTRY.LABELS)).index(name)
            for name in self._seeding_labels(unlabeled)
        ]
        plan = {
            "n_clusters": n_clusters,
            "seeding_labels": seeding if self._has_labels else None,
            "seed": 0 if settings.seed is None else settings.seed,
            "surgery": surgery_from(self.surgery_),
            **plan_kwargs,
        }
        super().train(
            max_epochs=int(max_epochs),  # Lightning takes no other integers
            accelerator=accelerator,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            shuffle_set_split=shuffle_set_split,
            batch_size=int(batch_size),
            early_stopping=early_stopping,
            check_val_every_n_epoch=check_val_every_n_epoch,
            load_sparse_tensor=load_sparse_tensor,
            datasplitter_kwargs=splitter_kwargs,
            plan_kwargs=plan,
            **trainer_kwargs,
        )


def default_max_epochs(n_cells: int) -> int:
    """Epochs that show the model about as many cells whatever the size of the data.

    Parameters
    ----------
    n_cells
        Number of cells.
    """
    return int(np.clip(round(_CELLS_SEEN / n_cells), _MIN_EPOCHS, _MAX_EPOCHS))


def default_dropout_rate(n_cells: int) -> float:
    """Dropout on hidden layers that suits a number of cells.

    Parameters
    ----------
    n_cells
        Number of cells.
    """
    return _DROPOUT_OF_FEW if n_cells <= _FEW_CELLS else 0.0


def _lacks_first_modality(mdata: MuData) -> bool:
    """Whether the first modality holds no value, though the data are not minified."""
    first = next(iter(mdata.mod.values())).X
    return sparse.issparse(first) and first.nnz == 0 and not is_minified(mdata)


def _saved_without_first_modality(
    dir_path: str,
    accelerator: str = "auto",
    device: int | str = "auto",
    prefix: str | None = None,
    **kwargs: Any,
) -> MuData | None:
    """Read the data that were saved with a model, if scvi-tools would misread them."""
    del accelerator, device, kwargs
    path = Path(dir_path, f"{prefix or ''}{SAVE_KEYS.MDATA_FNAME}")
    if not path.is_file():
        return None
    with h5py.File(path) as file:  # to read it all would be to read it twice
        first = file["mod"][file["mod"].attrs["mod-order"][0]].get("X")
        if not isinstance(first, h5py.Group) or first["data"].size > 0:
            return None
    with without_pulling():
        mdata = read_h5mu(path)
    return mdata if _lacks_first_modality(mdata) else None


def _check_strategy(devices: int | list[int] | str, arguments: Mapping[str, Any]) -> None:
    """Refuse several devices without what has scvi-tools give each its own cells."""
    n_devices = len(devices) if isinstance(devices, (list, tuple)) else devices
    strategy = arguments.get("strategy", "auto")
    if isinstance(n_devices, int) and n_devices > 1 and strategy == "auto":
        raise ValueError(
            f"`devices={devices!r}` needs a strategy that gives each device cells of its own: "
            'pass `strategy="ddp"`, or train on one device.'
        )


def _check_split(train_size: float | None, validation_size: float | None) -> None:
    """Refuse shares that scvi-tools would take for none, or refuse without their names."""
    if train_size is not None:
        check_positive_share(train_size, name="train_size")
    if validation_size is None:
        return
    check_fraction(validation_size, name="validation_size")
    of_training = 0.9 if train_size is None else train_size
    if of_training + validation_size > 1:
        raise ValueError(
            "`train_size` and `validation_size` must be at most 1 together, got "
            f"{of_training}{' by default' if train_size is None else ''} and {validation_size}. "
            f"Lower one: `train_size={1 - validation_size:.4g}` leaves no cell out."
        )


def _check_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that go elsewhere, which other models of scvi-tools take with these."""
    if "datamodule" in arguments:
        raise TypeError(
            "`datamodule` is not offered: the model trains on the MuData that it was set up with, "
            "of which `datasplitter_kwargs` can name the cells of each part."
        )
    of_plan = arguments_of_plan(SCMVPTrainingPlan, SCMVPModule)
    for name in arguments:
        for taker, known in (("plan", of_plan), ("datasplitter", _OF_SPLITTER)):
            if name in known:
                raise TypeError(
                    f"`{name}` is an argument of the {taker}, got it among those of the trainer: "
                    f'pass `{taker}_kwargs={{"{name}": ...}}`.'
                )


def _check_plan_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what the plan is told by the model, which would not know that it is another."""
    for name, way_out in _OF_MODEL.items():
        if name in arguments:
            raise TypeError(
                f"`plan_kwargs` takes no `{name}`, which the model brings, got "
                f"{arguments[name]!r}: {way_out}."
            )


def _check_are_known(found: Iterable[str], known: set[str], *, what: str) -> None:
    for name in found:
        if name in known:
            continue
        if name in signature(SCMVPModel).parameters:
            raise TypeError(f"{what} `{name}`: it is one of `SCMVPModel(mdata, {name}=...)`.")
        raise TypeError(
            f"{what} `{name}`.{did_you_mean(name, known)} There are "
            f"{', '.join(f'`{one}`' for one in sorted(known))}."
        )


def _with_usual_modalities(mdata: MuData, modalities: Mapping[str, str] | None) -> dict[str, str]:
    """Where the arguments of `setup_mudata` are, the layers by default where they usually are."""
    if not isinstance(modalities, (Mapping, type(None))):
        raise TypeError(
            "`modalities` must map arguments to the modality that each is looked up in, got "
            f'{modalities!r}. Pass `modalities={{"rna_layer": ..., "atac_layer": ...}}`, with '
            f"two of {', '.join(f'`{key}`' for key in mdata.mod)}."
        )
    usual = {"rna_layer": "rna", "atac_layer": "atac"}
    in_data = {name: key for name, key in usual.items() if key in mdata.mod}
    return {**in_data, **(modalities or {})}


def _modality_of_each_argument(
    cls: type[SCMVPModel],
    mdata: MuData,
    modalities: dict[str, str],
    setup_method_args: Mapping[str, Any],
) -> dict[str, str | None]:
    """Modality of each argument of `setup_mudata`, None for ``mdata`` itself."""
    needed = ("rna_layer", "atac_layer")
    missing = [name for name in needed if name not in modalities]
    if missing:
        found = ", ".join(f"`{key}`" for key in mdata.mod)
        example = ", ".join(f'"{name}": ...' for name in missing)
        raise ValueError(
            f"`modalities` must say which modality holds {' and '.join(missing)}. The data have "
            f"{found}: pass `modalities={{{example}}}`."
        )
    return dict(cls._create_modalities_attr_dict(dict(modalities), setup_method_args))


def _check_architecture(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of `SCMVPModel.__init__` that its module would choke on."""
    for name in ("n_latent", "n_hidden", "n_hidden_atac", "n_shared", "n_heads", "max_clusters"):
        check_integer_at_least(arguments[name], 1, name=name)
    if arguments["n_clusters"] is not None:
        check_integer_at_least(arguments["n_clusters"], 1, name="n_clusters")
    for name in ("dropout_rate", "rna_input_dropout", "atac_input_dropout"):
        check_fraction(arguments[name], name=name)
    check_one_of(arguments["self_attention"], ("token", "scalar"), name="self_attention")
    check_one_of(arguments["dispersion"], ("gene", "gene-batch", "gene-label"), name="dispersion")
    check_one_of(arguments["atac_target"], ("counts", "tfidf"), name="atac_target")
    check_one_of(
        arguments["batch_representation"], ("one-hot", "embedding"), name="batch_representation"
    )
    if arguments["n_hidden_atac"] % arguments["n_heads"] != 0:
        raise ValueError(
            f"`n_heads` must divide `n_hidden_atac`, got {arguments['n_heads']} heads for a width "
            f"of {arguments['n_hidden_atac']}."
        )
