"""How many encoder sessions the driver lets a host's GeForce cards have at once, learned from what it did.

NVIDIA's driver caps the concurrent encoder sessions of such cards, over all of them in a system together, at a number
that differs from driver to driver (2, 3, 5, 8 and 12 were seen). It is never assumed: the cap is what refusals say. One
refusal bounds it: with n sessions open, k more were asked for and not all were given, so it is at most n + k - 1. Each
further refusal may lower the bound; more sessions open than it says show that it was wrong, and it is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCap:
    """What is known of a host's cap."""

    driver_version: str
    """For which it was learned; another driver begins anew."""
    most: int
    """Sessions that are open at once at most."""

    def after_open(self, open_count: int) -> SessionCap | None:
        """Gives what is known once so many sessions were seen open. None: nothing any more."""
        return None if open_count > self.most else self


def after_refusal(known: SessionCap | None, *, driver_version: str, open_count: int, asked_count: int) -> SessionCap:
    """Gives what is known once the driver refused an encoder session.

    Args:
        known: What was known before. None: nothing.
        driver_version: The driver's.
        open_count: Encoder sessions open on the host's GeForce cards then, of anybody, without the refused session's.
        asked_count: Encoder sessions that the refused session asked for, at least 1.

    Returns:
        At least one session: a driver that gives none at all has no working encoder, which a probe tells.
    """
    most = max(1, open_count + asked_count - 1)
    if known is not None and known.driver_version == driver_version:
        most = min(most, known.most)
    return SessionCap(driver_version=driver_version, most=most)
