"""What ffmpeg says of inputs, as two of its versions really said it (descriptions/)."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.pipelines.input_description import parse_input_description
from agents.pipelines.job import FrameRate, InputFacts, VideoCodec
from agents.pipelines.pixel_formats import pixel_format

DESCRIPTIONS = Path(__file__).parent / "descriptions"
_RATE = FrameRate(numerator=25, denominator=1)
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"


def _facts(
    codec: VideoCodec,
    format_name: str,
    seconds: float,
    *,
    width: int = 320,
    height: int = 180,
    depth: int = 8,
    chroma: str = "4:2:0",
    rate: FrameRate = _RATE,
    audio: str | None = None,
    rotation: int = 0,
) -> InputFacts:
    return InputFacts(
        width=width,
        height=height,
        frame_rate=rate,
        video_codec=codec,
        bit_depth=depth,
        chroma=chroma,
        has_audio=audio is not None,
        audio_codec=audio,
        duration=timedelta(seconds=seconds),
        format=format_name,
        rotation_degrees=rotation,
    )


_NTSC = FrameRate(numerator=30000, denominator=1001)
_EXPECTED = {
    "clip": _facts(VideoCodec.H264, _MP4, 4, audio="aac"),
    "deep": _facts(VideoCodec.H264, "matroska,webm", 1.01, depth=10, chroma="4:2:2", rate=_NTSC, audio="opus"),
    "turned": _facts(VideoCodec.H264, _MP4, 1.02, width=180, height=320, audio="aac", rotation=270),
    "oblong": _facts(VideoCodec.MPEG2, "mpegts", 1, width=352, height=288),
    "vp9": _facts(VideoCodec.VP9, "matroska,webm", 1, depth=10),
    "hevc": _facts(VideoCodec.HEVC, _MP4, 1, depth=10),
    "mjpeg": _facts(VideoCodec.MJPEG, "avi", 1),
    "av1": _facts(VideoCodec.AV1, _MP4, 1),
    "rgb": _facts(VideoCodec.OTHER, "nut", 0.96, chroma="rgb"),
    "gray": _facts(VideoCodec.OTHER, "matroska,webm", 1, chroma="4:0:0"),
    "transport-stream": _facts(VideoCodec.H264, "mpegts", 4.02, audio="aac"),
    "cover": _facts(VideoCodec.H264, _MP4, 0.04, audio="aac"),
    "sound-only": InputFacts(has_audio=True, audio_codec="pcm_s16le", duration=timedelta(seconds=1), format="wav"),
}
_ERRORS = {
    "missing": "No such file or directory",
    "text": "Invalid data found when processing input",
    "empty": "Invalid data found when processing input",
}


def _text(name: str, version: str) -> str:
    return (DESCRIPTIONS / f"{name}.{version}.txt").read_text()


def test_every_recorded_description_is_expected() -> None:
    recorded = {path.name.split(".", 1)[0] for path in DESCRIPTIONS.iterdir()}
    assert recorded == set(_EXPECTED) | set(_ERRORS)


@pytest.mark.parametrize("version", ["5.1", "9.0"])
@pytest.mark.parametrize("name", sorted(_EXPECTED))
def test_facts_are_read_from_what_ffmpeg_said(name: str, version: str) -> None:
    told = parse_input_description(_text(name, version))
    assert told.error is None
    assert told.facts == _EXPECTED[name]


@pytest.mark.parametrize("version", ["5.1", "9.0"])
@pytest.mark.parametrize("name", sorted(_EXPECTED))
def test_levels_in_front_of_lines_change_nothing(name: str, version: str) -> None:
    text = _text(name, version)
    levelled = "\n".join(f"[info] {line}" for line in text.splitlines())
    assert parse_input_description(levelled).facts == parse_input_description(text).facts


@pytest.mark.parametrize("version", ["5.1", "9.0"])
@pytest.mark.parametrize("name", sorted(_ERRORS))
def test_the_reason_is_read_when_an_input_cannot_be_opened(name: str, version: str) -> None:
    told = parse_input_description(_text(name, version))
    assert told.error == _ERRORS[name]
    assert told.facts == InputFacts()
    assert not told.has_video


def test_oblong_pixels_are_told() -> None:
    video = parse_input_description(_text("oblong", "9.0")).streams[0]
    assert video.sample_aspect_ratio == Fraction(16, 11)


def test_a_cover_picture_is_no_video() -> None:
    told = parse_input_description(_text("cover", "9.0"))
    assert [stream.attached_picture for stream in told.streams if stream.kind == "video"] == [False, True]


def test_a_stream_without_known_end_has_no_duration() -> None:
    text = _text("transport-stream", "9.0").replace("00:00:04.02", "N/A")
    assert parse_input_description(text).facts.duration is None


def test_an_unknown_picture_stays_unknown() -> None:
    text = (
        "Input #0, mpegts, from 'x':\n  Duration: N/A, start: 1.4, bitrate: N/A\n"
        "  Stream #0:0[0x100]: Video: h264 ([27][0][0][0] / 0x001B), none, 90k tbr, 90k tbn\n"
    )
    told = parse_input_description(text)
    assert told.error is None
    assert not told.has_video
    assert told.facts.video_codec is VideoCodec.H264
    assert told.facts.bit_depth is None
    assert told.facts.frame_rate is None


@pytest.mark.parametrize(
    ("told", "exact"),
    [("23.98", (24000, 1001)), ("59.94", (60000, 1001)), ("24", (24, 1)), ("12.50", (25, 2)), ("1k", (1000, 1))],
)
def test_frame_rates_are_exact_fractions(told: str, exact: tuple[int, int]) -> None:
    text = f"Input #0, x, from 'x':\n  Stream #0:0: Video: h264, yuv420p, 64x64, {told} fps, 90k tbn\n"
    assert parse_input_description(text).facts.frame_rate == FrameRate(numerator=exact[0], denominator=exact[1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yuv420p", (8, "4:2:0")),
        ("yuvj422p", (8, "4:2:2")),
        ("yuv444p12le", (12, "4:4:4")),
        ("yuva420p", (8, "4:2:0")),
        ("nv12", (8, "4:2:0")),
        ("p010le", (10, "4:2:0")),
        ("p210le", (10, "4:2:2")),
        ("gray10le", (10, "4:0:0")),
        ("gbrp10le", (10, "rgb")),
        ("rgb48le", (16, "rgb")),
        ("bgra", (8, "rgb")),
        ("pal8", (8, "rgb")),
        ("uyvy422", (8, "4:2:2")),
        ("something_new", (None, None)),
    ],
)
def test_pixel_formats_are_known_by_name(name: str, expected: tuple[int | None, str | None]) -> None:
    assert pixel_format(name) == expected


@given(st.text())
def test_no_text_makes_reading_fail(text: str) -> None:
    parse_input_description(text)


_PIECES = st.sampled_from(
    [
        "Input #0, mpegts, from 'x':",
        "  Duration: 99999999999:61:99.99, start: 0",
        "  Duration: 00:00:00.00, start: 0",
        "  Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31), yuv420p(tv), 0x0 [SAR 0:1 DAR 0:1], 0 fps",
        "  Stream #0:1: Audio: ",
        "  Stream #0:99999999999999999999: Video: ,,,,((((",
        "  Stream #0:3: Subtitle: dvb_subtitle",
        "      Display Matrix: rotation of -90.00 degrees",
        "      displaymatrix: rotation of nan degrees",
        "Output #0, null, to 'pipe:':",
    ]
)


@given(st.lists(st.one_of(_PIECES, st.text(max_size=30)), max_size=12))
def test_no_mixture_of_lines_makes_reading_fail(lines: list[str]) -> None:
    told = parse_input_description("\n".join(lines))
    assert (told.error is None) == any(line.startswith("Input #0") for line in "\n".join(lines).splitlines())
