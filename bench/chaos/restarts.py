"""The policy under which sessions are broken: they begin anew soon and often, so that moves and restarts are seen."""

from __future__ import annotations

from datetime import timedelta

from gpu_balancer.v1 import session_pb2

RESTART_SETTINGS = "[restart]\nlost_after_s = 12.0\n"
"""Settings of the balancer that make it move sessions soon."""


def _policy() -> session_pb2.RestartPolicy:
    policy = session_pb2.RestartPolicy(mode=session_pb2.RESTART_MODE_ON_FAILURE, max_restarts=100)
    policy.first_backoff.FromTimedelta(timedelta(seconds=0.5))
    policy.longest_backoff.FromTimedelta(timedelta(seconds=2))
    return policy


RESTARTS = _policy()
"""Of every session that is broken."""
