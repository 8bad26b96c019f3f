"""A command: everything an agent needs to start ffmpeg for a job and to put its files in place afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpu_balancer.runtime.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFolder:
    """A folder as it was found, so that another one at its place is noticed."""

    path: str
    """Absolute, without links in it."""
    device: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMove:
    """A file that is written in a private folder until it is complete."""

    part_path: str
    """Absolute path that ffmpeg writes, inside a private folder that names session and attempt."""
    final_path: str
    """Absolute path that was asked for; the private folder stands beside it."""
    overwrite: bool
    """Whether an existing file at `final_path` is replaced; otherwise finding one is a failure."""
    folder: OutputFolder | None = None
    """The folder of `final_path`. None: in a plan, where nothing was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How to start ffmpeg for a job."""

    argv: tuple[str, ...]
    """Program and arguments, with secrets."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables to set on top of the agent's own."""
    directories: tuple[str, ...] = ()
    """Absolute paths of folders that must exist, with their parents, before the start; outer ones first."""
    output_moves: tuple[OutputMove, ...] = ()
    """Renames to do once ffmpeg has ended with its outputs complete."""
    secrets: tuple[str, ...] = ()
    """Texts that must not be shown wherever `argv` or ffmpeg's log is, longest first."""


def redacted_argv(command: Command) -> tuple[str, ...]:
    """Gives program and arguments for people: every secret replaced by asterisks.

    Args:
        command: The command.

    Returns:
        As many texts as `command.argv`, in the same order.
    """
    redactor = Redactor(command.secrets)
    return tuple(redactor.redact(argument) for argument in command.argv)
