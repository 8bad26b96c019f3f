"""Recordings as the benchmarks ask for them: on a daemon of their own, of pages of their own."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from agents.displays.gate_starting import GATE_MODULE
from agents.displays.spawning import CAPTURE_GATE
from agents.displays.x_sockets import display_of
from balancer.adapters.local_agent_launcher import AGENT_ENDED
from bench.daemons import LOG, bench_daemon
from bench.pages.server import PageServer, serve_pages
from gpu_balancer.client.session_requests import has_ended
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpu_balancer import Client
    from gpu_balancer.v1.session_pb2 import Session

_FIRST_USER_ID = 66_000 + os.getpid() % 80 * 400
USER_IDS = range(_FIRST_USER_ID, _FIRST_USER_ID + 400)
"""Of the displays, when the benchmark runs as root: neither the usual ones nor those of one beside it, so that what is
left of them is found."""
FILE = "recording.mp4"
_READY_S = 60.0
_LOOKED_EVERY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRecording:
    """A recording that runs."""

    name: str
    """ "sessions/…"."""
    asked_s: float
    """Unix time of the request."""
    running_s: float
    """Seconds from the request until the client saw that a first frame had been recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTimes:
    """How long the end of a recording took, in seconds from the stop."""

    playable_s: float
    """Until its file stood in its place, whole and durable, for any client to fetch."""
    told_s: float
    """Until its end was told, with the file's checksum and what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRecording:
    """A recording that has ended."""

    session: Session
    file: Path
    """Its MP4, fetched."""
    took: EndTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingHouse:
    """A daemon that records, the pages, and a folder for what comes out."""

    client: Client
    pages: PageServer
    folder: Path
    """What the daemon may leave anything in: its state and, below `run`, the displays' work."""
    fetched: Path
    warm_displays: int
    size: tuple[int, int] = (1280, 720)
    """Of recordings of which nothing else is said."""

    @property
    def run_dir(self) -> Path:
        """Gives the folder for the displays' sockets and profiles."""
        return self.folder / "run"

    def ended_agents(self) -> int:
        """Counts the agents that ended by themselves, whatever became of their sessions."""
        return (self.folder / LOG).read_text(errors="replace").count(AGENT_ENDED)

    def start(self, page: str, *, size: tuple[int, int] | None = None, **settings: float | str) -> AskedRecording:
        """Has a page recorded, and waits until a first frame is."""
        asked_s, began = time.time(), time.monotonic()
        session = self.client.record(
            self.pages.url(page, **settings), size=size or self.size, fps=30, allow_software_encode=True, wait=False
        )
        for seen in self.client.watch_session(session.name):
            if seen.state == session_pb2.SESSION_STATE_RUNNING:
                running_s = time.monotonic() - began
                return AskedRecording(name=session.name, asked_s=asked_s, running_s=running_s)
            if has_ended(seen):
                break
        raise RuntimeError(f"{session.name} ended before it ran: {self.client.get_session(session.name).failure}")

    def stop(self, name: str) -> EndedRecording:
        """Stops a recording and fetches what it left."""
        began = time.monotonic()
        self.client.stop_session(name)
        # A file of a recording has its name only when it is complete.
        while not self._has_file(name) and not has_ended(self.client.get_session(name)):
            time.sleep(_LOOKED_EVERY_S)
        playable_s = time.monotonic() - began
        session = self.client.wait(name)
        took = EndTimes(playable_s=playable_s, told_s=time.monotonic() - began)
        return EndedRecording(session=session, file=self.fetch(name), took=took)

    def _has_file(self, name: str) -> bool:
        return any(artifact.path == FILE for artifact in self.client.list_artifacts(name))

    def fetch(self, name: str) -> Path:
        """Fetches an ended recording's file; what it is missing, a file that is not there tells."""
        folder = self.fetched / name.rpartition("/")[2]
        self.client.download_artifacts(name, folder)
        return folder / FILE

    def record(
        self, page: str, seconds: float, *, size: tuple[int, int] | None = None, **settings: float | str
    ) -> EndedRecording:
        """Records so many seconds of a page."""
        asked = self.start(page, size=size, **settings)
        time.sleep(seconds)
        return self.stop(asked.name)

    def discard(self, name: str) -> None:
        """Removes an ended recording and what was fetched of it."""
        self.client.delete_session(name)
        folder = self.fetched / name.rpartition("/")[2]
        for path in folder.glob("*") if folder.is_dir() else ():
            path.unlink()

    def await_warm(self, count: int | None = None) -> None:
        """Waits until so many displays stand ready. None: all that are to."""
        least = self.warm_displays if count is None else count
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            abilities = [device.recording for device in self.client.list_devices()]
            if all(ability.available and ability.ready_display_count >= least for ability in abilities):
                return
            time.sleep(0.05)
        raise RuntimeError(f"no display became ready: {abilities}")


