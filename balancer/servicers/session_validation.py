"""Checks of a session as its client asks for it. Every mistake is found at once, each with its field's path.

It looks at nothing but the request and the settings' profiles: what the media is, and whether a path may be read or
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
from balancer.servicers.names import shown
from balancer.servicers.output_validation import MAX_OUTPUTS, check_outputs
from balancer.servicers.rendition_validation import MAX_RENDITIONS, check_renditions, rendition_ids
from balancer.servicers.session_defaults import fill_in_input, fill_in_ladder
from balancer.servicers.violations import DAY, SECOND, Violations
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpu_balancer.v1.media_pb2 import Rendition, TranscodeSpec
    from gpu_balancer.v1.session_pb2 import Session

MAX_LABELS = 32
MAX_LABEL_KEY_CHARACTERS = 63
MAX_LABEL_VALUE_CHARACTERS = 255
LONGEST_WAIT = 7 * DAY
LOWEST_RESERVED_SPEED, HIGHEST_RESERVED_SPEED = 0.01, 1000.0
"""In times real time."""

_LINE_BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Controls, line and paragraph separators, and what turns the direction of the text around it. Wide spaces and joiners
are not among them: titles have them."""

SPEC = "session.transcode"
"""Path of the spec in the requests that carry one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDraft:
    """A session that was checked. What its input is has yet to be found out."""

    session: Session
    """What the client may say, nothing else, with profile, names and defaults filled in."""
    input_kind: InputKind
    ladder: Ladder
    """Its renditions and outputs; knows what they cost with inputs that they met."""
    digest: str
    """Hash of what the client said, to tell a retry from another request with the same id."""


def draft_session(
    given: Session, profiles: Mapping[str, Sequence[Rendition]], ladders: LadderMemory | None = None
) -> SessionDraft:
    """Checks a session and fills it in.

    Args:
        given: As the client asks for it; output-only fields are ignored.
        profiles: Every ladder of the settings by its name.
        ladders: Remembers ladders that were checked. None: every one is checked anew.

    Returns:
        The draft.

    Raises:
        RequestFailure: INVALID_REQUEST with every violation; PROFILE_UNKNOWN when that alone is wrong.
    """
    found = Violations()
    if given.WhichOneof("spec") != "transcode":
        found.add(SPEC, "must say what is to be done")
        found.refuse()
    _refuse_oversized(found, given)
    session = session_pb2.Session(
        transcode=given.transcode,
        priority=given.priority,
        labels=given.labels,
        max_duration=given.max_duration if given.HasField("max_duration") else None,
        max_wait=given.max_wait if given.HasField("max_wait") else None,
        preemptible=given.preemptible,
        reserved_speed=given.reserved_speed if given.HasField("reserved_speed") else None,
    )
    digest = hashlib.sha256(session.SerializeToString(deterministic=True)).hexdigest()
    _check_frame(found, given)
    input_kind = check_input(found, f"{SPEC}.input", given.transcode.input)
    live = given.transcode.input.native_rate or input_kind in (InputKind.LIVE, InputKind.INGEST)
    check_pace(found, given, live=live)
    asked = asked_ladder(given.transcode)
    ladder = ladders.known(asked, profiles) if ladders is not None else None
    if ladder is None:
        _check_ladder(found, session.transcode, profiles)
    found.refuse()
    assert input_kind is not None, "an input without violations has a kind"
    if ladder is not None:
        ladder.fill_in(session.transcode)
    else:
        fill_in_ladder(session.transcode)
        ladder = Ladder(session.transcode)
        if ladders is not None:
            ladders.keep(asked, ladder)
    fill_in_input(session.transcode.input)
    return SessionDraft(session=session, input_kind=input_kind, ladder=ladder, digest=digest)


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
    spec = given.transcode
    found.check_count("session.labels", given.labels, MAX_LABELS)
    found.check_count(f"{SPEC}.renditions", spec.renditions, MAX_RENDITIONS)
    found.check_count(f"{SPEC}.outputs", spec.outputs, MAX_OUTPUTS)
    for index, output in enumerate(spec.outputs[:MAX_OUTPUTS]):
        found.check_count(f"{SPEC}.outputs[{index}].renditions", output.renditions, MAX_RENDITIONS)
    found.refuse()


def _check_frame(found: Violations, given: Session) -> None:
    """Checks what is not about media."""
    found.check_enum("session.priority", given.priority, PRIORITY_WORDS)
    if given.HasField("max_duration"):
        found.check_duration("session.max_duration", given.max_duration, SECOND, 366 * DAY)
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


def _check_ladder(found: Violations, spec: TranscodeSpec, profiles: Mapping[str, Sequence[Rendition]]) -> None:
    """Checks renditions and outputs; a profile's renditions take their place in `spec`."""
    where = f"{SPEC}.renditions"
    profile = spec.profile
    if profile and spec.renditions:
        found.add(f"{SPEC}.profile", "must not be given with renditions: one of them rules")
    elif profile and profile not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        found.add(f"{SPEC}.profile", f"must be one of the settings' profiles: {known}", reason=Reason.PROFILE_UNKNOWN)
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
    used = check_outputs(found, f"{SPEC}.outputs", spec.outputs, by_name)
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
