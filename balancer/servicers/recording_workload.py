"""What a recording costs: a display that is looked at, its renditions, and what it pushes. It decodes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.domain.workload import CaptureTask, Workload
from balancer.servicers.rendition_work import checked_sizes, encoding_work, pixels_per_second, rate_of
from balancer.servicers.session_specs import RECORDING
from balancer.servicers.upload_rates import upload_bits_per_second
from gpu_balancer.pictures.sizes import PictureSize

if TYPE_CHECKING:
    from balancer.servicers.violations import Violations
    from gpu_balancer.v1.recording_pb2 import RecordingSpec


def recording_workload(found: Violations, spec: RecordingSpec) -> Workload:
    """Finds what a recording costs.

    Args:
        found: Takes sizes that follow from the display's and cannot be made.
        spec: The recording, filled in.
    """
    capture = spec.capture
    display, rate = PictureSize(capture.width, capture.height), rate_of(capture.frame_rate)
    sizes = checked_sizes(found, f"{RECORDING}.renditions", spec.renditions, display, "the display's")
    encoding = encoding_work(spec.renditions, sizes, display, rate)
    page = spec.WhichOneof("source") == "page"
    return Workload(
        decode=None,
        scale_pixels_per_second=encoding.scaled_pixels_per_second,
        encodes=encoding.tasks,
        real_time=True,
        allow_software_encode=spec.allow_software_encode,
        capture=CaptureTask(
            width=capture.width,
            height=capture.height,
            pixels_per_second=pixels_per_second(display, rate),
            browser=page,
            sound=not capture.without_sound,
            application=None if page else spec.application.name,
        ),
        upload_bits_per_second=upload_bits_per_second(spec.outputs, spec.renditions, encoding.pixels_by_rendition),
    )
