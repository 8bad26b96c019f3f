"""Writes a history down, one JSON object a line, so that a person can look into what the judge found."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bench.chaos.history import History


def write_history(history: History, path: Path) -> None:
    """Adds everything of a history to a file, ordered by kind and then by time.

    Args:
        history: What was seen.
        path: The file; made when it is missing.
    """
    with path.open("a") as file:
        for field in fields(history):
            values = getattr(history, field.name)
            if isinstance(values, dict):
                values = list(values.values())
            for value in values if isinstance(values, list) else [values]:
                shown = asdict(value) if hasattr(value, "__dataclass_fields__") else {"value": value}
                file.write(json.dumps({"kind": field.name, **_plain(shown)}) + "\n")


def _plain(shown: dict[str, object]) -> dict[str, object]:
    """Makes sets, which JSON does not know, lists; `kind` of an act gives way to that of the line."""
    told = {"act" if name == "kind" else name: value for name, value in shown.items()}
    text = json.dumps(told, default=lambda value: sorted(value) if isinstance(value, frozenset) else str(value))
    plain: dict[str, object] = json.loads(text)
    return plain
