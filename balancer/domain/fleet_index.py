"""Finds the devices worth looking at among very many, without looking at them all.

Devices that differ in nothing but who they are make a class, and large fleets are of few classes. What a session
takes is worked out once per class. Within a class the members are kept in the order of what is booked on them, and by
what is used in each dimension; both orders follow the ledger as it changes. So a decision looks at the least and the
most booked members of each class that have room, and counts the rest.

For a policy that goes by what is booked that is exact: no other member of a class can be better than its first that has
room. The default one does, for as long as no large session is shut out. Policies that go by something else see a few
good devices of each class.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from balancer.domain.capacity import shares_session_cap
from balancer.domain.device import DeviceView, Dimension

if TYPE_CHECKING:
    from balancer.domain.decision import Need
    from balancer.domain.ids import DeviceId
    from balancer.domain.ledger import Ledger

FULL_LOOK = 256
"""Up to so many devices every one is looked at, and told of, at each decision."""
_LOOKED_AT = 64
"""Members of a class that are tried in the order of what is booked, from either end, before dimensions are searched."""
_SHOWN = 2
"""Members with room that are shown of a class, from either end."""

_Fits = Callable[[int], bool]
"""Whether the device at a place has room."""
_Order = tuple[int, int, int]
"""What is booked on a device, its sessions, its place in the fleet."""


@dataclass(slots=True)
class DeviceClass:
    """Devices that differ in nothing but who they are."""

    number: int
    representative: DeviceView
    order: list[_Order] = field(default_factory=list)
    """Members, least booked first."""
    by_use: dict[Dimension, list[tuple[int, int]]] = field(default_factory=dict)
    """Use of each limited dimension that does not yield, and place, least used first."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a device stands in its class now."""

    order: _Order
    use: dict[Dimension, int]
    """Of each limited dimension, without what yields."""


