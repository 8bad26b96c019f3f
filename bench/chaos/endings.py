"""Many sessions are ended together with the daemon: how long that takes, and whether every file is complete."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench.chaos.figures import count_figure, times_figure
from bench.chaos.film import make_film
from bench.chaos.history import History
from bench.chaos.house import house_running
from bench.chaos.house_settings import Wishes
from bench.chaos.observer import Observer, session_view
from bench.chaos.work import Asked, Work, read_output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.chaos.history import OutputView
    from bench.chaos.house import House
    from bench.measuring import Figure

_RATE = 5
_KINDS = ("mp4", "hls", "file", "shared hls")
_RUN_S = 3.0


def measure(
    *, seed: int, probe_results: Path, sessions: int = 64, runs: int = 3, histories: list[History]
) -> list[Figure]:
    """Ends and looks.

    Args:
        seed: Nothing is left to chance; told for the sake of the others.
        probe_results: Of an earlier house.
        sessions: How many at once.
        runs: How often, each with a house of its own.
        histories: Gets what is seen, one for each house, at once: it is worth looking at also where this breaks off.
    """
    times_s, incomplete, frames = [], 0, 0
    for _ in range(runs):
        history = History(seed=seed)
        histories.append(history)
        with house_running(Wishes(), probe_results=probe_results, leftovers=history.leftovers) as house:
            times_s.append(_shut_down(house, history, sessions))
            for output in history.outputs:
                frames += output.frames
                incomplete += not (output.whole and output.frames and not output.complaints)
    return [
        times_figure(f"shutdown --stop-sessions with {sessions} sessions", times_s, "<= 12"),
        count_figure("… files that are not complete", incomplete, detail=f"{frames} frames read back"),
    ]


def _shut_down(house: House, history: History, count: int) -> float:
    film = make_film(house.films / "film.mp4", frames=600, rate=_RATE)
    work = Work(house, history, film)
    observer = Observer(history, house, look_every_s=1.0)
    with observer.observing():
        with house.client() as client:
            for number in range(count):
                work.create(client, _KINDS[number % len(_KINDS)])
            work.await_running(client)
            time.sleep(_RUN_S)
            missing = {session.name for session in client.list_sessions()} ^ {asked.name for asked in work.asked}
            history.leftovers += [f"{name} was not asked for, or is not there" for name in missing]
        command = [sys.executable, "-m", "gpu_balancer.cli", "--address", house.address, "shutdown", "--stop-sessions"]
        began_s = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        took_s = time.monotonic() - began_s
        if done.returncode:
            history.leftovers.append(f"shutdown ended with {done.returncode}: {done.stderr[-300:]}")
    history.outputs += [_read(house, asked) for asked in work.asked]
    house.start()
    house.await_adopted(frozenset())
    with house.client() as client:
        history.last.update({session.name: session_view(session) for session in client.list_sessions()})
        work.delete_all(client)
    return took_s


def _read(house: House, asked: Asked) -> OutputView:
    if asked.path.startswith("/"):
        return read_output(asked, house.folder / asked.path)
    return read_output(asked, next(_attempts(house, asked)) / "artifacts" / asked.path)


def _attempts(house: House, asked: Asked) -> Iterator[Path]:
    return house.state_dir.glob(f"agents/*/{asked.name}/1")
