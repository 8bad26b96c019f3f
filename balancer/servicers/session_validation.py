"""Checks of a session as its client asks for it. Every mistake is found at once, each with its field's path.

It looks at nothing but the request and the settings: what the media is, and whether a path may be read or
written, its agent knows. What comes out is a draft with profile, names and defaults filled in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer.servicers.contract_words import PRIORITY_WORDS
from balancer.servicers.input_validation import InputKind, check_input
from balancer.servicers.ladder_memory import Ladder, LadderMemory, asked_ladder
from balancer.servicers.ladder_validation import check_ladder
from balancer.servicers.output_validation import MAX_OUTPUTS
from balancer.servicers.recording_defaults import fill_in_recording
from balancer.servicers.recording_rules import RecordingRules
from balancer.servicers.recording_validation import check_recording, refuse_oversized_recording
from balancer.servicers.rendition_validation import MAX_RENDITIONS
from balancer.servicers.restart_policies import MAX_REASONS, check_restart
from balancer.servicers.session_defaults import fill_in_input, fill_in_ladder
from balancer.servicers.session_specs import RECORDING, TRANSCODE, is_recording, spec_path
from balancer.servicers.violations import DAY, SECOND, Violations
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpu_balancer.v1.media_pb2 import Rendition
    from gpu_balancer.v1.session_pb2 import Session

MAX_LABELS = 32
MAX_LABEL_KEY_CHARACTERS = 63
MAX_LABEL_VALUE_CHARACTERS = 255
LONGEST_WAIT = 7 * DAY
SHORTEST_DURATION, LONGEST_DURATION = SECOND, 366 * DAY
LOWEST_RESERVED_SPEED, HIGHEST_RESERVED_SPEED = 0.01, 1000.0
"""In times real time."""

_LINE_BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Controls, line and paragraph separators, and what turns the direction of the text around it. Wide spaces and joiners
are not among them: titles have them."""

_SPECS = ("transcode", "recording")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDraft:
    """A session that was checked. What its input is has yet to be found out."""

    session: Session
    """What the client may say, nothing else, with profile, names and defaults filled in."""
    input_kind: InputKind | None
    """None: it has no input; it is a recording."""
    ladder: Ladder | None
    """Its renditions and outputs; knows what they cost with inputs that they met. None: it is a recording."""
    digest: str
    """Hash of what the client said, to tell a retry from another request with the same id."""


def draft_session(
    given: Session,
    profiles: Mapping[str, Sequence[Rendition]],
    ladders: LadderMemory | None = None,
    *,
    rules: RecordingRules | None = None,
) -> SessionDraft:
    """Checks a session and fills it in.

    Args:
        given: As the client asks for it; output-only fields are ignored.
        profiles: Every ladder of the settings by its name.
        ladders: Remembers ladders that were checked. None: every one is checked anew.
        rules: What the settings say of recordings. None: what they say where nothing is given.

    Returns:
        The draft.

    Raises:
        RequestFailure: INVALID_REQUEST with every violation; PROFILE_UNKNOWN when that alone is wrong.
    """
    found = Violations()
    if given.WhichOneof("spec") not in _SPECS:
        found.add(TRANSCODE, f"must say what is to be done, here or in {RECORDING}")
        found.refuse()
    _refuse_oversized(found, given)
    session = session_pb2.Session(
        priority=given.priority,
        labels=given.labels,
        max_duration=given.max_duration if given.HasField("max_duration") else None,
        max_wait=given.max_wait if given.HasField("max_wait") else None,
        preemptible=given.preemptible,
        reserved_speed=given.reserved_speed if given.HasField("reserved_speed") else None,
        restart=given.restart if given.HasField("restart") else None,
    )
    if is_recording(given):
        session.recording.CopyFrom(given.recording)
    else:
        session.transcode.CopyFrom(given.transcode)
    digest = hashlib.sha256(session.SerializeToString(deterministic=True)).hexdigest()
    _check_frame(found, given)
    if is_recording(given):
        _draft_recording(found, session, profiles, rules or RecordingRules())
        return SessionDraft(session=session, input_kind=None, ladder=None, digest=digest)
    input_kind, ladder = _draft_transcode(found, session, profiles, ladders)
    return SessionDraft(session=session, input_kind=input_kind, ladder=ladder, digest=digest)


