"""kill -9 of balancer and agents at random moments while sessions run: what is lost, and how long until all is well."""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from balancer.simulation.chance import seeded
from bench.chaos.figures import count_figure, times_figure
from bench.chaos.film import make_film
from bench.chaos.history import Act, History
from bench.chaos.house import house_running
from bench.chaos.house_settings import Wishes
from bench.chaos.invariants import check
from bench.chaos.observer import Observer
from bench.chaos.work import KINDS, Work

if TYPE_CHECKING:
    from random import Random

    from bench.chaos.house import House
    from bench.measuring import Figure

_RATE = 25
_BALANCER_SHARE = 0.5
_AGAIN_SHARE = 0.25
"""Of kills that are followed by another before all is well."""


def measure(
    *, seed: int, probe_results: Path, kills: int = 100, sessions: int = 6, film_s: int = 300, histories: list[History]
) -> list[Figure]:
    """Kills and counts.

    Args:
        seed: Of the moments and victims.
        probe_results: Of an earlier house.
        kills: How many.
        sessions: How many run.
        film_s: Length of what they read, over and over.
        histories: Gets what is seen, one for each house, at once: it is worth looking at also where this breaks off.
    """
    history, times = History(seed=seed, daemons_only=True), Times()
    histories.append(history)
    with (
        tempfile.TemporaryDirectory(prefix="gb-chaos-") as scratch,
        house_running(Wishes(), probe_results=probe_results, leftovers=history.leftovers) as house,
    ):
        film = make_film(house.films / "film.mp4", frames=film_s * _RATE, rate=_RATE)
        work = Work(house, history, film)
        observer = Observer(history, house)
        with observer.observing(), house.client() as client:
            for number in range(sessions):
                work.create(client, KINDS[number % len(KINDS)])
            work.await_running(client)
            _Killer(house, history, work, seeded(seed), times).kill(kills)
            observer.take_snapshot(client)
            time.sleep(2)
            work.stop_all(client)
            observer.take_snapshot(client)
            work.close(client, Path(scratch))
    return _figures(history, times, kills)


class Times:
    """Seconds until all was well again, by what was killed."""

    def __init__(self) -> None:
        self.balancer_s: list[float] = []
        self.agent_s: list[float] = []
        self.second_s: list[float] = []
        """After the second of two kills that came before all was well."""


class _Killer:
    def __init__(self, house: House, history: History, work: Work, chance: Random, times: Times) -> None:
        self._house, self._history, self._chance, self._times = house, history, chance, times
        self._names = frozenset(asked.name for asked in work.asked)
        self._killed: dict[str, tuple[int, frozenset[str]]] = {}
        """Devices whose next agent was not seen yet: the former's process id, the sessions it had."""

    def kill(self, count: int) -> None:
        """Kills so often; each time all is well again before the next, but for those that follow at once."""
        done = 0
        while done < count:
            time.sleep(self._chance.uniform(0.1, 1.5))
            twice = self._chance.random() < _AGAIN_SHARE and done + 2 <= count
            if twice:
                self._one()
                time.sleep(self._chance.uniform(0.0, 1.0))
            began_s, balancer = time.monotonic(), self._one()
            self._await_agents()
            agents_s = time.monotonic() - began_s
            self._house.await_adopted(self._names)
            all_s = time.monotonic() - began_s
            if twice:
                self._times.second_s.append(all_s)
            elif balancer:
                self._times.balancer_s.append(all_s)
            else:
                self._times.agent_s.append(agents_s)
            done += 1 + twice

    def _one(self) -> bool:
        """Kills one; tells whether it was the balancer."""
        balancer = self._chance.random() < _BALANCER_SHARE
        if balancer:
            self._act("kill balancer")
            self._house.kill_balancer()
            self._house.start()
        else:
            self._kill_agent(self._chance.choice(self._house.await_living()))
        return balancer

    def _kill_agent(self, device: str) -> None:
        _, had = self._killed.get(device, (0, frozenset()))
        had |= self._house.live_attempts(device) or frozenset()
        self._act("kill agent", device)
        pid = self._house.signal_agent(device, signal.SIGKILL)
        if pid is None:
            raise RuntimeError(f"The agent of {device} ended by itself.")
        self._killed[device] = pid, had

    def _await_agents(self) -> None:
        for device, (former, had) in self._killed.items():
            self._house.await_agent(device, former, had)
        self._killed.clear()

    def _act(self, kind: str, target: str = "") -> None:
        now_s = time.monotonic()
        self._history.acts.append(Act(at_s=now_s, until_s=now_s, kind=kind, target=target))


def _figures(history: History, times: Times, kills: int) -> list[Figure]:
    names = {created.name for created in history.created}
    lost = [name for name in names if name not in history.last]
    failed = [view for view in history.last.values() if view.state != "CANCELLED"]
    twice = [one for one in check(history) if one.invariant in ("TWO_LIVE_ATTEMPTS", "TWO_WRITERS", "BEGUN_AGAIN")]
    frames = sum(output.frames for output in history.outputs)
    wrong = sum(out.lost + out.repeated + out.backwards + out.unreadable for out in history.outputs)
    told = (
        f"seed {history.seed}; {len(times.balancer_s)} + {len(times.agent_s)} one by one, {len(times.second_s)} pairs"
    )
    return [
        count_figure(f"{kills} kills -9, {len(names)} sessions: lost or failed", len(lost) + len(failed), detail=told),
        count_figure("… running twice, or begun again", len(twice)),
        count_figure("… frames lost, repeated or out of order", wrong, detail=f"of {frames}"),
        count_figure("… left when the house had ended", len(history.leftovers)),
        times_figure("balancer killed: SERVING, all adopted", times.balancer_s, "<= 3"),
        times_figure("agent killed: the next has adopted all", times.agent_s, "<= 3"),
        times_figure("two killed: all well after the second", times.second_s, "(none)"),
    ]