class FleetIndex:
    """Keeps classes and orders up to date."""

    def __init__(self, ledger: Ledger) -> None:
        """Begins without devices.

        Args:
            ledger: What is booked; the index follows it from now on.
        """
        self._ledger = ledger
        self._views: Sequence[DeviceView] = ()
        self._places: dict[DeviceId, int] = {}
        self._classes: dict[Hashable, DeviceClass] = {}
        self._class_of: list[DeviceClass] = []
        self._standings: list[_Standing] = []
        self._changed: set[DeviceId] = set()
        ledger.listen(self._changed.add)

    def update(self, views: Sequence[DeviceView]) -> None:
        """Takes the devices as they are.

        Args:
            views: All devices, in device order. Where a view is the very one that was there before, nothing is done.
        """
        if len(views) != len(self._views) or any(old.id != new.id for old, new in zip(self._views, views, strict=True)):
            self._begin_anew(views)
            return
        for place, (old, new) in enumerate(zip(self._views, views, strict=True)):
            if old is not new:
                self._take_out(place)
                self._class_of[place] = self._class_for(new)
                self._put_in(place, new)
        self._views = views

    def classes(self) -> Collection[DeviceClass]:
        """Gives all classes, as the ledger is now. Some may have no members any more."""
        changed = [place for device_id in self._changed if (place := self._places.get(device_id)) is not None]
        self._changed.clear()
        for place in changed:
            self._take_out(place)
            self._put_in(place, self._views[place])
        return self._classes.values()

    def with_room(
        self, members: DeviceClass, needs: Sequence[Need], *, real_time: bool, closed: Collection[DeviceId]
    ) -> list[int]:
        """Finds members of a class with room: its least booked ones, and its most booked ones.

        Args:
            members: The class.
            needs: What a session needs of a member.
            real_time: Whether what yields makes room for it.
            closed: Devices that do not count.

        Returns:
            Places of devices; empty when no member has room.
        """
        if any(self._count_with(members, need) == 0 for need in needs):
            return []

        def fits(place: int) -> bool:
            return self._fits(place, needs, real_time=real_time, closed=closed)

        least = _first(fits, (entry[2] for entry in members.order[:_LOOKED_AT]))
        most = _first(fits, (entry[2] for entry in reversed(members.order[-_LOOKED_AT:])))
        if not least:
            least = self._searched(members, needs, fits)
        return list(dict.fromkeys((*least, *most)))

    def _searched(self, members: DeviceClass, needs: Sequence[Need], fits: _Fits) -> list[int]:
        """Tries every member that has room in the dimension in which fewest have; the least booked first."""
        if not needs:
            return _first(fits, (entry[2] for entry in members.order))
        scarcest = min(needs, key=lambda need: self._count_with(members, need))
        uses = members.by_use[scarcest[0]][: self._count_with(members, scarcest)]
        orders = sorted(self._standings[place].order for _, place in uses)
        return _first(fits, (entry[2] for entry in orders))

    def _count_with(self, members: DeviceClass, need: Need) -> int:
        dimension, needed, bookable = need
        uses = members.by_use.get(dimension)
        if uses is None:
            return 0 if needed > bookable else len(members.order)
        return bisect_right(uses, (bookable - needed, len(self._views)))

    def _fits(self, place: int, needs: Sequence[Need], *, real_time: bool, closed: Collection[DeviceId]) -> bool:
        if closed and self._views[place].id in closed:
            return False
        taken = self._standings[place].use if real_time else self._ledger.used(self._views[place].id)
        for dimension, needed, bookable in needs:  # noqa: SIM110 - a generator takes twice as long
            if taken.get(dimension, 0) + needed > bookable:
                return False
        return True

    def _begin_anew(self, views: Sequence[DeviceView]) -> None:
        self._views = views
        self._places = {view.id: place for place, view in enumerate(views)}
        self._classes = {}
        self._class_of = [self._class_for(view) for view in views]
        self._standings = [self._standing(place, view) for place, view in enumerate(views)]
        self._changed.clear()
        for place, members in enumerate(self._class_of):
            members.order.append(self._standings[place].order)
            for dimension, use in self._standings[place].use.items():
                members.by_use.setdefault(dimension, []).append((use, place))
        for members in self._classes.values():
            members.order.sort()
            for uses in members.by_use.values():
                uses.sort()

    def _class_for(self, view: DeviceView) -> DeviceClass:
        key = class_key(view)
        members = self._classes.get(key)
        if members is None:
            members = self._classes[key] = DeviceClass(len(self._classes), view)
        return members

    def _standing(self, place: int, view: DeviceView) -> _Standing:
        ledger, device_id = self._ledger, view.id
        used, yielding = ledger.used(device_id), ledger.yielding(device_id)
        return _Standing(
            order=(ledger.cost(device_id), ledger.session_count(device_id), place),
            use={dimension: used.get(dimension, 0) - yielding.get(dimension, 0) for dimension in view.capacity.limits},
        )

    def _take_out(self, place: int) -> None:
        members, standing = self._class_of[place], self._standings[place]
        del members.order[bisect_left(members.order, standing.order)]
        for dimension, use in standing.use.items():
            uses = members.by_use[dimension]
            del uses[bisect_left(uses, (use, place))]

    def _put_in(self, place: int, view: DeviceView) -> None:
        members = self._class_of[place]
        standing = self._standings[place] = self._standing(place, view)
        insort(members.order, standing.order)
        for dimension, use in standing.use.items():
            insort(members.by_use.setdefault(dimension, []), (use, place))


def _first(fits: _Fits, places: Iterator[int]) -> list[int]:
    found: list[int] = []
    for place in places:
        if fits(place):
            found.append(place)
            if len(found) == _SHOWN:
                break
    return found


def class_key(view: DeviceView) -> Hashable:
    """Gives all of a device that placement looks at, but who it is."""
    capacity, ability = view.capacity, view.recording
    return (
        view.identity.kind,
        # Programs on chips for computing take less memory.
        view.identity.encoder_engines == 0,
        view.state,
        view.weight,
        view.builds,
        # When and how its sound was measured would make a class of each device.
        replace(ability, sound_timing=None) if ability is not None else None,
        tuple(capacity.limits.items()),
        tuple(capacity.decode_rates.items()),
        tuple(capacity.encode_rates.items()),
        capacity.scale_rate,
        shares_session_cap(view.identity),
    )
