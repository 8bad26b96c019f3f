"""Calls of a driver that may hang: answered, failed, left to themselves."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from agents.devices.driver_calls import driver_call, driver_call_within

LONG = timedelta(minutes=1)


def fail() -> int:
    raise LookupError("no such card")


async def test_an_answer_and_an_error_come_through() -> None:
    assert await driver_call(lambda: 7) == 7
    with pytest.raises(LookupError, match="no such card"):
        await driver_call(fail)
    assert driver_call_within(lambda: 7, LONG) == 7
    with pytest.raises(LookupError, match="no such card"):
        driver_call_within(fail, LONG)


async def test_who_leaves_a_call_that_hangs_leaves_a_daemon_behind() -> None:
    answered = threading.Event()
    waiting = asyncio.ensure_future(driver_call(answered.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "driver call"]
    assert thread.daemon
    answered.set()
    await asyncio.to_thread(thread.join)


def test_a_call_that_hangs_is_given_up() -> None:
    answered = threading.Event()
    with pytest.raises(TimeoutError):
        driver_call_within(answered.wait, timedelta(milliseconds=1))
    answered.set()
