"""How decisions look, before the fact and after it: each device's score or refusal, and what it would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.complaints import refusal_lines
from gpu_balancer.cli.screen import Column
from gpu_balancer.cli.words import UNKNOWN, clean, count, device_word, dimension, encoding_speed, video_codec
from gpu_balancer.client.names import short_name
from gpu_balancer.v1 import placement_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.v1.placement_pb2 import (
        BookedAmount,
        CaptureWork,
        DeviceVerdict,
        DimensionNeed,
        EncodeWork,
        Placement,
        Workload,
    )

VERDICT_COLUMNS = (
    Column(title="DEVICE"),
    Column(title="VERDICT"),
    Column(title="WEIGHT", right=True, optional=True),
    Column(title="SESS", right=True, optional=True),
    Column(title="LOAD", right=True, optional=True),
    Column(title="SCORE", right=True),
    Column(title="WHY", shrinks=True),
)
"""Columns of the table of verdicts."""

NEED_COLUMNS = (
    Column(title="DEVICE"),
    Column(title="DIMENSION", shrinks=True),
    Column(title="NEEDS", right=True),
    Column(title="TAKEN", right=True),
    Column(title="LIMIT", right=True),
    Column(title="THEN", right=True, optional=True),
)
"""Columns of the table of what devices would have to give."""

_MILLIONTHS = (placement_pb2.DIMENSION_DECODE, placement_pb2.DIMENSION_ENCODE, placement_pb2.DIMENSION_CORES)
_LARGE = (placement_pb2.DIMENSION_SCALE, placement_pb2.DIMENSION_UPLOAD)
_DIMENSION_WORDS = {
    placement_pb2.DIMENSION_DECODE: "decoder engines",
    placement_pb2.DIMENSION_SCALE: "scaled px/s",
    placement_pb2.DIMENSION_ENCODE: "encoder engines",
    placement_pb2.DIMENSION_MEMORY: "memory MiB",
    placement_pb2.DIMENSION_UPLOAD: "upload bit/s",
}


def show_placement(screen: Screen, placement: Placement, *, with_needs: bool) -> None:
    """Shows a decision device by device.

    Args:
        screen: Where to.
        placement: The decision.
        with_needs: Whether to show what each device would have to give.
    """
    rows = [verdict_row(verdict, placement, whole=not screen.terminal) for verdict in placement.verdicts]
    screen.table(VERDICT_COLUMNS, rows, none="There are no devices.")
    for line in omitted_lines(placement):
        screen.paragraph(line, indent="  ")
    if screen.terminal:
        for line in refusal_lines(placement):
            screen.paragraph(clean(line), indent="  ")
    needs = list(need_rows(placement, every_name=not screen.terminal)) if with_needs else []
    if needs:
        screen.line()
        screen.table(NEED_COLUMNS, needs, none="")


def verdict_row(verdict: DeviceVerdict, placement: Placement, *, whole: bool) -> tuple[str, ...]:
    """Gives a device's row.

    Args:
        verdict: Its score or refusal.
        placement: The decision.
        whole: Whether the row tells the whole refusal, or its rule only.
    """
    rule = verdict.refusal.rule
    refused = verdict.WhichOneof("verdict") == "refusal"
    chosen = "chosen" if verdict.device == placement.device else "eligible"
    return (
        device_word(verdict.device),
        "refused" if refused else chosen,
        str(verdict.weight),
        str(verdict.session_count),
        count(verdict.weighted_load_before) if verdict.HasField("weighted_load_before") else UNKNOWN,
        UNKNOWN if refused else count(verdict.score),
        f"{rule}: {clean(verdict.refusal.message)}" if refused and whole else rule,
    )


def omitted_lines(placement: Placement) -> Iterator[str]:
    """Tells of devices that are counted instead of listed."""
    for omitted in placement.omitted_verdicts:
        if omitted.rule:
            yield f"… and {omitted.device_count} more refused ({clean(omitted.rule)})"
        else:
            yield f"… and {omitted.device_count} more could take it, none with a better score"


def need_rows(placement: Placement, *, every_name: bool) -> Iterator[tuple[str, ...]]:
    """Gives a row for each dimension of each device.

    Args:
        placement: The decision.
        every_name: Whether each row names its device, or only the first of each device.
    """
    for verdict in placement.verdicts:
        for number, need in enumerate(verdict.needs):
            name = device_word(verdict.device) if every_name or not number else ""
            then = f"{(need.needed + need.used) / need.bookable:.0%}" if need.bookable else UNKNOWN
            figures = (_amount(need, amount) for amount in (need.needed, need.used, need.bookable))
            yield (name, dimension_words(need), *figures, then)


def dimension_words(need: DimensionNeed | BookedAmount) -> str:
    """Names a dimension with its unit, "host's cores" for instance."""
    words = _DIMENSION_WORDS.get(need.dimension, dimension(need.dimension))
    return f"host's {words}" if need.host else words


def _amount(need: DimensionNeed | BookedAmount, amount: int) -> str:
    if need.dimension in _MILLIONTHS:
        return f"{amount / 1e6:.3f}"
    return count(amount) if need.dimension in _LARGE else str(amount)


def placement_facts(placement: Placement, *, input_is: str = "") -> Iterator[tuple[str, str]]:
    """Gives who decided and what was to be placed; what is unknown has no value.

    Args:
        placement: The decision.
        input_is: What is known of the input. Empty: nothing is said of it.
    """
    workload = placement.workload
    yield "device", device_word(placement.device) if placement.device else "none takes it"
    yield "policy", f"{placement.policy} (settings {placement.settings_version})"
    yield "fault", f"{clean(placement.policy_fault)} So {placement.policy} decided." if placement.policy_fault else ""
    stopped = ", ".join(short_name(name) for name in placement.preempted_sessions)
    yield "preempts", f"{stopped} (stopped and queued again)" if stopped else ""
    yield "input is", input_is
    yield "capture", _capture_words(workload.capture) if workload.HasField("capture") else ""
    yield "decode", _decode_words(workload)
    yield "scale", f"{count(workload.scale_pixels_per_second)} px/s"
    yield "encode", "\n".join(_encode_words(one) for one in workload.encodes)
    yield "upload", f"{count(workload.upload_bits_per_second)}bit/s" if workload.upload_bits_per_second else ""
    yield "cost", f"{count(workload.cost_pixels_per_second)} px/s"
    yield "pace", _pace_words(workload)
    yield "books", ", ".join(_booked_words(one) for one in placement.booked if one.booked != one.kept)


def _capture_words(work: CaptureWork) -> str:
    shown = "a page" if work.browser else "an application"
    return f"{count(work.pixels_per_second)} px/s, {work.width}x{work.height} of {shown}"


def _decode_words(workload: Workload) -> str:
    if not workload.decode_pixels_per_second:
        return "nothing"
    codec = video_codec(workload.decode_codec)
    return f"{count(workload.decode_pixels_per_second)} px/s {codec} {workload.decode_bit_depth} bit"


def _encode_words(work: EncodeWork) -> str:
    parts = [f"{count(work.pixels_per_second)} px/s", video_codec(work.codec), f"{work.bit_depth} bit"]
    if work.width and work.height:
        parts.append(f"{work.width}x{work.height}")
    if work.speed:
        parts.append(encoding_speed(work.speed))
    return " ".join(parts)


def _booked_words(one: BookedAmount) -> str:
    return f"{_amount(one, one.booked)} {dimension_words(one)} (keeps {_amount(one, one.kept)})"


def _pace_words(workload: Workload) -> str:
    if workload.real_time:
        return "real time"
    if workload.HasField("reserved_speed"):
        return f"as fast as there is room, {workload.reserved_speed:g}x real time kept free"
    return "as fast as there is room"
