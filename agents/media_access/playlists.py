"""What an HLS playlist names, by a grammar that refuses whatever ffmpeg might read otherwise than we do.

A check of names is worth nothing when ffmpeg finds others in the same bytes: it ends lines at NUL, takes attributes
without quotes, resolves escapes in those with them, cuts long lines, and knows no relative name with a scheme. So this
reads the common ground alone, and says of anything beside it why it is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from gpu_balancer.runtime.redaction import redact_url

_LONGEST_LINE_BYTES = 4095
"""What ffmpeg keeps of a line; the rest it drops, which may be the end of a host."""
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LINE_END = re.compile(r"[\r\n]")
_BLANKS = " \t"
_MARK_PREFIX = "\ufeff" + _BLANKS + "\r\n"

_ATTRIBUTE = r'[A-Za-z0-9_.-]+=(?:"[^"\\]*"|[^"\\\s,]*)'
_ATTRIBUTES = re.compile(rf"{_ATTRIBUTE}(?:[ \t]*,[ \t]*{_ATTRIBUTE})*,?")
_ONE_ATTRIBUTE = re.compile(r'([A-Za-z0-9_.-]+)=("[^"\\]*"|[^"\\\s,]*)')
_URI_MARK = re.compile(r"URI[ \t]*=")

_AUTHORITY = r"(?:[A-Za-z0-9._~!$&'()*+,;=:%-]*@)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
# A path must follow the host: without one, some take what stands behind ? or # for a part of it.
_ABSOLUTE = re.compile(rf"https?://{_AUTHORITY}(?:/.*)?")
_WITHOUT_SCHEME = re.compile(rf"//{_AUTHORITY}(?:/.*)?")
_FORBIDDEN_IN_NAME = re.compile(r"[\x00-\x20\\<>\"^`{|}\x7f-\x9f\u2028\u2029]")
_DATA = re.compile(r"data:[A-Za-z0-9.+/-]*(?:;[A-Za-z0-9=-]+)*,[A-Za-z0-9+/=%._~-]*")

_KEY_TAGS = frozenset({"#EXT-X-KEY", "#EXT-X-SESSION-KEY", "#EXT-X-SESSION-DATA"})
"""Tags whose URI is not read as a playlist or media, so that it may hold its data itself."""
_MASTER_TAGS = ("#EXT-X-STREAM-INF", "#EXT-X-MEDIA:")


class PlaylistError(Exception):
    """A playlist is not of the form that is read. The text says why, without secrets, beginning with "its playlist"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Playlist:
    """What a playlist names."""

    targets: tuple[str, ...]
    """The http and https URLs, each once, in order."""
    names_playlists: bool
    """Whether ffmpeg reads what it names as playlists: it is a master playlist."""


def read_playlist(url: str, text: str) -> Playlist:
    """Reads a playlist.

    Args:
        url: Where it was found, which relative names begin from.
        text: The playlist.

    Returns:
        What it names.

    Raises:
        PlaylistError: When programs could read it differently, or it names something that is no HTTP.
    """
    control = _CONTROL_CHARACTER.search(text)
    if control:
        raise PlaylistError(f"its playlist has the control character {ord(control[0]):#04x}")
    targets: dict[str, None] = {}
    for line in _LINE_END.split(text.lstrip(_MARK_PREFIX)):
        # Blanks at the end are cut as ffmpeg cuts them; Python's strip would cut more.
        for name in _named(line.rstrip(_BLANKS)):
            targets[_target(url, name)] = None
    return Playlist(targets=tuple(targets), names_playlists=any(tag in text for tag in _MASTER_TAGS))


def _named(line: str) -> list[str]:
    """Lists what a line names: itself when it is no comment, or the URI attributes of a tag."""
    if not line:
        return []
    is_tag = line.startswith("#")
    if is_tag and not (line.startswith("#EXT") and _URI_MARK.search(line)):
        return []
    if len(line.encode()) > _LONGEST_LINE_BYTES:
        raise PlaylistError(f"its playlist has names in a line of more than {_LONGEST_LINE_BYTES} bytes")
    return _uris_of_tag(line) if is_tag else [line]


def _uris_of_tag(line: str) -> list[str]:
    tag, _, attributes = line.partition(":")
    if not _ATTRIBUTES.fullmatch(attributes.lstrip(_BLANKS)):
        raise PlaylistError(f"its playlist has attributes of {_shown_tag(tag)} that are not NAME=value with commas")
    uris: list[str] = []
    for name, value in _ONE_ATTRIBUTE.findall(attributes):
        if not value.startswith('"'):
            if name.endswith("URI") or _URI_MARK.search(value):
                raise PlaylistError(f"its playlist has a URI of {_shown_tag(tag)} without quotes")
        elif name == "URI":
            uri = value[1:-1]
            if tag not in _KEY_TAGS or not _DATA.fullmatch(uri):
                uris.append(uri)
    return uris


def _shown_tag(tag: str) -> str:
    return tag if re.fullmatch(r"#[A-Z0-9-]{1,40}", tag) else "a tag"


def _target(url: str, name: str) -> str:
    """Makes the URL that every program makes of a name, or refuses it."""
    shown = redact_url(name)
    if not name:
        raise PlaylistError("its playlist has an empty URI")
    if _FORBIDDEN_IN_NAME.search(name):
        raise PlaylistError(f"its playlist names {shown!r}, with blanks or characters that must be percent-encoded")
    before_path = re.split(r"[/?#]", name, maxsplit=1)[0]
    if ":" in before_path:
        if not _ABSOLUTE.fullmatch(name):
            raise PlaylistError(f"its playlist names {shown}, which is no http(s)://host/path")
    elif name.startswith("//"):
        if not _WITHOUT_SCHEME.fullmatch(name):
            raise PlaylistError(f"its playlist names {shown}, which is no //host/path")
    elif not name.startswith("/"):
        _require_inside(url, name, shown)
    try:
        return urljoin(url, name)
    except ValueError as error:
        raise PlaylistError(f"its playlist names {shown}, which is no URL: {error}") from error


def _require_inside(url: str, name: str, shown: str) -> None:
    """Refuses a relative name that leaves the server's root, where some programs cut off the host."""
    folders = urlsplit(url).path.count("/") - 1
    if folders < 0:
        raise PlaylistError(f"its playlist names {shown}, but is itself at a URL without a path")
    for part in re.split(r"[?#]", name, maxsplit=1)[0].split("/"):
        if part == "..":
            folders -= 1
        elif part not in ("", "."):
            folders += 1
        if folders < 0:
            raise PlaylistError(f"its playlist names {shown}, which leads above the root of its server")
