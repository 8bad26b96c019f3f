"""Taking devices out of use, and replacing every daemon, with real programs on two devices."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asked import CANCELLED, RUNNING, await_state, encoded, live_input, transcode_of
from daemons import RunningDaemon, daemon_running, eventually
from decoded import decode
from numbered import HEIGHT, RATE, make_numbered, numbers_in

from gpu_balancer.v1 import device_pb2, media_pb2, session_pb2

if TYPE_CHECKING:
    from gpu_balancer.client import Client

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]

DRAINING, CORDONED = device_pb2.DEVICE_STATE_DRAINING, device_pb2.DEVICE_STATE_CORDONED
READY = device_pb2.DEVICE_STATE_READY
SECONDS = 20
FRAMES = SECONDS * RATE


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of numbered frames."""
    return make_numbered(tmp_path_factory.mktemp("numbered") / "numbered.mp4", SECONDS)


@pytest.fixture(scope="module")
def whole_pair(
    tmp_path_factory: pytest.TempPathFactory, media: Path, numbered: Path, probe_results: Path
) -> Iterator[RunningDaemon]:
    """A daemon with two devices of one core each."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    settings = (
        f'[inputs]\nroots = ["{media}", "{numbered.parent}"]\n'
        f'[[cpu_devices]]\nname = "cpu-0"\ncores = "{first}"\n[[cpu_devices]]\nname = "cpu-1"\ncores = "{second}"\n'
    )
    names = ("cpu-0", "cpu-1")
    folder = tmp_path_factory.mktemp("pair")
    with daemon_running(folder, settings, probe_results=probe_results, probed_devices=names) as daemon:
        daemon.await_devices_ready(2)
        yield daemon


@pytest.fixture
def pair(whole_pair: RunningDaemon) -> Iterator[RunningDaemon]:
    """The same, opened and empty again afterwards."""
    yield whole_pair
    whole_pair.json("devices", "uncordon", "--all")
    with whole_pair.client() as client:
        for session in client.list_sessions():
            client.stop_session(session.name)
            client.wait(session)
    whole_pair.json("reload")


def on_device(client: Client, device: str, asked: session_pb2.Session) -> session_pb2.Session:
    """Has a session run on one device."""
    others = [one.name for one in client.list_devices() if one.name != f"devices/{device}"]
    for name in others:
        client.update_device(name, cordoned=True)
    made = client.create_session(asked)
    for name in others:
        client.update_device(name, cordoned=False)
    assert made.device == f"devices/{device}"
    return await_state(client, made.name, RUNNING)


def is_whole(numbers: list[int]) -> bool:
    """Whether these are the frames of the numbered file, over and over, without one missing or doubled."""
    return len(numbers) > 0 and numbers == [place % FRAMES for place in range(len(numbers))]


def test_sessions_of_a_drained_device_go_on_on_another_one_and_a_kill_opens_nothing(
    pair: RunningDaemon, media: Path, numbered: Path, tmp_path: Path
) -> None:
    with pair.client() as client:
        on_air = on_device(client, "cpu-0", transcode_of(live_input(media / "clip.mp4"), encoded(height=36)))
        source = media_pb2.Input(uri=str(numbered), repeat_count=9999)
        film = on_device(client, "cpu-0", transcode_of(source, encoded(height=HEIGHT)))
        drained = pair.cli("devices", "drain", "cpu-0", "--move", apart=True)
        assert (drained.returncode, drained.stdout) == (0, "cpu-0: empty\n"), drained.stderr
        assert "Being emptied" in drained.stderr
        for session in (on_air, film):
            moved = await_state(client, session.name, RUNNING)
            assert (moved.device, moved.attempt) == ("devices/cpu-1", 2)
            assert moved.last_restart.failure.reason == "DEVICE_DRAINED"
    pair.kill()
    pair.start()
    pair.await_serving()
    with pair.client() as client:
        device = client.get_device("cpu-0")
        assert (device.drain.mode, device.drain.session_count) == (device_pb2.DRAIN_MODE_MOVE, 0)
        eventually(lambda: client.get_device("cpu-0").state == CORDONED, "it is still closed")
        for session in (film, on_air):
            client.stop_session(session.name)
            assert client.wait(session).state == CANCELLED
        client.download_artifacts(film.name, tmp_path)
        assert pair.json("devices", "uncordon", "cpu-0")["devices"][0]["state"] == "DEVICE_STATE_READY"
    assert is_whole(numbers_in(tmp_path / "out.mp4")), "it began anew, and nothing of the first attempt is in it"


def test_what_is_left_at_the_deadline_is_completed_and_says_why_it_ended(
    pair: RunningDaemon, media: Path, tmp_path: Path
) -> None:
    with pair.client() as client:
        on_air = on_device(client, "cpu-0", transcode_of(live_input(media / "clip.mp4"), encoded(height=36)))
        drained = pair.cli("devices", "drain", "cpu-0", "--deadline", "500ms")
        assert (drained.returncode, drained.stdout) == (1, "cpu-0: empty, 1 stopped at the deadline\n"), drained.stderr
        ended = client.wait(on_air)
        assert (ended.state, ended.failure.reason) == (CANCELLED, "DEVICE_DRAINED")
        client.download_artifacts(on_air.name, tmp_path)
    made = decode(tmp_path / "out.mp4")
    assert made.frames > 0
    assert not made.complaints


def test_a_drain_goes_on_over_a_kill_of_the_balancer(pair: RunningDaemon, media: Path) -> None:
    with pair.client() as client:
        on_air = on_device(client, "cpu-0", transcode_of(live_input(media / "clip.mp4"), encoded(height=36)))
        before = pair.json("devices", "drain", "cpu-0", "--deadline", "1:00:00", "--detach")["devices"][0]
        assert before["state"] == "DEVICE_STATE_DRAINING"
    pair.kill()
    pair.start()
    pair.await_serving()
    with pair.client() as client:
        eventually(lambda: client.get_device("cpu-0").state == DRAINING, "it is draining again")
        eventually(lambda: client.get_device("cpu-1").state == READY, "the other one is not")
        after = pair.json("devices", "show", "cpu-0")
        assert after["drain"] == before["drain"], "deadline and all"
        assert client.create_session(transcode_of(media / "clip.mp4", encoded(height=36))).device == "devices/cpu-1"
        client.stop_session(on_air.name)
        client.wait(on_air)
        eventually(lambda: client.get_device("cpu-0").state == CORDONED, "it was emptied")


def further(client: Client, name: str) -> int:
    """Waits until a session's agent tells of more frames than are known now, and gives how many."""
    before = client.get_session(name).progress.frames

    def told() -> int:
        now = client.get_session(name).progress.frames
        return now if now > before else 0

    frames: int = eventually(told, f"{name} goes on being told of")
    return frames


