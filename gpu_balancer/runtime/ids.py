"""Random identifiers: the one place where they are made."""

from __future__ import annotations

import secrets

_ALPHABET = b"0123456789abcdefghjkmnpqrstvwxyz"
_LETTER_OF_BYTE = _ALPHABET * (256 // len(_ALPHABET))
"""A letter for each byte. 256 is a multiple of 32, so every letter is as likely as any other."""


def random_id(prefix: str = "", *, length: int = 16) -> str:
    """Makes an identifier that nobody can guess and that is easy to read out.

    Args:
        prefix: Put in front as it is.
        length: Random characters of 5 bits each.

    Returns:
        Lower-case letters and digits without i, l, o, u (Crockford's base 32).
    """
    return prefix + secrets.token_bytes(length).translate(_LETTER_OF_BYTE).decode()
