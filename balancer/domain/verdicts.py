"""What a decision says of each device: made from what was seen when it was made, at the time when somebody looks.

Most decisions are only acted upon. Sentences and figures for people are worth nothing then, and among many devices they
would cost more than the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from balancer.domain.decision import Need, Refusal, Verdict
from balancer.domain.device import DeviceView, Dimension
from balancer.domain.ids import DeviceId
from balancer.domain.offers import RATES, Offer, amount_in_words


class Look(NamedTuple):
    """A device in the moment of a decision. What was taken is a copy: the ledger moves on."""

    view: DeviceView
    offer: Offer | None
    """None: it cannot do it however empty it is, or takes nothing now; the refusal says why."""
    refusal: Refusal | None
    """What speaks against it apart from room."""
    takes: bool
    """Whether it can take the session."""
    cost: int
    session_count: int
    device_used: tuple[int, ...]
    """What was taken of each needed dimension, by what counts for the session."""
    host_used: tuple[int, ...]
    stands_for: int
    """How many devices like it there are for each that is looked at, itself counted."""


class Verdicts(Sequence[Verdict]):
    """The verdicts of a decision, in device order; made at the first look."""

    __slots__ = ("_admission", "_highest_weight", "_looks", "_made", "_scores")

    def __init__(
        self, looks: Sequence[Look], *, scores: Mapping[DeviceId, int], highest_weight: int, admission: bool
    ) -> None:
        """Takes what was seen.

        Args:
            looks: Every device that was looked at, in device order.
            scores: By the policy.
            highest_weight: Of all devices.
            admission: Whether a device without room refused.
        """
        self._looks = looks
        self._scores = scores
        self._highest_weight = highest_weight
        self._admission = admission
        self._made: tuple[Verdict, ...] | None = None

    def __len__(self) -> int:
        return len(self._looks)

    @overload
    def __getitem__(self, index: int) -> Verdict: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Verdict, ...]: ...
    def __getitem__(self, index: int | slice) -> Verdict | tuple[Verdict, ...]:
        return self._all()[index]

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Verdicts):
            return self._all() == other._all()
        return self._all() == other

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def _all(self) -> tuple[Verdict, ...]:
        if self._made is None:
            self._made = tuple([self._verdict(look) for look in self._looks])
        return self._made

    def _verdict(self, look: Look) -> Verdict:
        view, offer, _, takes, cost, session_count, device_used, host_used, _ = look
        device_id, weight = view.identity.id, view.weight
        return Verdict(
            device_id,
            weight,
            session_count,
            cost * self._highest_weight // weight if weight else None,
            self._scores.get(device_id) if takes else None,
            None if takes else self._refusal(look),
            offer.device_needs if offer is not None else (),
            device_used,
            offer.host_needs if offer is not None else (),
            host_used,
        )

    def _refusal(self, look: Look) -> Refusal | None:
        """Gives the first rule that speaks against a device; that it is kept for others comes last."""
        offer = look.offer
        if offer is None:
            return look.refusal
        return (
            _no_room(offer.device_needs, look.device_used, "It", admission=self._admission)
            or (offer.too_fast if self._admission else None)
            or _no_room(offer.host_needs, look.host_used, "Its host", admission=self._admission)
            or look.refusal
        )


def _no_room(needs: tuple[Need, ...], used: tuple[int, ...], whose: str, *, admission: bool) -> Refusal | None:
    """Refuses by the first dimension that lacks room, encoder sessions before all others."""
    full: Refusal | None = None
    for (dimension, needed, bookable), taken in zip(needs, used, strict=True):
        available = bookable - taken
        if needed <= available or not (admission or dimension not in RATES):
            continue
        refusal = _lacking(dimension, needed, max(0, available), whose, bookable=bookable)
        if refusal.rule == "ENCODER_SESSIONS":
            return refusal
        full = full or refusal
    return full


def _lacking(dimension: Dimension, needed: int, available: int, whose: str, *, bookable: int) -> Refusal:
    if dimension is Dimension.ENCODER_SESSIONS:
        rule = "ENCODER_SESSIONS"
    else:
        rule = "CAPACITY" if whose == "It" else "HOST_CAPACITY"
    never = needed > bookable
    has = f"has {amount_in_words(dimension, available)} left"
    if never:
        has = f"has only {amount_in_words(dimension, bookable)} when nothing runs"
    return Refusal(
        rule=rule,
        message=f"{whose} {has}, and the session needs {amount_in_words(dimension, needed)}.",
        dimension=dimension,
        needed=needed,
        available=available,
        permanent=never,
        host=whose != "It",
    )
