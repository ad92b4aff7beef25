"""Tables and figures from the results there are."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from matplotlib.axes import Axes

from harness.data import DATA
from harness.methods import ABLATIONS, METHODS
from harness.methods.base import OTHER
from harness.protocols import PROTOCOLS, Result
from harness.runner import RUNS, Run, read_results
from harness.scores.embedding import ONE_CLUSTER
from harness.scores.imputation import COUNT_SCORES, LEVELS
from harness.standing import OWN, compared, counted, sample_sd, standing_table

README = Path(__file__).parents[2] / "README.md"
IN_README = "cortex"  # the data of which a table is there too
UMAP = Run("cortex", "embedding", "", "scmvp", 0)

# of runs on a CPU alone; on a GPU the same scores are had at other costs
COST = {"fit_seconds": "seconds to fit, CPU", "peak_memory_gb": "peak memory, GB"}
CLUSTER_SCORES = {
    "clusters.ari": "ARI of argmax p(c\\|z)",
    "clusters.components_used": "components used",
    "clusters.cell_entropy": "entropy of a cell, nats",
    "clusters.marginal_entropy": "of all cells, nats",
}


class Table(NamedTuple):
    """One table of a protocol: a row a method, and a case where there are several.

    Columns are fields of a result and their headings; "scib." stands for all scores of
    scib-metrics. All methods have a row unless some are named.
    """

    protocol: str
    caption: str
    columns: dict[str, str]
    methods: tuple[str, ...] = ()


# the one table of the README: methods, and fields of two protocols with their headings
README_METHODS = ("RNA PCA", "PCA + LSI", "WNN", "MultiVI", "original scMVP", "scmvp")
README_COLUMNS = {
    ("embedding", "leiden.nmi"): "Leiden NMI",
    ("embedding", "leiden.ari"): "Leiden ARI",
    ("embedding", "neighbours.f1"): "F1 of neighbours",
    ("held-out", "joint.f1"): "held-out F1, both",
    ("held-out", "rna.f1"): "RNA alone",
    ("held-out", "atac.f1"): "ATAC alone",
}
# beside the text on what the parts of the model do
PARTS = Table(
    "held-out",
    "Fitted to 80 % of the cells of the mouse cortex; macro-F1 of the other 20 %, labelled by "
    "their 15 nearest training cells, seen by both modalities or by one",
    {
        "joint.f1": "F1 joint",
        "rna.f1": "F1 RNA alone",
        "atac.f1": "F1 ATAC alone",
        "leiden.nmi": "Leiden NMI",
        "leiden.ari": "Leiden ARI",
        "clusters.ari": "ARI of argmax p(c\\|z)",
    },
    (OWN, *ABLATIONS),
)
TABLES = (
    Table(
        "embedding",
        "Fitted to all cells. Leiden on 15 neighbours at the resolution of .05 to 2 that agrees "
        "best with the labels, k-means at the number of labels, labels from the 15 nearest other "
        "cells",
        {
            "leiden.nmi": "Leiden NMI",
            "leiden.ari": "Leiden ARI",
            "kmeans.nmi": "k-means NMI",
            "kmeans.ari": "k-means ARI",
            "neighbours.f1": "F1 of neighbours",
            **CLUSTER_SCORES,
            **COST,
        },
    ),
    Table("embedding", "scib-metrics, its default scores of the same embeddings", {"scib.": ""}),
    Table(
        "held-out",
        "Fitted to 80 % of the cells; the other 20 % labelled by their 15 nearest training cells, "
        "seen by both modalities or by one. Leiden on all cells",
        {
            "joint.f1": "F1 joint",
            "rna.f1": "F1 RNA alone",
            "atac.f1": "F1 ATAC alone",
            "joint.accuracy": "accuracy joint",
            "rna.accuracy": "accuracy RNA alone",
            "atac.accuracy": "accuracy ATAC alone",
            "leiden.nmi": "Leiden NMI",
            "leiden.ari": "Leiden ARI",
            "clusters.ari": "ARI of argmax p(c\\|z)",
            "cluster_calibration.ece": "ECE of the cluster's label",
        },
    ),
    Table(
        "labels",
        "Labels of so many percent of the training cells, 80 % of all, learned with the counts, "
        "or given on to others by their 15 nearest: those of held-out cells, and of training "
        "cells whose label was not shown",
        {
            "held_out.f1": "F1 held-out",
            "held_out.accuracy": "accuracy held-out",
            "unlabelled.f1": "F1 not shown",
            "unlabelled.accuracy": "accuracy not shown",
            **COST,
        },
    ),
    Table(
        "thinning",
        "Counts split in two, one half imputed from the other",
        {**COUNT_SCORES, **COST},
    ),
    Table(
        "cross-modal",
        "Held-out cells, each modality predicted from the other",
        {**COUNT_SCORES, **COST},
    ),
    Table(
        "thinning",
        "Calibration: RNA intervals, and probabilities of a count, on the held-out half",
        {
            **{
                f"rna_calibration.coverage.{group}.{kind}_{level}": f"{level} %, {group}, {kind}"
                for group in ("all", "frequent")
                for level in LEVELS
                for kind in ("observed", "expected")
            },
            **{
                f"{modality}_calibration.{key}": f"{modality.upper()} {word}"
                for modality in OTHER
                for key, word in (
                    ("ece", "ECE"),
                    ("predicted_over_observed", "expected / observed"),
                )
            },
        },
    ),
    Table(
        "modalities",
        "Held-out cells of which half of the counts is seen, of both modalities or of one: "
        "labels, and the other half of the counts",
        {
            f"{view}.{key}": f"{heading} by {seen}"
            for key, heading in (
                ("f1", "F1"),
                ("rna_r_cell", "RNA r"),
                ("rna_log_likelihood", "RNA log-likelihood"),
                ("atac_auroc", "ATAC AUROC"),
                ("atac_log_likelihood", "ATAC log-likelihood"),
            )
            for view, seen in (("joint", "both"), ("rna", "RNA"), ("atac", "ATAC"))
        },
    ),
    Table(
        "clusters",
        "The number of components given, or chosen by the method",
        {"clusters.components": "components", **CLUSTER_SCORES},
    ),
    Table(
        "robustness",
        "Counts of one modality thinned to so many percent, all cells embedded",
        {
            "leiden.nmi": "Leiden NMI",
            "leiden.ari": "Leiden ARI",
            "neighbours.f1": "F1 of neighbours",
            "clusters.ari": "ARI of argmax p(c\\|z)",
        },
    ),
)
DRAWN = {
    "embedding": {"leiden.nmi": "Leiden NMI", "leiden.ari": "Leiden ARI"},
    "held-out": {"joint.f1": "F1 joint", "rna.f1": "F1 RNA alone", "atac.f1": "F1 ATAC alone"},
    "thinning": {"rna_r_cell": "RNA r", "rna_r_gene": "by gene", "atac_auroc": "ATAC AUROC"},
    "cross-modal": {"rna_r_cell": "RNA r", "rna_r_gene": "by gene", "atac_auroc": "ATAC AUROC"},
}


def report(folder: Path = RUNS, readme: Path | None = None) -> None:
    """Write tables, summary and figures of all results beside their folder, and the README's.

    The tables beside the folder are `benchmark.md`, `standing.md` and `parts.md`, which the
    documentation includes.

    Parameters
    ----------
    folder
        Folder of the result files.
    readme
        File with markers between which tables go; None for the README of the project if the
        results are those it tells of, and else for none.
    """
    if readme is None and folder.resolve() == RUNS.resolve():
        readme = README
    records = list(read_results(folder))
    text, summary, values = "", {}, {}
    for data in dict.fromkeys(record["data"] for record in records):
        own = [record for record in records if record["data"] == data]
        values[data] = values_of(own)
        means = summarise(values[data])
        figure = folder.parent / f"{data}.png"
        text += f"### {DATA[data].caption}\n\n"
        text += "".join(markdown(means, table) for table in TABLES) + broken_runs(own)
        if draw(means, own, figure):
            text += f"![Scores on {data}]({figure.name})\n\n"
        summary[data] = nested(means)
        if data == IN_README:
            (folder.parent / "parts.md").write_text(markdown(means, PARTS))
            if readme is not None:
                fill_in(readme, f"{data} table", compact(means))
    (folder.parent / "benchmark.md").write_text(text)
    standings = compared(values)
    (folder.parent / "standing.md").write_text(standing_table(standings))
    if readme is not None:
        fill_in(readme, "standing", counted(standings) + "\n")
    (folder.parent / "benchmark.json").write_text(json.dumps(summary, indent=1) + "\n")
    arrays = UMAP.file(folder).with_suffix(".npz")
    if arrays.exists():
        draw_umap(arrays, folder.parent / "cortex_umap.png")


def values_of(records: list[Result]) -> pd.DataFrame:
    """Every figure of every result: protocol, method, case, seed, figure and value.

    Results of an older version of a protocol count only where there is none of the present one,
    and seconds and memory only where they were measured on a CPU.
    """
    rows = []
    for record in latest(records):
        numbers = pd.json_normalize({k: v for k, v in record.items() if k != "versions"}).iloc[0]
        key = {name: record[name] for name in ("protocol", "method", "case", "seed")}
        rows += [
            {**key, "figure": name, "value": float(value)}
            for name, value in numbers.items()
            if isinstance(value, int | float | np.number)
            and name not in ("seed", "cells")
            and not (name in COST and record["machine"].get("gpu"))
        ]
    return pd.DataFrame(rows)


def summarise(values: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and number of seeds of each figure of each method and case."""
    groups = values.groupby(["protocol", "method", "case", "figure"], sort=False)["value"]
    return groups.agg(mean="mean", sd=sample_sd, seeds="count")