def replace_agents(daemon: RunningDaemon) -> None:
    """Has every agent end as docs/upgrades.md shows it, and waits for the next ones."""
    before = daemon.agent_pids()
    text = (Path(__file__).parents[2] / "docs" / "upgrades.md").read_text()
    loop = re.search(r"^for lock in .*?^done$", text, re.MULTILINE | re.DOTALL)
    assert loop
    # Without its pause, which is for people: both end at once here.
    program = loop[0].replace("/var/lib/gpu-balancer", str(daemon.state_dir)).replace("sleep 5", "true")
    subprocess.run(["sh", "-euc", program], check=True, timeout=60)
    eventually(
        lambda: len(daemon.agent_pids()) == len(before) and not daemon.agent_pids().items() & before.items(),
        "every agent is another one",
    )


def test_every_daemon_is_replaced_one_after_the_other_and_no_frame_is_lost(
    pair: RunningDaemon, numbered: Path, tmp_path: Path
) -> None:
    """The balancer, then its agents, as docs/upgrades.md says."""
    asked = transcode_of(live_input(numbered), encoded(height=HEIGHT))
    with pair.client() as client:
        sessions = {device: on_device(client, device, asked).name for device in ("cpu-0", "cpu-1")}
    agents = pair.agent_pids()
    assert pair.terminate() == 0
    pair.start()
    pair.await_serving()
    assert pair.agent_pids() == agents, "they outlive the balancer"
    with pair.client() as client:
        replace_agents(pair)
        for name in sessions.values():
            assert further(client, name), "the next agent has it"
        for device, name in sessions.items():
            frames = further(client, name)
            client.stop_session(name)
            ended = client.wait(name)
            assert (ended.state, ended.attempt) == (CANCELLED, 1), ended.failure
            client.download_artifacts(name, tmp_path / device)
            made = numbers_in(tmp_path / device / "out.mp4")
            assert is_whole(made)
            assert len(made) >= frames
