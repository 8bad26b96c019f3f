"""Starting agents where that cannot be done: told in words, and tried again while the rest of the daemon goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from balancer.adapters import local_agent_launcher
from balancer.adapters.local_agent_launcher import AgentLaunchError, LocalAgent, LocalAgentLauncher, list_local_gpus
from balancer.domain.device import DeviceIdentity, DeviceKind
from balancer.domain.ids import DeviceId
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.folder_lock import lock_owner

if TYPE_CHECKING:
    from pathlib import Path

_CPU = DeviceIdentity(id=DeviceId("cpu-0"), kind=DeviceKind.CPU, model="CPU", cores=(0,))


async def test_an_agent_program_that_cannot_be_run_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_agent_launcher, "_AGENT", (str(tmp_path / "no-python"), "-m", "agents"))
    with pytest.raises(AgentLaunchError, match=r"no-python cannot be started: No such file"):
        await list_local_gpus()


async def test_an_agent_that_cannot_be_started_now_is_tried_again(tmp_path: Path) -> None:
    """As on a full disk: here a file stands where the agent's folder belongs."""
    folder = tmp_path / "agents" / "cpu-0"
    (tmp_path / "agents").write_text("in the way")
    agent = LocalAgent(identity=_CPU, folder=folder, settings_toml="")
    launcher = LocalAgentLauncher(agent, clock=SystemClock())
    with capture_logs() as lines, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await launcher.keep_running()
    failed = [line for line in lines if line["event"] == "agent cannot be started; trying again"]
    assert len(failed) == 2


@pytest.mark.parametrize("serves", [True, False])
async def test_an_agent_that_served_before_it_was_killed_is_not_waited_for_longer_and_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    """One that never comes so far is."""
    program = tmp_path / "agent.py"
    listening = "import os, socket\nif os.path.exists('agent.sock'): os.unlink('agent.sock')\n"
    listening += "socket.socket(socket.AF_UNIX).bind('agent.sock')\n"
    program.write_text(listening if serves else "")
    monkeypatch.setattr(local_agent_launcher, "_AGENT", (sys.executable, "-S", str(program)))
    monkeypatch.setattr(local_agent_launcher, "_FIRST_BACKOFF", timedelta(seconds=0.01))
    monkeypatch.setattr(local_agent_launcher, "_LONGEST_AFTER_SERVING", timedelta(seconds=0.02))
    agent = LocalAgent(identity=_CPU, folder=tmp_path / "cpu-0", settings_toml="")
    launcher = LocalAgentLauncher(agent, clock=SystemClock())
    waits: list[float] = []
    with capture_logs() as lines:
        running = asyncio.create_task(launcher.keep_running())
        async with asyncio.timeout(30):
            while len(waits) < 5:
                await asyncio.sleep(0.02)
                waits = [line["wait_s"] for line in lines if line["event"] == "agent ended; it is started again"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert waits[:5] == ([0.01, 0.02, 0.02, 0.02, 0.02] if serves else [0.01, 0.02, 0.04, 0.08, 0.16])


@pytest.mark.parametrize(
    ("changed", "header", "replaced"),
    [
        (False, local_agent_launcher._WRITTEN_BY, False),
        (True, local_agent_launcher._WRITTEN_BY, True),
        (True, "# Written by gpu-balancer 0.0.1 when it started this agent.\n", False),
    ],
    ids=["the same", "others", "others, of another version"],
)
async def test_an_agent_that_was_found_is_started_anew_when_it_has_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool, header: str, replaced: bool
) -> None:
    program = tmp_path / "agent.py"
    program.write_text(
        "import fcntl, os, time\nlock = open('agent.lock', 'a+')\nfcntl.flock(lock, fcntl.LOCK_EX)\n"
        "lock.truncate(0)\nprint(os.getpid(), file=lock, flush=True)\ntime.sleep(60)\n"
    )
    monkeypatch.setattr(local_agent_launcher, "_AGENT", (sys.executable, "-S", str(program)))
    folder = tmp_path / "cpu-0"
    pids: list[int] = []
    launchers: list[LocalAgentLauncher] = []
    for settings in ("[inputs]\n", "[outputs]\n" if changed else "[inputs]\n"):
        agent = LocalAgent(identity=_CPU, folder=folder, settings_toml=settings)
        launchers.append(LocalAgentLauncher(agent, clock=SystemClock()))
        with capture_logs() as lines:
            running = asyncio.create_task(launchers[-1].keep_running())
            async with asyncio.timeout(30):
                while True:
                    pid = lock_owner(folder / "agent.lock")
                    if pid is not None and not (replaced and pid in pids):
                        break
                    await asyncio.sleep(0.02)
            pids.append(pid)
            await asyncio.sleep(0.2)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        path = folder / "agent.toml"
        path.write_text(header + path.read_text().partition("\n")[2])
    os.kill(pids[-1], signal.SIGKILL)
    for launcher in launchers:
        if launcher._process is not None:
            launcher._process.wait(10)
    assert (pids[0] != pids[1]) is replaced
    warned = [line for line in lines if line["event"] == "agent may have other settings"]
    assert bool(warned) is (changed and not replaced)
    assert path.read_text().endswith("[outputs]\n" if replaced else "[inputs]\n")
