"""Who runs first when a page is recorded: on real processes, whose threads are named as ffmpeg names its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agents.precedence import give_precedence, look_in_real_time, withdraw_precedence
from agents.recordings.encoder_turns import EncoderTurns
from agents.recordings.state import Take
from fakes.precedence import is_allowed, nice_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOKS, _ENCODES = "dmx1:x11grab", "enc0:0:libx264"
_THREADS = """
import sys, threading
from pathlib import Path
def named(name):
    number = threading.get_native_id()
    Path(f"/proc/self/task/{number}/comm").write_text(name)
    with lock:
        print(name, number, flush=True)
    sys.stdin.read()
lock = threading.Lock()
for name in sys.argv[1:]:
    threading.Thread(target=named, args=(name,)).start()
"""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What stands in for an ffmpeg, in a session of its own."""

    pid: int
    threads: dict[str, int]

    def policy(self, name: str) -> int:
        return os.sched_getscheduler(self.threads[name])

    @property
    def nice(self) -> int:
        return nice_of(self.pid)


def started(*names: str) -> subprocess.Popen[str]:
    argv = (sys.executable, "-c", _THREADS, *names)
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def told(process: subprocess.Popen[str], count: int) -> Program:
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(count)]
    return Program(pid=process.pid, threads={name: int(number) for name, number in lines})


@pytest.fixture
def program() -> Iterator[Program]:
    if not is_allowed():
        pytest.skip("precedence is not allowed here")
    with started(_LOOKS, _ENCODES) as process:
        try:
            yield told(process, 2)
        finally:
            process.kill()


def test_precedence_is_given_and_withdrawn(program: Program) -> None:
    assert give_precedence(program.pid)
    assert program.nice == -10
    assert withdraw_precedence(program.threads[_ENCODES])
    assert program.nice == 0


def test_what_takes_pictures_in_runs_in_real_time_and_nothing_else_does(program: Program) -> None:
    assert look_in_real_time(program.pid)
    assert program.policy(_LOOKS) == os.SCHED_RR
    assert program.policy(_ENCODES) == os.SCHED_OTHER
    assert look_in_real_time(program.pid), "a later agent does it again"


def test_an_ffmpeg_that_does_not_name_its_threads_is_left_as_it_is(program: Program) -> None:
    with started("ffmpeg") as process:
        try:
            other = told(process, 1)
            assert give_precedence(other.pid)
            assert not look_in_real_time(other.pid)
            turns = EncoderTurns(30)
            for number in range(1, 4):
                turns.follow(other.pid, Take(number=1, frames=30 * number), 100.0 + number)
            assert (other.policy("ffmpeg"), other.nice) == (os.SCHED_OTHER, -10)
        finally:
            process.kill()
    assert program.nice == 0


def test_who_is_gone_gets_nothing() -> None:
    process = started("ffmpeg")
    process.kill()
    process.communicate()
    assert not give_precedence(process.pid)
    assert not withdraw_precedence(process.pid)
    assert not look_in_real_time(process.pid)


def test_an_encoder_gives_way_until_it_is_late_and_again_when_it_has_kept_up(program: Program) -> None:
    give_precedence(program.pid)
    turns = EncoderTurns(30)

    def seen(at_s: float, frames: int) -> int:
        turns.follow(program.pid, Take(number=1, frames=frames), at_s)
        return program.nice

    assert seen(100.0, 0) == -10, "nothing is recorded yet"
    assert program.policy(_LOOKS) == os.SCHED_OTHER
    assert seen(100.5, 5) == 0
    assert program.policy(_LOOKS) == os.SCHED_RR
    assert seen(101.0, 20) == 0
    assert seen(101.5, 20) == 0, "the next report is due"
    assert seen(102.0, 34) == -10, "it is 0.53 s late"
    assert seen(161.0, 34 + 59 * 30) == -10
    assert seen(162.0, 34 + 60 * 30) == 0
    assert seen(163.0, 34 + 61 * 30) == 0, "what it lost before does not come back"
    assert seen(164.0, 34 + 61 * 30) == -10, "it tells nothing any more"


def test_a_late_encoder_gives_way_no_sooner_than_it_has_kept_up_for_a_while(program: Program) -> None:
    turns = EncoderTurns(50)
    for second in range(200):
        # Half of what is asked for, throughout.
        turns.follow(program.pid, Take(number=1, frames=25 * (second + 1)), 100.0 + second)
        assert program.nice == (0 if second < 2 else -10)
