"""What is shipped is complete, and works where the source tree is not."""

from __future__ import annotations

import json
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from gpu_balancer import __version__

if TYPE_CHECKING:
    from conftest import Built, Installed  # type: ignore[attr-defined]

pytestmark = pytest.mark.process

DATA = {
    "gpu_balancer/py.typed",
    "gpu_balancer/hardware/data/nvenc_matrix.csv",
    "gpu_balancer/hardware/data/nvenc_fps.csv",
    "agents/sessions/shim.sh",
    "gpu_balancer/v1/session_service_pb2.pyi",
}
NEEDED_TO_TEST = {
    "Makefile",
    "constraints.txt",
    "buf.yaml",
    "package.json",
    "package-lock.json",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "config/balancer.toml",
    "config/balancer.schema.json",
    "proto/baseline.binpb",
    "proto/gpu_balancer/v1/session.proto",
    "tests/conftest.py",
    "tests/fakes/nvml/fake_nvml.c",
    "deploy/system-packages.sh",
    "demo/__main__.py",
    "docs/settings.md",
    ".ci/run",
}


def test_the_wheel_has_its_data_and_nothing_else_than_the_three_packages(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
    assert names >= DATA
    metadata = f"gpu_balancer-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"gpu_balancer", "balancer", "agents", metadata}
    assert f"{metadata}/licenses/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_source_archive_has_what_make_test_needs(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= NEEDED_TO_TEST
    assert not [name for name in names if name.startswith((".git/", ".venv", "node_modules", "demo-output"))]


def test_the_command_explains_itself(client_environment: Installed) -> None:
    shown = client_environment.run("gpu-balancer", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "transcode" in shown.stdout
    assert shown.stderr == ""


def test_clients_need_nothing_that_only_daemons_have(client_environment: Installed) -> None:
    """In the client's environment there is no structlog, starlette or OpenTelemetry that could be loaded by chance."""
    program = "import gpu_balancer, gpu_balancer.v1.session_service_pb2_grpc; gpu_balancer.Client('unix:/x').close()"
    loaded = client_environment.run("python", "-W", "error", "-c", program)
    assert loaded.returncode == 0, loaded.stderr
    for name in ("structlog", "starlette", "opentelemetry", "psutil", "pynvml"):
        absent = client_environment.run("python", "-c", f"import {name}")
        assert "ModuleNotFoundError" in absent.stderr, name


def test_a_client_alone_is_told_that_no_daemon_answers(client_environment: Installed) -> None:
    asked = client_environment.run("gpu-balancer", "--address", "unix:/nowhere/balancer.sock", "devices")
    assert asked.returncode == 4
    assert "Cannot" in asked.stderr
    assert "Traceback" not in asked.stderr


@pytest.mark.parametrize("program", ["gpu-balancerd", "gpu-balancer-agent"])
def test_daemons_tell_their_version(server_environment: Installed, program: str) -> None:
    told = server_environment.run(program, "--version")
    assert (told.returncode, told.stdout.split()) == (0, [program, __version__]), told.stderr


def test_the_agent_lists_devices(server_environment: Installed) -> None:
    listed = server_environment.run("gpu-balancer-agent", "--list-devices")
    assert listed.returncode == 0, listed.stderr
    assert isinstance(json.loads(listed.stdout), list)


def test_the_daemon_checks_the_settings_that_ship(server_environment: Installed, built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        (name,) = (name for name in archive.getnames() if name.endswith("config/balancer.toml"))
        member = archive.extractfile(name)
        assert member is not None
        (server_environment.folder / "balancer.toml").write_bytes(member.read())
    checked = server_environment.run("gpu-balancerd", "--config", "balancer.toml", "--check")
    assert checked.returncode == 0, checked.stderr


def test_every_module_of_the_daemons_loads_with_what_is_declared(recording_environment: Installed) -> None:
    program = (
        "import importlib, pkgutil\n"
        "for root in ('gpu_balancer', 'balancer', 'agents'):\n"
        "    package = importlib.import_module(root)\n"
        "    for module in pkgutil.walk_packages(package.__path__, root + '.'):\n"
        "        importlib.import_module(module.name)\n"
    )
    loaded = recording_environment.run("python", "-W", "error", "-c", program)
    assert loaded.returncode == 0, loaded.stderr


def test_an_agent_starts_without_what_only_recordings_need(server_environment: Installed) -> None:
    program = "import agents.daemon, sys; assert not {'playwright', 'xcffib', 'obstore'} & sys.modules.keys()"
    loaded = server_environment.run("python", "-W", "error", "-c", program)
    assert loaded.returncode == 0, loaded.stderr


def test_the_shipped_policies_are_found_by_their_entry_points(server_environment: Installed) -> None:
    program = (
        "from importlib.metadata import entry_points\n"
        "print(*sorted(one.load()().name for one in entry_points(group='gpu_balancer.policies')))"
    )
    names = "adaptive best_fit dominant_resource first_fit least_weighted_load livepeer round_robin session_count"
    assert server_environment.run("python", "-c", program).stdout.split() == [*names.split(), "utilization", "wowza"]
