"""`record`: what is typed, what is asked of the daemon, what is written where, and what is told of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpu_balancer import Reason, RequestFailure
from gpu_balancer.v1 import balancer_service_pb2, media_pb2, placement_pb2, recording_pb2, session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command

    from fakes.balancer_server import FakeBalancer

URL = "https://example.org/"
RUNNING, SUCCEEDED = session_pb2.SESSION_STATE_RUNNING, session_pb2.SESSION_STATE_SUCCEEDED
FAILED, CANCELLED = session_pb2.SESSION_STATE_FAILED, session_pb2.SESSION_STATE_CANCELLED


def milliseconds(number: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(number)
    return duration


def report() -> recording_pb2.RecordingReport:
    return recording_pb2.RecordingReport(
        captured_frames=900,
        encoded_frames=902,
        duplicated_frames=2,
        longest_freeze=milliseconds(67),
        start_time=milliseconds(410),
        end_cause="MAX_DURATION",
        sound_timing=recording_pb2.SoundTiming(
            delay=milliseconds(16),
            delay_source="calibration",
            film_offset=milliseconds(28),
            drawing_offset=milliseconds(-6),
            heard_drawing_offset=milliseconds(-28),
        ),
    )


def finish(fake: FakeBalancer, session: session_pb2.Session, state: session_pb2.SessionState.ValueType) -> None:
    """Ends a recording with a file for each of its outputs."""
    told = report()
    for output in session.recording.outputs:
        if output.WhichOneof("kind") == "push":
            continue
        path = output.file.path or f"{output.hls.path}/master.m3u8"
        fake.add_artifact(session.name, path, path.encode())
        told.files.add(path=path, sha256=hashlib.sha256(path.encode()).hexdigest(), size_bytes=len(path))
    if session.recording.HasField("thumbnail_interval"):
        fake.add_artifact(session.name, "thumbnails/00001.jpg", b"jpeg")
    fake.advance(session.name, state=RUNNING, running_time=Timestamp(seconds=1))
    fake.advance(session.name, state=state, recording_report=told, device="devices/cpu-0")


@pytest.fixture
def recorded(fake: FakeBalancer) -> FakeBalancer:
    """A fake whose recordings succeed at once."""
    fake.on_create = lambda session: finish(fake, session, SUCCEEDED)
    return fake


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the folder of the tests."""
    monkeypatch.chdir(tmp_path)


def asked(fake: FakeBalancer) -> session_pb2.Session:
    (session,) = fake.sessions.values()
    return session


