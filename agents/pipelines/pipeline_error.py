"""Why no command can be built for a job on a device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PipelineErrorReason(StrEnum):
    """Stable names of what stands in the way."""

    NO_CAPABILITY = "NO_CAPABILITY"
    """The device was not proved to do what the job asks; another device may."""
    UNSUPPORTED = "UNSUPPORTED"
    """No device can: the combination itself is impossible, AV1 in a transport stream for instance."""
    INPUT_INVALID = "INPUT_INVALID"
    """The input is not one that can be opened, or what is asked of it is not there."""


@dataclass(slots=True, kw_only=True, eq=False)
class PipelineError(Exception):
    """A job that cannot be done on a device as it is."""

    reason: PipelineErrorReason
    field: str
    """Path from the job, as in the contract: "renditions[1].encode.codec" for instance."""
    message: str
    """A sentence: "Cannot X: Y. Try Z." Without secrets."""

    def __post_init__(self) -> None:
        Exception.__init__(self, self.message)
