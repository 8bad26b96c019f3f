"""What X servers and gates leave in /tmp is removed, and nothing of anybody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents.displays import x_sockets
from agents.displays.x_sockets import clear_after, display_of, gate_of


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(x_sockets, "TMP", tmp_path)
    folder = tmp_path / ".X11-unix"
    folder.mkdir()
    return folder


def display(sockets: Path, number: int, pid: int | None, *, gate: bool) -> None:
    """Leaves a socket, a lock if a server has one, and a gate."""
    (sockets / f"X{number}").touch()
    if pid is not None:
        (sockets.parent / f".X{number}-lock").write_text(f"{pid:>10}\n")
    if gate:
        (sockets / f"X{gate_of(f':{number}')[1:]}").touch()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_display_that_was_killed_leaves_nothing_and_others_stay(sockets: Path) -> None:
    display(sockets, 1007, 11, gate=True)
    display(sockets, 1008, 12, gate=True)
    clear_after([11])
    assert names(sockets) == {"X1008", "X33008"}
    assert names(sockets.parent) == {".X11-unix", ".X1008-lock"}


def test_the_gate_of_a_server_that_took_its_lock_away_itself_is_cleared(sockets: Path) -> None:
    (sockets / "X33007").touch()
    clear_after([])
    assert names(sockets) == set()


def test_servers_of_others_with_large_numbers_stay(sockets: Path) -> None:
    display(sockets, 40_000, 13, gate=False)
    (sockets / "Xephyr").touch()
    clear_after([])
    assert names(sockets) == {"X40000", "Xephyr"}


def test_what_strangers_put_in_the_place_of_locks_holds_nobody_up(sockets: Path, tmp_path: Path) -> None:
    display(sockets, 1007, 11, gate=True)
    os.mkfifo(tmp_path / ".X1-lock")  # Nobody ever writes there.
    (tmp_path / ".X2-lock").symlink_to("/dev/zero")
    (tmp_path / ".X3-lock").write_text("no number")
    (tmp_path / ".X4-lock").mkdir()
    clear_after([11])
    assert names(sockets) == set()
    assert names(tmp_path) == {".X11-unix", ".X1-lock", ".X2-lock", ".X3-lock", ".X4-lock"}


@pytest.mark.parametrize("name", [":1000", ":1007", ":31999"])
def test_a_display_and_its_gate_are_told_from_one_another(name: str) -> None:
    assert display_of(gate_of(name)) == name == display_of(name)
    assert gate_of(name) != name
