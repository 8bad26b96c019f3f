"""Runs ffmpeg for tests of pipelines."""

from __future__ import annotations

import subprocess

import imageio_ffmpeg


def run_ffmpeg(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs the bundled ffmpeg."""
    return run_program(imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", *arguments, timeout=timeout)


def run_program(*argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Runs a program and keeps what it printed."""
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
