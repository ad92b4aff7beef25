"""Two groups of cells compared: draws of their denoised values, and Bayes factors of these."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scvi.data import AnnDataManager
from scvi.model.base import DifferentialComputation
from torch import Tensor
from torch.distributions import Normal

from scmvp_scvi._count_sums import RawMeans
from scmvp_scvi._keys import OUTPUT, REGISTRY, Kind
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._validate import Comparison, warn_user
from scmvp_scvi.distributions._factored import Law
from scmvp_scvi.nn._covariates import Covariates, concatenate_covariates

Mode = Literal["vanilla", "change"]

# Draws times features of the arrays, some ten of them, that scvi-tools compares at once.
_ENTRIES_PER_BLOCK = 2_000_000


class Settings(NamedTuple):
    """How groups are compared, in the words of `differential_expression`."""

    mode: Mode
    delta: float
    batch_correction: bool
    batchid1: Sequence[Any] | None
    batchid2: Sequence[Any] | None
    fdr_target: float
    n_samples_overall: int
    pseudocounts: float | None
    cred_interval_lvls: Sequence[float] | None
    filter_outlier_cells: bool


@dataclass(frozen=True)
class Posteriors:
    """Posteriors of cells, to draw from, and what else the decoder needs of them."""

    rows: np.ndarray  # (cells,), positions in the data, ascending
    means: Tensor  # (cells, latent), of the embedding: where cells lie, whatever is decoded
    decoded: Normal  # (cells, latent), what the profiles are decoded from
    covariates: Covariates


def posteriors_of(
    rows: np.ndarray,
    minibatches: Iterable[dict[str, Any]],
    posterior: Callable[[dict[str, Any]], Normal],
) -> Posteriors:
    """Collect the posteriors of embedded cells.

    Parameters
    ----------
    rows
        ``(cells,)``, their positions in the data, ascending.
    minibatches
        What the module finds in them.
    posterior
        Of a minibatch, the one that profiles are decoded from.
    """
    outputs = [(out[OUTPUT.QZ].loc, posterior(out), out[OUTPUT.COVARIATES]) for out in minibatches]
    means, decoded, covariates = zip(*outputs, strict=True)
    loc, scale = (torch.cat([getattr(q, name) for q in decoded]) for name in ("loc", "scale"))
    return Posteriors(
        rows, torch.cat(means), Normal(loc, scale), concatenate_covariates(covariates)
    )


@dataclass
class DenoisedDraws:
    """Denoised values of any features, always of the same draws from each group of cells."""

    module: SCMVPModule
    law_key: str  # of what the module decodes
    posteriors: Posteriors
    batch_codes: Callable[[Any], list[int | None]]
    decoded: dict[tuple[bytes, Any], Law] = field(default_factory=dict)

    def of_features(
        self,
        features: slice,
        adata: MuData,
        indices: np.ndarray,
        transform_batch: Any,
        n_samples_overall: int,
    ) -> np.ndarray:
        """``(draws, chosen)``: what scvi-tools asks `get_normalized_expression` for."""
        del adata
        group = (np.asarray(indices).tobytes(), transform_batch)
        if group not in self.decoded:
            self.decoded[group] = self._decode(indices, transform_batch, n_samples_overall)
        # feature by feature in memory: scvi-tools takes medians over the draws
        return self.decoded[group].scale(features).T.contiguous().cpu().numpy().T

    def _decode(self, indices: np.ndarray, transform_batch: Any, n_draws: int) -> Law:
        """Draw cells of the group, with replacement, and a point from each one's posterior."""
        posterior, covariates = self.posteriors.decoded, self.posteriors.covariates
        device = posterior.loc.device
        cells = torch.as_tensor(np.searchsorted(self.posteriors.rows, indices), device=device)
        drawn = cells[torch.randint(len(cells), (n_draws,), device=device)]
        ones = torch.ones(n_draws, 1, device=device)
        decoded = self.module.generative(
            torch.normal(posterior.loc[drawn], posterior.scale[drawn]),
            covariates.at(drawn),
            # shares of the depth need no depth, and no dispersion, which labels may choose
            rna_library=ones,
            atac_library=ones,
            rna_observed=ones[:, 0],
            atac_observed=ones[:, 0],
            labels=torch.zeros_like(ones),
            transform_batch=self.batch_codes(transform_batch)[0],
        )
        return decoded[self.law_key]


def without_outliers(
    manager: AnnDataManager, posteriors: Posteriors, compared: Comparison
) -> Comparison:
    """Leave out cells that scvi-tools finds far from the others of their group, by their means.

    Parameters
    ----------
    manager
        Of the registered data.
    posteriors
        Of the cells that are compared, and of others.
    compared
        The groups.

    Warns
    -----
    UserWarning
        If a group has too few cells to tell, and all are kept.
    """

    def means_of(adata: MuData, indices: np.ndarray) -> np.ndarray:
        del adata
        return posteriors.means[np.searchsorted(posteriors.rows, indices)].cpu().numpy()

    def filtered(rows: np.ndarray) -> np.ndarray:
        n_latent = posteriors.means.shape[1]
        if len(rows) > n_latent:
            return computation.filter_outlier_cells(rows)
        warn_user(
            "`filter_outlier_cells` needs more cells in a group than the latent space has "
            f"dimensions, {n_latent}, to tell which lie far from the others: all {len(rows)} are "
            "kept.",
        )
        return rows

    computation = DifferentialComputation(None, means_of, manager)
    return compared._replace(rows1=filtered(compared.rows1), rows2=filtered(compared.rows2))


