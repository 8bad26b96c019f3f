"""Xvfb as a back end: when it is ready, who is let in, and what it is told and asked."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from display_rig import is_root, open_window, short_folder, x_connection

from agents.displays import xvfb
from agents.displays.display import Display, DisplayUnavailable
from agents.displays.display_folder import DisplayFolder, DisplayRecord
from agents.displays.ending import DisplayEnder
from agents.displays.run_folders import RunFolders, agent_name, give_to
from agents.displays.screens import await_window, list_windows, own_authority, resize_screen, screen_size
from agents.displays.sound_server import start_sound
from agents.displays.spawning import SOUND_LISTENER, SOUND_SERVER, X_SERVER, DisplayProcesses
from agents.displays.users import UserIds
from agents.displays.window_manager import start_window_manager
from agents.displays.x_authority import authority_file, new_cookie
from agents.displays.x_client import XUnreachableError, ask
from agents.displays.x_sockets import (
    TMP,
    NameTakenError,
    ensure_socket_folder,
    gate_of,
    propose_name,
    socket_of,
)
from agents.displays.xvfb import Xvfb
from gpu_balancer.runtime.clock import SystemClock

pytestmark = pytest.mark.process
WITHIN = timedelta(seconds=30)


@dataclass(kw_only=True)
class Bench:
    """A display without a pool: its folders and processes."""

    processes: DisplayProcesses
    authority: Path

    async def start_server(self) -> Display:
        """Starts Xvfb, up to 1280x720."""
        name = await Xvfb().start(self.processes, self.authority, width=1280, height=720, within=WITHIN)
        self.processes.environment["DISPLAY"] = name
        return Display(
            id=self.processes.folder.id,
            name=name,
            authority=str(self.authority),
            width=1280,
            height=720,
            lock=str(self.processes.folder.lock),
            work=str(self.processes.work),
            user_id=self.processes.user_id,
            sound_server=None,
        )


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A display's folders; at the end everything of it is ended."""
    with short_folder() as run_dir:
        run = RunFolders(run_dir=run_dir, agent=agent_name(tmp_path))
        run.prepare()
        folder = DisplayFolder(path=tmp_path / "displays" / "abc")
        users = UserIds(folder=run.users, ids=range(61184, 65520), agent=run.agent) if is_root else None
        user_id = None if users is None else users.take("abc")
        work = run.create_work("abc", user_id)
        folder.create(DisplayRecord(backend="xvfb", work=str(work), user_id=user_id))
        content = authority_file(new_cookie())
        own_authority(folder.path).write_bytes(content)
        (work / "authority").write_bytes(content)
        give_to(work / "authority", user_id)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(work / "home"),
            "XDG_RUNTIME_DIR": str(work / "run"),
            "XAUTHORITY": str(work / "authority"),
            "PULSE_SERVER": f"unix:{work / 'sound'}",
            **run.mark_of("abc").environment,
        }
        processes = DisplayProcesses(folder, work=work, user_id=user_id, environment=environment)
        yield Bench(processes=processes, authority=work / "authority")
        ender = DisplayEnder(run=run, users=users, clock=SystemClock())
        assert await ender.end(folder, user_id=user_id, processes=processes)
        assert not folder.path.exists()
        assert not work.exists()


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Has a shell script found in place of a program."""
    folder.chmod(0o755)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


async def test_a_server_whose_lock_and_socket_are_there_but_does_not_answer_is_not_ready(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_socket_folder()
    script = "number=${1#:}; echo $$ >/tmp/.X$number-lock; : >/tmp/.X11-unix/X$number; exec sleep 1000"
    with short_folder() as folder:
        put_on_path(folder, monkeypatch, "Xvfb", script)
        with pytest.raises(DisplayUnavailable, match="Cannot start Xvfb: it does not answer"):
            await Xvfb().start(bench.processes, bench.authority, width=640, height=360, within=timedelta(seconds=0.5))


async def test_a_server_that_ends_at_once_is_told_with_what_it_wrote(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with short_folder() as folder:
        put_on_path(folder, monkeypatch, "Xvfb", 'echo "no memory for $1" >&2; exit 1')
        with pytest.raises(DisplayUnavailable, match="Cannot start Xvfb: no memory for :") as unavailable:
            await Xvfb().start(bench.processes, bench.authority, width=640, height=360, within=WITHIN)
    assert unavailable.value.reason == "DISPLAY_FAILED"


async def test_a_server_without_its_program_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "Xvfb is not installed. Try apt-get install xvfb." in str(Xvfb().find_fault())
    with pytest.raises(DisplayUnavailable, match="Xvfb is not installed"):
        await Xvfb().start(bench.processes, bench.authority, width=640, height=360, within=WITHIN)


async def test_nobody_is_let_in_without_the_cookie_also_not_root(bench: Bench, tmp_path: Path) -> None:
    display = await bench.start_server()
    stranger = tmp_path / "authority"
    stranger.write_bytes(authority_file(new_cookie()))
    with pytest.raises(XUnreachableError):
        await ask(display.name, stranger, lambda screen: screen.size(), within=WITHIN)
    reader, writer = await asyncio.open_unix_connection(socket_of(display.name))
    writer.write(b"l\0" + (11).to_bytes(2, "little") + bytes(8))  # Without any proof of who it is.
    assert (await reader.readexactly(1)) == b"\0"
    writer.close()


async def test_nobody_reaches_it_by_network_or_abstract_socket(bench: Bench) -> None:
    display = await bench.start_server()
    number = int(display.name.removeprefix(":"))
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", 6000 + number)
    with pytest.raises(OSError):
        await asyncio.open_unix_connection(f"\0{socket_of(display.name)}")


async def test_a_server_of_somebody_else_is_not_taken_for_ours(bench: Bench) -> None:
    display = await bench.start_server()
    with pytest.raises(XUnreachableError, match="somebody else's"):
        await ask(display.name, bench.authority, lambda screen: screen.size(), within=WITHIN, server=1)


async def test_resizing_really_changes_the_screen(bench: Bench) -> None:
    display = await bench.start_server()
    for width, height in ((640, 360), (1279, 719), (1280, 720), (640, 360)):
        await resize_screen(display, width, height, within=WITHIN)
        with x_connection(display) as connection:
            root = connection.get_setup().roots[0]
            assert (root.width_in_pixels, root.height_in_pixels) == (width, height)
            pointer = connection.core.QueryPointer(root.root).reply()
            assert (pointer.root_x, pointer.root_y) == (width - 1, height - 1)


async def test_a_size_beyond_the_largest_is_refused_and_the_screen_stays(bench: Bench) -> None:
    display = await bench.start_server()
    with pytest.raises(XUnreachableError, match="Cannot use the display"):
        await resize_screen(display, 1282, 720, within=WITHIN)
    assert await screen_size(display, within=WITHIN) == (1280, 720)


async def test_a_server_that_was_stopped_is_given_up_in_time(bench: Bench) -> None:
    display = await bench.start_server()
    server = dict(bench.processes.folder.read_processes())[X_SERVER]
    os.kill(server, signal.SIGSTOP)
    with pytest.raises(XUnreachableError, match=r"no answer within 0\.2 s"):
        await screen_size(display, within=timedelta(seconds=0.2))
    os.kill(server, signal.SIGCONT)
    assert await screen_size(display, within=WITHIN) == (1280, 720)


async def test_the_first_window_is_seen_when_it_is_shown(bench: Bench) -> None:
    display = await bench.start_server()
    await start_window_manager(bench.processes, display.name, bench.authority, within=WITHIN)
    assert await list_windows(display, within=WITHIN) == ()
    awaiting = asyncio.create_task(await_window(display, within=WITHIN))
    with x_connection(display) as connection:
        open_window(connection, 100, 50)
        assert len(await awaiting) == 1


async def test_a_window_that_does_not_come_is_given_up_in_time(bench: Bench) -> None:
    display = await bench.start_server()
    with pytest.raises(XUnreachableError, match=r"no answer within 0\.2 s"):
        await await_window(display, within=timedelta(seconds=0.2))


async def test_a_window_fills_the_screen_and_follows_it(bench: Bench) -> None:
    display = await bench.start_server()
    await start_window_manager(bench.processes, display.name, bench.authority, within=WITHIN)
    with x_connection(display) as connection:
        open_window(connection, 200, 100)
        await await_window(display, within=WITHIN)
        for width, height in ((640, 360), (1280, 720)):
            await resize_screen(display, width, height, within=WITHIN)
            (window,) = await list_windows(display, within=WITHIN)
            assert (window.x, window.y, window.width, window.height) == (0, 0, width, height)


async def test_a_dialog_keeps_its_size_and_stands_in_the_middle(bench: Bench) -> None:
    display = await bench.start_server()
    await start_window_manager(bench.processes, display.name, bench.authority, within=WITHIN)
    with x_connection(display) as connection:
        open_window(connection, 200, 100, kind="DIALOG")
        (window,) = await await_window(display, within=WITHIN)
    assert (window.x, window.y, window.width, window.height) == (540, 310, 200, 100)


async def first_sound(bench: Bench) -> None:
    """Listens to what is played until there are 20 ms of it."""
    environment = bench.processes.environment
    listening = ("parec", "--latency-msec=20", "--rate=48000", "-d", "output.monitor")
    listener = await asyncio.create_subprocess_exec(*listening, env=environment, stdout=asyncio.subprocess.PIPE)
    assert listener.stdout is not None
    await listener.stdout.readexactly(3840)
    listener.kill()
    await listener.communicate()


async def sound_is_there_at_once(bench: Bench) -> bool:
    """Tells whether there is sound before a nap ends that is shorter than a sink sleeps whom nobody keeps awake."""
    nap = await asyncio.create_subprocess_exec("sleep", "1.2")
    await first_sound(bench)
    at_once = nap.returncode is None
    if at_once:
        nap.kill()
    await nap.wait()
    return at_once


async def test_the_monitor_delivers_at_once_though_nobody_plays(bench: Bench) -> None:
    await start_sound(bench.processes, within=WITHIN)
    assert [await sound_is_there_at_once(bench) for _ in range(3)] == [True] * 3


async def test_a_pulseaudio_that_cannot_do_without_rewinding_is_kept_awake(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with short_folder() as folder:
        script = f'case "$*" in *norewinds*) exit 1;; esac; PATH={os.environ["PATH"]} exec pulseaudio "$@"'
        put_on_path(folder, monkeypatch, "pulseaudio", script)
        await start_sound(bench.processes, within=WITHIN)
        assert bench.processes.is_alive(SOUND_LISTENER)
        await first_sound(bench)
        assert [await sound_is_there_at_once(bench) for _ in range(3)] == [True] * 3


async def test_a_sound_server_that_ends_at_once_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with short_folder() as folder:
        put_on_path(folder, monkeypatch, "pulseaudio", "echo broken >&2; exit 1")
        with pytest.raises(DisplayUnavailable, match=r"Cannot start pulseaudio: broken \| broken"):
            await start_sound(bench.processes, within=WITHIN)
    assert not bench.processes.is_alive(SOUND_SERVER)


def test_a_proposed_name_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    name = propose_name()
    assert not socket_of(name).exists()
    assert not (TMP / f".X{name.removeprefix(':')}-lock").exists()
    with impostor(gate_of(":1007")):
        numbers = iter([7, 8])
        monkeypatch.setattr(secrets, "randbelow", lambda _: next(numbers))
        assert propose_name() == ":1008"


async def test_a_name_that_is_taken_since_it_was_proposed_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others propose names for their displays too, and programs that are being started have them for a moment."""
    free, taken = propose_name(), propose_name()
    names = iter([taken, free])
    monkeypatch.setattr(xvfb, "propose_name", lambda: next(names))
    with impostor(taken):
        display = await bench.start_server()
    assert display.name == free


