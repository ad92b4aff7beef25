"""Runs the benchmark: data sets, protocols, methods and seeds, whatever has no result yet.

Each fit gives one file below ``benchmarks/results/runs/``. A run that is stopped goes on with what
is missing. Tables and figures are made from all results at the end, or by ``--summarise`` alone.

    python benchmarks/run.py --data cortex --protocols embedding held-out --methods scmvp "RNA PCA"
    python benchmarks/run.py --list
"""

import argparse
import warnings
from pathlib import Path

from harness.data import DATA
from harness.methods import METHODS, ONLY_NAMED, what_is_missing
from harness.protocols import PROTOCOLS
from harness.report import report
from harness.runner import RUNS, carry_out, is_done, is_of_other_code, planned
from scmvp_scvi._mudata import without_pulling


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Names with spaces go in quotes. Left out, --methods are all but "
        + ", ".join(ONLY_NAMED)
        + ", which take long or another package.",
    )
    default = [name for name in METHODS if name not in ONLY_NAMED]
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), metavar="NAME")
    parser.add_argument(
        "--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), metavar="NAME"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=default, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path, default=RUNS, help="folder of the result files")
    parser.add_argument(
        "--renew", action="store_true", help="replace results of older versions of a protocol"
    )
    parser.add_argument("--list", action="store_true", help="what there is to choose, then stop")
    parser.add_argument("--plan", action="store_true", help="what would be run, then stop")
    parser.add_argument(
        "--other-code", action="store_true", help="which results are of other code, then stop"
    )
    parser.add_argument("--summarise", action="store_true", help="only make tables and figures")
    return parser.parse_args(arguments)


def describe() -> str:
    """Names of all data sets, protocols and methods, a line each."""
    lines = ["data"]
    lines += [f"  {name:<22}{data.caption}" for name, data in DATA.items()]
    lines += ["protocols"]
    lines += [f"  {name:<22}{p.make.__doc__.splitlines()[0]}" for name, p in PROTOCOLS.items()]
    lines += ["methods"]
    for name, make in METHODS.items():
        remarks = [p for p, protocol in PROTOCOLS.items() if protocol.suits(make())]
        if (missing := what_is_missing(name)) is not None:
            remarks.append(f"(needs {missing})")
        elif name in ONLY_NAMED:
            remarks.append("(only when named)")
        lines.append(f"  {name:<52}{' '.join(remarks)}")
    return "\n".join(lines)


def main() -> None:
    """Run what has no result yet, then report."""
    chosen = parse()
    if chosen.list:
        print(describe())
        return
    # third parties announce what they will change; cells without counts are part of the protocols
    with warnings.catch_warnings(), without_pulling():
        warnings.simplefilter("ignore")
        if not chosen.summarise:
            runs = planned(chosen.data, chosen.protocols, chosen.methods, chosen.seeds)
            if chosen.other_code:
                other = [run for run in runs if is_of_other_code(run, chosen.results)]
                print("\n".join(run.name for run in other))
                return
            if chosen.plan:
                left = [run for run in runs if not is_done(run, chosen.results, chosen.renew)]
                print("\n".join(run.name for run in left))
                return
            carry_out(runs, chosen.results, chosen.renew)
        report(chosen.results)


if __name__ == "__main__":
    main()
