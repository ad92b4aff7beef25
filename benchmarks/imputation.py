"""Imputation on the mouse cortex: held-out halves of counts, held-out cells, and calibration.

Reads ``snareseq_adult_cortex.h5mu`` from the folder that ``SCMVP_DATA`` names. Each run (method,
protocol, seed) is one file below ``benchmarks/results/imputation/``; what is there is not run
again, so that a benchmark that was stopped goes on with what is missing. The summary,
``benchmarks/results/imputation.json``, ``.md`` and ``.png``, is made from all of them.

    python benchmarks/imputation.py [--cells 4000] [--seeds 0] [--only METHOD ...] [--summarise]

The protocols:

thinning
    Each count is split in two by fair coins. A method learns from one half and imputes the same
    cells; what it says is scored on the other half, which is independent of the first where counts
    are Poisson given the cell. Predictive intervals are scored on the same half.
cross-modal
    A method learns from 80 % of the cells. Of the others it sees one modality and predicts the
    counts of the other, in both directions.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
from cortex import FILE, RESULTS, load, machine, split
from imputation_methods import METHODS, OTHER, SCMVP, SLOW, Method, Modality, Predictor
from imputation_scores import LEVELS, atac_scores, calibration, rna_scores
from mudata import MuData
from scipy import sparse
from speed import peak_memory, slug

CALIBRATION_CELLS, CALIBRATION_DRAWS = {"rna": 400, "atac": 100}, 50
CELLS_PER_DRAW = 25  # all draws of all peaks of so many cells are in memory at once
SCORES = {"rna": rna_scores, "atac": atac_scores}
Result = dict[str, object]
Task = tuple[MuData, Callable[[Method], Result]]  # what to learn from, and how to score it


def choose_cells(mdata: MuData, n_cells: int) -> MuData:
    """Draw the cells of the benchmark, the same for all seeds."""
    order = np.random.default_rng(0).permutation(mdata.n_obs)
    return mdata[np.sort(order[:n_cells])].copy()


def with_counts(mdata: MuData, counts: dict[Modality, sparse.csr_matrix]) -> MuData:
    """Return the same cells and features with other counts in some modalities."""
    parts = {modality: mdata[modality].copy() for modality in OTHER}
    for modality, values in counts.items():
        parts[modality].X = values
    return MuData(parts)


def thin(
    counts: sparse.csr_matrix, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Split each count in two by fair coins."""
    first, second = counts.copy(), counts.copy()
    first.data = rng.binomial(counts.data.astype(int), 0.5).astype(np.float32)
    second.data = counts.data - first.data
    for half in (first, second):
        half.eliminate_zeros()
    return first, second


def thinning(mdata: MuData, seed: int) -> Task:
    """Impute cells from one half of their counts; score on the other."""
    rng = np.random.default_rng(seed)
    halves = {modality: thin(mdata[modality].X, rng) for modality in OTHER}
    train = with_counts(mdata, {modality: first for modality, (first, _) in halves.items()})
    order = rng.permutation(mdata.n_obs)

    def score(method: Method) -> Result:
        scores: Result = {}
        for modality, (_, held_out) in halves.items():
            scores |= SCORES[modality](partial(method.impute, modality), held_out)
            sample = order[: CALIBRATION_CELLS[modality]]
            scores[f"{modality}_calibration"] = calibration(
                partial(method.laws, modality, n_draws=CALIBRATION_DRAWS),
                held_out,
                sample,
                CELLS_PER_DRAW,
                seed,
            )
        return scores

    return train, score


def cross_modal(mdata: MuData, seed: int) -> Task:
    """Predict either modality of held-out cells from the other."""
    train, test = split(mdata.n_obs, seed)
    held_out = mdata[test].copy()

    def score(method: Predictor) -> Result:
        scores: Result = {}
        for modality in OTHER:
            counts = held_out[modality].X
            unseen = sparse.csr_matrix(counts.shape, dtype=counts.dtype)
            query = with_counts(held_out, {modality: unseen})
            scores |= SCORES[modality](partial(method.predict, modality, query), counts)
        return scores

    return mdata[train].copy(), score


