"""Agents that somebody else than the balancer starts, and starts again when they end, as a service manager does."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_AGAIN_S = 0.25
_EXIT_S = 20.0


def agent_settings(device: str, cores: str, *, films: Path, out_root: Path) -> str:
    """Writes the settings of an agent of a CPU device.

    Args:
        device: Its name.
        cores: Its cores; other agents may have the same.
        films: Where inputs are.
        out_root: Where outputs may go.
    """
    return (
        f'[device]\nkind = "cpu"\nid = "{device}"\ncores = "{cores}"\n'
        f'[inputs]\nroots = ["{films}"]\n[outputs]\nroots = ["{out_root}"]\n'
        '[recordings]\nenabled = false\n[ffmpeg]\ncandidates = ["bundled"]\n'
    )


class KeptAgent:
    """An agent that is started again a quarter of a second after it ended, however it did. Ends with `end`."""

    def __init__(self, folder: Path, settings: str) -> None:
        """Starts it.

        Args:
            folder: Its state folder.
            settings: Its settings file's text.
        """
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "agent.toml").write_text(settings)
        self._ended = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name=f"keep {folder.name}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends it for good."""
        self._ended.set()
        self._thread.join(_EXIT_S)
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._folder / "agent.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "agents", "--config", str(self._folder / "agent.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._ended.wait(0.02):
            if self._process.poll() is not None and not self._ended.wait(_AGAIN_S):
                self._process = self._start()
