"""Recordings of real pages by a real daemon: what they show, what ends them, and who may be killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from daemons import RunningDaemon, daemon_running, eventually, needs_displays

from bench.analysis.decoding import QUIET, shrunk_frames
from bench.analysis.media_file import is_faststart, measure_playable
from bench.analysis.strip import count_frames, read_strip
from bench.pages.server import PageServer
from fakes.precedence import is_allowed, policies_of
from gpu_balancer.client import Client
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, recording_pb2, session_pb2

pytestmark = [
    pytest.mark.process,
    pytest.mark.timeout(180),
    needs_displays,
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A destination."""
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input root."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory, archive: Path, pictures: Path, probe_results: Path
) -> Iterator[RunningDaemon]:
    """A daemon that may open pages of this machine, with an application and a destination."""
    settings = (
        f'[inputs]\nallow_private_networks = true\nroots = ["{pictures}"]\n[calibration]\nwindow_s = 0.27\n'
        '[[applications]]\nname = "quits"\ncommand = ["/bin/true"]\n'
        f'[[destinations]]\nname = "archive"\nkind = "folder"\npath = "{archive}"\n'
    )
    with daemon_running(tmp_path_factory.mktemp("recordings"), settings, probe_results=probe_results) as running:
        running.await_devices_ready()
        yield running


def asked(url: str, **fields: object) -> session_pb2.Session:
    """A small recording of a page, so that a busy machine keeps up."""
    spec = recording_pb2.RecordingSpec(page=recording_pb2.PageSource(url=url), **fields)  # type: ignore[arg-type]
    spec.capture.width, spec.capture.height = 640, 360
    return session_pb2.Session(recording=spec)


def recorded(client: Client, name: str, seconds: float) -> session_pb2.Session:
    """Awaits so much of a recording."""

    def enough() -> session_pb2.Session | None:
        session = client.get_session(name)
        assert not session.HasField("end_time"), session
        return session if session.progress.out_time.ToTimedelta() >= timedelta(seconds=seconds) else None

    return eventually(enough, f"{seconds:g} s are recorded")


def ended(client: Client, name: str) -> session_pb2.Session:
    """Awaits the end of a recording."""

    def final() -> session_pb2.Session | None:
        session = client.get_session(name)
        return session if session.HasField("end_time") else None

    return eventually(final, "it has ended")


def has_condition(client: Client, name: str, condition: str) -> Callable[[], bool]:
    return lambda: any(one.type == condition for one in client.get_session(name).conditions)


def test_a_recording_keeps_a_calibration_away_and_leaves_nothing_of_its_display(
    daemon: RunningDaemon, pages: PageServer
) -> None:
    with daemon.client() as client:
        name = client.create_session(asked(pages.url("counter"))).name
        recorded(client, name, 1)
        with pytest.raises(RequestFailure, match="it has 1 session") as busy:
            next(client.calibrate_device("cpu-0", sound=True))
        assert busy.value.reason is Reason.DEVICE_BUSY
        lock = daemon.attempt_folder(name) / "lock"
        assert holders(lock, "Xvfb")
        displays = [one for one in lock.parents[3].glob("displays/*") if (one / "lock").samefile(lock)]
        client.stop_session(name)
        told = ended(client, name).recording_report.sound_timing
    assert (told.delay.ToTimedelta(), told.delay_source) == (timedelta(milliseconds=20), "default")
    assert not told.HasField("film_offset")
    assert holders(lock, "") == []
    assert [display for display in displays if display.exists()] == []