def latest(records: Iterable[Result]) -> list[Result]:
    """Results of the newest version of the protocol that a method has, broken fits left out."""
    good = [record for record in records if not set(record.get("broken", [])) - {ONE_CLUSTER}]
    newest: dict[tuple[str, ...], int] = {}
    for record in good:
        key = record["protocol"], record["method"]
        newest[key] = max(newest.get(key, 0), record["protocol_version"])
    return [r for r in good if r["protocol_version"] == newest[r["protocol"], r["method"]]]


def nested(means: pd.DataFrame) -> dict[str, dict[str, dict[str, dict]]]:
    """Summary by protocol, method with its case, and figure."""
    output: dict[str, dict[str, dict[str, dict]]] = {}
    for (protocol, method, case, figure), row in means.iterrows():
        of_method = output.setdefault(protocol, {}).setdefault(f"{method} {case}".strip(), {})
        of_method[figure] = {
            "mean": round(row["mean"], 5),
            "sd": round(row["sd"], 5),
            "seeds": int(row["seeds"]),
        }
    return output


# -- tables -------------------------------------------------------------------------------------


def markdown(means: pd.DataFrame, table: Table) -> str:
    """One table, with the columns that have a value."""
    if table.protocol not in means.index.get_level_values("protocol"):
        return ""
    of_protocol = means.loc[table.protocol]
    present = dict.fromkeys(of_protocol.index.get_level_values("figure"))
    columns = {
        field: heading or field.removeprefix(name)
        for name, heading in table.columns.items()
        for field in present
        if field == name or (name.endswith(".") and field.startswith(name))
    }
    if not columns:
        return ""
    has_cases = PROTOCOLS[table.protocol].cases != ("",)
    first = ["method", *(["case"] if has_cases else []), "seeds"]
    lines = [f"{table.caption}:", "", "| " + " | ".join([*first, *columns.values()]) + " |"]
    lines += ["|---" * (len(first) + len(columns)) + "|"]
    for (method, case), rows in of_protocol.groupby(level=["method", "case"], sort=False):
        values = rows.droplevel(["method", "case"])
        if not values.index.intersection(list(columns)).size:
            continue
        if table.methods and method not in table.methods:
            continue
        n_seeds = values.loc[values.index.intersection(list(columns)), "seeds"]
        words = [method, *([case] if has_cases else []), fewest_and_most(n_seeds)]
        words += [shown(values, field) for field in columns]
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n\n"


