"""Refuses files and hosts that a session may not touch.

The guard runs when a session is checked and again just before it is launched. Between that and ffmpeg's own look-up a
name may change its address; nothing but an egress filter of the operating system closes that gap.
"""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from agents.media_access.addresses import UnresolvedHostError, own_addresses, resolve
from agents.public_addresses import Address, is_public
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.runtime.redaction import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DEFAULT_PORTS = {"http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "rtsp": 554}
_LONGEST_URL = 4096


class NetworkRules(Protocol):
    """Where streams may come from or go to; the sections [inputs] and [outputs] are such rules."""

    @property
    def protocols(self) -> Sequence[str]:
        """Schemes that are allowed."""
        ...

    @property
    def allow_private_networks(self) -> bool:
        """Whether addresses that are not public may be reached."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestField:
    """A field of a request, for failures about it."""

    path: str
    """As in `google.rpc.BadRequest`: "session.transcode.input.uri"."""
    verb: str
    """What was to be done with it: "read" or "write to"."""
    refused: Reason
    """The reason when it is not allowed."""
    unreachable: Reason
    """The reason when its host cannot be found or does not answer."""

    def failure(self, reason: Reason, shown: str, problem: str, cure: str) -> RequestFailure:
        """Makes the failure "Cannot <verb> <shown>: <problem>. Try <cure>." about this field."""
        violation = Violation(field=self.path, description=f"{problem}. Try {cure}.")
        message = f"Cannot {self.verb} {shown}: {problem}. Try {cure}."
        return RequestFailure(reason=reason, message=message, violations=(violation,))


INPUT_FIELD = RequestField(
    path="session.transcode.input.uri",
    verb="read",
    refused=Reason.INPUT_NOT_ALLOWED,
    unreachable=Reason.INPUT_UNREACHABLE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedHost:
    """A host that passed, with the addresses by which it did."""

    host: str
    port: int
    addresses: tuple[Address, ...]
    """At least one; all of them passed."""


async def guard_url(url: str, rules: NetworkRules, request_field: RequestField = INPUT_FIELD) -> GuardedHost:
    """Checks that a stream's URL is of an allowed protocol and that every address of its host may be reached.

    Args:
        url: The URL with its secrets.
        rules: What is allowed.
        request_field: The field it came in, for failures.

    Returns:
        The host and its addresses. The resolver bounds the time; callers bound it further.

    Raises:
        RequestFailure: When it is refused, malformed, or its host cannot be found. The message shows no secret.
    """
    shown = redact_url(url)
    parts = _split_url(url, rules, request_field, shown)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    try:
        addresses = await resolve(host, port)
    except UnresolvedHostError as error:
        problem = f"its host {host} cannot be found: {error}"
        raise request_field.failure(
            request_field.unreachable, shown, problem, "the URL in another player from this machine"
        ) from error
    if not rules.allow_private_networks:
        private = _first_private(addresses)
        if private is not None:
            raise request_field.failure(
                request_field.refused,
                shown,
                f"its host {host} has the address {private}, which is not public",
                f"a public host, or allow_private_networks in [{_section(request_field)}]",
            )
    return GuardedHost(host=host, port=port, addresses=addresses)


async def guard_input_file(uri: str, roots: Iterable[str]) -> str:
    """Checks that an input is a readable regular file under the allowed roots, links followed.

    Args:
        uri: An absolute path, or a file:// URL without a host.
        roots: Folders under which files may be read.

    Returns:
        Its real path.

    Raises:
        RequestFailure: When it is not; outside the roots nothing is told about what is there.
    """
    path = _path_of(uri)
    return await asyncio.to_thread(_checked_file, path, tuple(roots))


def _path_of(uri: str) -> str:
    if uri.startswith("/"):
        path = uri
    else:
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise INPUT_FIELD.failure(
                Reason.INPUT_UNREADABLE, uri, "it is no path of this machine", "an absolute path, or file:///…"
            )
        path = unquote(parts.path)
    if "\0" in path or any(ord(character) < 0x20 for character in path):
        raise INPUT_FIELD.failure(Reason.INPUT_UNREADABLE, repr(path), "it has control characters", "another name")
    return path


def _checked_file(path: str, roots: tuple[str, ...]) -> str:
    real = os.path.realpath(path)
    if not is_under(real, roots):
        allowed = ", ".join(roots) or "none"
        problem = f"files may be read under the input roots only, which are: {allowed}"
        raise INPUT_FIELD.failure(
            Reason.INPUT_NOT_ALLOWED, path, problem, "uploading it, or roots in [inputs] of the settings"
        )
    # A slash at the end asks for a folder, so that "film.mp4/" is nothing; the real path has lost it.
    asked = f"{real}/" if path.endswith(("/", "/.")) else real
    try:
        # Not blocking: opening a FIFO would wait for its writer. What is checked from here on is what was opened.
        descriptor = os.open(asked, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise INPUT_FIELD.failure(Reason.INPUT_NOT_FOUND, path, "there is no such file", "another path") from None
    except PermissionError:
        raise INPUT_FIELD.failure(
            Reason.INPUT_UNREADABLE, path, "the daemon's user may not read it", "chmod or uploading it"
        ) from None
    except OSError as error:
        raise INPUT_FIELD.failure(
            Reason.INPUT_UNREADABLE, path, f"it cannot be opened: {error.strerror}", "another file"
        ) from error
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    problem = _file_problem(status)
    if problem:
        raise INPUT_FIELD.failure(Reason.INPUT_UNREADABLE, path, problem, "a media file")
    return real


def _file_problem(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "it is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_size == 0:
        return "it is empty"
    return ""


def is_under(real_path: str, roots: Iterable[str]) -> bool:
    """Tells whether a real path lies under one of some folders, whose links are followed."""
    return any(Path(real_path).is_relative_to(os.path.realpath(root)) for root in roots)


def shared_folder_problem(status: os.stat_result) -> str:
    """Tells why a presentation cannot be written safely into an existing folder. Empty: it can."""
    if status.st_uid != os.geteuid():
        return "the folder exists and is another user's, who could plant links in it"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "the folder exists and others may write into it, who could plant links in it"
    return ""


def _split_url(url: str, rules: NetworkRules, request_field: RequestField, shown: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise request_field.failure(request_field.refused, shown, f"it is no URL: {error}", "another URL") from error
    if parts.scheme not in rules.protocols:
        problem = f'the protocol "{parts.scheme}" is not allowed'
        raise request_field.failure(request_field.refused, shown, problem, f"one of {', '.join(rules.protocols)}")
    problem = _url_problem(url, parts, host)
    if problem:
        raise request_field.failure(request_field.refused, shown, problem, "another URL")
    return parts


def _url_problem(url: str, parts: SplitResult, host: str | None) -> str:
    # Parsers disagree about these, so that the host we check would not be the host that is reached.
    if len(url) > _LONGEST_URL:
        return f"it is longer than {_LONGEST_URL} characters"
    if any(ord(character) <= 0x20 or character in '\\<>"^`{|}\x7f' for character in url):
        return "it has blanks or other characters that must be percent-encoded"
    if not host or not host.isascii() or "%" in host:
        return "it has no host, or one that is not written in ASCII"
    mode = parse_qs(parts.query).get("mode", ["caller"])
    if parts.scheme == "srt" and mode != ["caller"]:
        return "only the SRT mode caller is allowed, as others open a port here"
    if parts.scheme == "srt" and not parts.port:
        return "an SRT URL needs a port"
    return ""


def _first_private(addresses: tuple[Address, ...]) -> Address | None:
    ours = own_addresses()
    return next((address for address in addresses if address in ours or not is_public(address)), None)


def _section(request_field: RequestField) -> str:
    return "inputs" if request_field is INPUT_FIELD else "outputs"
