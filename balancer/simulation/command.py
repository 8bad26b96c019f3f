"""`gpu-balancerd simulate`: reads devices and a trace, or makes one, replays it, and tells what came of it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from balancer.adapters.policy_plugins import PolicyUnavailable, load_policy, policy_names
from balancer.domain.decision import PlacementSettings
from balancer.domain.placement import PolicyFault
from balancer.domain.quarantine import QuarantineSettings
from balancer.domain.queue import QueueSettings
from balancer.simulation.chance import seeded
from balancer.simulation.comparison import Comparison, compare
from balancer.simulation.devices_file import DevicesFileError, read_fleet
from balancer.simulation.outcome import DeviceFailure
from balancer.simulation.pictures import PictureError, check_picture, draw
from balancer.simulation.replay import ReplayRules
from balancer.simulation.report import COLUMNS, answer, document, rows
from balancer.simulation.trace_file import TraceFileError, read_trace, write_trace
from balancer.simulation.traffic import KINDS, NoSuchWork, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from balancer.domain.ids import DeviceId
    from balancer.domain.policies.policy import Policy
    from balancer.simulation.fleet import Fleet
    from balancer.simulation.trace import Trace

_USAGE_ERROR = 2
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h|d|)")
_USUAL_DURATION_S = 36_000.0
_LONGEST_S = 366 * 86_400.0
_MOST_SESSIONS = 2_000_000


class Misuse(Exception):
    """What was typed cannot be meant. The message says why and what to try."""


_TOLD = (Misuse, DevicesFileError, TraceFileError, PictureError, PolicyUnavailable, PolicyFault, NoSuchWork)


def simulate(arguments: Sequence[str]) -> int:
    """Runs a simulation.

    Args:
        arguments: What follows `simulate` on the command line.

    Returns:
        The exit status: 0, or 2 for options, devices or traces that cannot be used.
    """
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except _TOLD as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    return 0


def _run(options: argparse.Namespace) -> None:
    policies = [_maker(name) for name in options.policy or ["least_weighted_load"]]
    if options.plot is not None:
        check_picture(options.plot)
    fleet = read_fleet(options.devices)
    trace = _trace(options, fleet)
    if 0 < options.warm_up >= trace.end_s:
        raise Misuse(
            f"Cannot use --warm-up {options.warm_up:g}s: the trace ends after {trace.end_s:g} s, and nothing would be "
            "counted. Try less."
        )
    if options.write_trace is not None:
        write_trace(options.write_trace, trace)
    rules = ReplayRules(
        settings=PlacementSettings(admission=not options.no_admission, headroom=Fraction(str(options.headroom))),
        queue=QueueSettings() if options.queue else None,
        breaker=QuarantineSettings(),
        failures=tuple(_failure(told, fleet, trace) for told in options.fail),
        from_s=options.warm_up,
    )
    comparison = compare(trace, fleet, rules, policies, seed=options.seed, sustainable=options.sustainable)
    if options.plot is not None:
        draw(comparison, options.plot)
    if options.json:
        print(json.dumps(document(comparison), indent=2))
    else:
        _print(comparison)


def _trace(options: argparse.Namespace, fleet: Fleet) -> Trace:
    if options.generate is not None:
        load = 0.7 if options.load is None else options.load
        duration_s = options.duration or _USUAL_DURATION_S
        return generate(options.generate, fleet, seeded(options.seed), load=load, duration_s=duration_s)
    if options.duration is not None:
        raise Misuse("Cannot use --duration with --trace: a trace is as long as it is. Try one of them.")
    trace = read_trace(options.trace)
    if options.load is not None and options.load != 1:
        if len(trace.sessions) * options.load > _MOST_SESSIONS:
            raise Misuse(
                f"Cannot use --load {options.load:g}: that is more than {_MOST_SESSIONS:,} sessions. Try less."
            )
        trace = trace.scaled(options.load, seeded(options.seed))
    return trace


def _maker(name: str) -> Callable[[], Policy]:
    load_policy(name)  # so that a wrong name is told before anything is read
    return lambda: load_policy(name)


def _print(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    # In a pipe nothing is cut or folded.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, emoji=False, markup=False)
    told = list(rows(comparison))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = [place for place, _ in enumerate(COLUMNS) if place < 3 or any(row[place] not in ("-", "0") for row in told)]
    for place in shown:
        table.add_column(COLUMNS[place], justify="left" if place in (0, 2) else "right")
    for row in told:
        table.add_row(*(row[place] for place in shown))
    if comparison.trace.title:
        console.print(comparison.trace.title)
    console.print(table)
    print(f"\n{answer(comparison)}")


# ------------------------------------------------------------------------------------------------------------- options


def _length_s(text: str) -> float:
    match = _LENGTH.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else -1.0
    if not 0 <= seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"must be a length of time such as 90s, 30m or 10h, not {text!r}")
    return seconds


def _positive_length_s(text: str) -> float:
    seconds = _length_s(text)
    if not seconds:
        raise argparse.ArgumentTypeError("must be above 0")
    return seconds


def _load(text: str) -> float:
    try:
        load = float(text)
    except ValueError:
        load = -1.0
    if not 0 < load <= 100:
        raise argparse.ArgumentTypeError(f"must be a number above 0 up to 100, not {text!r}")
    return load


def _headroom(text: str) -> float:
    try:
        headroom = float(text)
    except ValueError:
        headroom = -1.0
    if not 0.05 <= headroom <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0.05 to 1, not {text!r}")
    return headroom


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fail:
    """A failure as it was typed."""

    device: str
    time_s: float
    duration_s: float | None


def _fail(text: str) -> _Fail:
    device, found, when = text.rpartition("@")
    begin, lasting, length = when.partition("+")
    if not found or not device:
        raise argparse.ArgumentTypeError(f"must be DEVICE@TIME or DEVICE@TIME+DURATION, not {text!r}")
    return _Fail(device=device, time_s=_length_s(begin), duration_s=_positive_length_s(length) if lasting else None)


def _failure(told: _Fail, fleet: Fleet, trace: Trace) -> DeviceFailure:
    wanted = told.device.lower()
    found: list[DeviceId] = [
        view.id for view in fleet.views if wanted in (view.id.lower(), fleet.names.get(view.id, "").lower())
    ]
    if len(found) != 1:
        known = ", ".join(fleet.names.get(view.id, view.id) for view in fleet.views[:20])
        raise Misuse(f"Cannot use --fail {told.device!r}: there is no such device. Try one of {known}.")
    ends_s = [one.arrival_s + one.max_wait_s + trace.held_s(one) for one in trace.sessions]
    over_s = max(trace.end_s, *ends_s, 0.0)
    if told.time_s > over_s:
        raise Misuse(
            f"Cannot use --fail {told.device}@{told.time_s:g}s: after {over_s:g} s nothing runs. Try an earlier time."
        )
    return DeviceFailure(device_id=found[0], time_s=told.time_s, duration_s=told.duration_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-balancerd simulate",
        description="Replays sessions on devices that need not be there, through the daemon's own placement code.",
    )
    parser.add_argument(
        "--devices", type=Path, required=True, metavar="FILE", help="TOML, or the JSON of gpu-balancer devices --json"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path, metavar="FILE", help="sessions, as gpu-balancer trace exports them")
    source.add_argument("--generate", choices=tuple(KINDS), metavar="KIND", help=f"traffic: {', '.join(KINDS)}")
    parser.add_argument(
        "--load",
        type=_load,
        metavar="X",
        help="generated: 1 = all that the devices carry, at the peak; default 0.7. Of a trace: times its sessions",
    )
    parser.add_argument(
        "--duration",
        type=_positive_length_s,
        metavar="TIME",
        help="of generated traffic; default 10h",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of everything that is left to chance; default 1"
    )
    parser.add_argument(
        "--policy",
        action="append",
        metavar="P",
        help=f"repeatable; default least_weighted_load. Known: {', '.join(policy_names())}",
    )
    parser.add_argument("--no-admission", action="store_true", help="devices without room refuse nothing")
    parser.add_argument("--headroom", type=_headroom, default=0.9, metavar="X", help="that may be booked; default 0.9")
    parser.add_argument(
        "--queue", action=argparse.BooleanOptionalAction, default=True, help="whether sessions wait that would"
    )
    parser.add_argument(
        "--fail",
        type=_fail,
        action="append",
        default=[],
        metavar="DEVICE@TIME[+DURATION]",
        help="a device that is dead from then on, or for a while; repeatable",
    )
    parser.add_argument(
        "--warm-up", type=_length_s, default=0.0, metavar="TIME", help="not counted in shares of time; default 0"
    )
    parser.add_argument("--sustainable", action="store_true", help="finds the most sessions that are carried; slow")
    parser.add_argument("--write-trace", type=Path, metavar="FILE", help="keeps the trace that was replayed")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draws a picture: OUT.png or OUT.svg")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    return parser