def bayes_factors(
    manager: AnnDataManager,
    draws: DenoisedDraws,
    compared: Comparison,
    names: pd.Index,
    raw1: RawMeans,
    raw2: RawMeans,
    how: Settings,
) -> pd.DataFrame:
    """scvi-tools' statistics of all features, in blocks of features.

    Parameters
    ----------
    manager
        Of the registered data.
    draws
        Of both groups.
    compared
        The groups.
    names
        ``(features,)``.
    raw1, raw2
        Means of the raw counts of each group.
    how
        How they are compared.

    Returns
    -------
    ``(features, columns)``, in the order of the names.
    """
    batches = manager.get_state_registry(REGISTRY.BATCH)["categorical_mapping"]
    n_draws = _n_draws(how, len(batches))
    width = max(1, _ENTRIES_PER_BLOCK // n_draws)
    one_count = 1 / max(min(raw1.depth, raw2.depth), 1)
    counting_noise = np.sqrt(raw1.log_variance + raw2.log_variance) / np.log(2)
    blocks = []
    for start in range(0, len(names), width):
        block = slice(start, start + width)
        computation = DifferentialComputation(partial(draws.of_features, block), None, manager)
        with warnings.catch_warnings():  # of batches, which the request was checked for
            warnings.filterwarnings("ignore", "Batchids of cells groups", UserWarning)
            statistics = computation.get_bayes_factors(
                compared.rows1,
                compared.rows2,
                mode=how.mode,
                batchid1=how.batchid1,
                batchid2=how.batchid2,
                use_observed_batches=not how.batch_correction,
                n_samples_overall=n_draws,
                delta=how.delta,
                pseudocounts=one_count if how.pseudocounts is None else how.pseudocounts,
                change_fn=partial(_log_fold_change, counting_noise[block]),
                # both directions added up are probable in any group of unlike cells
                test_mode="three",
                cred_interval_lvls=how.cred_interval_lvls,
            )
        blocks.append(pd.DataFrame(statistics, index=names[block]))
    return pd.concat(blocks)


def _n_draws(how: Settings, n_batches: int) -> int:
    """Draws of a group, a multiple of the batches that either is decoded in.

    Scvi-tools takes the same whole number in each batch, and pairs the draws of the two groups.
    """
    if not how.batch_correction:
        return how.n_samples_overall
    decoded_in = [n_batches if b is None else len(b) for b in (how.batchid1, how.batchid2)]
    multiple = math.lcm(*decoded_in)
    return max(1, how.n_samples_overall // multiple) * multiple


def _log_fold_change(
    counting_noise: np.ndarray, first: np.ndarray, second: np.ndarray, pseudocounts: float
) -> np.ndarray:
    """``(draws, chosen)``, log2 ratio of the draws, as uncertain as the counts behind it.

    The draws vary with the cells and their z, but come from one fit of the decoder, which follows
    the chance in the training counts. ``counting_noise``, ``(chosen,)``, is the standard error of
    the log2 ratio of the raw means.
    """
    offset = np.float32(pseudocounts)
    change = np.log2(first + offset) - np.log2(second + offset)
    noise = torch.randn(change.T.shape).numpy().T
    return change + noise * counting_noise.astype(np.float32)


def raw_statistics(kind: Kind, raw1: RawMeans, raw2: RawMeans) -> dict[str, np.ndarray]:
    """Means of raw counts in scvi-tools' columns, each ``(features,)``.

    Parameters
    ----------
    kind
        The modality.
    raw1, raw2
        Means of the raw counts of each group.
    """
    if kind == "atac":
        return {"emp_mean1": raw1.detected, "emp_mean2": raw2.detected}
    return {
        "raw_mean1": raw1.mean,
        "raw_mean2": raw2.mean,
        "non_zeros_proportion1": raw1.detected,
        "non_zeros_proportion2": raw2.detected,
        "raw_normalized_mean1": raw1.normalized,
        "raw_normalized_mean2": raw2.normalized,
    }


def ranked(table: pd.DataFrame, compared: Comparison, how: Settings) -> pd.DataFrame:
    """Sort by the probability, ties by the size of the change; tag; and name the groups.

    Parameters
    ----------
    table
        What `bayes_factors` returned, with further columns or not.
    compared
        The groups.
    how
        How they were compared.
    """
    if how.mode == "change":
        by_size = table["lfc_median"].abs()
        order = np.lexsort([-by_size, -table["proba_de"]])
        # Each by itself. Scvi-tools tags as many as keep the mean of 1 - p within the target: what
        # is certain then makes room for doubtful features, most of which do not differ.
        tagged = table["proba_de"] >= 1 - how.fdr_target
        table = table.assign(**{f"is_de_fdr_{how.fdr_target}": tagged})
    else:
        order = np.argsort(-table["bayes_factor"].to_numpy(), kind="stable")
    return table.iloc[order].assign(
        comparison=f"{compared.group1} vs {compared.group2}",
        group1=compared.group1,
        group2=compared.group2,
    )
