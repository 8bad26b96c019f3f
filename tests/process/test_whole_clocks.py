"""Real daemons whose wall clock is set under them: what runs runs on, and ends come when they are due."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from asked import RUNNING, SUCCEEDED, await_state, encoded, live_input, transcode_of
from decoded import decode

from fakes.settable_clock import SettableClock

if TYPE_CHECKING:
    from pathlib import Path

    from daemons import StartDaemon

pytestmark = pytest.mark.process
YEAR = timedelta(days=365)


def test_a_clock_that_is_set_forward_and_back_moves_no_end(
    start_daemon: StartDaemon, media: Path, probe_results: Path, tmp_path: Path
) -> None:
    """Also while balancer and agent are being replaced, so that all they know is what they wrote down."""
    clock = SettableClock(tmp_path)
    settings = f'[inputs]\nroots = ["{media}"]\n[sessions]\nkeep_ended_h = 1\n'
    daemon = start_daemon(settings, probe_results=probe_results, environment=clock.environment)
    daemon.await_devices_ready()
    bound = timedelta(seconds=12)
    asked = transcode_of(live_input(media / "clip.mp4"), encoded(height=90))
    asked.max_duration.FromTimedelta(bound)
    endless = transcode_of(live_input(media / "clip.mp4"), encoded(height=54))
    with daemon.client() as client:
        done = client.wait(client.create_session(transcode_of(media / "clip.mp4", encoded(height=54))))
        session, other = client.create_session(asked), client.create_session(endless)
        for one in (session, other):
            await_state(client, one.name, RUNNING)
        clock.set_by(-YEAR)
        later = client.wait(client.create_session(transcode_of(media / "clip.mp4", encoded(height=54))))
        assert later.state == SUCCEEDED
        listed = [one.name for one in client.list_sessions()]
        assert listed == [later.name, other.name, session.name, done.name]
    agents = daemon.agent_pids()
    away_s = time.monotonic()
    daemon.kill()
    for pid in agents.values():
        os.kill(pid, signal.SIGKILL)
    clock.set_by(YEAR)
    daemon.start()
    daemon.await_serving()
    daemon.await_devices_ready()
    away_s = time.monotonic() - away_s
    with daemon.client() as client:
        newest = client.wait(client.create_session(transcode_of(media / "clip.mp4", encoded(height=54))))
        assert newest.state == SUCCEEDED
        assert next(iter(client.list_sessions())).name == newest.name
        clock.set_by(-YEAR)
        ended = client.wait(session)
        assert (ended.state, ended.failure.reason) == (SUCCEEDED, ""), "by its bound, not by a stall or a deadline"
        running = client.get_session(other.name)
        # A busy machine may really be slower than real time.
        told = {condition.type for condition in running.conditions} - {"DEGRADED"}
        assert (running.state, told) == (RUNNING, set())
        client.download_artifacts(session.name, tmp_path / "bounded")
        rate = decode(media / "clip.mp4").frames / 2
        frames = decode(tmp_path / "bounded" / "out.mp4").frames
        # While nobody is there, nobody ends it.
        assert bound.total_seconds() - 3 <= frames / rate <= bound.total_seconds() + away_s + 8
        assert {one.name for one in client.list_sessions()} >= {done.name, later.name, newest.name}
