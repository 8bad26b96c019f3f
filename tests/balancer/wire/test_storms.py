"""Many requests at once over a socket: each is answered, once, by settings that held, and all of them add up."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

from balancer.adapters.policy_plugins import load_policy
from balancer.domain.ids import SessionId
from balancer.placer import PlacementRules
from fakes.agent_media import FULL_HD
from fakes.balancer_house import BalancerHouse, balancer_house
from fakes.engine_house import rebuilt_ledger, same_ledger
from fakes.session_texts import LADDER, session
from gpu_balancer.v1 import session_service_pb2 as pb

DEVICES = {f"cpu-{number}": 64 for number in range(8)}


async def created(house: BalancerHouse) -> pb.CreateSessionResponse:
    request = pb.CreateSessionRequest(session=session(LADDER))
    request.session.transcode.input.declared_facts.CopyFrom(FULL_HD)
    return await house.sessions.CreateSession(request)


async def test_sixty_four_sessions_asked_for_at_once_go_eight_to_each_of_eight_equal_devices(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices=DEVICES) as house:
        answers = await asyncio.gather(*(created(house) for _ in range(64)))
        counts = Counter(answer.session.device for answer in answers)
        assert counts == {f"devices/{name}": 8 for name in DEVICES}


async def test_settings_that_change_in_the_middle_of_a_hundred_requests_lose_and_double_none(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices=DEVICES) as house:
        asking = [asyncio.create_task(created(house)) for _ in range(100)]
        version = 1
        while not all(task.done() for task in asking):
            version += 1
            house.engine.rules = changed(house.engine.rules, version)
            await asyncio.sleep(0)
        answers = [task.result() for task in asking]
        names = {answer.session.name for answer in answers}
        assert len(names) == 100
        records = [house.engine.get(SessionId(name.removeprefix("sessions/"))) for name in names]
        assert same_ledger(house.engine.ledger, rebuilt_ledger(records), [record.device_id for record in records])  # type: ignore[misc]
        assert version > 2, "they were read again meanwhile"
        for record in records:
            await house.engine.stop(record.id)


def changed(rules: PlacementRules, version: int) -> PlacementRules:
    """Gives the next settings: another policy each time."""
    names = ("least_weighted_load", "round_robin", "adaptive", "wowza")
    return replace(
        rules, policy=load_policy(names[version % len(names)]), settings=replace(rules.settings, version=version)
    )
