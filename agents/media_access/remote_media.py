"""Follows where an http(s) input leads before ffmpeg does: redirects hop by hop, then what an HLS playlist names.

ffmpeg checks protocols, not addresses, so a public URL could send it into the network behind us. Here every hop and
every host in a playlist passes the guard. It is a look at one moment: a server that answers differently later, or
redirects single segments, is stopped by an egress filter alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

from agents.media_access.guard import INPUT_FIELD, guard_url
from agents.media_access.http_fetch import FetchError, HttpAnswer, fetch_beginning
from agents.media_access.playlists import Playlist, PlaylistError, read_playlist
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.runtime.redaction import redact_url

if TYPE_CHECKING:
    from agents.media_access.guard import NetworkRules
    from gpu_balancer.runtime.failures import RequestFailure

_MOST_REDIRECTS = 5
_MOST_VARIANTS = 32
_PLAYLIST_LIMIT_BYTES = 4 * 1024 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STREAM_PROTOCOLS = frozenset({"http", "https"})
_DECODED_BY_FFMPEG = ("gzip", "deflate")


async def follow(url: str, rules: NetworkRules) -> str:
    """Finds where an http(s) input really is, and that everything it names may be reached.

    Args:
        url: An http or https URL.
        rules: The section [inputs].

    Returns:
        The last URL of its redirects. Callers bound the time.

    Raises:
        RequestFailure: When a hop or a host in its playlist is refused, or it does not answer with success.
    """
    final, answer = await _last_hop(url, rules)
    if answer.playlist is not None:
        await _check_playlist(final, _read(final, answer.playlist), rules)
    return final


async def _last_hop(url: str, rules: NetworkRules) -> tuple[str, HttpAnswer]:
    hop = url
    for _ in range(_MOST_REDIRECTS + 1):
        guarded = await guard_url(hop, rules)
        try:
            answer = await fetch_beginning(hop, guarded, playlist_limit_bytes=_PLAYLIST_LIMIT_BYTES)
        except FetchError as error:
            problem = f"its server {guarded.host} gives nothing: {error}"
            raise INPUT_FIELD.failure(
                Reason.INPUT_UNREACHABLE, redact_url(url), problem, "the URL in another player from this machine"
            ) from error
        if answer.status not in _REDIRECTS:
            _require_success(url, answer)
            if any(coding in answer.headers.get("content-encoding", "").lower() for coding in _DECODED_BY_FFMPEG):
                raise _refused(url, "its server compresses it, which hides a playlist from the check")
            return hop, answer
        hop = _next_hop(url, hop, answer)
    problem = f"it redirects more than {_MOST_REDIRECTS} times"
    raise INPUT_FIELD.failure(Reason.INPUT_UNREACHABLE, redact_url(url), problem, "the URL that it leads to")


def _next_hop(url: str, hop: str, answer: HttpAnswer) -> str:
    location = answer.headers.get("location", "")
    target = urljoin(hop, location)
    if not location or urlsplit(target).scheme not in _STREAM_PROTOCOLS:
        raise _refused(url, f"it redirects to {redact_url(target)}, which is no HTTP")
    before, after = urlsplit(hop), urlsplit(target)
    if before.username is not None and after.username is None and before.netloc.rpartition("@")[2] == after.netloc:
        # ffmpeg asks the final URL with what stands in it: credentials stay while the host does, and no longer.
        credentials = before.netloc.rpartition("@")[0]
        target = urlunsplit(after._replace(netloc=f"{credentials}@{after.netloc}"))
    return target


def _require_success(url: str, answer: HttpAnswer) -> None:
    if not 200 <= answer.status < 300:
        problem = f"its server answers {answer.status} {answer.reason}".rstrip()
        raise INPUT_FIELD.failure(
            Reason.INPUT_UNREACHABLE, redact_url(url), problem, "the URL in another player from this machine"
        )


def _read(url: str, text: str) -> Playlist:
    try:
        return read_playlist(url, text)
    except PlaylistError as error:
        raise _refused(url, str(error)) from error


async def _check_playlist(url: str, playlist: Playlist, rules: NetworkRules) -> None:
    """Checks every host that a playlist names, and the playlists of a master playlist in turn."""
    await _guard_hosts(playlist.targets, rules)
    if not playlist.names_playlists:
        if any(urlsplit(target).path.endswith((".m3u8", ".m3u")) for target in playlist.targets):
            raise _refused(url, "its playlist names playlists as segments")
        return
    if len(playlist.targets) > _MOST_VARIANTS:
        raise _refused(url, f"its playlist names more than {_MOST_VARIANTS} others")
    for target in playlist.targets:
        final, answer = await _last_hop(target, rules)
        if answer.playlist is None:
            continue
        variant = _read(final, answer.playlist)
        if variant.names_playlists:
            raise _refused(url, "its master playlist names master playlists")
        await _check_playlist(final, variant, rules)


async def _guard_hosts(targets: tuple[str, ...], rules: NetworkRules) -> None:
    checked: set[tuple[str, str]] = set()
    for target in targets:
        parts = urlsplit(target)
        if (parts.scheme, parts.netloc) not in checked:
            checked.add((parts.scheme, parts.netloc))
            await guard_url(target, rules)


def _refused(url: str, problem: str) -> RequestFailure:
    return INPUT_FIELD.failure(Reason.INPUT_NOT_ALLOWED, redact_url(url), problem, "another URL")