async def test_nobody_can_answer_in_the_place_of_a_display_or_its_gate(bench: Bench) -> None:
    """X clients try an abstract socket before the file, and tell whoever answers the cookie; any user may listen."""
    display = await bench.start_server()
    for name in (display.name, gate_of(display.name)):
        with pytest.raises(OSError, match="in use"), impostor(name):
            pass
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(abstract_of(name))
    await start_window_manager(bench.processes, display.name, bench.authority, within=WITHIN)
    ((_, server),) = [one for one in bench.processes.folder.read_processes() if one[0] == X_SERVER]
    os.kill(server, signal.SIGKILL)
    await asyncio.to_thread(await_reaped, bench.processes)
    with impostor(display.name):
        pass  # It is free again.


def test_names_that_are_all_taken_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda _: 7)
    with impostor(":1007"), pytest.raises(NameTakenError, match="ss -xap"):
        propose_name()


def abstract_of(name: str) -> str:
    return f"\0/tmp/.X11-unix/X{name.removeprefix(':')}"


@contextmanager
def impostor(name: str) -> Iterator[None]:
    """Listens where X clients look for a display first."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(abstract_of(name))
        listener.listen()
        yield


async def test_a_process_whose_name_another_has_by_now_is_no_zombie_in_the_end(bench: Bench) -> None:
    first, second = [await bench.processes.spawn(["/bin/sleep", "60"], name="browser") for _ in range(2)]
    assert not bench.processes.reap()
    for process_id in (first, second):
        os.kill(process_id, signal.SIGKILL)
    await asyncio.to_thread(await_reaped, bench.processes)
    assert not psutil.pid_exists(first)
    assert not psutil.pid_exists(second)


def await_reaped(processes: DisplayProcesses) -> None:
    deadline_s = time.monotonic() + 20
    while not processes.reap():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
