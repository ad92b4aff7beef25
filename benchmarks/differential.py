"""Genes and peaks of the 22 types of the mouse cortex, and where known markers rank among them.

Reads ``snareseq_adult_cortex.h5mu`` from the folder that ``SCMVP_DATA`` names. The model is
trained once, with default settings, and kept in ``benchmarks/models/cortex``; delete the folder to
train anew. Every type is tested against all other cells, genes and then peaks. A marker's rank is
its place among the genes that are higher in its type, in the order of the table; beside it stands
that of a Wilcoxon test of normalised counts. Written are ``benchmarks/results/differential.json``,
``.md`` and ``.png``.

    python benchmarks/differential.py [--epochs N] [--seed 0] [--summarise]
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

from harness.data import DATA
from harness.runner import machine
from scmvp_scvi import SCMVPModel, pl, tl

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MODEL = HERE / "models" / "cortex"
MARKERS = HERE / "cortex_markers.csv"
INHIBITORY = ("InP", "InS", "InV", "InN")
CLASSES = ("excitatory", "inhibitory")
NEAR = 10_000  # base pairs from a TSS to the middle of a peak
FIGURE_GENES = ("Mbp", "Gad2", "Aldoc")
FIGURE_WINDOW, FIGURE_MIN_CELLS = 20_000, 50
SOURCES = {
    "Butovsky 2014": "https://doi.org/10.1038/nn.3599",
    "Marques 2016": "https://doi.org/10.1126/science.aaf6463",
    "Molyneaux 2007": "https://doi.org/10.1038/nrn2151",
    "Tasic 2016": "https://doi.org/10.1038/nn.4216",
    "Tasic 2018": "https://doi.org/10.1038/s41586-018-0654-5",
    "Vanlandewijck 2018": "https://doi.org/10.1038/nature25739",
    "Watson 2017": "https://doi.org/10.1002/cne.24034",
    "Zeisel 2015": "https://doi.org/10.1126/science.aaa1934",
    "Zhang 2014": "https://doi.org/10.1523/JNEUROSCI.1860-14.2014",
}


def add_classes(mdata: mudata.MuData) -> None:
    """Write ``class`` into ``.obs``: the types of neurons together, the others as they are."""
    types = mdata.obs["cell_type"].astype(str)
    is_excitatory = types.str.match(r"E\d") | (types == "Clau")
    is_inhibitory = types.isin(INHIBITORY)
    mdata.obs["class"] = types.mask(is_excitatory, "excitatory").mask(is_inhibitory, "inhibitory")


def trained_model(mdata: mudata.MuData, seed: int, epochs: int | None) -> SCMVPModel:
    """Load the model that is kept, or train and keep it."""
    SCMVPModel.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    if MODEL.exists():
        return SCMVPModel.load(str(MODEL), adata=mdata)
    scvi.settings.seed = seed
    model = SCMVPModel(mdata)
    model.train(epochs, accelerator="cpu", devices=1, enable_progress_bar=False)
    model.save(str(MODEL))
    return model


def wilcoxon(mdata: mudata.MuData, groupby: str) -> pd.DataFrame:
    """Genes of each group by a rank test of log-normalised counts, in its order."""
    rna = mdata["rna"].copy()
    rna.obs[groupby] = mdata.obs[groupby].astype(str).astype("category")
    sc.pp.normalize_total(rna, target_sum=1e4)
    sc.pp.log1p(rna)
    sc.tl.rank_genes_groups(rna, groupby, method="wilcoxon")
    return sc.get.rank_genes_groups_df(rna, None)


def ranks_of_higher(table: pd.DataFrame, group: str) -> pd.Series:
    """Place of each feature among those that are higher in the group, from 1."""
    higher = table[(table["group1"] == group) & (table["lfc_median"] > 0)]
    return pd.Series(np.arange(1, len(higher) + 1), index=higher.index)


def marker_rows(
    markers: pd.DataFrame,
    genes: dict[str, pd.DataFrame],
    by_ranks: dict[str, pd.DataFrame],
    peaks: dict[str, pd.DataFrame],
    middles: pd.DataFrame,
) -> list[dict[str, object]]:
    """Ranks of each marker gene, by both tests, and of the best peak near it."""
    rows = []
    for marker in markers.itertuples():
        groupby = "class" if marker.cell_type in CLASSES else "cell_type"
        of_group = genes[groupby].query("group1 == @marker.cell_type").loc[marker.gene]
        ranks = ranks_of_higher(genes[groupby], marker.cell_type)
        rival = by_ranks[groupby].query("group == @marker.cell_type")["names"].tolist()
        row = {
            "cell_type": marker.cell_type,
            "gene": marker.gene,
            "source": marker.source,
            "rank": int(ranks[marker.gene]) if marker.gene in ranks.index else None,
            "higher_genes": len(ranks),
            "probability": round(float(of_group["proba_de"]), 3),
            "lfc_median": round(float(of_group["lfc_median"]), 2),
            "tagged": bool(of_group["is_de_fdr_0.05"]),
            "wilcoxon_rank": 1 + rival.index(marker.gene),
        }
        distance = (middles["middle"] - marker.tss)[middles["chrom"] == marker.chrom]
        near = distance.index[distance.abs() <= NEAR]
        row["peaks_near"] = len(near)
        ranks = ranks_of_higher(peaks[groupby], marker.cell_type)
        ranks = ranks[ranks.index.isin(near)]
        if len(ranks) > 0:
            found = peaks[groupby].query("group1 == @marker.cell_type").loc[ranks.index[0]]
            row["best_peak"] = {
                "peak": ranks.index[0],
                "distance": int(distance[ranks.index[0]]),
                "rank": int(ranks.iloc[0]),
                "probability": round(float(found["prob_da"]), 3),
                "tagged": bool(found["is_da_fdr"]),
            }
        rows.append(row)
    return rows


def middles_of(peaks: pd.Index) -> pd.DataFrame:
    """Chromosome and middle of each peak."""
    places = peaks.str.extract(r"(\w+):(\d+)-(\d+)").set_axis(["chrom", "start", "end"], axis=1)
    middle = places[["start", "end"]].astype(int).mean(axis=1)
    return pd.DataFrame({"chrom": places["chrom"].to_numpy(), "middle": middle.to_numpy()}, peaks)


def draw(mdata: mudata.MuData, markers: pd.DataFrame, file: Path) -> None:
    """Raw accessibility around marker genes, by class, and the links of their peaks."""
    positions = markers.drop_duplicates("gene").set_index("gene")[["chrom", "tss", "strand"]]
    rna = mdata["rna"]
    rna.var[["chrom", "tss", "strand"]] = positions.reindex(rna.var_names)
    links = tl.peak_gene_links(mdata, genes=list(FIGURE_GENES), window=FIGURE_WINDOW)
    sizes = mdata.obs["class"].value_counts()
    classes = sizes.index[sizes >= FIGURE_MIN_CELLS]
    figure, axes = plt.subplots(1, 3, figsize=(14, 3.4), layout="constrained")
    for ax, gene in zip(axes, FIGURE_GENES, strict=True):
        near = links.loc[links["gene"] == gene, "peak"]
        means = tl.group_means(mdata, "class", near, modality="atac").loc[classes]
        pl.accessibility_around_gene(links, means, gene, window=FIGURE_WINDOW, ax=ax)
    figure.savefig(file, dpi=90)
    plt.close(figure)


def measure(
    mdata: mudata.MuData, markers: pd.DataFrame, seed: int, epochs: int | None
) -> dict[str, object]:
    """Both tests of all types and of the two classes of neurons, timed, and the markers' ranks."""
    model = trained_model(mdata, seed, epochs)
    scvi.settings.seed = seed

    tests = {
        "genes": model.differential_expression,
        "peaks": model.differential_accessibility,
    }
    found, seconds, cpu_seconds = {}, {}, {}
    for name, test in tests.items():
        start, cpu_start = time.perf_counter(), time.process_time()
        by_type = test(groupby="cell_type", silent=True)
        seconds[name] = round(time.perf_counter() - start, 1)
        cpu_seconds[name] = round(time.process_time() - cpu_start, 1)
        print(f"{name} of 22 types: {seconds[name]} s", flush=True)
        by_class = test(groupby="class", group1=list(CLASSES), silent=True)
        found[name] = {"cell_type": by_type, "class": by_class}
    genes, peaks = found["genes"]["cell_type"], found["peaks"]["cell_type"]

    types = {}
    for name, n_cells in mdata.obs["cell_type"].astype(str).value_counts().items():
        row: dict[str, int] = {"cells": int(n_cells)}
        for key, table, tag in (("genes", genes, "is_de_fdr_0.05"), ("peaks", peaks, "is_da_fdr")):
            tagged = table[(table["group1"] == name) & table[tag]]
            row[key] = len(tagged)
            row[f"{key}_higher"] = int((tagged["lfc_median"] > 0).sum())
        types[name] = row
    by_ranks = {key: wilcoxon(mdata, key) for key in ("cell_type", "class")}
    return {
        "data": DATA["cortex"].caption,
        "machine": machine(),
        "cells": mdata.n_obs,
        "genes": mdata["rna"].n_vars,
        "peaks": mdata["atac"].n_vars,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "types": types,
        "markers": marker_rows(
            markers, found["genes"], by_ranks, found["peaks"], middles_of(mdata["atac"].var_names)
        ),
    }