def test_nothing_is_left_of_a_calibration_of_sound_whose_agent_is_killed(daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        news = client.calibrate_device("cpu-0", sound=True)
        while next(news).progress.message != "sound of a film":
            pass
        eventually(lambda: recorders(daemon), "it records", timeout_s=90)
        for pid in daemon.agent_pids().values():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(RequestFailure, match="Cannot calibrate the sound of device cpu-0"):
            list(news)
        daemon.await_agent_back()
        folder = daemon.state_dir / "agents" / "cpu-0" / "sound-work"
        eventually(lambda: not recorders(daemon) and not folder.exists(), "nothing is left of it", timeout_s=90)
        assert client.get_device("cpu-0").recording.sound_timing.delay_source == "default"


def recorders(daemon: RunningDaemon) -> list[int]:
    """The ffmpegs that look at a display."""
    lines = daemon.processes().items()
    return [pid for pid, line in lines if "x11grab" in line and "ffmpeg" in line.partition(" ")[0]]


@pytest.fixture(scope="module")
def calibrated(daemon: RunningDaemon) -> recording_pb2.SoundTiming:
    """What a calibration of sound has found."""
    with daemon.client() as client:
        *steps, last = client.calibrate_device("cpu-0", sound=True)
    assert [step.progress.step for step in steps] == [0, 1, 2, 3, 4]
    return last.device.recording.sound_timing


def test_sound_is_calibrated(calibrated: recording_pb2.SoundTiming) -> None:
    assert calibrated.delay_source == "calibration"
    assert calibrated.HasField("measurement_time")
    offsets = [
        one.ToTimedelta()
        for one in (calibrated.film_offset, calibrated.drawing_offset, calibrated.heard_drawing_offset)
    ]
    # The middle between the extremes; how far they are apart, a busy machine may have made worse.
    if calibrated.delay.ToTimedelta():  # Sound that is late already is not delayed.
        assert abs(max(offsets) + min(offsets)) <= timedelta(microseconds=2)
    assert max(offsets) - min(offsets) < timedelta(milliseconds=500)


def test_a_page_is_recorded_rests_and_outlives_balancer_and_agent(
    daemon: RunningDaemon, calibrated: recording_pb2.SoundTiming, pages: PageServer, tmp_path: Path
) -> None:
    """As does what a calibration has found: recordings before and after tell how far sound is from its picture."""
    with daemon.client() as client:
        name = client.create_session(asked(pages.url("counter"))).name
        recorded(client, name, 2)
        (recorder,) = recorders(daemon)
        looking = {policy for thread, policy in policies_of(recorder).items() if thread.startswith("dmx")}
        assert looking == {os.SCHED_RR if is_allowed() else os.SCHED_OTHER}
        picture = client.snapshot(name)
        assert picture.image.startswith(b"\x89PNG")
        client.pause(name)
        eventually(has_condition(client, name, "PAUSED"), "it rests")
        before = client.get_session(name).progress.frames
        client.resume(name)
        eventually(lambda: client.get_session(name).progress.frames > before + 15, "it goes on")
    assert (left := temporary(daemon)), "what drives browsers has folders of its own"
    for pid in daemon.agent_pids().values():
        os.kill(pid, signal.SIGKILL)
    daemon.kill()
    daemon.start()
    daemon.await_devices_ready()
    with daemon.client() as client:
        again = client.get_session(name).progress.frames
        eventually(lambda: client.get_session(name).progress.frames > again + 15, "it is heard of again")
        assert not left & temporary(daemon)
        client.stop_session(name)
        session = ended(client, name)
        client.download_artifacts(name, tmp_path)
        later = client.create_session(asked(pages.url("signals", end_ms=1500))).name
        assert ended(client, later).recording_report.sound_timing == calibrated
    report = session.recording_report
    assert (session.state, report.end_cause, report.take_count) == (session_pb2.SESSION_STATE_SUCCEEDED, "STOPPED", 2)
    film = tmp_path / "recording.mp4"
    assert is_faststart(film)
    count = count_frames(read_strip(film), frame_rate=30)
    assert (count.leading_unreadable, count.unreadable, count.backwards) == (0, 0, 0)
    assert count.frames == report.encoded_frames
    assert report.captured_frames == report.encoded_frames - report.duplicated_frames + report.dropped_frames
    (file,) = report.files
    assert (file.path, file.width, file.height, list(file.codecs)) == ("recording.mp4", 640, 360, ["h264", "aac"])
    assert report.browser.startswith("Chromium")
    assert report.sound_timing == calibrated


def temporary(daemon: RunningDaemon) -> set[Path]:
    """Lists what the agents need for as long as they run."""
    return set(daemon.state_dir.glob("agents/*/tmp/*"))


def test_a_browser_that_is_killed_costs_what_comes_after(
    daemon: RunningDaemon, pages: PageServer, tmp_path: Path
) -> None:
    with daemon.client() as client:
        name = client.create_session(asked(pages.url("counter"))).name
        before = recorded(client, name, 3)
        for pid in holders(daemon.attempt_folder(name) / "lock", "chrom"):
            os.kill(pid, signal.SIGKILL)
        session = ended(client, name)
        client.download_artifacts(name, tmp_path)
    assert (session.state, session.failure.reason) == (session_pb2.SESSION_STATE_FAILED, "BROWSER_LOST")
    assert (
        measure_playable(tmp_path / "recording.mp4").seconds >= before.progress.out_time.ToTimedelta().total_seconds()
    )


def holders(lock: Path, program: str) -> list[int]:
    """Gives the processes of a program that have a lock file open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            opened = {link.stat().st_ino for link in (entry / "fd").iterdir() if link.exists()}
            if lock.stat().st_ino in opened and program in (entry / "comm").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_page_that_is_not_what_was_asked_for_fails_with_evidence(daemon: RunningDaemon, pages: PageServer) -> None:
    gate = recording_pb2.StartGate(kind=recording_pb2.START_GATE_KIND_SELECTOR, selector="#nowhere")
    gate.timeout.FromSeconds(2)
    with daemon.client() as client:
        name = client.create_session(asked(pages.url("still"), start_gate=gate)).name
        session = ended(client, name)
        left = {artifact.path for artifact in client.list_artifacts(name)}
    assert session.failure.reason == "GATE_TIMEOUT", session
    assert {"failure.png", "console.log"} <= left


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A recording that has ended by itself, and what it left."""

    session: session_pb2.Session
    folder: Path
    """Its artifacts, fetched."""
    http: str
    """Where its artifacts are served."""
    copies: Path
    """Where they were copied to."""


@pytest.fixture(scope="module")
def rich(
    daemon: RunningDaemon,
    pages: PageServer,
    archive: Path,
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Ended:
    """A recording with all that may be asked of one: size, outputs, watermark, thumbnails, copies, an end by a word."""
    mark, folder = pictures / "mark.png", tmp_path_factory.mktemp("rich")
    subprocess.run([*QUIET, "-f", "lavfi", "-i", "color=white:s=64x64", "-frames:v", "1", mark], check=True)
    outputs = [
        media_pb2.Output(file=media_pb2.FileOutput(path="recording.mp4")),
        media_pb2.Output(file=media_pb2.FileOutput(path="show.mkv")),
        media_pb2.Output(hls=media_pb2.HlsOutput(path="hls")),
    ]
    watermark = recording_pb2.Watermark(path=str(mark), opacity=1, corner=recording_pb2.CORNER_TOP_LEFT)
    watermark.margin = 0
    session = asked(pages.url("signals", end_ms=3000), outputs=outputs, watermark=watermark, destinations=["archive"])
    session.recording.capture.width, session.recording.capture.height = 360, 640
    session.recording.thumbnail_interval.FromSeconds(1)
    with daemon.client() as client:
        name = client.create_session(session).name
        done = ended(client, name)
        assert done.state == session_pb2.SESSION_STATE_SUCCEEDED, done
        client.download_artifacts(name, folder)
        delivered = session_pb2.DELIVERY_STATE_DELIVERED
        eventually(
            lambda: all(
                [copy.state for copy in artifact.deliveries] == [delivered] for artifact in client.list_artifacts(name)
            ),
            "every artifact is delivered",
        )
        paths = {artifact.path: artifact.http_path for artifact in client.list_artifacts(name)}
        http = f"{client.get_balancer().http_address}{paths['recording.mp4']}"
    return Ended(session=done, folder=folder, http=http, copies=archive / name.rpartition("/")[2])


def test_a_page_ends_its_recording_by_a_word(rich: Ended) -> None:
    assert rich.session.recording_report.end_cause == "END_SIGNAL"


def test_hls_thumbnails_and_a_copy_elsewhere(rich: Ended) -> None:
    paths = {str(path.relative_to(rich.folder)) for path in rich.folder.rglob("*")}
    # Where the machine is slow, the first of them is left out.
    assert {"show.mkv", "hls/master.m3u8"} <= paths
    assert any(path.startswith("thumbnails/") for path in paths)
    sizes = {file.path: file.size_bytes for file in rich.session.recording_report.files}
    assert (rich.copies / "show.mkv").stat().st_size == sizes["show.mkv"]
    playlist = next((rich.copies / "hls").glob("*/index.m3u8")).read_text()
    assert playlist.rstrip().endswith("#EXT-X-ENDLIST")


def test_a_watermark_is_laid_over_the_pictures(rich: Ended) -> None:
    marked, beside = (
        int(shrunk_frames(rich.folder / "recording.mp4", width=1, height=1, crop=f"32:32:{x}:16").levels.mean())
        for x in (16, 200)
    )
    assert beside < 60 < 200 < marked


def test_a_page_may_be_narrower_than_a_browsers_window(rich: Ended) -> None:
    files = rich.session.recording_report.files
    assert {(file.width, file.height) for file in files} == {(360, 640)}


def test_a_finished_recording_is_served_in_ranges(rich: Ended) -> None:
    answer = httpx.get(rich.http, headers={"Range": "bytes=4-7"})
    assert (answer.status_code, answer.content) == (206, b"ftyp")


def test_sound_alone_is_recorded(daemon: RunningDaemon, pages: PageServer) -> None:
    session = asked(pages.url("still"), renditions=[media_pb2.Rendition(id="sound")])
    session.max_duration.FromSeconds(1)
    with daemon.client() as client:
        done = ended(client, client.create_session(session).name)
    assert done.state == session_pb2.SESSION_STATE_SUCCEEDED, done
    (file,) = done.recording_report.files
    assert list(file.codecs) == ["aac"]


def test_a_display_that_hangs_or_is_killed_is_told_so(daemon: RunningDaemon, pages: PageServer) -> None:
    with daemon.client() as client:
        name = client.create_session(asked(pages.url("still"))).name
        recorded(client, name, 1)
        (server,) = holders(daemon.attempt_folder(name) / "lock", "Xvfb")
        os.kill(server, signal.SIGSTOP)
        with pytest.raises(RequestFailure, match="its display did not answer within 4 s"):
            client.snapshot(name)
        os.kill(server, signal.SIGKILL)
        assert ended(client, name).failure.reason == "DISPLAY_LOST"


def test_an_application_that_shows_nothing_fails_and_a_stranger_is_refused(daemon: RunningDaemon) -> None:
    quits = session_pb2.Session()
    quits.recording.application.name = "quits"
    stranger = session_pb2.Session()
    stranger.recording.application.name = "xterm"
    with daemon.client() as client:
        session = ended(client, client.create_session(quits).name)
        assert session.failure.reason == "APPLICATION_FAILED"
        with pytest.raises(RequestFailure) as refused:
            client.create_session(stranger)
    assert refused.value.reason is Reason.NO_CAPABLE_DEVICE
