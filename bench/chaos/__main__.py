"""The command: `python -m bench.chaos [EXPERIMENT …] [--seed N] [--short] [--output FILE]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.chaos.figures import missed
from bench.chaos.guardian import guarded_scratch
from bench.chaos.history_file import write_history
from bench.chaos.invariants import check
from bench.measuring import report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.chaos.history import History

EXPERIMENTS: Mapping[str, str] = {
    "kills": "kill -9 of balancer and agents while sessions run",
    "retries": "One request id, many clients, and a kill of the balancer",
    "endings": "The end of the daemon with all its sessions",
    "partitions": "Agents that are stopped, cut off and held up",
    "nemesis_run": "Everything at once",
}
SHORT: Mapping[str, Mapping[str, Any]] = {
    "kills": {"kills": 4, "sessions": 3, "film_s": 60},
    "retries": {"rounds": 1, "requests": 100},
    "endings": {"sessions": 3, "runs": 1},
    "partitions": {"partitions": 2, "devices": 2, "sessions": 3, "longest_s": 2, "film_s": 60},
    "nemesis_run": {"seconds": 15, "every_ms": 800, "longest_s": 3, "film_s": 60},
}
"""For tests, and to see that they run."""


def main() -> int:
    """Runs what was asked for.

    Returns:
        0 when no invariant was violated and every number is what was asked for, else 1.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description="Breaks a house and judges it.")
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(EXPERIMENTS)}; default: all")
    parser.add_argument("--seed", type=int, help="repeats the choices of a run; default: a new one")
    parser.add_argument("--short", action="store_true", help="few of everything: shows that they run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="an argument, such as kills=20"
    )
    parser.add_argument("--probe-results", type=Path, help="of an earlier daemon's device, so that none is probed")
    parser.add_argument("--history", type=Path, help="adds everything that was seen to this JSON lines file")
    parser.add_argument("--output", type=Path, help="adds the figures to this JSON lines file")
    options = parser.parse_args()
    unknown = set(options.names) - EXPERIMENTS.keys()
    if unknown:
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3))
    given = {name: int(value) for name, _, value in (one.partition("=") for one in options.set)}
    count = 0
    with guarded_scratch() as scratch:
        for name in options.names or EXPERIMENTS:
            arguments = {**(SHORT[name] if options.short else {}), **given}
            print(f"{name}: --seed {seed}", flush=True)
            load_before = os.getloadavg()[0]
            measure = import_module(f"bench.chaos.{name}").measure
            probe_results = options.probe_results or scratch / "probe.json"
            histories: list[History] = []
            try:
                figures = measure(seed=seed, probe_results=probe_results, histories=histories, **arguments)
            finally:
                for history in histories if options.history else ():
                    write_history(history, options.history)
            load = " to ".join(f"{value:.1f}" for value in (load_before, os.getloadavg()[0]))
            report(f"{EXPERIMENTS[name]} (load {load}, {os.cpu_count()} cores)", figures, options.output)
            violations = [violation for history in histories for violation in check(history)]
            print(f"  violations of invariants: {len(violations)}")
            for violation in violations[:50]:
                print(f"    {violation}")
            for figure in missed(figures):
                print(f"  missed: {figure.name}")
            count += len(violations) + len(missed(figures))
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
