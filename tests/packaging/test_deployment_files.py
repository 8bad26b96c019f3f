"""deploy/ and the Dockerfile, checked without containers or an init system: what they name exists and fits together."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.__main__ import main as agent_main
from balancer.__main__ import main as balancer_main
from balancer.settings import BalancerSettings
from gpu_balancer.cli.app import app
from gpu_balancer.runtime.settings_file import load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
UNITS = sorted((REPOSITORY / "deploy" / "systemd").glob("*.service"))
COMPOSE = REPOSITORY / "deploy" / "compose" / "compose.yaml"
HOME_OF_PROGRAMS = "/opt/gpu-balancer/bin/"


def instructions() -> list[tuple[str, str]]:
    """Gives the Dockerfile's instructions with their arguments."""
    text = (REPOSITORY / "Dockerfile").read_text("utf-8")
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Gives the instructions of each stage with those of the stage that it begins from. The last one is "default"."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, rest in instructions():
        if instruction == "FROM":
            base, _, alias = rest.partition(" AS ")
            name = alias or "default"
            found[name] = list(found.get(base, ()))
        if name:
            found[name].append((instruction, rest))
    return found


def last(stage: str, instruction: str) -> str:
    """Gives the arguments of a stage's last instruction of a kind; the last one counts."""
    return [rest for name, rest in stages()[stage] if name == instruction][-1]


# ------------------------------------------------------------------------------------------------------- Dockerfile


def test_the_image_has_two_targets_and_cpu_is_the_default() -> None:
    assert {"cpu", "nvidia"} <= stages().keys()
    without_base = [one for one in stages()["default"] if one[0] != "FROM"]
    assert without_base == [one for one in stages()["cpu"] if one[0] != "FROM"]


@pytest.mark.parametrize("stage", ["cpu", "nvidia", "default"])
def test_the_daemon_is_not_root_in_the_image(stage: str) -> None:
    user = last(stage, "USER")
    assert user not in {"root", "0"}
    created = " ".join(rest for name, rest in stages()[stage] if name == "RUN")
    assert re.search(rf"useradd .*--uid \d{{5}} .*\b{user}\b", created)


def test_the_nvidia_image_asks_for_no_more_of_the_driver_than_it_uses() -> None:
    told = [rest for name, rest in stages()["nvidia"] if name == "ENV" and "NVIDIA_DRIVER_CAPABILITIES" in rest]
    (capabilities,) = re.findall(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", told[0])
    assert set(capabilities.split(",")) == {"compute", "utility", "video"}
    assert not [rest for name, rest in stages()["cpu"] if "NVIDIA" in rest]


def test_what_the_image_copies_exists_and_is_not_kept_from_the_build() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text("utf-8").split()
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            *sources, _ = rest.split()
            for source in sources:
                assert (REPOSITORY / source).exists(), source
                assert source not in ignored


def test_the_image_builds_from_what_it_copies() -> None:
    """Everything that pyproject.toml names for a wheel is there: packages, readme, license."""
    copied = {source for name, rest in stages()["build"] if name == "COPY" for source in rest.split()[:-1]}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert copied >= {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], *wheel["packages"]}
    assert copied >= {"constraints.txt"}


def test_the_entry_point_is_a_program_of_ours_with_options_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    program, *options = json.loads(last("cpu", "ENTRYPOINT"))
    assert program in PROJECT["scripts"]
    assert "--stop-sessions-on-exit" in options
    assert balancer_main([*options, "--check"]) == 0
    capsys.readouterr()


def test_the_health_check_fails_when_the_daemon_does_not_answer(tmp_path: Path) -> None:
    """`version` would not: it tells the client's version in any case."""
    check = last("cpu", "HEALTHCHECK")
    timeout_s = int(re.findall(r"--timeout=(\d+)s", check)[0])
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program in PROJECT["scripts"]
    with pytest.raises(SystemExit) as ended:
        app([*arguments, "--address", f"unix:{tmp_path}/nobody.sock"])
    assert ended.value.code == 4
    # The command is patient for 5 s with a daemon that does not answer; the check must outwait it.
    assert timeout_s > 5


def test_the_command_inside_the_image_finds_its_daemon() -> None:
    (address,) = re.findall(r"GPU_BALANCER_ADDRESS=unix:(\S+)", " ".join(rest for _, rest in stages()["cpu"]))
    _, *options = json.loads(last("cpu", "ENTRYPOINT"))
    state_dir = options[options.index("--state-dir") + 1]
    assert address == f"{state_dir}/balancer.sock"
    assert last("cpu", "VOLUME") == state_dir


# ---------------------------------------------------------------------------------------------------------- compose


