"""How people write what belongs to recordings."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gpu_balancer.client.recording_spelling import (
    DURATION_BOUNDS,
    GATE_TIMEOUT_BOUNDS,
    CookieSpelling,
    ExtensionSpelling,
    GateSpelling,
    parse_bounded_time,
    parse_capture_rate,
    parse_cookie,
    parse_display_size,
    parse_extension,
    parse_gate,
    parse_header,
    parse_page_url,
    parse_watermark,
)


@pytest.mark.parametrize(
    "url", ["https://example.org", "HTTP://h:1/x?y#z", "file:///srv/page.html", "data:text/html,x"]
)
def test_a_url_has_a_scheme(url: str) -> None:
    assert parse_page_url(url) == url


@pytest.mark.parametrize("url", ["", "example.org", "localhost:8080/x", "./page.html", "/srv/page.html", "https://"])
def test_what_has_none_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="Try https://"):
        parse_page_url(url)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "about:blank", "mailto:somebody", "https:"])
def test_a_scheme_that_leads_to_no_page_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(javascript|about|mailto|https): leads to no page .* Try https://"):
        parse_page_url(url)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1280x720", (1280, 720)),
        ("720p", (1280, 720)),
        ("1080P", (1920, 1080)),
        ("480p", (854, 480)),
        ("64x64", (64, 64)),
    ],
)
def test_a_display_has_two_sides(text: str, size: tuple[int, int]) -> None:
    assert parse_display_size(text) == size


@pytest.mark.parametrize(
    "text", ["source", "", "1280x", "x720", "0x0", "20000x20000", "1281x720", "62x64", "32p", "big"]
)
def test_what_is_no_display_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_display_size(text)


def test_a_rate_is_bounded() -> None:
    assert parse_capture_rate("29.97") == (30000, 1001)
    assert parse_capture_rate("120") == (120, 1)
    for text in ("0", "121", "x"):
        with pytest.raises(ValueError, match="Try 30"):
            parse_capture_rate(text)


@pytest.mark.parametrize(
    ("text", "bounds", "words"),
    [
        ("0", DURATION_BOUNDS, "1s to 366 days"),
        ("9000h", DURATION_BOUNDS, "366 days"),
        ("1h", GATE_TIMEOUT_BOUNDS, "100ms to 10m"),
    ],
)
def test_a_time_outside_its_bounds_is_told_with_them(
    text: str, bounds: tuple[timedelta, timedelta], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        parse_bounded_time(text, bounds)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("immediately", GateSpelling(word="immediately")),
        ("paint", GateSpelling(word="paint")),
        ("network-idle", GateSpelling(word="network-idle")),
        ("selector:#a > b:hover", GateSpelling(word="selector", argument="#a > b:hover")),
        ("signal", GateSpelling(word="signal")),
        ("signal:GO", GateSpelling(word="signal", argument="GO")),
        ("window", GateSpelling(word="window")),
    ],
)
def test_a_gate_is_a_word_and_what_it_waits_for(text: str, gate: GateSpelling) -> None:
    assert parse_gate(text) == gate


@pytest.mark.parametrize("text", ["", "soon", "selector", "selector: ", "paint:x", "Paint"])
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_gate(text)


def test_headers_and_cookies_are_read_as_servers_write_them() -> None:
    assert parse_header("X-Key:  a: b ") == ("X-Key", "a: b")
    assert parse_cookie("a=b=c") == CookieSpelling(name="a", value="b=c")
    assert parse_cookie("id=1; Domain=.example.org; path=/x; Secure; HttpOnly") == CookieSpelling(
        name="id", value="1", domain=".example.org", path="/x", secure=True, http_only=True
    )


@pytest.mark.parametrize("text", ["hunter2", "bad name: hunter2", "X: hunter2\nY: z", ": hunter2"])
def test_a_wrong_header_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_header(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["hunter2", "=hunter2", "a b=hunter2", "a=hunter2; Max-Age=1"])
def test_a_wrong_cookie_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_cookie(text)
    assert "hunter2" not in str(caught.value)


def test_a_watermark_is_a_picture_and_a_corner() -> None:
    assert parse_watermark("logo.png") == ("logo.png", "")
    assert parse_watermark("a:b.png:Top-Left") == ("a:b.png", "top-left")
    assert parse_watermark("logo.png:middle") == ("logo.png:middle", "")
    with pytest.raises(ValueError, match="names no picture"):
        parse_watermark("")
    with pytest.raises(ValueError, match="names no picture"):
        parse_watermark(":top-left")


def test_a_length_is_the_whole_or_so_much_more() -> None:
    assert parse_extension("10m") == ExtensionSpelling(length=timedelta(minutes=10), added=False)
    assert parse_extension("+1:30") == ExtensionSpelling(length=timedelta(seconds=90), added=True)
    for text in ("+", "-5", "0", "forever"):
        with pytest.raises(ValueError):
            parse_extension(text)
