"""Minutes of everything that can be done to a house, then peace, then the judge."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from balancer.simulation.chance import seeded
from bench.chaos.figures import count_figure
from bench.chaos.film import make_film
from bench.chaos.history import History
from bench.chaos.house import house_running
from bench.chaos.house_settings import Wishes
from bench.chaos.invariants import check
from bench.chaos.live_source import live_source
from bench.chaos.nemesis import Nemesis
from bench.chaos.observer import Observer
from bench.chaos.plan import PARTITIONS, WEIGHTS, draw_acts
from bench.chaos.restarts import RESTART_SETTINGS, RESTARTS
from bench.chaos.work import KINDS, Work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.chaos.house import House
    from bench.measuring import Figure

_RATE = 25
_GPUS = 2
"""Stand-ins, where XIDs are among what is done."""
_DISK_MIB = 384


def measure(  # noqa: PLR0913 - all that a run is made of
    *,
    seed: int,
    probe_results: Path,
    seconds: int = 1200,
    every_ms: int = 1500,
    devices: int = 2,
    sessions: int = len(KINDS),
    longest_s: int = 20,
    film_s: int = 300,
    kinds: Mapping[str, int] = WEIGHTS,
    histories: list[History],
) -> list[Figure]:
    """Breaks, heals and judges.

    Args:
        seed: Of everything that is done.
        probe_results: Of an earlier house.
        seconds: How long.
        every_ms: Mean pause between two acts, in milliseconds.
        devices: CPU devices, each with its agent behind a wire that can be cut.
        sessions: That are there from the beginning, of different kinds.
        longest_s: No stop or cut lasts longer.
        film_s: Length of what sessions read, over and over.
        kinds: What is done, with weights.
        histories: Gets what is seen, one for each house, at once: it is worth looking at also where this breaks off.
    """
    history = History(seed=seed)
    histories.append(history)
    acts = list(draw_acts(seeded(seed), seconds=seconds, every_s=every_ms / 1000, kinds=kinds, longest_s=longest_s))
    with (
        tempfile.TemporaryDirectory(prefix="gb-chaos-") as scratch,
        ExitStack() as stack,
        house_running(
            Wishes(
                external=True,
                settings=RESTART_SETTINGS,
                devices=devices,
                gpus=_GPUS if "xid" in kinds else 0,
                clock="set clock" in kinds,
                disk_mib=_DISK_MIB if "fill state" in kinds else 0,
            ),
            probe_results=probe_results,
            leftovers=history.leftovers,
        ) as house,
    ):
        film = make_film(house.films / "film.mp4", frames=film_s * _RATE, rate=_RATE)
        work = Work(house, history, film, live_url=stack.enter_context(live_source(film)))
        observer = Observer(history, house)
        with observer.observing():
            done = _break(house, history, work, acts, sessions)
            with house.client() as client:
                observer.take_snapshot(client)
                work.stop_all(client)
                observer.take_snapshot(client)
                work.close(client, Path(scratch))
    return [*_figures(history, done, seconds), _partition_figure(history)]


def _break(house: House, history: History, work: Work, acts: list, sessions: int) -> int:  # type: ignore[type-arg]
    nemesis = Nemesis(house, history, work, disks=house.disks, restart=RESTARTS)
    try:
        with house.client() as client:
            for number in range(sessions):
                work.create(client, KINDS[-1 - number % len(KINDS)], RESTARTS)
            work.await_running(client)
        done = nemesis.run(acts)
        nemesis.heal()
        nemesis.await_settled()
    finally:
        nemesis.close()
    return done


def _figures(history: History, done: int, seconds: int) -> list[Figure]:
    kinds = Counter(act.kind for act in history.acts)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    ends = Counter(f"{view.state} {view.failure}".strip() for view in history.last.values())
    ended = ", ".join(f"{count} {end}" for end, count in ends.items())
    frames = sum(output.frames for output in history.outputs)
    return [
        count_figure(f"acts in {seconds} s", done, "(none)", detail=f"seed {history.seed}: {told}"),
        count_figure("sessions", len(history.last), "(none)", detail=ended),
        count_figure("violations of invariants", len(check(history)), detail=f"{frames} frames read back"),
    ]


def _partition_figure(history: History) -> Figure:
    partitions = sum(act.kind in PARTITIONS for act in history.acts)
    twice = [one for one in check(history) if one.invariant in ("TWO_WRITERS", "TWO_LIVE_ATTEMPTS")]
    return count_figure(f"{partitions} partitions: outputs written by two attempts", len(twice))
