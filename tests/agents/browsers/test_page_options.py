"""What a page is told of its viewer, and that secrets go to its own origin only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from agents.browsers.page import PageEnd
from agents.browsers.page_settings import accepted_languages, cookie_command, emulation_commands
from agents.displays.display import Display
from agents.pipelines.recording import BasicAuth, ColorScheme, Cookie, PageSource
from fakes.page_server import PageServer
from fakes.shown_pages import ShownPages, shown_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

TELLS = """<body style='background:#00ff00; height: 5000px'><h1>page</h1><script>
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  console.log(JSON.stringify({
    size: [innerWidth, innerHeight], scale: devicePixelRatio, language: navigator.language, dark: dark,
    date: new Date(0).toLocaleDateString(), zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    agent: navigator.userAgent, bar: innerWidth - document.documentElement.clientWidth, cookie: document.cookie,
    extra: globalThis.extra,
  }));
  console.log('END_RECORDING');
</script>"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ShownPages]:
    async with shown_pages(tmp_path_factory.mktemp("pages")) as shown:
        shown.server.page("/", TELLS)
        yield shown


async def told(pages: ShownPages, **wishes: Any) -> dict[str, Any]:
    async with pages.shown(PageSource(url=pages.server.url(), **wishes)) as driver:
        assert await driver.ended() is PageEnd.SIGNAL
    line = next(line for line in reversed(pages.log.read_text().splitlines()) if '{"size"' in line)
    found: dict[str, Any] = json.loads(line[line.index("{") : line.rindex("}") + 1])
    return found


async def test_a_page_without_wishes_fills_the_display(pages: ShownPages) -> None:
    plain = await told(pages)
    assert plain["size"] == [640, 360]
    assert (plain["scale"], plain["language"], plain["dark"], plain["bar"]) == (1, "en-US", False, 0)
    assert "Chrome/" in plain["agent"]


async def test_a_page_is_told_what_was_wished(pages: ShownPages) -> None:
    wished = await told(
        pages,
        device_scale_factor=2.0,
        locale="de-DE",
        timezone="Asia/Tokyo",
        user_agent="Recorder/1",
        color_scheme=ColorScheme.DARK,
        init_script="globalThis.extra = 'set before';",
        cookies=(Cookie(name="seen", value="yes"), Cookie(name="hidden", value="no", http_only=True)),
    )
    assert wished["size"] == [320, 180]
    assert wished["scale"] == 2
    assert wished["language"] == "de-DE"
    assert wished["date"] == "1.1.1970"
    assert wished["zone"] == "Asia/Tokyo"
    assert wished["agent"] == "Recorder/1"
    assert wished["dark"] is True
    assert wished["extra"] == "set before"
    assert wished["cookie"] == "seen=***"
    sent = pages.server.headers_of("/")
    assert sent["accept-language"].startswith("de-DE,de")
    assert sent["user-agent"] == "Recorder/1"
    assert "hidden=no" in sent["cookie"]


async def test_a_scaled_page_fills_the_picture(pages: ShownPages) -> None:
    async with pages.shown(PageSource(url=pages.server.url(), device_scale_factor=2.0)):
        assert pages.pixel(-1, -1) == pages.pixel(-1, 5) == pages.pixel(5, -1) == (0, 255, 0)


async def test_scroll_bars_are_shown_when_they_are_wished(pages: ShownPages) -> None:
    assert (await told(pages, show_scrollbars=True))["bar"] > 0


async def test_secrets_go_to_the_pages_own_origin_only(pages: ShownPages) -> None:
    async with PageServer() as stranger:
        stranger.page("/script", "", headers="Access-Control-Allow-Origin: *\r\n")
        stranger.page("/moved", "", headers="Access-Control-Allow-Origin: *\r\n")
        pages.server.redirect("/moves", stranger.url("/moved"))
        pages.server.page("/own", "x")
        script = f"""
          const asked = [fetch('/own'), fetch('{stranger.url("/script")}'), fetch('/moves', {{mode: 'no-cors'}})];
          Promise.allSettled(asked).then(() => console.log('END_RECORDING'));"""
        pages.server.page("/secret", f"<h1>page</h1><script>{script}</script>")
        source = PageSource(
            url=pages.server.url("/secret"),
            headers={"X-Secret": "own-header"},
            basic_auth=BasicAuth(username="user", password="word"),
        )
        async with pages.shown(source) as driver:
            assert await driver.ended() is PageEnd.SIGNAL
        for path in ("/secret", "/own", "/moves"):
            sent = pages.server.headers_of(path)
            assert (sent["x-secret"], sent["authorization"]) == ("own-header", "Basic dXNlcjp3b3Jk")
        for path in ("/script", "/moved"):
            assert not {"x-secret", "authorization"} & set(stranger.headers_of(path))


async def test_a_page_that_redirects_elsewhere_takes_no_secret_along(pages: ShownPages) -> None:
    async with PageServer() as stranger:
        stranger.page("/there", "<h1>there</h1>")
        pages.server.redirect("/away", stranger.url("/there"))
        source = PageSource(url=pages.server.url("/away"), headers={"X-Secret": "own-header"})
        async with pages.shown(source):
            assert "x-secret" in pages.server.headers_of("/away")
            assert "x-secret" not in stranger.headers_of("/there")


async def test_what_need_not_be_said_is_not_said() -> None:
    files = {"authority": "/a", "lock": "/l", "work": "/w"}
    display = Display(id="d", name=":1", width=640, height=360, user_id=None, sound_server=None, **files)
    assert emulation_commands(PageSource(url="http://x/", show_scrollbars=True), display, "Agent/1") == []


async def test_languages_fall_back_to_the_language_itself() -> None:
    assert accepted_languages("de-DE") == "de-DE,de"
    assert accepted_languages("fr") == "fr"


async def test_a_cookie_without_a_domain_is_for_the_pages_very_host() -> None:
    source = PageSource(
        url="http://user:word@example.org/a",
        cookies=(Cookie(name="a", value="1"), Cookie(name="b", value="2", domain="example.org")),
    )
    _, parameters = cookie_command(source)
    own, wide = parameters["cookies"]
    assert own["url"] == "http://example.org/a"
    assert "domain" not in own
    assert wide["domain"] == "example.org"
