"""Has an ffmpeg start ahead of its time: it loads, and waits for its filter graph before it opens anything.

ffmpeg reads the options of the whole program before those of inputs and outputs, and reads the value of one from a file
where its name is written `-/name` (https://ffmpeg.org/ffmpeg.html#Options). So one whose graph comes from a pipe has
done what a start costs, and has asked no display, no sound server and no disk for anything, until the graph is written.
If the pipe is closed without a word, as by the death of whoever holds its other end, it ends with an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.pipelines.command import Command

GRAPH_OPTION = "-filter_complex"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCommand:
    """What to start, and what to say to it then."""

    argv: tuple[str, ...]
    """Program and arguments, with secrets."""
    graph: bytes
    """Written to the pipe, which is then closed, it lets ffmpeg go on. It fits into a pipe that nobody reads."""


def held_command(command: Command, descriptor: int) -> HeldCommand:
    """Has a command wait for its filter graph.

    Args:
        command: One that may be held.
        descriptor: Of the pipe's end that ffmpeg reads, as ffmpeg will have it.
    """
    at = command.argv.index(GRAPH_OPTION)
    waiting = (f"-/{GRAPH_OPTION.removeprefix('-')}", f"pipe:{descriptor}")
    argv = (*command.argv[:at], *waiting, *command.argv[at + 2 :])
    return HeldCommand(argv=argv, graph=command.argv[at + 1].encode())
