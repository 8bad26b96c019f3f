"""A session's progress while a command waits for it: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Self

from gpu_balancer.cli.restart_views import way_words
from gpu_balancer.cli.session_words import (
    PHASE_CONDITIONS,
    done_share,
    is_paused,
    phase_words,
    progress_words,
    queue_words,
    recording_figures,
)
from gpu_balancer.cli.words import clean, clock, device_word
from gpu_balancer.client.names import short_name
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType
    from rich.progress import Progress, Task, TaskID

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.v1.session_pb2 import Session

LINE_INTERVAL = timedelta(seconds=10)
"""Between lines about progress alone, where no bar can be drawn. Changes of state are told at once."""


_BAR_GAPS = 4
"""Columns between the parts of a line with a bar."""
_SHORTEST_BAR = 8
"""Columns of a bar that still tells something."""


class SessionProgress:
    """Shows one session, on standard error. Use it as a context manager; `show` is its one door."""

    def __init__(self, screen: Screen, *, clock: Clock | None = None) -> None:
        """Shows nothing yet."""
        self._screen = screen
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told_state = ""
        self._told_line = ""
        self._told_notes: set[str] = set()
        self._told_s = float("-inf")

    def __enter__(self) -> Self:
        if self._screen.lively:
            self._bar = _make_bar()
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, session: Session) -> None:
        """Shows a session as it is now."""
        self._show_notes(session)
        if self._bar is None:
            self._show_line(session)
            return
        if self._task is None:
            self._task = self._bar.add_task("", total=None, state="", waiting=False, figures="", left="")
        share = done_share(session)
        ended = session.state in (session_pb2.SESSION_STATE_FAILED, session_pb2.SESSION_STATE_CANCELLED)
        self._bar.update(
            self._task,
            description=short_name(session.name),
            total=None if share is None and not ended else 1.0,
            completed=share or 0.0,
            state=_fitting_words(session, self._bar.console.width) or phase_words(session),
            waiting=session.state == session_pb2.SESSION_STATE_QUEUED or is_paused(session),
            figures=_figures(session, self._bar.console.width),
            left=_time_left(session),
        )

    def _show_notes(self, session: Session) -> None:
        """Tells once where to publish, and conditions."""
        if session.ingest_url:
            self._note(f"Publish to {session.ingest_url}")
        for condition in session.conditions:
            if condition.type not in PHASE_CONDITIONS or not session.HasField("recording"):
                self._note(f"{condition.type}: {clean(condition.message)}")

    def _note(self, text: str) -> None:
        if text in self._told_notes:
            return
        self._told_notes.add(text)
        if self._bar is not None:
            self._bar.console.print(text, soft_wrap=True)
        else:
            self._screen.note(text)

    def _show_line(self, session: Session) -> None:
        now_s, state = self._clock.monotonic_s(), phase_words(session)
        if state == self._told_state and now_s - self._told_s < LINE_INTERVAL.total_seconds():
            return
        self._told_state, self._told_s = state, now_s
        place = f" on {device_word(session.device)}" if session.device else ""
        figures = f", {_line_figures(session)}" if session.HasField("progress") else ""
        line = f"{short_name(session.name)}: {_waiting_words(session) or f'{state}{place}{figures}'}"
        # A session may wait for hours: the same place again is no news.
        if line != self._told_line:
            self._told_line = line
            self._screen.note(line)


def _waiting_words(session: Session) -> str:
    """Tells what a session waits for, and its place; nothing when it does not wait."""
    if session.state != session_pb2.SESSION_STATE_QUEUED:
        return ""
    place, way = queue_words(session), way_words(session) or "waiting for a device"
    return f"{way}: {place}" if place else way


def _fitting_words(session: Session, width: int) -> str:
    """Tells the same in fewer words where a line beside the session's name has no room for them."""
    words = _waiting_words(session)
    if len(short_name(session.name)) + len(words) + _BAR_GAPS <= width:
        return words
    return f"queued: {place}" if (place := queue_words(session)) else ""


def _line_figures(session: Session) -> str:
    return recording_figures(session) if session.HasField("recording") else progress_words(session)


def _figures(session: Session, width: int) -> str:
    """Tells the figures beside the bar.

    Args:
        session: The session.
        width: Columns of the whole line.
    """
    progress = session.progress
    if session.state == session_pb2.SESSION_STATE_QUEUED:
        return ""
    if not session.HasField("progress"):
        return f"on {device_word(session.device)}" if session.device else ""
    if session.HasField("recording"):
        whole = recording_figures(session)
        taken = len(short_name(session.name)) + len(phase_words(session)) + len(whole) + _BAR_GAPS
        return whole if taken + _SHORTEST_BAR <= width else recording_figures(session, whole=False)
    parts = [f"{done:.0%}" if (done := done_share(session)) is not None else clock(progress.out_time)]
    if progress.HasField("speed"):
        parts.append(f"{progress.speed:.2g}x")
    if session.HasField("speed_limit"):
        parts.append(f"≤{session.speed_limit:.2g}x")
    if progress.frames_per_second:
        parts.append(f"{progress.frames_per_second:.0f} fps")
    return " ".join(parts)


def _time_left(session: Session) -> str:
    progress = session.progress
    if session.state != session_pb2.SESSION_STATE_RUNNING or not progress.HasField("total_time"):
        return ""
    if session.HasField("recording"):
        # How much of how much stands there already.
        return ""
    left = progress.total_time.ToTimedelta() - progress.out_time.ToTimedelta()
    if not progress.HasField("speed") or progress.speed <= 0.001 or left <= timedelta(0):
        return ""
    whole = type(progress.total_time)()
    whole.FromSeconds(round(left.total_seconds() / progress.speed))
    return f"{clock(whole)} left"


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    bar = BarColumn(bar_width=None)

    class MovingBar(ProgressColumn):
        """A bar, but nothing while a session waits for a device or rests: nothing moves then."""

        def render(self, task: Task) -> RenderableType:
            return Text() if task.fields["waiting"] else bar.render(task)

    # A terminal writes ^C behind the bar: at the end of a full line it would break it in two.
    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    console.width = max(20, console.width - 3)
    fixed = Column(no_wrap=True)
    return Progress(
        TextColumn("{task.description}", table_column=fixed, markup=False),
        TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True, min_width=9), markup=False),
        MovingBar(),
        TextColumn("{task.fields[figures]}", table_column=fixed, markup=False),
        TextColumn("{task.fields[left]}", table_column=fixed, markup=False),
        console=console,
        expand=True,
    )
