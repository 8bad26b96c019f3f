"""Identifiers as types, so that a session's id is never passed for a device's."""

from __future__ import annotations

from typing import NewType

SessionId = NewType("SessionId", str)
"""The part of a session's resource name after "sessions/"."""

DeviceId = NewType("DeviceId", str)
"""GPU UUID, or the name of a CPU device."""
