"""`DifferentialMixin`: features that differ between groups of cells."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from scvi.utils import track

from scmvp_scvi._bayes_factors import (
    DenoisedDraws,
    Mode,
    Settings,
    bayes_factors,
    posteriors_of,
    ranked,
    raw_statistics,
    without_outliers,
)
from scmvp_scvi._count_sums import raw_means
from scmvp_scvi._data import registered_modality
from scmvp_scvi._keys import MODALITIES, REGISTRY, Kind
from scmvp_scvi._minibatches import MinibatchMixin
from scmvp_scvi._registered_names import RegisteredNamesMixin
from scmvp_scvi._validate import (
    Cells,
    Comparison,
    check_in,
    check_integer_at_least,
    check_one_of,
    chosen_rows,
    compare_groups,
    compare_rows,
    leave_out_unmeasured,
    seen_cells_and_features,
    shown,
    warn_user,
)

_FEATURE = {"rna": "expression", "atac": "accessibility"}


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


class DifferentialMixin(MinibatchMixin, RegisteredNamesMixin):
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
            Settings(
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
            Settings(
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
        how: Settings,
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
        posteriors = posteriors_of(rows, self._embed(adata, rows, batch_size), to_decode)
        results = []
        for compared in track(comparisons, description="Comparing...", disable=silent):
            if how.filter_outlier_cells:
                compared = without_outliers(manager, posteriors, compared)
            raw1, raw2 = raw_means(counts, compared.rows1), raw_means(counts, compared.rows2)
            draws = DenoisedDraws(self.module, keys.law, posteriors, self._batch_codes)
            table = bayes_factors(manager, draws, compared, names, raw1, raw2, how)
            if all_stats:
                table = table.assign(**raw_statistics(kind, raw1, raw2))
            results.append(ranked(table, compared, how))
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
            rows1 = chosen_rows(adata.obs, idx1, argument="idx1")
            rows2 = None if idx2 is None else chosen_rows(adata.obs, idx2, argument="idx2")
            return [compare_rows(rows1, rows2, adata.n_obs)]
        return compare_groups(self._grouping(adata, groupby, "groupby"), group1, group2)

    def _check_settings(self, how: Settings) -> None:
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
