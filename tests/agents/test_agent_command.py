"""The command of the agent, as far as it does not run one."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.process
def test_listing_devices_loads_nothing_that_only_a_running_agent_needs() -> None:
    """The balancer waits for it at every start."""
    program = (
        "import sys; from agents.__main__ import main; status = main(['--list-devices']); "
        "print(*sorted(sys.modules.keys() & {'asyncio', 'grpc', 'pydantic', 'structlog', 'opentelemetry'})); "
        "sys.exit(status)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    devices, loaded = answer.stdout.splitlines()
    assert devices.startswith("[")
    assert loaded == ""
