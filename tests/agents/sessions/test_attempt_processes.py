"""The shim and what the agent knows of it, with real processes: status kept, signals that hit nobody else."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.sessions.attempt import AttemptKey
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.processes import AttemptProcesses
from agents.sessions.spawning import AlreadySpawnedError, spawn_shim

pytestmark = pytest.mark.process


def await_truth(truth: Callable[[], object], timeout_s: float = 10) -> None:
    """Looks again and again until something holds; fails when it never does."""
    deadline = time.monotonic() + timeout_s
    while not truth():
        assert time.monotonic() < deadline, "it did not come true in time"
        select.select([], [], [], 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    made = SessionFolders(root=tmp_path / "sessions").of(AttemptKey(session="s1", attempt=1))
    made.create({})
    return made


def ended(folder: AttemptFolder, shim: int) -> None:
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: not processes.any_alive())
        await_truth(lambda: processes.shim_alive() is False)


def test_the_exit_status_of_the_program_is_kept(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sh", "-c", "echo said; echo cried >&2; exit 7"], {})
    ended(folder, shim)
    assert folder.exit_code() == 7
    assert folder.log.read_text() == "said\ncried\n"


def test_a_program_that_is_not_there_ends_with_127_and_a_word_in_the_log(folder: AttemptFolder) -> None:
    ended(folder, spawn_shim(folder, ["/nowhere/ffmpeg"], {}))
    assert folder.exit_code() == 127
    assert "/nowhere/ffmpeg" in folder.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_no_signal_keeps_the_shim_from_writing_the_status(folder: AttemptFolder, number: signal.Signals) -> None:
    fifo = folder.path / "go"
    os.mkfifo(fifo)
    shim = spawn_shim(folder, ["/bin/sh", "-c", f'echo up; read line < "{fifo}"; exit 3'], {})
    await_truth(lambda: "up" in folder.log.read_text())
    for _ in range(3):
        os.kill(shim, number)
    fifo.write_text("\n")
    ended(folder, shim)
    assert folder.exit_code() == 3


def test_the_program_ignores_no_signal_that_we_do_not_and_has_an_empty_stdin(folder: AttemptFolder) -> None:
    """What is started by nohup ignores SIGHUP with everything that it starts, whatever a shell in between does."""
    program = (
        "import signal, sys; numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT); "
        "print([int(one) for one in numbers if signal.getsignal(one) is signal.SIG_IGN], repr(sys.stdin.read()))"
    )
    ended(folder, spawn_shim(folder, [sys.executable, "-c", program], {}))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    ours = [int(one) for one in numbers if signal.getsignal(one) is signal.SIG_IGN]
    assert folder.log.read_text() == f"{ours} ''\n"


def test_a_signal_to_the_program_passes_the_shim_by(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: processes.signal_program(signal.SIGTERM))
        await_truth(lambda: not processes.any_alive())
    assert folder.exit_code() == 128 + signal.SIGTERM


def test_a_successor_finds_shim_and_program_by_the_folder_alone(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
    with AttemptProcesses(folder) as processes:
        await_truth(lambda: processes.shim_alive())
        assert processes.any_alive()
        await_truth(lambda: processes.signal_program(signal.SIGKILL))
        await_truth(lambda: processes.shim_alive() is False)
        assert not processes.any_alive()
    ended(folder, shim)
    assert folder.exit_code() == 128 + signal.SIGKILL


def test_a_process_id_that_belongs_to_somebody_else_is_never_signalled(folder: AttemptFolder) -> None:
    """A reused pid looks like this: the file names a living process that has nothing to do with the attempt."""
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        (folder.path / "program.pid").write_text(f"{stranger.pid}\n")
        (folder.path / "shim.pid").write_text(f"{stranger.pid}\n")
        with AttemptProcesses(folder) as processes:
            assert not processes.signal_program(signal.SIGKILL)
            assert processes.shim_alive() is None
            processes.kill_all()
        assert stranger.poll() is None
        stranger.kill()


def test_an_attempt_whose_processes_live_cannot_be_spawned_again(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
    with pytest.raises(AlreadySpawnedError):
        spawn_shim(folder, ["/bin/sleep", "60"], {})
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: folder.program_pid())
        processes.kill_all()
        await_truth(lambda: not processes.any_alive())


def test_killing_spares_the_shim_so_that_the_end_is_told(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"], {})
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: "up" in folder.log.read_text())
        processes.signal_program(signal.SIGTERM)
        assert processes.any_alive()
        await_truth(lambda: processes.kill_but_shim() or not processes.any_alive())
    assert folder.exit_code() == 128 + signal.SIGKILL


def test_a_program_that_survives_its_shim_still_counts_as_alive(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: folder.program_pid())
        os.kill(shim, signal.SIGKILL)
        await_truth(lambda: processes.shim_alive() is False)
        assert processes.any_alive()
        processes.kill_all()
        await_truth(lambda: not processes.any_alive())
    assert folder.exit_code() is None


def test_the_shim_keeps_no_descriptor_of_the_agent_but_the_lock(folder: AttemptFolder, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as mine:
        os.set_inheritable(mine.fileno(), True)
        shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: folder.program_pid())
        opened = {str(entry.readlink()) for entry in Path(f"/proc/{folder.program_pid()}/fd").iterdir()}
        # A program that is just starting reads the system's own files.
        opened = {path for path in opened if not path.startswith("/usr/")}
        processes.kill_all()
        await_truth(lambda: not processes.any_alive())
    assert opened == {"/dev/null", str(folder.log), str(folder.lock)}


def test_a_live_attempt_whose_folder_was_removed_is_still_held(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
    with AttemptProcesses(folder, shim) as processes:
        await_truth(lambda: processes.program_fd)
        folder.lock.unlink()
        assert processes.any_alive()
        processes.kill_all()
        await_truth(lambda: not processes.any_alive())


def test_a_shim_starts_its_program_in_a_session_of_its_own(folder: AttemptFolder) -> None:
    shim = spawn_shim(folder, ["/bin/sleep", "60"], {})
    await_truth(lambda: folder.program_pid())
    program = folder.program_pid()
    assert program is not None
    assert os.getsid(program) == shim != os.getsid(0)
    with AttemptProcesses(folder, shim) as processes:
        processes.kill_all()
        await_truth(lambda: not processes.any_alive())
