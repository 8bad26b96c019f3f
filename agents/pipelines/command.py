"""A command: everything an agent needs to start ffmpeg for a job and to put its files in place afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agents.pipelines.job import Container
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
class FileParts:
    """A file that is joined in the end, of what several attempts or takes have written."""

    output: str
    """Id of the output."""
    container: Container
    own_path: str
    """Absolute path of what a transcode writes, its part."""
    made_path: str
    """Absolute path at which the whole file is made."""
    final_path: str
    """Absolute path that was asked for."""
    scratch: str
    """Absolute path, without its ending, of what is needed meanwhile."""
    move: OutputMove | None = None
    """For a file under the output roots: `made_path` is its part path. None: an artifact, which is renamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsPresentation:
    """A live HLS presentation: its playlists have no end until somebody writes one."""

    folder: str
    """Absolute path."""
    variants: tuple[str, ...]
    """Names of the folders of its renditions."""
    window: int | None
    """How many segments a playlist keeps. None: all."""
    part: int | None
    """Number of the attempt that continues earlier ones, and writes playlists of its own. None: it begins anew."""
    sounds: tuple[tuple[str, str], ...] = ()
    """Variants whose sound has a playlist of its own, each with the variant that it is."""


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
    presentations: tuple[HlsPresentation, ...] = ()
    """Whose playlists are to be ended, and joined with earlier ones."""
    files: tuple[FileParts, ...] = ()
    """To be joined with what earlier attempts have made."""
    may_be_held: bool = False
    """Whether its ffmpeg can be started ahead of its time, see `held_command`."""
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
