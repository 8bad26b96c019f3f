"""Modules and functions stay small enough to be read, and say what they are for."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

from house_sources import nodes_of, python_files, text_of

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60

LONG_MODULES: dict[str, tuple[int, str]] = {
    "balancer/session_engine.py": (
        560,
        (
            "the only writer of sessions: admissions, events and wishes share one book, one writer and one order; "
            "what stands alone (book, commits, commands, listing, retention, placing, moving) has modules of its own"
        ),
    ),
}
"""Modules that may be longer, each with its bound and its reason."""

LONG_FUNCTIONS: dict[str, str] = {
    "balancer/daemon.py:run": "the whole daemon wired by hand, in the order in which it comes up",
    "gpu_balancer/cli/session_commands.py:register": "one declaration of options per command, and nothing else",
}
"""Functions that may be longer, each with its reason."""

MODULES = python_files("gpu_balancer", "balancer", "agents", "demo", "bench")


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in [*MODULES, *python_files("tests")] if not _begins_with_a_text(path)] == []


def _begins_with_a_text(path: Path) -> bool:
    """Looks at the first words only: all of every test would be much to parse."""
    words = (
        word
        for word in tokenize.generate_tokens(io.StringIO(text_of(path)).readline)
        if word.type not in {tokenize.COMMENT, tokenize.NL}
    )
    first, second = next(words), next(words, None)
    is_alone = second is not None and second.type in {tokenize.NEWLINE, tokenize.ENDMARKER}
    return first.type == tokenize.STRING and is_alone and bool(str(ast.literal_eval(first.string)).strip())


def test_no_module_is_longer_than_can_be_read_in_one_go() -> None:
    lengths = {str(path): len(text_of(path).splitlines()) for path in MODULES}
    too_long = {name: length for name, length in lengths.items() if length > LONGEST_MODULE}
    assert too_long.keys() == LONG_MODULES.keys(), too_long
    assert {name: length for name, length in too_long.items() if length > LONG_MODULES[name][0]} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = {
        f"{path}:{node.name}": length
        for path in MODULES
        for node in nodes_of(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (length := _length(node)) > LONGEST_FUNCTION
    }
    assert too_long.keys() == LONG_FUNCTIONS.keys(), too_long


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Counts lines. The docstring does not count: nobody should be brief there for a test's sake."""
    end = function.end_lineno or function.lineno
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    told = 0 if docstring is None else (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return end - function.lineno + 1 - told
