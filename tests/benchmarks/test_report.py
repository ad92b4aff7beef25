"""Tables, summary and README from results that are written here."""

import json
from pathlib import Path

import pytest

from harness.data import DATA
from harness.report import README, report, summarise, values_of
from harness.runner import RUNS, Run, save


def result(seed: int, nmi: float, version: int = 2, **fields) -> dict[str, object]:
    return {
        **Run("cortex", "embedding", "", "scmvp", seed)._asdict(),
        "protocol_version": version,
        "cells": 9,
        "leiden": {"nmi": nmi, "ari": 0.5},
        "broken": [],
        "fit_seconds": 20.0,
        "machine": {"cores": 2},
        "versions": {"torch": "2"},
        **fields,
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "README.md").write_text(
        "before\n<!-- cortex table -->\nold\n<!-- end of cortex table -->\nafter\n"
        "<!-- standing -->\nold\n<!-- end of standing -->\n"
    )
    return tmp_path / "results" / "runs"


def summarise_results(records: list[dict[str, object]]):
    return summarise(values_of(records))


def write(records: list[dict[str, object]], folder: Path) -> None:
    for record in records:
        run = Run(*(record[field] for field in Run._fields))
        save(record, {}, run.file(folder))
    report(folder, folder.parents[1] / "README.md")


def test_two_seeds_give_a_mean_and_the_standard_deviation_of_a_sample(folder):
    write([result(0, 0.7), result(1, 0.8)], folder)
    text = (folder.parent / "benchmark.md").read_text()
    assert "| scmvp | 2 | 0.750 ± 0.071 | 0.500 ± 0 |" in text  # .1 over the root of two
    summary = json.loads((folder.parent / "benchmark.json").read_text())
    found = summary["cortex"]["embedding"]["scmvp"]["leiden.nmi"]
    assert found == {"mean": 0.75, "sd": 0.07071, "seeds": 2}
    assert (folder.parent / "cortex.png").exists()


def test_one_seed_has_no_spread(folder):
    write([result(0, 0.7)], folder)
    found = json.loads((folder.parent / "benchmark.json").read_text())
    assert found["cortex"]["embedding"]["scmvp"]["leiden.nmi"]["sd"] == 0
    assert "±" not in (folder.parent / "benchmark.md").read_text()


def test_table_of_the_readme_stands_between_its_markers(folder):
    write([result(0, 0.7)], folder)
    before, _, after = (
        (folder.parents[1] / "README.md").read_text().partition("| scmvp | 1 | 0.700 |")
    )
    assert before.startswith("before\n<!-- cortex table -->\n")
    assert "<!-- end of cortex table -->\nafter\n<!-- standing -->\n\nOf 0 comparisons" in after
    assert after.endswith("<!-- end of standing -->\n")
    assert "old" not in before + after


def test_table_of_the_readme_has_a_row_a_method_and_both_protocols_in_it(folder):
    held_out = {"joint": {"f1": 0.75}, "rna": {"f1": 0.74}, "atac": {"f1": 0.4}}
    records = [
        *(result(seed, 0.7, neighbours={"f1": 0.6}) for seed in (0, 1)),
        {**result(0, 0.7), "protocol": "held-out", **held_out},
        {**result(0, 0.6), "method": "WNN"},
        {**result(0, 0.9), "method": "scmvp, no cycle"},
    ]
    write(records, folder)
    readme = (folder.parents[1] / "README.md").read_text()
    assert "| WNN | 1 | 0.600 | 0.500 |  |  |  |  |" in readme
    row = "| scmvp | 1 to 2 | 0.700 ± 0 | 0.500 ± 0 | 0.600 ± 0 | 0.750 | 0.740 | 0.400 |"
    assert row in readme
    assert "no cycle" not in readme


def test_forms_of_the_model_stand_in_a_table_of_their_own(folder):
    records = [
        {**result(0, 0.7), "protocol": "held-out", "method": method, "joint": {"f1": f1}}
        for method, f1 in (("scmvp", 0.75), ("scmvp, no cycle", 0.74), ("PCA + LSI", 0.73))
    ]
    write(records, folder)
    text = (folder.parent / "parts.md").read_text()
    assert "| scmvp | 1 | 0.750 |" in text
    assert "| scmvp, no cycle | 1 | 0.740 |" in text
    assert "PCA + LSI" not in text


