"""Progress of uploads and downloads on standard error, when that is a terminal; nothing otherwise."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.v1.session_pb2 import Artifact


@contextmanager
def shown_upload(screen: Screen, file_name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows one upload from its first byte to its last.

    Yields:
        A function to be told the bytes done and the bytes in all.
    """
    from gpu_balancer.cli.words import clean

    tasks: list[TaskID] = []
    bars = _bars(screen)

    def tell(done_bytes: int, total_bytes: int) -> None:
        if not tasks:
            screen.note(f"Uploading {clean(file_name)}, which the daemon may not read itself …")
            tasks.append(bars.add_task(clean(file_name), total=total_bytes))
            bars.start()
        bars.update(tasks[0], completed=done_bytes, total=total_bytes)

    try:
        yield tell
    finally:
        bars.stop()


@contextmanager
def shown_downloads(screen: Screen) -> Iterator[Callable[[Artifact, int, int], None]]:
    """Shows downloads, one after the other.

    Yields:
        A function to be told the artifact, its bytes done and its bytes in all.
    """
    from gpu_balancer.cli.words import clean

    current: dict[str, TaskID] = {}
    bars = _bars(screen)

    def tell(artifact: Artifact, done_bytes: int, total_bytes: int) -> None:
        if artifact.name not in current:
            # An HLS presentation has thousands of files: one bar, always of the file at hand.
            for task in current.values():
                bars.remove_task(task)
            current.clear()
            current[artifact.name] = bars.add_task(f"Fetching {clean(artifact.path)}", total=total_bytes)
            bars.start()
        bars.update(current[artifact.name], completed=done_bytes, total=total_bytes)

    try:
        yield tell
    finally:
        bars.stop()


def _bars(screen: Screen) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    name = Column(no_wrap=True, overflow="ellipsis", max_width=32)
    return Progress(
        TextColumn("{task.description}", table_column=name, markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(compact=True),
        console=screen.side_console,
        transient=True,
        disable=not screen.lively,
    )