def test_a_page_becomes_a_file_with_a_report_beside_it(recorded: FakeBalancer, run: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    ran = run("record", URL, "-o", str(out), "--duration", "30s")
    assert (ran.code, ran.out) == (0, f"{out}\n")
    assert out.read_text() == "recording.mp4"
    assert ran.err.splitlines()[-7:] == [
        "frames: 900 captured, 902 encoded, 2 duplicated, 0 dropped",
        "freeze: 67 ms at most",
        "sound: 28 ms before its picture to 28 ms after it, by kind of page",
        "start: first picture after 410 ms",
        "end: its time was over (MAX_DURATION)",
        "device: cpu-0",
        f"sha256: {hashlib.sha256(b'recording.mp4').hexdigest()} agrees",
    ]
    session = asked(recorded)
    assert (session.recording.page.url, session.max_duration) == (URL, Duration(seconds=30))


def test_without_a_name_it_is_recording_mp4_here_and_never_replaces_one(
    recorded: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    assert run("record", URL).code == 0
    assert (tmp_path / "recording.mp4").read_text() == "recording.mp4"
    (tmp_path / "recording.mp4").write_text("mine")
    ran = run("record", URL)
    assert (ran.code, ran.out) == (6, "")
    assert "it exists" in ran.err
    assert (tmp_path / "recording.mp4").read_text() == "mine"
    assert len(recorded.sessions) == 1
    assert run("record", URL, "-y").code == 0


def test_what_goes_elsewhere_leaves_no_file_here(recorded: FakeBalancer, run: Command, tmp_path: Path) -> None:
    assert run("record", URL, "--push", "rtmp://h/app/key").code == 0
    (output,) = asked(recorded).recording.outputs
    assert (output.push.url, list(output.renditions)) == ("rtmp://h/app/key", ["recording"])
    assert list(tmp_path.glob("*.mp4")) == []


def test_files_hls_and_thumbnails_are_fetched_together(recorded: FakeBalancer, run: Command, tmp_path: Path) -> None:
    ran = run("record", URL, "-o", "o.mkv", "-r", "720p", "-r", "360p", "--hls", "show", "--thumbnails", "10s")
    assert ran.code == 0
    written = [tmp_path / name for name in ("o-720p.mkv", "o-360p.mkv", "show", "o-720p-thumbnails")]
    assert ran.out.splitlines() == [str(path) for path in written]
    assert (tmp_path / "o-720p-thumbnails/00001.jpg").read_text() == "jpeg"
    assert "sha256: agrees for 3 files" in ran.err


def test_a_recording_too_short_for_a_thumbnail_is_whole(fake: FakeBalancer, run: Command) -> None:
    def end(session: session_pb2.Session) -> None:
        session.recording.ClearField("thumbnail_interval")
        finish(fake, session, SUCCEEDED)

    fake.on_create = end
    assert run("record", URL, "--thumbnails", "1h").code == 0


def test_everything_that_is_typed_is_asked_for(recorded: FakeBalancer, run: Command, tmp_path: Path) -> None:
    (tmp_path / "init.js").write_text("go()")
    words = (
        "--size 1920x1080 --fps 29.97 --cursor --gate signal:GO --gate-timeout 5 --until-signal DONE "
        "--stop-on-silence 10s --stop-on-idle 1m --scale 2 --locale de-DE --timezone Europe/Berlin --user-agent Us "
        "--init-script init.js --dark --scrollbars --accept-http-errors --insecure --watermark logo.png:top-left "
        "--thumbnails 10s --to archive --to nas --wait-for-device 5m --label a=b --allow-software-encode"
    )
    cookie = "id=1; Domain=.example.org; Secure"
    assert run("record", URL, *words.split(), "--header", "X-Key: 1:2", "--cookie", cookie).code == 0
    session = recorded.received[0].session  # type: ignore[attr-defined]
    assert session.recording.page == recording_pb2.PageSource(
        url=URL,
        device_scale_factor=2,
        locale="de-DE",
        timezone="Europe/Berlin",
        user_agent="Us",
        headers={"X-Key": "1:2"},
        cookies=[recording_pb2.Cookie(name="id", value="1", domain=".example.org", secure=True)],
        init_script="go()",
        color_scheme=recording_pb2.COLOR_SCHEME_DARK,
        show_scrollbars=True,
        accept_http_errors=True,
        ignore_certificate_errors=True,
    )
    assert session.recording.capture == recording_pb2.Capture(
        width=1920,
        height=1080,
        frame_rate=media_pb2.FrameRate(numerator=30000, denominator=1001),
        show_cursor=True,
    )
    assert session.recording.start_gate == recording_pb2.StartGate(
        kind=recording_pb2.START_GATE_KIND_CONSOLE_SIGNAL, timeout=Duration(seconds=5), signal="GO"
    )
    assert session.recording.stop_rules == recording_pb2.StopRules(
        end_signal="DONE", silence=Duration(seconds=10), idle=Duration(seconds=60)
    )
    assert session.recording.watermark.path == str(tmp_path / "logo.png")
    assert list(session.recording.destinations) == ["archive", "nas"]
    assert session.recording.allow_software_encode
    assert (session.max_wait, dict(session.labels)) == (Duration(seconds=300), {"a": "b"})


def test_an_application_is_recorded_by_its_name(recorded: FakeBalancer, run: Command) -> None:
    assert run("record", "--application", "clock", "--gate", "window", "--no-sound").code == 0
    spec = asked(recorded).recording
    assert spec.application.name == "clock"
    assert spec.start_gate.kind == recording_pb2.START_GATE_KIND_FIRST_WINDOW
    assert spec.capture.without_sound


def test_headers_and_cookies_come_from_files_too(recorded: FakeBalancer, run: Command, tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("A: 1\n\nB: 2\n")
    (tmp_path / "cookies").write_text("c=3\n")
    assert run("record", URL, "--header", "@headers", "--cookie", "@cookies", "--cookie", "d=4").code == 0
    page = asked(recorded).recording.page
    assert dict(page.headers) == {"A": "1", "B": "2"}
    assert [(cookie.name, cookie.value) for cookie in page.cookies] == [("c", "3"), ("d", "4")]
    assert run("record", URL, "-y", "--header", "@nowhere").code == 6


def test_a_password_comes_from_a_file_or_the_environment_but_not_from_the_line(
    recorded: FakeBalancer, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("hunter2\nmore\n")
    assert run("record", URL, "--basic-auth", "ada", "--password-file", "secret").code == 0
    assert asked(recorded).recording.page.basic_auth == recording_pb2.BasicAuth(username="ada", password="hunter2")
    assert "Try --password-file" in run("record", URL, "-y", "--basic-auth", "ada").err
    ran = run("record", URL, "-y", "--basic-auth", "ada:hunter2")
    assert (ran.code, "hunter2" in ran.err) == (2, False)
    monkeypatch.setenv("GPU_BALANCER_PAGE_PASSWORD", "swordfish")
    assert run("record", URL, "-y", "--basic-auth", "ada").code == 0
    assert recorded.sessions["sessions/s2"].recording.page.basic_auth.password == "swordfish"


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    ((), "Try either the URL of a page, or --application NAME"),
    ((URL, "--application", "clock"), "Try either"),
    (("example.org",), "Cannot use the URL: it has no scheme. Try https:// before it."),
    (("--application", "clock", "--dark", "--cookie", "a=b"), "Cannot use --cookie, --dark with --application"),
    (("--application", "clock", "--gate", "paint"), "Cannot use --gate"),
    (("--application", "clock", "--until-signal", "X"), "Cannot use --until-signal"),
    ((URL, "--gate", "window"), "'window' is for applications"),
    ((URL, "--gate", "selector"), "Try 'selector:#ready'"),
    ((URL, "--gate-timeout", "1h"), "Cannot use --gate-timeout: '1h' is outside 100ms to 10m."),
    ((URL, "--size", "20000x20000"), "Cannot use --size"),
    ((URL, "--size", "0x0"), "Cannot use --size: '0x0' has a side outside 64 to 16384 pixels"),
    ((URL, "--fps", "500"), "Cannot use --fps"),
    ((URL, "--duration", "0"), "Cannot use --duration"),
    ((URL, "--duration", "100000h"), "Cannot use --duration"),
    ((URL, "--stop-on-idle", "0.1"), "Cannot use --stop-on-idle"),
    ((URL, "--stop-on-silence", "5", "--no-sound"), "silent at once"),
    ((URL, "--thumbnails", "2h"), "Cannot use --thumbnails"),
    ((URL, "--header", "hunter2"), "Cannot use --header: it is no header"),
    ((URL, "--cookie", "hunter2"), "Cannot use --cookie: it is no cookie"),
    ((URL, "--password-file", "x"), "without --basic-auth USER"),
    ((URL, "-r", "copy"), "no video to copy"),
    ((URL, "--audio", "copy"), "no encoded sound to copy"),
    ((URL, "--scale", "9"), "--scale"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES)
def test_what_cannot_be_meant_is_wrong_usage_in_the_options_words(
    fake: FakeBalancer, run: Command, words: tuple[str, ...], told: str
) -> None:
    ran = run("record", *words)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "hunter2" not in ran.err
    assert fake.sessions == {}


def test_a_file_that_is_no_text_is_refused(run: Command, tmp_path: Path) -> None:
    (tmp_path / "latin.js").write_bytes("let grün".encode("latin-1"))
    ran = run("record", URL, "--init-script", "latin.js")
    assert (ran.code, ran.out) == (2, "")
    assert "Cannot use --init-script: latin.js is no UTF-8 text, from byte 6 on. Try to convert it." in ran.err


def test_a_file_that_is_too_long_is_refused_and_not_read_on(run: Command, tmp_path: Path) -> None:
    (tmp_path / "long.js").write_text("x" * 65537)
    assert "more than 65,536 bytes" in run("record", URL, "--init-script", "long.js").err
    for option in ("--header", "--cookie"):  # One that never ends is not read for ever.
        assert "more than 65,536 bytes" in run("record", URL, option, "@/dev/zero").err


def test_detached_only_the_name_is_printed(fake: FakeBalancer, run: Command) -> None:
    ran = run("record", URL, "--detach")
    assert (ran.code, ran.out) == (0, "sessions/s1\n")
    assert "gpu-balancer artifacts s1 --download DIR" in ran.err
    assert list(asked(fake).recording.outputs) == []


def test_json_is_the_final_session_and_nothing_else(recorded: FakeBalancer, run: Command, tmp_path: Path) -> None:
    ran = run("record", URL, "--json")
    assert ran.document["recordingReport"]["capturedFrames"] == "900"
    assert (tmp_path / "recording.mp4").exists()


def test_a_file_that_is_not_what_the_agent_wrote_is_a_fault(fake: FakeBalancer, run: Command) -> None:
    def end(session: session_pb2.Session) -> None:
        finish(fake, session, SUCCEEDED)
        session.recording_report.files[0].sha256 = "0" * 64

    fake.on_create = end
    ran = run("record", URL)
    assert ran.code == 70
    assert "its SHA-256 is" in ran.err
    assert "frames: 900 captured" in ran.err


def test_a_profile_names_the_files(recorded: FakeBalancer, run: Command, tmp_path: Path) -> None:
    ladder = [media_pb2.Rendition(id="high"), media_pb2.Rendition(id="low")]
    recorded.profiles.append(balancer_service_pb2.Profile(name="two", renditions=ladder))
    assert run("record", URL, "-p", "two").code == 0
    assert (tmp_path / "recording-high.mp4").exists()
    assert asked(recorded).recording.profile == "two"
    assert list(asked(recorded).recording.renditions) == []


@pytest.fixture
def failing(fake: FakeBalancer) -> FakeBalancer:
    """A fake whose recordings fail at their gate and leave how it looked, and what was logged."""

    def fail(session: session_pb2.Session) -> None:
        fake.add_artifact(session.name, "failure.png", b"a picture")
        fake.add_artifact(session.name, "console.log", b"a log")
        failure = session_pb2.Failure(reason="GATE_TIMEOUT", message="Cannot begin: nothing was painted. Try another.")
        fake.advance(session.name, state=FAILED, failure=failure)

    fake.on_create = fail
    return fake


def test_a_recording_that_failed_says_why_and_leaves_its_clues(
    failing: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    ran = run("record", URL, "-o", "out.mp4")
    assert (ran.code, ran.out) == (1, "")
    assert "Error: Cannot begin: nothing was painted. Try another. (GATE_TIMEOUT)" in ran.err
    assert f"How it looked then: {tmp_path}/out.failure.png" in ran.err
    assert f"What its page logged: {tmp_path}/out.console.log" in ran.err
    assert (tmp_path / "out.failure.png").read_text() == "a picture"
    assert (tmp_path / "out.console.log").read_text() == "a log"


def test_what_helps_is_named_as_it_is_typed(fake: FakeBalancer, run: Command) -> None:
    def fail(session: session_pb2.Session) -> None:
        message = "Cannot open it: its server answers 404. Try accept_http_errors, or cookies."
        fake.advance(session.name, state=FAILED, failure=session_pb2.Failure(reason="PAGE_HTTP_ERROR", message=message))

    fake.on_create = fail
    assert "Try --accept-http-errors, or cookies. (PAGE_HTTP_ERROR)" in run("record", URL).err


def test_clues_of_an_earlier_try_are_not_replaced(failing: FakeBalancer, run: Command, tmp_path: Path) -> None:
    run("record", URL)
    assert f"{tmp_path}/recording.failure-2.png" in run("record", URL).err
    assert (tmp_path / "recording.console-2.log").exists()


def test_without_a_local_output_clues_have_the_sessions_name(
    failing: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    run("record", URL, "--push", "rtmp://h/app/key")
    assert (tmp_path / "s1.failure.png").exists()


def test_what_was_recorded_until_a_failure_is_fetched(fake: FakeBalancer, run: Command, tmp_path: Path) -> None:
    def fail(session: session_pb2.Session) -> None:
        fake.add_artifact(session.name, "recording.mp4", b"half a film")
        failure = session_pb2.Failure(reason="PAGE_CRASHED", message="Cannot go on: the page crashed.")
        fake.advance(session.name, state=FAILED, failure=failure)

    fake.on_create = fail
    ran = run("record", URL)
    assert (ran.code, ran.out) == (1, f"{tmp_path}/recording.mp4\n")
    assert "That is what was recorded until it failed." in ran.err
    assert (tmp_path / "recording.mp4").read_bytes() == b"half a film"


def test_parts_of_what_could_not_be_joined_are_fetched_beside_its_place(
    fake: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    def fail(session: session_pb2.Session) -> None:
        for number in (1, 2):
            fake.add_artifact(session.name, f"recording.part-{number}.mp4", b"half a film")
        fake.add_artifact(session.name, "recording.partly.mp4", b"another's")
        fake.advance(session.name, state=FAILED, failure=session_pb2.Failure(reason="DISK_FULL", message="No room."))

    fake.on_create = fail
    ran = run("record", URL, "-o", "film.mp4")
    assert (ran.code, ran.out) == (1, f"{tmp_path}/film.part-1.mp4\n{tmp_path}/film.part-2.mp4\n")
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"film.part-1.mp4", "film.part-2.mp4"}


def test_a_file_that_stayed_in_parts_is_told(fake: FakeBalancer, run: Command, tmp_path: Path) -> None:
    def end_in_parts(session: session_pb2.Session) -> None:
        told = report()
        for number in (1, 2):
            path = f"recording.part{number}.mp4"
            fake.add_artifact(session.name, path, path.encode())
            told.files.add(path=path, sha256=hashlib.sha256(path.encode()).hexdigest(), size_bytes=len(path))
        fake.advance(session.name, state=RUNNING, running_time=Timestamp(seconds=1))
        fake.advance(session.name, state=SUCCEEDED, recording_report=told)

    fake.on_create = end_in_parts
    ran = run("record", URL, "-o", "film.mp4")
    assert (ran.code, ran.out) == (1, f"{tmp_path}/film.part1.mp4\n{tmp_path}/film.part2.mp4\n")
    assert f"{tmp_path}/film.mp4 stayed in parts. Try gpu-balancer session s1 to see why." in ran.err
    assert "agrees for 2 files" in ran.err


def test_parts_beside_a_whole_file_are_left_alone(fake: FakeBalancer, run: Command, tmp_path: Path) -> None:
    def end(session: session_pb2.Session) -> None:
        fake.add_artifact(session.name, "recording.part1.mp4", b"nothing to play")
        finish(fake, session, SUCCEEDED)

    fake.on_create = end
    assert run("record", URL).out == f"{tmp_path}/recording.mp4\n"
    assert [path.name for path in tmp_path.glob("*.mp4")] == ["recording.mp4"]


def test_an_empty_file_of_a_recording_that_failed_is_not_fetched(
    fake: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    def fail(session: session_pb2.Session) -> None:
        fake.add_artifact(session.name, "recording.mp4", b"")
        fake.advance(session.name, state=FAILED, failure=session_pb2.Failure(reason="DISPLAY_FAILED", message="No."))

    fake.on_create = fail
    assert run("record", URL).code == 1
    assert list(tmp_path.glob("*.mp4")) == []


def test_one_that_waited_for_a_device_in_vain_left_nothing(fake: FakeBalancer, run: Command) -> None:
    def fail(session: session_pb2.Session) -> None:
        session.ClearField("attempt")
        failure = session_pb2.Failure(reason="QUEUE_TIMEOUT", message="Cannot start: no device had room.")
        fake.advance(session.name, state=FAILED, failure=failure)

    fake.on_create = fail
    assert run("record", URL, "--wait-for-device", "1").code == 5
    assert fake.calls["ListArtifacts"] == 0


def test_a_recording_that_somebody_else_stopped_is_fetched_and_told(
    fake: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    fake.on_create = lambda session: finish(fake, session, CANCELLED)
    ran = run("record", URL)
    assert (ran.code, ran.out) == (1, f"{tmp_path}/recording.mp4\n")
    assert "The session s1 was stopped from elsewhere." in ran.err


def test_a_page_that_ended_before_its_first_picture_is_not_told_as_stopped(fake: FakeBalancer, run: Command) -> None:
    def end(session: session_pb2.Session) -> None:
        report = recording_pb2.RecordingReport(end_cause="END_SIGNAL")
        fake.advance(session.name, state=CANCELLED, recording_report=report)

    fake.on_create = end
    ran = run("record", URL)
    assert ran.code == 1
    assert "The page of session s1 logged its end signal before there was a picture." in ran.err


def test_no_room_is_told_as_for_a_transcode(fake: FakeBalancer, run: Command) -> None:
    refusal = placement_pb2.Refusal(rule="RECORDING", message="no display is free")
    fake.verdicts = [placement_pb2.DeviceVerdict(device="devices/cpu-1", refusal=refusal)]
    fake.refuse("CreateSession", RequestFailure(reason=Reason.NO_CAPACITY, message="Cannot place the session."))
    ran = run("record", URL)
    assert ran.code == 5
    assert "cpu-1: no display is free (RECORDING)" in ran.err
    assert "With --wait-for-device 10m it would be queued instead." in ran.err


def test_a_plan_takes_every_option_and_starts_nothing(fake: FakeBalancer, run: Command) -> None:
    fake.verdicts = [placement_pb2.DeviceVerdict(device="devices/cpu-0", score=640_000_000, weight=100)]
    ran = run("record", URL, "--cookie", "a=b", "--plan", "-v")
    assert ran.code == 0
    assert ran.out.splitlines()[0].split("\t")[:2] == ["cpu-0", "chosen"]
    assert any(line.startswith("program ") for line in ran.out.splitlines())
    assert fake.received[-1].session.recording.page.cookies[0].name == "a"  # type: ignore[attr-defined]
    assert fake.sessions == {}
    fake.verdicts = []
    assert run("record", URL, "--plan", "--json").code == 5


def progress(**fields: Any) -> session_pb2.Progress:
    return session_pb2.Progress(frames=360, out_time=Duration(seconds=12), written_bytes=3_200_000, **fields)


def test_its_phases_are_told_as_they_come(fake: FakeBalancer, run: Command) -> None:
    told: list[dict[str, Any]] = [
        {"conditions": [session_pb2.Condition(type="AWAITING_DISPLAY", message="a display is made")]},
        {"conditions": [session_pb2.Condition(type="AWAITING_GATE", message="paint is awaited")]},
        {"state": RUNNING, "progress": progress(duplicated_frames=1), "running_time": Timestamp(seconds=1)},
        {"conditions": [session_pb2.Condition(type="PAUSED", message="it rests")]},
        {"state": session_pb2.SESSION_STATE_STOPPING},
    ]

    def step(session: session_pb2.Session) -> None:
        session.ClearField("conditions")
        if told:
            fake.advance(session.name, **told.pop(0))
        else:
            finish(fake, session, SUCCEEDED)

    fake.on_told = step
    ran = run("record", URL, "--duration", "30")
    lines = [line for line in ran.err.splitlines() if line.startswith("s1: ")]
    assert lines == [
        "s1: starting",
        "s1: waiting for a display",
        "s1: waiting for the page",
        "s1: recording, 0:12/0:30 360 frames, 1 dup, 0 drop, 3.2 MB",
        "s1: paused, 0:12/0:30 360 frames, 1 dup, 0 drop, 3.2 MB",
        "s1: finalising, 0:12/0:30 360 frames, 1 dup, 0 drop, 3.2 MB",
        "s1: succeeded on cpu-0, 0:12 360 frames, 1 dup, 0 drop, 3.2 MB",
    ]
    assert "it rests" not in ran.err
