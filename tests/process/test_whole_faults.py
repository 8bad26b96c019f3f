"""Machines that are not as they should be: full disks, an ffmpeg that lacks a codec, inputs that nobody serves."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asked import (
    CANCELLED,
    FAILED,
    FFMPEG,
    RUNNING,
    SUCCEEDED,
    await_state,
    encoded,
    live_input,
    to_file,
    transcode_of,
)
from daemons import daemon_running, eventually
from decoded import decode

from fakes.small_file_system import fill, small_file_system
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1.placement_pb2 import Placement
from gpu_balancer.v1.session_pb2 import PRIORITY_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemons import RunningDaemon, StartDaemon

    from gpu_balancer.client import Client

pytestmark = pytest.mark.process


@pytest.fixture
def small_disk(exports: Path) -> Iterator[Path]:
    """A file system of 24 MiB, to which outputs may be written."""
    with small_file_system(exports / "disk", size="24m") as place:
        yield place


def test_an_output_that_fills_its_disk_fails_and_the_next_one_is_refused_before_it_starts(
    open_daemon: RunningDaemon, media: Path, small_disk: Path
) -> None:
    daemon, folders = open_daemon, open_daemon.session_folders()
    filler = fill(small_disk, leave_bytes=2 * 1024 * 1024)
    asked = transcode_of(
        live_input(media / "clip.mp4"), encoded(height=360, quality=0), outputs=[to_file(small_disk / "out.ts")]
    )
    asked.transcode.input.native_rate = False
    with daemon.client() as client:
        ended = client.wait(client.create_session(asked))
        assert (ended.state, ended.failure.reason) == (FAILED, "DISK_FULL")
        assert "Try" in ended.failure.message
        assert not (small_disk / "out.ts").exists(), "a name stands for a whole file"
        with pytest.raises(RequestFailure) as caught:
            client.create_session(asked)
        assert caught.value.reason is Reason.DISK_FULL
        assert [one.field for one in caught.value.violations] == ["session.transcode.outputs[0].file.path"]
        assert daemon.session_folders() - folders == {ended.name.removeprefix("sessions/")}
        filler.unlink()
        again = transcode_of(media / "clip.mp4", encoded(height=90), outputs=[to_file(small_disk / "whole.ts")])
        assert client.wait(client.create_session(again)).state == SUCCEEDED
    assert decode(small_disk / "whole.ts").frames == 60


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory, media: Path, probe_results: Path) -> Iterator[RunningDaemon]:
    """A daemon whose state is on a file system of 24 MiB."""
    with (
        small_file_system(tmp_path_factory.mktemp("cramped") / "disk", size="24m") as disk,
        daemon_running(disk, f'[inputs]\nroots = ["{media}"]\n', probe_results=probe_results) as daemon,
    ):
        daemon.await_devices_ready()
        yield daemon


def test_a_full_state_disk_starts_nothing_and_is_forgotten_once_there_is_room(
    cramped: RunningDaemon, media: Path
) -> None:
    daemon, disk = cramped, cramped.state_dir.parent
    asked = transcode_of(media / "clip.mp4", encoded(height=54))
    with daemon.client() as client:
        whole = client.wait(client.create_session(asked))
        filler = fill(disk, leave_bytes=0)
        with pytest.raises(RequestFailure) as caught:
            client.create_session(asked)
        assert caught.value.reason in (Reason.DISK_FULL, Reason.STORE_UNAVAILABLE)
        assert "full" in caught.value.message
        assert "Traceback" not in daemon.log
        assert daemon.session_folders() == {whole.name.removeprefix("sessions/")}
        assert [one.name for one in client.list_sessions()] == [whole.name]
        with pytest.raises(RequestFailure) as caught:
            client.upload_file(media / "clip.mp4")
        assert caught.value.reason is Reason.DISK_FULL
        filler.unlink()

        def works() -> bool:
            return client.wait(client.create_session(asked)).state == SUCCEEDED

        assert eventually(works, "sessions work again")
        assert daemon.process.poll() is None


def test_a_session_that_fills_the_state_disk_is_told_as_failed_and_its_removal_makes_room(
    cramped: RunningDaemon, media: Path
) -> None:
    """Its own status, and the store's record of its end, have no room either until something is given up."""
    daemon = cramped
    fast = live_input(media / "clip.mp4")
    fast.native_rate = False
    with daemon.client() as client:
        session = client.create_session(transcode_of(fast, encoded(height=360, quality=0), outputs=[to_file("out.ts")]))
        eventually(lambda: not daemon.ffmpeg_processes(), "ffmpeg has ended for want of room")
        ended = client.wait(session)
        assert ended.state == FAILED
        assert ended.failure.reason in {"DISK_FULL", "DISK_LOW"}, "whoever looked first: ffmpeg, or the agent"
        client.delete_session(session.name)
        small = transcode_of(media / "clip.mp4", encoded(height=54))

        def works() -> bool:
            try:
                return client.wait(client.create_session(small)).state == SUCCEEDED
            except RequestFailure:
                return False

        eventually(works, "there is room again")
        assert daemon.process.poll() is None


@pytest.fixture
def ffmpeg_without_av1(tmp_path: Path) -> Path:
    """A build of ffmpeg that knows no AV1 encoder."""
    script = tmp_path / "ffmpeg"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *libsvtav1*) echo "Unknown encoder \'libsvtav1\'" >&2; exit 8;; esac\n'
        f'exec {FFMPEG} "$@"\n'
    )
    script.chmod(0o755)
    return script


