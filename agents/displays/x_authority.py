"""The file by which X clients prove that they may use a display. Pure: bytes in, bytes out.

A file of one entry is written by hand because `xauth` is one more program that may be missing, and passes the cookie
through its arguments or a pipe. Format: XAUTHORITY in libXau's `Xau.h`, AuRead.c: family, then address, number, name
and data, each led by its length; all numbers big-endian 16 bits.
"""

from __future__ import annotations

import secrets
import struct

COOKIE_NAME = b"MIT-MAGIC-COOKIE-1"
COOKIE_BYTES = 16
_FAMILY_WILD = 0xFFFF
"""Matches any address, so that the entry is right whatever the host is called while the display lives."""
_NUMBER = struct.Struct(">H")


class AuthorityUnreadableError(Exception):
    """A file is not one that `authority_file` gave."""


def new_cookie() -> bytes:
    """Makes 16 bytes that nobody can guess."""
    return secrets.token_bytes(COOKIE_BYTES)


def authority_file(cookie: bytes) -> bytes:
    """Gives the content of an authority file that holds for every display.

    Args:
        cookie: From `new_cookie`. The X server is told it by the same file.
    """
    fields = (b"", b"", COOKIE_NAME, cookie)
    return _NUMBER.pack(_FAMILY_WILD) + b"".join(_NUMBER.pack(len(field)) + field for field in fields)


def cookie_of(content: bytes) -> bytes:
    """Reads the cookie back from an authority file of ours.

    Raises:
        AuthorityUnreadableError: When it is none.
    """
    cookie = content[-COOKIE_BYTES:]
    if len(cookie) != COOKIE_BYTES or content != authority_file(cookie):
        raise AuthorityUnreadableError("Cannot read an X authority file: it is none of this agent's.")
    return cookie
