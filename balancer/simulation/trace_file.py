"""Reads and writes traces as files."""

from __future__ import annotations

from pathlib import Path

from balancer.simulation.trace import Trace
from balancer.simulation.trace_lines import LONGEST_LINE, TraceError, parse_trace, trace_lines


class TraceFileError(Exception):
    """A trace that cannot be used. The message says the file, the line, what is wrong, and what to try."""


def read_trace(path: Path) -> Trace:
    """Reads a trace.

    Raises:
        TraceFileError: The file cannot be read, or a line in it is wrong.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            # A file without ends of lines is not read whole before it is refused.
            return parse_trace(iter(lambda: file.readline(LONGEST_LINE + 2), ""))
    except OSError as error:
        raise TraceFileError(
            f"Cannot read trace {path}: {error.strerror}. Try a file that this user may read."
        ) from error
    except UnicodeDecodeError as error:
        raise TraceFileError(
            f"Cannot read trace {path}: line {_first_unreadable(path)} is not UTF-8. Try the file as it was exported."
        ) from error
    except TraceError as error:
        raise TraceFileError(f"Cannot read trace {path}: {error}") from error


def _first_unreadable(path: Path) -> int:
    """Gives the number of the first line that is no text: what Python tells is a place in what it has read at once."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def write_trace(path: Path, trace: Trace) -> None:
    """Writes a trace.

    Raises:
        TraceFileError: The file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in trace_lines(trace))
    except OSError as error:
        raise TraceFileError(f"Cannot write trace {path}: {error.strerror}. Try another place.") from error
