"""docs/settings.md tells of every section, shows files that load, and is right about what a reload applies."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from house_sources import text_of

from agents.settings import AgentSettings
from balancer.settings import BUILT_IN_PROFILES, BalancerSettings, diff_settings
from balancer.settings.device_entries import DeviceNames, entry_fits
from gpu_balancer.runtime.settings_file import SettingsError, parse_settings

TEXT = text_of(Path("docs/settings.md"))
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SECTIONS_TABLE = {
    name: applies
    for names, _, applies in re.findall(r"^\| (`\[.*?) \| (.*?) \| (.*?) \|$", TEXT, re.MULTILINE)
    for name in re.findall(r"\[+(\w+)\]", names)
}


def test_every_section_is_told_of() -> None:
    assert SECTIONS_TABLE.keys() == BalancerSettings.model_fields.keys()


def test_every_section_of_agents_is_told_of() -> None:
    told = re.search(r"External ones.*?\.$", TEXT, re.MULTILINE | re.DOTALL)
    assert told
    assert set(re.findall(r"`\[(\w+)\]`", told[0])) == AgentSettings.model_fields.keys()


@pytest.mark.parametrize("path", ["config/balancer.toml", "config/agent.toml"])
def test_the_files_with_every_key_are_linked(path: str) -> None:
    assert f"(../{path})" in TEXT
    assert tomllib.loads(text_of(Path(path)))


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_load(example: str) -> None:
    parse_settings(example, BalancerSettings, source="docs/settings.md")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


def test_the_shown_mistakes_are_told_in_these_words() -> None:
    shown = re.search(r"^```\nCannot load settings balancer.toml: (.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert shown
    wrong = (
        '\n\n[placement]\nheadroom = 2\nfactor = { decode = 1 }\n[[cpu_devices]]\nname = "a"\ncores = "0-3"\n'
        '[[cpu_devices]]\nname = "b"\ncores = "3-5"\n'
    )
    with pytest.raises(SettingsError) as refused:
        parse_settings(wrong, BalancerSettings, source="balancer.toml")
    assert str(refused.value) == f"Cannot load settings balancer.toml: {shown[1].rstrip()}"


CHANGES = {
    "server": "[server]\nmax_receive_mib = 2",
    "placement": "[placement]\nheadroom = 0.5",
    "queue": "[queue]\nmax_sessions = 7",
    "quarantine": "[quarantine]\nfailures = 7",
    "restart": "[restart]\nmax_restarts = 7",
    "agents": "[agents]\nstart_timeout_s = 7.0",
    "devices": '[[devices]]\nmatch = "0"\nweight = 7',
    "cpu_devices": '[[cpu_devices]]\nname = "a"\ncores = "0"\nweight = 7',
    "inputs": '[inputs]\nroots = ["/elsewhere"]',
    "outputs": '[outputs]\nroots = ["/elsewhere"]',
    "ffmpeg": "[ffmpeg]\nprobe_timeout_s = 7.0",
    "calibration": "[calibration]\nrounds = 7",
    "ingest": '[ingest]\nrtmp_ports = "20000-20001"',
    "sessions": "[sessions]\nlog_max_mib = 7",
    "uploads": "[uploads]\nmax_size_mib = 7",
    "recordings": "[recordings]\ndisplays = 7",
    "browser": '[browser]\ncandidates = ["chromium-browser"]',
    "applications": '[[applications]]\nname = "clock"\ncommand = ["/usr/bin/xclock"]',
    "deliveries": "[deliveries]\nfirst_pause_s = 7.0",
    "destinations": '[[destinations]]\nname = "archive"\nkind = "folder"\npath = "/srv/archive"',
    "host": "[host]\nmemory_mib = 7000",
    "profiles": '[[profiles.p.renditions]]\nid = "r"\nheight = 90',
    "disk": "[disk]\nlow_mib = 700",
    "log": '[log]\nlevel = "debug"',
    "telemetry": "[telemetry]\ntrace_ratio = 0.5",
}


@pytest.mark.parametrize("section", BalancerSettings.model_fields)
def test_a_reload_applies_what_the_table_says(section: str) -> None:
    before = '[[cpu_devices]]\nname = "a"\ncores = "0"\n' if section == "cpu_devices" else ""
    old = parse_settings(before, BalancerSettings, source="before")
    new = parse_settings(CHANGES[section], BalancerSettings, source="after")
    difference = diff_settings(old, new)
    assert bool(difference.live_changes) == ("at once" in SECTIONS_TABLE[section]), difference
    assert bool(difference.restart_keys) == (SECTIONS_TABLE[section] == "after a restart"), difference


def test_what_the_table_says_of_cores_and_log_format() -> None:
    old = parse_settings('[[cpu_devices]]\nname = "a"\ncores = "0"\n', BalancerSettings, source="before")
    new = parse_settings(
        '[log]\nformat = "json"\n[[cpu_devices]]\nname = "a"\ncores = "1"\n', BalancerSettings, source="after"
    )
    assert diff_settings(old, new).restart_keys == ("cpu_devices[a].cores", "log.format")


def test_the_shown_matches_fit() -> None:
    rows = re.findall(r'^\| (`"[^|]*`) \| fits|^\| (`"[^|]*`) \|', TEXT, re.MULTILINE)
    shown = [match for row in rows for match in re.findall(r'`"([^"]*)"`', "".join(row))]
    shown += re.findall(r'also as a pattern: `"([^"]*)"`', TEXT)
    card = DeviceNames(id="GPU-7f3c2a10-…", model="NVIDIA L4", pci_address="00000000:65:00.0", index=0)
    other = DeviceNames(id="GPU-0", model="NVIDIA GeForce RTX 4090", pci_address="00000000:66:00.0", index=1)
    assert len(shown) == 9
    assert [match for match in shown if not entry_fits(match, card)] == ["*RTX*"]
    assert [match for match in shown if entry_fits(match, other)] == ["*RTX*"]


def test_the_profiles_that_ship_are_named() -> None:
    assert [name for name in BUILT_IN_PROFILES if f"`{name}`" not in TEXT] == []
