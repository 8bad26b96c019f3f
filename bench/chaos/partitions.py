"""Agents that are stopped, cut off or held up, one after another and several at once: who writes an output then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.chaos import nemesis_run
from bench.chaos.plan import PARTITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from bench.chaos.history import History
    from bench.measuring import Figure

_EVERY_MS = 5000
_SHARE_DONE = 0.55
"""Of planned partitions; others meet an agent that is cut off already."""


def measure(
    *,
    seed: int,
    probe_results: Path,
    partitions: int = 200,
    devices: int = 3,
    sessions: int = 8,
    longest_s: int = 25,
    film_s: int = 300,
    histories: list[History],
) -> list[Figure]:
    """Cuts and judges.

    Args:
        seed: Of the moments, ways and victims.
        probe_results: Of an earlier house.
        partitions: How many, about.
        devices: Agents.
        sessions: That are there from the beginning.
        longest_s: No partition lasts longer.
        film_s: Length of what sessions read, over and over.
        histories: Gets what is seen, one for each house, at once: it is worth looking at also where this breaks off.
    """
    return nemesis_run.measure(
        seed=seed,
        probe_results=probe_results,
        seconds=int(partitions / _SHARE_DONE * _EVERY_MS / 1000),
        every_ms=_EVERY_MS,
        devices=devices,
        sessions=sessions,
        longest_s=longest_s,
        film_s=film_s,
        histories=histories,
        kinds={**dict.fromkeys(PARTITIONS, 10), "create": 1},
    )
