"""The product in two minutes, in three acts: `python -m demo [--input FILE] [--output FOLDER] [--seconds N]`.

It starts `gpu-balancerd` with a state folder of its own. First a real video becomes a ladder, as MP4 and as HLS. Then a
film and live sessions share a small device, one of them has to wait, and the daemon is killed beneath them. Then a web
page is recorded, rests, and goes on while daemon and agent are killed. Every step is checked, everything is stopped
again, and it ends with status 0 only when every check passed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from demo import ladder, recording, sharing
from demo.daemon import Daemon, Missed
from demo.films import make_film
from demo.stage import Check, act, console, note, show_checks, step
from gpu_balancer.runtime.failures import RequestFailure

FIRST = "1. A film becomes a ladder"
SECOND = "2. A film and live sessions share a device"
THIRD = "3. A web page is recorded"


def main() -> int:
    """Runs the demonstration; returns 0 when every check passed."""
    arguments = _arguments()
    began_s = time.monotonic()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    checks: dict[str, list[Check]] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-demo-") as scratch:
        daemon = Daemon(Path(scratch), output / "gpu-balancerd.log")
        act(FIRST)
        source = arguments.input.resolve() if arguments.input else _make_source(output, arguments.seconds)
        checks[FIRST] = _played(daemon, ladder.play(daemon, source, output))
        act(SECOND)
        checks[SECOND] = _played(daemon, sharing.play(daemon, output))
        act(THIRD)
        checks[THIRD] = _played(daemon, recording.play(daemon, output))
    show_checks(checks)
    passed = all(check.passed for of_act in checks.values() for check in of_act)
    verdict = "[green]Every check passed[/]" if passed else "[bold red]Not every check passed[/]"
    console.print(f"{verdict}, in {time.monotonic() - began_s:.0f} s. What was made is in {arguments.output}/.")
    return 0 if passed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, help="a video of your own for the ladder; default: one is made")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="where results go")
    parser.add_argument("--seconds", type=int, default=6, help="length of the video that is made")
    arguments = parser.parse_args()
    if arguments.input and not arguments.input.is_file():
        parser.error(f"Cannot read {arguments.input}: no such file.")
    return arguments


def _make_source(output: Path, seconds: int) -> Path:
    path = output / "source.mp4"
    step(f"Making a video: {seconds} s of 1280x720 at 30 frames/s, moving, with sound")
    make_film(path, seconds)
    note(f"{path}, {path.stat().st_size / 1e6:.1f} MB")
    return path


def _played(daemon: Daemon, playing: Iterator[Check]) -> list[Check]:
    """Plays an act until it ends, or something in it does, and stops whatever it started."""
    checks: list[Check] = []
    try:
        for check in playing:
            checks.append(check)
    except (Missed, RequestFailure) as failure:
        console.print(f"[bold red]{failure}[/]")
        checks.append(Check(what="the rest", found=str(failure), passed=False))
    finally:
        step("Stopping everything")
        checks.append(daemon.stop())
    return checks


if __name__ == "__main__":
    sys.exit(main())
