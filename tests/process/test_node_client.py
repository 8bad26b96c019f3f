"""The contract is enough: a client written from the proto files alone, in another language, does the main job."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from daemons import RunningDaemon

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.process
def test_nodes_own_grpc_client_transcodes_watches_and_fetches(cpu_daemon: RunningDaemon, media: Path) -> None:
    script = Path(__file__).with_name("node_client.mjs")
    done = subprocess.run(
        ["node", str(script), cpu_daemon.address, str(REPOSITORY / "proto"), str(media / "clip.mp4")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["devices"] == ["devices/cpu-0"]
    assert seen["sameName"] is True
    assert seen["states"][-1] == "SESSION_STATE_SUCCEEDED", seen["failure"]
    assert seen["artifact"]["path"] == "small.mp4"
    assert seen["artifact"]["read"] == seen["artifact"]["size"] > 1000
    assert seen["refusal"] == {"code": 3, "rich": 1}