def test_a_readme_without_markers_is_refused(folder):
    (folder.parents[1] / "README.md").write_text("no markers")
    with pytest.raises(ValueError, match="has no markers <!-- cortex table -->"):
        write([result(0, 0.7)], folder)


def test_seconds_of_a_gpu_stand_in_no_table_beside_those_of_a_cpu():
    on_gpu = result(1, 0.7, machine={"gpu": "a GPU"}, fit_seconds=1.0)
    figures = summarise_results([result(0, 0.1), on_gpu]).loc[("embedding", "scmvp", "")]
    assert figures.loc["fit_seconds", "mean"] == 20
    assert figures.loc["leiden.nmi", "seeds"] == 2
    assert "fit_seconds" not in summarise_results([on_gpu]).loc[("embedding", "scmvp", "")].index


def test_results_of_an_older_version_count_only_alone():
    old, new = result(0, 0.1, version=1), result(1, 0.7)
    means = summarise_results([old, new])
    assert means.loc[("embedding", "scmvp", "", "leiden.nmi"), "mean"] == 0.7
    assert summarise_results([old]).loc[("embedding", "scmvp", "", "leiden.nmi"), "mean"] == 0.1


def test_runs_that_are_no_use_are_counted_and_not_averaged(folder):
    write([result(0, 0.7), result(1, 0.1, broken=["collapsed embedding"])], folder)
    text = (folder.parent / "benchmark.md").read_text()
    assert "| scmvp | 2 | 1 | collapsed embedding |" in text
    assert "| scmvp | 1 | 0.700 |" in text


def test_an_embedding_counts_though_its_clusters_are_no_use(folder):
    write([result(0, 0.7), result(1, 0.1, broken=["one cluster used"])], folder)
    text = (folder.parent / "benchmark.md").read_text()
    assert "| scmvp | 2 | 1 | one cluster used |" in text
    assert "| scmvp | 2 | 0.400 ± 0.42 |" in text


def test_cases_of_a_protocol_have_rows_of_their_own(folder):
    clusters = {"components": 5, "ari": 0.25}
    records = [
        {**result(0, 0.7), "protocol": "clusters", "case": case, "clusters": clusters}
        for case in ("5", "10")
    ]
    write([result(0, 0.7), *records], folder)
    text = (folder.parent / "benchmark.md").read_text()
    assert text.index("| scmvp | 5 | 1 | 5.000 |") < text.index("| scmvp | 10 | 1 | 5.000 |")


def test_standing_is_the_difference_to_the_best_other_method_beside_the_spread(folder):
    others = [
        {**result(seed, nmi), "method": method}
        for method, values in {"RNA PCA": (0.60, 0.62), "WNN": (0.5, 0.5)}.items()
        for seed, nmi in enumerate(values)
    ]
    write([result(0, 0.70), result(1, 0.80), *others], folder)
    text = (folder.parent / "standing.md").read_text()
    # by NMI .75 +- .07 against .61 +- .01; by ARI every result is .5
    assert "better in 1, tied in 1 and worse in 0" in text
    assert "| embedding | Leiden NMI | **+0.140** RNA PCA |" in text
    assert "| embedding | Leiden ARI | (+0.000) RNA PCA |" in text


def test_where_the_seed_draws_the_cells_differences_of_the_same_seeds_are_compared(folder):
    scores = {"scmvp": (0.5, 0.7), "RNA PCA": (0.4, 0.62, 0.9), "scVI": (0.3, 0.6, 0.99, 0.99)}
    records = [
        {**result(seed, 0.7), "protocol": "held-out", "method": method, "joint": {"f1": f1}}
        for method, values in scores.items()
        for seed, f1 in enumerate(values)
    ]
    write(records, folder)
    text = (folder.parent / "standing.md").read_text()
    # .10 and .08 above RNA PCA, whose third seed has no counterpart
    assert "| held-out | F1, best view | **+0.090** RNA PCA |" in text


def test_differences_of_the_same_seeds_that_scatter_about_zero_are_tied(folder):
    scores = {"scmvp": (0.5, 0.7, 0.6), "RNA PCA": (0.45, 0.74, 0.58)}
    records = [
        {**result(seed, 0.7), "protocol": "held-out", "method": method, "joint": {"f1": f1}}
        for method, values in scores.items()
        for seed, f1 in enumerate(values)
    ]
    write(records, folder)
    # .05, -.04 and .02: .010 +- .046
    assert "| (+0.010) RNA PCA |" in (folder.parent / "standing.md").read_text()


