"""Which URLs may be recorded, and what belongs to a page's own origin. Pure.

Only what any parser reads alike is let through: what we take for the host must be what the browser takes for it.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from agents.browsers.page import PageFault
from gpu_balancer.runtime.redaction import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agents.pipelines.recording import PageSource

_LONGEST_URL = 4096
_LONGEST_DATA_URL = 256 * 1024
_WITH_HOST = {"http": 80, "https": 443}
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Scheme, host and port of a page: whom its secrets are for."""

    scheme: str
    host: str
    port: int

    @property
    def pattern(self) -> str:
        """URLs of this origin, as DevTools' Fetch domain matches them."""
        port = "" if self.port == _WITH_HOST[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}/*"


def shown_url(url: str) -> str:
    """Gives a URL for people: without its secrets, and cut."""
    text = redact_url(url)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def guard_page_url(url: str, schemes: Iterable[str]) -> None:
    """Checks that a page's URL may be opened.

    Args:
        url: With its secrets.
        schemes: What is allowed.

    Raises:
        PageFault: PAGE_NOT_ALLOWED, when it is malformed or of another scheme. The message shows no secret.
    """
    allowed = tuple(schemes)
    problem = _url_problem(url, allowed)
    if problem:
        raise PageFault("PAGE_NOT_ALLOWED", f"Cannot open {shown_url(url)}: {problem}. Try another URL.")


def _url_problem(url: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"it is no URL: {error}"
    # As written: browsers drop blanks and control characters in front of and inside a scheme.
    if url[: len(parts.scheme) + 1].lower() != f"{parts.scheme}:" or parts.scheme not in schemes:
        return f"pages of the scheme {parts.scheme or 'none'!r} are not recorded, only of {', '.join(schemes)}"
    longest = _LONGEST_DATA_URL if parts.scheme == "data" else _LONGEST_URL
    if len(url) > longest:
        return f"it is longer than {longest} characters"
    if any(ord(character) < 0x20 or character == "\x7f" for character in url):
        return "it has control characters"
    if parts.scheme in _WITH_HOST:
        if not host or any(character in " \\<>^`{|}%" for character in parts.netloc.rpartition("@")[2]):
            return "it has no host, or one with characters that do not belong there"
        if "\\" in url.partition("?")[0]:
            return "it has a backslash, which must be percent-encoded"
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        return "it is a file of another host"
    return ""


def origin_of(url: str) -> Origin | None:
    """Tells the origin of a URL. None: it has none that secrets could be for."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in _WITH_HOST or not parts.hostname:
            return None
        return Origin(scheme=parts.scheme, host=parts.hostname, port=parts.port or _WITH_HOST[parts.scheme])
    except ValueError:
        return None


def plain_url(url: str) -> str:
    """Gives a URL without user and password, which go along as a header."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def own_headers(source: PageSource) -> dict[str, str]:
    """Makes the headers that requests to a page's own origin carry, and no others.

    Basic authentication is among them: a browser that is asked for a password would ask its user, on the screen.
    """
    headers = dict(source.headers)
    auth = source.basic_auth
    parts = urlsplit(source.url)
    if auth is not None:
        credentials = f"{auth.username}:{auth.password}"
    elif parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    else:
        return headers
    headers["Authorization"] = "Basic " + b64encode(credentials.encode()).decode("ascii")
    return headers


def page_secrets(source: PageSource) -> tuple[str, ...]:
    """Lists what must not be shown in a page's log."""
    secrets = [*own_headers(source).values(), *(cookie.value for cookie in source.cookies)]
    if source.basic_auth is not None:
        secrets.append(source.basic_auth.password)
    return tuple(secrets)
