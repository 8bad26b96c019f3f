"""What an agent is told, by an operator or by the balancer that starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.settings import AgentSettings
from balancer.settings import BalancerSettings
from balancer.settings.agent_file import agent_file_text
from gpu_balancer.runtime.settings_file import SettingsError, load_settings, parse_settings
from gpu_balancer.runtime.settings_sections import AgentDeviceSettings

_UUID = "GPU-7f3c2a10-0000-4000-8000-000000000001"


def _mistake(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, AgentSettings, source="agent.toml")
    (mistake,) = caught.value.mistakes
    return str(mistake)


def test_no_file_means_one_cpu_device_of_all_cores() -> None:
    settings = load_settings(None, AgentSettings)
    assert (settings.device.kind, settings.device.id, settings.device.cores) == ("cpu", "cpu-0", None)
    assert settings.server.orphan_exit_s is None


def test_a_gpu_is_named_by_its_uuid_and_has_no_cores() -> None:
    assert _mistake('[device]\nkind = "nvidia"\nid = "0"').startswith("line 3: device.id: must be the GPU's UUID")
    assert _mistake(f'[device]\nkind = "nvidia"\nid = "{_UUID}"\ncores = "0"').startswith("line 4: device.cores: ")
    settings = parse_settings(f'[device]\nkind = "nvidia"\nid = "{_UUID}"', AgentSettings, source="x")
    assert settings.device.id == _UUID


def test_an_agent_listens_where_only_its_host_reaches_it() -> None:
    assert "no identities yet" in _mistake('[server]\nlisten = ["0.0.0.0:50060"]')


def test_the_agents_sections_are_checked_as_the_balancers_are() -> None:
    assert _mistake("[inputs]\nread_timeout_s = 20").startswith("line 2: inputs.read_timeout_s: must be below ")


@pytest.mark.parametrize(
    "device",
    [AgentDeviceSettings(kind="nvidia", id=_UUID), AgentDeviceSettings(kind="cpu", id="cpu-1", cores="0-3,8")],
)
def test_the_file_that_the_balancer_writes_is_what_its_agent_reads(device: AgentDeviceSettings) -> None:
    balancer = parse_settings(
        """
[inputs]
roots = ["/srv/media"]
allow_private_networks = true
[outputs]
roots = ["/srv/a \\"quoted\\" folder"]
[sessions]
stop_timeout_s = 20
keep_ended_h = 5
[telemetry]
otlp_endpoint = "http://127.0.0.1:4317"
[log]
level = "debug"
""",
        BalancerSettings,
        source="balancer.toml",
    )
    text = agent_file_text(balancer, device, state_dir=Path("/state/agents/x"), uploads=Path("/state/uploads"))
    agent = parse_settings(text, AgentSettings, source="agent.toml")
    assert agent.device == device
    assert agent.inputs.roots == ("/srv/media", "/state/uploads")
    assert agent.inputs.allow_private_networks
    assert (agent.outputs, agent.telemetry, agent.log) == (balancer.outputs, balancer.telemetry, balancer.log)
    assert (agent.ffmpeg, agent.ingest) == (balancer.ffmpeg, balancer.ingest)
    assert agent.sessions.stop_timeout_s == 20
    assert (agent.server.state_dir, agent.server.orphan_exit_s) == ("/state/agents/x", 60.0)
