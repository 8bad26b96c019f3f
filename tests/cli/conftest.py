"""The command, run in this process against a fake daemon."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import typer
import typer.testing
from typer.testing import CliRunner

from fakes.balancer_server import FakeBalancer, served_aside
from gpu_balancer.cli.app import app
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run of the command gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.out)

    @property
    def records(self) -> list[Any]:
        """The JSON documents on standard output, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    """Runs the command."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(self, *words: str) -> Ran:
        result = CliRunner().invoke(app, list(words), env={"GPU_BALANCER_ADDRESS": self.address})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(code=result.exit_code, out=result.stdout, err=result.stderr)


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once() -> Iterator[None]:
    """Has runs of a process share what typer makes of all commands: that is most of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeBalancer]:
    """A fake daemon on a thread of its own."""
    with served_aside(tmp_path) as balancer:
        yield balancer


@pytest.fixture
def run(fake: FakeBalancer) -> Command:
    """The command, which finds the fake by its environment."""
    return Command(fake.address)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local file that is no media; the fake does not mind."""
    file = tmp_path / "in.mov"
    file.write_bytes(b"a film" * 1000)
    return file


@pytest.fixture
def finishing(fake: FakeBalancer) -> FakeBalancer:
    """A fake whose sessions end at once, with an artifact for each of their outputs."""

    def end(session: session_pb2.Session) -> None:
        for output in session.transcode.outputs:
            if output.WhichOneof("kind") == "file":
                fake.add_artifact(session.name, output.file.path, output.file.path.encode())
            elif output.WhichOneof("kind") == "hls":
                for path in ("master.m3u8", "720p/0.m4s"):
                    fake.add_artifact(session.name, f"{output.hls.path}/{path}", path.encode())
        fake.advance(session.name, state=session_pb2.SESSION_STATE_RUNNING)
        fake.advance(session.name, state=session_pb2.SESSION_STATE_SUCCEEDED)

    fake.on_create = end
    return fake
