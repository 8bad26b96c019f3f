"""Pages behind the egress proxy, with a real browser: what looks public is reached, and nothing inside is."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from agents.browsers import egress_proxy
from agents.browsers.chromium import find_chromium
from agents.browsers.egress_proxy import EgressProxy, EgressRules
from agents.browsers.page import PageEnd, PageFault
from agents.browsers.playwright_pages import BrowserHub
from agents.browsers.port_file import PROXY_PORT_FILE
from agents.browsers.starting import BrowserOptions, start_browser, start_egress_proxy
from agents.pipelines.recording import PageSource, StartGate, StopRules
from fakes.bare_display import bare_display
from fakes.page_server import PageServer
from fakes.shown_pages import ShownPages, shown_pages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents.public_addresses import Address

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

PUBLIC = "page.example"


class EveryUser(frozenset[int]):
    """Serves whoever asks: the display's user is not known yet when the proxy is made."""

    def __contains__(self, _user: object) -> bool:
        return True


class Inside:
    """A proxy's world in which one name is public, one port of loopback, and another name leads inside."""

    port = 0

    async def look_up(self, host: str, port: int) -> list[Address]:
        if host in (PUBLIC, "inside.example"):
            return [ip_address("127.0.0.1")]
        return await egress_proxy.look_up(host, port)

    def may_reach(self, address: Address, port: int) -> bool:
        return port == self.port or egress_proxy.may_reach(address, port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ShownPages]:
    world = Inside()
    rules = EgressRules(user_ids=EveryUser(), look_up=world.look_up, may_reach=world.may_reach)
    async with await EgressProxy(rules).listen() as server:
        port = server.sockets[0].getsockname()[1]
        async with shown_pages(tmp_path_factory.mktemp("pages"), proxy_port=port) as shown:
            world.port = shown.server.port
            (shown.bare.work / PROXY_PORT_FILE).write_text(f"{port}\n")
            yield shown


def public(pages: ShownPages, path: str) -> PageSource:
    return PageSource(url=pages.server.url(path, host=PUBLIC))


async def test_a_public_page_is_recorded(pages: ShownPages) -> None:
    pages.server.page("/", "<body style='background:#00ff00'><h1>page</h1>")
    async with pages.shown(public(pages, "/")):
        assert pages.pixel() == (0, 255, 0)


async def test_a_public_page_reaches_nothing_inside(pages: ShownPages) -> None:
    async with PageServer() as inside:
        inside.page("/", "secret", headers="Access-Control-Allow-Origin: *\r\n")
        port = inside.port
        devtools = urlsplit(pages.display.browser.url).port if pages.display.browser else 0
        pages.server.redirect("/inward", inside.url("/"))
        hosts = ["127.0.0.1", "[::1]", "localhost", "0x7f.1", "127.1", "inside.example", "[::ffff:127.0.0.1]"]
        urls = [f"http://{host}:{port}/" for host in hosts]
        urls += [f"https://127.0.0.1:{port}/", "/inward", "http://169.254.169.254/latest/meta-data/"]
        urls += [f"http://127.0.0.1:{devtools}/json/version", f"http://localhost:{devtools}/json/list"]
        script = f"""
          const urls = {urls!r};
          const fetched = urls.map((url) => fetch(url).then((answer) => answer.text())
            .then((text) => console.log('REACHED ' + url + ' ' + text), () => console.log('refused ' + url)));
          const socket = (url) => new Promise((done) => {{
            const it = new WebSocket(url);
            it.onopen = () => {{ console.log('REACHED ' + url); done(); }};
            it.onerror = () => {{ console.log('refused ' + url); done(); }};
          }});
          const sockets = ['ws://127.0.0.1:{port}/', 'ws://127.0.0.1:{devtools}/devtools/browser/x'].map(socket);
          const image = new Promise((done) => {{
            const it = new Image();
            it.onload = it.onerror = done;
            it.src = 'http://127.0.0.1:{port}/image';
          }});
          const frame = document.createElement('iframe');
          frame.src = 'http://127.0.0.1:{port}/frame';
          document.body.append(frame);
          const peer = new RTCPeerConnection({{iceServers: [
            {{urls: ['turn:127.0.0.1:{port}?transport=tcp'], username: 'x', credential: 'y'}}]}});
          peer.createDataChannel('x');
          peer.createOffer().then((offer) => peer.setLocalDescription(offer));
          const gathered = new Promise((done) => {{
            peer.onicegatheringstatechange = () => peer.iceGatheringState === 'complete' && done();
          }});
          const late = new Promise((done) => setTimeout(done, 3000));
          Promise.all([...fetched, ...sockets, image, Promise.race([gathered, late])])
            .then(() => console.log('END_RECORDING'));"""
        pages.server.page("/curious", f"<h1>page</h1><script>{script}</script>")
        async with pages.shown(public(pages, "/curious")) as driver:
            assert await driver.ended() is PageEnd.SIGNAL
        assert inside.requests == []
    log = pages.log.read_text()
    assert "log: REACHED" not in log
    assert log.count("log: refused ") == len(urls) + 2


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "https://127.0.0.1/", "http://inside.example/", "https://[::1]/", "http://169.254.169.254/"],
)
async def test_a_page_inside_is_not_allowed(pages: ShownPages, url: str) -> None:
    with pytest.raises(PageFault) as caught:
        async with pages.shown(PageSource(url=url)):
            pass
    assert caught.value.reason == "PAGE_NOT_ALLOWED"
    assert "allow_private_networks" in str(caught.value)


@pytest.mark.parametrize("inside", ["http://127.0.0.1:1024/", "https://127.0.0.1/", "http://inside.example/"])
async def test_a_page_that_redirects_inside_is_not_allowed(pages: ShownPages, inside: str) -> None:
    pages.server.redirect("/inward", inside)
    with pytest.raises(PageFault) as caught:
        async with pages.shown(public(pages, "/inward")):
            pass
    assert caught.value.reason == "PAGE_NOT_ALLOWED"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_host_that_is_nowhere_is_unreachable(pages: ShownPages, scheme: str) -> None:
    with pytest.raises(PageFault) as caught:
        async with pages.shown(PageSource(url=f"{scheme}://no-such-host.invalid/")):
            pass
    assert caught.value.reason == "PAGE_UNREACHABLE"


async def test_the_proxy_of_a_display_is_a_process_of_its_own(tmp_path: Path) -> None:
    chromium = await find_chromium(["chromium"])
    hub = BrowserHub()
    with bare_display() as bare:
        proxy_port = await start_egress_proxy(bare.display, bare.spawn)
        endpoint = await start_browser(bare.display, bare.spawn, chromium, BrowserOptions(), proxy_port=proxy_port)
        async with PageServer() as inside:
            inside.page("/", "<h1>inside</h1>")
            source = PageSource(url=inside.url())
            driver = await hub.page(
                bare.with_browser(endpoint), source, StartGate(), StopRules(), log=tmp_path / "log", opened=False
            )
            with pytest.raises(PageFault) as caught:
                await driver.open()
            await driver.close()
            assert inside.requests == []
        assert caught.value.reason == "PAGE_NOT_ALLOWED"
        assert bare.log("egress_proxy") == ""
        if bare.user_id is not None:
            pid = bare.processes["egress_proxy"][0].pid
            assert await asyncio.to_thread(user_of, pid) == bare.user_id
        assert await asyncio.to_thread((bare.work / PROXY_PORT_FILE).exists)
    await hub.close()


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid
