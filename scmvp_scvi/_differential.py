"""`DifferentialMixin`: features that differ between groups of cells."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scvi.data import AnnDataManager
from scvi.model.base import DifferentialComputation
from scvi.utils import track
from torch import Tensor
from torch.distributions import Normal

from scmvp_scvi._count_sums import RawMeans, raw_means
from scmvp_scvi._data import registered_modality
from scmvp_scvi._keys import MODALITIES, OUTPUT, REGISTRY, Kind
from scmvp_scvi._minibatches import MinibatchMixin
from scmvp_scvi._module import SCMVPModule
from scmvp_scvi._validate import (
    Comparison,
    check_in,
    check_indices,
    check_integer_at_least,
    check_one_of,
    compare_groups,
    compare_rows,
    did_you_mean,
    leave_out_unmeasured,
    seen_cells_and_features,
    shown,
    warn_user,
)
from scmvp_scvi.distributions._factored import (
    FactoredNegativeBinomial,
    FactoredZeroInflatedPoisson,
)
from scmvp_scvi.nn._covariates import Covariates, concatenate_covariates

Mode = Literal["vanilla", "change"]
Cells = str | Sequence[int] | Sequence[bool] | np.ndarray
Law = FactoredNegativeBinomial | FactoredZeroInflatedPoisson

_FEATURE = {"rna": "expression", "atac": "accessibility"}
# Draws times features of the arrays, some ten of them, that scvi-tools compares at once.
_ENTRIES_PER_BLOCK = 2_000_000


class _Groups(NamedTuple):
    """Groups of cells to compare, in the words of `differential_expression`."""

    groupby: str | None
    group1: str | Iterable[str] | None
    group2: str | None
    idx1: Cells | None
    idx2: Cells | None

    @property
    def are_all(self) -> bool:
        """Whether none is named, so that all are compared in turn."""
        return self.group1 is None and self.idx1 is None


class _Settings(NamedTuple):
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


class DifferentialMixin(MinibatchMixin):
    """Differential expression and accessibility of `SCMVPModel`.

    The tests are those of scvi-tools' `DifferentialComputation`, which compares draws of denoised
    values. Cells are embedded once for all groups, a draw's hidden layer is decoded once, and its
    features are written out in blocks: memory does not grow with features times groups.
    """

    def differential_expression(
        self,
        adata: MuData | None = None,
        groupby: str | None = None,
        group1: str | Iterable[str] | None = None,
        group2: str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        mode: Mode = "change",
        delta: float = 0.25,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[Any] | None = None,
        batchid2: Sequence[Any] | None = None,
        fdr_target: float = 0.05,
        silent: bool = False,
        n_samples_overall: int = 2_000,
        pseudocounts: float | None = None,
        cred_interval_lvls: Sequence[float] | None = None,
        filter_outlier_cells: bool = False,
    ) -> pd.DataFrame:
        """Genes whose denoised expression differs between groups of cells.

        Cells are drawn from both groups and points from their posteriors; a pair of draws gives a
        log fold change :cite:p:`Lopez2018,Boyeau2019`. Added to it is the chance in the counts of
        the groups, which the decoder has fitted and its draws do not show.

        Parameters
        ----------
        adata
            MuData with the features the model was trained on; None for the model's own data.
        groupby
            Column that groups the cells, in ``adata.obs`` or in the ``.obs`` of a modality.
        group1
            Group, or groups, to compare; None for every group in turn.
        group2
            Group to compare with; None for all cells that are not in the group compared.
        idx1, idx2
            Cells to compare, in place of groups: positions, a boolean mask, or a query of
            ``adata.obs``. ``idx2=None`` takes all cells that are not in ``idx1``.
        mode
            ``"change"`` asks whether the log2 fold change exceeds ``delta``; ``"vanilla"`` whether
            denoised expression is higher in the first group, whatever the counts behind it.
        delta
            Log2 fold change that makes a difference, up or down.
        batch_size
            Cells a minibatch, to embed them.
        all_stats
            Whether to add means of the raw counts.
        batch_correction
            Decode all draws in the same batches, not each in its cell's own.
        batchid1, batchid2
            Batches to decode the draws of each group in, with ``batch_correction``; None for all.
        fdr_target
            Expected share of false discoveries among the tagged genes, at most: a gene is tagged
            where the probability that it differs is at least one less this.
        silent
            Whether to hide the progress bar.
        n_samples_overall
            Draws a group: with 2,000, a probability of 0.95 has a standard error of 0.005. With
            ``batch_correction``, rounded to as many for each batch.
        pseudocounts
            Added to both denoised values before their ratio is tested, so that genes that are
            hardly there do not differ. None for one count in the smaller group: one over the
            number of its counts.
        cred_interval_lvls
            Levels of credible intervals of the log fold change to add, such as ``[0.9]``.
        filter_outlier_cells
            Whether to leave out cells that lie far from their group in the latent space, of the
            draws and of the means of the raw counts. A group of no more cells than the space has
            dimensions keeps all, with a warning.

        Returns
        -------
        A row a gene and comparison, those that differ most first. ``proba_de`` is the larger of
        the probabilities that the gene is up and that it is down in ``group1``,
        ``bayes_factor`` its log odds, ``is_de_fdr_<fdr_target>`` the tag. ``scale1`` and
        ``scale2`` are mean shares of the cells' expression, ``lfc_*`` describe the log2 fold
        change, positive where the gene is up in ``group1``. Of the raw counts, ``raw_mean``,
        ``non_zeros_proportion`` and ``raw_normalized_mean``, per ten thousand.
        With ``mode="vanilla"`` there are the probabilities of up and down, ``proba_m1`` and
        ``proba_m2``, and no tag.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If groups do not exist or overlap, or if one that is named, or the rest, is a single
            cell or has no count in the modality.

        Warns
        -----
        UserWarning
            If all groups are compared in turn, and some are left out for the same reasons; if
            ``batchid1`` and ``batchid2`` share batches and are not the same.
        """
        return self._compare_features(
            "rna",
            adata,
            _Groups(groupby, group1, group2, idx1, idx2),
            batch_size,
            all_stats,
            silent,
            _Settings(
                mode=mode,
                delta=delta,
                batch_correction=batch_correction,
                batchid1=batchid1,
                batchid2=batchid2,
                fdr_target=fdr_target,
                n_samples_overall=n_samples_overall,
                pseudocounts=pseudocounts,
                cred_interval_lvls=cred_interval_lvls,
                filter_outlier_cells=filter_outlier_cells,
            ),
        )

    def differential_accessibility(
        self,
        adata: MuData | None = None,
        groupby: str | None = None,
        group1: str | Iterable[str] | None = None,
        group2: str | None = None,
        idx1: Cells | None = None,
        idx2: Cells | None = None,
        mode: Mode = "change",
        delta: float = 0.25,
        batch_size: int | None = None,
        all_stats: bool = True,
        batch_correction: bool = False,
        batchid1: Sequence[Any] | None = None,
        batchid2: Sequence[Any] | None = None,
        fdr_target: float = 0.05,
        silent: bool = False,
        n_samples_overall: int = 2_000,
        pseudocounts: float | None = None,
        cred_interval_lvls: Sequence[float] | None = None,
        filter_outlier_cells: bool = False,
    ) -> pd.DataFrame:
        """Peaks whose denoised accessibility differs between groups of cells.

        Parameters
        ----------
        adata, groupby, group1, group2, idx1, idx2, mode, delta, batch_size, all_stats
            As in `differential_expression`.
        batch_correction, batchid1, batchid2, fdr_target, silent
            As in `differential_expression`.
        n_samples_overall, pseudocounts, cred_interval_lvls, filter_outlier_cells
            As in `differential_expression`.

        Returns
        -------
        A row a peak and comparison, those that differ most first, in the columns of
        :meth:`scvi.model.MULTIVI.differential_accessibility`. ``prob_da`` is the larger of the
        probabilities that the peak is more open and that it is less open in ``group1``,
        ``bayes_factor`` its log odds, ``is_da_fdr`` the tag. ``est_prob1`` and ``est_prob2`` are
        denoised accessibility per count of depth, ``effect_size`` the second less the first;
        ``emp_prob1``, ``emp_prob2`` and ``emp_effect`` are the same of the cells with a count.
        ``lfc_*`` describe the log2 fold change, positive where the peak is more open in
        ``group1``. With ``mode="vanilla"`` ``prob_da`` is the probability that the peak is more
        open in ``group1``, and there is neither tag nor fold change.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If groups do not exist or overlap, or if one that is named, or the rest, is a single
            cell or has no count in the modality.

        Warns
        -----
        UserWarning
            As in `differential_expression`.
        """
        found = self._compare_features(
            "atac",
            adata,
            _Groups(groupby, group1, group2, idx1, idx2),
            batch_size,
            all_stats,
            silent,
            _Settings(
                mode=mode,
                delta=delta,
                batch_correction=batch_correction,
                batchid1=batchid1,
                batchid2=batchid2,
                fdr_target=fdr_target,
                n_samples_overall=n_samples_overall,
                pseudocounts=pseudocounts,
                cred_interval_lvls=cred_interval_lvls,
                filter_outlier_cells=filter_outlier_cells,
            ),
        )
        return _in_words_of_accessibility(found, fdr_target)

    # -- shared ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def _compare_features(
        self,
        kind: Kind,
        adata: MuData | None,
        groups: _Groups,
        batch_size: int | None,
        all_stats: bool,
        silent: bool,
        how: _Settings,
    ) -> pd.DataFrame:
        """Compare each pair of groups, feature by feature."""
        self._check_if_trained(warn=False)
        keys = MODALITIES[kind]
        # the chance in the counts is part of the test
        self._check_has_counts(f"`differential_{_FEATURE[kind]}`", adata)
        self._check_settings(how)
        adata = self._validate_anndata(adata)
        manager = self.get_anndata_manager(adata, required=True)
        counts, names = manager.get_from_registry(keys.counts), self._feature_names(kind)
        comparisons = leave_out_unmeasured(
            self._comparisons(adata, groups),
            seen_cells_and_features(counts)[0],
            modality=registered_modality(self.registry, kind),
            all_groups=groups.are_all,
        )
        rows = np.unique(np.concatenate([np.r_[c.rows1, c.rows2] for c in comparisons]))
        to_decode = partial(self.module.posterior_to_decode, decoded=kind)
        posteriors = _embedded(rows, self._embed(adata, rows, batch_size), to_decode)
        results = []
        for compared in track(comparisons, description="Comparing...", disable=silent):
            if how.filter_outlier_cells:
                compared = _without_outliers(manager, posteriors, compared)
            raw1, raw2 = raw_means(counts, compared.rows1), raw_means(counts, compared.rows2)
            draws = _Draws(self.module, keys.law, posteriors, self._batch_codes)
            table = _bayes_factors(manager, draws, compared, names, raw1, raw2, how)
            if all_stats:
                table = table.assign(**_raw_statistics(kind, raw1, raw2))
            results.append(_ranked(table, compared, how))
        return pd.concat(results)

    def _comparisons(self, adata: MuData, groups: _Groups) -> list[Comparison]:
        """Rows of the groups that are compared, from either way to ask for them."""
        groupby, group1, group2, idx1, idx2 = groups
        by_index = idx1 is not None or idx2 is not None
        by_group = not (groupby is None and group1 is None and group2 is None)
        if by_index and by_group:
            raise ValueError(
                "Groups must be asked for by `groupby`, `group1` and `group2`, or by `idx1` and "
                "`idx2`, got both: leave either out."
            )
        if (idx1 if by_index else groupby) is None:
            raise ValueError(
                "Groups must be asked for by `groupby`, with `group1` and `group2` if only some "
                "are compared, or by `idx1`, with `idx2` if it is not compared with all others."
            )
        if idx1 is not None:
            rows1 = _rows(adata, idx1, "idx1")
            rows2 = None if idx2 is None else _rows(adata, idx2, "idx2")
            return [compare_rows(rows1, rows2, adata.n_obs)]
        return compare_groups(self._grouping(adata, groupby, "groupby"), group1, group2)

    def _check_settings(self, how: _Settings) -> None:
        check_one_of(how.mode, get_args(Mode), name="mode")
        check_in(how.delta, "[0, inf)", name="delta")
        check_in(how.fdr_target, "[0, 1)", name="fdr_target")
        check_integer_at_least(how.n_samples_overall, 2, name="n_samples_overall")
        if how.pseudocounts is not None:
            check_in(how.pseudocounts, "(0, inf)", name="pseudocounts")
        levels = () if how.cred_interval_lvls is None else how.cred_interval_lvls
        if np.ndim(levels) == 0:
            raise TypeError(
                f"`cred_interval_lvls` must be a list of levels, got {levels}: pass [{levels}]."
            )
        for level in levels:
            check_in(level, "[0, 1)", name="cred_interval_lvls")
        for batches, name in ((how.batchid1, "batchid1"), (how.batchid2, "batchid2")):
            if batches is None:
                continue
            if not how.batch_correction:
                raise ValueError(
                    f"`{name}` names batches to decode in, which `batch_correction=False` leaves "
                    "to each cell: pass `batch_correction=True`."
                )
            if np.ndim(batches) == 0:
                raise TypeError(
                    f"`{name}` must be a list of batches, got {batches!r}: [{batches!r}]?"
                )
            self._batch_codes(batches, name)
        known = self._categories(REGISTRY.BATCH)
        first, second = (set(known if b is None else b) for b in (how.batchid1, how.batchid2))
        if how.batch_correction and first != second and first & second:
            shared = shown(sorted(first & second, key=str))
            warn_user(
                f"`batchid1` and `batchid2` share {shared} and are not the same: what tells other "
                "batches apart enters the comparison. Name the same batches for both groups.",
            )


@dataclass(frozen=True)
class _Posteriors:
    """Posteriors of cells, to draw from, and what else the decoder needs of them."""

    rows: np.ndarray  # (cells,), positions in the data, ascending
    means: Tensor  # (cells, latent), of the embedding: where cells lie, whatever is decoded
    decoded: Normal  # (cells, latent), what the profiles are decoded from
    covariates: Covariates


def _embedded(
    rows: np.ndarray,
    minibatches: Iterable[dict[str, Any]],
    posterior: Callable[[dict[str, Any]], Normal],
) -> _Posteriors:
    outputs = [(out[OUTPUT.QZ].loc, posterior(out), out[OUTPUT.COVARIATES]) for out in minibatches]
    means, decoded, covariates = zip(*outputs, strict=True)
    loc, scale = (torch.cat([getattr(q, name) for q in decoded]) for name in ("loc", "scale"))
    return _Posteriors(
        rows, torch.cat(means), Normal(loc, scale), concatenate_covariates(covariates)
    )


@dataclass
class _Draws:
    """Denoised values of any features, always of the same draws from each group of cells."""

    module: SCMVPModule
    law: str
    posteriors: _Posteriors
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
        return decoded[self.law]


def _without_outliers(
    manager: AnnDataManager, posteriors: _Posteriors, compared: Comparison
) -> Comparison:
    """Leave out cells that scvi-tools finds far from the others of their group, by their means."""

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


def _bayes_factors(
    manager: AnnDataManager,
    draws: _Draws,
    compared: Comparison,
    names: pd.Index,
    raw1: RawMeans,
    raw2: RawMeans,
    how: _Settings,
) -> pd.DataFrame:
    """``(features, columns)``, scvi-tools' statistics of all features, in blocks of features."""
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


