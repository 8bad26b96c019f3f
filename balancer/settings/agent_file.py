"""The settings file of an agent that the balancer starts: what the agent shares with the balancer, and its device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.runtime.settings_file import dump_settings
from gpu_balancer.runtime.settings_sections import AgentDeviceSettings, AgentServerSettings, SessionSettings

if TYPE_CHECKING:
    from pathlib import Path

    from balancer.settings.balancer_settings import BalancerSettings


def agent_file_text(settings: BalancerSettings, device: AgentDeviceSettings, *, state_dir: Path, uploads: Path) -> str:
    """Writes the file for one agent.

    Args:
        settings: The balancer's settings.
        device: The agent's device.
        state_dir: The agent's state folder, absolute.
        uploads: Folder of uploads, which become inputs: the agent may read there too.

    Returns:
        The TOML, which `agents.settings.AgentSettings` reads.
    """
    roots = tuple(dict.fromkeys((*settings.inputs.roots, str(uploads))))
    return dump_settings(
        {
            "device": device,
            "server": AgentServerSettings(
                state_dir=str(state_dir),
                max_receive_mib=settings.server.max_receive_mib,
                max_concurrent_streams=settings.server.max_concurrent_streams,
                orphan_exit_s=settings.agents.orphan_exit_s,
            ),
            "inputs": settings.inputs.model_copy(update={"roots": roots}),
            "outputs": settings.outputs,
            "ffmpeg": settings.ffmpeg,
            "calibration": settings.calibration,
            "ingest": settings.ingest,
            "recordings": settings.recordings,
            "browser": settings.browser,
            "applications": settings.applications,
            "deliveries": settings.deliveries,
            "destinations": settings.destinations,
            "sessions": SessionSettings(**settings.sessions.model_dump(include=set(SessionSettings.model_fields))),
            "disk": settings.disk,
            "log": settings.log,
            "telemetry": settings.telemetry,
        }
    )
