"""Where publishers come in: a free port of the settings' range and a stream key that nobody can guess.

The registry owns the ports: one is never given twice to live attempts, and only one that nobody else listens on is
given at all. Between looking and listening another program may still take it; then ffmpeg says so and the attempt
fails.
"""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from agents.pipelines.job import IngestProtocol
from agents.sessions.logs import read_tail
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from gpu_balancer.runtime.redaction import Redactor

_KEY_LENGTH = 26
"""130 random bits; SRT wants passphrases of 10 to 79 characters."""
_UNEXPECTED_KEY = "Unexpected stream"
"""How ffmpeg's RTMP listener says that a publisher used another key; it goes on all the same (rtmpproto.c)."""
_KEY_LOG_LINES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestPoint:
    """A place to publish to."""

    protocol: IngestProtocol
    port: int
    url: str
    """For the publisher, with the key."""


def open_point(protocol: IngestProtocol, host: str, ports: range, used: Collection[int]) -> IngestPoint:
    """Chooses a place for a publisher.

    Args:
        protocol: What the publisher speaks.
        host: Address to listen on.
        ports: Where to look. The search begins anywhere in it: the agents of a host share the range, and two that
            begin at its start would often choose the same port at once.
        used: Ports of live attempts.

    Returns:
        The place with a new key.

    Raises:
        RequestFailure: NO_CAPACITY when every port is taken.
    """
    kind = socket.SOCK_STREAM if protocol is IngestProtocol.RTMP else socket.SOCK_DGRAM
    start = secrets.randbelow(len(ports))
    for port in (*ports[start:], *ports[:start]):
        if port not in used and _is_free(host, port, kind):
            return IngestPoint(protocol=protocol, port=port, url=_url(protocol, host, port))
    raise RequestFailure(
        reason=Reason.NO_CAPACITY,
        message=(
            f"Cannot await a publisher: all {protocol.value.upper()} ports from {ports[0]} to {ports[-1]} "
            "are taken. Try again when a session has ended, or widen the range in [ingest]."
        ),
    )


def _is_free(host: str, port: int, kind: socket.SocketKind) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            # As ffmpeg does: a port whose last connection is in TIME_WAIT can be listened on.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _url(protocol: IngestProtocol, host: str, port: int) -> str:
    key = random_id(length=_KEY_LENGTH)
    shown = f"[{host}]" if ":" in host else host
    if protocol is IngestProtocol.RTMP:
        return f"rtmp://{shown}:{port}/live/{key}"
    return f"srt://{shown}:{port}?{urlencode({'mode': 'caller', 'passphrase': key})}"


def another_key_was_used(log: Path, redactor: Redactor) -> bool:
    """Tells whether ffmpeg's RTMP listener has said that a publisher used another key. Blocks for the disk.

    Args:
        log: What ffmpeg wrote.
        redactor: Hides secrets in what is read.
    """
    return any(_UNEXPECTED_KEY in line for line in read_tail(log, redactor, _KEY_LOG_LINES))
