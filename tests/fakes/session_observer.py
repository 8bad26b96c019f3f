"""An observer that remembers what it heard."""

from __future__ import annotations

from balancer.domain.decision import Decision
from balancer.domain.session import Failure, SessionRecord


class FakeSessionObserver:
    """Keeps everything, in order."""

    def __init__(self) -> None:
        self.admitted: list[tuple[SessionRecord, Decision, float]] = []
        self.refused: list[Decision] = []
        self.not_begun: list[tuple[SessionRecord, Failure]] = []
        self.queued: list[tuple[SessionRecord, Decision]] = []
        self.changed: list[tuple[SessionRecord, SessionRecord]] = []

    def on_admitted(self, record: SessionRecord, decision: Decision, seconds: float) -> None:
        self.admitted.append((record, decision, seconds))

    def on_refused(self, decision: Decision) -> None:
        self.refused.append(decision)

    def on_queued(self, record: SessionRecord, decision: Decision) -> None:
        self.queued.append((record, decision))

    def on_not_begun(self, record: SessionRecord, failure: Failure) -> None:
        self.not_begun.append((record, failure))

    def on_changed(self, before: SessionRecord, after: SessionRecord) -> None:
        self.changed.append((before, after))
