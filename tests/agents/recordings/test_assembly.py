"""What makes recordings comes up in bounded time, and lends nothing before it knows what is lent already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.trace import NoOpTracer

from agents.recordings import assembly
from agents.recordings.assembly import Recordings
from agents.sessions.attempt import AttemptKey
from agents.sessions.event_numbers import EventNumbers
from agents.sessions.fence import Fences
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.status_book import StatusBook
from agents.settings import AgentSettings
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.recording_sections import RecordingSettings
from gpu_balancer.runtime.task_guard import TaskGuard


def no_device() -> object:
    raise RequestFailure(reason=Reason.NO_DEVICE_READY, message="Cannot tell: nothing was probed. Try again.")


async def test_a_disk_that_hangs_keeps_no_agent_from_serving_but_from_lending_displays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gives = threading.Event()

    def slow(_: AttemptFolder) -> str | None:
        assert gives.wait(30)
        return None

    monkeypatch.setattr(assembly, "used_display", slow)
    monkeypatch.setattr(assembly, "_TAKEN_OVER_WITHIN_S", 0.05)
    clock = SystemClock()
    folders = SessionFolders(root=tmp_path / "sessions")
    folders.of(AttemptKey(session="s1", attempt=1)).create({})
    changed = asyncio.Event()
    async with TaskGuard("recordings") as tasks:
        recordings = Recordings(
            AgentSettings(recordings=RecordingSettings(run_dir=str(tmp_path / "run"), prewarm=False)),
            tmp_path,
            folders,
            fences=Fences(tmp_path / "fences", clock),
            device=no_device,  # type: ignore[arg-type]
            book=StatusBook(EventNumbers(tmp_path / "event-number", clock)),
            tracer=NoOpTracer(),
            tasks=tasks,
            clock=clock,
            changed=changed.set,
        )
        await recordings.start()
        assert "still being looked at" in recordings.ability().fault_message
        changed.clear()
        gives.set()
        await until(lambda: "still being looked at" not in recordings.ability().fault_message, changed)
        await recordings.close()


async def until(truth: Callable[[], bool], changed: asyncio.Event) -> None:
    """Looks again whenever something is told to have changed."""
    async with asyncio.timeout(20):
        while not truth():
            await changed.wait()
            changed.clear()