PROTOCOLS: dict[str, Callable[[MuData, int], Task]] = {
    "thinning": thinning,
    "cross-modal": cross_modal,
}


def run(name: str, protocol: str, seed: int, mdata: MuData, method: Method, folder: Path) -> None:
    """Compute one result unless its file is there."""
    file = folder / f"{slug(name)}.{protocol}.{seed}.json"
    if file.exists():
        found = json.loads(file.read_text())["cells"]
        if found != mdata.n_obs:
            raise ValueError(
                f"{file} holds a run on {found} cells, not {mdata.n_obs}: give another folder by "
                "`--results`, or the same `--cells`."
            )
        return
    print(f"{name} | {protocol} | seed {seed}", flush=True)
    train, score = PROTOCOLS[protocol](mdata, seed)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of this run alone
    start = time.perf_counter()
    method.fit(train, seed)
    fitted = time.perf_counter()
    scores = score(method)
    end = time.perf_counter()
    record = {
        "method": name,
        "protocol": protocol,
        "seed": seed,
        "cells": mdata.n_obs,
        "settings": method.settings,
        "fit_seconds": round(fitted - start, 1),
        "score_seconds": round(end - fitted, 1),
        "peak_memory_gb": round(peak_memory() / 1e9, 2),
        **scores,
        "machine": machine(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    print(f"    fitted in {record['fit_seconds']} s, scored in {record['score_seconds']} s")


def summarise(folder: Path) -> None:
    """Mean and standard deviation over the seeds, as JSON, as tables and as a figure."""
    records = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    records.sort(key=lambda record: (list(METHODS).index(record["method"]), record["seed"]))
    machines = [record.pop("machine") for record in records]
    summary: dict[str, dict[str, dict]] = {protocol: {} for protocol in PROTOCOLS}
    frame = pd.json_normalize(records)
    figures = frame.select_dtypes("number").columns.drop(["seed", "cells"])
    for (protocol, method), rows in frame.groupby(["protocol", "method"], sort=False):
        summary[protocol][method] = {
            "seeds": rows["seed"].tolist(),
            **{
                name: {"mean": float(rows[name].mean()), "sd": float(rows[name].std(ddof=0))}
                for name in figures
                if rows[name].notna().any()
            },
        }
    output = {
        "data": FILE,
        "cells": sorted(set(frame["cells"])),
        "machine": machines[-1],
        "results": summary,
    }
    folder.with_suffix(".json").write_text(json.dumps(output, indent=1) + "\n")
    folder.with_suffix(".md").write_text(tables(summary))
    draw(summary, records, folder.with_suffix(".png"))
    print(tables(summary))


SCORE_COLUMNS = {
    "rna_r_cell": "RNA r, by cell",
    "rna_r_gene": "RNA r, by gene",
    "rna_log_likelihood": "RNA log-likelihood",
    "atac_auroc": "ATAC AUROC",
    "atac_auprc": "ATAC AUPRC",
    "atac_base_rate": "AUPRC of chance",
    "atac_log_likelihood": "ATAC log-likelihood",
    "fit_seconds": "seconds to fit",
    "peak_memory_gb": "peak memory, GB",
}
CALIBRATION_COLUMNS = {
    **{
        f"rna_calibration.coverage.{group}.{kind}_{level}": f"{level} %, {group}, {kind}"
        for group in ("all", "frequent")
        for level in LEVELS
        for kind in ("observed", "expected")
    },
    "rna_calibration.ece": "RNA ECE",
    "rna_calibration.predicted_over_observed": "RNA expected / observed",
    "atac_calibration.ece": "ATAC ECE",
    "atac_calibration.predicted_over_observed": "ATAC expected / observed",
}
TABLES = {
    "Counts split in two, one half imputed from the other": ("thinning", SCORE_COLUMNS),
    "Held-out cells, each modality predicted from the other": ("cross-modal", SCORE_COLUMNS),
    "RNA intervals and probabilities of a count, on the held-out half": (
        "thinning",
        CALIBRATION_COLUMNS,
    ),
}


def tables(summary: dict[str, dict[str, dict]]) -> str:
    """Markdown tables of the main figures."""
    text = ""
    for caption, (protocol, columns) in TABLES.items():
        if not summary[protocol]:
            continue
        text += f"{caption}:\n\n| method | seeds | {' | '.join(columns.values())} |\n"
        text += "|---" * (len(columns) + 2) + "|\n"
        for method, values in summary[protocol].items():
            cells = [shown(values.get(key)) for key in columns]
            text += f"| {method} | {len(values['seeds'])} | {' | '.join(cells)} |\n"
        text += "\n"
    return text


def shown(value: dict[str, float] | None) -> str:
    """Mean, and spread where seeds differ."""
    if value is None:
        return ""
    spread = f" ± {value['sd']:.1g}" if value["sd"] > 0 else ""
    return f"{value['mean']:.4g}{spread}"


DRAWN = {
    "rna_r_cell": "RNA: r by cell",
    "rna_r_gene": "RNA: r by gene",
    "atac_auroc": "ATAC: AUROC by cell",
    "atac_auprc": "ATAC: AUPRC by cell",
}


def draw(summary: dict[str, dict[str, dict]], records: list[Result], file: Path) -> None:
    """Scores of both protocols, and the reliability of the probability of an open peak."""
    figure, axes = plt.subplots(2, len(DRAWN) + 1, figsize=(16, 6), layout="constrained")
    for row, (protocol, results) in zip(axes, summary.items(), strict=True):
        for ax, (score, title) in zip(row, DRAWN.items(), strict=False):
            means = [of.get(score, {}).get("mean", np.nan) for of in results.values()]
            colours = ["C1" if method == "scmvp" else "C0" for method in results]
            ax.barh(list(results), means, color=colours)
            ax.invert_yaxis()
            ax.set_title(f"{protocol}\n{title}", fontsize="medium")
    for ax, modality in zip(axes[:, -1], OTHER, strict=True):
        draw_reliability(ax, records, modality)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def draw_reliability(ax: plt.Axes, records: list[Result], modality: Modality) -> None:
    """Observed against predicted probability of a count, of seed 0 of each method."""
    drawn = [r for r in records if f"{modality}_calibration" in r and r["seed"] == 0]
    for record in drawn:
        bins = pd.DataFrame(record[f"{modality}_calibration"]["reliability"])
        bins = bins[bins["observed"] > 0]
        predicted, observed = (bins[key] / bins["entries"] for key in ("predicted", "observed"))
        ax.loglog(predicted, observed, ".-", linewidth=1, label=record["method"])
    ax.axline((1e-3, 1e-3), (1, 1), color="grey", linestyle=":", zorder=0)
    ax.set(xlabel="predicted", ylabel="observed")
    ax.set_title(f"thinning\n{modality.upper()}: probability of a count", fontsize="medium")
    if drawn:
        ax.legend(frameon=False, fontsize="x-small")


def main() -> None:
    """Run what has no result yet, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=4_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=METHODS, help="all but MultiVI by default")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--epochs", type=int, help="of scmvp; its own default, at most 40")
    parser.add_argument("--results", type=Path, default=RESULTS / "imputation")
    parser.add_argument("--summarise", action="store_true", help="only rewrite the summary")
    arguments = parser.parse_args()
    if not arguments.summarise:
        mudata.set_options(pull_on_update=False)  # the default of mudata 0.4, without its warning
        mdata = choose_cells(load(), arguments.cells)
        makers = {**METHODS, "scmvp": partial(SCMVP, arguments.epochs)}
        chosen = arguments.only or [name for name in METHODS if name not in SLOW]
        for seed in arguments.seeds:
            for name in chosen:
                for protocol in arguments.protocols:
                    method = makers[name]()
                    if protocol == "cross-modal" and not isinstance(method, Predictor):
                        continue
                    run(name, protocol, seed, mdata, method, arguments.results)
    summarise(arguments.results)


if __name__ == "__main__":
    main()
