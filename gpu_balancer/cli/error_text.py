"""Errors on standard error: readable on a terminal, one line each elsewhere."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from gpu_balancer.cli.exit_codes import ExitCode


def complain(words: str, code: ExitCode) -> ExitCode:
    """Writes an error to standard error and gives its exit code."""
    first, *more = wrapped(f"Error: {words}", indent="  ").split("\n")
    typer.echo(typer.style("Error:", fg="red", bold=True) + first.removeprefix("Error:"), err=True)
    for line in more:
        typer.echo(line, err=True)
    return code


def wrapped(text: str, *, indent: str = "") -> str:
    """Breaks a text for people between words at the terminal's width; elsewhere leaves it in one line.

    Args:
        text: One paragraph.
        indent: Put in front of each line but the first.
    """
    if not sys.stderr.isatty():
        return text
    width = shutil.get_terminal_size().columns
    # Paths, URLs and options stay whole, so that they can be copied.
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
