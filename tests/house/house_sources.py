"""What the house's tests read: the project's own files, as they would be checked in."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("gpu_balancer", "balancer", "agents")
_NOT_OURS = (".venv", "node_modules", "dist", "build", "demo-output")


@cache
def project_files() -> tuple[Path, ...]:
    """Gives every file that is checked in or would be, relative to the repository. In a source archive: all of them."""
    if (REPOSITORY / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        paths = [Path(name) for name in listed.split("\0") if name]
    else:
        paths = [path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*")]
    return tuple(
        path
        for path in sorted(set(paths))
        if (REPOSITORY / path).is_file() and path.parts[0] not in _NOT_OURS and "__pycache__" not in path.parts
    )


def python_files(*roots: str, generated: bool = False) -> list[Path]:
    """Gives the Python modules below top-level folders, relative to the repository."""
    return [
        path
        for path in project_files()
        if path.suffix == ".py" and path.parts[0] in roots and (generated or path.parts[:2] != ("gpu_balancer", "v1"))
    ]


def text_of(path: Path) -> str:
    """Reads a file of the project."""
    return (REPOSITORY / path).read_text("utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """Parses a module of the project."""
    return ast.parse(text_of(path), str(path))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Gives all of a module of the project: several tests go through every module."""
    return tuple(ast.walk(tree_of(path)))


def documents() -> list[Path]:
    """Gives the documents that people read, relative to the repository."""
    return [
        path for path in project_files() if path.suffix == ".md" and (path.parts[0] == "docs" or len(path.parts) == 1)
    ]
