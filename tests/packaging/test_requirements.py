"""pyproject.toml asks for what is imported, in versions that can work, and constraints.txt says which were tested."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
OURS = {"gpu_balancer", "balancer", "agents"}
CLIENT_ROOMS = ("gpu_balancer/cli", "gpu_balancer/client", "gpu_balancer/v1", "gpu_balancer/__init__.py")
COMES_WITH = {"pydantic-core": "pydantic"}
"""Distributions that another one pins to the patch: asking for both would only make conflicts."""
READ_BY = {"zoneinfo": "tzdata"}
"""Distributions of data, which a module of Python reads where the system has none."""
EXTRA_OF_MODULE = {"opentelemetry.exporter.otlp": "otlp"}


def requirements(*groups: str) -> dict[str, Requirement]:
    """Gives what is asked for by name: "" is what clients need, others are extras."""
    texts = [
        text
        for group in groups
        for text in (PROJECT["dependencies"] if not group else PROJECT["optional-dependencies"][group])
    ]
    return {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, texts)}


def constraints() -> dict[str, Version]:
    """Gives the tested versions by name."""
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in pins}


def lower_bound(requirement: Requirement) -> Version | None:
    """Gives the lowest version that is asked for."""
    bounds = [Version(one.version) for one in requirement.specifier if one.operator in {">=", "==", "~="}]
    return max(bounds, default=None)


@cache
def imported_distributions(*roots: str) -> dict[str, str]:
    """Gives the distributions that modules below some folders import, each with one place where."""
    owners = importlib.metadata.packages_distributions()
    found: dict[str, str] = {}
    for path in sorted(path for root in roots for path in _modules(REPOSITORY / root)):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for module in _imported(node):
                top = module.split(".")[0]
                if top in READ_BY:
                    found.setdefault(READ_BY[top], str(path.relative_to(REPOSITORY)))
                if top in OURS or top in sys.stdlib_module_names:
                    continue
                for name in _owners_of(module, owners):
                    found.setdefault(name, str(path.relative_to(REPOSITORY)))
    return found


def _modules(root: Path) -> list[Path]:
    return [root] if root.is_file() else list(root.rglob("*.py"))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _owners_of(module: str, owners: dict[str, list[str]]) -> set[str]:
    """Gives who has a module; of a namespace that several share, whoever has the file."""
    named = {canonicalize_name(name) for name in owners.get(module.split(".")[0], [])}
    if len(named) <= 1:
        return named
    places = {module.replace(".", "/"), module.rpartition(".")[0].replace(".", "/")}
    files = {place + ending for place in places for ending in (".py", "/__init__.py", ".pyi")}
    return {name for name in named if files & _files_of(name)}


@cache
def _files_of(name: str) -> frozenset[str]:
    return frozenset(str(file) for file in importlib.metadata.distribution(name).files or ())


def test_everything_that_the_daemons_import_is_asked_for() -> None:
    asked = requirements("", "server", "recording", "s3", "otlp", "plot").keys()
    used = imported_distributions(*OURS)
    missing = {name: where for name, where in used.items() if COMES_WITH.get(name, name) not in asked}
    missing.pop("opentelemetry-api", None)  # what opentelemetry-sdk is an implementation of, of the same version
    assert missing == {}


def test_everything_that_clients_import_is_asked_for_without_an_extra() -> None:
    used = imported_distributions(*CLIENT_ROOMS)
    assert {name: where for name, where in used.items() if name not in requirements("")} == {}


def test_nothing_is_asked_for_that_is_not_imported() -> None:
    used = imported_distributions(*OURS)
    used_by = {COMES_WITH.get(name, name) for name in used}
    assert requirements("", "server", "recording", "s3", "otlp", "plot").keys() - used_by == set()


@pytest.mark.parametrize("group", ["", *PROJECT["optional-dependencies"]])
def test_tested_versions_are_within_what_is_asked_for(group: str) -> None:
    tested = constraints()
    wrong = {
        name: str(tested.get(name))
        for name, requirement in requirements(group).items()
        if name not in tested or not requirement.specifier.contains(tested[name], prereleases=True)
    }
    assert wrong == {}


def test_every_requirement_has_a_lower_bound_but_type_stubs() -> None:
    asked = requirements("", *PROJECT["optional-dependencies"])
    unbound = {name for name, requirement in asked.items() if lower_bound(requirement) is None}
    assert {name for name in unbound if not name.startswith("types-")} == set()


def test_no_requirement_of_the_product_has_an_upper_bound() -> None:
    """A bound that nobody tested keeps users from security fixes; constraints.txt says what was tested."""
    asked = requirements("", "server", "recording", "s3", "otlp", "plot").values()
    assert [str(one) for one in asked if any(part.operator in {"<", "<=", "=="} for part in one.specifier)] == []


def test_grpc_and_protobuf_are_not_older_than_what_generated_the_code() -> None:
    """Generated code refuses to load beside older libraries."""
    folder = REPOSITORY / "gpu_balancer" / "v1"
    services = "".join(path.read_text("utf-8") for path in folder.glob("*_pb2_grpc.py"))
    messages = "".join(path.read_text("utf-8") for path in folder.glob("*_pb2.py"))
    (grpc_version,) = set(re.findall(r"GRPC_GENERATED_VERSION = '([\d.]+)'", services))
    (protobuf_version,) = set(re.findall(r"# Protobuf Python Version: ([\d.]+)", messages))
    asked = requirements("", "server")
    for name in ("grpcio", "grpcio-status", "grpcio-health-checking", "grpcio-reflection"):
        bound = lower_bound(asked[name])
        assert bound is not None
        assert bound >= Version(grpc_version), name
    bound = lower_bound(asked["protobuf"])
    assert bound is not None
    assert bound >= Version(protobuf_version)


def test_everything_that_gets_installed_is_pinned() -> None:
    """What is left open changes under the tests from one day to the next."""
    pinned = constraints()
    waiting = list(requirements("", *PROJECT["optional-dependencies"]).values())
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        applies = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
        )
        if not applies or name in seen:
            continue
        seen.add(name)
        waiting += [
            one
            for text in importlib.metadata.distribution(name).requires or ()
            if (one := Requirement(text)).marker is None
            or any(one.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras))
        ]
    assert seen - pinned.keys() == set()
    assert pinned.keys() - seen == set(), "pinned, but nothing asks for it"
