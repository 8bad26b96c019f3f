"""Finds the line of every key in a TOML text, which no TOML library for Python tells.

The text is known to be valid, so this scans and does not judge: headers, dotted and quoted keys, arrays of tables,
inline tables and arrays over several lines are followed; values are only skipped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KeyPath = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^\s,\]}#]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def find_positions(text: str) -> dict[KeyPath, int]:
    """Maps each key's path to its line.

    Args:
        text: Valid TOML.

    Returns:
        Line numbers from 1, by path from the root: ("devices", 0, "weight"). Items of arrays have paths too. A table's
        line is its header's; of one that is only implied, the line of the first key that implies it.
    """
    return _Scanner(text).scan()


def nearest_line(positions: dict[KeyPath, int], path: KeyPath) -> int | None:
    """Gives the line of a path, or of the nearest table around it that is in the file. None: there is none."""
    return next((positions[path[:end]] for end in range(len(path), 0, -1) if path[:end] in positions), None)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._table_counts: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_to_content():
            if self._peek("["):
                table = self._header()
            else:
                self._key_and_value(table)
        return self._lines

    def _header(self) -> KeyPath:
        line = self._line()
        many = self._peek("[[")
        self._at += 2 if many else 1
        keys = tuple(self._keys())
        self._at += 2 if many else 1
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._inside((*path, key), line)
        path = (*path, keys[-1])
        self._note(path, line)
        if many:
            count = self._table_counts[path] = self._table_counts.get(path, 0) + 1
            path = (*path, count - 1)
            self._note(path, line)
        return path

    def _inside(self, path: KeyPath, line: int) -> KeyPath:
        """Follows a table that a header or dotted key passes through: of an array of tables the latest is meant."""
        self._note(path, line)
        return (*path, self._table_counts[path] - 1) if path in self._table_counts else path

    def _key_and_value(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, line)
        self._at += 1  # the equals sign
        self._skip_blanks()
        self._value(path)

    def _keys(self) -> Iterator[str]:
        while True:
            self._skip_blanks()
            yield self._key()
            self._skip_blanks()
            if not self._peek("."):
                return
            self._at += 1

    def _key(self) -> str:
        if self._peek('"') or self._peek("'"):
            return self._string()
        match = _BARE_KEY.match(self._text, self._at)
        if match is None:
            raise ValueError(f"Cannot find a key in line {self._line()}: the text is no TOML.")
        self._at = match.end()
        return match.group()

    def _value(self, path: KeyPath) -> None:
        if self._peek("["):
            self._array(path)
        elif self._peek("{"):
            self._inline_table(path)
        elif self._peek('"') or self._peek("'"):
            self._string()
        elif match := _SCALAR.match(self._text, self._at):
            self._at = match.end()
            self._skip_time_of_day()

    def _skip_time_of_day(self) -> None:
        """A date may be followed by a blank and a time."""
        match = re.compile(r" \d\d:\d\d[^\s,\]}#]*").match(self._text, self._at)
        if match:
            self._at = match.end()

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._skip_to_content() and not self._peek("]"):
            if self._peek(","):
                self._at += 1
                continue
            self._note((*path, index), self._line())
            self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip_to_content() and not self._peek("}"):
            if self._peek(","):
                self._at += 1
                continue
            self._key_and_value(path)
        self._at += 1

    def _string(self) -> str:
        quote = self._text[self._at]
        if self._peek(quote * 3):
            end = self._end_of_string(quote * 3, self._at + 3)
            # Up to two quotes may stand right before the three that end it.
            while self._text.startswith(quote, end + 3):
                end += 1
            found = self._text[self._at + 3 : end]
            self._at = end + 3
            return found
        end = self._end_of_string(quote, self._at + 1)
        found = self._text[self._at + 1 : end]
        self._at = end + 1
        return found if quote == "'" else _ESCAPE.sub(_unescaped, found)

    def _end_of_string(self, mark: str, start: int) -> int:
        at = start
        while not self._text.startswith(mark, at):
            if at >= len(self._text):
                raise ValueError(f"Cannot find the end of a string from line {self._line()} on: the text is no TOML.")
            at += 2 if mark[0] == '"' and self._text[at] == "\\" else 1
        return at

    def _note(self, path: KeyPath, line: int) -> None:
        self._lines.setdefault(path, line)

    def _peek(self, mark: str) -> bool:
        return self._text.startswith(mark, self._at)

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _skip_blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in " \t":
            self._at += 1

    def _skip_to_content(self) -> bool:
        """Skips white space and comments; false at the end of the text."""
        while self._at < len(self._text):
            if self._text[self._at] == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text[self._at].isspace():
                self._at += 1
            else:
                return True
        return False


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    return chr(int(digits, 16)) if digits else _ESCAPED.get(match[3], match[3])
