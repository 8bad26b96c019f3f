"""Errors for people: what could not be done, why, what to try; then the fields and the devices that are to blame."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpu_balancer.cli.error_text import complain, wrapped
from gpu_balancer.cli.exit_codes import ExitCode, exit_code_of
from gpu_balancer.runtime.failures import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.runtime.failures import RequestFailure
    from gpu_balancer.v1.placement_pb2 import Placement
    from gpu_balancer.v1.session_pb2 import Session

_OPTIONS = {
    "accept_http_errors": "--accept-http-errors",
    "basic_auth": "--basic-auth",
    "ignore_certificate_errors": "--insecure",
    "init_script": "--init-script",
    "start_gate": "--gate",
}


def complain_of(failure: RequestFailure, plan: Placement | None = None) -> ExitCode:
    """Writes a failed request to standard error.

    Args:
        failure: What failed.
        plan: The placement of a plan made afterwards, for refusals that did not fit into the failure. None: no plan.

    Returns:
        Its exit code.
    """
    import typer

    code = complain(failure.message, exit_code_of(failure))
    for line in _lines(failure, plan):
        typer.echo(wrapped(f"  {line}", indent="    "), err=True)
    if failure.retry_after is not None:
        typer.echo(f"Try again in {max(1, round(failure.retry_after.total_seconds()))} s.", err=True)
    return code


def _lines(failure: RequestFailure, plan: Placement | None) -> Iterator[str]:
    """Gives what is to blame, leaving out what the message has said already."""
    for violation in failure.violations:
        if violation.description not in failure.message:
            yield f"{violation.field}: {violation.description}"
    placements = placements_of(failure) or ([plan] if plan is not None else [])
    for placement in placements:
        yield from refusal_lines(placement, told=failure.message)


def placements_of(failure: RequestFailure) -> list[Placement]:
    """Gives the placements among a failure's details."""
    from gpu_balancer.v1.placement_pb2 import Placement

    return [detail for detail in failure.details if isinstance(detail, Placement)]


def refusal_lines(placement: Placement, *, told: str = "") -> Iterator[str]:
    """Gives a line for each device that refused, leaving out what was told already."""
    from gpu_balancer.cli.words import device_word
    from gpu_balancer.client.names import short_name

    for verdict in placement.verdicts:
        if verdict.WhichOneof("verdict") == "refusal":
            if f"{short_name(verdict.device)}: {verdict.refusal.message.rstrip('.')}" in told:
                continue
            words = verdict.refusal.message or verdict.refusal.rule
            yield f"{device_word(verdict.device)}: {words} ({verdict.refusal.rule})"


def _with_options(message: str) -> str:
    """Has a message name options in the place of the contract's fields, as they are to be typed."""
    return re.sub(r"\b\w+\b", lambda word: _OPTIONS.get(word[0], word[0]), message)


def complain_of_end(session: Session) -> ExitCode:
    """Writes to standard error why a session did not succeed, with the end of its log.

    Returns:
        NO_ROOM for one that waited for a device in vain, else SESSION_FAILED.
    """
    import typer

    from gpu_balancer.cli.session_words import session_state
    from gpu_balancer.cli.words import clean
    from gpu_balancer.client.names import short_name

    failure = session.failure
    if failure.reason == Reason.QUEUE_TIMEOUT.name:
        complain(f"{failure.message} ({failure.reason})", ExitCode.NO_ROOM)
        typer.echo(f"What it waited for: gpu-balancer explain {short_name(session.name)}", err=True)
        return ExitCode.NO_ROOM
    if not session.HasField("failure"):
        words = f"The session {short_name(session.name)} was {session_state(session.state)}."
        return complain(words, ExitCode.SESSION_FAILED)
    status = f", exit status {failure.exit_code}" if failure.HasField("exit_code") else ""
    words = _with_options(failure.message) or "no reason was given."
    complain(f"{words} ({failure.reason}{status})", ExitCode.SESSION_FAILED)
    for line in failure.log_tail[-10:]:
        typer.echo(f"  | {clean(line)}", err=True)
    typer.echo(f"All of its log: gpu-balancer logs {short_name(session.name)}", err=True)
    return ExitCode.SESSION_FAILED
