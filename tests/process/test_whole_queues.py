"""Waiting, giving way and being held back, with real programs: a device that has room for one live session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asked import CANCELLED, RUNNING, SUCCEEDED, await_state, encoded, live_input, to_file, transcode_of, with_sound
from daemons import RunningDaemon, daemon_running, eventually
from decoded import decode

from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2
from gpu_balancer.v1.placement_pb2 import Placement

if TYPE_CHECKING:
    from gpu_balancer.client import Client

pytestmark = pytest.mark.process

QUEUED = session_pb2.SESSION_STATE_QUEUED
BATCH = session_pb2.PRIORITY_BATCH
LIVE_SHARE = 200_000
"""Pixels per second that the device is said to encode: one small live session takes more than half of it."""


@pytest.fixture(scope="module")
def narrow(
    tmp_path_factory: pytest.TempPathFactory, media: Path, exports: Path, probe_results: Path
) -> Iterator[RunningDaemon]:
    """A daemon whose device is soon full."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    settings = (
        f'[inputs]\nroots = ["{media}"]\n[outputs]\nroots = ["{exports}"]\n'
        f'[[cpu_devices]]\nname = "cpu-0"\ncores = "{cores}"\nencode_pixels_per_second = {LIVE_SHARE}\n'
    )
    with daemon_running(tmp_path_factory.mktemp("narrow"), settings, probe_results=probe_results) as daemon:
        daemon.await_devices_ready()
        yield daemon


@pytest.fixture
def client(narrow: RunningDaemon) -> Iterator[Client]:
    with narrow.client() as client:
        yield client
        for session in client.list_sessions():
            if session.state in (QUEUED, RUNNING, session_pb2.SESSION_STATE_STARTING):
                client.stop_session(session.name)
                client.wait(session)


def live(media: Path, **session: object) -> session_pb2.Session:
    return transcode_of(live_input(media / "clip.mp4"), encoded(height=90), **session)


def film(media: Path, repeat_count: int, *outputs: media_pb2.Output, **session: object) -> session_pb2.Session:
    """A file as fast as it goes, some minutes of it, without its sound."""
    source = media_pb2.Input(uri=str(media / "long.mp4"), repeat_count=repeat_count)
    pictures = with_sound(encoded(height=90), "none")
    return transcode_of(source, pictures, outputs=outputs, priority=BATCH, **session)


def waiting(seconds: float, asked: session_pb2.Session) -> session_pb2.Session:
    asked.max_wait.FromTimedelta(timedelta(seconds=seconds))
    return asked


def test_who_waits_keeps_its_place_over_a_kill_of_the_balancer_and_runs_when_there_is_room(
    narrow: RunningDaemon, media: Path
) -> None:
    with narrow.client() as client:
        first = client.create_session(live(media))
        await_state(client, first.name, RUNNING)
        waiters = [client.create_session(waiting(120, live(media))) for _ in range(2)]
        assert [session.state for session in waiters] == [QUEUED, QUEUED]
        eventually(lambda: client.get_session(waiters[1].name).queue.position == 2, "the second one has its place")
        assert client.get_session(waiters[0].name).queue.HasField("deadline")
    narrow.kill()
    narrow.start()
    narrow.await_devices_ready()
    with narrow.client() as client:
        assert [client.get_session(session.name).state for session in waiters] == [QUEUED, QUEUED]
        client.stop_session(first.name)
        await_state(client, waiters[0].name, RUNNING)
        assert client.get_session(waiters[1].name).state == QUEUED
        client.stop_session(waiters[1].name)
        assert client.wait(waiters[1]).state == CANCELLED
        explained = client.explain(waiters[0].name)
        assert [placement.device for placement in explained] == ["", "devices/cpu-0"]
        client.stop_session(waiters[0].name)
        client.wait(waiters[0])


def test_a_full_device_refuses_with_every_reason_and_a_time_to_try_again(
    narrow: RunningDaemon, client: Client, media: Path
) -> None:
    asked, folders = live(media), narrow.session_folders()
    running = [client.create_session(asked)]
    with pytest.raises(RequestFailure) as caught:
        running.extend(client.create_session(asked) for _ in range(20))
    failure = caught.value
    assert (failure.reason, failure.retry_after is not None) == (Reason.NO_CAPACITY, True)
    (placement,) = [detail for detail in failure.details if isinstance(detail, Placement)]
    (verdict,) = placement.verdicts
    assert verdict.device == "devices/cpu-0"
    assert verdict.refusal.needed > verdict.refusal.available
    told = narrow.cli(
        *("transcode", media / "clip.mp4", "--native-rate", "--loop", "-r", "90p", "--speed", "fastest", "--detach")
    )
    assert told.returncode == 5
    assert "cpu-0" in told.stderr
    assert len(narrow.session_folders() - folders) == len(running)
    client.stop_session(running[0].name)
    client.wait(running[0])
    # There is room again; whoever is closed to new sessions has none all the same, and says why.
    client.update_device("cpu-0", cordoned=True)
    try:
        with pytest.raises(RequestFailure) as caught:
            client.create_session(asked)
    finally:
        client.update_device("cpu-0", cordoned=False)
    assert "cordoned" in caught.value.message
    assert client.create_session(asked).state == session_pb2.SESSION_STATE_STARTING


def test_a_preemptible_film_is_stopped_for_live_work_and_then_made_whole(
    client: Client, media: Path, exports: Path
) -> None:
    target = exports / "preempted.mp4"
    film_session = client.create_session(film(media, 2, to_file(target), preemptible=True, reserved_speed=1.0))
    await_state(client, film_session.name, RUNNING)
    on_air = client.create_session(live(media))
    await_state(client, on_air.name, RUNNING)
    waits = client.get_session(film_session.name)
    assert (waits.state, waits.preemption_count, waits.conditions[0].type) == (QUEUED, 1, "PREEMPTED")
    assert not target.exists()
    assert film_session.name in [
        name for placement in client.explain(on_air.name) for name in placement.preempted_sessions
    ]
    client.stop_session(on_air.name)
    ended = client.wait(film_session)
    assert (ended.state, ended.attempt) == (SUCCEEDED, 2), ended.failure
    assert decode(target).frames == 60 * 30 * 3


def test_a_film_is_held_back_beside_live_work_and_let_go_after_it(client: Client, media: Path) -> None:
    made = client.create_session(film(media, 1000))
    await_state(client, made.name, RUNNING)
    eventually(lambda: client.get_session(made.name).progress.speed > 4, "it runs as fast as it goes")
    on_air = client.create_session(live(media))
    await_state(client, on_air.name, RUNNING)
    limit = client.get_session(made.name).speed_limit
    assert 0.1 <= limit < 1
    eventually(lambda: client.get_session(made.name).progress.speed <= 2 * limit, "it is held at its speed")
    before = client.get_session(made.name).progress.out_time.ToTimedelta()
    due = timedelta(seconds=3 * limit)
    eventually(
        lambda: client.get_session(made.name).progress.out_time.ToTimedelta() >= before + due, "it goes on at its speed"
    )
    eventually(lambda: limit / 2 <= client.get_session(made.name).progress.speed <= 2 * limit, "and tells it")
    client.stop_session(on_air.name)
    client.wait(on_air)
    eventually(lambda: not client.get_session(made.name).HasField("speed_limit"), "it is let go")
    eventually(lambda: client.get_session(made.name).progress.speed > 4, "it runs as fast as it goes again")
