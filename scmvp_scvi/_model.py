"""`SCMVPModel`: what the user holds."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import h5py
from mudata import MuData, read_h5mu
from scipy import sparse
from scvi import settings
from scvi.model.base import BaseMinifiedModeModelClass, UnsupervisedTrainingMixin

from scmvp_scvi._abundance import AbundanceMixin
from scmvp_scvi._data_splitter import SCMVPDataSplitter, silence_csr_warnings
from scmvp_scvi._denoised import DenoisedMixin
from scmvp_scvi._differential import DifferentialMixin
from scmvp_scvi._embedding import EmbeddingMixin
from scmvp_scvi._keys import REGISTRY
from scmvp_scvi._likelihood import LikelihoodMixin
from scmvp_scvi._minified import check_minified_by, is_minified
from scmvp_scvi._minify import MinifyMixin
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._mudata import without_pulling
from scmvp_scvi._predictive import PredictiveMixin
from scmvp_scvi._query import QueryMixin
from scmvp_scvi._registered_names import RegisteredNamesMixin
from scmvp_scvi._registration import RegistrationMixin
from scmvp_scvi._scvi import SAVE_KEYS, keep_codes
from scmvp_scvi._size_rules import default_dropout_rate, default_max_epochs
from scmvp_scvi._surgery import surgery_from
from scmvp_scvi._train_arguments import (
    plan_arguments,
    splitter_arguments,
    trainer_arguments,
)
from scmvp_scvi._train_runner import SCMVPTrainRunner
from scmvp_scvi._training_plan import SCMVPTrainingPlan
from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_is_mudata,
    check_one_of,
    shown,
    warn_user,
)
from scmvp_scvi.nn._attention import SelfAttentionForm
from scmvp_scvi.nn._covariates import BatchRepresentation
from scmvp_scvi.nn._decoders import ATACTarget, Dispersion


class SCMVPModel(
    DifferentialMixin,
    AbundanceMixin,
    PredictiveMixin,
    MinifyMixin,
    LikelihoodMixin,
    DenoisedMixin,
    EmbeddingMixin,
    QueryMixin,
    RegistrationMixin,
    RegisteredNamesMixin,
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
        Label of cells that have none: they seed no component.
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
        data. None for 0.1 if nine tenths of the cells, those that are trained on by default, are
        at most 5,000, which the model overfits without dropout, and for 0 if they are more.
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
        atac_target: ATACTarget = "counts",
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
            self._take_back_codes()
            self._keep_values()
        silence_csr_warnings()
        stats = self.summary_stats
        if dropout_rate is None:  # recorded as a number: a query has another number of cells
            dropout_rate = default_dropout_rate(stats["n_cells"])
        _check_architecture(locals(), self.registry["setup_args"], stats["n_batch"])
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

    # -- saving and loading ---------------------------------------------------------------------

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
        with without_pulling():
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
        TypeError
            If there are arguments of what writes the data, which are not to be written.
        ValueError
            If the folder is there, or if the data are no longer those of the set-up or there are
            none to write.
        """
        if save_anndata and self.adata is None:
            raise ValueError(
                "`save_anndata=True` writes the data of the model, which was loaded without: set "
                "`model.adata = mdata` first, or leave `save_anndata` out."
            )
        of_writing = kwargs.keys() - signature(super().save).parameters
        if of_writing and not save_anndata:
            raise TypeError(
                f"`{min(of_writing)}` can be an argument of what writes the data, which "
                "`save_anndata=False` does not: pass `save_anndata=True`, or leave it out."
            )
        if save_anndata:
            self._validate_anndata()  # changed data would be saved with a model they do not fit
        with without_pulling():
            super().save(dir_path, prefix, overwrite, save_anndata, *args, **kwargs)

    # -- clusters -------------------------------------------------------------------------------

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
        warn_user(
            f"`unlabeled_category={unlabeled_category!r}` is no label of `labels_key`, so that "
            f"each label seeds a component, that of unlabeled cells as well. {way_out}",
        )

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
            Epochs between validations, where cells are held out for it; None for none, or for one
            where early stopping or checkpoints ask for them.
        datasplitter_kwargs
            Passed to :class:`scvi.dataloaders.DataSplitter`, such as ``external_indexing``.
        plan_kwargs
            Passed to `SCMVPTrainingPlan`: learning rate, schedules, weights of the terms.
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`. Checkpoints go by the validation ELBO unless
            ``checkpointing_monitor`` says otherwise: the weight of the KL in the loss changes.
            What scvi-tools' ``plan_config`` and ``trainer_config``, as mappings, say counts where
            it is not passed here.

        Raises
        ------
        TypeError
            For arguments that go elsewhere, or that are not offered.
        ValueError
            If the data are minified, or no longer what was set up; if there are too few cells for
            the clusters; if early stopping or checkpoints have no cells to go by; or if the
            training diverges, after which the model is to be built or loaded anew.
        """
        mdata = self._checked_own_data(needed_by="`train`")
        if max_epochs is None:
            max_epochs = default_max_epochs(mdata.n_obs)
        check_integer_at_least(max_epochs, 1, name="max_epochs")
        if check_val_every_n_epoch is not None:
            check_integer_at_least(check_val_every_n_epoch, 1, name="check_val_every_n_epoch")
            check_val_every_n_epoch = int(check_val_every_n_epoch)  # Lightning takes no other ones
        named = signature(SCMVPModel.train).parameters.keys() - {"self", "trainer_kwargs"}
        plan_kwargs = plan_arguments(plan_kwargs, trainer_kwargs.pop("plan_config", None))
        config = trainer_kwargs.pop("trainer_config", None)
        trainer_kwargs = trainer_arguments(trainer_kwargs, config, devices, named)
        splitter_kwargs = splitter_arguments(
            datasplitter_kwargs, train_size, validation_size, named, mdata.obs_names
        )
        # BatchNorm cannot train on one cell
        check_integer_at_least(batch_size, 2, name="batch_size")
        plan = {
            "n_clusters": self.init_params_["non_kwargs"]["n_clusters"],
            "seeding_labels": self._seeding_codes(),
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


def _check_architecture(
    arguments: Mapping[str, Any], setup_args: Mapping[str, Any], n_batch: int
) -> None:
    """Check the arguments of `SCMVPModel.__init__` by themselves and against what was set up."""
    for name in ("n_latent", "n_heads", "max_clusters"):
        check_integer_at_least(arguments[name], 1, name=name)
    for name in ("n_hidden", "n_hidden_atac", "n_shared"):
        # LayerNorm makes a constant of one unit
        check_integer_at_least(arguments[name], 2, name=name)
    if arguments["n_clusters"] is not None:
        check_integer_at_least(arguments["n_clusters"], 1, name="n_clusters")
    for name in ("dropout_rate", "rna_input_dropout", "atac_input_dropout"):
        check_in(arguments[name], "[0, 1)", name=name)
    options = {
        "self_attention": SelfAttentionForm,
        "dispersion": Dispersion,
        "atac_target": ATACTarget,
        "batch_representation": BatchRepresentation,
    }
    for name, alias in options.items():
        check_one_of(arguments[name], get_args(alias), name=name)
    if arguments["n_hidden_atac"] % arguments["n_heads"] != 0:
        raise ValueError(
            f"`n_heads` must divide `n_hidden_atac`, got {arguments['n_heads']} heads for a width "
            f"of {arguments['n_hidden_atac']}."
        )
    if arguments["atac_target"] == "tfidf" and setup_args["atac_size_factor_key"]:
        raise ValueError(
            '`atac_target="tfidf"` has depth normalised away, so that ATAC size factors have '
            "nothing to scale: leave `atac_size_factor_key` out of `setup_mudata`, or "
            'reconstruct the counts, `atac_target="counts"`.'
        )
    if arguments["center_batches"] and n_batch < 2:
        raise ValueError(
            "`center_batches` centres the cells of each batch, and there is one batch: name "
            "the column of the batches with `batch_key` in `setup_mudata`, or leave it out."
        )
