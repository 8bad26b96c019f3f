"""A thousand impatient clients ask for one session by one request id while the balancer is killed: it is one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from balancer.simulation.chance import seeded
from bench.chaos.figures import count_figure, times_figure
from bench.chaos.film import make_film
from bench.chaos.history import Act, Created, History
from bench.chaos.house import house_running
from bench.chaos.house_settings import Wishes
from bench.chaos.observer import Observer
from bench.chaos.work import KINDS, Asked, Work, wanted
from gpu_balancer import AsyncClient, RequestFailure, RetryPolicy

if TYPE_CHECKING:
    from bench.chaos.house import House
    from bench.measuring import Figure
    from gpu_balancer.v1 import session_pb2

_PATIENT = RetryPolicy(patience=timedelta(seconds=60))
_CONNECTIONS = 20
_KINDS = [kind for kind in KINDS if not kind.startswith("live")]
_EARLIEST_S, _LATEST_S = 0.0, 1.0
"""When the balancer is killed, after the first request: while most of them are under way."""


def measure(
    *, seed: int, probe_results: Path, rounds: int = 10, requests: int = 1000, histories: list[History]
) -> list[Figure]:
    """Asks and kills.

    Args:
        seed: Of the moments.
        probe_results: Of an earlier house.
        rounds: How often, each with a request id of its own.
        requests: At once.
        histories: Gets what is seen, one for each house, at once: it is worth looking at also where this breaks off.
    """
    history, chance = History(seed=seed), seeded(seed)
    histories.append(history)
    programs, answered, times_s = [], 0, []
    with (
        tempfile.TemporaryDirectory(prefix="gb-chaos-") as scratch,
        house_running(Wishes(), probe_results=probe_results, leftovers=history.leftovers) as house,
    ):
        film = make_film(house.films / "film.mp4", frames=1000, rate=10)
        work = Work(house, history, film)
        observer = Observer(history, house, look_every_s=0.1)
        with observer.observing(), house.client() as client:
            for number in range(rounds):
                kind = _KINDS[number % len(_KINDS)]
                session, path = wanted(house, film, kind, number)
                began_s = time.monotonic()
                names = asyncio.run(
                    _ask(house, history, session, f"same-{number}", requests, chance.uniform(_EARLIEST_S, _LATEST_S))
                )
                times_s.append(time.monotonic() - began_s)
                answered += len(names)
                work.asked += [Asked(name=name, kind=kind, path=path) for name in sorted(set(names))]
                work.await_running(client)
                programs.append(_programs(house, set(names)))
                work.stop_all(client)
            told = len(list(client.list_sessions()))
            work.close(client, Path(scratch))
    return [
        count_figure(
            f"{requests} requests with one id, a kill among them: answered",
            answered,
            f"= {requests * rounds}",
            detail=f"{rounds} rounds; seed {seed}",
        ),
        count_figure("… sessions there are afterwards", told, f"= {rounds}"),
        count_figure("… programs that ran, of all rounds the most", max(programs), "= 1", detail=f"{programs}"),
        times_figure("… until all were answered", times_s, "(none)"),
    ]


async def _ask(
    house: House, history: History, session: session_pb2.Session, request_id: str, requests: int, kill_after_s: float
) -> list[str]:
    """Asks at once, kills and starts the balancer meanwhile, and gives the names that were answered."""
    clients = [AsyncClient(house.address, retry_policy=_PATIENT) for _ in range(_CONNECTIONS)]
    asked_s = time.monotonic()

    async def one(number: int) -> str:
        try:
            return (await clients[number % _CONNECTIONS].create_session(session, request_id=request_id)).name
        except RequestFailure as failure:
            return f"!{failure}"

    async def kill() -> None:
        await asyncio.sleep(kill_after_s)
        now_s = time.monotonic()
        history.acts.append(Act(at_s=now_s, until_s=now_s, kind="kill balancer"))
        await asyncio.to_thread(house.kill_balancer)
        await asyncio.to_thread(house.start)

    try:
        *answers, _ = await asyncio.gather(*(one(number) for number in range(requests)), kill())
    finally:
        for client in clients:
            await client.close()
    names = [str(answer) for answer in answers if answer and not str(answer).startswith("!")]
    history.created += [Created(asked_s=asked_s, request_id=request_id, name=name) for name in names]
    for refusal in sorted({str(answer) for answer in answers if str(answer).startswith("!")}):
        print(f"  refused: {refusal}")
    return names


def _programs(house: House, names: set[str]) -> int:
    return sum(process.program for process in house.sighter.look().processes if process.session in names)