def test_standing_leaves_out_other_forms_of_the_model_and_marks_single_seeds(folder):
    form = {**result(0, 0.9), "method": "scmvp, no cycle"}
    other = {**result(0, 0.8), "method": "WNN"}
    write([result(0, 0.7), form, other], folder)
    text = (folder.parent / "standing.md").read_text()
    assert "| embedding | Leiden NMI | -0.100\\* WNN |" in text


def test_standing_is_not_asked_of_a_control(folder):
    records = [
        {**result(0, nmi), "data": data, "method": method}
        for data in ("cortex", "cortex-4k-shares")
        for method, nmi in (("scmvp", 0.7), ("WNN", 0.6))
    ]
    write(records, folder)
    text = (folder.parent / "standing.md").read_text()
    assert "Of 2 comparisons" in text
    assert "cortex-4k-shares" not in text
    assert DATA["cortex-4k-shares"].caption in (folder.parent / "benchmark.md").read_text()


def test_standing_says_how_much_rests_on_one_or_two_seeds_and_on_generated_data(folder):
    records = [
        {**result(seed, nmi), "data": data, "method": method}
        for data in ("cortex", "generated-5")
        for method, nmi in (("scmvp", 0.7), ("WNN", 0.6))
        for seed in ((0, 1, 2) if data == "cortex" or method == "WNN" else (0,))
    ]
    write(records, folder)
    # of each of the two data sets NMI, which is better, and ARI, which is the same
    said = (
        "2 of the 4, among them 1 of the 2 better ones, rest on one or two seeds; 1 of the "
        "better ones are on generated data."
    )
    text = (folder.parent / "standing.md").read_text()
    assert "better in 2, tied in 2 and worse in 0." in text
    assert said in text


def test_standing_compares_counts_that_both_modalities_predict(folder):
    protocol = {"protocol": "modalities", "protocol_version": 1}
    records = [
        {**result(seed, 0.7), **protocol, "method": method, "joint": joint}
        for method, joint in (
            ("scmvp", {"rna_log_likelihood": -240.0, "atac_auroc": 0.7}),
            ("kNN 15", {"rna_log_likelihood": -255.0, "atac_auroc": 0.8}),
        )
        for seed in (0, 1)
    ]
    write(records, folder)
    text = (folder.parent / "standing.md").read_text()
    assert "| modalities | RNA log-likelihood, both seen | **+15** kNN 15 |" in text
    assert "| modalities | ATAC AUROC, both seen | -0.100 kNN 15 |" in text
    assert "ATAC log-likelihood" not in text


def test_predictions_across_modalities_are_those_of_the_default_split(folder):
    records = [
        {**result(seed, 0.7), "protocol": "cross-modal", "method": method, "atac_auroc": auroc}
        for method, auroc in (
            ("scmvp", 0.9),
            ("scmvp, a tenth held out", 0.7),
            ("linear", 0.6),
        )
        for seed in (0, 1)
    ]
    write(records, folder)
    text = (folder.parent / "standing.md").read_text()
    assert "| cross-modal | ATAC AUROC | **+0.100** linear |" in text


def test_held_out_labels_are_held_against_the_best_view_of_another_method(folder):
    own, other = (
        {**result(0, 0.7), "protocol": "held-out", "method": method, **views}
        for method, views in (
            ("scmvp", {"joint": {"f1": 0.75}, "atac": {"f1": 0.4}}),
            ("RNA PCA", {"rna": {"f1": 0.74}}),
        )
    )
    write([result(0, 0.7), own, other], folder)
    text = (folder.parent / "standing.md").read_text()
    assert "| held-out | F1, best view | **+0.010**\\* RNA PCA |" in text
    assert "F1 of ATAC alone" not in text


def test_readme_counts_the_comparisons_that_the_documentation_shows():
    text = README.read_text()
    said = text.partition("<!-- standing -->\n\n")[2].partition("\n<!-- end of standing -->")[0]
    assert said
    assert (RUNS.parent / "standing.md").read_text().startswith(said)


def test_results_of_another_folder_leave_the_readme_of_the_project_alone(folder, monkeypatch):
    readme = folder.parents[1] / "README.md"
    before = readme.read_text()
    monkeypatch.setattr("harness.report.README", readme)
    write([result(0, 0.7)], folder)
    assert readme.read_text() != before  # it was named
    readme.write_text(before)
    report(folder)
    assert readme.read_text() == before
