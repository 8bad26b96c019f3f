"""What people write and what it means."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpu_balancer.client.spelling import (
    PictureSize,
    parse_bit_rate,
    parse_facts,
    parse_frame_rate,
    parse_label,
    parse_rendition,
    parse_reserved_speed,
    parse_size,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("2500k", 2_500_000), ("2.5M", 2_500_000), ("2500000", 2_500_000), ("1G", 1_000_000_000), ("16K", 16_000)],
)
def test_a_bit_rate_counts_in_thousands(text: str, bits: int) -> None:
    assert parse_bit_rate(text) == bits


@pytest.mark.parametrize("text", ["", "k", "fast", "-5k", "15k", "2G", "1e6", "٣k", "nan"])
def test_what_is_no_bit_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bit_rate(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("10.5", 10.5),
        ("1:30", 90),
        ("00:01:30.5", 90.5),
        ("100:00:00", 360_000),
        ("90s", 90),
        ("500ms", 0.5),
        ("2m", 120),
        ("1h", 3600),
        ("0", 0),
    ],
)
def test_a_time_is_seconds_or_a_clock(text: str, seconds: float) -> None:
    assert parse_time(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:61:00", "soon", "1:2:3:4", "inf", "9" * 30])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "width", "height"),
    [("1280x720", 1280, 720), ("720p", None, 720), ("x720", None, 720), ("1280x", 1280, None), ("source", None, None)],
)
def test_a_size_may_leave_a_side_open(text: str, width: int | None, height: int | None) -> None:
    assert parse_size(text) == PictureSize(width=width, height=height)


@pytest.mark.parametrize("text", ["0x0", "100000x100000", "1281x720", "14x14", "x", "axb", "-2x720", "1" * 5000 + "p"])
def test_a_size_that_no_encoder_takes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("30", (30, 1)), ("29.97", (30000, 1001)), ("30000/1001", (30000, 1001)), ("12.5", (25, 2))]
)
def test_a_frame_rate_becomes_a_fraction(text: str, rate: tuple[int, int]) -> None:
    assert parse_frame_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "-30", "1001", "30/0", "fast", "", "1e9", "nan", "inf"])
def test_an_absurd_frame_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no frame rate"):
        parse_frame_rate(text)


@pytest.mark.parametrize(
    ("text", "speed"), [("0.01", 0.01), (".5", 0.5), ("2", 2.0), ("1.5x", 1.5), ("1000X", 1000.0), (" 1 ", 1.0)]
)
def test_a_speed_is_told_in_times_real_time(text: str, speed: float) -> None:
    assert parse_reserved_speed(text) == speed


@pytest.mark.parametrize("text", ["", "0", "0.009", "1000.1", "-1", "nan", "inf", "1e3", "x", "2xx", "9" * 400])
def test_an_absurd_speed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no speed of 0\.01 to 1000"):
        parse_reserved_speed(text)


def test_a_rendition_has_size_codec_and_rate() -> None:
    told = parse_rendition("1280x720:hevc:2.5M")
    assert (told.size, told.codec, told.bit_rate_bps) == (PictureSize(width=1280, height=720), "hevc", 2_500_000)


def test_a_rendition_may_have_a_name_and_a_quality() -> None:
    told = parse_rendition("main=720p::q23", default_codec="av1")
    assert (told.id, told.codec, told.quality, told.bit_rate_bps) == ("main", "av1", 23, None)


def test_a_rendition_may_pass_the_video_through() -> None:
    assert parse_rendition("copy").passthrough


@pytest.mark.parametrize(
    "text", ["", ":h264", "720p:vp9", "720p:h264:q52", "720p:h264:q-1", "720p:h264:1M:x", "a/b=720p", "720p:h264:q²"]
)
def test_a_wrong_part_of_a_rendition_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rendition(text)


def test_facts_have_a_size_and_may_have_rate_and_codec() -> None:
    facts = parse_facts("1280x720@30:h265")
    assert (facts.width, facts.height, facts.frame_rate, facts.codec) == (1280, 720, (30, 1), "hevc")


@pytest.mark.parametrize("text", ["", "1280x", "0x720", "1280x720@0", "00x10"])
def test_facts_without_a_size_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_facts(text)


def test_a_label_is_split_at_its_first_equals_sign() -> None:
    assert parse_label("a=b=c") == ("a", "b=c")


@pytest.mark.parametrize("text", ["a", "=b", "k" * 64 + "=v", "k=" + "v" * 256])
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_label(text)
