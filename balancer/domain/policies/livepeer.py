"""The rule of a video network's transcoder nodes, for those who come from it and for comparison.

A session's load is the output pixels per second of its encoded renditions; the device with the lowest load *before*
placing wins, the first one of equals. Known weaknesses are kept, because that is the rule: all cards are taken for
equal, so weights and models count nothing; decoding, formats and encoder speeds cost nothing; and a session that moves
to another device stays in the books of the first one until it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies.load_book import LoadBook
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload


class Livepeer(IndifferentPolicy):
    """Chooses by output pixels per second before placing. Keeps books of its own."""

    def __init__(self) -> None:
        """Begins without sessions."""
        self._book = LoadBook()

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "livepeer"

    @property
    def loads(self) -> Mapping[DeviceId, int]:
        """The load of each device that has any, in output pixels per second."""
        return self._book.loads

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Adds the session's load to its device, unless it is in the books already: then it stays where it was."""
        if session_id not in self._book:
            self._book.add(session_id, device_id, workload.encode_pixels_per_second)

    def on_session_ended(self, session_id: SessionId) -> None:
        """Takes the session's load from the device in whose books it is."""
        self._book.remove(session_id)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the lowest load before placing; see the module."""
        if not candidates:
            raise ValueError("Cannot choose a device: there is no candidate.")
        scores = {one.view.id: self._book.of(one.view.id) for one in candidates}
        return Choice(device_id=min(scores, key=scores.__getitem__), scores=scores)
