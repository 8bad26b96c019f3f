"""Sends a page's secret headers to its own origin, and to nobody else whatever it redirects to or embeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.async_api import CDPSession, Error

from agents.browsers.page_url import origin_of, own_headers

if TYPE_CHECKING:
    from agents.browsers.page_log import PageLog
    from agents.pipelines.recording import PageSource


class OwnOriginHeaders:
    """Adds headers to requests to one origin, and takes them off those that redirects lead elsewhere."""

    def __init__(self, source: PageSource, session: CDPSession, log: PageLog) -> None:
        """Prepares; nothing is done before `start`."""
        self._origin = origin_of(source.url)
        self._headers = own_headers(source)
        self._session = session
        self._log = log

    async def start(self) -> None:
        """Begins, when there is anything to send. Then every request of the page takes one round trip longer."""
        if not self._headers or self._origin is None:
            return
        self._session.on("Fetch.requestPaused", self._send_on)
        # All, not the page's own alone: one that is redirected elsewhere carries what was added, which is taken off.
        await self._session.send("Fetch.enable", {"patterns": [{"urlPattern": "*", "requestStage": "Request"}]})

    async def _send_on(self, event: dict[str, Any]) -> None:
        request = event["request"]
        ours = {name.lower() for name in self._headers}
        headers = {name: value for name, value in request["headers"].items() if name.lower() not in ours}
        if origin_of(request["url"]) == self._origin:
            headers |= self._headers
        parameters = {
            "requestId": event["requestId"],
            "headers": [{"name": name, "value": value} for name, value in headers.items()],
        }
        try:
            await self._session.send("Fetch.continueRequest", parameters)
        except Error as error:
            await self._give_up(event, str(error))

    async def _give_up(self, event: dict[str, Any], problem: str) -> None:
        """Fails a request that cannot be sent on, rather than leave it waiting."""
        if "Invalid InterceptionId" in problem or "closed" in problem:
            return  # It was called off meanwhile, or all is over.
        self._log.write("request failed", f"{event['request']['url']}: {problem}")
        try:
            failing = {"requestId": event["requestId"], "errorReason": "Failed"}
            await self._session.send("Fetch.failRequest", failing)
        except Error:
            return  # It is gone: then nobody waits for it.
