"""Checks of a page that is to be recorded, as far as they need no look at it: that is the agent's part.

Descriptions never quote a URL, a cookie, a header's value or a password.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from typing import TYPE_CHECKING

from balancer.servicers.contract_words import COLOR_SCHEMES
from balancer.servicers.input_validation import MAX_URI_CHARACTERS, check_host
from balancer.servicers.names import shown

if TYPE_CHECKING:
    from balancer.servicers.violations import Violations
    from gpu_balancer.v1.recording_pb2 import BasicAuth, Cookie, PageSource

MAX_HEADERS = 32
MAX_COOKIES = 64
MAX_DATA_URL_CHARACTERS = 65_536
MAX_INIT_SCRIPT_BYTES = 65_536
MAX_VALUE_CHARACTERS = 4_096
"""Of a cookie or a header: what servers take."""
LOWEST_SCALE_FACTOR, HIGHEST_SCALE_FACTOR = 0.5, 4.0

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNFIT = re.compile(r"[\x00-\x20\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)
"""RFC 9110, 5.6.2: names of headers and cookies."""
_COOKIE_VALUE = re.compile(r'[^\x00-\x20\x7f",;\\]*')
"""RFC 6265, 4.1.1, and what is beyond ASCII, which browsers take."""
_COOKIE_PATH = re.compile(r"/[^\x00-\x1f\x7f;]{0,1023}")
_DOMAIN = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_LOCALE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,7}", re.ASCII)
"""RFC 5646, roughly."""
_CONNECTION_HEADERS = frozenset(
    {"connection", "content-length", "cookie", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""What a browser alone may say, or what has a field of its own."""


def refuse_oversized_page(found: Violations, where: str, page: PageSource) -> None:
    """Notes lists that are too long; nothing else should then be done with them."""
    found.check_count(f"{where}.headers", page.headers, MAX_HEADERS)
    found.check_count(f"{where}.cookies", page.cookies, MAX_COOKIES)


def check_page(found: Violations, where: str, page: PageSource, schemes: tuple[str, ...]) -> None:
    """Notes everything that is wrong with a page.

    Args:
        found: Takes what is wrong.
        where: Path of the page.
        page: As the client gave it.
        schemes: That the operator allows.
    """
    _check_url(found, f"{where}.url", page.url, schemes)
    factor = page.device_scale_factor if page.HasField("device_scale_factor") else 1.0
    # Put so that NaN, which is within no bounds, is refused.
    if not LOWEST_SCALE_FACTOR <= factor <= HIGHEST_SCALE_FACTOR:
        bounds = f"{LOWEST_SCALE_FACTOR:g} to {HIGHEST_SCALE_FACTOR:g}"
        found.add(f"{where}.device_scale_factor", f"must be {bounds}, not {factor:g}")
    if page.locale and not _LOCALE.fullmatch(page.locale):
        found.add(f"{where}.locale", f'must be a language tag such as "de-DE", not {shown(page.locale)}')
    if page.timezone and page.timezone not in _timezones():
        told = f'must be a name of the time zone database such as "Europe/Berlin", not {shown(page.timezone)}'
        found.add(f"{where}.timezone", told)
    if len(page.user_agent) > 512 or not (page.user_agent.isascii() and page.user_agent.isprintable()):
        found.add(f"{where}.user_agent", "must be at most 512 printable characters of ASCII")
    _check_headers(found, f"{where}.headers", page)
    for index, cookie in enumerate(page.cookies):
        _check_cookie(found, f"{where}.cookies[{index}]", cookie)
    if page.HasField("basic_auth"):
        _check_basic_auth(found, f"{where}.basic_auth", page.basic_auth)
    size = len(page.init_script.encode(errors="replace"))
    if size > MAX_INIT_SCRIPT_BYTES:
        found.add(f"{where}.init_script", f"must be at most {MAX_INIT_SCRIPT_BYTES:,} bytes, not {size:,}")
    found.check_enum(f"{where}.color_scheme", page.color_scheme, COLOR_SCHEMES)


