"""Runs the benchmarks: `python -m bench [NAME …] [--smoke] [--output FILE]`."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module
from pathlib import Path

from bench import daemons
from bench.measuring import report

BENCHMARKS = {
    "create_session": "CreateSession against a bare gRPC echo",
    "transcode": "Transcoding through the daemon against ffmpeg by hand",
    "footprint": "Start times and memory",
    "restarts": "Kills of balancer and agent: until everything is known again",
    "calibration": "Calibrating this machine's cores: time and repeatability",
    "recording": "Recordings: begin, truth, faults; against a script",
    "health": "GPU health: the XID table on a fake driver",
    "placement": "Placement against the rules of others, replayed",
}
SMOKE = {
    "create_session": {"pair_count": 1, "requests": 64},
    "transcode": {"pair_count": 1, "seconds": 1, "height": 144},
    "footprint": {"runs": 1, "gpu_count": 1, "probed": False},
    "restarts": {"runs": 1, "session_count": 1, "attempt_count": 4},
    "calibration": {"runs": 1, "window_s": 0.02, "rounds": 1, "step_count": 1},
    "recording": {
        "parts": ("starts", "kills"),
        "start_runs": 1,
        "cold_runs": 0,
        "kills": 1,
        "naive_runs": 1,
        "size": (640, 360),
        "killed_after_s": (1.0, 1.0),
    },
    "health": {"xids": (45, 79), "looks": ("recovery action",), "placements": 2, "retries": 1},
    "placement": {
        "seeds": (1, 2),
        "load_seeds": (1, 2),
        "hours": 3,
        "traffic": ("mixed",),
        "device_counts": (4,),
        "steps": 2,
        "scale": 0.02,
    },
}


def main() -> int:
    """Runs what was asked for; returns 0 when every benchmark ran to its end, whatever it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--smoke", action="store_true", help="shortest possible: shows that they run")
    parser.add_argument("--output", type=Path, help="adds the figures to this JSON lines file")
    parser.add_argument("--probe-results", type=Path, help="of an earlier daemon's device, so that none is probed")
    options = parser.parse_args()
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    daemons.known_probe = options.probe_results
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Asked to end: what was measured is lost."))  # Daemons end first.
    for name in options.names or BENCHMARKS:
        figures = import_module(f"bench.{name}").measure(**(SMOKE[name] if options.smoke else {}))
        report(BENCHMARKS[name], figures, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
