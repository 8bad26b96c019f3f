"""The parts of the chaos suite that its figures rest on: the film and its reader, the plan, the wire, what is seen."""

from __future__ import annotations

import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.analysis.decoding import FFMPEG
from bench.chaos.figures import count_figure, missed, percentile, times_figure
from bench.chaos.film import account, complaints_of, make_film, read_account
from bench.chaos.history import History
from bench.chaos.invariants import check
from bench.chaos.plan import WEIGHTS, draw_acts
from bench.chaos.process_invariants import TICK_S
from bench.chaos.relay import Relay
from bench.chaos.sightings import Sighter
from bench.chaos.work import Asked, masters_complaints, read_output
from bench.chaos.write_watch import watching_writes

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_frame_of_a_whole_film_is_there_however_often_it_begins_again() -> None:
    found = account([*range(10), *range(10), 0, 1], 10)
    assert (found.frames, found.lost, found.repeated, found.backwards, found.unreadable) == (22, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("numbers", "lost", "repeated", "backwards", "unreadable"),
    [
        ([0, 1, 4, 5], 2, 0, 0, 0),
        ([97, 98, 1, 2], 2, 0, 0, 0),
        ([0, 1, 1, 2], 0, 1, 0, 0),
        ([0, 1, 2, 1, 2], 0, 0, 1, 0),
        ([0, -1, 2], 1, 0, 0, 1),
    ],
)
def test_what_is_wrong_with_frames_is_counted(
    numbers: list[int], lost: int, repeated: int, backwards: int, unreadable: int
) -> None:
    found = account(numbers, 100)
    assert (found.lost, found.repeated, found.backwards, found.unreadable) == (lost, repeated, backwards, unreadable)


@pytest.mark.process
def test_numbers_survive_encoding_twice_and_a_cut_is_seen(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=60, rate=25)
    found = read_account(film)
    assert (found.frames, found.first, found.lost, found.repeated, found.backwards) == (60, 0, 0, 0, 0)
    assert complaints_of(film) == ()
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    assert complaints_of(torn)


_MASTER = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nout/index.m3u8\n"
_MEDIA = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n0.ts\n"


