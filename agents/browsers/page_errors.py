"""What a failed navigation means: Chromium's net error, or the answer, as a fault of the page. Pure.

The names are those of net/base/net_error_list.h.
"""

from __future__ import annotations

import re

from agents.browsers.egress_proxy import Refusal
from agents.browsers.page import PageFault

_NET_ERROR = re.compile(r"net::(ERR_[A-Z0-9_]+)")
_DOWNLOAD = "Download is starting"
"""Playwright's own word, in the place of a net error."""

_UNREACHABLE = {
    "ERR_NAME_NOT_RESOLVED": "its host cannot be found",
    "ERR_CONNECTION_REFUSED": "its server refuses connections",
    "ERR_CONNECTION_TIMED_OUT": "its server does not answer",
    "ERR_TIMED_OUT": "its server does not answer",
    "ERR_CONNECTION_RESET": "its server broke the connection off",
    "ERR_CONNECTION_CLOSED": "its server broke the connection off",
    "ERR_EMPTY_RESPONSE": "its server broke the connection off without an answer",
    "ERR_ADDRESS_UNREACHABLE": "there is no way to its server",
    "ERR_INTERNET_DISCONNECTED": "this machine has no network",
    "ERR_TOO_MANY_REDIRECTS": "it redirects in a circle",
    "ERR_ABORTED": "it is a download, or has no content",
    "ERR_INVALID_RESPONSE": "its server does not talk HTTP",
    "ERR_INVALID_HTTP_RESPONSE": "its server does not talk HTTP",
    "ERR_SSL_PROTOCOL_ERROR": "its server does not talk TLS",
    "ERR_FILE_NOT_FOUND": "there is no such file",
}
_NOT_ALLOWED = {
    "ERR_BLOCKED_BY_ADMINISTRATOR": "it leads to a scheme that is not recorded",
    "ERR_UNSAFE_REDIRECT": "it redirects to a scheme that is not recorded",
    "ERR_UNKNOWN_URL_SCHEME": "it leads to a scheme that is not recorded",
    "ERR_DISALLOWED_URL_SCHEME": "it leads to a scheme that is not recorded",
    "ERR_UNSAFE_PORT": "its port is one that browsers refuse",
    "ERR_BLOCKED_BY_CLIENT": "the browser refuses it",
}
_REFUSALS = {
    Refusal.PRIVATE: ("PAGE_NOT_ALLOWED", "its host has an address that is not public"),
    Refusal.UNRESOLVED: ("PAGE_UNREACHABLE", "its host cannot be found"),
    Refusal.UNREACHABLE: ("PAGE_UNREACHABLE", "its server does not accept connections"),
    Refusal.MALFORMED: ("PAGE_UNREACHABLE", "its URL is malformed"),
    Refusal.BUSY: ("PAGE_UNREACHABLE", "there are too many connections already"),
}
_ANOTHER = "the URL in another browser from this machine"
_CURES = {
    "PAGE_NOT_ALLOWED": "another URL",
    "PAGE_CLOSED": "a page that stays open, or a start_gate that is passed earlier",
    "PAGE_CERTIFICATE": "ignore_certificate_errors",
    "PAGE_HTTP_ERROR": "accept_http_errors, or what the page wants: cookies, headers, basic_auth",
}


def net_error(message: str) -> str | None:
    """Finds Chromium's name of an error in a message, "ERR_NAME_NOT_RESOLVED". None: there is none."""
    match = _NET_ERROR.search(message)
    return match[1] if match else None


def navigation_fault(shown: str, message: str) -> PageFault:
    """Says why a page could not be opened.

    Args:
        shown: Its URL, without secrets.
        message: What the browser said; not shown, because it may have secrets.
    """
    error = net_error(message)
    if error is None:
        problem = "it is a download, no page" if _DOWNLOAD in message else "the browser gave up on it"
        return fault("PAGE_UNREACHABLE", shown, problem)
    if error.startswith("ERR_CERT_"):
        return fault("PAGE_CERTIFICATE", shown, f"its certificate is not valid ({error})")
    if error.startswith("ERR_PROXY_"):
        return fault("BROWSER_FAILED", shown, f"the display's egress proxy does not answer ({error})")
    if error in _NOT_ALLOWED:
        return fault("PAGE_NOT_ALLOWED", shown, f"{_NOT_ALLOWED[error]} ({error})")
    return fault("PAGE_UNREACHABLE", shown, f"{_UNREACHABLE.get(error, 'it cannot be loaded')} ({error})")


def refusal_fault(shown: str, refusal: str) -> PageFault | None:
    """Says why the egress proxy did not connect. None: it is no refusal of the proxy's."""
    try:
        reason, problem = _REFUSALS[Refusal(refusal)]
    except ValueError:
        return None
    if reason == "PAGE_NOT_ALLOWED":
        cure = "a public host, or allow_private_networks in [inputs] of the settings"
        return PageFault(reason, f"Cannot open {shown}: {problem}. Try {cure}.")
    return fault(reason, shown, problem)


def fault(reason: str, shown: str, problem: str) -> PageFault:
    """Makes a fault with the cure that fits its reason."""
    return PageFault(reason, f"Cannot open {shown}: {problem}. Try {_CURES.get(reason, _ANOTHER)}.")
