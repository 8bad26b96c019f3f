"""Ladders that were asked for: renditions and outputs, checked and filled in, by what their clients said.

Clients ask for the same few ladders again and again, of ever other inputs. To check a ladder and to fill it in is most
of what a request costs, and depends on nothing but the ladder and the settings' profiles; so it is done once for each.
What was refused is not kept: nobody is in a hurry to hear of a mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from balancer.domain.workload import Workload
    from gpu_balancer.v1.media_pb2 import InputFacts, Rendition, TranscodeSpec

KEPT_LADDERS = 64
KEPT_WORKLOADS = 32
"""Per ladder: inputs differ in size, rate and format, and not much."""
LONGEST_LADDER_BYTES = 8_192
"""Longer ones are not kept: they name places of their own, and nobody asks for them twice."""


class Ladder:
    """A ladder that was checked and filled in, and what it costs with the inputs that it met."""

    __slots__ = ("_filled", "_workloads")

    def __init__(self, filled: TranscodeSpec) -> None:
        """Takes a copy of a transcode that is filled in; its input is left out."""
        self._filled = _without_input(filled)
        self._workloads: dict[tuple[bytes, bool], Workload] = {}

    def fill_in(self, spec: TranscodeSpec) -> None:
        """Puts the ladder in the place of what its client said; the input stays."""
        given = media_pb2.Input()
        given.CopyFrom(spec.input)
        spec.CopyFrom(self._filled)
        spec.input.CopyFrom(given)

    def workload(self, facts: InputFacts, *, real_time: bool) -> Workload | None:
        """Gives what the ladder costs with an input. None: it did not meet such an input yet."""
        return self._workloads.get((_shape_of(facts), real_time))

    def keep(self, facts: InputFacts, workload: Workload) -> None:
        """Notes what the ladder costs with an input that it was checked against."""
        if len(self._workloads) >= KEPT_WORKLOADS:
            del self._workloads[next(iter(self._workloads))]
        self._workloads[_shape_of(facts), workload.real_time] = workload


class LadderMemory:
    """Keeps the ladders that were asked for last."""

    def __init__(self, *, kept_ladders: int = KEPT_LADDERS) -> None:
        """Begins empty.

        Args:
            kept_ladders: How many are kept, at least 1.
        """
        self._kept_ladders = kept_ladders
        self._profiles: Mapping[str, Sequence[Rendition]] | None = None
        self._known: dict[bytes, Ladder] = {}

    def known(self, asked: bytes, profiles: Mapping[str, Sequence[Rendition]]) -> Ladder | None:
        """Gives a ladder that was asked for before, under the same profiles. None: it was not, or is forgotten."""
        if profiles is not self._profiles:
            self._profiles = profiles
            self._known.clear()
        ladder = self._known.pop(asked, None)
        if ladder is not None:
            self._known[asked] = ladder
        return ladder

    def keep(self, asked: bytes, ladder: Ladder) -> None:
        """Notes a ladder that `known` did not know; what was not asked for the longest is forgotten."""
        if len(asked) > LONGEST_LADDER_BYTES:
            return
        if len(self._known) >= self._kept_ladders:
            del self._known[next(iter(self._known))]
        self._known[asked] = ladder


def asked_ladder(spec: TranscodeSpec) -> bytes:
    """Gives all that a client said of a transcode, apart from its input."""
    return _without_input(spec).SerializeToString(deterministic=True)


def _without_input(spec: TranscodeSpec) -> TranscodeSpec:
    ladder = media_pb2.TranscodeSpec()
    ladder.CopyFrom(spec)
    ladder.ClearField("input")
    return ladder


def _shape_of(facts: InputFacts) -> bytes:
    """Gives all that is known of an input, apart from its length, on which nothing of a workload depends."""
    shape = media_pb2.InputFacts()
    shape.CopyFrom(facts)
    shape.ClearField("duration")
    return shape.SerializeToString(deterministic=True)
