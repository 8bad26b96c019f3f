"""What nobody may see of a session: credentials and keys in URLs, cookies, headers, passwords. Stored, never shown."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from balancer.servicers.session_specs import input_of, is_recording, outputs_of
from gpu_balancer.runtime.redaction import HIDDEN, Redactor, redact_url, url_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.v1.recording_pb2 import PageSource
    from gpu_balancer.v1.session_pb2 import Session


def redact_session(session: Session) -> None:
    """Hides the secrets of a session. It is changed."""
    given = input_of(session)
    if given is not None and given.WhichOneof("source") == "uri":
        given.uri = redact_url(given.uri)
    for output in outputs_of(session):
        if output.WhichOneof("kind") == "push":
            output.push.url = redact_url(output.push.url)
    if is_recording(session) and session.recording.WhichOneof("source") == "page":
        _redact_page(session.recording.page)


def redactor_of(session: Session) -> Redactor:
    """Makes what hides a session's secrets in texts of others: failures, commands."""
    urls = [output.push.url for output in outputs_of(session) if output.WhichOneof("kind") == "push"]
    given = input_of(session)
    if given is not None and given.WhichOneof("source") == "uri":
        urls.append(given.uri)
    secrets: list[str] = []
    if is_recording(session) and session.recording.WhichOneof("source") == "page":
        page = session.recording.page
        urls.append(page.url)
        secrets += _page_secrets(page)
    return Redactor([*secrets, *(secret for url in urls for secret in url_secrets(url))])


def redacted_argv(session: Session, argv: Iterator[str]) -> list[str]:
    """Hides a session's secrets in a command, whatever its agent has hidden already."""
    redactor = redactor_of(session)
    return [redactor.redact(argument) for argument in argv]


def _redact_page(page: PageSource) -> None:
    page.url = redact_url(page.url)
    for name in page.headers:
        page.headers[name] = HIDDEN
    for cookie in page.cookies:
        cookie.value = HIDDEN
    if page.HasField("basic_auth"):
        page.basic_auth.password = HIDDEN


def _page_secrets(page: PageSource) -> Iterator[str]:
    for value in page.headers.values():
        yield value
        # "Bearer …": a message may have the token alone.
        yield value.partition(" ")[2]
    for cookie in page.cookies:
        yield cookie.value
    if page.HasField("basic_auth"):
        yield page.basic_auth.password
        yield b64encode(f"{page.basic_auth.username}:{page.basic_auth.password}".encode()).decode()
