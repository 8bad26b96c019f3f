"""Draws a comparison: each policy's devices over time, and the policies side by side. PNG or SVG, without a screen.

matplotlib is an extra of the package, `plot`, and loaded only here: the daemon never needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balancer.simulation.comparison import Comparison
from balancer.simulation.outcome import ReplayResult

SUFFIXES = (".png", ".svg")
_MOST_LINES = 16
"""Devices that are drawn one by one; of more, the range that they are in."""
_COLOURS = (
    "#3366aa", "#dd7733", "#339966", "#aa3377", "#77aadd", "#997700", "#555555", "#cc3311",
    "#88ccaa", "#6644aa", "#bbaa33", "#004488", "#ee99aa", "#225522", "#994455", "#000000",
)  # fmt: skip


class PictureError(Exception):
    """A picture that cannot be drawn. The message says why and what to try."""


def draw(comparison: Comparison, path: Path) -> None:
    """Draws a comparison.

    Args:
        comparison: What to draw.
        path: Where; its suffix says the format.

    Raises:
        PictureError: matplotlib is missing, the suffix is another one, or the file cannot be written.
    """
    check_picture(path)
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(comparison.results)
    # In inches: a title, two for each policy's devices, and a bar for each policy.
    upper_height, lower_height = 0.9 + 2.1 * count, 0.7 + 0.35 * count
    figure: Any = Figure(figsize=(11, upper_height + lower_height), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=(upper_height, lower_height))
    upper.suptitle(_title(comparison), fontsize=12, fontweight="bold", x=0.01, ha="left")
    panes = upper.subplots(count, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for pane, result in zip(panes, comparison.results, strict=True):
        _draw_devices(pane, comparison, result)
    panes[-1].set_xlabel("hours into the trace")
    handles, labels = panes[0].get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    _draw_bars(lower, comparison.results)
    try:
        # Without a date and with names that do not change, so that the same trace gives the same file.
        with mpl.rc_context({"svg.hashsalt": "gpu-balancer"}):
            figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise PictureError(f"Cannot draw {path}: {error.strerror}. Try another place.") from error


def check_picture(path: Path) -> None:
    """Makes sure that a picture can be drawn before anything is replayed for it.

    Raises:
        PictureError: matplotlib is missing, or the suffix is another one.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise PictureError(f"Cannot draw {path}: pictures are PNG or SVG. Try a name that ends in .png or .svg.")
    try:
        import matplotlib  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise PictureError(
            f"Cannot draw {path}: matplotlib is not installed. Try pip install 'gpu-balancer[plot]'."
        ) from error


def _title(comparison: Comparison) -> str:
    rules = comparison.rules.settings
    admission = f"headroom {float(rules.headroom):.0%}" if rules.admission else "no admission"
    title = comparison.trace.title or "a trace"
    return f"{title}\n{len(comparison.trace.sessions):,} sessions, {len(comparison.fleet.views):,} devices, {admission}"


def _draw_devices(pane: Any, comparison: Comparison, result: ReplayResult) -> None:
    """Draws how full the fullest part of each device was."""
    hours = [sample.time_s / 3600 for sample in result.samples]
    shares = list(zip(*(sample.busy_shares for sample in result.samples), strict=True))
    if len(shares) <= _MOST_LINES:
        for number, line in enumerate(shares):
            name = result.devices[number].name
            pane.plot(hours, [100 * one for one in line], lw=1.1, color=_COLOURS[number], label=name)
    else:
        across = list(zip(*shares, strict=True))
        lowest, highest = [100 * min(one) for one in across], [100 * max(one) for one in across]
        pane.fill_between(hours, lowest, highest, color=_COLOURS[0], alpha=0.25, lw=0, label="all devices")
        pane.plot(hours, [100 * sum(one) / len(one) for one in across], color=_COLOURS[0], label="their mean")
    top = max(110.0, 100 * max((max(line) for line in shares), default=0) * 1.05)
    pane.set_ylim(0, max(top, pane.get_ylim()[1]) if pane.get_ylim()[1] > 100 else top)
    pane.axhspan(100, 10_000, color="#cc3311", alpha=0.08, lw=0)
    if comparison.rules.settings.admission:
        pane.axhline(100 * float(comparison.rules.settings.headroom), color="#888888", lw=0.8, ls="--")
    for failure in comparison.rules.failures:
        pane.axvline(failure.time_s / 3600, color="#cc3311", lw=0.8, ls=":")
    if comparison.rules.from_s:
        pane.axvspan(0, comparison.rules.from_s / 3600, color="#888888", alpha=0.1, lw=0)
    pane.set_xlim(0, max(hours, default=1) or 1)
    pane.set_ylabel("% in use", fontsize=9)
    told = (
        f"{result.policy}: {result.unserved:,} not served, {100 * result.below_real_time_share:.1f} % below real time"
    )
    pane.set_title(told, fontsize=10, loc="left")
    _plain(pane)


def _draw_bars(figure: Any, results: tuple[ReplayResult, ...]) -> None:
    """Draws the policies side by side, one pane for each figure that there is."""
    figures: list[tuple[str, list[float | None]]] = [
        ("not served, %", [100 * one.unserved_share for one in results]),
        ("time below real time, %", [100 * one.below_real_time_share for one in results]),
        ("variation of load", [one.load_variation for one in results]),
        ("work, % of one device", [_times(100, one.work_share_of_pool) for one in results]),
        ("sustainable, times", [one.sustainable_load for one in results]),
    ]
    shown = [(title, values) for title, values in figures if any(value is not None for value in values)]
    panes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    places = range(len(results))
    for pane, (title, values) in zip(panes, shown, strict=True):
        lengths = [value or 0.0 for value in values]
        pane.barh(places, lengths, color=[_COLOURS[0] if place == 0 else "#99aabb" for place in places], height=0.65)
        widest = max(lengths) or 1.0
        for place, value in enumerate(values):
            text = "-" if value is None else f"{value:.3g}"
            pane.text((value or 0.0) + 0.03 * widest, place, text, va="center", fontsize=8)
        pane.set_xlim(0, widest * 1.25)
        pane.set_title(title, fontsize=8.5, loc="left")
        pane.set_xticks([])
        pane.spines["bottom"].set_visible(False)
        _plain(pane)
    panes[0].set_yticks(list(places), [result.policy for result in results], fontsize=9)
    panes[0].invert_yaxis()


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _plain(pane: Any) -> None:
    pane.spines["top"].set_visible(False)
    pane.spines["right"].set_visible(False)
    pane.tick_params(labelsize=8)
