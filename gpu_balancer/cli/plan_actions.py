"""What `plan` does: every device's score or refusal, the work, and the program that would run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import refusal_lines
from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.job import make_job
from gpu_balancer.cli.screen import Column
from gpu_balancer.cli.transfers import shown_upload
from gpu_balancer.cli.words import UNKNOWN, clean, count, device_word, facts_words, video_codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.job_options import InputOptions, OutputOptions, RenditionOptions, SessionOptions
    from gpu_balancer.v1.placement_pb2 import DeviceVerdict, Placement, Workload
    from gpu_balancer.v1.session_service_pb2 import PlanSessionResponse

COLUMNS = (
    Column(title="DEVICE"),
    Column(title="VERDICT"),
    Column(title="WEIGHT", right=True),
    Column(title="SESS", right=True),
    Column(title="LOAD", right=True),
    Column(title="SCORE", right=True),
    Column(title="WHY", shrinks=True),
)
"""Columns of the table of verdicts."""


def plan(
    invocation: Invocation,
    given: InputOptions,
    made: RenditionOptions,
    out: OutputOptions,
    session: SessionOptions,
    *,
    verbose: bool,
) -> ExitCode:
    """Plans a transcode; the exit code tells whether a device would take it."""
    screen = invocation.screen()
    with invocation.client() as client:
        job = make_job(given, made, out, session, ladder=client.profile_renditions)
        name = job.source_file.name if job.source_file is not None else ""
        with shown_upload(screen, name) as progress:
            answer = client.plan(job.session, on_upload=progress)
    placement = answer.placement
    if invocation.json:
        screen.document(answer)
    else:
        rows = [verdict_row(verdict, placement, whole=not screen.terminal) for verdict in placement.verdicts]
        screen.table(COLUMNS, rows, none="There are no devices.")
        if screen.terminal:
            for line in refusal_lines(placement):
                screen.line(clean(line))
        screen.line()
        screen.facts(list(plan_facts(answer, verbose=verbose)))
    return ExitCode.OK if placement.device else ExitCode.NO_ROOM


def verdict_row(verdict: DeviceVerdict, placement: Placement, *, whole: bool) -> tuple[str, ...]:
    """Gives a device's row.

    Args:
        verdict: Its score or refusal.
        placement: The decision.
        whole: Whether the row tells the whole refusal, or its rule only.
    """
    rule = verdict.refusal.rule
    refused = verdict.WhichOneof("verdict") == "refusal"
    chosen = "chosen" if verdict.device == placement.device else "eligible"
    return (
        device_word(verdict.device),
        "refused" if refused else chosen,
        str(verdict.weight),
        str(verdict.session_count),
        count(verdict.weighted_load_before) if verdict.HasField("weighted_load_before") else UNKNOWN,
        UNKNOWN if refused else count(verdict.score),
        f"{rule}: {clean(verdict.refusal.message)}" if refused and whole else rule,
    )


def plan_facts(answer: PlanSessionResponse, *, verbose: bool) -> Iterator[tuple[str, str]]:
    """Gives the decision, the work and, when asked, the program; what is unknown has no value."""
    placement = answer.placement
    yield "device", device_word(placement.device) if placement.device else "none takes it"
    yield "policy", f"{placement.policy} (settings {placement.settings_version})"
    yield "input is", facts_words(answer.session.input_facts) if answer.session.HasField("input_facts") else ""
    yield "decode", _work_words(placement.workload)
    yield "scale", f"{count(placement.workload.scale_pixels_per_second)} px/s"
    yield (
        "encode",
        "\n".join(
            f"{count(one.pixels_per_second)} px/s {video_codec(one.codec)} {one.bit_depth} bit"
            for one in placement.workload.encodes
        ),
    )
    yield "cost", f"{count(placement.workload.cost_pixels_per_second)} px/s"
    yield "pace", "real time" if placement.workload.real_time else "as fast as there is room"
    yield "program", shlex.join(answer.argv) if verbose else ""


def _work_words(workload: Workload) -> str:
    if not workload.decode_pixels_per_second:
        return "nothing"
    codec = video_codec(workload.decode_codec)
    return f"{count(workload.decode_pixels_per_second)} px/s {codec} {workload.decode_bit_depth} bit"
