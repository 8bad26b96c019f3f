"""The command as a whole: help, versions, exit codes, completion, the commands about the daemon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from gpu_balancer import Reason, RequestFailure, __version__
from gpu_balancer.cli.exit_codes import MEANINGS, ExitCode, exit_code_of
from gpu_balancer.cli.session_progress import SessionProgress
from gpu_balancer.cli.top_actions import picture
from gpu_balancer.cli.words import clock, count, size
from gpu_balancer.v1 import balancer_service_pb2, device_pb2, session_pb2

if TYPE_CHECKING:
    from conftest import Command

    from fakes.balancer_server import FakeBalancer

ROOT = Path(__file__).parents[2]


def command_line(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpu_balancer.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=60,
    )


def test_the_exit_codes_are_in_the_help_and_in_the_docs(run: Command) -> None:
    told = run("--help").out
    documented = (ROOT / "docs/cli.md").read_text()
    assert set(MEANINGS) == set(ExitCode)
    for code, words in MEANINGS.items():
        assert re.search(rf"^ +{code.value} +{re.escape(words)}$", told, re.MULTILINE)
        assert f"| {code.value} | {words}" in documented


def test_every_command_is_in_the_docs(run: Command) -> None:
    documented = (ROOT / "docs/cli.md").read_text()
    listed = re.findall(r"^  ([a-z-]+) {2,}[A-Z]", run("--help").out.split("Commands:")[1], re.MULTILINE)
    assert {"transcode", "devices", "top", "version"} <= set(listed)
    for name in listed:
        assert f"gpu-balancer {name}" in documented


def test_every_option_of_transcode_is_in_the_docs(run: Command) -> None:
    documented = (ROOT / "docs/cli.md").read_text()
    options = set(re.findall(r"(--[a-z-]+)", run("transcode", "--help").out)) - {"--help"}
    assert len(options) > 30
    assert {option for option in options if f"`{option}" not in documented} == set()


@pytest.mark.process
def test_help_loads_nothing_heavy() -> None:
    """The wall time of --help is bounded by what it loads; this is the part that a busy machine does not change."""
    ran = command_line("--help", PYTHONPROFILEIMPORTTIME="1")
    assert ran.returncode == 0
    loaded = set(re.findall(r"\| +([a-zA-Z0-9_.]+)$", ran.stderr, re.MULTILINE))
    assert "typer" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("grpc", "google", "rich", "asyncio", "pydantic")}


@pytest.mark.process
def test_completion_can_be_shown_for_every_shell() -> None:
    for shell in ("bash", "zsh", "fish"):
        ran = command_line("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
        assert ran.returncode == 0
        assert "gpu-balancer" in ran.stdout


def complete(line: str, word_number: int, address: str) -> list[str]:
    ran = command_line(
        _GPU_BALANCER_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(word_number),
        GPU_BALANCER_ADDRESS=address,
    )
    assert ran.stderr == ""
    return ran.stdout.split()


@pytest.mark.process
def test_names_are_completed_from_the_daemon(fake: FakeBalancer) -> None:
    fake.do(lambda: [fake.add_session(name) for name in ("abc", "abd", "xyz")])
    fake.do(lambda: fake.add_device(device_pb2.Device(name="devices/cpu-0")))
    assert complete("gpu-balancer watch ab", 2, fake.address) == ["abd", "abc"]
    assert complete("gpu-balancer stop sessions/x", 2, fake.address) == ["sessions/xyz"]
    assert complete("gpu-balancer devices cordon c", 3, fake.address) == ["cpu-0"]
    assert complete("gpu-balancer trans", 1, fake.address) == ["transcode"]


@pytest.mark.process
def test_without_a_daemon_completion_says_nothing(tmp_path: Path) -> None:
    assert complete("gpu-balancer watch ab", 2, f"unix:{tmp_path}/no.sock") == []
    assert complete("gpu-balancer watch ab", 2, "nonsense") == []


@pytest.mark.process
def test_a_reader_that_goes_away_is_no_traceback(fake: FakeBalancer) -> None:
    fake.do(lambda: [fake.add_session(f"s{number:04}", labels={"a": "b" * 255}) for number in range(1500)])
    fake.do(lambda: setattr(fake, "page_size", 1000))
    script = f"{sys.executable} -m gpu_balancer.cli sessions -n 0 | head -1; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "GPU_BALANCER_ADDRESS": fake.address}
    ran = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT, env=environment, timeout=60
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[-1] == "141"


def test_a_missing_daemon_is_exit_code_4_with_what_to_try(run: Command, tmp_path: Path) -> None:
    for words in (("--address", f"{tmp_path}/no.sock", "devices"), ("devices", "--address", f"{tmp_path}/no.sock")):
        ran = run(*words)
        assert (ran.code, ran.out) == (4, "")
        assert f"Error: Cannot reach the daemon: there is no socket {tmp_path}/no.sock. Try to start" in ran.err


def test_a_wrong_address_is_wrong_usage(run: Command) -> None:
    ran = run("devices", "--address", "nonsense")
    assert ran.code == 2
    assert "Try unix:/path or host:port." in ran.err


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.INVALID_REQUEST, ExitCode.REFUSED),
        (Reason.NO_CAPABLE_DEVICE, ExitCode.REFUSED),
        (Reason.NO_CAPACITY, ExitCode.NO_ROOM),
        (Reason.NO_DEVICE_READY, ExitCode.NO_ROOM),
        (Reason.QUEUE_FULL, ExitCode.NO_ROOM),
        (Reason.AGENT_UNREACHABLE, ExitCode.UNREACHABLE),
        (Reason.BALANCER_UNREACHABLE, ExitCode.UNREACHABLE),
        (Reason.INTERNAL, ExitCode.INTERNAL),
    ],
)
def test_each_refusal_has_its_exit_code(reason: Reason, code: ExitCode) -> None:
    assert exit_code_of(RequestFailure(reason=reason, message="Cannot.")) is code


def test_versions_of_both_sides_are_shown(fake: FakeBalancer, run: Command, tmp_path: Path) -> None:
    out = run("version").out
    assert out.splitlines()[0] == f"gpu-balancer {__version__}"
    assert "process 4711" in out
    assert run("--version").out == f"gpu-balancer {__version__}\n"
    document = run("version", "--json").document
    assert (document["clientVersion"], document["balancer"]["processId"]) == (__version__, 4711)
    assert "wait" not in out
    fake.queue.CopyFrom(
        balancer_service_pb2.QueueSummary(
            live_count=1, batch_count=2, max_sessions=100, longest_wait=Duration(seconds=83)
        )
    )
    assert "Sessions that wait for a device: 3 of at most 100, the first of them for 1:23" in run("version").out
    alone = run("version", "--address", f"{tmp_path}/no.sock")
    assert (alone.code, alone.out) == (0, f"gpu-balancer {__version__}\n")
    assert "there is no socket" in alone.err


def test_a_reload_tells_what_changed(run: Command) -> None:
    ran = run("reload")
    assert ran.out == "Settings 4 are in force.\n  The weight of cpu-0 is 40 instead of 100.\n"
    assert "restart of the daemon: server.listen" in ran.err
    assert run("reload", "--json").document["settingsVersion"] == "4"


def test_a_refused_reload_is_exit_code_3(fake: FakeBalancer, run: Command) -> None:
    fake.refuse("ReloadSettings", RequestFailure(reason=Reason.SETTINGS_REFUSED, message="Cannot use line 3."))
    assert run("reload").code == 3


def test_a_shutdown_tells_what_runs_on(fake: FakeBalancer, run: Command) -> None:
    fake.do(lambda: fake.add_session("a"))
    assert "run on with their agents: a" in run("shutdown").out
    assert "Sessions that were stopped: 1" in run("shutdown", "--stop-sessions").out
    assert run("shutdown", "--json").document["runningSessions"] == ["sessions/a"]


def test_top_in_a_pipe_is_one_picture(fake: FakeBalancer, run: Command) -> None:
    fake.do(lambda: fake.add_device(device_pb2.Device(name="devices/cpu-0")))
    fake.do(lambda: fake.add_session("live"))
    fake.do(lambda: fake.add_session("ended", state=session_pb2.SESSION_STATE_FAILED))
    assert [line.split("\t")[0] for line in run("top").out.splitlines()] == ["cpu-0", "", "live"]
    document = run("top", "--json").document
    assert [session["name"] for session in document["sessions"]] == ["sessions/live"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 10), (40, 8)])
def test_the_picture_of_top_fits_its_terminal(width: int, height: int) -> None:
    devices = [device_pb2.Device(name=f"devices/cpu-{number}") for number in range(3)]
    sessions = [session_pb2.Session(name=f"sessions/{number:016}") for number in range(50)]
    console = Console(width=width, height=height, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(picture(devices, sessions, "Cannot reach the daemon: " + "x" * 200, width, height))
    lines = console.export_text().splitlines()
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    assert "more" in lines[-1]


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> object:
        raise AssertionError("progress has no need of the date")

    def monotonic_s(self) -> float:
        return self.now_s


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    from gpu_balancer.cli.screen import Screen

    hand_clock = HandClock()
    session = session_pb2.Session(name="sessions/a", state=session_pb2.SESSION_STATE_RUNNING, device="devices/cpu-0")
    with SessionProgress(Screen(json=False), clock=hand_clock) as progress:  # type: ignore[arg-type]
        for second in range(25):
            hand_clock.now_s = second
            session.progress.CopyFrom(
                session_pb2.Progress(speed=2, out_time=Duration(seconds=second), total_time=Duration(seconds=100))
            )
            if second == 3:
                session.conditions.add(type="STALLED", message="No frame for 10 s.")
            progress.show(session)
    assert capsys.readouterr().err.splitlines() == [
        "a: running on cpu-0, 0% 2x",
        "STALLED: No frame for 10 s.",
        "a: running on cpu-0, 10% 2x",
        "a: running on cpu-0, 20% 2x",
    ]


def test_figures_are_short_and_have_units() -> None:
    assert [count(number) for number in (0, 999, 1000, 27_648_000, 999_960, 1.23e9)] == [
        "0", "999", "1.0k", "27.6M", "1.0M", "1.2G",
    ]  # fmt: skip
    assert [size(number) for number in (0, 999, 1000, 2_345_678)] == ["0 B", "999 B", "1.0 kB", "2.3 MB"]
    length = Duration()
    length.FromTimedelta(timedelta(hours=1, minutes=2, seconds=3))
    assert (clock(length), clock(Duration(seconds=83))) == ("1:02:03", "1:23")
