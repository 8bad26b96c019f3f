"""`gpu-balancerd simulate` as it is typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from balancer.__main__ import main
from balancer.simulation import pictures
from balancer.simulation.trace_file import read_trace

DEVICES = str(Path(__file__).resolve().parents[3] / "config/examples/devices.toml")


def simulated(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a simulation that must succeed; gives what it printed."""
    assert main(["simulate", "--devices", DEVICES, *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(simulated(capsys, "--json", *words))


def test_the_json_of_two_policies_is_stable(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--generate", "evening", "--duration", "3h", "--policy", "least_weighted_load", "--policy", "livepeer")
    first = document(capsys, *words)
    assert first == document(capsys, *words)
    assert [one["policy"] for one in first["policies"]] == ["least_weighted_load", "livepeer"]
    assert first["policies"][0].keys() == {
        "policy", "offered", "completed", "placed_at_once", "refused", "refused_by_rule", "expired", "lost", "queued",
        "mean_wait_s", "longest_wait_s", "moves", "preemptions", "dead_first_tries", "session_s", "real_time_session_s",
        "below_real_time_session_s", "lowest_speed", "work_pixels", "work_share_of_pool",
        "load_spread_pixels_per_second", "load_variation", "sustainable_load", "devices",
    }  # fmt: skip
    assert first["rules"] | {"failures": []} == first["rules"]
    assert first["answer"].startswith("The 4 devices (T4, A10, 2 L4)")


def test_a_trace_that_was_kept_gives_the_same_figures_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kept = tmp_path / "friday.jsonl"
    generated = document(capsys, "--generate", "capture", "--duration", "2h", "--write-trace", str(kept))
    again = document(capsys, "--trace", str(kept))
    assert [one["completed"] for one in again["policies"]] == [one["completed"] for one in generated["policies"]]
    assert again["trace"]["sessions"] == generated["trace"]["sessions"] == len(read_trace(kept).sessions)
    doubled = document(capsys, "--trace", str(kept), "--load", "2")
    assert doubled["trace"]["sessions"] == 2 * again["trace"]["sessions"]


def test_people_get_a_table_and_an_answer_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--generate", "mixed", "--load", "0.3", "--duration", "2h", "--sustainable")
    out = simulated(capsys, *words)
    assert re.search(r"^least_weighted_load +\d+ of \d+", out, re.MULTILINE)
    assert "hold this trace under least_weighted_load: all" in out
    assert re.search(r"They sustain \d\.\d\d times its sessions", out)
    crowded = simulated(capsys, "--generate", "mixed", "--load", "2", "--duration", "2h")
    assert "do not hold this trace" in crowded
    assert re.search(r"\(CAPACITY \d+\)", crowded)
    assert "below real time, down to 0." in simulated(capsys, "--generate", "4k", "--load", "2", "--no-admission")


def test_devices_fail_by_name_or_id(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--generate", "mixed", "--load", "0.4", "--fail", "l4 #1@1h+30m", "--fail", "nvidia-0@0")
    found = document(capsys, *words)
    assert found["rules"]["failures"] == [
        {"device": "nvidia-2", "time_s": 3600, "duration_s": 1800},
        {"device": "nvidia-0", "time_s": 0, "duration_s": None},
    ]
    assert found["policies"][0]["dead_first_tries"] <= 6


def test_a_picture_is_drawn_and_the_same_one_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    one, two, raster = tmp_path / "one.svg", tmp_path / "two.svg", tmp_path / "three.PNG"
    words = ("--generate", "mixed", "--duration", "1h", "--policy", "adaptive")
    for path in (one, two, raster):
        simulated(capsys, *words, "--plot", str(path))
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(b"<?xml")
    assert raster.read_bytes().startswith(b"\x89PNG")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a simulation that must be refused; gives why."""
    try:
        status = main(["simulate", *words])
    except SystemExit as exit_:
        status = exit_.code  # type: ignore[assignment]
    assert status == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


GENERATE = ("--devices", DEVICES, "--generate", "mixed")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*GENERATE, "--policy", "nosuch"), "there is none of that name"),
        ((*GENERATE, "--fail", "H100@1h"), "Try one of T4, A10, L4 #1, L4 #2"),
        ((*GENERATE, "--fail", "T4"), "must be DEVICE@TIME"),
        ((*GENERATE, "--fail", "T4@99h"), "Try an earlier time"),
        ((*GENERATE, "--fail", "T4@1h+0"), "must be above 0"),
        ((*GENERATE, "--duration", "soon"), "length of time"),
        ((*GENERATE, "--load", "nan"), "above 0 up to 100"),
        ((*GENERATE, "--headroom", "1.5"), "from 0.05 to 1"),
        ((*GENERATE, "--headroom", "1e-320"), "from 0.05 to 1"),
        ((*GENERATE, "--trace", "x"), "not allowed with"),
        ((*GENERATE, "--duration", "20m", "--warm-up", "20m"), "nothing would be counted"),
        (("--devices", DEVICES, "--trace", "x", "--duration", "1h"), "a trace is as long as it is"),
        (("--devices", DEVICES), "--trace --generate is required"),
        ((*GENERATE, "--plot", "picture.gif"), "PNG or SVG"),
        (("--devices", "/nowhere.toml", "--generate", "mixed"), "No such file"),
        (("--devices", DEVICES, "--trace", "/nowhere.jsonl"), "No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    assert told in refused(capsys, *words)


def test_without_matplotlib_a_picture_is_refused_before_anything_is_replayed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(pictures, "draw", None)
    assert "pip install 'gpu-balancer[plot]'" in refused(capsys, *GENERATE, "--plot", "picture.png")


def test_simulating_loads_neither_grpc_nor_matplotlib() -> None:
    """It runs where only the devices' file is: on an operator's laptop, at once."""
    told = (
        "import sys; from balancer.__main__ import main; "
        f"main(['simulate', '--devices', {DEVICES!r}, '--generate', 'mixed', '--duration', '1h', '--json']); "
        "sys.exit(bool({'grpc', 'matplotlib', 'sqlite3'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", told], check=True, stdout=subprocess.DEVNULL, timeout=60)