def _n_draws(how: _Settings, n_batches: int) -> int:
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


def _raw_statistics(kind: Kind, raw1: RawMeans, raw2: RawMeans) -> dict[str, np.ndarray]:
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


def _ranked(table: pd.DataFrame, compared: Comparison, how: _Settings) -> pd.DataFrame:
    """Sort by the probability, ties by the size of the change; tag; and name the groups."""
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


def _in_words_of_accessibility(found: pd.DataFrame, fdr_target: float) -> pd.DataFrame:
    """Rename the columns of expression, row by row, as scvi-tools does for accessibility."""
    names = {
        "proba_de": "prob_da",
        "proba_m1": "prob_da",
        f"is_de_fdr_{fdr_target}": "is_da_fdr",
        "scale1": "est_prob1",
        "scale2": "est_prob2",
        "emp_mean1": "emp_prob1",
        "emp_mean2": "emp_prob2",
    }
    found = found.rename(columns=names)
    effects = {"effect_size": found["est_prob2"] - found["est_prob1"]}
    if "emp_prob1" in found:
        effects["emp_effect"] = found["emp_prob2"] - found["emp_prob1"]
    return found.assign(**effects)


def _chosen_by(table: pd.DataFrame, query: str, argument: str) -> np.ndarray:
    """``(cells,)``, boolean: the rows that a query chooses."""
    rule = f"`{argument}={query!r}` must be a query of the columns of `adata.obs`"
    try:
        chosen = table.eval(query, local_dict={}, global_dict={})
    except pd.errors.UndefinedVariableError as error:
        [name] = re.findall("'(.*)'", str(error))
        name = name.removeprefix("BACKTICK_QUOTED_STRING_")  # what pandas makes of a name
        raise KeyError(
            f"{rule}, {shown(table.columns)}, got `{name}`.{did_you_mean(name, table.columns)} "
            "For columns of a modality and variables of your own, pass a mask: "
            f'`{argument}=mdata["rna"].obs[...] > ...`.'
        ) from error
    except Exception as error:  # pandas' parser and whatever the query calls
        raise ValueError(
            f"{rule}, but pandas cannot evaluate it: {type(error).__name__}, {error}. Write a "
            "condition such as `\"batch == 'a'\"`, or pass a mask."
        ) from error
    if isinstance(chosen, pd.Series) and chosen.dtype == "boolean":
        chosen = chosen.fillna(False).astype(bool)  # what is missing is not chosen
    if np.shape(chosen) != (len(table),) or np.asarray(chosen).dtype.kind != "b":
        raise ValueError(
            f"{rule} that is true or false of each cell, got values of another kind: write a "
            "condition, such as `\"batch == 'a'\"`."
        )
    return np.asarray(chosen)


def _rows(adata: MuData, cells: Cells, argument: str) -> np.ndarray:
    """Positions of cells given by positions, by a mask, or by a query of ``.obs``."""
    if isinstance(cells, str):
        cells = _chosen_by(adata.obs, cells, argument)
    return check_indices(cells, adata.n_obs, argument=argument, cells=adata.obs_names)
