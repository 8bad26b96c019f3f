"""Resource names as people type them and as the contract has them."""

from __future__ import annotations


def session_name(name: str) -> str:
    """Makes `sessions/x` of `x` or `sessions/x`."""
    return name if name.startswith("sessions/") else f"sessions/{name}"


def device_name(name: str) -> str:
    """Makes `devices/x` of `x` or `devices/x`; x may also be an index, a PCI address or the beginning of a UUID."""
    return name if name.startswith("devices/") else f"devices/{name}"


def upload_name(name: str) -> str:
    """Makes `uploads/x` of `x` or `uploads/x`."""
    return name if name.startswith("uploads/") else f"uploads/{name}"


def short_name(name: str) -> str:
    """Makes `x` of `sessions/x`, `devices/x` or `uploads/x`."""
    return name.partition("/")[2] or name
