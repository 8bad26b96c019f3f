"""Displays in use are bounded, and whoever asked first is served first."""

from __future__ import annotations

import asyncio

import pytest

from agents.displays.places import Places
from fakes.virtual_time import settle


async def test_who_asks_first_is_served_first() -> None:
    places, served = Places(1), []

    async def ask(name: str) -> None:
        await places.take(name)
        served.append(name)

    asking = [asyncio.create_task(ask(name)) for name in ("first", "second", "third")]
    await settle()
    for name in ("first", "second", "third"):
        assert served[-1] == name
        places.give_back(name)
        await settle()
    assert served == ["first", "second", "third"]
    await asyncio.gather(*asking)


async def test_who_gives_up_waiting_leaves_his_turn_to_the_next() -> None:
    places = Places(1)
    await places.take("holder")
    impatient = asyncio.create_task(places.take("impatient"))
    patient = asyncio.create_task(places.take("patient"))
    await settle()
    impatient.cancel()
    await settle()
    places.give_back("holder")
    await patient
    assert places.taken_count == 1


async def test_who_gives_up_at_the_moment_of_his_turn_hands_the_place_on() -> None:
    places = Places(1)
    await places.take("holder")
    unlucky = asyncio.create_task(places.take("unlucky"))
    await settle()
    places.give_back("holder")
    unlucky.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unlucky
    assert places.taken_count == 0


async def test_a_free_place_is_had_at_once_after_all_who_waited_gave_up() -> None:
    places = Places(1)
    await places.take("holder")
    waiting = asyncio.create_task(places.take("waiting"))
    await settle()
    waiting.cancel()
    await settle()
    places.give_back("holder")
    await places.take("newcomer")
    assert places.taken_count == 1


async def test_displays_that_were_taken_over_count_beyond_the_bound() -> None:
    places = Places(1)
    places.adopt("one")
    places.adopt("two")
    waiting = asyncio.create_task(places.take("three"))
    await settle()
    places.give_back("one")
    await settle()
    assert not waiting.done()
    places.give_back("two")
    await waiting


async def test_giving_back_twice_gives_one_place() -> None:
    places = Places(1)
    await places.take("one")
    places.give_back("one")
    places.give_back("one")
    await places.take("two")
    waiting = asyncio.create_task(places.take("three"))
    await settle()
    assert not waiting.done()
    waiting.cancel()
