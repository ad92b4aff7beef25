"""`DenoisedMixin`: what a trained model expects of the counts of cells, without their noise."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scipy import sparse
from torch import Tensor

from scmvp_scvi._counts import written_out
from scmvp_scvi._keys import MODALITIES, POSTERIOR_OF, Kind, ModalityKeys, Source
from scmvp_scvi._minibatches import (
    MinibatchMixin,
    count_empty,
    warn_about_empty,
)
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._registered_names import Batch, RegisteredNamesMixin
from scmvp_scvi._validate import (
    check_in,
    check_integer_at_least,
    check_one_of,
    warn_user,
)
from scmvp_scvi._zarr import write_table
from scmvp_scvi.distributions._cubature import cubature_points
from scmvp_scvi.distributions._factored import Law, UpdatedNegativeBinomial

_N_POINTS = 8  # on small real data these had nine tenths of what 128 points gain


class _Request(NamedTuple):
    """What to decode, in the words of `DenoisedMixin.get_normalized_expression`."""

    adata: MuData | None
    indices: Sequence[int] | np.ndarray | None
    transform_batch: Batch | Sequence[Batch] | None
    features: Sequence[str] | None
    library_size: float | Literal["observed"]
    n_samples: int | None
    n_points: int | None
    return_mean: bool
    batch_size: int | None
    from_modality: Source
    own_counts: bool = False


# of a law that offers it, of features of that, at a depth
_Value = Callable[[Any, slice | Tensor, float | Tensor], Tensor]


def _mean(
    law: Law | UpdatedNegativeBinomial, features: slice | Tensor, depth: float | Tensor
) -> Tensor:
    return law.scale(features) * depth


@dataclass(frozen=True)
class _Denoiser:
    """Denoised values of the cells of a minibatch."""

    module: SCMVPModule
    kind: Kind
    request: _Request
    features: slice | Tensor
    value: _Value
    missing_depth: float  # where cells without counts are asked for their own
    batches: list[int | None]
    points: Tensor  # (points, latent), of the standard normal

    @property
    def keys(self) -> ModalityKeys:
        return MODALITIES[self.kind]

    @property
    def _has_own_depth(self) -> bool:
        return self.request.library_size == "observed"

    def count_without_depth(self, outputs: dict[str, Any]) -> int:
        """Number of cells that are asked for a depth and have none."""
        return int((outputs[self.keys.observed] == 0).sum()) if self._has_own_depth else 0

    def denoise(self, tensors: dict[str, Tensor], outputs: dict[str, Any]) -> np.ndarray:
        """``(cells, features)``, or ``(n_samples, cells, features)`` of draws kept apart."""
        qz = self.module.posterior_to_decode(outputs, self.kind, self.request.from_modality)
        value_at = partial(self._at, tensors, outputs, self._own_counts(tensors, qz.loc.device))
        n_samples = self.request.n_samples
        if n_samples is None:
            at_points = (value_at(qz.loc + qz.scale * point) for point in self.points)
            return _mean_of(at_points, len(self.points)).cpu().numpy()
        draws = (value_at(qz.sample()) for _ in range(n_samples))
        if self.request.return_mean or n_samples == 1:
            return _mean_of(draws, n_samples).cpu().numpy()
        return np.stack([draw.cpu().numpy() for draw in draws])

    def _own_counts(self, tensors: dict[str, Tensor], device: torch.device) -> Tensor | None:
        if not self.request.own_counts:
            return None
        return written_out(tensors[self.keys.counts].to(device))

    def _at(
        self,
        tensors: dict[str, Tensor],
        outputs: dict[str, Any],
        counts: Tensor | None,
        z: Tensor,
    ) -> Tensor:
        """``(cells, features)``, the values of cells that are at z, averaged over the batches."""
        decode, law = partial(self.module.decode, tensors, outputs, z=z), self.keys.law
        laws = [decode(transform_batch=batch)[law] for batch in self.batches]
        if counts is not None:
            # in whatever batch, the counts are those of the cell's own
            own = laws[0] if self.batches == [None] else decode()[law]
            laws = [own.given(counts, of_batch) for of_batch in laws]
        depth = self._depth(outputs)
        return _mean_of((self.value(of, self.features, depth) for of in laws), len(laws))

    def _depth(self, outputs: dict[str, Any]) -> Any:
        if not self._has_own_depth:
            return self.request.library_size
        is_missing = outputs[self.keys.observed][:, None] == 0
        return outputs[self.keys.library].masked_fill(is_missing, self.missing_depth)


def _mean_of(values: Iterable[Tensor], n: int) -> Tensor:
    """Mean of ``n`` tensors, of which one is held at a time beside their sum."""
    return reduce(torch.add, values) / n


class DenoisedMixin(MinibatchMixin, RegisteredNamesMixin):
    """Denoised profiles of the cells of `SCMVPModel`."""

    def get_normalized_expression(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        transform_batch: Batch | Sequence[Batch] | None = None,
        gene_list: Sequence[str] | None = None,
        library_size: float | Literal["observed"] = 1,
        n_samples: int | None = None,
        return_mean: bool = True,
        batch_size: int | None = None,
        return_numpy: bool = False,
        from_modality: Source = "joint",
        n_points: int | None = None,
        own_counts: bool = False,
    ) -> pd.DataFrame | np.ndarray:
        """Denoised expression: the mean of the negative binomial (equations 13 to 15).

        The mean over the posterior of z, taken at fixed points and so without randomness. At the
        mean of the posterior the profile is another, sharper than what the counts tell of a cell.

        Parameters
        ----------
        adata, indices, batch_size
            As in `get_latent_representation`.
        transform_batch
            Batch to decode all cells in; several are averaged; None keeps each cell's own.
        gene_list
            Genes to return, in this order; None for all.
        library_size
            Depth that the profile of a cell sums to over all genes; ``"observed"`` for its own
            (its size factor, scaled to the median depth, where there are size factors), or 1,
            with a warning, where a cell has none.
        n_samples
            Draws of z from the posterior; None averages over fixed points.
        return_mean
            Average over the draws of `n_samples`; False returns each, if there are several.
        return_numpy
            Return an array where a DataFrame is possible.
        from_modality
            What the cells are embedded from. ``"atac"`` predicts expression from accessibility
            alone: RNA counts may be zero throughout, and give no more than the depth that
            ``library_size="observed"`` asks for. What one modality says of the other is calibrated
            on the cells held out for validation, see ``calibrate_channels`` of
            `SCMVPTrainingPlan`.
        n_points
            Fixed points of the posterior of z that are averaged over without ``n_samples``, 1 or
            an even number: in pairs on opposite sides of the mean, along axes drawn once
            :cite:p:`Arasaratnam2009`. Time grows with them; 1 decodes the posterior mean alone.
            None for 8.
        own_counts
            Whether to use a gene's own count in the cell as well as z: the mean of its rate given
            both :cite:p:`Huang2018`. The more a gene varies at one z, the more its count weighs.
            Rows sum to about ``library_size``; cells without RNA are not changed.

        Returns
        -------
        ``(cells, genes)``, a DataFrame indexed by cell and gene; ``(n_samples, cells, genes)``,
        an array, for draws that are not averaged.

        Raises
        ------
        TypeError, KeyError, RuntimeError
            As in `get_latent_representation`.
        ValueError
            As there; also if a gene or a batch is not known, if a number is out of its range, if
            ``n_points`` is given beside ``n_samples``, or ``own_counts`` with
            ``from_modality="atac"``.
        """
        blocks, cells, names = self._decoded(
            "rna",
            _Request(
                adata=adata,
                indices=indices,
                transform_batch=transform_batch,
                features=gene_list,
                library_size=library_size,
                n_samples=n_samples,
                n_points=n_points,
                return_mean=return_mean,
                batch_size=batch_size,
                from_modality=from_modality,
                own_counts=own_counts,
            ),
        )
        return _as_table(blocks, cells, names, return_numpy)

    def get_log_normalized_expression(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        transform_batch: Batch | Sequence[Batch] | None = None,
        gene_list: Sequence[str] | None = None,
        target_sum: float = 1e4,
        library_size: float | Literal["observed"] | None = None,
        n_samples: int | None = None,
        return_mean: bool = True,
        batch_size: int | None = None,
        return_numpy: bool = False,
        from_modality: Source = "joint",
        n_points: int | None = None,
        own_counts: bool = False,
    ) -> pd.DataFrame | np.ndarray:
        r"""Expected log-normalised expression, the denoised side of scanpy's ``pp.log1p``.

        The mean of :math:`\log(1 + s x / \ell)` over the counts x that the negative binomial
        gives a cell of depth :math:`\ell`, s being ``target_sum``: of what
        :func:`scanpy.pp.normalize_total` and :func:`scanpy.pp.log1p` make of counts. The logarithm
        of `get_normalized_expression` is not: a mean of logarithms is below the logarithm of the
        mean, far below it where most counts are zero. Each value is an integral, a sum of some
        fifty terms.

        Parameters
        ----------
        adata, indices, transform_batch, gene_list, n_samples, return_mean, batch_size
            As in `get_normalized_expression`; batches and draws are averaged as logarithms.
        target_sum
            Counts that each cell is scaled to before the logarithm.
        library_size
            Depth of the cells. Logarithms depend on it: of a deep cell they are lower where it has
            counts and rarely zero. None for the median depth of the training cells, so that cells
            differ by their expression alone; ``"observed"`` for each cell's own (its size factor,
            where there are size factors), comparable with its own log-normalised counts, or the
            median, with a warning, where a cell has none.
        return_numpy, from_modality, n_points, own_counts
            As in `get_normalized_expression`.

        Returns
        -------
        ``(cells, genes)`` in nats, a DataFrame indexed by cell and gene;
        ``(n_samples, cells, genes)``, an array, for draws that are not averaged.

        Raises
        ------
        TypeError, KeyError, RuntimeError
            As in `get_latent_representation`.
        ValueError
            As in `get_normalized_expression`.
        """
        check_in(target_sum, "(0, inf)", name="target_sum")
        median = float(self.module.rna_median_depth)
        blocks, cells, names = self._decoded(
            "rna",
            _Request(
                adata=adata,
                indices=indices,
                transform_batch=transform_batch,
                features=gene_list,
                library_size=median if library_size is None else library_size,
                n_samples=n_samples,
                n_points=n_points,
                return_mean=return_mean,
                batch_size=batch_size,
                from_modality=from_modality,
                own_counts=own_counts,
            ),
            lambda law, genes, depth: law.expected_log1p(genes, depth, target_sum),
            missing_depth=median,
        )
        return _as_table(blocks, cells, names, return_numpy)

    def get_normalized_accessibility(
        self,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        transform_batch: Batch | Sequence[Batch] | None = None,
        region_list: Sequence[str] | None = None,
        library_size: float | Literal["observed"] = 1,
        n_samples: int | None = None,
        return_mean: bool = True,
        threshold: float | None = None,
        batch_size: int | None = None,
        return_numpy: bool = False,
        from_modality: Source = "joint",
        n_points: int | None = None,
    ) -> pd.DataFrame | np.ndarray | sparse.csr_matrix:
        """Denoised accessibility: the Poisson mean mu of each peak (equations 16 and 17).

        Only the regions asked for are computed. All peaks of many cells do not fit in memory: ask
        for regions, for cells, or for a sparse result by ``threshold``.

        Parameters
        ----------
        adata, indices, transform_batch, n_samples, n_points, return_mean, batch_size
            As in `get_normalized_expression`.
        region_list
            Peaks to return, in this order; None for all.
        library_size
            Depth mu is scaled to: 1 for shares of it, ``"observed"`` for the cell's own (its size
            factor, scaled to the median depth, where there are size factors), or 1, with a
            warning, where a cell has none. The depth is that of the counts, or with
            ``atac_target="tfidf"`` the sum of what these become. Over all peaks mu sums to more
            than it: in a fitted model it is the mean tau * mu that sums to about the depth, tau
            being the probability of inclusion.
        threshold
            Values below it become zero and the result is sparse. It is in units of
            ``library_size``: at 1, the average is a little above one over the number of peaks.
        return_numpy
            Return an array, or a CSR matrix with ``threshold``.
        from_modality
            What the cells are embedded from. ``"rna"`` predicts accessibility from expression
            alone: ATAC counts may be zero throughout, and give no more than the depth that
            ``library_size="observed"`` asks for.

        Returns
        -------
        ``(cells, peaks)``, a DataFrame indexed by cell and peak, of sparse columns with
        ``threshold``; ``(n_samples, cells, peaks)``, an array, for draws that are not averaged.

        Raises
        ------
        TypeError, KeyError, RuntimeError
            As in `get_latent_representation`.
        ValueError
            As in `get_normalized_expression`; also if ``threshold`` is given for draws that are
            not averaged, or is negative.
        """
        blocks, cells, names = self._accessible(
            _Request(
                adata=adata,
                indices=indices,
                transform_batch=transform_batch,
                features=region_list,
                library_size=library_size,
                n_samples=n_samples,
                n_points=n_points,
                return_mean=return_mean,
                batch_size=batch_size,
                from_modality=from_modality,
            ),
            threshold,
        )
        if threshold is None:
            return _as_table(blocks, cells, names, return_numpy)
        matrix = sparse.vstack(list(blocks), format="csr")
        if return_numpy:
            return matrix
        return pd.DataFrame.sparse.from_spmatrix(matrix, index=cells, columns=names)

    def write_normalized_accessibility(
        self,
        path: str | Path,
        adata: MuData | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        transform_batch: Batch | Sequence[Batch] | None = None,
        region_list: Sequence[str] | None = None,
        library_size: float | Literal["observed"] = 1,
        n_samples: int | None = None,
        from_modality: Source = "joint",
        threshold: float | None = None,
        batch_size: int | None = None,
        overwrite: bool = False,
        n_points: int | None = None,
    ) -> None:
        """Write denoised accessibility to a zarr store that :func:`anndata.read_zarr` reads.

        One minibatch is in memory at a time, whatever the number of cells.

        Parameters
        ----------
        path
            Folder of the store.
        adata, indices, transform_batch, region_list, library_size, n_samples, batch_size
            As in `get_normalized_accessibility`; draws are averaged.
        from_modality, n_points
            As in `get_normalized_accessibility`.
        threshold
            As in `get_normalized_accessibility`, for a CSR matrix in ``.X``; None for a dense
            array.
        overwrite
            Whether to replace what is at ``path``.

        Raises
        ------
        FileExistsError
            If there is something at ``path`` and it may not be replaced.
        """
        blocks, cells, names = self._accessible(
            _Request(
                adata=adata,
                indices=indices,
                transform_batch=transform_batch,
                features=region_list,
                library_size=library_size,
                n_samples=n_samples,
                n_points=n_points,
                return_mean=True,
                batch_size=batch_size,
                from_modality=from_modality,
            ),
            threshold,
        )
        write_table(path, blocks, cells, names, overwrite=overwrite)

    # -- shared -------------------------------------------------------------------------------

    def _check_request(self, request: _Request) -> None:
        if request.n_samples is not None:
            check_integer_at_least(request.n_samples, 1, name="n_samples")
        if request.n_points is not None:
            _check_n_points(request.n_points, request.n_samples)
        if not isinstance(request.library_size, str):
            check_in(request.library_size, "(0, inf)", name="library_size")
        elif request.library_size != "observed":
            raise ValueError(
                '`library_size` must be a positive number or "observed", got '
                f"{request.library_size!r}."
            )
        check_one_of(request.from_modality, tuple(POSTERIOR_OF), name="from_modality")
        if request.own_counts:
            if request.from_modality == "atac":
                raise ValueError(
                    '`from_modality="atac"` predicts expression from accessibility alone, and '
                    "`own_counts=True` from RNA counts as well: leave one of them out."
                )
            self._check_has_counts("`own_counts=True`", request.adata)
        if request.from_modality != "joint":
            self._check_has_counts(f'`from_modality="{request.from_modality}"`', request.adata)

    def _accessible(
        self, request: _Request, threshold: float | None
    ) -> tuple[Iterator[Any], pd.Index, pd.Index]:
        """`_decoded` of ATAC, in CSR minibatches if there is a threshold."""
        if threshold is not None:
            check_in(threshold, "[0, inf)", name="threshold")
        blocks, cells, names = self._decoded("atac", request)
        if threshold is None:
            return blocks, cells, names
        if request.n_samples is not None and request.n_samples > 1 and not request.return_mean:
            raise ValueError(
                "`threshold` gives a sparse matrix, which draws of several samples are not: "
                "set `return_mean=True` or leave `threshold` out."
            )
        return _thresholded(blocks, threshold), cells, names

    def _decoded(
        self,
        kind: Kind,
        request: _Request,
        value: _Value = _mean,
        missing_depth: float = 1.0,
    ) -> tuple[Iterator[np.ndarray], pd.Index, pd.Index]:
        """Check the request; return the denoised minibatches, lazily, and cells and features.

        Where cells without counts are asked for their own depth, theirs is ``missing_depth``.
        """
        self._check_if_trained(warn=False)
        self._check_request(request)
        names = self._feature_names(kind)
        chosen: slice | Tensor = slice(None)
        if request.features is not None:
            positions = self._feature_positions(kind, request.features)
            names, chosen = names[positions], torch.as_tensor(positions, device=self.device)
        n_latent = self.module.prior.means.shape[1]
        denoiser = _Denoiser(
            self.module,
            kind,
            request,
            chosen,
            value,
            missing_depth,
            self._batch_codes(request.transform_batch),
            cubature_points(request.n_points or _N_POINTS, n_latent).to(self.device),
        )
        cells = self._cell_names(request.adata, request.indices)
        return self._denoised(denoiser), cells, names

    @torch.inference_mode()
    def _denoised(self, denoiser: _Denoiser) -> Iterator[np.ndarray]:
        """Denoise one minibatch after the other; warn at the end of what cells lacked."""
        request, n_empty, n_without_depth = denoiser.request, 0, 0
        for tensors in self._minibatches(request.adata, request.indices, request.batch_size):
            outputs = self.module.embed(tensors)
            n_empty += count_empty(outputs, request.from_modality)
            n_without_depth += denoiser.count_without_depth(outputs)
            yield denoiser.denoise(tensors, outputs)
        warn_about_empty(n_empty, request.from_modality)
        _warn_about_depth(n_without_depth, denoiser.missing_depth)


def _check_n_points(n_points: int, n_samples: int | None) -> None:
    check_integer_at_least(n_points, 1, name="n_points")
    if n_points > 1 and n_points % 2 == 1:
        raise ValueError(
            f"`n_points` must be 1 or even, got {n_points}: points lie in pairs, on opposite "
            f"sides of the posterior mean. Pass {n_points + 1}."
        )
    if n_samples is not None:
        raise ValueError(
            "`n_points` averages over fixed points of the posterior and `n_samples` over draws "
            f"from it, got {n_points} and {n_samples}: leave one of them out."
        )


def _thresholded(blocks: Iterable[np.ndarray], threshold: float) -> Iterator[sparse.csr_matrix]:
    """Make values below the threshold zeros that are not stored."""
    for block in blocks:
        yield sparse.csr_matrix(np.where(block < threshold, 0, block))


def _warn_about_depth(n_cells: int, missing_depth: float) -> None:
    if n_cells > 0:
        theirs = (
            "1, and their values are shares"
            if missing_depth == 1
            else f"the median of the training cells, {missing_depth:g}"
        )
        warn_user(
            f'`library_size="observed"` has no depth for {n_cells} cells without counts in this '
            f"modality: theirs is {theirs}. Pass a number to scale all cells alike.",
        )


def _as_table(
    blocks: Iterable[np.ndarray], cells: pd.Index, features: pd.Index, return_numpy: bool
) -> pd.DataFrame | np.ndarray:
    """Join denoised minibatches; draws that were not averaged have no table and stay an array."""
    values = np.concatenate(list(blocks), axis=-2)
    if return_numpy or values.ndim == 3:
        return values
    return pd.DataFrame(values, index=cells, columns=features)