def compact(means: pd.DataFrame) -> str:
    """Table of the README."""
    headings = ["method", "seeds", *README_COLUMNS.values()]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for method in README_METHODS:
        keys = [(protocol, method, "", field) for protocol, field in README_COLUMNS]
        found = means.reindex(pd.MultiIndex.from_tuples(keys))
        if found["seeds"].notna().any():
            words = [method, fewest_and_most(found["seeds"])]
            words += [mean_and_spread(*row) for row in found.itertuples(index=False)]
            lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n\n"


def fewest_and_most(n_seeds: pd.Series) -> str:
    """Number of seeds of the scores of a row, where they differ the fewest and the most."""
    return " to ".join(f"{n:.0f}" for n in sorted({n_seeds.min(), n_seeds.max()}))


def shown(values: pd.DataFrame, field: str) -> str:
    """Mean and spread of a field, if there is one."""
    return mean_and_spread(*values.loc[field]) if field in values.index else ""


def mean_and_spread(mean: float, sd: float, seeds: float) -> str:
    """Mean, and spread where seeds differ; nothing of what was not measured."""
    if np.isnan(mean):
        return ""
    digits = (
        f"{mean:.3f}" if abs(mean) < 10 else f"{mean:,.0f}" if abs(mean) >= 1e3 else f"{mean:.1f}"
    )
    return digits if seeds == 1 else f"{digits} ± {sd:.2g}"


