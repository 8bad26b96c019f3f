"""structlog without rich: lighter, and as good for what we log; and rich is there for whoever asks for it later."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LOADED = """
import sys
from gpu_balancer.runtime.plain_structlog import load_plain_structlog
load_plain_structlog()
import structlog.dev
assert not any(name == "rich" or name.startswith("rich.") for name in sys.modules), "rich is loaded"
import rich.table
"""
_TRACEBACK = """
from gpu_balancer.runtime.plain_structlog import load_plain_structlog
load_plain_structlog()
import logging
from gpu_balancer.runtime.log import configure_logging
from gpu_balancer.runtime.settings_sections import LogSettings
configure_logging(LogSettings(format="console"))
try:
    raise ValueError("on purpose")
except ValueError:
    logging.getLogger("test").exception("It failed")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.process
def test_rich_is_not_loaded_with_structlog_and_can_be_loaded_afterwards() -> None:
    answer = run(_LOADED)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.process
def test_errors_are_still_told_with_their_traceback() -> None:
    answer = run(_TRACEBACK)
    told = answer.stdout + answer.stderr
    assert "It failed" in told
    assert "ValueError: on purpose" in told
    assert answer.returncode == 0
