"""A balancer beside agents of the next version: what it does not know of is left out, everything else is taken."""

from __future__ import annotations

from google.protobuf.message import Message

from balancer.adapters.agent_translation import agent_from_proto, event_from_proto
from balancer.domain.session_events import AttemptPhase
from balancer.ports.agent_client import AttemptEvent
from gpu_balancer.v1 import agent_service_pb2, device_pb2, media_pb2

_OF_TOMORROW = b"\xc2\xbb\x07\x05hello"
"""Field 15,288, a text: no message has it."""


def of_tomorrow(message: Message) -> None:
    """Gives a message, and every message in it, a field that is not known today."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for inner in [value] if isinstance(value, Message) else value:
                of_tomorrow(inner)
    message.MergeFromString(_OF_TOMORROW)


def attempt_event() -> agent_service_pb2.WatchEventsResponse:
    event = agent_service_pb2.WatchEventsResponse(event_number=7)
    status = event.attempt
    status.id.session, status.id.attempt = "sessions/a", 2
    status.phase = agent_service_pb2.ATTEMPT_PHASE_RUNNING
    status.progress.frames = 5
    status.conditions.add(type="OF_TOMORROW", message="Something new.")
    return event


def agent() -> agent_service_pb2.Agent:
    told = agent_service_pb2.Agent(version="9.9", probed=True, incarnation="x")
    told.identity.id, told.identity.kind = "cpu-0", device_pb2.DEVICE_KIND_CPU
    told.capabilities.add(
        codec=media_pb2.VIDEO_CODEC_H264, direction=device_pb2.CODING_DIRECTION_ENCODE, bit_depth=8, works=True
    )
    return told


def test_fields_of_tomorrow_change_nothing_of_what_is_known_today() -> None:
    for made, read in ((attempt_event, event_from_proto), (agent, agent_from_proto)):
        newer = made()
        of_tomorrow(newer)
        assert newer != made(), "it carries more"
        arrived = type(newer).FromString(newer.SerializeToString())
        assert read(arrived) == read(made())  # type: ignore[operator]


def test_an_event_of_a_kind_of_tomorrow_is_skipped() -> None:
    event = agent_service_pb2.WatchEventsResponse(event_number=7)
    event.MergeFromString(_OF_TOMORROW)
    assert event_from_proto(event) is None
    unknown_phase = attempt_event()
    unknown_phase.attempt.phase = 99  # type: ignore[assignment]
    assert event_from_proto(unknown_phase) is None


def test_a_codec_of_tomorrow_is_no_capability_today() -> None:
    told = agent()
    told.capabilities.add(codec=999, direction=device_pb2.CODING_DIRECTION_ENCODE, works=True)  # type: ignore[arg-type]
    told.capabilities.add(codec=media_pb2.VIDEO_CODEC_H264, direction=99, works=True)  # type: ignore[arg-type]
    assert len(agent_from_proto(told).capabilities) == 1


def test_what_an_agent_of_yesterday_does_not_tell_is_unknown() -> None:
    event = event_from_proto(attempt_event())
    assert event is not None
    assert isinstance(event.body, AttemptEvent)
    report = event.body.report
    assert (report.phase, report.folder, report.measured_use) == (AttemptPhase.RUNNING, "", None)
