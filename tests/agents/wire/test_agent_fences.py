"""Two agents of a host and one session: whatever becomes of the first agent, at most one attempt writes."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from agent_process import AgentProcess, await_probed, ended, plan, running, until

from agents.lock_holders import lockers
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.runtime.rich_status import failure_from_rpc_error
from gpu_balancer.v1 import agent_service_pb2 as pb

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


@pytest.fixture
def agents(tmp_path: Path, media: Path, probe_results: Path) -> Iterator[tuple[AgentProcess, AgentProcess]]:
    """Two agents that share fences and outputs."""
    out = tmp_path / "out"
    out.mkdir()
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir(mode=0o700)
            (folder / "probe.json").write_bytes(probe_results.read_bytes())
            agent = AgentProcess(folder=folder, media=media, out=out, fences=tmp_path / "fences")
            agent.configure()
            stack.callback(agent.clean)
            agent.start()
            made.append(agent)
        yield made[0], made[1]


def going_on(media: Path, out: Path, *, attempt: int, folder: str = "") -> pb.LaunchPlan:
    """An attempt of a live session that writes below the output roots."""
    made = plan(str(media / "clip.mp4"), attempt=attempt, repeat=True, path=str(out / "film.mp4"))
    made.may_continue = True
    if attempt > 1:
        made.continues.add(attempt=attempt - 1, folder=folder)
    return made


def writers_of(out: Path) -> dict[int, set[str]]:
    """Gives who has a file below a folder open for writing: process ids, and the folders that they write in."""
    found: dict[int, set[str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (entry / "fd").iterdir():
                target = descriptor.readlink()
                flags = int((entry / "fdinfo" / descriptor.name).read_text().split()[3], 8)
                if target.is_relative_to(out) and flags & (os.O_WRONLY | os.O_RDWR):
                    found.setdefault(int(entry.name), set()).add(target.parent.name)
    return found


def test_an_agent_that_was_stopped_finds_itself_fenced(agents: tuple[AgentProcess, AgentProcess], media: Path) -> None:
    """Its session has long gone on elsewhere when it may run again: its ffmpeg is gone, and it touches nothing."""
    first, second = agents
    out = first.out
    with first.connected() as stub, second.connected() as other:
        await_probed(stub)
        await_probed(other)
        stub.LaunchSession(pb.LaunchSessionRequest(plan=going_on(media, out, attempt=1)), timeout=20)
        told = until(stub, running("s1"))[-1].attempt
        assert told.folder == str(first.folder / "sessions" / "s1" / "1")
        former = writers_of(out)
        assert set().union(*former.values()) == {".gpu-balancer-s1-1"}
        assert first.process is not None
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            plan_of_second = going_on(media, out, attempt=2, folder=told.folder)
            other.LaunchSession(pb.LaunchSessionRequest(plan=plan_of_second), timeout=30)
            assert set().union(*writers_of(out).values()) <= {".gpu-balancer-s1-2"}
            assert not set(former) & set(lockers(first.folder.parent / "fences" / "s1"))
            until(other, running("s1"))
        finally:
            os.kill(first.process.pid, signal.SIGCONT)
        end = until(stub, ended("s1"))[-1].attempt
        assert (end.outcome, end.failure.reason) == (pb.ATTEMPT_OUTCOME_FAILED, "FENCED")
        assert set().union(*writers_of(out).values()) == {".gpu-balancer-s1-2"}
        other.StopSession(
            pb.AgentServiceStopSessionRequest(id=pb.AttemptId(session="sessions/s1", attempt=2)), timeout=20
        )
        end = until(other, ended("s1"))[-1].attempt
        assert end.outcome == pb.ATTEMPT_OUTCOME_STOPPED
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["film.mp4"]


def test_an_agent_that_is_killed_leaves_nothing_that_writes(
    agents: tuple[AgentProcess, AgentProcess], media: Path
) -> None:
    """Its ffmpeg runs on, as it should, until the session goes on elsewhere; its successor is told the truth."""
    first, second = agents
    out = first.out
    with first.connected() as stub, second.connected() as other:
        await_probed(stub)
        await_probed(other)
        stub.LaunchSession(pb.LaunchSessionRequest(plan=going_on(media, out, attempt=1)), timeout=20)
        told = until(stub, running("s1"))[-1].attempt
        first.end(signal.SIGKILL)
        assert writers_of(out)
        other.LaunchSession(
            pb.LaunchSessionRequest(plan=going_on(media, out, attempt=2, folder=told.folder)), timeout=30
        )
        assert set().union(*writers_of(out).values()) <= {".gpu-balancer-s1-2"}
    first.start()
    with first.connected() as stub:
        end = until(stub, ended("s1"))[-1].attempt
        assert end.failure.reason == "FENCED"


def test_an_older_attempt_is_refused(agents: tuple[AgentProcess, AgentProcess], media: Path) -> None:
    first, second = agents
    with first.connected() as stub, second.connected() as other:
        await_probed(stub)
        await_probed(other)
        other.LaunchSession(pb.LaunchSessionRequest(plan=going_on(media, first.out, attempt=3)), timeout=20)
        with pytest.raises(grpc.RpcError) as caught:
            stub.LaunchSession(pb.LaunchSessionRequest(plan=going_on(media, first.out, attempt=2)), timeout=20)
        failure = failure_from_rpc_error(caught.value)
        assert failure is not None
        assert failure.reason is Reason.STALE_ATTEMPT
