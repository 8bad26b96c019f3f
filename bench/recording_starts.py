"""How soon a recording has its first picture, and whether the first ones show the page.

The page writes the time into its strip. So the first frame of the file tells when what it shows was drawn, by the
clock that the request was timed with, whatever the daemon says of itself.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.strip import Reading, count_frames, first_drawing_time_s, read_strip
from bench.measuring import Figure, spread
from bench.naive_recorder import naive_recording
from bench.recording_sessions import recording_house

if TYPE_CHECKING:
    from bench.recording_sessions import RecordingHouse

_KEPT_S = 1.0
"""Recorded after the first frame."""
_NAIVE_S = 8.0
"""Seconds that a script records: its browser has drawn by then on a busy machine too."""
_FRAME_S = 1 / 30


def measure_starts(house: RecordingHouse, *, runs: int, cold_runs: int, naive_runs: int) -> list[Figure]:
    """Measures the way from the request to the first picture: warm, cold, and the rival's.

    Args:
        house: With warm displays.
        runs: Warm starts.
        cold_runs: Starts on displays that are made for them. 0: they are left out.
        naive_runs: Starts of the rival. 0: it is left out.
    """
    warm = [_start_s(house) for _ in range(runs)]
    figures = [
        Figure(
            name="start, warm: p50", value=_percentile(warm, 50), unit="s", bound="<= 0.4", detail=spread(warm, "s")
        ),
        Figure(name="start, warm: p95", value=_percentile(warm, 95), unit="s", bound="<= 0.8", detail=f"{runs} runs"),
    ]
    if cold_runs:
        with recording_house(warm_displays=0, size=house.size) as other:
            cold = [_start_s(other) for _ in range(cold_runs)]
        figures.append(
            Figure(
                name="start, cold: p95", value=_percentile(cold, 95), unit="s", bound="<= 3.5", detail=spread(cold, "s")
            )
        )
    if naive_runs:
        naive = [_naive_start_s(house) for _ in range(naive_runs)]
        ratio = statistics.median(naive) / statistics.median(warm)
        figures.append(
            Figure(
                name="start: script / warm", value=ratio, unit="x", bound="> 1", detail=f"script {spread(naive, 's')}"
            )
        )
    return figures


def measure_leading_frames(house: RecordingHouse, *, runs: int) -> Figure:
    """Counts the frames before the first with content, of a page that paints late."""
    leading = []
    for number in range(runs):
        house.await_warm()
        asked = house.start("counter", paint_delay_ms=200 + 37 * (number % 20))
        time.sleep(_KEPT_S)
        ended = house.stop(asked.name)
        leading.append(_leading(read_strip(ended.file)))
        house.discard(asked.name)
    return Figure(
        name="frames without content at the begin",
        value=sum(leading),
        unit="frames",
        bound="= 0",
        detail=f"{sum(count > 0 for count in leading)} of {runs} runs, most {max(leading)}",
    )


def _start_s(house: RecordingHouse) -> float:
    """Gives the time from the request until the first picture was in the recorder: drawn, then a frame's time at most.

    A client sees the session RUNNING somewhat later; that it sees it at all was waited for.
    """
    house.await_warm()
    asked = house.start("counter")
    time.sleep(_KEPT_S)
    ended = house.stop(asked.name)
    drawn_s = first_drawing_time_s(read_strip(ended.file), after_s=asked.asked_s)
    house.discard(asked.name)
    return drawn_s + _FRAME_S - asked.asked_s


def _naive_start_s(house: RecordingHouse) -> float:
    film = house.fetched / "script.mp4"
    asked_s = time.time()
    width, height = house.size
    url = house.pages.url("counter")
    with naive_recording(url, film, seconds=_NAIVE_S, width=width, height=height) as recording:
        recording.await_file()
    return first_drawing_time_s(read_strip(film), after_s=asked_s) + _FRAME_S - asked_s


def _leading(reading: Reading) -> int:
    return count_frames(reading, frame_rate=30).leading_unreadable


def _percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))