@contextmanager
def recording_house(
    *,
    warm_displays: int = 1,
    size: tuple[int, int] = (1280, 720),
    at_end: Callable[[RecordingHouse], None] = lambda _: None,
) -> Iterator[RecordingHouse]:
    """Starts the daemon and the pages' server, and waits until displays are warm.

    Args:
        warm_displays: How many stand ready. 0: each recording starts its own.
        size: Of recordings of which nothing else is said.
        at_end: Looks at what is left once the daemon has ended.
    """
    with serve_pages() as pages, scratch_folder() as scratch, scratch_folder() as fetched:
        settings = "[inputs]\nallow_private_networks = true\n"
        settings += f"[recordings]\nprewarm = true\nwarm_displays = {warm_displays}\n"
        settings += f'run_dir = "{scratch}/run"\nuser_ids = "{USER_IDS[0]}-{USER_IDS[-1]}"\n'
        with bench_daemon(settings, folder=scratch) as daemon, daemon.client() as client:
            daemon.await_ready()
            house = RecordingHouse(
                client=client, pages=pages, folder=scratch, fetched=fetched, warm_displays=warm_displays, size=size
            )
            house.await_warm()
            yield house
        at_end(house)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Makes a folder that other users may pass through, and removes it."""
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def recorder_process(house: RecordingHouse, name: str) -> psutil.Process:
    """Finds the ffmpeg that records a session: it grabs a screen and writes below the session's folder.

    Raises:
        RuntimeError: When there is none.
    """
    session = name.rpartition("/")[2]
    for process in psutil.process_iter(["name", "cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        # A shell that started it has the same words.
        if (
            "ffmpeg" in (process.info["name"] or "")
            and "x11grab" in words
            and session in " ".join([*words, process.info["cwd"] or ""])
        ):
            return process
    raise RuntimeError(f"no ffmpeg records {name} below {house.folder}")


def display_processes(recorder: psutil.Process, program: str) -> list[psutil.Process]:
    """Finds the processes of a program on the display that an ffmpeg records, the first one first.

    Args:
        recorder: The ffmpeg.
        program: "Xvfb" or "chromium", as the name of the process has it; or `CAPTURE_GATE`.
    """
    # While a program takes the place of what started it, it has none for a moment.
    while not (words := recorder.cmdline()):
        time.sleep(0.001)
    display = next(word for word, before in zip(words[1:], words, strict=False) if before == "-i" and word[0] == ":")
    display = display_of(display.partition(".")[0].partition("+")[0])
    if program == "Xvfb":
        return _display_server(display)
    if program == CAPTURE_GATE:
        return [
            one for one in psutil.process_iter(["cmdline"]) if {GATE_MODULE, display} <= set(one.info["cmdline"] or ())
        ]
    # A browser writes over its own environment; what it starts, and what started with it, still has it.
    server = _display_server(display)[0]
    user, found = server.uids().real, []
    for process in psutil.process_iter(["name", "uids"]):
        with suppress(psutil.Error):
            name = (process.info["name"] or "").lower()
            if program.lower() not in name or "crashpad" in name:
                continue
            own = user != os.geteuid() and process.info["uids"].real == user
            if own or process.environ().get("DISPLAY", "").partition(".")[0] == display:
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def _display_server(display: str) -> list[psutil.Process]:
    """Finds the X server that clients of a display reach; its number may be on no command line.

    They try the abstract socket first. Of sockets in the file system, a later server's takes the place of an earlier
    one's, which goes on listening at a name that is gone.
    """
    path = f"/tmp/.X11-unix/X{display[1:]}"
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    listening = [words for words in lines if words[3] == "00010000" and words[-1] in (path, f"@{path}")]
    if not listening:
        return []
    inode = max(listening, key=lambda words: (words[-1].startswith("@"), int(words[6])))[6]
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error, OSError):
            if process.info["name"] == "Xvfb":
                links = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
                if f"socket:[{inode}]" in links:
                    return [process]
    return []
