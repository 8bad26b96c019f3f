"""Every key of a TOML text has its line, however it is written."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from gpu_balancer.runtime.toml_positions import find_positions, nearest_line

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT = '''# a comment with [brackets] = "and" quotes
title = "x # no comment" # one
[server]
listen = [
  "unix:/a", # first
  "127.0.0.1:1",
]

[placement]
factors = { decode = 1, "scale" = 2 }
a.b."c d" = 3
date = 1979-05-27 07:32:00 # a date with a blank

[[devices]]
match = 'GPU-1'
text = """
[not.a.table]
x = 1 \\""" still ""\"""
weight = 1

[[devices]]
match = "GPU-2"
[devices.more]
deep = true
[[profiles."my ladder".renditions]]
id = "a"
[[profiles."my ladder".renditions]]
id = "b"
audio = { codec = "aac", list = [ { x = 1 }, { y = 2 } ] }
raw = \'\'\'
it''s
\'\'\'
last = 1'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("server",), 3),
        (("server", "listen"), 4),
        (("server", "listen", 0), 5),
        (("server", "listen", 1), 6),
        (("placement", "factors", "decode"), 10),
        (("placement", "factors", "scale"), 10),
        (("placement", "a"), 11),
        (("placement", "a", "b", "c d"), 11),
        (("placement", "date"), 12),
        (("devices",), 14),
        (("devices", 0), 14),
        (("devices", 0, "match"), 15),
        (("devices", 0, "weight"), 19),
        (("devices", 1), 21),
        (("devices", 1, "more", "deep"), 24),
        (("profiles",), 25),
        (("profiles", "my ladder", "renditions", 0, "id"), 26),
        (("profiles", "my ladder", "renditions", 1, "id"), 28),
        (("profiles", "my ladder", "renditions", 1, "audio", "list", 1, "y"), 29),
        (("profiles", "my ladder", "renditions", 1, "last"), 33),
    ],
)
def test_a_key_is_found_in_its_line(path: tuple[str | int, ...], line: int) -> None:
    assert find_positions(_TEXT)[path] == line


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _paths(child, (*path, key))


def test_every_key_of_the_text_is_found_and_no_other() -> None:
    assert set(find_positions(_TEXT)) == set(_paths(tomllib.loads(_TEXT)))


def test_windows_line_ends_count_once() -> None:
    assert find_positions("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


def test_a_key_that_is_not_there_has_the_line_of_the_table_around_it() -> None:
    positions = find_positions("\n[server]\nx = 1\n")
    assert nearest_line(positions, ("server", "missing")) == 2
    assert nearest_line(positions, ("other", "missing")) is None


_KEYS = st.text(min_size=1, max_size=6)
_VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_whatever_a_writer_writes_is_followed(document: dict[str, Any]) -> None:
    text = tomlkit.dumps(document)
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # tomlkit does not escape every control character
    assert set(find_positions(text)) == set(_paths(read))
