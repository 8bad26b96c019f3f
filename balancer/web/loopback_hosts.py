"""Refuses requests that were not meant for this machine's loopback.

A page in the user's own browser reaches loopback addresses too. By DNS rebinding it can even become of the same origin,
under a name of its own; but the name then stands in the Host header, so only loopback's own names are answered.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from balancer.web.answers import failure_answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", re.ASCII)
_MISDIRECTED = 421


class LoopbackHosts:
    """Lets requests pass whose Host is loopback."""

    def __init__(self, app: ASGIApp) -> None:
        """Wraps an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 421 or passes the request on."""
        if scope["type"] == "http" and not is_loopback_host(_host(scope)):
            answer = failure_answer(
                _MISDIRECTED,
                "HOST_NOT_LOOPBACK",
                "Cannot answer: the Host header is not of this machine's loopback. Try http://127.0.0.1 or "
                "http://localhost.",
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_loopback_host(host: str) -> bool:
    """Tells whether a Host header names loopback: "localhost" or a loopback address, with or without a port."""
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return False
    name = match["name"].lower().removesuffix(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _host(scope: Scope) -> str:
    """Gives the Host header; nothing when there is none, or several of which a proxy might believe another one."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return str(hosts[0].decode("latin-1")) if len(hosts) == 1 else ""
