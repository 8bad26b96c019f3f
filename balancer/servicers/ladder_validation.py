"""Checks of a ladder: a profile or renditions, and outputs that take all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.servicers.names import shown
from balancer.servicers.output_validation import check_outputs
from balancer.servicers.rendition_validation import check_renditions, rendition_ids
from gpu_balancer.runtime.failures import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from balancer.servicers.violations import Violations
    from gpu_balancer.v1.media_pb2 import Rendition, TranscodeSpec
    from gpu_balancer.v1.recording_pb2 import RecordingSpec


def check_ladder(
    found: Violations, spec_path: str, spec: TranscodeSpec | RecordingSpec, profiles: Mapping[str, Sequence[Rendition]]
) -> None:
    """Notes everything that is wrong with renditions and outputs.

    Args:
        found: Takes what is wrong.
        spec_path: Path of the spec.
        spec: As the client gave it. Changed: a profile's renditions take their place in it.
        profiles: Every ladder of the settings by its name.
    """
    where = f"{spec_path}.renditions"
    profile = spec.profile
    if profile and spec.renditions:
        found.add(f"{spec_path}.profile", "must not be given with renditions: one of them rules")
    elif profile and profile not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        found.add(
            f"{spec_path}.profile", f"must be one of the settings' profiles: {known}", reason=Reason.PROFILE_UNKNOWN
        )
        return
    elif profile:
        spec.renditions.extend(profiles[profile])
    elif not spec.renditions:
        known = ", ".join(sorted(profiles)) or "none"
        found.add(where, f"must be at least one, unless profile names one of the settings' ladders: {known}")
        return
    check_renditions(found, where, spec.renditions)
    names = rendition_ids(spec.renditions)
    by_name = dict(zip(names, spec.renditions, strict=True))
    used = check_outputs(found, f"{spec_path}.outputs", spec.outputs, by_name)
    if not spec.outputs or len(used) == len(by_name):
        return
    if profile:
        # A ladder is the operator's; who sends a part of it somewhere wants that part only.
        for index in reversed(range(len(names))):
            if names[index] not in used:
                del spec.renditions[index]
        return
    for index, name in enumerate(names):
        if name not in used:
            found.add(f"{where}[{index}]", f"must go to some output; none takes {shown(name)}")
