"""The HTTP port on a real socket, in front of an agent that lives in the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx

from balancer.change_feed import session_not_found
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import SessionRecord
from balancer.session_files import SessionFiles
from balancer.web.application import web_application
from balancer.web.server import WebServer
from fakes.agent_media import FakeAgentMedia
from fakes.session_records import session_record


@dataclass
class WebHouse:
    """What a test may turn."""

    agent: FakeAgentMedia
    client: httpx.AsyncClient
    url: str
    port: int
    healthy: bool = True

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Fetches an artifact of the one session."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(f"/v1/sessions/session-1/artifacts/{path}", headers=named)

    async def exchange(self, request: bytes) -> bytes:
        """Sends bytes as they are and reads until the server hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def web_house(
    *,
    grace: timedelta = timedelta(seconds=2),
    head_timeout: timedelta = timedelta(minutes=5),
    max_connections: int = 512,
) -> AsyncIterator[WebHouse]:
    """Starts a server with one session, whose artifacts the agent has."""
    agent = FakeAgentMedia()
    record = session_record(1)

    def find(session_id: SessionId) -> SessionRecord:
        if session_id != record.id:
            raise session_not_found(session_id)
        return record

    files = SessionFiles(find, {DeviceId("cpu-0"): agent})
    app = web_application(files, metrics=lambda: b"answer 42\n", healthy=lambda: made.healthy)
    server = WebServer("127.0.0.1:0", app, grace=grace, head_timeout=head_timeout, max_connections=max_connections)
    async with server as url, httpx.AsyncClient(base_url=url) as client:
        made = WebHouse(agent=agent, client=client, url=url, port=int(url.rpartition(":")[2]))
        yield made
