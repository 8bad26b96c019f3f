"""Resource names: "sessions/{id}", "sessions/{id}/artifacts/{path}", "uploads/{id}", "devices/{id}"."""

from __future__ import annotations

import re

from balancer.domain.ids import DeviceId, SessionId
from gpu_balancer.runtime.failures import Violation, invalid

_SESSION = re.compile(r"sessions/([A-Za-z0-9][A-Za-z0-9_-]{0,62})", re.ASCII)
_UPLOAD = re.compile(r"uploads/([a-z0-9]{1,64})", re.ASCII)
_SHOWN_CHARACTERS = 80
MAX_REQUEST_ID_CHARACTERS = 128
"""The contract's bound."""


def session_name(session_id: SessionId) -> str:
    """Makes "sessions/{id}"."""
    return f"sessions/{session_id}"


def session_id_of(name: str, *, field: str = "name") -> SessionId:
    """Takes the id out of "sessions/{id}".

    Args:
        name: What the client gave.
        field: Where it stands in the request.

    Raises:
        RequestFailure: INVALID_REQUEST when it is no such name.
    """
    match = _SESSION.fullmatch(name)
    if match is None:
        raise invalid(Violation(field=field, description=f'must be "sessions/{{id}}", not {shown(name)}'))
    return SessionId(match[1])


def artifact_of(name: str) -> tuple[SessionId, str]:
    """Takes session id and path out of "sessions/{id}/artifacts/{path}".

    Raises:
        RequestFailure: INVALID_REQUEST when it is no such name.
    """
    session, found, path = name.partition("/artifacts/")
    match = _SESSION.fullmatch(session)
    if match is None or not found or not path:
        told = f'must be "sessions/{{id}}/artifacts/{{path}}", not {shown(name)}'
        raise invalid(Violation(field="name", description=told))
    return SessionId(match[1]), path


def upload_id_of(name: str, *, field: str = "name") -> str:
    """Takes the id out of "uploads/{id}"; it is safe as a file name.

    Raises:
        RequestFailure: INVALID_REQUEST when it is no such name.
    """
    match = _UPLOAD.fullmatch(name)
    if match is None:
        raise invalid(Violation(field=field, description=f'must be "uploads/{{id}}", not {shown(name)}'))
    return match[1]


def device_name(device_id: DeviceId | None) -> str:
    """Makes "devices/{id}"; "" of None."""
    return f"devices/{device_id}" if device_id else ""


def device_id_of(name: str, *, field: str) -> DeviceId:
    """Takes the id out of "devices/{id}".

    Raises:
        RequestFailure: INVALID_REQUEST when it is no such name.
    """
    if not name.startswith("devices/") or len(name) == len("devices/"):
        raise invalid(Violation(field=field, description=f'must be "devices/{{id}}", not {shown(name)}'))
    return DeviceId(name.removeprefix("devices/"))


def shown(text: str) -> str:
    """Quotes what a client gave, for a message: bounded, and without control characters."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return ascii(cut) if not cut.isprintable() else repr(cut)


def check_request_id(request_id: str) -> None:
    """Refuses a request id that is too long or not printable.

    Raises:
        RequestFailure: INVALID_REQUEST.
    """
    if len(request_id) > MAX_REQUEST_ID_CHARACTERS:
        told = f"must be at most {MAX_REQUEST_ID_CHARACTERS} characters, not {len(request_id)}; a UUID is best"
    elif not request_id.isprintable():
        told = "must be printable characters; a UUID is best"
    else:
        return
    raise invalid(Violation(field="request_id", description=told))
