"""Gives up an agent's rights, for programs of ours that must be started with them."""

from __future__ import annotations

import os


def become(user_id: int) -> None:
    """Gives up every right but those of a user. From here on no module can be relied on to be readable."""
    os.setgroups([])
    os.setresgid(user_id, user_id, user_id)
    os.setresuid(user_id, user_id, user_id)
