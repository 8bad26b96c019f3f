"""Builds what is shipped, once, and installs it where nothing of the source tree can help it.

Nothing is downloaded: a fresh environment gets the new wheel, and links to those distributions of the tests' own
environment that the wheel says it needs, and to no other. What is not declared is not there.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
_PLAIN = ("--quiet", "--no-deps", "--no-index", "--no-compile")  # most of what is installed no test of them loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What `python -m build` made."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An environment with the wheel in it, and a folder to run things from."""

    bin: Path
    folder: Path

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment from another folder, without what tests have in theirs."""
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8", "TERM": "dumb"}
        return subprocess.run(
            [self.bin / argv[0], *argv[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, and the wheel built from what is in the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY],
        check=True,
        capture_output=True,
        timeout=100,
    )
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Built(wheel=wheel, sdist=sdist)


@pytest.fixture(scope="session")
def client_environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """What `pip install gpu-balancer` gives."""
    return _install(built.wheel, tmp_path_factory.mktemp("client"), extras=())


@pytest.fixture(scope="session")
def server_environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """What `pip install 'gpu-balancer[server]'` gives."""
    return _install(built.wheel, tmp_path_factory.mktemp("server"), extras=("server",))


@pytest.fixture(scope="session")
def recording_environment(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """What `pip install 'gpu-balancer[server,recording,s3]'` gives."""
    return _install(built.wheel, tmp_path_factory.mktemp("recording"), extras=("server", "recording", "s3"))


def _install(wheel: Path, folder: Path, *, extras: tuple[str, ...]) -> Installed:
    place = folder / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *_PLAIN, wheel],
        check=True,
        capture_output=True,
        timeout=100,
    )
    packages = Path(
        sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place), "installed_base": str(place)})
    )
    (metadata,) = importlib.metadata.distributions(name="gpu-balancer", path=[str(packages)])
    for name in sorted(_needed(metadata, extras)):
        _link(importlib.metadata.distribution(name), packages)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return Installed(bin=place / "bin", folder=elsewhere)


def _needed(metadata: importlib.metadata.Distribution, extras: tuple[str, ...]) -> set[str]:
    """Follows what a distribution says it needs, to the end."""
    found: set[str] = set()
    waiting = [(metadata, extras)]
    while waiting:
        distribution, chosen = waiting.pop()
        for text in distribution.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in (*chosen, "")):
                continue
            name = canonicalize_name(requirement.name)
            if name not in found:
                found.add(name)
                waiting.append((importlib.metadata.distribution(name), tuple(requirement.extras)))
    return found


def _link(distribution: importlib.metadata.Distribution, packages: Path) -> None:
    """Links every file: packages of one namespace, google.* for instance, come from several distributions."""
    for file in distribution.files or ():
        if ".." in file.parts or file.suffix == ".pyc" or re.match(r"__editable__|_editable", file.name):
            continue
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(distribution.locate_file(file))
        _link_compiled(Path(str(distribution.locate_file(file))), target)


def _link_compiled(source: Path, target: Path) -> None:
    """Links what is compiled of a module's folder too: else every environment would compile all of it anew.

    Python loads nothing from there but for modules that it finds beside it.
    """
    compiled, link = source.parent / "__pycache__", target.parent / "__pycache__"
    if source.suffix == ".py" and compiled.is_dir() and not link.exists():
        link.symlink_to(compiled)
