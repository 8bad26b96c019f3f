"""Files through a real daemon, agent and ffmpeg; every result is decoded to its last frame."""

from __future__ import annotations

import json
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asked import (
    SUCCEEDED,
    await_state,
    done,
    encoded,
    live_input,
    make_media,
    to_file,
    to_hls,
    transcode_of,
    with_sound,
)
from decoded import decode, likeness_db

from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from daemons import RunningDaemon

    from gpu_balancer.client import Client

pytestmark = pytest.mark.process


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_the_command_leaves_a_whole_file_of_every_container(
    cpu_daemon: RunningDaemon, media: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"small.{suffix}"
    told = cpu_daemon.json("transcode", media / "clip.mp4", "-o", out, "-r", "160x90", apart=True)
    assert told["state"] == "SESSION_STATE_SUCCEEDED"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    made = decode(out)
    assert made.format.startswith({"mp4": "mov", "mkv": "matroska", "ts": "mpegts"}[suffix])
    assert (made.video_codec, made.size, made.frames) == ("h264", (160, 90), 60)
    assert made.audio_codec == "aac"
    assert made.audio_s == pytest.approx(2, abs=0.1)
    assert not made.complaints
    assert likeness_db(out, media / "clip.mp4") > 25


@pytest.mark.parametrize(
    ("codec", "bit_depth", "pixels"),
    [
        ("h264", 8, "yuv420p"),
        ("h264", 10, "yuv420p10le"),
        ("hevc", 8, "yuv420p"),
        ("hevc", 10, "yuv420p10le"),
        ("av1", 8, "yuv420p"),
        ("av1", 10, "yuv420p10le"),
    ],
)
def test_every_codec_and_bit_depth_decodes_to_what_was_asked(
    cpu_client: Client, media: Path, tmp_path: Path, codec: str, bit_depth: int, pixels: str
) -> None:
    asked = transcode_of(media / "clip.mp4", encoded("out", codec, bit_depth=bit_depth, height=90))
    _, files = done(cpu_client, asked, tmp_path)
    made = decode(files["out.mp4"])
    assert (made.video_codec, made.pixels, made.size, made.frames) == (codec, pixels, (160, 90), 60)
    assert not made.complaints
    assert likeness_db(files["out.mp4"], media / "clip.mp4") > 25


def test_sound_is_made_copied_or_left_out_as_asked(cpu_client: Client, media: Path, tmp_path: Path) -> None:
    asked = transcode_of(
        media / "clip.mp4",
        with_sound(encoded("aac", height=36), "aac", bit_rate_bps=64000, channels=1, sample_rate_hz=44100),
        with_sound(encoded("opus", height=54), "opus"),
        with_sound(encoded("copy", height=72), "copy"),
        with_sound(encoded("none", height=90), "none"),
        with_sound(media_pb2.Rendition(id="alone"), "aac"),
    )
    _, files = done(cpu_client, asked, tmp_path)
    found = {name: decode(path) for name, path in files.items()}
    assert (found["aac.mp4"].audio_codec, found["aac.mp4"].audio_rate_hz) == ("aac", 44100)
    assert found["aac.mp4"].audio_layout == "mono"
    assert (found["opus.mp4"].audio_codec, found["opus.mp4"].audio_rate_hz) == ("opus", 48000)
    assert found["copy.mp4"].audio_codec == "aac"
    assert found["none.mp4"].audio_codec is None
    assert found["alone.mp4"].streams == ("Audio",)
    for made in found.values():
        assert made.audio_s == pytest.approx(0 if made.audio_codec is None else 2, abs=0.1)
        assert not made.complaints


def test_video_that_is_passed_through_is_the_same_frame_for_frame(
    cpu_client: Client, media: Path, tmp_path: Path
) -> None:
    copied = with_sound(media_pb2.Rendition(id="copy", passthrough=media_pb2.VideoPassthrough()), "copy")
    ended, files = done(cpu_client, transcode_of(media / "clip.mp4", copied), tmp_path)
    made, source = decode(files["copy.mp4"]), decode(media / "clip.mp4")
    assert made.frame_times_s == source.frame_times_s
    assert likeness_db(files["copy.mp4"], media / "clip.mp4") == 100
    assert ended.workload.decode_pixels_per_second == 0


@pytest.mark.parametrize(
    ("size", "asked", "result"),
    [
        ("321x181", {}, (320, 180)),
        ("321x181", {"height": 90}, (160, 90)),
        ("180x320", {"width": 160, "height": 90}, (50, 90)),
        ("320x180", {"width": 160, "height": 160}, (160, 90)),
        ("320x180", {"width": 160, "height": 160, "fit": media_pb2.FIT_STRETCH}, (160, 160)),
        ("1280x64", {"width": 640}, (640, 32)),
    ],
)
def test_odd_and_unusual_sizes_become_even_ones_of_the_same_shape(
    cpu_client: Client,
    media: Path,
    tmp_path: Path,
    size: str,
    asked: dict[str, Any],
    result: tuple[int, int],
) -> None:
    source = make_media(media / f"size-{size}.mkv", "-c:v", "ffv1", size=size, seconds=0.5)
    _, files = done(cpu_client, transcode_of(source, encoded(**asked)), tmp_path)
    made = decode(files["out.mp4"])
    width, height = made.width or 0, made.height or 0
    assert (width, height) == pytest.approx(result, abs=2)
    assert width % 2 == height % 2 == 0
    assert made.frames == 15
    assert not made.complaints


def test_frame_rate_keyframes_and_bit_rate_are_as_asked(cpu_client: Client, media: Path, tmp_path: Path) -> None:
    half = media_pb2.FrameRate(numerator=15000, denominator=1001)
    slow = encoded("slow", height=90, frame_rate=half)
    slow.encode.keyframe_interval.FromTimedelta(timedelta(seconds=0.5))
    asked = transcode_of(
        media / "long.mp4",
        slow,
        encoded("small", height=180, bit_rate_bps=100_000),
        encoded("large", height=180, bit_rate_bps=800_000),
    )
    asked.transcode.input.duration.FromTimedelta(timedelta(seconds=6))
    _, files = done(cpu_client, asked, tmp_path)
    made = decode(files["slow.mp4"])
    assert made.frame_rate == pytest.approx(float(Fraction(15000, 1001)), rel=0.001)
    gaps = [after - before for before, after in zip(made.key_times_s, made.key_times_s[1:], strict=False)]
    assert len(gaps) == 11
    assert max(gaps) <= 0.5 + 1.5 / 15
    bits_per_second = {name: files[f"{name}.mp4"].stat().st_size * 8 / 6 for name in ("small", "large")}
    sound = 128_000
    assert bits_per_second["small"] - sound < 180_000
    assert 500_000 < bits_per_second["large"] - sound < 1_100_000


def test_start_duration_and_repeats_cut_the_input_as_asked(cpu_client: Client, media: Path, tmp_path: Path) -> None:
    cut = media_pb2.Input(uri=str(media / "long.mp4"))
    cut.start_offset.FromTimedelta(timedelta(seconds=10))
    cut.duration.FromTimedelta(timedelta(seconds=1.5))
    ended, files = done(cpu_client, transcode_of(cut, encoded(height=90)), tmp_path / "cut")
    assert decode(files["out.mp4"]).frames == 45
    assert ended.progress.total_time.ToTimedelta() == timedelta(seconds=1.5)
    twice = media_pb2.Input(uri=str(media / "clip.mp4"), repeat_count=1)
    _, files = done(cpu_client, transcode_of(twice, encoded(height=90)), tmp_path / "twice")
    made = decode(files["out.mp4"])
    assert made.frames == pytest.approx(120, abs=2)
    assert not made.complaints


def test_native_rate_is_no_faster_than_real_time(cpu_client: Client, media: Path) -> None:
    slow = media_pb2.Input(uri=str(media / "clip.mp4"), native_rate=True)
    ended = cpu_client.wait(cpu_client.submit(transcode_of(slow)))
    assert ended.state == SUCCEEDED
    assert ended.workload.real_time
    took = ended.end_time.ToDatetime() - ended.create_time.ToDatetime()
    # ffmpeg gives itself half a second ahead of the clock.
    assert took >= timedelta(seconds=1.4)


def test_a_session_that_loops_for_ever_ends_when_it_is_stopped_and_what_it_made_plays(
    cpu_client: Client, media: Path, tmp_path: Path
) -> None:
    session = cpu_client.submit(transcode_of(live_input(media / "clip.mp4"), encoded(height=90)))
    await_state(cpu_client, session.name, session_pb2.SESSION_STATE_RUNNING)
    cpu_client.stop_session(session.name)
    ended = cpu_client.wait(session)
    assert ended.state == session_pb2.SESSION_STATE_CANCELLED, ended.failure
    cpu_client.download_artifacts(session.name, tmp_path)
    made = decode(tmp_path / "out.mp4")
    assert made.frames > 0
    assert not made.complaints


def test_max_duration_ends_a_session_in_good_order(cpu_client: Client, media: Path, tmp_path: Path) -> None:
    asked = transcode_of(live_input(media / "clip.mp4"), encoded(height=90))
    asked.max_duration.FromTimedelta(timedelta(seconds=1))
    _, files = done(cpu_client, asked, tmp_path)
    assert decode(files["out.mp4"]).frames >= 20


def test_one_rendition_to_two_files_and_hls_is_encoded_once(
    cpu_daemon: RunningDaemon, cpu_client: Client, media: Path, exports: Path, tmp_path: Path
) -> None:
    exported = exports / "one-of-three.mkv"
    asked = transcode_of(
        media / "clip.mp4",
        encoded(height=90),
        outputs=[to_file("one.mp4"), to_file(exported), to_hls("show", segment_s=2)],
    )
    ended, files = done(cpu_client, asked, tmp_path)
    launched = json.loads((cpu_daemon.attempt_folder(ended.name) / "launch.json").read_text())["argv"]
    assert " ".join(launched).count("libx264") == 1
    for place in (files["one.mp4"], exported, files["show/master.m3u8"]):
        made = decode(place)
        assert (made.size, made.frames) == ((160, 90), 60), place
        assert made.audio_s == pytest.approx(2, abs=0.1)
        assert not made.complaints


def test_a_file_takes_several_renditions_as_tracks(cpu_client: Client, media: Path, tmp_path: Path) -> None:
    asked = transcode_of(
        media / "clip.mp4",
        encoded("a", height=90),
        encoded("b", "hevc", height=54),
        outputs=[to_file("both.mkv", "a", "b")],
    )
    _, files = done(cpu_client, asked, tmp_path)
    assert decode(files["both.mkv"]).streams.count("Video") == 2


def test_a_profile_of_the_settings_makes_its_whole_ladder(
    cpu_daemon: RunningDaemon, media: Path, tmp_path: Path
) -> None:
    told = cpu_daemon.cli(
        "transcode",
        media / "clip.mp4",
        "-o",
        tmp_path / "{rendition}.mp4",
        "--profile",
        "ladder-h264",
        "--duration",
        "0.5",
    )
    assert told.returncode == 0, told.stderr
    made = {path.stem: decode(path) for path in tmp_path.iterdir()}
    assert sorted(made) == ["1080p", "360p", "480p", "720p"]
    # Sizes are boxes: a small input is enlarged to what was asked for.
    assert made["360p"].size == (640, 360)
    assert all(one.frames == 15 and not one.complaints for one in made.values())


def test_an_absolute_output_arrives_complete_and_an_existing_one_only_gives_way_when_asked(
    cpu_daemon: RunningDaemon, cpu_client: Client, media: Path, exports: Path
) -> None:
    place = exports / "existing.mp4"
    asked = transcode_of(media / "clip.mp4", encoded(height=90), outputs=[to_file(place)])
    ended = cpu_client.wait(cpu_client.submit(asked))
    assert ended.state == SUCCEEDED, ended.failure
    first = place.read_bytes()
    assert decode(place).frames == 60
    refused = cpu_daemon.cli("transcode", media / "clip.mp4", "--server-output", place, "-r", "90p")
    assert refused.returncode == 3
    assert "exists already" in refused.stderr
    assert place.read_bytes() == first
    again = cpu_daemon.cli("transcode", media / "clip.mp4", "--server-output", place, "-r", "54p", "-y")
    assert again.returncode == 0, again.stderr
    assert decode(place).size == (96, 54)
    assert not [path for path in exports.iterdir() if "part" in path.name or path.name.startswith(".")]


def test_labels_narrow_lists_and_pages_hold_every_session_once(cpu_client: Client, media: Path) -> None:
    from gpu_balancer.client.session_requests import session_filter

    copied = with_sound(media_pb2.Rendition(id="copy", passthrough=media_pb2.VideoPassthrough()), "copy")
    made = [
        cpu_client.submit(transcode_of(media / "clip.mp4", copied, labels={"batch": "paged", "number": str(number)}))
        for number in range(5)
    ]
    for session in made:
        assert cpu_client.wait(session).state == SUCCEEDED
    names = [session.name for session in made]
    paged = list(cpu_client.list_sessions(session_filter(labels={"batch": "paged"}), page_size=2))
    assert [session.name for session in paged] == names[::-1]
    narrowed = list(cpu_client.list_sessions(session_filter(labels={"batch": "paged", "number": "3"})))
    assert [session.name for session in narrowed] == [names[3]]
    running = session_filter([session_pb2.SESSION_STATE_RUNNING], labels={"batch": "paged"})
    assert not list(cpu_client.list_sessions(running))
