"""What is seen of the demonstration: acts, steps, commands as they could be typed, and what was checked.

Whatever was checked is told at the end, in one table, in the order in which it happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    what: str
    found: str
    passed: bool


def act(title: str) -> None:
    """Announces an act."""
    console.print()
    console.print(Rule(f"[bold]{title}[/]", style="cyan"))


def step(title: str) -> None:
    """Announces a step."""
    console.print(f"\n[bold cyan]▶ {title}[/]")


def note(sentence: str) -> None:
    """Tells something about the step."""
    console.print(f"  {sentence}")


def show_command(words: Sequence[str]) -> None:
    """Shows a command as it could be typed in the present folder, an option never apart from its value."""
    for line in _lines([word.replace(f"{Path.cwd()}/", "$PWD/") for word in words]):
        console.print(Text(line, style="dim"), soft_wrap=True)


def show_checks(checks: Mapping[str, Sequence[Check]]) -> None:
    """Shows the checks of all acts, by the acts' titles."""
    table = Table("what", "found", "")
    for title, of_act in checks.items():
        table.add_section()
        table.add_row(f"[bold]{title}[/]", "", "")
        for check in of_act:
            verdict = "[green]ok[/]" if check.passed else "[bold red]WRONG[/]"
            table.add_row(Text(f"  {check.what}"), Text(check.found), verdict)
    console.print()
    console.print(table)


def _lines(words: Sequence[str]) -> Iterator[str]:
    line = "$"
    for part in _parts(words):
        if len(line) + len(part) + 3 > console.width and not line.isspace():
            yield f"{line} \\"
            line = "   "
        line = f"{line} {part}"
    yield line


def _parts(words: Sequence[str]) -> list[str]:
    """Puts every option together with the word that follows it."""
    parts: list[str] = []
    for word in words:
        if parts and parts[-1].startswith("-") and " " not in parts[-1] and not word.startswith("-"):
            parts[-1] += f" {word}"
        else:
            parts.append(word)
    return parts
