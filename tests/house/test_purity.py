"""What import-linter cannot see of the laws: names inside modules, and time and chance by other doors.

`make house` holds the floors, the strangers, the purity of whole modules and where generated code may go; the contracts
stand in pyproject.toml.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

from house_sources import nodes_of, python_files, text_of

PURE_ROOMS = ("balancer/domain/", "agents/pipelines/", "agents/health/")
PURE = [path for path in python_files("balancer", "agents") if str(path).startswith(PURE_ROOMS)]
PURE_PATH_NAMES = {"PurePath", "PurePosixPath"}
CLOCK_READERS = {"now", "utcnow", "today"}


def pure_nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Gives all that stands in the pure rooms, each with its module."""
    return ((path, node) for path in PURE for node in nodes_of(path))


def test_pure_rooms_take_only_pure_paths_from_pathlib() -> None:
    for path, node in pure_nodes():
        if isinstance(node, ast.Import):
            assert all(alias.name != "pathlib" for alias in node.names), f"{path}:{node.lineno} imports all of pathlib"
        if isinstance(node, ast.ImportFrom) and node.module == "pathlib":
            names = {alias.name for alias in node.names}
            assert names <= PURE_PATH_NAMES, f"{path}:{node.lineno} imports {names - PURE_PATH_NAMES}"


def test_pure_rooms_open_nothing_and_read_no_clock() -> None:
    for path, node in pure_nodes():
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name):
            assert called.id not in {"open", "print", "input", "exec", "eval"}, (
                f"{path}:{node.lineno} calls {called.id}"
            )
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "datetime":
            assert called.attr not in CLOCK_READERS, f"{path}:{node.lineno} reads the clock"


def test_pure_rooms_have_no_coroutines() -> None:
    """Waiting is I/O."""
    waiting = [
        f"{path}:{node.lineno}" for path, node in pure_nodes() if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]
    assert waiting == []


def test_there_are_pure_rooms_to_look_at() -> None:
    assert {str(path).rsplit("/", 1)[0] + "/" for path in PURE} >= set(PURE_ROOMS)


def test_the_laws_are_contracts() -> None:
    """A law that somebody took out of pyproject.toml would be kept by nobody."""
    contracts = tomllib.loads(text_of(Path("pyproject.toml")))["tool"]["importlinter"]["contracts"]
    by_type: dict[str, list[dict[str, object]]] = {}
    for contract in contracts:
        by_type.setdefault(contract["type"], []).append(contract)
    assert any({"balancer", "agents"} <= set(one["modules"]) for one in by_type["independence"])  # type: ignore[call-overload]
    assert any(
        one["source_modules"] == ["balancer.domain", "agents.pipelines", "agents.health"]
        for one in by_type["forbidden"]
    )
    assert any(one["protected_modules"] == ["gpu_balancer.v1"] for one in by_type["protected"])
    assert by_type["acyclic_siblings"][0]["ancestors"] == ["gpu_balancer", "balancer", "agents"]
    exhaustive = {tuple(one["containers"]) for one in by_type["layers"] if one.get("exhaustive")}  # type: ignore[arg-type]
    assert exhaustive == {("gpu_balancer",), ("balancer",), ("agents",)}
