"""How well imputed profiles and their laws agree with counts that were held out.

A profile is any array of non-negative values, ``(cells, features)``: only its shape within a cell
counts, for it is scaled to the depth of the held-out counts wherever depth matters. Profiles of
peaks are asked for in blocks of cells, so that no array of all cells by peaks is formed.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from scipy import sparse, special
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import normalize
from torch.distributions import Distribution

from scmvp_scvi.distributions._expected_log1p import expected_log1p

CELLS_PER_BLOCK = 256
DEPTH = 1e4  # counts a cell that log-normalised values refer to
# share of a cell's depth spread evenly over the features, so that no observed count has rate zero
FLOOR = 1e-3
PROBABILITY_BINS = np.logspace(-5, 0, 16)
LEVELS = (50, 90)  # of the predictive intervals, in percent
FREQUENT = 0.5  # expected counts from which an interval is more than {0} or {0, 1}
# scores of profiles, and what they are called
COUNT_SCORES = {
    "rna_r_cell": "RNA r, by cell",
    "rna_r_gene": "RNA r, by gene",
    "rna_log_r_cell": "RNA r of logs, by cell",
    "rna_log_r_gene": "RNA r of logs, by gene",
    "rna_log_likelihood": "RNA log-likelihood",
    "atac_auroc": "ATAC AUROC",
    "atac_auprc": "ATAC AUPRC",
    "atac_base_rate": "AUPRC of chance",
    "atac_log_likelihood": "ATAC log-likelihood",
}

Profiles = Callable[[np.ndarray], np.ndarray]  # rows to a block ``(rows, features)``
Scores = dict[str, float | None]
Values = TypeVar("Values", np.ndarray, sparse.csr_matrix)


def blocks_of(n_cells: int, size: int = CELLS_PER_BLOCK) -> Iterator[np.ndarray]:
    """Rows of successive blocks of cells."""
    for start in range(0, n_cells, size):
        yield np.arange(start, min(start + size, n_cells))


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of each row of one array with that of the other; NaN for constants."""
    # told from the values themselves: centring leaves rounding errors of a constant
    constant = (np.ptp(first, axis=1) == 0) | (np.ptp(second, axis=1) == 0)
    first = first - first.mean(1, keepdims=True)
    second = second - second.mean(1, keepdims=True)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / np.where(constant, np.nan, norms)


def mean_correlation(imputed: np.ndarray, observed: np.ndarray) -> float | None:
    """Mean correlation of the rows that vary in what was observed, the same for all methods.

    Where the imputed values of such a row do not vary, they tell nothing of it: zero. None if
    those of no row do, as those of a gene in one profile for all cells.
    """
    if (np.ptp(imputed, axis=1) == 0).all():
        return None
    varies = np.ptp(observed, axis=1) > 0
    return float(np.nan_to_num(correlations(imputed[varies], observed[varies])).mean())


