"""What `plan` does: every device's score or refusal, the work, and the program that would run."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from gpu_balancer.cli.exit_codes import ExitCode
from gpu_balancer.cli.job import make_job
from gpu_balancer.cli.placement_views import placement_facts, show_placement
from gpu_balancer.cli.transfers import shown_upload
from gpu_balancer.cli.words import facts_words

if TYPE_CHECKING:
    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.job_options import InputOptions, OutputOptions, RenditionOptions, SessionOptions
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.v1.session_service_pb2 import PlanSessionResponse


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
    return show_plan(screen, answer, verbose=verbose)


def show_plan(screen: Screen, answer: PlanSessionResponse, *, verbose: bool) -> ExitCode:
    """Shows a plan; the exit code tells whether a device would take the session."""
    placement = answer.placement
    if screen.json:
        screen.document(answer)
    else:
        show_placement(screen, placement, with_needs=verbose)
        screen.line()
        input_is = facts_words(answer.session.input_facts) if answer.session.HasField("input_facts") else ""
        program = shlex.join(answer.argv) if verbose else ""
        screen.facts([*placement_facts(placement, input_is=input_is), ("program", program)])
    return ExitCode.OK if placement.device else ExitCode.NO_ROOM
