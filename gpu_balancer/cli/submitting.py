"""What is told when the daemon does not take a session, and when it has taken one that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import complain_of, placements_of
from gpu_balancer.client.names import short_name
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from gpu_balancer.cli.exit_codes import ExitCode
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.placement_pb2 import Placement
    from gpu_balancer.v1.session_pb2 import Session

_WAITING_HELPS = (Reason.NO_CAPACITY, Reason.NO_DEVICE_READY)
_NO_DEVICE = (*_WAITING_HELPS, Reason.NO_CAPABLE_DEVICE, Reason.QUEUE_FULL)


def complain_of_refusal(screen: Screen, client: Client, asked: Session, failure: RequestFailure) -> ExitCode:
    """Writes to standard error why a session was not taken.

    Args:
        screen: Where to.
        client: Asks for refusals that did not fit into the failure.
        asked: The session that was asked for.
        failure: What the daemon said.

    Returns:
        Its exit code.
    """
    code = complain_of(failure, _plan_after(client, asked, failure))
    if failure.reason in _WAITING_HELPS and not asked.HasField("max_wait"):
        screen.note("With --wait-for-device 10m it would be queued instead.")
    return code


def _plan_after(client: Client, asked: Session, failure: RequestFailure) -> Placement | None:
    """Asks for the refusals that did not fit into the failure; there may be hundreds of devices."""
    if failure.reason not in _NO_DEVICE or placements_of(failure):
        return None
    try:
        return client.plan_session(asked).placement
    except RequestFailure:
        return None


def tell_detached(screen: Screen, created: Session, *, leaves_artifacts: bool) -> None:
    """Writes the name of a session that nobody waits for, and how to come by its results.

    Args:
        screen: Where to.
        created: The session.
        leaves_artifacts: Whether it leaves any. What goes to the daemon's own folders or to a server is none.
    """
    if screen.json:
        screen.document(created)
    else:
        screen.line(created.name)
    if created.ingest_url:
        screen.note(f"Publish to {created.ingest_url}")
    if leaves_artifacts:
        screen.note(
            f"Its results stay with the agent: gpu-balancer artifacts {short_name(created.name)} --download DIR"
        )