def poisson_rates(profiles: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Expected counts at the depth of each cell, a small share of it spread over all features."""
    shares = normalize(profiles, "l1")
    return depth[:, None] * ((1 - FLOOR) * shares + FLOOR / profiles.shape[1])


def poisson_logs(profiles: np.ndarray, depth: float) -> np.ndarray:
    """Expected log-normalised counts of cells of a depth, Poisson about their profiles."""
    rates = torch.as_tensor(poisson_rates(profiles, np.full(len(profiles), depth)))
    is_poisson = torch.tensor(1e8)  # inverse dispersion from which nothing is left of it
    return expected_log1p(rates, is_poisson, torch.tensor(DEPTH / depth)).numpy()


def poisson_log_likelihood(profiles: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Log-likelihood of each cell's held-out counts, in nats, profiles scaled to their depth."""
    rates = poisson_rates(profiles, counts.sum(1))
    log_prob = special.xlogy(counts, rates) - rates - special.gammaln(counts + 1)
    return log_prob.sum(1)


def rna_scores(profiles: Profiles, held_out: sparse.csr_matrix) -> Scores:
    """Correlation by cell and by gene with the held-out counts, and their log-likelihood.

    Correlations are those of log1p of values scaled to 10,000 a cell, on both sides, averaged over
    the cells and over the genes as `mean_correlation` does.
    """
    imputed, observed, likelihoods = [], [], []
    for rows in blocks_of(held_out.shape[0]):
        values, counts = profiles(rows), held_out[rows].toarray()
        imputed.append(log_normalised(values))
        observed.append(log_normalised(counts))
        likelihoods.append(poisson_log_likelihood(values, counts))
    left, right = np.vstack(imputed), np.vstack(observed)
    return {
        "rna_r_cell": mean_correlation(left, right),
        "rna_r_gene": mean_correlation(left.T, right.T),
        "rna_log_likelihood": float(np.concatenate(likelihoods).mean()),
    }


def log_scores(logs: Profiles, held_out: sparse.csr_matrix) -> Scores:
    """Correlation by cell and by gene of expected log-normalised counts with those held out.

    Parameters
    ----------
    logs
        What a method expects of the logarithms themselves, of cells of one depth, for logarithms
        tell of depth. Of a profile that is a mean, the logarithm is more than that, and more so
        the fewer counts there are.
    held_out
        ``(cells, genes)``, the counts.
    """
    blocks = [
        (logs(rows), log_normalised(held_out[rows].toarray()))
        for rows in blocks_of(held_out.shape[0])
    ]
    left, right = map(np.vstack, zip(*blocks, strict=True))
    return {
        "rna_log_r_cell": mean_correlation(left, right),
        "rna_log_r_gene": mean_correlation(left.T, right.T),
    }


def log_normalised(values: Values) -> Values:
    """Log1p of the values of each cell, scaled to sum to 10,000; sparse values stay so."""
    scaled = DEPTH * normalize(values, "l1")
    return scaled.log1p() if sparse.issparse(scaled) else np.log1p(scaled)


def atac_scores(profiles: Profiles, held_out: sparse.csr_matrix) -> Scores:
    """AUROC and AUPRC of the peaks open in each cell, and log-likelihood of its counts.

    Averaged over the cells; those without a held-out count have no AUROC and no AUPRC.
    """
    by_cell = []
    for rows in blocks_of(held_out.shape[0]):
        values, counts = profiles(rows), held_out[rows].toarray()
        likelihoods = poisson_log_likelihood(values, counts)
        for value, is_open, likelihood in zip(values, counts > 0, likelihoods, strict=True):
            by_cell.append({"atac_log_likelihood": likelihood, **ranking(value, is_open)})
    return {name: mean_of_defined(column) for name, column in pd.DataFrame(by_cell).items()}


def ranking(values: np.ndarray, is_open: np.ndarray) -> Scores:
    """AUROC and AUPRC of one cell's values, and the AUPRC of chance."""
    if not is_open.any():
        return {}
    return {
        "atac_auroc": roc_auc_score(is_open, values),
        "atac_auprc": average_precision_score(is_open, values),
        "atac_base_rate": is_open.mean(),
    }


def mean_of_defined(values: np.ndarray) -> float | None:
    """Mean of what is not NaN, None if nothing is left."""
    values = np.asarray(values, dtype=float)
    return None if np.isnan(values).all() else float(np.nanmean(values))


def calibration(
    laws: Callable[[np.ndarray, np.ndarray], Iterable[Distribution]],
    held_out: sparse.csr_matrix,
    cells: np.ndarray,
    cells_per_block: int,
    seed: int,
) -> dict[str, object]:
    """Coverage of central predictive intervals, and reliability of the probability of a count.

    The interval of a count holds the central share of draws, one from each law. Counts are
    discrete: an interval holds more than its level even if the law is right, so that coverage is
    to be compared with the share of the draws that the interval holds, the second of each pair.

    Parameters
    ----------
    laws
        Rows and their held-out depths to laws of the counts, ``(rows, features)``, one for each
        draw of what is uncertain.
    held_out
        ``(cells, features)``, the counts.
    cells
        Rows to draw for.
    cells_per_block
        Cells to draw for at once.
    seed
        Of the draws.
    """
    coverages, bins = [], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for block in blocks_of(len(cells), cells_per_block):
            rows = cells[block]
            counts = held_out[rows].toarray()
            draws, positive = [], np.zeros(counts.shape)
            for law in laws(rows, counts.sum(1)):
                drawn = law.sample()  # on whatever device the law is
                draws.append(drawn.cpu().numpy().astype(np.uint16))
                zero = law.log_prob(torch.zeros_like(drawn)).exp()
                positive += 1 - zero.cpu().numpy()
            coverages.append(coverage(np.stack(draws), counts))
            bins.append(reliability(positive / len(draws), counts > 0))
    pooled = sum(bins[1:], start=bins[0])
    shares = pd.concat(coverages).groupby(level=0).sum()
    return {
        "coverage": {
            name: row.div(row["entries"]).drop("entries").to_dict()
            for name, row in shares.iterrows()
            if row["entries"] > 0
        },
        "reliability": pooled.to_dict("list"),
        "ece": expected_calibration_error(pooled),
        "predicted_over_observed": float(pooled["predicted"].sum() / pooled["observed"].sum()),
    }


def coverage(draws: np.ndarray, counts: np.ndarray) -> pd.DataFrame:
    """Entries within their predictive interval, and how many the draws themselves expect there.

    Parameters
    ----------
    draws
        ``(draws, cells, features)``.
    counts
        ``(cells, features)``.

    Returns
    -------
    Sums over the entries: a row for all of them and one for those of frequent features.
    """
    of_groups = {"all": np.ones(counts.shape, bool), "frequent": draws.mean(0) >= FREQUENT}
    table = pd.DataFrame({"entries": {name: mask.sum() for name, mask in of_groups.items()}})
    ordered = np.sort(draws, axis=0)
    for level in LEVELS:
        tail = (1 - level / 100) / 2
        low, high = (ordered[math.ceil(share * len(draws)) - 1] for share in (tail, 1 - tail))
        covered = (low <= counts) & (counts <= high)
        expected = ((low <= draws) & (draws <= high)).mean(0)
        for name, mask in of_groups.items():
            table.loc[name, f"observed_{level}"] = covered[mask].sum()
            table.loc[name, f"expected_{level}"] = expected[mask].sum()
    return table


def reliability(probabilities: np.ndarray, is_open: np.ndarray) -> pd.DataFrame:
    """Sums of predicted and observed openness in bins of the prediction, evenly spaced in logs."""
    at = np.digitize(probabilities.ravel(), PROBABILITY_BINS)
    size = len(PROBABILITY_BINS) + 1
    return pd.DataFrame(
        {
            "entries": np.bincount(at, minlength=size),
            "predicted": np.bincount(at, probabilities.ravel(), minlength=size),
            "observed": np.bincount(at, is_open.ravel(), minlength=size),
        }
    )


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Mean distance of predicted and observed share over the bins, weighted by their entries."""
    gap = (bins["predicted"] - bins["observed"]).abs()
    return float(gap.sum() / bins["entries"].sum())
