"""Sessions that wait for a device, as their clients see them over a real wire."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fakes.agent_media import FULL_HD
from fakes.balancer_house import BalancerHouse, balancer_house, failure_of
from fakes.session_texts import LADDER, session
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.v1 import placement_pb2, session_pb2
from gpu_balancer.v1 import session_service_pb2 as pb
from gpu_balancer.v1.balancer_service_pb2 import GetBalancerRequest

QUEUED = session_pb2.SESSION_STATE_QUEUED


def live(more: str = "", request_id: str = "") -> pb.CreateSessionRequest:
    """Asks for a ladder in real time, of which four cores carry one."""
    asked = session(f"priority: PRIORITY_LIVE {LADDER} {more}")
    asked.transcode.input.declared_facts.CopyFrom(FULL_HD)
    return pb.CreateSessionRequest(session=asked, request_id=request_id)


async def filled(house: BalancerHouse) -> str:
    """Takes all the room there is, and gives who has it."""
    return (await house.sessions.CreateSession(live())).session.name


async def test_a_session_that_may_wait_is_told_its_place_and_what_it_waits_for(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 4}) as house:
        await filled(house)
        asked = (await house.sessions.CreateSession(live("max_wait { seconds: 600 }", "once"))).session
        assert (asked.state, asked.device, asked.attempt) == (QUEUED, "", 0)
        assert asked.queue.deadline.ToDatetime() - asked.queue.queued_time.ToDatetime() == timedelta(minutes=10)
        watch = house.sessions.WatchSession(pb.WatchSessionRequest(name=asked.name))
        async for change in watch:
            if change.session.queue.position:
                break
        assert change.session.queue.position == 1
        assert "cpu-0: It has" in change.session.queue.message
        watch.cancel()
        again = (await house.sessions.CreateSession(live("max_wait { seconds: 600 }", "once"))).session
        assert again.name == asked.name, "a retry does not wait twice"
        summary = (await house.balancer.GetBalancer(GetBalancerRequest())).queue
        assert (summary.live_count, summary.batch_count) == (1, 0)
        assert summary.max_sessions > 0
        assert summary.HasField("longest_wait")


async def test_the_refusal_that_sent_a_session_into_the_queue_is_kept(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 4}) as house:
        first = await filled(house)
        second = (await house.sessions.CreateSession(live("max_wait { seconds: 600 }"))).session.name
        (placed,) = (await house.sessions.ExplainSession(pb.ExplainSessionRequest(name=first))).placements
        (refused,) = (await house.sessions.ExplainSession(pb.ExplainSessionRequest(name=second))).placements
        assert (placed.device, placed.attempt) == ("devices/cpu-0", 1)
        assert (refused.device, refused.verdicts[0].refusal.rule) == ("", "CAPACITY")
        [cores] = [
            need
            for need in refused.verdicts[0].needs
            if need.dimension == placement_pb2.DIMENSION_CORES and not need.host
        ]
        assert cores.needed + cores.used > cores.bookable


async def test_a_session_that_waits_is_cancelled_at_once(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 4}) as house:
        await filled(house)
        name = (await house.sessions.CreateSession(live("max_wait { seconds: 600 }"))).session.name
        stopped = (await house.sessions.StopSession(pb.StopSessionRequest(name=name))).session
        assert stopped.state == session_pb2.SESSION_STATE_CANCELLED
        assert not stopped.HasField("queue")
        assert (await house.balancer.GetBalancer(GetBalancerRequest())).queue.live_count == 0


@pytest.mark.parametrize("more", ["", "max_wait {}"])
async def test_who_does_not_wait_is_refused(tmp_path: Path, more: str) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 4}) as house:
        await filled(house)
        assert (await failure_of(house.sessions.CreateSession(live(more)))).reason is Reason.NO_CAPACITY


async def test_a_full_queue_refuses_with_every_devices_refusal_and_when_to_come_again(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 4}) as house:
        await filled(house)
        limit = (await house.balancer.GetBalancer(GetBalancerRequest())).queue.max_sessions
        for _ in range(limit):
            await house.sessions.CreateSession(live("max_wait { seconds: 600 }"))
        failure = await failure_of(house.sessions.CreateSession(live("max_wait { seconds: 600 }")))
        assert failure.reason is Reason.QUEUE_FULL
        assert failure.retry_after is not None
        (placement,) = failure.details
        assert isinstance(placement, placement_pb2.Placement)
        assert placement.verdicts[0].refusal.rule == "CAPACITY"
