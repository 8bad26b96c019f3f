"""What a runner notices while an attempt runs: stalls, spans, and files that grow for days."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from session_rig import Rigs, endless, job_of, key_of

from agents.pipelines.progress import Progress
from agents.sessions.attempt import Ending
from agents.sessions.attempt_health import HealthBounds
from agents.sessions.progress_file import ProgressFile, bytes_on_disk

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.process
async def test_a_program_without_a_new_frame_is_told_as_stalled_until_it_goes_on(rigs: Rigs, clip: Path) -> None:
    rigs.settle(runner={"health": HealthBounds(stalled_after=timedelta(seconds=2))})
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        program = rig.folder(job).program_pid()
        assert program is not None
        os.kill(program, signal.SIGSTOP)
        stalled = await rig.until(job, lambda status: bool(status.conditions))
        assert [(one.type, one.message) for one in stalled.conditions] == [
            ("STALLED", "No frame was written for 2 s: its process is stopped.")
        ]
        os.kill(program, signal.SIGCONT)
        moving = await rig.until(job, lambda status: status.running_time is not None and not status.conditions)
        assert moving.event_number > stalled.event_number
        await rig.registry.stop(key_of(job))
        assert (await rig.ended(job)).ending is Ending.STOPPED


@pytest.mark.process
async def test_a_session_s_spans_are_the_same_whichever_agents_saw_it(rigs: Rigs, clip: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    rigs.tracer = provider.get_tracer("test")
    job = job_of(endless(clip))
    async with rigs.start() as rig:
        await rig.launch(job, traceparent=TRACEPARENT)
        await rig.running(job)
        program = rig.folder(job).program_pid()
        assert program is not None
    async with rigs.start() as successor:
        os.kill(program, signal.SIGKILL)
        ended = await successor.ended(job)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert list(spans) == ["session.launch", "session.first_frame", "session.run"]
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACEPARENT.split("-")[1]}
    run = spans["session.run"]
    assert run.attributes is not None
    assert run.attributes["session.name"] == "sessions/s1"
    assert run.attributes["error.type"] == "KILLED"
    assert run.status.status_code is StatusCode.ERROR
    assert ended.running_time is not None
    assert run.start_time == spans["session.first_frame"].end_time
    assert run.start_time == int(ended.running_time.timestamp() * 1_000_000) * 1000
    provider.shutdown()


@pytest.mark.process
async def test_a_session_that_is_not_traced_makes_no_span(rigs: Rigs, clip: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    rigs.tracer = provider.get_tracer("test")
    job = job_of(clip)
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.ended(job)
    assert exporter.get_finished_spans() == ()
    provider.shutdown()


def block(frames: int) -> str:
    return f"frame={frames}\nfps=25.0\nout_time_us={frames * 40_000}\nspeed=1x\nprogress=continue\n"


def test_progress_is_read_as_it_grows_and_again_by_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    reader = ProgressFile(path)
    assert reader.read(None) is None
    with path.open("w") as writer:
        writer.write(block(10) + "frame=20\n")
        writer.flush()
        first = reader.read(None)
        assert first is not None
        assert (first.frames, first.out_time) == (10, timedelta(seconds=0.4))
        assert reader.read(first) is first
        writer.write("progress=continue\n")
        writer.flush()
        second = reader.read(first)
    assert second is not None
    assert second.frames == 20
    assert ProgressFile(path).read(None) == second


def test_a_progress_file_of_days_takes_little_disk_and_loses_no_figure(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    reader = ProgressFile(path)
    seen: Progress | None = None
    with path.open("w") as writer:
        for frames in range(60_000):
            writer.write(block(frames))
            if frames % 10_000 == 9_999:
                writer.flush()
                seen = reader.read(seen)
                assert seen is not None
                assert seen.frames == frames
                reader.bound()
                assert path.stat().st_blocks * 512 <= 1024 * 1024
    assert path.stat().st_size > 3 * 1024 * 1024
    assert ProgressFile(path).read(None) == seen


def test_bytes_written_are_those_of_artifacts_and_parts(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "hls").mkdir(parents=True)
    (tmp_path / "artifacts" / "hls" / "a.m4s").write_bytes(b"x" * 10)
    (tmp_path / "out.part").write_bytes(b"x" * 5)
    parts = [str(tmp_path / "out.part"), str(tmp_path / "missing.part")]
    assert bytes_on_disk(tmp_path / "artifacts", parts) == 15
