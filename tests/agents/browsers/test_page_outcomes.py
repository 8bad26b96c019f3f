"""What becomes of pages that do not behave, with a real browser: each row of the table in `chromium_page`."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from agents.browsers.page import PageEnd, PageFault
from agents.pipelines.recording import Cookie, GateKind, PageSource, StartGate
from fakes.page_server import PageServer, self_signed_certificate
from fakes.shown_pages import ShownPages, shown_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

GREEN = "<body style='background:#00ff00'><h1>page</h1>"
END = "<script>setTimeout(() => console.log('END_RECORDING'), {delay})</script>"
SHORT = StartGate(timeout=timedelta(seconds=0.6))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ShownPages]:
    async with shown_pages(tmp_path_factory.mktemp("pages")) as shown:
        shown.server.page("/", GREEN)
        yield shown


async def reason(pages: ShownPages, source: PageSource | str, gate: StartGate = StartGate()) -> str:  # noqa: B008
    with pytest.raises(PageFault) as caught:
        async with pages.shown(source, gate):
            pass
    assert ". Try " in str(caught.value)
    return caught.value.reason


async def test_a_page_is_on_the_screen_when_its_gate_is_passed(pages: ShownPages) -> None:
    pages.server.page("/blue", GREEN.replace("#00ff00", "#0000ff"))
    for path, colour in [("/", (0, 255, 0)), ("/blue", (0, 0, 255))] * 2:
        async with pages.shown(path):
            assert pages.pixel() == colour


async def test_nothing_but_the_page_gets_into_the_picture(pages: ShownPages) -> None:
    script = """
      print(); Notification.requestPermission(); navigator.geolocation.getCurrentPosition(() => 0);
      navigator.credentials.get({publicKey: {challenge: new Uint8Array(32), rpId: 'localhost'}});
      location = 'mailto:a@b.example'; setTimeout(() => { location = 'x-unknown:y' }, 50);
      setTimeout(() => { location = '/away' }, 100);"""
    pages.server.redirect("/away", "x-other:y")
    pages.server.page("/asks", f"<body style='background:#00ff00'>x{END.format(delay=600)}<script>{script}</script>")
    async with pages.shown(PageSource(url=pages.server.url("/asks", host="localhost"))) as driver:
        assert await driver.ended() is PageEnd.SIGNAL
        shown = pages.picture()
        assert {shown.pixel(x, y) for x in range(40, 640, 40) for y in range(40, 360, 40)} == {(0, 255, 0)}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://no-such-host.invalid/", "PAGE_UNREACHABLE"),
        ("http://127.0.0.1:1/", "PAGE_NOT_ALLOWED"),
        ("chrome://crash", "PAGE_NOT_ALLOWED"),
        ("file:///etc/passwd", "PAGE_NOT_ALLOWED"),
    ],
)
async def test_a_page_that_cannot_be_there_is_told_by_its_reason(pages: ShownPages, url: str, expected: str) -> None:
    assert await reason(pages, PageSource(url=url)) == expected


@pytest.mark.parametrize(
    "wished",
    [
        {"timezone": "Mars/Olympus"},
        {"locale": "xx-YY-zzzz"},
        {"cookies": (Cookie(name="__Host-a", value="b"),)},
        {"init_script": "let one = 1;\nlet one = 2;"},
    ],
    ids=lambda wished: next(iter(wished)),
)
async def test_a_setting_that_the_browser_refuses_is_told_so(pages: ShownPages, wished: dict[str, Any]) -> None:
    assert await reason(pages, PageSource(url=pages.server.url(), **wished)) == "PAGE_SETTING_REFUSED"


async def test_a_server_that_refuses_connections_is_unreachable(pages: ShownPages) -> None:
    async with PageServer() as closed:
        url = closed.url()
    assert await reason(pages, PageSource(url=url)) == "PAGE_UNREACHABLE"


async def test_a_server_that_does_not_answer_in_time_is_unreachable(pages: ShownPages) -> None:
    pages.server.answers["/silent"] = None
    assert await reason(pages, "/silent", SHORT) == "PAGE_UNREACHABLE"


async def test_redirects_in_a_circle_are_unreachable(pages: ShownPages) -> None:
    pages.server.redirect("/circle", "/circle")
    assert await reason(pages, "/circle") == "PAGE_UNREACHABLE"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "data:text/html,x", "chrome://version", "mailto:a@b", "x:y"])
async def test_redirects_to_other_schemes_are_not_allowed(pages: ShownPages, target: str) -> None:
    pages.server.redirect("/away", target)
    assert await reason(pages, "/away") == "PAGE_NOT_ALLOWED"


async def test_an_http_error_is_one_unless_it_is_accepted(pages: ShownPages) -> None:
    pages.server.page("/gone", GREEN, status="410 Gone")
    assert await reason(pages, "/gone") == "PAGE_HTTP_ERROR"
    async with pages.shown(PageSource(url=pages.server.url("/gone"), accept_http_errors=True)):
        assert pages.pixel() == (0, 255, 0)
    pages.server.page("/bare", "", status="503 Service Unavailable")
    assert await reason(pages, "/bare") == "PAGE_HTTP_ERROR"
    async with pages.shown(PageSource(url=pages.server.url("/bare"), accept_http_errors=True)):
        pass


async def test_a_bad_certificate_is_one_unless_it_is_ignored(pages: ShownPages, tmp_path: Path) -> None:
    async with PageServer(certificate=self_signed_certificate(tmp_path)) as server:
        server.page("/", GREEN)
        assert await reason(pages, PageSource(url=server.url())) == "PAGE_CERTIFICATE"
        async with pages.shown(PageSource(url=server.url(), ignore_certificate_errors=True)):
            assert pages.pixel() == (0, 255, 0)


async def test_a_password_is_asked_of_nobody(pages: ShownPages) -> None:
    question = "WWW-Authenticate: Basic realm=x\r\n"
    pages.server.page("/secret", GREEN, status="401 Unauthorized", headers=question)
    assert await reason(pages, "/secret") == "PAGE_HTTP_ERROR"
    pages.server.page("/asks", f"{GREEN}<script>fetch('/secret').then(() => console.log('END_RECORDING'))</script>")
    async with pages.shown("/asks") as driver:
        assert await driver.ended() is PageEnd.SIGNAL
        assert pages.pixel(320, 20) == (0, 255, 0)


async def test_a_gate_that_is_never_passed_times_out(pages: ShownPages) -> None:
    pages.server.page("/empty", "<body style='background:#00ff00'></body>")
    assert await reason(pages, "/empty", SHORT) == "GATE_TIMEOUT"
    for kind in (GateKind.SELECTOR, GateKind.CONSOLE_SIGNAL):
        gate = StartGate(kind=kind, timeout=SHORT.timeout, selector="#nothing")
        assert await reason(pages, "/", gate) == "GATE_TIMEOUT"


@pytest.mark.parametrize("kind", [GateKind.CONSOLE_SIGNAL, GateKind.SELECTOR])
async def test_a_page_that_has_ended_waits_for_no_gate(pages: ShownPages, kind: GateKind) -> None:
    pages.server.page("/over", GREEN + END.format(delay=0))
    gate = StartGate(kind=kind, timeout=timedelta(seconds=60), selector="#nothing")
    async with pages.shown("/over", gate) as driver:
        assert await driver.ended() is PageEnd.SIGNAL


async def test_a_selector_that_is_no_css_is_told_at_once(pages: ShownPages) -> None:
    gate = StartGate(kind=GateKind.SELECTOR, timeout=timedelta(minutes=5), selector="$binding ]][")
    assert await reason(pages, "/", gate) == "GATE_TIMEOUT"


@pytest.mark.parametrize(
    ("gate", "script"),
    [
        (StartGate(kind=GateKind.SELECTOR, selector=".ready"), "document.body.className = 'ready'"),
        (StartGate(kind=GateKind.CONSOLE_SIGNAL), "console.log('START_RECORDING')"),
        (StartGate(kind=GateKind.NETWORK_IDLE), ""),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
async def test_every_gate_is_passed_when_its_moment_is_on_the_screen(
    pages: ShownPages, gate: StartGate, script: str
) -> None:
    late = f"setTimeout(() => {{ document.body.style.background = '#0000ff'; {script} }}, 200)"
    pages.server.page("/late", f"{GREEN}<script>{late}</script>")
    async with pages.shown("/late", gate):
        assert pages.pixel() == (0, 0, 255)


async def test_the_gate_that_awaits_nothing_is_open(pages: ShownPages) -> None:
    async with pages.page("/", StartGate(kind=GateKind.IMMEDIATELY)) as driver:
        await driver.open()
        assert await driver.pass_gate() < timedelta(seconds=20)


async def test_a_storm_of_dialogs_is_not_seen_and_counted(pages: ShownPages) -> None:
    storm = "for (let i = 0; i < 300; i++) { alert(i); confirm(i) || prompt(i); }"
    pages.server.page("/storm", f"{GREEN}<script>{storm}</script>{END.format(delay=0)}")
    async with pages.shown("/storm") as driver:
        assert await driver.ended() is PageEnd.SIGNAL
        assert pages.pixel(320, 60) == (0, 255, 0)
        assert driver.figures().dismissed_dialogs == 900


async def test_a_flood_of_messages_is_bounded_and_hides_no_signal(pages: ShownPages) -> None:
    flood = "setInterval(() => { for (let i = 0; i < 2000; i++) console.log('flood ' + i); Promise.reject(i) }, 1)"
    page = f"{GREEN}<script>{flood}; console.log('x'.repeat(1e6))</script>{END.format(delay=1500)}"
    pages.server.page("/flood", page)
    async with pages.shown("/flood") as driver:
        assert await driver.ended() is PageEnd.SIGNAL
    lines = pages.log.read_text().splitlines()
    said = [line for line in lines if "console log" in line]
    assert 100 <= len(said) < 1000
    assert any("further messages of this second are left out" in line for line in said)
    assert any("/flood:" in line for line in said), "told where it was said, not who passed it on"


async def test_a_request_whose_answer_nobody_reads_is_not_under_way(pages: ShownPages) -> None:
    pages.server.page("/beacon", f"{GREEN}<script>fetch('/')</script>")
    async with pages.page("/beacon", StartGate(kind=GateKind.NETWORK_IDLE, timeout=timedelta(seconds=20))) as driver:
        await driver.open()
        assert await driver.pass_gate() >= timedelta(seconds=0.5)


async def test_windows_and_downloads_are_stopped_and_counted(pages: ShownPages) -> None:
    script = "window.open('/'); link.click(); location = '/file'"
    link = "<a id=link target=_blank href=/>x</a>"
    pages.server.page("/file", "x", headers="Content-Disposition: attachment; filename=x.bin\r\n")
    # The end first: a page that goes elsewhere while it is read is not read any further.
    pages.server.page("/opens", f"{GREEN}{link}{END.format(delay=300)}<script>{script}</script>")
    async with pages.shown("/opens") as driver:
        assert await driver.ended() is PageEnd.SIGNAL
        assert pages.pixel() == pages.pixel(320, 70) == (0, 255, 0)
        figures = driver.figures()
    assert figures.closed_popups >= 2
    assert figures.cancelled_downloads == 1
    log = pages.log.read_text()
    assert "popup: http" in log
    assert "download: x.bin" in log


async def test_other_schemes_are_not_reached_from_within_a_page(pages: ShownPages) -> None:
    targets = ["file:///etc/passwd", "chrome://version", "view-source:http://127.0.0.1/", "data:text/html,x"]
    script = "".join(f"setTimeout(() => {{ location = '{url}' }}, {50 * i});" for i, url in enumerate(targets))
    pages.server.page("/leaves", f"{GREEN}{END.format(delay=500)}<script>{script}</script>")
    async with pages.shown("/leaves") as driver:
        assert await driver.ended() is PageEnd.SIGNAL
        assert pages.pixel() == (0, 255, 0)


async def test_a_page_that_leaves_is_not_held_back(pages: ShownPages) -> None:
    script = "onbeforeunload = (event) => { event.preventDefault(); return 'stay'; }; location = '/next'"
    pages.server.page("/next", f"{GREEN}{END.format(delay=0)}")
    pages.server.page("/holds", f"<h1>first</h1><script>{script}</script>")
    async with pages.shown("/holds") as driver:
        assert await driver.ended() is PageEnd.SIGNAL


async def test_a_page_that_closes_itself_is_done_and_stays_in_the_picture(pages: ShownPages) -> None:
    pages.server.page("/closes", f"{GREEN}<script>setTimeout(() => window.close(), 3000)</script>")
    async with pages.shown("/closes") as driver:
        assert await driver.ended() is PageEnd.CLOSED
        assert pages.pixel() == (0, 255, 0)


async def test_a_page_that_never_finishes_loading_is_recorded(pages: ShownPages) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + GREEN.encode() + b" " * 2000
        await asyncio.Event().wait()

    pages.server.streams["/endless"] = endless
    async with pages.shown("/endless"):
        assert pages.pixel() == (0, 255, 0)


async def test_a_page_of_50_mb_is_recorded(pages: ShownPages) -> None:
    async def big() -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + GREEN.encode() + b"<!--"
        for _ in range(50):
            yield b"x" * 1_000_000
        yield b"-->" + END.format(delay=0).encode()

    pages.server.streams["/big"] = big
    pages.server.answers["/big"] = b""
    async with pages.shown("/big") as driver:
        assert await driver.ended() is PageEnd.SIGNAL


async def test_a_lost_webgl_context_does_not_end_the_page(pages: ShownPages) -> None:
    script = """
      const gl = document.createElement('canvas').getContext('webgl');
      gl.canvas.addEventListener('webglcontextlost', () => console.log('END_RECORDING'));
      console.log('START_RECORDING');"""
    pages.server.page("/webgl", f"{GREEN}<script>{script}</script>")
    async with pages.shown("/webgl", StartGate(kind=GateKind.CONSOLE_SIGNAL)) as driver:
        os.kill(_child_of(pages, "gpu-process"), signal.SIGKILL)
        assert await driver.ended() is PageEnd.SIGNAL
        assert pages.pixel() == (0, 255, 0)


async def test_what_a_page_says_is_in_its_log_without_secrets(pages: ShownPages) -> None:
    script = "console.warn('the hidden-value', 1); fetch('http://127.0.0.1:1/')"
    pages.server.page("/says", f"{GREEN}<script>{script}</script>{END.format(delay=200)}")
    source = PageSource(url=pages.server.url("/says"), headers={"X-Secret": "hidden-value"})
    async with pages.shown(source) as driver:
        assert await driver.ended() is PageEnd.SIGNAL
    log = pages.log.read_text()
    assert "console warning: the *** 1" in log
    assert "request failed: GET http://127.0.0.1:1/" in log
    assert "hidden-value" not in log


async def test_a_screenshot_is_a_png(pages: ShownPages, tmp_path: Path) -> None:
    async with pages.shown("/") as driver:
        await driver.save_screenshot(tmp_path / "shot.png")
    assert (tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG")


async def test_a_download_in_place_of_a_page_is_unreachable_and_cancelled(pages: ShownPages) -> None:
    pages.server.page("/file", "x", headers="Content-Disposition: attachment; filename=x.bin\r\n")
    with pytest.raises(PageFault, match="it is a download") as caught:
        async with pages.shown("/file"):
            pass
    assert caught.value.reason == "PAGE_UNREACHABLE"


async def test_a_page_whose_renderer_is_killed_has_crashed(pages: ShownPages, tmp_path: Path) -> None:
    async with pages.shown("/") as driver:
        for pid in _children_of(pages, "renderer"):
            os.kill(pid, signal.SIGKILL)
        assert await driver.ended() is PageEnd.CRASHED
        assert await driver.ended() is PageEnd.CRASHED
        await driver.save_screenshot(tmp_path / "shot.png")
    assert not (tmp_path / "shot.png").exists()


def _child_of(pages: ShownPages, kind: str) -> int:
    return _children_of(pages, kind)[0]


def _children_of(pages: ShownPages, kind: str) -> list[int]:
    profile = f"{pages.display.work}/profile"
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_text()
            except OSError:
                continue
            if f"--type={kind}" in line and profile in line:
                found.append(int(entry.name))
    return found
