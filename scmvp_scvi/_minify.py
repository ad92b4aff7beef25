"""`MinifyMixin`: a trained model on data whose counts have been replaced by their posteriors."""

from typing import Any

import torch

from scmvp_scvi._data import registered_modalities
from scmvp_scvi._keys import OUTPUT
from scmvp_scvi._minibatches import MinibatchMixin
from scmvp_scvi._minified import (
    MINIFIED,
    CachedCells,
    MinifiedDataType,
    check_given_posterior,
    check_has_counts,
    fingerprint,
    minified_copy,
)
from scmvp_scvi._validate import check_one_of


class MinifyMixin(MinibatchMixin):
    """Minified data of `SCMVPModel`, with the posteriors of cells in place of their counts."""

    def minify_mudata(
        self,
        minified_data_type: MinifiedDataType = MINIFIED,
        use_latent_qzm_key: str | None = None,
        use_latent_qzv_key: str | None = None,
    ) -> None:
        """Replace the model's data by a small copy, with posteriors in place of counts.

        Embedding, clusters, denoised profiles and posterior predictive counts stay what they
        were; saved with ``save_anndata=True``, the model travels without its counts. What reads
        counts takes them as ``adata`` from then on. The data given to the model stay as they are.

        Parameters
        ----------
        minified_data_type
            The one kind there is: mean and variance of q(z | x, y), and the depths, of each cell.
        use_latent_qzm_key, use_latent_qzv_key
            Keys of ``mdata.obsm`` with the mean and the variance that `get_latent_representation`
            returned, to be compared with what is cached; the model computes that itself, so that
            None is enough.

        Raises
        ------
        KeyError
            If ``mdata.obsm`` has no such key.
        ValueError
            If there is another posterior at the keys, or if there are no counts to replace.

        Examples
        --------
        >>> model.minify_mudata()
        >>> model.save("small_model", save_anndata=True)
        >>> model.deregister_manager(mdata)  # lets go of the counts
        """
        check_one_of(minified_data_type, (MINIFIED,), name="minified_data_type")
        self._check_if_trained(warn=False)
        if self.adata is None:
            raise ValueError(
                "`minify_mudata` replaces the data of the model, which has none: load it with "
                "data, `SCMVPModel.load(folder, adata=mdata)`."
            )
        check_has_counts(self.adata, needed_by="`minify_mudata`")
        cells = self._cached_cells()
        keys = {"use_latent_qzm_key": use_latent_qzm_key, "use_latent_qzv_key": use_latent_qzv_key}
        check_given_posterior(self.adata, keys, cells)
        minified = minified_copy(
            self.adata,
            registered_modalities(self.registry),
            cells,
            fingerprint(self.module.state_dict()),
        )
        self._register_manager_for_instance(self._new_manager(minified))
        self.adata = minified
        self.module.minified_data_type = self.minified_data_type

    def minify_adata(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the data are a MuData.

        Raises
        ------
        TypeError
            Always, with the way out.
        """
        del args, kwargs
        raise TypeError("`minify_adata` is not for MuData: call `minify_mudata`.")

    @torch.inference_mode()
    def _cached_cells(self) -> CachedCells:
        """Embed all cells once, and keep what decoding needs."""
        batches = [
            (
                outputs[OUTPUT.QZ].loc,
                outputs[OUTPUT.QZ].variance,
                outputs[OUTPUT.RNA_COUNTS].depth[:, 0],
                outputs[OUTPUT.ATAC_TARGET].depth[:, 0],
            )
            for outputs in self._embed(None, None, None)
        ]
        return CachedCells(*(torch.cat(part).cpu().numpy() for part in zip(*batches, strict=True)))