def broken_runs(records: list[Result]) -> str:
    """Table of the methods' fits over all protocols, and how many of them are no use."""
    checked = [record for record in records if "broken" in record]
    if not checked:
        return ""
    lines = ["Fits that are no use, or whose clusters are not, of those that were checked:", ""]
    lines += ["| method | fits | no use | why |", "|---|---|---|---|"]
    for method in METHODS:
        found = [record["broken"] for record in checked if record["method"] == method]
        if found:
            reasons = sorted({reason for reasons in found for reason in reasons})
            count = sum(bool(reasons) for reasons in found)
            lines.append(f"| {method} | {len(found)} | {count} | {'; '.join(reasons)} |")
    return "\n".join(lines) + "\n\n"


def fill_in(readme: Path, name: str, text: str) -> None:
    """Put text between the markers of a name."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    before = readme.read_text()
    if not pattern.search(before):
        raise ValueError(f"{readme} has no markers {start} and {end}: put them where it goes.")
    readme.write_text(pattern.sub(lambda _: f"{start}\n\n{text}{end}", before))


# -- figures ------------------------------------------------------------------------------------


def draw(means: pd.DataFrame, records: list[Result], file: Path) -> bool:
    """Draw main scores and the reliability of the probability of a count; whether any is there."""
    present = set(means.index.get_level_values("protocol"))
    panels = [
        (p, field, title) for p in DRAWN if p in present for field, title in DRAWN[p].items()
    ]
    calibrated = [m for m in OTHER if any(f"{m}_calibration" in r for r in records)]
    n_panels = len(panels) + len(calibrated)
    if n_panels == 0:
        return False
    n_columns = min(4, n_panels)
    n_rows = -(-n_panels // n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4 * n_columns, 3.2 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    for ax, (protocol, field, title) in zip(axes.flat, panels, strict=False):
        values = (
            means.loc[protocol].xs(field, level="figure") if has(means, protocol, field) else None
        )
        if values is not None:
            names = values.index.get_level_values("method")
            colours = ["C1" if name.startswith("scmvp") else "C0" for name in names]
            ax.barh(list(names), values["mean"], xerr=values["sd"], color=colours)
            ax.invert_yaxis()
        ax.set_title(f"{protocol}\n{title}", fontsize="medium")
    for ax, modality in zip(axes.flat[len(panels) :], calibrated, strict=False):
        draw_reliability(ax, records, modality)
    for ax in axes.flat[n_panels:]:
        ax.remove()
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return True


def has(means: pd.DataFrame, protocol: str, field: str) -> bool:
    """Whether any method has the figure."""
    return field in means.loc[protocol].index.get_level_values("figure")


def draw_reliability(ax: Axes, records: list[Result], modality: str) -> None:
    """Observed against predicted probability of a count, of the first seed of each method."""
    drawn: dict[str, pd.DataFrame] = {}
    for record in records:
        if f"{modality}_calibration" in record and record["method"] not in drawn:
            drawn[record["method"]] = pd.DataFrame(
                record[f"{modality}_calibration"]["reliability"]
            )
    for method, bins in drawn.items():
        filled = bins[bins["observed"] > 0]
        predicted, observed = (
            filled[key] / filled["entries"] for key in ("predicted", "observed")
        )
        ax.loglog(predicted, observed, ".-", linewidth=1, label=method)
    ax.axline((1e-3, 1e-3), (1, 1), color="grey", linestyle=":", zorder=0)
    ax.set(xlabel="predicted", ylabel="observed")
    ax.set_title(f"thinning\n{modality.upper()}: probability of a count", fontsize="medium")
    ax.legend(frameon=False, fontsize="x-small")


def draw_umap(arrays: Path, file: Path) -> None:
    """UMAP of an embedding, coloured by the cell types and by the clusters of the method."""
    held = np.load(arrays, allow_pickle=False)
    cells = sc.AnnData(
        obs=pd.DataFrame(
            {
                "cell type (authors)": held["labels"],
                "scMVP cluster": pd.Categorical(held["hard_clusters"]),
            },
            index=[str(i) for i in range(len(held["labels"]))],
        ),
        obsm={"latent": held["latent"]},
    )
    sc.pp.neighbors(cells, n_neighbors=15, use_rep="latent")
    sc.tl.umap(cells)
    sc.pl.umap(cells, color=list(cells.obs), show=False, frameon=False, wspace=0.5, size=5)
    plt.savefig(file, dpi=130, bbox_inches="tight")
    plt.close()
