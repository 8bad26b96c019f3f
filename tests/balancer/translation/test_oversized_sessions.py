"""A request of a megabyte holds half a million items; what is too long is counted, refused and not looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from balancer.servicers import session_validation
from balancer.servicers.output_validation import MAX_OUTPUTS
from balancer.servicers.rendition_validation import MAX_RENDITIONS, _free_name
from balancer.servicers.session_validation import draft_session
from balancer.servicers.violations import MAX_VIOLATIONS, Violations
from fakes.session_texts import LADDER, PROFILES, session
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_balancer.v1.session_pb2 import Session

SPEC = "session.transcode"
LOOKS = (
    "_check_frame", "asked_ladder", "check_input", "check_ladder", "check_recording", "fill_in_ladder",
    "fill_in_recording",
)  # fmt: skip
"""All that looks at what is in a list, or copies it."""


def many_renditions(asked: Session) -> None:
    asked.transcode.renditions.extend([media_pb2.Rendition()] * 300_000)


def many_outputs(asked: Session) -> None:
    asked.transcode.outputs.extend([media_pb2.Output()] * 300_000)


def many_names(asked: Session) -> None:
    asked.transcode.outputs.add(renditions=["720p"] * 200_000)


def many_labels(asked: Session) -> None:
    asked.labels.update({f"{number}": "" for number in range(50_000)})


@pytest.mark.parametrize(
    ("enlarge", "field"),
    [
        (many_renditions, f"{SPEC}.renditions"),
        (many_outputs, f"{SPEC}.outputs"),
        (many_names, f"{SPEC}.outputs[0].renditions"),
        (many_labels, "session.labels"),
    ],
)
def test_a_list_that_is_too_long_is_refused_and_not_looked_at(
    enlarge: Callable[[Session], None], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = session(LADDER)
    enlarge(asked)
    looked: list[str] = []
    for name in LOOKS:
        monkeypatch.setattr(session_validation, name, lambda *_, name=name: looked.append(name))
    with pytest.raises(RequestFailure) as caught:
        draft_session(asked, PROFILES)
    assert looked == []
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in caught.value.violations] == [field]


def test_mistakes_beyond_a_hundred_are_counted_only() -> None:
    found = Violations()
    for number in range(5_000):
        found.add(f"field[{number}]", "is wrong")
    with pytest.raises(RequestFailure) as caught:
        found.refuse()
    *told, last = caught.value.violations
    assert [violation.field for violation in told] == [f"field[{number}]" for number in range(MAX_VIOLATIONS)]
    assert "4,900 more" in last.description


def test_a_refusal_does_not_repeat_a_long_name_for_every_mistake() -> None:
    """Every output that names what is not there is told what is, and that may be most of a megabyte."""
    asked = session(LADDER)
    for rendition in asked.transcode.renditions:
        rendition.id = "x" * 50_000 + rendition.id
    names = [f"n{number}" for number in range(MAX_RENDITIONS)]
    asked.transcode.outputs.extend([media_pb2.Output(renditions=names)] * MAX_OUTPUTS)
    with pytest.raises(RequestFailure) as caught:
        draft_session(asked, PROFILES)
    assert max(len(violation.description) for violation in caught.value.violations) < 1_000


class CountingSet(set[str]):
    """Counts how often it is asked."""

    asked = 0

    def __contains__(self, item: object) -> bool:
        self.asked += 1
        return super().__contains__(item)


def test_names_are_made_without_counting_anew_for_each() -> None:
    taken, numbers = CountingSet(), dict[str, int]()
    rendition = media_pb2.Rendition(encode=media_pb2.VideoEncoding(height=720))
    for _ in range(2_000):
        taken.add(_free_name(rendition, taken, numbers))
    assert len(taken) == 2_000
    assert taken.asked <= 3 * 2_000