def to_markdown(output: dict[str, object]) -> str:
    """Tables of the markers and of the types."""
    seconds = output["seconds"]
    text = (
        f"{output['cells']:,} cells, 22 types, each against the rest: {output['genes']:,} genes "
        f"in {seconds['genes']:.0f} s ({output['cpu_seconds']['genes']:.0f} s of processor time), "
        f"{output['peaks']:,} peaks in {seconds['peaks']:.0f} s "
        f"({output['cpu_seconds']['peaks']:.0f} s), on two cores that did other work as well.\n\n"
        "| type | cells | genes tagged | of them higher | peaks tagged | of them more open |\n"
        "|---|---|---|---|---|---|\n"
    )
    for name, row in output["types"].items():
        text += f"| {name} | " + " | ".join(f"{value:,}" for value in row.values()) + " |\n"
    text += (
        "\nRank of known markers among the genes that are higher in their type, by the model and "
        "by a Wilcoxon test; and the first of the peaks within "
        f"{NEAR // 1000} kb of the TSS, by its rank among all peaks that are more open. Tagged "
        "ones in bold.\n\n"
        "| type | gene | rank | Wilcoxon rank | probability | log2 fold | peak, bp from the TSS | "
        "rank of the peak | source |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    for row in output["markers"]:
        rank = "lower" if row["rank"] is None else str(row["rank"])
        peak = row.get("best_peak")
        where, peak_rank = ("", "none open") if peak is None else (f"{peak['distance']:+,}", "")
        if peak is not None:
            peak_rank = f"**{peak['rank']:,}**" if peak["tagged"] else f"{peak['rank']:,}"
        if row["peaks_near"] == 0:
            peak_rank = "no peak near"
        text += (
            f"| {row['cell_type']} | {row['gene']} | {f'**{rank}**' if row['tagged'] else rank} | "
            f"{row['wilcoxon_rank']} | {row['probability']:.2f} | {row['lfc_median']:+.1f} | "
            f"{where} | {peak_rank} | [{row['source']}]({SOURCES[row['source']]}) |\n"
        )
    return text


def main() -> None:
    """Test, rank the markers, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of a new model; default: by the cells")
    parser.add_argument("--summarise", action="store_true", help="only rewrite page and figure")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*have no counts in")
    mdata = DATA["cortex"].load()
    add_classes(mdata)
    markers = pd.read_csv(MARKERS)
    if not arguments.summarise:
        output = measure(mdata, markers, arguments.seed, arguments.epochs)
        (RESULTS / "differential.json").write_text(json.dumps(output, indent=1) + "\n")
    output = json.loads((RESULTS / "differential.json").read_text())
    (RESULTS / "differential.md").write_text(to_markdown(output))
    draw(mdata, markers, RESULTS / "differential.png")
    print(to_markdown(output))


if __name__ == "__main__":
    main()
