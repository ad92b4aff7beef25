"""Runs what has no result yet, one file for each fit, and reads the results there are."""

import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scvi
import torch
from mudata import MuData

from harness.code import forms
from harness.data import DATA
from harness.methods import METHODS, what_is_missing
from harness.methods.base import Method
from harness.protocols import PROTOCOLS, Result

RUNS = Path(__file__).parents[1] / "results" / "runs"
CORE_PACKAGES = ("scanpy", "scikit-learn", "scipy", "numpy")


class Run(NamedTuple):
    """One fit."""

    data: str
    protocol: str
    case: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Words for a person."""
        parts = (self.data, self.protocol, self.case, self.method, f"seed {self.seed}")
        return " | ".join(part for part in parts if part)

    @property
    def slug(self) -> str:
        """Where the result stands below the folder of results, without ending."""
        words = ".".join(part for part in (self.method, self.case, str(self.seed)) if part)
        return f"{self.data}/{self.protocol}/" + re.sub(r"[^\w.+-]+", "_", words)

    def file(self, folder: Path) -> Path:
        """Where the result stands."""
        return folder / f"{self.slug}.json"


def planned(
    data: Iterable[str], protocols: Iterable[str], methods: Iterable[str], seeds: Iterable[int]
) -> list[Run]:
    """All fits of the methods that a protocol suits, and the data, seed by seed."""
    seeds, methods = list(seeds), list(methods)
    choosy = {method for method in methods if METHODS[method]().needs_batches}
    return [
        Run(name, protocol, case, method, seed)
        for name in data
        for seed in seeds
        for protocol in protocols
        for method in methods
        if PROTOCOLS[protocol].suits(METHODS[method]())
        and (DATA[name].has_batches or method not in choosy)
        for case in PROTOCOLS[protocol].cases
    ]


def found(run: Run, folder: Path) -> Result | None:
    """Return the result of a run, where there is one."""
    file = run.file(folder)
    return json.loads(file.read_text()) if file.exists() else None


def is_done(run: Run, folder: Path, renew: bool) -> bool:
    """Whether there is a result, and with ``renew`` one of the present version of the protocol."""
    result = found(run, folder)
    if result is None:
        return False
    return not renew or result["protocol_version"] == PROTOCOLS[run.protocol].version


def is_of_other_code(run: Run, folder: Path) -> bool:
    """Whether there is a result, and of code that is not, or not known to be, the present one."""
    result = found(run, folder)
    return result is not None and result.get("code") != forms(METHODS[run.method]())


def carry_out(runs: list[Run], folder: Path = RUNS, renew: bool = False) -> None:
    """Run what is missing, the data read once for all that follow one another."""
    left = []
    for run in runs:
        if is_done(run, folder, renew):
            continue
        if (missing := what_is_missing(run.method)) is not None:
            print(f"left out: {run.name}, which needs {missing}", flush=True)
            continue
        left.append(run)
    print(f"{len(left)} of {len(runs)} fits to run", flush=True)
    start, loaded, mdata = time.perf_counter(), None, None
    for i, run in enumerate(left):
        minutes = (time.perf_counter() - start) / 60
        print(f"[{i + 1}/{len(left)}, {minutes:.1f} min] {run.name}", flush=True)
        if run.data != loaded:
            mdata, loaded = DATA[run.data].load(), run.data
        record, arrays = measure(run, mdata)
        save(record, arrays, run.file(folder))
        seconds = f"fitted in {record['fit_seconds']} s, scored in {record['score_seconds']} s"
        print(f"    {'; '.join(record.get('broken', [])) or seconds}", flush=True)


def measure(run: Run, mdata: MuData) -> tuple[Result, dict[str, np.ndarray]]:
    """Fit and score; what the result file says, and the arrays that stand beside it."""
    protocol = PROTOCOLS[run.protocol]
    task = protocol.make(mdata, run.seed, run.case)
    method = METHODS[run.method](**task.options)
    has_memory = forget_peak_memory()
    start = fitted = time.perf_counter()
    try:
        method.fit(task.train, run.seed)
        fitted = time.perf_counter()
        scores = task.score(method)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        # a fit that ends in values that are not numbers is a result; all else is a mistake
        if not re.search(r"\bnan\b|\binf\b|infinit", str(error), re.IGNORECASE):
            raise
        scores = {"broken": [str(error).splitlines()[0]]}
    end = time.perf_counter()
    arrays = {key: value for key, value in scores.items() if isinstance(value, np.ndarray)}
    record = {
        **run._asdict(),
        "protocol_version": protocol.version,
        "cells": mdata.n_obs,
        "settings": method.settings,
        "fit_seconds": round(fitted - start, 2),
        "score_seconds": round(end - fitted, 2),
        "peak_memory_gb": round(max(peak_memory(), method.peak_memory) / 1e9, 2)
        if has_memory
        else None,
        **{key: value for key, value in scores.items() if key not in arrays},
        "machine": machine(),
        "versions": versions(method),
        "code": forms(method),
    }
    return record, arrays


def save(record: Result, arrays: dict[str, np.ndarray], file: Path) -> None:
    """Write a result whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if arrays:
        np.savez_compressed(file.with_suffix(".npz"), **arrays)
    half = file.with_suffix(".half")
    half.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(half, file)


def read_results(folder: Path = RUNS) -> Iterator[Result]:
    """Results in the order of the tables: data, protocol, method, case, seed."""
    records = [json.loads(file.read_text()) for file in folder.glob("*/*/*.json")]

    def place(record: Result) -> tuple[int, ...]:
        protocol = PROTOCOLS[record["protocol"]]
        return (
            list(DATA).index(record["data"]),
            list(PROTOCOLS).index(record["protocol"]),
            list(METHODS).index(record["method"]),
            protocol.cases.index(record["case"]),
            record["seed"],
        )

    yield from sorted(records, key=place)


# -- machine ------------------------------------------------------------------------------------


def forget_peak_memory() -> bool:
    """Make the peak that of this run alone, where the system can (Linux)."""
    file = Path("/proc/self/clear_refs")
    if not file.exists():
        return False
    file.write_text("5")
    return True


def peak_memory() -> int:
    """Largest resident memory of this process since it was forgotten, in bytes (Linux)."""
    # not `ru_maxrss`: that of a new process starts at the peak of the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) * 1024


def machine() -> dict[str, object]:
    """What a result was measured on."""
    return {
        "python": platform.python_version(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        # how busy other work keeps the machine: seconds are worth little above one a core
        "load": round(os.getloadavg()[0], 1),
    }


def processor() -> str:
    """Model of the processor where the system tells it, or its architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def versions(method: Method) -> dict[str, str | None]:
    """Versions of the packages of the method and of the scores."""
    numbers: dict[str, str | None] = {}
    for name in (*method.packages, *CORE_PACKAGES):
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            numbers[name] = None  # importable from a folder
    return numbers


scvi.settings.verbosity = 30
