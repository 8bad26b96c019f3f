"""Recordings that exist: what can be done with one, and how it looks among sessions, devices and artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpu_balancer.cli.placement_views import dimension_words, placement_facts
from gpu_balancer.cli.session_views import session_facts
from gpu_balancer.cli.session_words import done_share, phase_words, progress_words
from gpu_balancer.cli.sound_views import sound_lines, sound_words
from gpu_balancer.cli.words import brief
from gpu_balancer.v1 import device_pb2, placement_pb2, recording_pb2, session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command

    from fakes.balancer_server import FakeBalancer

URL = "https://ada:hunter2@example.org/show?token=hunter2"
RUNNING, STARTING = session_pb2.SESSION_STATE_RUNNING, session_pb2.SESSION_STATE_STARTING
QUEUED, STOPPING = session_pb2.SESSION_STATE_QUEUED, session_pb2.SESSION_STATE_STOPPING
SUCCEEDED, CANCELLED = session_pb2.SESSION_STATE_SUCCEEDED, session_pb2.SESSION_STATE_CANCELLED


def spec() -> recording_pb2.RecordingSpec:
    return recording_pb2.RecordingSpec(
        page=recording_pb2.PageSource(
            url=URL,
            device_scale_factor=2,
            locale="de-DE",
            timezone="Europe/Berlin",
            user_agent="Us",
            headers={"X-Key": "hunter2"},
            cookies=[recording_pb2.Cookie(name="id", value="hunter2")],
            basic_auth=recording_pb2.BasicAuth(username="ada", password="hunter2"),
            init_script="go()",
            color_scheme=recording_pb2.COLOR_SCHEME_DARK,
            accept_http_errors=True,
        ),
        capture=recording_pb2.Capture(width=1920, height=1080, show_cursor=True, without_sound=True),
        stop_rules=recording_pb2.StopRules(silence=Duration(seconds=10), idle=Duration(seconds=90)),
        watermark=recording_pb2.Watermark(path="/srv/logo.png"),
        thumbnail_interval=Duration(seconds=10),
        destinations=["archive"],
    )


def session(state: session_pb2.SessionState.ValueType = RUNNING, *conditions: str) -> session_pb2.Session:
    return session_pb2.Session(
        name="sessions/r",
        recording=spec(),
        state=state,
        conditions=[session_pb2.Condition(type=one, message="so it is") for one in conditions],
        progress=session_pb2.Progress(frames=360, out_time=Duration(seconds=12), duplicated_frames=1, speed=1),
        max_duration=Duration(seconds=30),
    )


@pytest.fixture
def recording(fake: FakeBalancer) -> FakeBalancer:
    """A fake with a recording that runs."""
    made = session()
    fields = {
        "recording": made.recording,
        "state": RUNNING,
        "progress": made.progress,
        "max_duration": made.max_duration,
    }
    fake.do(lambda: fake.add_session("r", **fields))
    return fake


def facts(of: session_pb2.Session) -> dict[str, str]:
    return {name: value for name, value in session_facts(of) if value}


def test_a_recording_rests_and_goes_on(recording: FakeBalancer, run: Command) -> None:
    assert run("pause", "r").out == "r: paused at 0:12/0:30\n"
    assert run("sessions").out.split("\t")[3] == "0:12/0:30 paused"
    assert run("resume", "r").out == "r: recording at 0:12/0:30\n"
    assert run("pause", "r", "--json").document["conditions"][0]["type"] == "PAUSED"


def test_a_length_is_given_anew_added_to_or_taken_away(recording: FakeBalancer, run: Command) -> None:
    assert run("extend", "r", "10m").out == "r: recording, ends after 10:00\n"
    assert run("extend", "r", "+90s").out == "r: recording, ends after 11:30\n"
    assert run("extend", "r", "--unbounded").out == "r: recording, goes on until stopped\n"
    assert run("extend", "r", "+1m").code == 2
    for words in (("extend", "r"), ("extend", "r", "1m", "--unbounded"), ("extend", "r", "0"), ("extend", "r", "x")):
        assert run(*words).code == 2


def test_adding_beyond_every_bound_is_wrong_usage(recording: FakeBalancer, run: Command) -> None:
    assert run("extend", "r", "366days").code == 2
    assert "366 days" in run("extend", "r", "+8784h").err


def test_a_snapshot_is_written_once_and_whole(recording: FakeBalancer, run: Command, tmp_path: Path) -> None:
    place = tmp_path / "now.png"
    ran = run("snapshot", "r", "-o", str(place), "--width", "320")
    assert (ran.code, ran.out) == (0, f"{place}\n")
    assert place.read_bytes() == recording.picture
    assert run("snapshot", "r", "-o", str(place)).code == 6
    assert run("snapshot", "r", "-o", str(place), "-y", "--json").document == {
        "path": str(place), "sizeBytes": str(len(recording.picture)), "snapshotTime": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert run("snapshot", "r", "-o", f"{tmp_path}/no/now.png").code == 6
    assert [path.name for path in tmp_path.glob("*.png")] == ["now.png"]
    assert list(tmp_path.glob(".*.part")) == []


def test_a_snapshot_has_a_name_of_its_own_or_goes_into_a_pipe(
    recording: FakeBalancer, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("snapshot", "sessions/r").code == 0
    assert (tmp_path / "r.png").exists()
    assert "a picture" in run("snapshot", "r", "-o", "-").out
    assert run("snapshot", "r", "-o", "-", "--json").code == 2


def test_what_does_not_record_is_refused(fake: FakeBalancer, run: Command) -> None:
    fake.do(lambda: fake.add_session("t", state=RUNNING))
    for words in (("pause", "t"), ("resume", "t"), ("extend", "t", "1m"), ("snapshot", "t")):
        ran = run(*words)
        assert (ran.code, ran.out) == (3, "")
        assert "does not record now" in ran.err


def test_a_list_tells_the_kind_and_hides_secrets_of_a_url(recording: FakeBalancer, run: Command) -> None:
    row = run("sessions").out.rstrip("\n").split("\t")
    assert row[3] == "0:12/0:30"
    assert row[-2:] == ["https://***@example.org/show?token=***", "recording"]


@pytest.mark.parametrize(
    ("state", "conditions", "phase", "done"),
    [
        (STARTING, (), "starting", "-"),
        (STARTING, ("AWAITING_DISPLAY",), "waiting for a display", "awaits display"),
        (STARTING, ("AWAITING_GATE",), "waiting for the page", "awaits gate"),
        (RUNNING, (), "recording", "0:12/0:30"),
        (RUNNING, ("PAUSED",), "paused", "0:12/0:30 paused"),
        (RUNNING, ("FINALISING",), "finalising", "0:12/0:30 ending"),
        (STOPPING, (), "finalising", "0:12/0:30 ending"),
        (SUCCEEDED, (), "succeeded", "0:12"),
        (QUEUED, (), "queued", "-"),
    ],
)
def test_where_a_recording_stands(
    state: session_pb2.SessionState.ValueType, conditions: tuple[str, ...], phase: str, done: str
) -> None:
    made = session(state, *conditions)
    assert (phase_words(made), progress_words(made)) == (phase, done)


def test_how_much_of_a_recording_is_done() -> None:
    assert done_share(session()) == pytest.approx(0.4)
    assert done_share(session(CANCELLED)) == 1.0
    unbounded = session()
    unbounded.ClearField("max_duration")
    assert done_share(unbounded) is None
    assert progress_words(unbounded) == "0:12"


def test_everything_about_a_recording_is_shown_but_its_secrets() -> None:
    made = session()
    made.recording_report.CopyFrom(
        recording_pb2.RecordingReport(
            captured_frames=360,
            encoded_frames=361,
            duplicated_frames=1,
            phases=[recording_pb2.RecordingPhase(name="first_frame", duration=Duration(nanos=101_000_000))],
            take_count=2,
            end_cause="END_SIGNAL",
            browser="Chromium 156",
            closed_popups=3,
            files=[recording_pb2.RecordedFile(path="a.mp4", sha256="ab", size_bytes=5, width=1920, height=1080)],
        )
    )
    made.measured_use.CopyFrom(
        recording_pb2.MeasuredUse(cores=850_000, memory_mib=512, measured_time=Duration(seconds=15))
    )
    told = facts(made)
    assert "hunter2" not in str(told)
    assert told["kind"] == "recording"
    assert told["page"] == "https://***@example.org/show?token=***"
    assert told["page gets"].splitlines() == [
        "2 pixels for each of its own", "locale de-DE", "time zone Europe/Berlin", "user agent Us", "dark mode",
        "headers X-Key", "cookies id", "the password of ada", "a script of 4 B", "leave to answer with an error",
    ]  # fmt: skip
    assert told["display"] == "1920x1080, 30 fps, with its pointer, without sound"
    assert told["begins"] == "when the page has painted"
    assert told["ends"].splitlines() == [
        "after 0:30", "when the page logs END_RECORDING", "after 10 s of silence", "after 1:30 without a change",
    ]  # fmt: skip
    assert told["watermark"] == "/srv/logo.png, bottom right"
    assert (told["thumbnails"], told["copied to"]) == ("each 10 s", "archive")
    assert told["frames"] == "360 captured, 361 encoded, 1 duplicated, 0 dropped"
    assert told["end"] == "the page said so (END_SIGNAL)"
    assert (told["phases"], told["takes"], told["suppressed"]) == ("first frame 101 ms", "2", "3 windows closed")
    assert told["files"] == "a.mp4: 1920x1080, 5 B, sha256 ab"
    assert told["takes up"] == "0.85 cores and 512 MiB, measured over 15 s"
    assert "freeze" not in told
    assert "renderer" not in told


def timing(
    delay_ms: float,
    source: str,
    *,
    film_ms: float | None = None,
    drawing_ms: float | None = None,
    heard_ms: float | None = None,
    when: int = 0,
) -> recording_pb2.SoundTiming:
    """Makes how far sound and picture are apart. None, and 0 for a time: it was not measured."""
    made = recording_pb2.SoundTiming(delay_source=source)
    made.delay.FromNanoseconds(int(delay_ms * 1e6))
    if film_ms is not None:
        made.film_offset.FromNanoseconds(int(film_ms * 1e6))
    if drawing_ms is not None:
        made.drawing_offset.FromNanoseconds(int(drawing_ms * 1e6))
    if heard_ms is not None:
        made.heard_drawing_offset.FromNanoseconds(int(heard_ms * 1e6))
    if when:
        made.measurement_time.CopyFrom(Timestamp(seconds=when))
    return made


NOON = 1_904_126_400
"""2030-05-04 12:00 UTC."""


@pytest.mark.parametrize(
    ("told", "lines", "words"),
    [
        (
            timing(16.4, "calibration", film_ms=28.2, drawing_ms=-6, heard_ms=-28.2, when=NOON),
            [
                "delayed by 16 ms by calibration of 2030-05-04 12:00 UTC",
                "films: sound 28 ms after its picture",
                "drawings as sound is handed over: sound 6 ms before its picture",
                "drawings as sound is heard: sound 28 ms before its picture",
            ],
            "28 ms before its picture to 28 ms after it, by kind of page",
        ),
        (
            timing(-1000, "settings", film_ms=-1010, drawing_ms=-0.4, when=NOON),
            [
                "brought forward by 1 s by the settings; measured 2030-05-04 12:00 UTC",
                "films: sound 1 s before its picture",
                "drawings as sound is handed over: sound 0.4 ms before its picture",
            ],
            "1 s before its picture to 0.4 ms before it, by kind of page",
        ),
        (
            timing(0, "settings", film_ms=0, drawing_ms=0.001),
            [
                "not delayed by the settings",
                "films: sound with its picture",
                "drawings as sound is handed over: sound with its picture",
            ],
            "with its picture",
        ),
        (
            timing(-12, "of\x1btomorrow", drawing_ms=3),
            [
                "brought forward by 12 ms by of\N{REPLACEMENT CHARACTER}tomorrow",
                "drawings as sound is handed over: sound 3 ms after its picture",
            ],
            "3 ms after its picture",
        ),
        (
            timing(10, "default"),
            [
                "delayed by 10 ms by default; not measured against its picture",
                "to measure it: gpu-balancer devices calibrate --sound",
            ],
            "delayed by 10 ms by default; not measured against its picture",
        ),
    ],
)
def test_how_far_sound_is_from_its_picture_is_told(
    told: recording_pb2.SoundTiming, lines: list[str], words: str
) -> None:
    assert list(sound_lines(told, of_pages=True)) == lines
    assert sound_words(told) == words


def test_the_report_of_a_recording_tells_how_far_its_sound_is_from_its_picture() -> None:
    made = session(SUCCEEDED)
    made.recording_report.captured_frames = 360
    assert "sound" not in facts(made)
    made.recording_report.sound_timing.CopyFrom(timing(10, "settings", film_ms=22, drawing_ms=-32, when=NOON))
    assert facts(made)["sound"].splitlines() == [
        "delayed by 10 ms by the settings; measured 2030-05-04 12:00 UTC",
        "films: sound 22 ms after its picture",
        "drawings as sound is handed over: sound 32 ms before its picture",
    ]
    made.recording_report.sound_timing.CopyFrom(timing(10, "default"))
    assert facts(made)["sound"] == "delayed by 10 ms by default; not measured against its picture", (
        "without a page it cannot be measured"
    )
    made.recording_report.browser = "Chromium 156"
    assert facts(made)["sound"].endswith("\nto measure it: gpu-balancer devices calibrate --sound")


def test_an_application_is_called_by_its_name() -> None:
    made = session()
    made.recording.application.name = "clock"
    assert facts(made)["application"] == "clock"
    assert facts(made)["begins"] == "when a window is visible"
    assert "END_RECORDING" not in facts(made)["ends"]


def test_a_device_tells_what_it_records_or_why_not(fake: FakeBalancer, run: Command) -> None:
    able = recording_pb2.RecordingAbility(
        available=True, display_count=4, ready_display_count=1, browser="Chromium 156", applications=["clock", "dash"],
        largest_width=3840, largest_height=2160,
        sound_timing=timing(16, "calibration", film_ms=28, drawing_ms=-28, when=NOON),
    )  # fmt: skip
    unable = recording_pb2.RecordingAbility(fault_message="Cannot record: there is no Xvfb.")
    devices = [
        device_pb2.Device(name="devices/cpu-0", recording=able),
        device_pb2.Device(name="devices/cpu-1", recording=unable),
        device_pb2.Device(name="devices/cpu-2", recording=recording_pb2.RecordingAbility(available=True)),
    ]
    fake.do(lambda: [fake.add_device(device) for device in devices])
    out = run("devices", "-v").out
    assert "4 displays of 3840x2160 at most, 1 ready now" in out
    assert "pages with Chromium 156" in out
    assert "applications: clock, dash" in out
    assert "sound delayed by 16 ms by calibration of 2030-05-04 12:00 UTC" in out
    assert "films: sound 28 ms after its picture" in out
    assert out.count("drawings as sound is handed over: sound 28 ms before its picture") == 1
    assert out.count("sound delayed") == out.count("gpu-balancer devices calibrate --sound") + 1 == 1
    assert "no: Cannot record: there is no Xvfb." in out
    assert "no pages: no browser was found" in out


def test_artifacts_tell_of_their_copies(recording: FakeBalancer, run: Command) -> None:
    recording.do(lambda: recording.add_artifact("sessions/r", "a.mp4", b"a"))
    stored = recording.artifacts["sessions/r/artifacts/a.mp4"].message
    assert run("artifacts", "r").out.rstrip("\n").split("\t")[-1] == "-"
    stored.deliveries.add(destination="archive", state=session_pb2.DELIVERY_STATE_DELIVERED, try_count=1)
    stored.deliveries.add(
        destination="nas", state=session_pb2.DELIVERY_STATE_PENDING, try_count=3, message="the share is away"
    )
    ran = run("artifacts", "r")
    assert ran.out.rstrip("\n").split("\t")[-1] == "archive: delivered, nas: pending after 3 times"
    assert "a.mp4 is not at nas: the share is away" in ran.err


def test_a_plan_tells_what_a_display_and_an_upload_take() -> None:
    workload = placement_pb2.Workload(
        capture=placement_pb2.CaptureWork(pixels_per_second=27_648_000, width=1280, height=720, browser=True),
        upload_bits_per_second=5_000_000,
    )
    told = dict(placement_facts(placement_pb2.Placement(workload=workload)))
    assert told["capture"] == "27.6M px/s, 1280x720 of a page"
    assert told["upload"] == "5.0Mbit/s"
    need = placement_pb2.DimensionNeed(dimension=placement_pb2.DIMENSION_DISPLAYS, host=True)
    assert dimension_words(need) == "host's displays"


def test_names_of_columns_come_first_when_they_are_asked_for(recording: FakeBalancer, run: Command) -> None:
    recording.do(lambda: recording.add_device(device_pb2.Device(name="devices/cpu-0")))
    for words in (("sessions", "--headings"), ("--headings", "sessions")):
        head, row = run(*words).out.splitlines()
        assert head.split("\t") == ["SESSION", "STATE", "DEVICE", "DONE", "CREATED", "LABELS", "INPUT", "KIND"]
        assert row.split("\t")[0] == "r"
    assert run("sessions", "--headings", "--state", "failed").out.split("\t")[0] == "SESSION"
    assert run("devices", "--headings").out.splitlines()[0].split("\t")[0] == "DEVICE"
    assert run("top", "--headings").out.count("\tSTATE\t") == 2
    assert run("sessions").out.split("\t")[0] == "r"


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(0, "0 ms"), (33, "33 ms"), (-12, "-12 ms"), (999, "999 ms"), (2400, "2.4 s"), (90_000, "1:30")],
)
def test_a_short_time_is_told_as_finely_as_it_matters(milliseconds: int, words: str) -> None:
    length = Duration()
    length.FromMilliseconds(milliseconds)
    assert brief(length) == words
