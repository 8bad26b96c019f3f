"""What the commands about the daemon do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from gpu_balancer import __version__
from gpu_balancer.cli.invocation import spelled
from gpu_balancer.cli.screen import to_json
from gpu_balancer.cli.words import clean, clock
from gpu_balancer.client import Client, RetryPolicy
from gpu_balancer.client.names import short_name
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from gpu_balancer.cli.invocation import Invocation


def reload_settings(invocation: Invocation) -> None:
    """Has the settings read again and tells what changed."""
    screen = invocation.screen()
    with invocation.client() as client:
        answer = client.reload_settings()
    if invocation.json:
        screen.document(answer)
        return
    screen.line(f"Settings {answer.settings_version} are in force.")
    for change in answer.changes:
        screen.line(f"  {clean(change)}")
    if answer.restart_keys:
        screen.note(f"These apply only after a restart of the daemon: {', '.join(answer.restart_keys)}")


def shutdown_daemon(invocation: Invocation, *, stop_sessions: bool) -> None:
    """Ends the daemon."""
    screen = invocation.screen()
    with invocation.client() as client:
        answer = client.shutdown(stop_sessions=stop_sessions)
    if invocation.json:
        screen.document(answer)
        return
    screen.line("The daemon is ending.")
    if answer.stopped_sessions:
        screen.line(f"Sessions that were stopped: {answer.stopped_sessions}")
    if answer.running_sessions:
        names = " ".join(short_name(name) for name in answer.running_sessions)
        screen.line(f"Sessions that run on with their agents: {names}")


def show_version(invocation: Invocation) -> None:
    """Shows both versions; a daemon that cannot be reached is no error here."""
    screen = invocation.screen()
    daemon, why = None, ""
    with spelled("--address"):
        client = Client(invocation.address, retry_policy=RetryPolicy(patience=timedelta(0)))
    with client:
        try:
            daemon = client.get_balancer()
        except RequestFailure as failure:
            why = failure.message
    if invocation.json:
        screen.document({"clientVersion": __version__, "balancer": None if daemon is None else to_json(daemon)})
        return
    screen.line(f"gpu-balancer {__version__}")
    if daemon is None:
        screen.note(why)
        return
    where = " ".join(filter(None, (*daemon.listen_addresses, daemon.http_address)))
    screen.line(f"gpu-balancerd {daemon.version}, process {daemon.process_id}, {where}")
    queue = daemon.queue
    if count := queue.live_count + queue.batch_count:
        longest = f", the first of them for {clock(queue.longest_wait)}" if queue.HasField("longest_wait") else ""
        screen.line(f"Sessions that wait for a device: {count} of at most {queue.max_sessions}{longest}")
