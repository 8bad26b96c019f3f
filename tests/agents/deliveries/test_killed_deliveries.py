"""kill -9 in the middle of an upload: the next process finishes it, and nothing is left of the first."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest
from delivery_rig import bucket_settings, write

from agents.deliveries.s3_connection import S3Connection
from fakes.s3_server import Fault, Request, S3Server

pytestmark = pytest.mark.process

MIB = 1024 * 1024
HERE = Path(__file__).parent
PATHS = (HERE, HERE.parents[1], HERE.parents[2])


async def start(*arguments: str | Path) -> Process:
    environment = os.environ | {"PYTHONPATH": ":".join(map(str, PATHS))}
    program = str(HERE / "delivering_process.py")
    return await asyncio.create_subprocess_exec(
        sys.executable, program, *map(str, arguments), stdout=PIPE, env=environment
    )


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task")
    return [int(text) for task in tasks.iterdir() for text in (task / "children").read_text().split()]


async def test_a_worker_ends_with_its_agent_also_when_its_last_answer_was_not_read() -> None:
    """The kernel then says "connection reset" instead of the end."""
    connection = S3Connection()
    try:
        order = {"verb": "head", "account": {"bucket": "recordings", "endpoint": "no url"}, "key": "a"}
        connection._channel.sendall(json.dumps(order).encode() + b"\n")
        await asyncio.to_thread(select.select, [connection._channel], [], [])
        connection._channel.close()
        assert await asyncio.to_thread(connection._process.wait, 30) == 0
    finally:
        connection.close()


async def test_an_upload_whose_agent_is_killed_is_finished_by_the_next(
    s3: S3Server, credentials: Path, artifacts: Path, tmp_path: Path
) -> None:
    content = os.urandom(16 * MIB)
    write(artifacts, "a.mp4", content)
    settings = bucket_settings(s3, credentials).model_dump_json()

    def hold_the_third_part(request: Request) -> Fault | None:
        return Fault.HELD if request.query.get("partNumber") == "3" else None

    s3.fault = hold_the_third_part
    first = await start(tmp_path / "deliveries", settings, artifacts, "a.mp4")
    await s3.held.wait()
    [worker] = children(first.pid)
    watched = os.pidfd_open(worker)
    first.kill()
    assert await first.wait() == -signal.SIGKILL
    await asyncio.to_thread(select.select, [watched], [], [])
    os.close(watched)
    assert s3.objects["recordings"] == {}

    s3.fault = lambda _: None
    second = await start(tmp_path / "deliveries", settings)
    told, _ = await second.communicate()
    assert (second.returncode, told) == (0, b"s3://recordings/s1/a.mp4\n")
    assert s3.objects["recordings"]["s1/a.mp4"].body == content
