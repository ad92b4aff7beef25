"""`RegistrationMixin`: the data of a model, registered with scvi-tools, and checked anew."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from mudata import MuData
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.dataloaders import AnnDataLoader
from scvi.model.base import BaseMinifiedModeModelClass

from scmvp_scvi._as_registered import (
    check_columns_as_registered,
    check_still_as_registered,
    is_as_registered,
    registered_values,
)
from scmvp_scvi._data import (
    check_data,
    data_fields,
    is_on_disk,
    registered_features,
    registered_modalities,
)
from scmvp_scvi._keys import MODALITIES
from scmvp_scvi._minified import (
    LOAD_WITH_COUNTS,
    check_has_counts,
    check_minified_by,
    forget_registration,
    is_minified,
)
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._scvi import DATA_UUID_KEY, MuDataManager, is_latest, register_again
from scmvp_scvi._validate import (
    check_integer_at_least,
    check_is_mudata,
    did_you_mean,
    has_views,
)

# further modalities may lack cells, which scvi-tools would refuse
_CHECKED_BY_US = AnnDataManagerValidationCheck(check_fully_paired_mudata=False)


class _OwnValues(NamedTuple):
    """What the set-up read of the model's own data."""

    manager_id: str
    values: dict[str, Any]  # by registry key


class RegistrationMixin(BaseMinifiedModeModelClass):
    """Registration of the data of `SCMVPModel`, its own and those that it is asked about."""

    module: SCMVPModule  # what the model brings

    _copy_of_view = ""  # uuid of the copy of the view that was asked about last
    _own_values = _OwnValues("", {})

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
            Column with labels, of all cells or of some; they seed the components of the mixture
            prior, and train it with the counts.
        rna_size_factor_key, atac_size_factor_key
            Columns with size factors, positive, used in place of the observed depth. Their median
            over the training cells with counts is scaled to the median depth of these: a common
            factor does not matter, as long as new cells have it too.
        categorical_covariate_keys, continuous_covariate_keys
            Columns with further covariates. Continuous ones may have any unit: they are centred
            and scaled by their mean and standard deviation over the training cells.
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
            cls._check_are_known(kwargs, known, what="`setup_mudata` takes no argument")
        cls._check_are_known(modalities, known, what="`modalities` names no argument")
        where = cls._modality_of_each_argument(mdata, modalities, setup_method_args)
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
        manager = MuDataManager(
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
    def _check_are_known(cls, found: Iterable[str], known: set[str], *, what: str) -> None:
        """Refuse names that no argument has, with the one that may be meant."""
        for name in found:
            if name in known:
                continue
            if name in signature(cls).parameters:
                raise TypeError(f"{what} `{name}`: it is one of `SCMVPModel(mdata, {name}=...)`.")
            raise TypeError(
                f"{what} `{name}`.{did_you_mean(name, known)} There are "
                f"{', '.join(f'`{one}`' for one in sorted(known))}."
            )

    @classmethod
    def _modality_of_each_argument(
        cls,
        mdata: MuData,
        modalities: dict[str, str],
        setup_method_args: Mapping[str, Any],
    ) -> dict[str, str | None]:
        """Modality of each argument of `setup_mudata`, None for ``mdata`` itself."""
        needed = [keys.layer for keys in MODALITIES.values()]
        missing = [name for name in needed if name not in modalities]
        if missing:
            found = ", ".join(f"`{key}`" for key in mdata.mod)
            example = ", ".join(f'"{name}": ...' for name in missing)
            raise ValueError(
                f"`modalities` must say which modality holds {' and '.join(missing)}. The data "
                f"have {found}: pass `modalities={{{example}}}`."
            )
        return dict(cls._create_modalities_attr_dict(dict(modalities), setup_method_args))

    @property
    def adata(self) -> MuData | None:
        """Data of the model; None if it was loaded without."""
        return self._adata

    @adata.setter
    def adata(self, adata: MuData) -> None:
        check_is_mudata(adata)  # a view would be registered as a copy of it
        BaseMinifiedModeModelClass.adata.fset(self, adata)
        self._keep_values()

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
        # of a view a copy, which scvi-tools would make in its place
        super().view_anndata_setup(self._validate_anndata(adata), hide_state_registries)

    def transfer_fields(self, adata: MuData) -> AnnDataManager:
        """Register other data with the fields of the model, once they are checked as new data are.

        Parameters
        ----------
        adata
            The data.

        Raises
        ------
        TypeError, KeyError, ValueError
            As in `get_latent_representation`.
        """
        check_is_mudata(adata)
        return self._new_manager(adata)

    # -- the model's own data and others --------------------------------------------------------

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

    def _validate_anndata(self, adata: MuData | None = None, copy_if_view: bool = True) -> MuData:
        """Check new data against the model before scvi-tools registers it."""
        mdata = self._data(adata)
        is_copy = has_views(mdata)
        if is_copy:
            if is_on_disk(mdata):
                raise ValueError(
                    "`adata` is a view of data on disk, which cannot be copied to be registered. "
                    "Pass the data themselves and the cells as `indices`, or read them first."
                )
            with without_pulling():
                mdata = adata = mdata.copy()
        # a copy carries the mark of registered data, whatever was done to it since
        if (manager := self._manager_of(mdata)) is not None:
            check_still_as_registered(mdata, self.registry)
            self._renew_registration(manager)
        else:
            self._check_new_data(mdata)
        validated = super()._validate_anndata(adata, copy_if_view=copy_if_view)
        # which scvi-tools leaves out of what it transfers, and needs of a model's own data
        manager = self.get_anndata_manager(validated)
        manager.registry.setdefault("setup_method_name", self.registry["setup_method_name"])
        if is_copy and validated is not self.adata:
            # which scvi-tools would keep for each call with a view
            managers = self._per_instance_manager_store[self.id]
            managers.pop(self._copy_of_view, None)
            self._copy_of_view = validated.uns[DATA_UUID_KEY]
        self._keep_values()  # data can become the model's own later on
        return validated

    def _manager_of(self, mdata: MuData) -> AnnDataManager | None:
        """Return the manager of this very object, not of what it was copied from, or None."""
        managers = self._per_instance_manager_store.get(self.id, {}).values()
        return next((manager for manager in managers if manager.adata is mdata), None)

    def _take_back_codes(self) -> None:
        """Write the codes of the set-up, where a later one of the same data has put its own."""
        manager = self.adata_manager
        if is_latest(manager):
            return
        with warnings.catch_warnings():  # of what the set-up has warned of
            warnings.simplefilter("ignore")
            self._check_against_setup(manager.adata)
            register_again(manager)

    def _keep_values(self) -> None:
        """Keep codes and covariates of the model's own data, which are those of its registry."""
        manager = self.adata_manager
        if manager is not None and self._own_values.manager_id != manager.id:
            self._own_values = _OwnValues(manager.id, registered_values(manager))

    def _renew_registration(self, manager: AnnDataManager) -> None:
        """Register data again that no longer hold what this model registered.

        Other registrations write their codes to the same places; users change columns, and remove
        what they do not know. Own columns that changed are refused, for the model was trained on
        what they held; those of other data are read as they are.
        """
        where = self._where_registered(manager.adata)
        if is_latest(manager) and is_as_registered(manager, where):
            return
        if manager is self.adata_manager:
            self._check_own_columns(manager, where)
        else:
            self._check_against_setup(manager.adata)
        register_again(manager)

    def _check_own_columns(self, manager: AnnDataManager, where: Mapping[str, str | None]) -> None:
        """Refuse own columns that changed, by what the set-up read if it was of these cells."""
        kept = self._own_values.values
        is_of_these_cells = all(len(v) == manager.adata.n_obs for v in kept.values())
        if not is_latest(manager):
            self._check_against_setup(manager.adata)
            if not is_of_these_cells:  # and the codes in the data are those of another set-up
                return
        check_columns_as_registered(manager, where, kept if is_of_these_cells else None)

    def _data(self, adata: MuData | None = None) -> MuData:
        """Return the data that are asked about: those given, or else the model's own."""
        if adata is not None:
            check_is_mudata(adata, allow_view=True)
            return adata
        if self.adata is None:
            raise ValueError(
                "The model was loaded without data: pass them as `adata` where a method takes it, "
                "or load the model with them, `SCMVPModel.load(folder, adata=mdata)`."
            )
        return self.adata

    def _checked_own_data(self, *, needed_by: str) -> MuData:
        """Return the model's own data, with counts, as they are now and as they were set up."""
        mdata = self._data()
        check_has_counts(mdata, needed_by=needed_by, way_out=LOAD_WITH_COUNTS)
        with warnings.catch_warnings():  # of what the set-up has warned of
            warnings.simplefilter("ignore")
            where = self._check_against_setup(mdata)
            check_still_as_registered(mdata, self.registry)
            self._renew_registration(self.adata_manager)  # another set-up has other codes
        check_columns_as_registered(self.adata_manager, where)
        return mdata

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
        where = self._where_registered(mdata)
        check_data(mdata, self.registry["setup_args"], where, self.registry)
        return where

    def _where_registered(self, mdata: MuData) -> dict[str, str | None]:
        arguments = self.registry["setup_args"]
        return self._modality_of_each_argument(
            mdata, arguments["modalities"], {"setup_args": arguments}
        )

    def _new_manager(self, mdata: MuData) -> AnnDataManager:
        """Register data with the fields that they have themselves, minified or not."""
        where = self._check_against_setup(mdata)
        if mdata.uns.get(DATA_UUID_KEY) in self._per_instance_manager_store.get(self.id, {}):
            forget_registration(mdata)  # inherited from the data they were copied from
        setup = ("model_name", "setup_method_name", "setup_args")
        manager = MuDataManager(
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


def _with_usual_modalities(mdata: MuData, modalities: Mapping[str, str] | None) -> dict[str, str]:
    """Where the arguments of `setup_mudata` are, the layers by default where they usually are."""
    if not isinstance(modalities, (Mapping, type(None))):
        raise TypeError(
            "`modalities` must map arguments to the modality that each is looked up in, got "
            f'{modalities!r}. Pass `modalities={{"rna_layer": ..., "atac_layer": ...}}`, with '
            f"two of {', '.join(f'`{key}`' for key in mdata.mod)}."
        )
    usual = {keys.layer: kind for kind, keys in MODALITIES.items()}
    in_data = {name: key for name, key in usual.items() if key in mdata.mod}
    return {**in_data, **(modalities or {})}
