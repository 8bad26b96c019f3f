"""The one door to chance: whatever is drawn comes from a seed, so that every figure can be had again."""

from __future__ import annotations

from random import Random


def seeded(seed: int) -> Random:
    """Makes a generator whose draws follow from the seed."""
    return Random(seed)  # noqa: S311 - nothing here is to be kept from being guessed