@functools.cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _check_url(found: Violations, where: str, url: str, schemes: tuple[str, ...]) -> None:
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    longest = MAX_DATA_URL_CHARACTERS if scheme == "data" else MAX_URI_CHARACTERS
    if not url:
        found.add(where, "must be the URL of a page, not empty")
    elif not scheme:
        found.add(where, f"must be a URL that begins with its protocol: {', '.join(schemes)}")
    elif scheme not in schemes:
        told = f"must use one of the protocols {', '.join(schemes)}, not {scheme[:20]}"
        found.add(where, f"{told}; [recordings] url_schemes says which")
    elif len(url) > longest:
        found.add(where, f"must be at most {longest:,} characters, not {len(url):,}")
    elif scheme in ("http", "https"):
        if url[len(scheme) :].startswith("://"):
            check_host(found, where, url)
        else:
            found.add(where, f"must be {scheme}:// with a host")
    elif scheme == "file" and not url[len("file:") :].removeprefix("//").removeprefix("localhost").startswith("/"):
        found.add(where, "must be file:// with an absolute path, without a host")
    elif _UNFIT.search(url) if scheme == "file" else _CONTROL.search(url):
        found.add(where, "must not have spaces or control characters; write a space as %20")


def _check_headers(found: Violations, where: str, page: PageSource) -> None:
    seen: set[str] = set()
    for name, value in sorted(page.headers.items()):
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            found.add(where, f"must have names of letters, digits and some signs, not {shown(name)}")
        elif lower in _CONNECTION_HEADERS or lower.startswith("proxy-"):
            told = "cookies have a field of their own" if lower == "cookie" else "the browser says it itself"
            found.add(where, f"must not have {name}: {told}")
        elif lower in seen:
            found.add(where, f"must not have {name} twice: letter case does not count")
        elif len(value) > MAX_VALUE_CHARACTERS or _CONTROL.search(value):
            told = f"must be at most {MAX_VALUE_CHARACTERS:,} characters without control characters"
            found.add(f"{where}[{name!r}]", told)
        seen.add(lower)


def _check_cookie(found: Violations, where: str, cookie: Cookie) -> None:
    if not _TOKEN.fullmatch(cookie.name):
        found.add(f"{where}.name", "must be letters, digits and some signs, without spaces or '='")
    if cookie.name.startswith(("__Secure-", "__Host-")) and not cookie.secure:
        found.add(f"{where}.secure", f"must be true for a cookie of the name {shown(cookie.name)}")
    if cookie.name.startswith("__Host-") and (cookie.domain or cookie.path not in ("", "/")):
        found.add(f"{where}.name", "must not begin with __Host- when the cookie has a domain or a path but '/'")
    if len(cookie.value) > MAX_VALUE_CHARACTERS or not _COOKIE_VALUE.fullmatch(cookie.value):
        told = f"must be at most {MAX_VALUE_CHARACTERS:,} characters without spaces, commas, semicolons and quotes"
        found.add(f"{where}.value", told)
    if cookie.domain and (len(cookie.domain) > 253 or not _DOMAIN.fullmatch(cookie.domain)):
        found.add(f"{where}.domain", 'must be a host such as "example.org" or ".example.org"')
    if cookie.path and not _COOKIE_PATH.fullmatch(cookie.path):
        found.add(f"{where}.path", "must begin with '/' and have no semicolon or control characters")


def _check_basic_auth(found: Violations, where: str, given: BasicAuth) -> None:
    name = given.username
    if not 1 <= len(name) <= 256 or ":" in name or _CONTROL.search(name):
        found.add(f"{where}.username", "must be 1 to 256 characters without ':' and control characters")
    if len(given.password) > 1_024 or _CONTROL.search(given.password):
        found.add(f"{where}.password", "must be at most 1,024 characters without control characters")
