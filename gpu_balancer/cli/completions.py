"""Completion of names from the daemon: only when it answers at once, and never with an error in the user's prompt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import typer

from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_balancer.client import Client

_LIMIT = 50


def complete_session(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives names of sessions that begin as typed, newest first, with their states."""

    def ask(client: Client) -> list[tuple[str, str]]:
        from gpu_balancer.cli.session_words import session_state
        from gpu_balancer.client.names import short_name

        prefix = "sessions/" if incomplete.startswith("sessions/") else ""
        found = []
        for session in client.list_sessions(page_size=200):
            name = prefix + short_name(session.name)
            if name.startswith(incomplete):
                found.append((name, session_state(session.state)))
            if len(found) == _LIMIT:
                break
        return found

    return _asked(context, ask)


def complete_device(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives names of devices that begin as typed, with their models."""

    def ask(client: Client) -> list[tuple[str, str]]:
        from gpu_balancer.client.names import short_name

        found = [(short_name(device.name), device.identity.model) for device in client.list_devices()]
        return [(name, model) for name, model in found if name.startswith(incomplete)]

    return _asked(context, ask)


def complete_profile(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Gives names of profiles that begin as typed, with the names of their renditions."""

    def ask(client: Client) -> list[tuple[str, str]]:
        profiles = client.get_balancer().profiles
        told = [(profile.name, " ".join(one.id for one in profile.renditions)) for profile in profiles]
        return [(name, words) for name, words in told if name.startswith(incomplete)]

    return _asked(context, ask)


def _asked(context: typer.Context, ask: Callable[[Client], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    from gpu_balancer.client import Client, RetryPolicy

    # While a line is completed no callback has run: the address stands in the parameters, if anywhere.
    address = context.params.get("address_") or context.find_root().params.get("address")
    try:
        with Client(address, retry_policy=RetryPolicy(patience=timedelta(0))) as client:
            return ask(client)
    except (RequestFailure, ValueError):
        return []