def test_what_no_device_was_seen_to_do_is_refused_and_the_reason_is_shown(
    start_daemon: StartDaemon, media: Path, ffmpeg_without_av1: Path
) -> None:
    daemon = start_daemon(f'[inputs]\nroots = ["{media}"]\n[ffmpeg]\ncandidates = ["{ffmpeg_without_av1}"]\n')
    daemon.await_devices_ready()
    with daemon.client() as client:
        with pytest.raises(RequestFailure) as caught:
            client.create_session(transcode_of(media / "clip.mp4", encoded("out", "av1", height=90)))
        assert caught.value.reason is Reason.NO_CAPABLE_DEVICE
        assert caught.value.retry_after is None, "waiting does not help"
        (placement,) = [detail for detail in caught.value.details if isinstance(detail, Placement)]
        assert placement.verdicts[0].refusal.rule == "CAPABILITY"
        assert "av1" in placement.verdicts[0].refusal.message.lower()
        assert not daemon.session_folders()
        ended = client.wait(client.create_session(transcode_of(media / "clip.mp4", encoded(height=90))))
        assert ended.state == SUCCEEDED
    planned = daemon.cli("plan", media / "clip.mp4", "-r", "90p:av1", apart=True)
    assert planned.returncode == 5
    shown = daemon.cli("devices", "show", "cpu-0")
    assert "Unknown encoder" in shown.stdout


@pytest.mark.parametrize("scheme", ["http", "rtmp", "rtsp"])
def test_a_server_that_is_not_there_is_told_as_unreachable(open_client: Client, scheme: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(RequestFailure) as caught:
        open_client.create_session(transcode_of(f"{scheme}://user:s3cr3t@127.0.0.1:{port}/live/film"))
    failure = caught.value
    assert failure.reason is Reason.INPUT_UNREACHABLE, failure.message
    assert [one.field for one in failure.violations] == ["session.transcode.input.uri"]
    assert "s3cr3t" not in failure.message


def test_a_server_that_says_nothing_is_given_up_in_time(open_client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(RequestFailure) as caught:
            open_client.create_session(transcode_of(f"http://127.0.0.1:{port}/film.mp4"))
    assert caught.value.reason is Reason.INPUT_UNREACHABLE


def test_a_film_that_turns_out_damaged_fails_or_ends_with_what_could_be_decoded(
    open_client: Client, media: Path, tmp_path: Path
) -> None:
    """Its head is whole, so that it passes every look; then noise follows."""
    content = bytearray((media / "clip.mp4").read_bytes())
    half = len(content) // 4
    content[half : half + 20_000] = bytes(number * 37 % 256 for number in range(20_000))
    damaged = media / "damaged.mp4"
    damaged.write_bytes(content)
    ended = open_client.wait(open_client.submit(transcode_of(damaged, encoded(height=90))))
    open_client.download_artifacts(ended.name, tmp_path)
    if ended.state == SUCCEEDED:
        assert decode(tmp_path / "out.mp4").frames > 0
        assert list(open_client.read_session_log(ended.name)), "what was wrong stands in the log"
    else:
        assert ended.failure.log_tail


LITTLE = "[disk]\nlow_mib = 8\nleast_mib = 4\n"
"""Bounds that a disk of 200 MiB is not too small for."""


@pytest.fixture
def state_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 MiB, of which what is not used can be filled at once."""
    with small_file_system(tmp_path / "state", size="200m") as place:
        yield place


def test_hardly_any_room_stops_the_least_important_session_with_its_files_whole(
    media: Path, probe_results: Path, state_disk: Path, tmp_path: Path
) -> None:
    """A live session goes on; the file goes, and nothing new comes until there is room again."""
    settings = f'[inputs]\nroots = ["{media}"]\n{LITTLE}'
    with daemon_running(state_disk, settings, probe_results=probe_results) as daemon:
        daemon.await_devices_ready()
        with daemon.client() as client:
            live = client.create_session(transcode_of(live_input(media / "clip.mp4"), encoded(height=90)))
            slow = transcode_of(live_input(media / "clip.mp4"), encoded(height=54))
            slow.priority = PRIORITY_BATCH
            batch = client.create_session(slow)
            for session in (live, batch):
                await_state(client, session.name, RUNNING)
            filler = fill(state_disk, leave_bytes=3 * 1024 * 1024)
            ended = client.wait(batch)
            assert (ended.state, ended.failure.reason) == (FAILED, "DISK_LOW")
            client.download_artifacts(batch.name, tmp_path / "batch")
            assert decode(tmp_path / "batch" / "out.mp4").frames >= ended.progress.frames > 0
            assert client.get_session(live.name).state == RUNNING
            filler.unlink()
            filler = fill(state_disk, leave_bytes=6 * 1024 * 1024)
            refused = client.wait(client.create_session(transcode_of(media / "clip.mp4", encoded(height=54))))
            assert (refused.state, refused.failure.reason) == (FAILED, "DISK_LOW")
            assert client.get_session(live.name).state == RUNNING
            filler.unlink()
            client.stop_session(live.name)
            assert client.wait(live).state == CANCELLED
