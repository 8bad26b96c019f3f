"""deploy/system-packages.sh, run by dash and by sh where everything that it could find or start is a stand-in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "system-packages.sh"
SHELLS = [shell for shell in ("dash", "bash", "sh") if shutil.which(shell)]

pytestmark = pytest.mark.process


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A folder of stand-ins that is the whole PATH."""

    folder: Path
    shell: str

    def has(self, name: str, script: str = "exit 0") -> None:
        """Puts a program there."""
        program = self.folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def lacks(self, name: str) -> None:
        """Takes a program away."""
        (self.folder / name).unlink()

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the script."""
        shell = shutil.which(self.shell)
        assert shell is not None
        return subprocess.run(
            [shell, SCRIPT, *arguments],
            env={"PATH": str(self.folder), **variables},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def installed(self) -> list[str]:
        """Gives what apt-get was asked for, call by call."""
        log = self.folder / "apt.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    """A Debian machine with everything, seen by an ordinary user."""
    made = Machine(folder=tmp_path, shell=request.param)
    made.has("python3", f'exec {sys.executable} "$@"')
    for name in ("gcc", "node", "npm", "Xvfb", "openbox", "pulseaudio", "parec", "chromium"):
        made.has(name)
    made.has("apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/apt.log')
    made.has("id", "echo 1000")
    return made


@pytest.mark.parametrize("needed_for", ["run", "test"])
def test_a_machine_with_everything_is_left_alone(machine: Machine, needed_for: str) -> None:
    ran = machine.run(needed_for)
    assert (ran.returncode, ran.stdout, ran.stderr, machine.installed()) == (0, "", "", [])


def test_what_is_missing_is_named_to_who_cannot_install_it(machine: Machine) -> None:
    machine.lacks("gcc")
    machine.lacks("npm")
    ran = machine.run("test")
    assert ran.returncode == 1
    assert "apt-get install gcc libc6-dev npm\n" in ran.stderr
    assert machine.installed() == []


def test_root_installs_what_is_missing_without_being_asked_questions(machine: Machine) -> None:
    machine.has("id", "echo 0")
    machine.lacks("node")
    ran = machine.run("test")
    assert (ran.returncode, ran.stdout) == (0, "Installing: nodejs\n")
    assert machine.installed() == [
        " update -qq",
        "noninteractive install -qq -y --no-install-recommends nodejs",
    ]


def test_root_without_apt_is_told(machine: Machine) -> None:
    machine.has("id", "echo 0")
    machine.lacks("apt-get")
    machine.lacks("node")
    assert machine.run("test").returncode == 1


def test_an_install_that_fails_ends_in_failure(machine: Machine) -> None:
    machine.has("id", "echo 0")
    machine.has("apt-get", "exit 100")
    machine.lacks("node")
    assert machine.run("test").returncode == 100


def test_root_gets_what_recordings_need(machine: Machine) -> None:
    machine.has("id", "echo 0")
    machine.lacks("Xvfb")
    machine.lacks("chromium")
    ran = machine.run("run")
    assert ran.returncode == 0
    assert machine.installed()[-1].endswith("--no-install-recommends xvfb chromium fonts-dejavu-core")


def test_everybody_else_is_told_and_goes_on_without_recordings(machine: Machine) -> None:
    machine.lacks("parec")
    ran = machine.run("run")
    assert ran.returncode == 0
    assert "Recordings cannot be made without: pulseaudio-utils." in ran.stderr
    assert machine.installed() == []


def test_the_product_itself_needs_neither_compiler_nor_node(machine: Machine) -> None:
    for name in ("gcc", "node", "npm"):
        machine.lacks(name)
    assert machine.run("run").returncode == 0


def test_a_compiler_without_headers_is_not_enough(machine: Machine) -> None:
    machine.has("gcc", "exit 1")
    ran = machine.run("test")
    assert "apt-get install libc6-dev\n" in ran.stderr


def test_no_python_at_all_asks_for_the_environment_module_too(machine: Machine) -> None:
    machine.lacks("python3")
    assert "apt-get install python3 python3-venv\n" in machine.run("run").stderr


def test_a_python_without_environments_is_not_enough(machine: Machine) -> None:
    machine.has("python3", 'case "$2" in *ensurepip*) exit 1 ;; esac')
    assert "apt-get install python3-venv\n" in machine.run("run").stderr


def test_an_old_python_is_refused_with_what_to_try(machine: Machine) -> None:
    machine.has("python3", 'case "$1" in --version) echo Python 3.9.2 ;; *) exit 1 ;; esac')
    ran = machine.run("run")
    assert ran.returncode == 1
    assert "Cannot use Python 3.9.2: Python 3.11 or later is needed." in ran.stderr


def test_another_python_can_be_named(machine: Machine) -> None:
    machine.lacks("python3")
    assert machine.run("run", PYTHON=sys.executable).returncode == 0


def test_an_unknown_purpose_is_refused(machine: Machine) -> None:
    assert machine.run("fly").returncode == 2