@pytest.mark.parametrize(
    ("master", "media", "segment", "complaints"),
    [
        (_MASTER, _MEDIA, b"media", ()),
        (None, _MEDIA, b"media", ("there is no master playlist",)),
        ("#EXTM3U\n#EXT-X-VERSION:7\n", _MEDIA, b"media", ("master.m3u8 names no variant",)),
        (
            _MASTER.replace("BANDWIDTH", "AVERAGE-BANDWIDTH"),
            _MEDIA,
            b"media",
            ("master.m3u8 tells no rate: #EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1000",),
        ),
        (
            _MASTER + _MASTER.partition("\n")[2].replace("out/", "other/"),
            _MEDIA,
            b"media",
            ("master.m3u8 names other/index.m3u8: it is not there",),
        ),
        (
            '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",URI="a/index.m3u8"\n' + _MASTER.partition("\n")[2],
            _MEDIA,
            b"media",
            ("master.m3u8 names a/index.m3u8: it is not there",),
        ),
        (_MASTER, _MEDIA, b"", ("master.m3u8 names out/index.m3u8: 0.ts is not there, or empty",)),
        (
            _MASTER,
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n",
            b"media",
            ("master.m3u8 names out/index.m3u8: it lists nothing",),
        ),
    ],
)
def test_a_master_playlist_is_judged_by_what_it_names(
    tmp_path: Path, master: str | None, media: str, segment: bytes, complaints: tuple[str, ...]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.m3u8").write_text(media)
    (tmp_path / "out" / "0.ts").write_bytes(segment)
    (tmp_path / ".master-2.m3u8").write_text("#EXTM3U\n")
    if master is not None:
        (tmp_path / "master.m3u8").write_text(master)
    assert masters_complaints(tmp_path) == complaints


@pytest.mark.process
def test_an_output_whose_master_names_nothing_is_told(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", frames=60, rate=25)
    show = tmp_path / "show"
    muxing = ["-f", "hls", "-hls_list_size", "0", "-master_pl_name", "master.m3u8", "-var_stream_map", "v:0,name:out"]
    command = [FFMPEG, "-v", "error", "-i", str(film), "-map", "0:v", "-c", "copy", *muxing]
    subprocess.run([*command, str(show / "%v" / "index.m3u8")], check=True)
    asked = Asked(name="sessions/one", kind="hls", path="show")
    assert read_output(asked, show).complaints == ()
    (show / "master.m3u8").write_text("#EXTM3U\n#EXT-X-VERSION:7\n")
    found = read_output(asked, show)
    assert (found.complaints, found.frames) == (("master.m3u8 names no variant",), 60)


def test_the_same_seed_plans_the_same_acts_and_another_one_others() -> None:
    first, again, other = (list(draw_acts(random.Random(seed), seconds=600, every_s=0.5)) for seed in (1, 1, 2))
    assert first == again != other
    assert {act.kind for act in first} == set(WEIGHTS)
    assert all(0 <= act.victim < 1 and 0 < act.at_s < 600 and act.lasting_s <= 20 for act in first)
    assert [act.at_s for act in first] == sorted(act.at_s for act in first)


def test_figures_tell_the_worst() -> None:
    assert [percentile(list(range(1, 101)), share) for share in (0.5, 0.95, 1.0)] == [50, 95, 100]
    assert percentile([3.0], 0.95) == 3.0
    assert times_figure("x", [1.0, 5.0, 2.0], "<= 3").value == 5.0


def test_a_count_that_is_not_what_was_asked_for_is_missed_and_a_time_is_not() -> None:
    told = [count_figure("lost", 1), count_figure("kept", 4, "= 4"), count_figure("acts", 9, "(none)")]
    assert [figure.name for figure in missed([*told, times_figure("adopted", [7.0], "<= 3")])] == ["lost"]


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[tuple[Relay, Path]]:
    """A relay before a server that says everything back, and the socket to call."""
    target, front = tmp_path / "a", tmp_path / "b"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(target))
        server.listen()

        def say_back() -> None:
            while True:
                try:
                    called, _ = server.accept()
                    with called:
                        while piece := called.recv(100):
                            called.sendall(piece)
                except OSError:
                    return

        threading.Thread(target=say_back, daemon=True).start()
        relay = Relay(front, target)
        try:
            yield relay, front
        finally:
            relay.close()
            server.shutdown(socket.SHUT_RDWR)


def call(front: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(10)
    caller.connect(str(front))
    return caller


def test_a_wire_passes_and_a_cut_one_breaks_connections_until_it_is_mended(wire: tuple[Relay, Path]) -> None:
    relay, front = wire
    with call(front) as caller:
        caller.sendall(b"one")
        assert caller.recv(10) == b"one"
        relay.cut()
        assert caller.recv(10) == b"", "the connection is broken"
    with call(front) as refused:
        assert refused.recv(10) == b"", "and a new one too"
    relay.mend()
    with call(front) as caller:
        caller.sendall(b"two")
        assert caller.recv(10) == b"two"


def test_a_held_wire_brings_what_was_said_once_it_is_mended(wire: tuple[Relay, Path]) -> None:
    relay, front = wire
    with call(front) as caller:
        caller.sendall(b"one")
        assert caller.recv(10) == b"one"
        relay.hold()
        caller.sendall(b"two")
        caller.settimeout(0.2)
        with pytest.raises(TimeoutError):
            caller.recv(10)
        caller.settimeout(10)
        relay.mend()
        assert caller.recv(10) == b"two"


PROGRAM = "import sys; f = [open(path, 'ab', 0) for path in sys.argv[2:5]]; print(flush=True)\n"
PROGRAM += "for _ in sys.stdin: print([file.write(b'x') for file in f], flush=True)"


@contextmanager
def program_writing(folder: Path, *paths: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs what looks like the program of an attempt and writes its files at every `write_once`."""
    command = [sys.executable, "-c", PROGRAM, f"{folder}/", *map(str, paths), "-progress", f"{folder}/progress"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.terminate()


def write_once(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()


def places(tmp_path: Path, attempt: int) -> tuple[Path, list[Path]]:
    """Gives an attempt's folder, and what it writes: an output, one to be, and an artifact."""
    folder = tmp_path / "agents" / "cpu-0" / "sessions" / "abc" / f"{attempt}"
    paths = [
        tmp_path / "film.mp4",
        tmp_path / f".gpu-balancer-abc-{attempt}" / "part-0.mp4",
        folder / "artifacts" / "out.ts",
    ]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    return folder, paths


def await_writes(history: History, count: int) -> None:
    deadline_s = time.monotonic() + 30
    while len(history.writes) < count and time.monotonic() < deadline_s:
        time.sleep(0.01)


OUTPUTS = ["artifacts of sessions/abc", "film.mp4", "the unfinished file of sessions/abc"]


@pytest.mark.process
def test_processes_of_attempts_are_found_with_what_they_write(tmp_path: Path) -> None:
    folder, paths = places(tmp_path, 2)
    sighter = Sighter((tmp_path,))
    sighter.outputs[str(paths[0])] = "film.mp4"
    earliest_s = time.monotonic()
    with program_writing(folder, *paths) as process:
        (seen,) = sighter.look().processes
        assert process.pid in sighter.house_processes()
    assert (seen.pid, seen.session, seen.attempt, seen.device) == (process.pid, "sessions/abc", 2, "devices/cpu-0")
    assert seen.program
    assert sorted(seen.writes) == OUTPUTS
    assert earliest_s - TICK_S <= seen.began_s <= time.monotonic()
    assert not sighter.look().processes
    assert sighter.process(process.pid) is None
    assert os.getpid() not in sighter.house_processes()


@pytest.mark.process
def test_every_change_of_an_outputs_writer_is_told_and_nothing_else(tmp_path: Path) -> None:
    history, sighter = History(), Sighter((tmp_path,))
    sighter.outputs[str(tmp_path / "film.mp4")] = "film.mp4"
    (first, early), (second, late) = (places(tmp_path, attempt) for attempt in (1, 2))
    with (
        program_writing(first, *early) as one,
        program_writing(second, *late) as two,
        watching_writes(history, sighter, (tmp_path,)) as listening,
    ):
        if not listening:
            pytest.skip("only root may listen to writes")
        for writer, changes in ((one, 3), (one, 3), (two, 6), (one, 9)):
            write_once(writer)
            await_writes(history, changes)
    told = [(write.output, write.pid, write.attempt) for write in history.writes]
    assert sorted(told[:3]) == [(output, one.pid, 1) for output in OUTPUTS]
    assert sorted(told[3:6]) == [(output, two.pid, 2) for output in OUTPUTS]
    assert sorted(told[6:]) == [(output, one.pid, 1) for output in OUTPUTS]
    assert {violation.invariant for violation in check(history)} == {"TWO_WRITERS"}


MAKER = """
import subprocess, sys, tempfile
from bench.chaos.guardian import guarded_scratch
with guarded_scratch() as folder:
    inner = tempfile.mkdtemp()
    part = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", inner], stdin=subprocess.PIPE,
                            start_new_session=True)
    print(folder, part.pid, flush=True)
    sys.stdin.read()
    part.communicate()
"""


@pytest.mark.process
@pytest.mark.parametrize("killed", [True, False])
def test_what_a_run_made_ends_with_it_even_when_it_is_killed(killed: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as maker:
        assert maker.stdout is not None
        folder, pid = maker.stdout.readline().split()
        ends = [os.pidfd_open(int(process)) for process in (pid, guardian_of(folder))]
        if killed:
            maker.kill()
        maker.communicate()
    for end in ends:
        assert select.select([end], [], [], 60)[0], "it lives on"
        os.close(end)
    assert not Path(folder).exists()


def guardian_of(folder: str) -> int:
    """Gives its process id. A program that has just begun has no command line for a moment."""
    deadline_s = time.monotonic() + 60
    while True:
        for path in Path("/proc").glob("[0-9]*"):
            if "guardian.py" in command_of(path, folder):
                return int(path.name)
        assert time.monotonic() < deadline_s, f"nobody guards {folder}"


def command_of(process: Path, folder: str) -> str:
    try:
        line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
    return line if folder in line else ""
