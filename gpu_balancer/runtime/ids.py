"""Random identifiers: the one place where they are made."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def random_id(prefix: str = "", *, length: int = 16) -> str:
    """Makes an identifier that nobody can guess and that is easy to read out.

    Args:
        prefix: Put in front as it is.
        length: Random characters of 5 bits each.

    Returns:
        Lower-case letters and digits without i, l, o, u (Crockford's base 32).
    """
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))