def _draft_transcode(
    found: Violations,
    session: Session,
    profiles: Mapping[str, Sequence[Rendition]],
    ladders: LadderMemory | None,
) -> tuple[InputKind, Ladder]:
    """Checks and fills in a transcode; gives how its input comes in, and its ladder."""
    spec = session.transcode
    input_kind = check_input(found, f"{TRANSCODE}.input", spec.input)
    check_restart(found, session, input_kind)
    live = spec.input.native_rate or input_kind in (InputKind.LIVE, InputKind.INGEST)
    check_pace(found, session, live=live)
    asked = asked_ladder(spec)
    ladder = ladders.known(asked, profiles) if ladders is not None else None
    if ladder is None:
        check_ladder(found, TRANSCODE, spec, profiles)
    found.refuse()
    assert input_kind is not None, "an input without violations has a kind"
    if ladder is not None:
        ladder.fill_in(spec)
    else:
        fill_in_ladder(spec)
        ladder = Ladder(spec)
        if ladders is not None:
            ladders.keep(asked, ladder)
    fill_in_input(spec.input)
    return input_kind, ladder


def _draft_recording(
    found: Violations, session: Session, profiles: Mapping[str, Sequence[Rendition]], rules: RecordingRules
) -> None:
    """Checks and fills in a recording."""
    if session.priority == session_pb2.PRIORITY_BATCH:
        found.add("session.priority", "must be LIVE for a recording, or unset: what it misses is gone")
    check_pace(found, session, live=True)
    check_restart(found, session, None)
    check_recording(found, session.recording, profiles, rules)
    found.refuse()
    fill_in_recording(session.recording)


def check_pace(found: Violations, session: Session, *, live: bool) -> None:
    """Notes what may be asked only for work that need not keep up with anything.

    Args:
        found: What was found so far.
        session: Its priority may still be open.
        live: Whether its input is known to set the pace.
    """
    asked_live = session.priority == session_pb2.PRIORITY_LIVE
    if session.preemptible and (asked_live or (live and session.priority != session_pb2.PRIORITY_BATCH)):
        found.add("session.preemptible", "must be false for LIVE work, which nothing may stop; priority BATCH may be")
    if session.HasField("reserved_speed") and (asked_live or live):
        told = "must be unset for what is bound to real time: a live input, native_rate or priority LIVE keeps speed 1"
        found.add("session.reserved_speed", told)


def _refuse_oversized(found: Violations, given: Session) -> None:
    """Refuses lists that are too long, before anything is done with them: a megabyte holds half a million items.

    Raises:
        RequestFailure: INVALID_REQUEST with every such list.
    """
    found.check_count("session.labels", given.labels, MAX_LABELS)
    found.check_count("session.restart.reasons", given.restart.reasons, MAX_REASONS)
    where, spec = spec_path(given), given.recording if is_recording(given) else given.transcode
    found.check_count(f"{where}.renditions", spec.renditions, MAX_RENDITIONS)
    found.check_count(f"{where}.outputs", spec.outputs, MAX_OUTPUTS)
    for index, output in enumerate(spec.outputs[:MAX_OUTPUTS]):
        found.check_count(f"{where}.outputs[{index}].renditions", output.renditions, MAX_RENDITIONS)
    if is_recording(given):
        refuse_oversized_recording(found, given.recording)
    found.refuse()


def _check_frame(found: Violations, given: Session) -> None:
    """Checks what is not about media."""
    found.check_enum("session.priority", given.priority, PRIORITY_WORDS)
    if given.HasField("max_duration"):
        found.check_duration("session.max_duration", given.max_duration, SHORTEST_DURATION, LONGEST_DURATION)
    if given.HasField("max_wait"):
        found.check_duration("session.max_wait", given.max_wait, 0, LONGEST_WAIT)
    # Put so that NaN, which is within no bounds, is refused.
    speed = given.reserved_speed if given.HasField("reserved_speed") else 1.0
    if not LOWEST_RESERVED_SPEED <= speed <= HIGHEST_RESERVED_SPEED:
        bounds = f"{LOWEST_RESERVED_SPEED:g} to {HIGHEST_RESERVED_SPEED:,.0f} times real time"
        found.add("session.reserved_speed", f"must be {bounds}, not {speed:g}")
    for key, value in given.labels.items():
        if not 1 <= len(key) <= MAX_LABEL_KEY_CHARACTERS or not key.isprintable():
            told = f"must have keys of 1 to {MAX_LABEL_KEY_CHARACTERS} printable characters"
            found.add("session.labels", f"{told}, not {key[:MAX_LABEL_KEY_CHARACTERS]!a}")
        elif len(value) > MAX_LABEL_VALUE_CHARACTERS:
            told = f"must be at most {MAX_LABEL_VALUE_CHARACTERS} characters, not {len(value):,}"
            found.add(f"session.labels[{key!r}]", told)
        elif _LINE_BREAKING.search(value):
            found.add(f"session.labels[{key!r}]", "must not have control characters or line breaks")
