"""Commands as readable text: one option and its value per line, one muxer of `tee` per line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.pipelines.command import Command

_ALONE = {"-hide_banner", "-nostdin", "-nostats", "-y", "-re", "-xerror", "-"}
_BETWEEN_MUXERS = re.compile(r"(?<!\\)\|")


def golden_text(command: Command) -> str:
    """Writes a command as it stands in a golden file."""
    lines = [f"env {name}={value}" for name, value in command.env.items()]
    lines += [f"directory {path}" for path in command.directories]
    lines += [
        f"move {move.part_path} -> {move.final_path}{' (overwrite)' if move.overwrite else ''}"
        for move in command.output_moves
    ]
    lines += [f"secret {secret}" for secret in command.secrets]
    return "\n".join([*lines, "", *_argument_lines(command.argv)]) + "\n"


def _argument_lines(argv: tuple[str, ...]) -> list[str]:
    lines = [argv[0]]
    rest = list(argv[1:])
    while rest:
        argument = rest.pop(0)
        takes_value = argument.startswith("-") and argument not in _ALONE
        line = f"{argument} {rest.pop(0)}" if takes_value else argument
        lines += _BETWEEN_MUXERS.sub("\n  | ", line).split("\n") if line.startswith("[") else [line]
    return lines
