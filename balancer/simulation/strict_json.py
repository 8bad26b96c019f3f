"""JSON in which a key stands once in an object. Python's own reader takes the last of several without a word.

What was written by hand and half understood would answer another question than was asked.
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
