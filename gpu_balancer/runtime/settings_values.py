"""What settings are built of: the section class, value types with units, and one validator's several mistakes.

Durations and sizes are plain numbers whose key ends in their unit, as operators read them: `probe_timeout_s = 5`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

_Item = TypeVar("_Item")

MISTAKES = "mistakes"
"""Error type of a validator that found several mistakes; `settings_file` takes them apart."""
FROM_ROOT = "/"
"""Begins the path of a mistake that is elsewhere in the file, from the root on."""


class Section(BaseModel):
    """A table of a settings file: unknown keys and wrong types are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def refuse(mistakes: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
    """Raises all mistakes that a validator found; does nothing when there is none.

    Args:
        mistakes: The path of each, from the validated value on, and what is wrong as in "must be above 0, not -1".

    Raises:
        PydanticCustomError: When there is one.
    """
    told = list(mistakes)
    if told:
        _raise(told)


def _raise(told: list[tuple[tuple[str | int, ...], str]]) -> NoReturn:
    summary = "; ".join(message for _, message in told)
    # Braces would be taken for placeholders of the message template.
    raise PydanticCustomError(MISTAKES, "{summary}", {"summary": summary, "mistakes": told})


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"must be an absolute path, not {path!r}")
    return path


def _distinct(items: tuple[Any, ...]) -> tuple[Any, ...]:
    refuse(
        ((index,), f"must not be given twice: {item!r}") for index, item in enumerate(items) if item in items[:index]
    )
    return items


# A TOML array is a list; settings hold tuples. Only the outermost type is lenient: items stay strict.
Many = Annotated[tuple[_Item, ...], Field(strict=False)]
"""An array of the file."""
Distinct = Annotated[tuple[_Item, ...], Field(strict=False), AfterValidator(_distinct)]
"""An array of the file without doubles."""
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
"""A path from the root on."""
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
"""A length of time in seconds, up to a day."""
Hours = Annotated[float, Field(gt=0, le=87_600, allow_inf_nan=False)]
"""A length of time in hours, up to ten years."""
Count = Annotated[int, Field(ge=1, le=2**53)]
"""A whole number from 1."""

MediaProtocol = Literal["file", "http", "https", "rtmp", "rtmps", "rtsp", "srt"]
"""Ways for media to come in."""
PushProtocol = Literal["rtmp", "rtmps", "srt"]
"""Ways for media to be pushed out."""
