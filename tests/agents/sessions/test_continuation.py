"""Taking over what earlier attempts have made, cut short at every step: nothing is lost, nothing is there twice."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agents.pipelines.command import FileParts
from agents.pipelines.job import Container
from agents.sessions.attempt import AttemptKey, AttemptStatus, Ending, Phase
from agents.sessions.continuation import EarlierAttempt, take_over
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.left_behind import left_by
from agents.sessions.records import dump_status

KILLED = """
import errno, os, pathlib, signal, sys
sys.path[:0] = sys.argv[2:]
from test_continuation import files_of, folder_of
from agents.sessions.continuation import EarlierAttempt, take_over

for line in sys.stdin:
    taker = os.fork()
    if not taker:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(taker, 0)[1]), flush=True)
else:
    sys.exit()
step, state = line.rstrip().split(" ", 1)
left, state, copied = int(step), pathlib.Path(state), sys.argv[1] == "copied"
folder = folder_of(state, 2)
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.copyfileobj"}

def watch(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if event in CHANGES or writes:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if copied:
    replace = pathlib.Path.replace
    def elsewhere(self, target):
        if str(self).startswith(str(state / "s1" / "1")) and not str(target).startswith(str(state / "s1" / "1")):
            raise OSError(errno.EXDEV, "another disk")
        return replace(self, target)
    pathlib.Path.replace = elsewhere
sys.addaudithook(watch)
take_over(folder, [EarlierAttempt(attempt=1, folder=str(folder_of(state, 1).path))], files_of(folder))
os._exit(0)
"""
"""Reads steps and folders, and for each has a copy of itself take over and be killed at that step. Tells its status."""


def folder_of(state: Path, attempt: int) -> AttemptFolder:
    return SessionFolders(root=state).of(AttemptKey(session="s1", attempt=attempt))


def files_of(folder: AttemptFolder) -> tuple[FileParts, ...]:
    """A film, and one that is recorded in takes."""
    return tuple(
        FileParts(
            output=name,
            container=Container.MP4,
            own_path="",
            made_path=f"{folder.artifacts}/.takes/joined/output-{index}.mp4",
            final_path=f"{folder.artifacts}/{name}.mp4",
            scratch=f"{folder.artifacts}/.takes/joined/output-{index}",
        )
        for index, name in enumerate(("film", "recorded"))
    )


def made(state: Path, attempt: int, contents: dict[str, str]) -> AttemptFolder:
    folder = folder_of(state, attempt)
    status = AttemptStatus(key=folder.key, phase=Phase.ENDED, ending=Ending.FAILED)
    folder.create({"status.json": dump_status(status)})
    for name, content in contents.items():
        path = folder.artifacts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def contents_of(folder: AttemptFolder) -> dict[str, str]:
    found = folder.artifacts.rglob("*")
    return {str(path.relative_to(folder.artifacts)): path.read_text() for path in found if path.is_file()}


FIRST = {
    "film.mp4": "film of 1",
    ".takes/1/output-1.mp4": "take 1 of 1",
    ".takes/2/output-1.mp4": "take 2 of 1",
    ".takes/3/output-1.mp4": "",
    ".takes/joined/output-1.mp4": "half of it",
    "hls/index.m3u8": "playlist",
    "hls/90p/segment_00000.ts": "segment",
    "console.log": "log of 1",
}
TAKEN = {
    "film.part1.mp4": "film of 1",
    "recorded.part1-1.mp4": "take 1 of 1",
    "recorded.part1-2.mp4": "take 2 of 1",
    "hls/index.m3u8": "playlist",
    "hls/90p/segment_00000.ts": "segment",
    "attempt-1/console.log": "log of 1",
}


def taken_over(state: Path, attempt: int) -> AttemptFolder:
    folder = made(state, attempt, {})
    earlier = [
        EarlierAttempt(attempt=number, folder=str(folder_of(state, number).path)) for number in range(1, attempt)
    ]
    take_over(folder, earlier, files_of(folder))
    return folder


def test_what_is_taken_over_is_called_what_it_is(tmp_path: Path) -> None:
    made(tmp_path, 1, FIRST)
    assert contents_of(taken_over(tmp_path, 2)) == TAKEN
    assert contents_of(folder_of(tmp_path, 1)) == {}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_attempts_took_over_that_nobody_heard_of_is_found(tmp_path: Path, elsewhere: bool) -> None:
    """Attempts 2 and 3 were begun by agents whose answers were lost, so that nobody can tell their folders."""
    other = tmp_path / "other" if elsewhere else tmp_path
    made(tmp_path, 1, FIRST)
    unheard = [EarlierAttempt(attempt=1, folder=str(folder_of(tmp_path, 1).path))]
    for attempt, state in ((2, other), (3, tmp_path)):
        folder = made(state, attempt, {".takes/1/output-1.mp4": f"take of {attempt}"})
        take_over(folder, unheard, files_of(folder))
        unheard.append(EarlierAttempt(attempt=attempt, folder=""))
    last = made(tmp_path, 4, {})
    take_over(last, unheard, files_of(last))
    assert contents_of(last) == TAKEN | {"recorded.part2-1.mp4": "take of 2", "recorded.part3-1.mp4": "take of 3"}
    assert left_by(last) == ()
    take_over(last, unheard, files_of(last))
    assert len(contents_of(last)) == len(TAKEN) + 2


def test_a_note_of_who_took_over_that_leads_astray_is_not_followed(tmp_path: Path) -> None:
    made(tmp_path, 1, FIRST)
    for noted in ("/s1/2", str(tmp_path / "s2" / "2"), str(tmp_path / "s1" / "9"), "", "\0", "s1/2" * 9000):
        (folder_of(tmp_path, 1).path / "taken-over-by").write_text(noted)
        last = made(tmp_path, 3, {})
        take_over(last, [EarlierAttempt(attempt=1, folder=str(folder_of(tmp_path, 1).path))], files_of(last))
        assert contents_of(last) == TAKEN
        for name, content in TAKEN.items():
            place = folder_of(tmp_path, 1).artifacts / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)
        shutil.rmtree(last.path)


@pytest.mark.process
@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_kill_at_any_step_loses_nothing(tmp_path: Path, how: str) -> None:
    """Attempt 2 is killed while it takes over from 1; attempt 3 takes over from both."""
    here = [str(Path(__file__).parent), *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, how, *here], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as takers:
        assert takers.stdin is not None
        assert takers.stdout is not None
        for step in range(1, 200):
            state = tmp_path / f"{how}-{step}"
            made(state, 1, FIRST)
            made(state, 2, {})
            takers.stdin.write(f"{step} {state}\n")
            status = int(takers.stdout.readline())
            assert contents_of(taken_over(state, 3)) == TAKEN, step
            if status == 0:
                assert step > 10
                return
            assert status == -signal.SIGKILL
    raise AssertionError("it never came to its end")


def test_a_film_that_is_whole_counts_more_than_its_parts(tmp_path: Path) -> None:
    """An agent was killed when it had joined them and before it had removed them."""
    parts = {"film.part1.mp4": "of 1", "film.part2.mp4": "of 2", "film.mp4": "of 1 and of 2"}
    made(tmp_path, 1, {})
    made(tmp_path, 2, parts | {".takes/1/output-0.mp4": "of 2"})
    assert contents_of(taken_over(tmp_path, 3)) == {"film.part2.mp4": "of 1 and of 2"}


def test_a_name_that_two_attempts_have_used_is_kept_twice(tmp_path: Path) -> None:
    made(tmp_path, 1, {"hls/master.m3u8": "of 1"})
    made(tmp_path, 2, {"hls/master.m3u8": "of attempt 2"})
    assert contents_of(taken_over(tmp_path, 3)) == {
        "hls/master.m3u8": "of 1",
        "attempt-2/hls/master.m3u8": "of attempt 2",
    }


@pytest.mark.parametrize("fault", ["strangers", "open", "another", "misnamed", "gone", "missing record"])
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, fault: str) -> None:
    folder = made(tmp_path, 1, {"film.mp4": "film"})
    path = folder.path
    if fault == "strangers":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(path, 61999, 61999)
    elif fault == "open":
        path.chmod(0o777)
    elif fault == "another":
        status = AttemptStatus(key=AttemptKey(session="s1", attempt=9))
        folder.write_status(dump_status(status))
    elif fault == "misnamed":
        path = path.rename(path.with_name("one"))
    elif fault == "gone":
        path = tmp_path / "nowhere" / "s1" / "1"
    else:
        folder.status.unlink()
    second = made(tmp_path, 2, {})
    take_over(second, [EarlierAttempt(attempt=1, folder=str(path))], files_of(second))
    assert contents_of(second) == {}
    if fault != "gone":
        assert (path / "artifacts" / "film.mp4").exists()


@pytest.mark.parametrize("planted", ["artifacts", ".takes", ".takes/1", "out", "console.log", "film.mp4"])
@pytest.mark.parametrize("copied", [False, True])
def test_nothing_is_taken_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str, *, copied: bool
) -> None:
    """Whatever stands where it leads to stays, and does not become an artifact."""
    if copied:
        rename = Path.replace

        def elsewhere(self: Path, target: str | Path) -> Path:
            if self.is_relative_to(first.path) != Path(target).is_relative_to(first.path):
                raise OSError(errno.EXDEV, "another disk")
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", elsewhere)
    precious = tmp_path / "precious"
    names = ("film.mp4", "console.log", "output-1.mp4", "1/output-1.mp4", ".takes/1/output-1.mp4", "sub/keep.txt")
    for name in names:
        (precious / name).parent.mkdir(parents=True, exist_ok=True)
        (precious / name).write_text("precious")
    first = made(tmp_path / "state", 1, {"own.txt": "own"})
    link = first.artifacts if planted == "artifacts" else first.artifacts / planted
    if planted == "artifacts":
        link.rename(tmp_path / "away")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(precious / planted if "." in planted[1:] else precious)
    second = made(tmp_path / "state", 2, {})
    files = files_of(second)
    in_folder = replace(files[0], final_path=f"{second.artifacts}/out/film.mp4")
    take_over(second, [EarlierAttempt(attempt=1, folder=str(first.path))], (*files, in_folder))
    found = {str(path.relative_to(precious)): path.read_text() for path in precious.rglob("*") if path.is_file()}
    assert found == dict.fromkeys(names, "precious")
    name = "artifacts in it" if planted == "artifacts" else ".takes in it" if planted == ".takes" else planted
    [left] = left_by(second)
    assert left.startswith(f"attempt 1: {name} is a link")
    left_whole = planted in ("artifacts", ".takes")
    assert contents_of(second) == ({} if left_whole else {"own.txt": "own"})
