"""There are only so many watches at once, whoever opens them, and a place is free again when one has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from balancer.domain.ids import SessionId
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.servicers.watch_places import WatchLimits, WatchPlaces
from fakes.balancer_house import BalancerHouse, balancer_house, failure_of
from fakes.session_texts import session
from gpu_balancer.runtime.failures import Reason, RequestFailure, StatusCode
from gpu_balancer.v1 import device_service_pb2
from gpu_balancer.v1 import session_service_pb2 as pb

PLACES = 2
FILE = 'transcode { input { uri: "file:///a.mp4" } renditions { encode {} } }'


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[BalancerHouse]:
    """A balancer that bears two watches of each kind."""
    limits = WatchLimits(all_sessions=PLACES, one_session=PLACES, devices=PLACES)
    async with balancer_house(tmp_path, watch_limits=limits) as made:
        yield made


async def created(house: BalancerHouse) -> str:
    answer = await house.sessions.CreateSession(pb.CreateSessionRequest(session=session(FILE)))
    return answer.session.name


def opened(house: BalancerHouse, method: str, name: str) -> Any:
    match method:
        case "WatchSession":
            return house.sessions.WatchSession(pb.WatchSessionRequest(name=name))
        case "WatchSessions":
            return house.sessions.WatchSessions(pb.WatchSessionsRequest())
        case _:
            return house.devices.WatchDevices(device_service_pb2.WatchDevicesRequest())


async def all_of(call: Any) -> list[Any]:
    return [change async for change in call]


@pytest.mark.parametrize("method", ["WatchSession", "WatchSessions", "WatchDevices"])
async def test_a_watch_too_many_is_refused_and_the_others_go_on(small: BalancerHouse, method: str) -> None:
    name = await created(small)
    watches = [opened(small, method, name) for _ in range(PLACES)]
    for watch in watches:
        assert await anext(aiter(watch))
    failure = await failure_of(all_of(opened(small, method, name)))
    assert failure.reason is Reason.TOO_MANY_WATCHERS
    assert failure.reason.code is StatusCode.RESOURCE_EXHAUSTED
    assert failure.retry_after is not None
    assert f"{PLACES} {method} streams" in failure.message
    assert failure.metadata == {"limit": str(PLACES)}
    # The other kinds have places of their own, and whoever does not watch needs none.
    for other in {"WatchSession", "WatchSessions", "WatchDevices"} - {method}:
        assert await anext(aiter(opened(small, other, name)))
    assert await created(small) != name
    assert not any(watch.done() for watch in watches)


async def test_a_watch_that_has_ended_leaves_its_place(small: BalancerHouse) -> None:
    name = await created(small)
    done = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.COMPLETED)
    await small.engine.apply(SessionId(name.removeprefix("sessions/")), done)
    for _ in range(3 * PLACES):
        assert await all_of(opened(small, "WatchSession", name))


@pytest.mark.parametrize("method", ["WatchSession", "WatchSessions", "WatchDevices"])
async def test_a_watcher_that_hangs_up_leaves_its_place(small: BalancerHouse, method: str) -> None:
    name = await created(small)
    for _ in range(3 * PLACES):
        async with asyncio.timeout(30):
            watch = await taken(small, method, name)
        watch.cancel()


async def taken(house: BalancerHouse, method: str, name: str) -> Any:
    """Opens a watch; the daemon hears of one that was cut a little later."""
    while True:
        watch = opened(house, method, name)
        first = asyncio.ensure_future(anext(aiter(watch)))
        await asyncio.wait((first,))
        if first.exception() is None:
            return watch


async def test_a_watch_that_fails_leaves_its_place(small: BalancerHouse) -> None:
    for _ in range(3 * PLACES):
        failure = await failure_of(all_of(opened(small, "WatchSession", "sessions/absent")))
        assert failure.reason is Reason.SESSION_NOT_FOUND


def test_places_are_counted() -> None:
    places = WatchPlaces("WatchSessions", 1)
    with places.place():
        assert places.taken == 1
        with pytest.raises(RequestFailure), places.place():
            pass
        assert places.taken == 1
    assert places.taken == 0
