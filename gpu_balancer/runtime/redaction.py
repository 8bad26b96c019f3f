"""Takes secrets out of what people and logs get to see. Pure text work.

Media URLs carry their keys inside: as userinfo, as the last path segments of RTMP, as SRT's passphrase and stream id,
as signed query parameters. Splitting is done by hand and never fails, because what is malformed is shown in errors, and
`urllib` raises on some of it. When in doubt a part is hidden.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "***"
"""What stands in the place of a secret."""

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL,
)
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>|\\]+")
_TRAILING_PUNCTUATION = re.compile(r"[:,.;)\]}]+$")
_PORT = re.compile(r":\d{0,5}$")
_SECRET_NAME = re.compile(
    r"key|token|secret|pass|pwd|auth|sig|credential|streamid|session|policy|hmac|jwt|bearer|hdnts|hdnea|^st$|^s$|^h$",
    re.IGNORECASE,
)
_SHORT_SECRET_CHARACTERS = 8


def redact_url(url: str) -> str:
    """Hides the secrets of a URL: userinfo, key-like query values, RTMP stream keys, SRT passphrase and stream id.

    Args:
        url: A URL, well formed or not. A plain path is given back as it is.

    Returns:
        The URL with `***` in the place of each secret; scheme, host, port and RTMP application stay readable.
    """
    # Most inputs are files.
    return url if url.startswith("/") else _redact(url)[0]


def url_secrets(url: str) -> tuple[str, ...]:
    """Finds the secrets of a URL, so that a `Redactor` can hide them where a program prints them on their own.

    Returns:
        Each secret as written and, where it differs, percent-decoded. Empty when there is none.
    """
    found: dict[str, None] = {}
    for secret in _redact(url)[1]:
        found[secret] = None
        found[unquote_plus(secret)] = None
    found.pop("", None)
    return tuple(found)


def redact_text(text: str) -> str:
    """Hides the secrets of every URL inside a text."""
    if "://" not in text:
        return text
    return _URL_IN_TEXT.sub(_redact_match, text)


class Redactor:
    """Hides known secrets, and the secrets of URLs, in lines of text: a session's log, for instance."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Makes a redactor.

        Args:
            secrets: What must never be shown. A short one (below 8 characters) is hidden only where it stands as a
                word, so that a password of "a" does not blot out every line.
        """
        longest_first = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        patterns = [
            re.escape(secret) if len(secret) >= _SHORT_SECRET_CHARACTERS else rf"(?<!\w){re.escape(secret)}(?!\w)"
            for secret in longest_first
        ]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def redact(self, text: str) -> str:
        """Hides every known secret and every secret inside a URL.

        URLs go first: hiding a password of "http" first would make them unrecognizable.
        """
        text = redact_text(text)
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)


def _redact_match(match: re.Match[str]) -> str:
    found = match.group()
    tail = _TRAILING_PUNCTUATION.search(found)
    end = tail.start() if tail else len(found)
    return _redact(found[:end])[0] + found[end:]


def _redact(url: str) -> tuple[str, list[str]]:
    match = _URL.fullmatch(url.strip())
    if match is None:
        return url, []
    secrets: list[str] = []
    scheme = match["scheme"].lower()
    # ffmpeg nests protocols: "hls+http", "crypto+rtmp".
    is_rtmp = scheme.rpartition("+")[2].startswith("rtmp")
    userinfo, at, host = match["authority"].rpartition("@")
    if ":" in host and not host.endswith("]") and not _PORT.search(host):
        # "user:pass/word@host": an unescaped slash has cut the password. Nothing after the scheme can be trusted.
        rest = url.strip()[len(match["scheme"]) + len("://") :]
        return f"{match['scheme']}://{HIDDEN}", [rest]
    if at:
        secrets += [userinfo, *userinfo.split(":", 1)[1:]]
    authority = f"{HIDDEN}@{host}" if at else host
    path = _redact_rtmp_path(match["path"], secrets) if is_rtmp else match["path"]
    query = _redact_query(match["query"] or "", secrets, hide_all=is_rtmp)
    fragment = _redact_query(match["fragment"] or "", secrets, hide_all=is_rtmp)
    return f"{match['scheme']}://{authority}{path}{query}{fragment}", secrets


def _redact_rtmp_path(path: str, secrets: list[str]) -> str:
    """Keeps the application, hides the rest: "/app/instance/key". A lone segment may be a key, so it is hidden too."""
    application, slash, key = path.removeprefix("/").partition("/")
    if not slash:
        application, key = "", application
    if not key:
        return path
    secrets += [key, key.rpartition("/")[2]]
    return f"/{application}/{HIDDEN}" if application else f"/{HIDDEN}"


def _redact_query(text: str, secrets: list[str], *, hide_all: bool) -> str:
    """Hides values in a query or fragment, which is given with its leading mark."""
    if not text:
        return text
    pieces = re.split(r"([&;])", text[1:])
    for index in range(0, len(pieces), 2):
        name, equals, value = pieces[index].partition("=")
        if equals and value and (hide_all or _SECRET_NAME.search(unquote_plus(name))):
            secrets.append(value)
            pieces[index] = f"{name}={HIDDEN}"
        elif hide_all and name and not equals:
            secrets.append(name)
            pieces[index] = HIDDEN
    return text[0] + "".join(pieces)