def compose() -> dict[str, Any]:
    """Reads the compose file."""
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return loaded


SERVICE_KEYS = {
    "build", "cap_drop", "command", "deploy", "image", "init", "network_mode", "profiles", "read_only", "restart",
    "security_opt", "stop_grace_period", "tmpfs", "ulimits", "volumes",
}  # fmt: skip
"""The keys of the compose specification that are used here, so that a misspelt one is noticed."""


@pytest.mark.parametrize("service", ["gpu-balancer", "gpu-balancer-nvidia"])
def test_the_compose_services_build_targets_that_exist(service: str) -> None:
    told = compose()["services"][service]
    assert told.keys() <= SERVICE_KEYS
    assert told["build"]["target"] in stages()
    assert (COMPOSE.parent / told["build"]["context"]).resolve() == REPOSITORY
    assert told["init"] is True
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]


def test_the_compose_services_mount_what_exists_and_what_the_settings_allow() -> None:
    settings = load_settings(COMPOSE.parent / "balancer.toml", BalancerSettings)
    told = compose()
    for service in told["services"].values():
        targets = {}
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            targets[target] = mode == ["ro"]
            assert source in told["volumes"] or source.startswith("./")
            if target.endswith(".toml"):
                assert (COMPOSE.parent / source).is_file()
                assert target in service["command"]
        assert all(targets[root] for root in settings.inputs.roots), "inputs are mounted read-only"
        assert not any(targets[root] for root in settings.outputs.roots), "outputs can be written"
        assert targets[last("cpu", "VOLUME")] is False


def test_compose_waits_longer_than_sessions_get_to_complete_their_outputs() -> None:
    settings = load_settings(COMPOSE.parent / "balancer.toml", BalancerSettings)
    for service in compose()["services"].values():
        grace_s = int(service["stop_grace_period"].removesuffix("s"))
        assert grace_s > settings.sessions.stop_timeout_s + settings.server.shutdown_grace_s


def test_only_the_nvidia_service_reserves_gpus() -> None:
    services = compose()["services"]
    (device,) = services["gpu-balancer-nvidia"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert set(device["capabilities"]) == {"gpu", "compute", "utility", "video"}
    assert "deploy" not in services["gpu-balancer"]


# ---------------------------------------------------------------------------------------------------------- systemd


def unit(path: Path) -> configparser.ConfigParser:
    """Reads a unit; keys that stand twice would be refused, none of ours needs that."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text("utf-8"))
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_programs_of_ours_with_options_that_they_have(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *options = unit(path)["Service"]["ExecStart"].split()
    assert program.startswith(HOME_OF_PROGRAMS)
    name = program.removeprefix(HOME_OF_PROGRAMS)
    assert name in PROJECT["scripts"]
    main = {"gpu-balancerd": balancer_main, "gpu-balancer-agent": agent_main}[name]
    known = [option for option in options if option.startswith("--")]
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert [option for option in known if option not in shown] == []


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_leave_sessions_alone_and_have_no_privileges(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["KillMode"] == "process", "sessions outlive daemons"
    assert service["User"] == "gpu-balancer"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["StateDirectoryMode"] == "0700"
    assert "PrivateDevices" not in service, "GPUs are devices"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_take_nothing_from_sessions_when_they_are_restarted_or_memory_is_short(path: Path) -> None:
    told = unit(path)
    service = told["Service"]
    assert service["OOMPolicy"] == "continue", "one ffmpeg too many must not end the others"
    assert service["TasksMax"] == "infinity"
    assert "PrivateTmp" not in service, "sockets of displays are in /tmp, and the next daemon needs them"
    assert "/tmp" in service["ReadWritePaths"].split()
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert service["Environment"] == f"XDG_RUNTIME_DIR=/run/{service['RuntimeDirectory']}"
    # An agent that ended in order is missed; a balancer that was told to end is not.
    assert service["Restart"] == ("always" if "agent" in path.name else "on-failure")
    assert told["Unit"]["StartLimitIntervalSec"] == "0", "it is never given up"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
@pytest.mark.process
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here to ask")
def test_systemd_takes_the_units(path: Path, tmp_path: Path) -> None:
    """The program is another one, because ours is installed nowhere; everything else is as it is."""
    text = path.read_text("utf-8").replace("ExecStart=" + HOME_OF_PROGRAMS, "ExecStart=/bin/echo " + HOME_OF_PROGRAMS)
    copy = tmp_path / path.name.replace("@.", "@cpu-0.")
    copy.write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in checked.stderr.splitlines() if copy.name in line]
    assert (checked.returncode, ours) == (0, [])
