"""`transcode` and `plan`: what is typed, what is asked of the daemon, what is written where."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from gpu_balancer import Reason, RequestFailure, Violation
from gpu_balancer.v1 import balancer_service_pb2, media_pb2, placement_pb2, session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command

    from fakes.balancer_server import FakeBalancer


def asked(fake: FakeBalancer) -> session_pb2.Session:
    (session,) = fake.sessions.values()
    return session


def verdicts() -> list[placement_pb2.DeviceVerdict]:
    refusal = placement_pb2.Refusal(rule="CAPACITY", message="needs 2 encoder sessions, 1 is free")
    return [
        placement_pb2.DeviceVerdict(
            device="devices/cpu-0", score=640_000_000, weighted_load_before=412_000_000, weight=100, session_count=3
        ),
        placement_pb2.DeviceVerdict(device="devices/cpu-1", refusal=refusal, weight=40),
    ]


def test_a_file_becomes_a_file(finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    ran = run("transcode", str(source), "-o", str(out), "-r", "1280x720:h264:2500k")
    assert (ran.code, ran.out) == (0, f"{out}\n")
    assert out.read_text() == "720p.mp4"
    spec = asked(finishing).transcode
    assert spec.input.uri == str(source)
    assert spec.renditions[0].encode.bit_rate_bps == 2_500_000
    assert ran.err.splitlines()[0] == "Session s1 waits for a device"
    assert "s1: succeeded, 100%" not in ran.err


def test_several_renditions_go_beside_one_another_and_it_is_said(
    finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path
) -> None:
    ran = run("transcode", str(source), "-o", str(tmp_path / "out.mkv"), "-r", "720p", "-r", "360p")
    assert ran.code == 0
    assert "Writing out-720p.mkv, out-360p.mkv" in ran.err
    assert (tmp_path / "out-360p.mkv").read_text() == "360p.mkv"


def test_a_relative_input_and_output_are_in_the_callers_folder(
    finishing: FakeBalancer, run: Command, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    assert run("transcode", "in.mov", "-o", "out.ts").code == 0
    assert asked(finishing).transcode.input.uri == str(source)
    assert (source.parent / "out.ts").exists()


def test_a_profile_names_the_files(finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path) -> None:
    ladder = [media_pb2.Rendition(id="high"), media_pb2.Rendition(id="low")]
    finishing.profiles.append(balancer_service_pb2.Profile(name="two", renditions=ladder))
    assert run("transcode", str(source), "-p", "two", "-o", str(tmp_path / "{rendition}.mp4")).code == 0
    assert (tmp_path / "high.mp4").exists()
    assert asked(finishing).transcode.profile == "two"
    assert run("transcode", str(source), "-p", "three").code == 3


def test_hls_is_fetched_and_a_file_too(finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "show", tmp_path / "a.mp4"
    words = ("--hls", str(folder), "-o", str(file), "--hls-segments", "ts", "--segment-duration", "6")
    ran = run("transcode", str(source), *words)
    assert (ran.code, ran.out.splitlines()) == (0, [str(file), str(folder)])
    assert (folder / "720p/0.m4s").exists()
    hls = asked(finishing).transcode.outputs[1].hls
    assert (hls.segment_format, hls.segment_duration) == (media_pb2.HLS_SEGMENT_FORMAT_TS, Duration(seconds=6))


def test_a_folder_as_output_means_hls(finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path) -> None:
    assert run("transcode", str(source), "-o", f"{tmp_path}/show/").code == 0
    assert (tmp_path / "show/master.m3u8").exists()


def test_json_is_the_final_session_and_nothing_else(
    finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path
) -> None:
    ran = run("transcode", str(source), "-o", str(tmp_path / "out.mp4"), "--json")
    assert ran.document["state"] == "SESSION_STATE_SUCCEEDED"
    assert (tmp_path / "out.mp4").exists()


def test_detached_only_the_name_is_printed(fake: FakeBalancer, run: Command, source: Path, tmp_path: Path) -> None:
    ran = run("transcode", str(source), "-o", str(tmp_path / "no/out.mp4"), "--detach")
    assert (ran.code, ran.out) == (0, "sessions/s1\n")
    assert "gpu-balancer artifacts s1 --download DIR" in ran.err
    assert fake.calls["WatchSession"] == 0
    assert run("transcode", str(source), "--detach", "--json").document["name"] == "sessions/s2"


def test_detached_nothing_is_said_of_artifacts_where_there_will_be_none(
    fake: FakeBalancer, run: Command, source: Path
) -> None:
    assert "artifacts" not in run("transcode", str(source), "--server-output", "/srv/o.mp4", "--detach").err
    assert "artifacts" in run("transcode", str(source), "--detach").err


def test_a_slash_at_the_end_tells_that_a_folder_of_the_server_is_meant(
    finishing: FakeBalancer, run: Command, source: Path
) -> None:
    assert run("transcode", str(source), "--server-output", "/srv/show.1/").code == 0
    (hls,) = asked(finishing).transcode.outputs
    assert hls.hls.path == "/srv/show.1"


@pytest.mark.parametrize("path", ["/", "//", "/srv//o.mp4", "/srv/../o.mp4", "/srv/./show", "/srv/show//"])
def test_a_path_of_the_server_that_cannot_be_is_refused_in_the_options_words(run: Command, path: str) -> None:
    ran = run("transcode", "in.mov", "--server-output", path)
    assert (ran.code, ran.out) == (2, "")
    assert "--server-output" in ran.err


def test_a_file_that_the_daemon_may_not_read_is_uploaded_and_not_kept_there(
    finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path
) -> None:
    finishing.readable_paths = set()
    ran = run("transcode", str(source), "-o", str(tmp_path / "out.mp4"))
    assert ran.code == 0
    assert "Uploading in.mov, which the daemon may not read itself …" in ran.err
    assert asked(finishing).transcode.input.upload
    assert finishing.uploads == {}


def test_a_file_too_large_for_an_upload_is_refused_with_both_sizes(
    finishing: FakeBalancer, run: Command, source: Path
) -> None:
    finishing.readable_paths = set()
    finishing.max_upload_bytes = 100
    ran = run("transcode", str(source))
    assert ran.code == 3
    assert "6,000 bytes and the daemon takes 100" in ran.err


@pytest.mark.parametrize(
    ("out", "words"),
    [("there.mp4", "it exists"), ("no/out.mp4", "there is no folder"), ("in.mov", "Cannot use -o"), ("full", "empty")],
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_submitted(
    fake: FakeBalancer, run: Command, source: Path, tmp_path: Path, out: str, words: str
) -> None:
    (tmp_path / "there.mp4").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    ran = run("transcode", str(source), "-o", str(tmp_path / out))
    assert ran.code in (2, 6)
    assert words in ran.err
    assert fake.sessions == {}


def test_an_existing_file_is_replaced_when_asked(
    finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    out.write_text("mine")
    assert run("transcode", str(source), "-o", str(out), "-y").code == 0
    assert out.read_text() == "source.mp4"


def test_the_input_is_never_replaced(finishing: FakeBalancer, run: Command, tmp_path: Path) -> None:
    file = tmp_path / "film.mp4"
    file.write_text("mine")
    assert run("transcode", str(file), "-o", str(file), "-y").code == 6
    assert file.read_text() == "mine"


def test_a_failed_session_is_told_with_exit_code_1(
    fake: FakeBalancer, run: Command, source: Path, tmp_path: Path
) -> None:
    failure = session_pb2.Failure(reason="DISK_FULL", message="Cannot write: the disk is full.", log_tail=["No space"])
    fake.on_create = lambda session: fake.advance(session.name, state=session_pb2.SESSION_STATE_FAILED, failure=failure)
    ran = run("transcode", str(source), "-o", str(tmp_path / "out.mp4"))
    assert (ran.code, ran.out) == (1, "")
    assert "Error: Cannot write: the disk is full. (DISK_FULL)" in ran.err
    assert "  | No space" in ran.err
    assert not (tmp_path / "out.mp4").exists()


def test_a_cancelled_session_is_exit_code_1(fake: FakeBalancer, run: Command, source: Path) -> None:
    fake.on_create = lambda session: fake.advance(session.name, state=session_pb2.SESSION_STATE_CANCELLED)
    ran = run("transcode", str(source))
    assert ran.code == 1
    assert "Error: The session s1 was cancelled." in ran.err


def test_a_session_that_left_nothing_is_told(fake: FakeBalancer, run: Command, source: Path, tmp_path: Path) -> None:
    fake.on_create = lambda session: fake.advance(session.name, state=session_pb2.SESSION_STATE_SUCCEEDED)
    ran = run("transcode", str(source), "-o", str(tmp_path / "out.mp4"))
    assert ran.code == 1
    assert "left nothing for" in ran.err


def test_without_outputs_it_is_said_where_the_results_are(finishing: FakeBalancer, run: Command, source: Path) -> None:
    ran = run("transcode", str(source))
    assert (ran.code, ran.out) == (0, "s1: succeeded\n")
    assert "gpu-balancer artifacts s1 --download DIR" in ran.err


def test_a_bad_request_lists_its_fields_with_exit_code_3(fake: FakeBalancer, run: Command, source: Path) -> None:
    violation = Violation(field="session.transcode.renditions[0].encode.width", description="is larger than the input")
    fake.refuse(
        "CreateSession",
        RequestFailure(reason=Reason.INVALID_REQUEST, message="Cannot use the request.", violations=(violation,)),
    )
    ran = run("transcode", str(source))
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == (
        "Error: Cannot use the request.\n  session.transcode.renditions[0].encode.width: is larger than the input\n"
    )


def test_no_room_lists_every_device_with_exit_code_5(fake: FakeBalancer, run: Command, source: Path) -> None:
    placement = placement_pb2.Placement(verdicts=verdicts()[1:])
    fake.refuse(
        "CreateSession",
        RequestFailure(
            reason=Reason.NO_CAPACITY,
            message="Cannot place the session: every device refused.",
            retry_after=timedelta(seconds=7),
            details=(placement,),
        ),
    )
    ran = run("transcode", str(source))
    assert ran.code == 5
    assert "  cpu-1: needs 2 encoder sessions, 1 is free (CAPACITY)\nTry again in 7 s.\n" in ran.err


def test_refusals_that_the_message_tells_are_not_told_twice(fake: FakeBalancer, run: Command, source: Path) -> None:
    message = "Cannot place the session: no device has room (cpu-1: needs 2 encoder sessions, 1 is free). Try later."
    placement = placement_pb2.Placement(verdicts=verdicts()[1:])
    fake.refuse("CreateSession", RequestFailure(reason=Reason.NO_CAPACITY, message=message, details=(placement,)))
    assert run("transcode", str(source), "--wait-for-device", "5").err == f"Error: {message}\n"


def test_refusals_that_did_not_fit_into_the_error_are_asked_for(fake: FakeBalancer, run: Command, source: Path) -> None:
    fake.verdicts = verdicts()[1:]
    fake.refuse("CreateSession", RequestFailure(reason=Reason.NO_CAPACITY, message="Cannot place the session."))
    assert "  cpu-1: needs 2 encoder sessions, 1 is free (CAPACITY)" in run("transcode", str(source)).err


OPTIONS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("--native-rate",), {"input": media_pb2.Input(native_rate=True)}),
    (("--start", "1:30"), {"input": media_pb2.Input(start_offset=Duration(seconds=90))}),
    (("--duration", "10.5"), {"input": media_pb2.Input(duration=Duration(seconds=10, nanos=500_000_000))}),
    (("--loop",), {"input": media_pb2.Input(repeat_forever=True)}),
    (("--repeat", "2"), {"input": media_pb2.Input(repeat_count=2)}),
    (("--allow-software-encode",), {"allow_software_encode": True}),
]


@pytest.mark.parametrize(("words", "fields"), OPTIONS)
def test_an_option_becomes_its_field(
    finishing: FakeBalancer, run: Command, source: Path, words: tuple[str, ...], fields: dict[str, Any]
) -> None:
    assert run("transcode", str(source), *words).code == 0
    spec = asked(finishing).transcode
    spec.input.uri = ""
    expected = media_pb2.TranscodeSpec(**fields)
    expected.input.uri = ""
    assert spec.input == expected.input
    assert spec.allow_software_encode == expected.allow_software_encode


def test_encoding_options_hold_for_every_rendition(finishing: FakeBalancer, run: Command, source: Path) -> None:
    words = (
        "-r 720p -r 360p:hevc:q23 -r copy --codec av1 --speed thorough --frame-rate 29.97 --keyframe-interval 4 "
        "--bit-depth 10 --fit stretch --low-latency --audio opus --audio-bit-rate 96k"
    )
    assert run("transcode", str(source), *words.split()).code == 0
    first, second, third = asked(finishing).transcode.renditions
    assert (first.encode.codec, second.encode.codec) == (media_pb2.VIDEO_CODEC_AV1, media_pb2.VIDEO_CODEC_HEVC)
    assert second.encode.quality == 23
    for encode in (first.encode, second.encode):
        assert (encode.speed, encode.fit, encode.bit_depth, encode.low_latency) == (
            media_pb2.ENCODING_SPEED_THOROUGH,
            media_pb2.FIT_STRETCH,
            10,
            True,
        )
        assert encode.frame_rate == media_pb2.FrameRate(numerator=30000, denominator=1001)
        assert encode.keyframe_interval == Duration(seconds=4)
    assert third.WhichOneof("video") == "passthrough"
    for one in (first, second, third):
        assert (one.audio.codec, one.audio.bit_rate_bps) == (media_pb2.AUDIO_CODEC_OPUS, 96_000)


def test_session_options_are_passed_on(finishing: FakeBalancer, run: Command, source: Path) -> None:
    seen = []
    end = finishing.on_create
    finishing.on_create = lambda session: (seen.append(finishing.received[-1]), end(session))  # type: ignore[func-returns-value, misc]
    words = ("--priority", "live", "--label", "a=b=c", "--label", "x=", "--max-duration", "1h")
    assert run("transcode", str(source), *words).code == 0
    session = seen[0].session
    assert session.priority == session_pb2.PRIORITY_LIVE
    assert dict(session.labels) == {"a": "b=c", "x": ""}
    assert session.max_duration == Duration(seconds=3600)


def test_an_ingest_tells_where_to_publish(fake: FakeBalancer, run: Command) -> None:
    fake.on_create = lambda session: session.MergeFrom(session_pb2.Session(ingest_url="srt://127.0.0.1:9000"))
    words = ("--ingest", "srt", "--input-facts", "1280x720@30:hevc", "--publisher-timeout", "90", "--detach")
    ran = run("transcode", *words)
    assert ran.code == 0
    assert "Publish to srt://127.0.0.1:9000" in ran.err
    given = asked(fake).transcode.input
    assert given.ingest.protocol == media_pb2.INGEST_PROTOCOL_SRT
    assert given.ingest.publisher_timeout == Duration(seconds=90)
    assert given.declared_facts == media_pb2.InputFacts(
        width=1280,
        height=720,
        frame_rate=media_pb2.FrameRate(numerator=30, denominator=1),
        video_codec=media_pb2.VIDEO_CODEC_HEVC,
    )


def test_pushes_and_outputs_of_the_server_are_asked_for(finishing: FakeBalancer, run: Command, source: Path) -> None:
    words = ("-r", "720p", "-r", "360p", "--push", "360p=rtmp://host/app/key=1", "--server-output", "/srv/o.mp4", "-y")
    assert run("transcode", str(source), *words, "--server-output", "/srv/show").code == 0
    push, first, second, hls = asked(finishing).transcode.outputs
    assert (list(push.renditions), push.push.url) == (["360p"], "rtmp://host/app/key=1")
    assert (first.file.path, first.file.overwrite, list(first.renditions)) == ("/srv/o-720p.mp4", True, ["720p"])
    assert second.file.path == "/srv/o-360p.mp4"
    assert hls.hls.path == "/srv/show"


WRONG = [
    ("",),
    ("in.mov", "--ingest", "rtmp"),
    ("--ingest", "rtmp"),
    ("--ingest", "tcp", "--input-facts", "1280x720"),
    ("in.mov", "--publisher-timeout", "5"),
    ("in.mov", "--loop", "--repeat", "2"),
    ("in.mov", "--start", "soon"),
    ("in.mov", "--duration", "0"),
    ("in.mov", "-r", "0x0"),
    ("in.mov", "-r", "100000x100000"),
    ("in.mov", "-r", "721x720"),
    ("in.mov", "-r", "720p:vp9"),
    ("in.mov", "-r", "720p:h264:fast"),
    ("in.mov", "-r", "a=720p", "-r", "a=360p"),
    ("in.mov", "-p", "two", "-r", "720p"),
    ("in.mov", "-p", "two", "--speed", "fast"),
    ("in.mov", "--bit-depth", "9"),
    ("in.mov", "--frame-rate", "-30"),
    ("in.mov", "--audio-bit-rate", "1M"),
    ("in.mov", "--label", "novalue"),
    ("in.mov", "--input-facts", "1280x720:tape"),
    ("in.mov", "--push", "http://host/x"),
    ("in.mov", "-r", "720p", "-r", "360p", "--push", "rtmp://host/app"),
    ("in.mov", "--push", "4k=rtmp://host/app"),
    ("in.mov", "--server-output", "o.mp4"),
    ("in.mov", "--server-output", "/srv/o.avi"),
    ("in.mov", "-o", "out.avi"),
    ("in.mov", "-o", "show/", "--hls", "show2"),
    ("in.mov", "--priority", "high"),
    ("in.mov", "--wat"),
]


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_meant_is_exit_code_2_and_asks_the_daemon_nothing(
    fake: FakeBalancer, run: Command, words: tuple[str, ...]
) -> None:
    ran = run("transcode", *words)
    assert (ran.code, ran.out) == (2, "")
    assert "Error" in ran.err
    assert not fake.calls


def test_a_stream_key_is_not_repeated_in_an_error(run: Command) -> None:
    assert "secret" not in run("transcode", "in.mov", "--push", "htp://host/app/secret").err


def test_a_plan_tells_every_device_with_its_score_or_refusal(fake: FakeBalancer, run: Command, source: Path) -> None:
    fake.verdicts = verdicts()
    ran = run("plan", str(source), "-r", "720p")
    first, second, *facts = ran.out.splitlines()
    assert first.split("\t") == ["cpu-0", "chosen", "100", "3", "412.0M", "640.0M", ""]
    assert second.split("\t") == [
        "cpu-1", "refused", "40", "0", "-", "-", "CAPACITY: needs 2 encoder sessions, 1 is free",
    ]  # fmt: skip
    assert "decode  62.2M px/s h264 8 bit" in facts
    assert "cost    228.1M px/s" in facts
    assert not any("ffmpeg" in line for line in facts)
    assert ran.code == 0
    assert "ffmpeg -i in.mp4 out.mp4" in run("plan", str(source), "-v").out
    assert fake.sessions == {}


def test_a_plan_that_no_device_takes_is_exit_code_5(fake: FakeBalancer, run: Command, source: Path) -> None:
    fake.verdicts = verdicts()[1:]
    ran = run("plan", str(source), "--json")
    assert ran.code == 5
    assert ran.document["placement"]["verdicts"][0]["refusal"]["rule"] == "CAPACITY"


def test_a_plan_uploads_what_the_transcode_then_need_not(finishing: FakeBalancer, run: Command, source: Path) -> None:
    finishing.readable_paths = set()
    finishing.verdicts = verdicts()
    assert run("plan", str(source)).code == 0
    assert run("transcode", str(source)).code == 0
    assert finishing.calls["WriteUpload"] == 1


def test_a_cut_while_watching_is_not_seen(finishing: FakeBalancer, run: Command, source: Path, tmp_path: Path) -> None:
    finishing.cut("WatchSession", 0)
    finishing.refuse("ListArtifacts", grpc.StatusCode.UNAVAILABLE)
    assert run("transcode", str(source), "-o", str(tmp_path / "out.mp4")).code == 0
