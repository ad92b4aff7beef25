"""What is run, what is not run again, and what is on disk after a run that was stopped."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import harness.code as code
import harness.protocols as protocols
import harness.runner as runner
from harness.data import DATA, DataSet
from harness.methods import METHODS
from harness.runner import Run, carry_out, is_of_other_code, measure, planned, read_results

RUN = Run("tiny", "embedding", "", "depths", 0)


@pytest.fixture(autouse=True)
def _fakes(cells, depth_embedder, monkeypatch):
    monkeypatch.setitem(DATA, "tiny", DataSet(lambda: cells, "tiny"))
    monkeypatch.setitem(METHODS, "depths", depth_embedder)
    monkeypatch.setattr(protocols, "find_spec", lambda name: None)


def test_a_result_file_says_what_was_run_and_how(tmp_path):
    carry_out([RUN], tmp_path)
    record = json.loads((tmp_path / "tiny/embedding/depths.0.json").read_text())
    assert (record["method"], record["cells"]) == ("depths", 240)
    assert record["settings"] == {"seed of the fit": 0}
    assert {
        "leiden",
        "fit_seconds",
        "peak_memory_gb",
        "machine",
        "versions",
        "code",
    } <= record.keys()
    arrays = np.load(tmp_path / "tiny/embedding/depths.0.npz")
    assert arrays["latent"].shape == (240, 2)
    assert arrays["labels"].shape == (240,)


def test_a_run_with_a_result_is_not_repeated(tmp_path, depth_embedder):
    for _ in range(2):
        carry_out([RUN, RUN._replace(seed=1)], tmp_path)
    assert depth_embedder.fits == 2


def test_results_of_an_older_version_are_replaced_on_demand(tmp_path, depth_embedder):
    carry_out([RUN], tmp_path)
    file = RUN.file(tmp_path)
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "protocol_version": 1}))
    carry_out([RUN], tmp_path)
    assert depth_embedder.fits == 1
    for _ in range(2):
        carry_out([RUN], tmp_path, renew=True)
    assert depth_embedder.fits == 2


def test_results_of_other_code_are_told_from_those_of_the_present_code(tmp_path, monkeypatch):
    assert not is_of_other_code(RUN, tmp_path)  # there is none
    carry_out([RUN], tmp_path)
    assert not is_of_other_code(RUN, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(code, "_task", lambda: "of another score")
        assert is_of_other_code(RUN, tmp_path)
    file = RUN.file(tmp_path)
    record = json.loads(file.read_text())
    del record["code"]  # a result from before it was written down
    file.write_text(json.dumps(record))
    assert is_of_other_code(RUN, tmp_path)


def test_the_package_is_part_of_the_code_of_its_own_methods_alone():
    assert set(code.forms(METHODS["scmvp"]())) == {"task", "scmvp_scvi"}
    assert set(code.forms(METHODS["RNA PCA"]())) == {"task"}


@pytest.mark.parametrize(
    ("text", "is_same"),
    [
        ('"""Other words."""\ndef f(x):\n    # a remark\n    return (x)\n', True),
        ('def f(x):\n    """Say."""\n    return x\n', True),
        ("def f(x):\n    return -x\n", False),
        ("def f(x: int):\n    return x\n", False),
    ],
)
def test_a_fingerprint_is_that_of_what_runs(tmp_path, text, is_same):
    prints = []
    for source in ("def f(x):\n    return x\n", text):
        (tmp_path / "module.py").write_text(source)
        prints.append(code.fingerprint([tmp_path / "module.py"]))
    assert (prints[0] == prints[1]) == is_same


@pytest.mark.parametrize("where", ["fit", "write"])
def test_a_stopped_run_leaves_no_half_result(where, tmp_path, depth_embedder, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    if where == "fit":
        monkeypatch.setattr(depth_embedder, "fit", stop)
    else:
        monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        carry_out([RUN], tmp_path)
    assert list(tmp_path.rglob("*.json")) == []


def test_a_fit_that_ends_in_nan_is_a_result(cells, depth_embedder, monkeypatch):
    def fail(self, train, seed):
        raise ValueError("Expected parameter loc to be real, found nan")

    monkeypatch.setattr(depth_embedder, "fit", fail)
    record, _ = measure(RUN, cells)
    assert record["broken"] == ["Expected parameter loc to be real, found nan"]


def test_any_other_error_is_not_hidden(cells, depth_embedder, monkeypatch):
    def fail(self, train, seed):
        raise ValueError("shapes differ")

    monkeypatch.setattr(depth_embedder, "fit", fail)
    with pytest.raises(ValueError, match="shapes differ"):
        measure(RUN, cells)


def test_runs_are_planned_for_the_methods_that_a_protocol_suits():
    runs = planned(["tiny"], ["held-out", "cross-modal"], ["raw", "linear", "RNA PCA"], [0, 1])
    found = {(run.protocol, run.method) for run in runs}
    assert found == {("held-out", "RNA PCA"), ("cross-modal", "linear")}
    assert len(runs) == 4


def test_what_needs_batches_is_planned_for_data_that_have_them():
    runs = planned(["tiny", "bmmc"], ["embedding"], ["RNA PCA", "scmvp, centred batches"], [0])
    found = [(run.data, run.method) for run in runs]
    assert found == [("tiny", "RNA PCA"), ("bmmc", "RNA PCA"), ("bmmc", "scmvp, centred batches")]


def test_all_runs_have_files_of_their_own():
    runs = planned(DATA, protocols.PROTOCOLS, METHODS, [0, 1])
    assert len({run.slug for run in runs}) == len(runs)


def test_a_method_without_its_package_is_left_out_and_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "what_is_missing", lambda name: "a key")
    carry_out([RUN], tmp_path)
    assert (
        "left out: tiny | embedding | depths | seed 0, which needs a key"
        in capsys.readouterr().out
    )
    assert list(read_results(tmp_path)) == []


def test_committed_results_are_of_known_data_methods_and_protocols():
    records = list(read_results())
    assert records
    for record in records:
        run = Run(*(record[field] for field in Run._fields))
        assert run.file(Path(runner.RUNS)).exists()
