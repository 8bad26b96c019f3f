"""Whether a program can be held, stopped and continued, without losing anything of what it reads or where it writes;
and whether it has to keep up, which is the other side of it.

A publisher, a display and a live protocol go on whether or not they are read, so such an input is never held. A file
waits for ever. Everything else on a network waits for a while only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from agents.pipelines.input_guards import input_scheme
from agents.pipelines.job import CaptureInput, IngestInput, PushOutput, UriInput

if TYPE_CHECKING:
    from agents.pipelines.job import Job


class Hold(StrEnum):
    """For how long a program may be stopped at a stretch."""

    FOR_EVER = "for_ever"
    """It reads and writes files."""
    FOR_A_MOMENT = "for_a_moment"
    """A server at the other end would give it up."""


def hold_of(job: Job) -> Hold | None:
    """Tells how a job's program can be held. None: not at all, its input is live."""
    source = job.input
    if isinstance(source, IngestInput | CaptureInput):
        return None
    scheme = input_scheme(source.uri)
    if scheme != "file" and (scheme not in ("http", "https") or job.facts.duration is None):
        return None
    pushed = any(isinstance(output, PushOutput) for output in job.outputs)
    return Hold.FOR_A_MOMENT if pushed or scheme != "file" else Hold.FOR_EVER


def keeps_real_time(job: Job) -> bool:
    """Tells whether a job's input comes in real time, so that a slower program falls behind."""
    return hold_of(job) is None or (isinstance(job.input, UriInput) and job.input.native_rate)
