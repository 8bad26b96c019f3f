"""Figures of many like measurements: the middle one, the 95th of a hundred, the worst."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from bench.measuring import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence


def missed(figures: Sequence[Figure]) -> list[Figure]:
    """Gives the counts that are not what was asked for. Times are the machine's, too: they miss nothing."""
    return [one for one in figures if one.bound.startswith("= ") and one.value != float(one.bound[2:])]


def percentile(values: Sequence[float], share: float) -> float:
    """Gives the smallest value that a share of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]


def times_figure(name: str, times_s: Sequence[float], bound: str) -> Figure:
    """Tells the worst of some times, since that is what a bound is about, with the others beside it."""
    if not times_s:
        return Figure(name=name, value=float("nan"), unit="s", bound=bound, detail="nothing was measured")
    detail = f"worst of {len(times_s)}; median {statistics.median(times_s):.2f}, p95 {percentile(times_s, 0.95):.2f}"
    return Figure(name=name, value=max(times_s), unit="s", bound=bound, detail=detail)


def count_figure(name: str, value: int, bound: str = "= 0", detail: str = "") -> Figure:
    """Tells a number of things."""
    return Figure(name=name, value=value, unit="", bound=bound, detail=detail)
