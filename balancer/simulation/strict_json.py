"""What readers of JSON share: a key stands once in an object, and is named as sentences name it.

Python's own reader takes the last of several without a word, and what was written by hand and half
understood would answer another question than was asked.
"""

from __future__ import annotations

from collections import Counter
from typing import Any


class RepeatedKeyError(Exception):
    """An object has a key more than once."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of what stands in it; for `object_pairs_hook` of `json.loads`.

    Raises:
        RepeatedKeyError: A key stands there more than once.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise RepeatedKeyError(key)
    return made


def named(key: str) -> str:
    """Gives a key as a sentence takes it: "a width", "an arrival_s"."""
    return f"{'an' if key[:1] in tuple('aeio') else 'a'} {key}"
