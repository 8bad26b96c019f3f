"""Turns what pydantic found into sentences for the operator: where in the file, what is wrong, what would be right."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from gpu_balancer.runtime.settings_values import FROM_ROOT, MISTAKES
from gpu_balancer.runtime.toml_positions import nearest_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails, ValidationError

    from gpu_balancer.runtime.toml_positions import KeyPath

_LONGEST_SHOWN_VALUE = 60
_LONGEST_SHOWN_BITS = 10_000
"""Of longer numbers, which TOML takes in hexadecimal, Python writes out those of up to some 14,000 bits only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong in a settings file."""

    key: str
    """Path of the key: "devices[0].weight". Empty when it concerns the whole file."""
    line: int | None
    """From 1; of the table around it when the key is not in the file. None when that is not there either."""
    message: str
    """What is wrong: "must be a whole number, not "a lot"."."""

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


def describe_mistakes(
    error: ValidationError, model: type[BaseModel], positions: dict[KeyPath, int]
) -> tuple[Mistake, ...]:
    """Tells every mistake of a file, by line.

    Args:
        error: What pydantic found.
        model: The settings that were wanted.
        positions: Lines of the file's keys.
    """
    details = error.errors(include_url=False)
    found: dict[tuple[KeyPath, str], Mistake] = {}
    for detail in details:
        for path, message in _told(detail, details, model):
            line = nearest_line(positions, path)
            found[path, message] = Mistake(key=shown_path(path), line=line, message=message)
    return tuple(sorted(found.values(), key=lambda mistake: (mistake.line or 0, mistake.key)))


def shown_path(path: KeyPath) -> str:
    """Writes a path as people do: "profiles.ladder.renditions[0].width"."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _told(
    detail: ErrorDetails, all_details: list[ErrorDetails], model: type[BaseModel]
) -> Iterator[tuple[KeyPath, str]]:
    path: KeyPath = detail["loc"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    kind = detail["type"]
    if kind == MISTAKES:
        for below, message in context["mistakes"]:
            yield (tuple(below[1:]) if below[:1] == (FROM_ROOT,) else (*path, *below)), message
        return
    if kind == "too_short" and any(other["loc"][: len(path)] == path and other is not detail for other in all_details):
        # Items that were refused are missing afterwards: no mistake of its own.
        return
    if path[-1:] == ("[key]",):
        yield path[:-1], f"must have a name that fits {context.get('pattern', 'its pattern')}"
        return
    yield path, _message(kind, context, detail, path, model)


def _message(kind: str, context: Mapping[str, Any], detail: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    given = _shown_value(detail["input"])
    match kind:
        case "extra_forbidden":
            return _unknown_key(path, model)
        case "missing":
            return "is missing, and has no default"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"must be {context['expected']}, not {given}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return f"must be {_bounds(context)}, not {given}"
        case "finite_number":
            return f"must be a finite number, not {given}"
        case "string_pattern_mismatch":
            return f"must fit the pattern {context['pattern']}, not {given}"
        case "string_too_short" | "string_too_long" | "too_short" | "too_long":
            return f"must have {_bounds(context)} {'characters' if kind.startswith('string') else 'items'}, not {given}"
        case _:
            wanted = _WANTED_TYPES.get(kind)
            return f"must be {wanted}, not {given}" if wanted else f"{detail['msg']}, not {given}"


_WANTED_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "tuple_type": "an array, [ … ]",
    "list_type": "an array, [ … ]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}
_BOUND_WORDS = {
    "gt": "above",
    "ge": "at least",
    "lt": "below",
    "le": "at most",
    "min_length": "at least",
    "max_length": "at most",
}


def _bounds(context: Mapping[str, Any]) -> str:
    return " and ".join(f"{word} {context[bound]:,}" for bound, word in _BOUND_WORDS.items() if bound in context)


def _unknown_key(path: KeyPath, model: type[BaseModel]) -> str:
    known = _known_keys(path[:-1], model)
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    if close:
        return f"is no key. Did you mean {close[0]}?"
    return f"is no key. Known here: {', '.join(known)}" if known else "is no key"


def _known_keys(path: KeyPath, model: type[BaseModel]) -> list[str]:
    """Follows a path through the models to the keys that its table may have."""
    at: type[BaseModel] | None = model
    for part in path:
        if at is None:
            return []
        if isinstance(part, int) or part not in at.model_fields:
            continue  # an index, or a name of the operator's inside a table of tables
        at = _model_in(at.model_fields[part].annotation)
    return sorted(at.model_fields) if at is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def _shown_value(value: object) -> str:
    match value:
        case bool():
            shown = "true" if value else "false"
        case dict():
            shown = "a table"
        case list() | tuple():
            shown = f"an array of {len(value)}"
        case str():
            shown = f'"{value}"'
        case int() if value.bit_length() > _LONGEST_SHOWN_BITS:
            shown = f"a number of {value.bit_length()} bits"
        case _:
            shown = str(value)
    return shown if len(shown) <= _LONGEST_SHOWN_VALUE else shown[: _LONGEST_SHOWN_VALUE - 1] + "…"
