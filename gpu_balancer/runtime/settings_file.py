"""Settings files: TOML read into a model, with every mistake told at once, and edited without losing a comment.

A file is taken whole or refused whole. Reading uses the standard library; tomlkit, which keeps comments and is slow,
is loaded when a file is to be written.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from gpu_balancer.runtime.durable_file import replace_durably
from gpu_balancer.runtime.settings_mistakes import Mistake, describe_mistakes, shown_path
from gpu_balancer.runtime.toml_positions import find_positions, nearest_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tomlkit import TOMLDocument

    from gpu_balancer.runtime.toml_positions import KeyPath

AnyModel = TypeVar("AnyModel", bound=BaseModel)

_LARGEST_FILE_BYTES = 4 * 1024 * 1024
_MANY_DIGITS = re.compile(r"[0-9_]{4300,}")
"""A whole number that Python does not read, see `sys.set_int_max_str_digits`."""
_PLACE = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)


class SettingsError(Exception):
    """A settings file that cannot be used. The message holds every mistake with its key and line."""

    def __init__(self, message: str, *, mistakes: tuple[Mistake, ...] = ()) -> None:
        super().__init__(message)
        self.mistakes = mistakes


def load_settings(path: Path | None, model: type[AnyModel]) -> AnyModel:
    """Reads a settings file.

    Args:
        path: The file. None: all defaults.
        model: What it must be.

    Returns:
        The settings.

    Raises:
        SettingsError: When the file cannot be read or anything in it is wrong.
    """
    if path is None:
        return parse_settings("", model, source="the defaults")
    return parse_settings(_read(path), model, source=str(path))


def parse_settings(text: str, model: type[AnyModel], *, source: str) -> AnyModel:
    """Reads settings from a TOML text.

    Args:
        text: The TOML.
        model: What it must be.
        source: Where it is from, for the message: the file's path.

    Raises:
        SettingsError: When anything in it is wrong.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _refusal(source, (_syntax_mistake(str(error), text),)) from error
    except ValueError as error:
        digits = _MANY_DIGITS.search(text)
        line = None if digits is None else text.count("\n", 0, digits.start()) + 1
        raise _refusal(source, (Mistake(key="", line=line, message="a number has too many digits"),)) from error
    except RecursionError as error:
        raise _refusal(source, (Mistake(key="", line=None, message="it is nested too deep"),)) from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise _refusal(source, describe_mistakes(error, model, find_positions(text))) from error


def settings_refusal(path: Path | None, wrong: Iterable[tuple[KeyPath, str]]) -> SettingsError:
    """Makes the refusal of settings that are well formed but cannot be used here, for what only a machine can tell.

    Args:
        path: The file. None: the defaults.
        wrong: Path of each key, and what is wrong with it.
    """
    positions = find_positions(_read(path)) if path is not None else {}
    mistakes = tuple(
        Mistake(key=shown_path(key), line=nearest_line(positions, key), message=message) for key, message in wrong
    )
    return _refusal(str(path) if path is not None else "the defaults", mistakes)


def edit_settings(path: Path, edit: Callable[[TOMLDocument], None], model: type[AnyModel]) -> AnyModel:
    """Changes a settings file, keeping comments, order and mode. The file stays as it is when the result is refused.

    Args:
        path: The file.
        edit: Changes the document in place.
        model: What it must be afterwards.

    Returns:
        The new settings, now on the disk.

    Raises:
        SettingsError: When the file cannot be read or written, or would not load after the change.
    """
    import tomlkit
    import tomlkit.exceptions

    text = _read(path)
    try:
        document = tomlkit.parse(text)
    except (tomlkit.exceptions.TOMLKitError, ValueError, RecursionError) as error:
        # The same text read by the standard library tells the line.
        parse_settings(text, model, source=str(path))
        raise SettingsError(f"Cannot change settings {path}: {error}. Try to write it by hand.") from error
    edit(document)
    changed = tomlkit.dumps(document)
    settings = parse_settings(changed, model, source=f"{path} as changed")
    try:
        replace_durably(path, changed.encode())
    except OSError as error:
        raise SettingsError(
            f"Cannot save settings {path}: {error.strerror}. Try to make the file and its folder writable."
        ) from error
    return settings


def dump_settings(sections: Mapping[str, BaseModel | Sequence[BaseModel]]) -> str:
    """Writes sections as a settings file, for another process to read. Keys that are not given are left out.

    Args:
        sections: Models by the name of their table; several by the name of their array of tables.

    Returns:
        The TOML.
    """
    import tomlkit

    document = tomlkit.document()
    for name, section in sections.items():
        if isinstance(section, BaseModel):
            document.add(name, tomlkit.item(section.model_dump(mode="json", exclude_none=True)))
        elif section:
            entries = [entry.model_dump(mode="json", exclude_none=True) for entry in section]
            document.add(name, tomlkit.item(entries))
    return tomlkit.dumps(document)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"Cannot load settings {path}: {error.strerror}. Try --config with a file that this user may read."
        ) from error
    if len(data) > _LARGEST_FILE_BYTES:
        raise SettingsError(f"Cannot load settings {path}: more than 4 MiB. Try the right file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"Cannot load settings {path}: line {line} is not UTF-8. Try to save it as UTF-8."
        ) from error


def _syntax_mistake(told: str, text: str) -> Mistake:
    match = _PLACE.fullmatch(told)
    if match is None:
        # "(at end of document)"
        return Mistake(key="", line=text.count("\n") + 1, message=f"is no TOML: {told}")
    return Mistake(key="", line=int(match[2]), message=f"column {match[3]} is no TOML: {match[1]}")


def _refusal(source: str, mistakes: tuple[Mistake, ...]) -> SettingsError:
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    listed = "".join(f"\n  {mistake}" for mistake in mistakes)
    return SettingsError(f"Cannot load settings {source}: {count}.{listed}", mistakes=mistakes)
