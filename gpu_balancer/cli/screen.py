"""Where a command's output goes: tables on a terminal, tab-separated lines into a pipe, JSON when asked.

Results go to standard output. Everything that only keeps a person company, notes and progress, goes to standard
error, so that output can always be piped.
"""

from __future__ import annotations

import json as json_text
import sys
import textwrap
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from gpu_balancer.cli.words import STATE_STYLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message
    from rich.console import Console
    from rich.table import Table

_GAP = 2
_LEAST = 14
"""Columns that a cut word keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    title: str
    right: bool = False
    """Whether its figures end at the same place."""
    states: bool = False
    """Whether its words are states, which have colours."""
    optional: bool = False
    """Whether it is left out of a terminal that is too narrow for all columns."""
    shrinks: bool = False
    """Whether its words may be cut in a terminal that is still too narrow."""
    cut_front: bool = False
    """Whether they are cut at their beginning, as paths are, instead of their end."""


def to_json(message: Message) -> dict[str, object]:
    """Makes the proto's JSON: lowerCamelCase, every field that has a value or a default; unknown figures are absent."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


class Screen:
    """Writes results and notes."""

    def __init__(self, *, json: bool, headings: bool = False) -> None:
        """Looks at standard output and error; draws nothing yet.

        Args:
            json: Whether results are JSON.
            headings: Whether tables that are no terminal's begin with the names of their columns.
        """
        self.json = json
        self.headings = headings
        self.terminal = sys.stdout.isatty() and not json

    @cached_property
    def console(self) -> Console:
        """Rich's console on standard output."""
        from rich.console import Console

        return Console(highlight=False, emoji=False, markup=False)

    @cached_property
    def side_console(self) -> Console:
        """Rich's console on standard error."""
        from rich.console import Console

        return Console(stderr=True, highlight=False, emoji=False, markup=False)

    @property
    def lively(self) -> bool:
        """Whether progress can be drawn: standard error is a terminal."""
        return sys.stderr.isatty()

    def document(self, content: Message | Mapping[str, object]) -> None:
        """Writes the one JSON document of a command."""
        value = content if isinstance(content, dict) else to_json(content)  # type: ignore[arg-type]
        print(json_text.dumps(value, indent=2, ensure_ascii=False))

    def record(self, content: Message) -> None:
        """Writes one line of JSON of many."""
        print(json_text.dumps(to_json(content), ensure_ascii=False), flush=True)

    def line(self, text: str = "") -> None:
        """Writes a line of the result."""
        print(text)

    def heading(self, text: str) -> None:
        """Writes a line over what follows."""
        if self.terminal:
            self.console.print(text, style="bold", soft_wrap=True)
        else:
            self.line(text)

    def paragraph(self, text: str, *, indent: str = "") -> None:
        """Writes a text of the result, on a terminal broken between words, with further lines set in."""
        if self.terminal:
            # Paths, URLs and options stay whole, so that they can be copied.
            text = textwrap.fill(
                text, self.console.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
        self.line(text)

    def note(self, text: str) -> None:
        """Writes a line for people, beside the result."""
        print(text, file=sys.stderr, flush=True)

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, none: str) -> None:
        """Writes a table on a terminal, else its rows as lines with tabs, after its titles when headings are asked for.

        Args:
            columns: Its columns.
            rows: A word for each column in each row.
            none: What to say on standard error when there are no rows.
        """
        if not rows:
            self.note(none)
        if rows and self.terminal:
            self.console.print(make_table(columns, rows, width=self.console.width))
        elif not self.terminal:
            if self.headings:
                self.line("\t".join(column.title for column in columns))
            for row in rows:
                self.line("\t".join(cell.replace("\t", " ") for cell in row))

    def facts(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Writes names and their values below one another; pairs without a value are left out."""
        told = [(name, value) for name, value in pairs if value]
        width = max((len(name) for name, _ in told), default=0)
        for name, value in told:
            first, *more = value.splitlines() or [""]
            if self.terminal:
                style = STATE_STYLES.get(first.split(" ")[0].rstrip(":"), "") if name == "state" else ""
                self.console.print(f"{name:<{width}}", style="bold", end="")
                self.console.print(f"  {first}", style=style or None, soft_wrap=True)
            else:
                self.line(f"{name:<{width}}  {first}")
            for line in more:
                self.line(f"{'':<{width}}  {line}")


def make_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> Table:
    """Makes a table that fits a width: optional columns go first, from the right, then words are cut."""
    from rich.table import Table
    from rich.text import Text

    # Rich would take a little from every column; names and figures are worth more than the ends of long words.
    widths = _fitting(columns, rows, width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index, column_width in widths.items():
        table.add_column(
            columns[index].title,
            justify="right" if columns[index].right else "left",
            no_wrap=True,
            width=column_width,
        )
    for row in rows:
        cells = []
        for index, column_width in widths.items():
            style = STATE_STYLES.get(row[index].split(" ")[0], "") if columns[index].states else ""
            cells.append(Text(_cut(row[index], column_width, front=columns[index].cut_front), style=style))
        table.add_row(*cells)
    return table


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """Chooses the columns that fit; gives their widths by index."""
    wanted = [max(len(column.title), *(len(row[i]) for row in rows)) for i, column in enumerate(columns)]
    least = [min(want, _LEAST) if columns[i].shrinks else want for i, want in enumerate(wanted)]
    kept = list(range(len(columns)))
    for index in reversed(range(len(columns))):
        if sum(least[i] + _GAP for i in kept) - _GAP <= width:
            break
        if columns[index].optional:
            kept.remove(index)
    spare = max(0, width - sum(least[i] + _GAP for i in kept) + _GAP)
    widths = {}
    for index in kept:
        more = min(spare, wanted[index] - least[index])
        widths[index] = least[index] + more
        spare -= more
    return widths


def _cut(text: str, width: int, *, front: bool) -> str:
    """Cuts a text to a width."""
    if len(text) <= width:
        return text
    return "…" + text[len(text) - width + 1 :] if front else text[: max(0, width - 1)] + "…"
