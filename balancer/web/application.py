"""The HTTP application: which path is answered by what. There is nothing here that changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from balancer.web.artifact_pages import ArtifactPages
from balancer.web.loopback_hosts import LoopbackHosts

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from balancer.session_files import SessionFiles

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_NOT_STORED = {"Cache-Control": "no-store"}


def web_application(
    files: SessionFiles, *, metrics: Callable[[], bytes], healthy: Callable[[], bool] = lambda: True
) -> ASGIApp:
    """Makes the application.

    Args:
        files: What sessions leave.
        metrics: Gives every metric as Prometheus text; called on the event loop.
        healthy: Whether the daemon takes requests.

    Returns:
        An ASGI application for loopback: it answers nobody who calls it by another name.
    """

    async def metrics_page(_: Request) -> Response:
        return Response(metrics(), headers={**_NOT_STORED, "Content-Type": _PROMETHEUS})

    async def health_page(_: Request) -> Response:
        if healthy():
            return PlainTextResponse("SERVING\n", headers=_NOT_STORED)
        return PlainTextResponse("NOT_SERVING\n", status_code=503, headers=_NOT_STORED)

    pages = ArtifactPages(files)
    folder = "/v1/sessions/{session}/artifacts/"
    return Starlette(
        routes=[
            Route(folder, pages.listing, methods=["GET", "HEAD"]),
            Route(folder + "{path:path}", pages.file, methods=["GET", "HEAD"]),
            Route("/metrics", metrics_page, methods=["GET", "HEAD"]),
            Route("/healthz", health_page, methods=["GET", "HEAD"]),
        ],
        middleware=[Middleware(LoopbackHosts)],
    )
