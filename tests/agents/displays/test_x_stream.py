"""What X clients and servers say is taken apart, however it arrives, and numbered as if nothing were injected."""

from __future__ import annotations

import struct

import pytest

from agents.displays.x_stream import Answers, Requests


def introduction(order: str = "<", *, name: bytes = b"COOKIE", proof: bytes = b"12345") -> bytes:
    first = b"l" if order == "<" else b"B"
    fields = struct.pack(f"{order}xHHHHxx", 11, 0, len(name), len(proof))
    return first + fields + name.ljust(8, b"\0") + proof.ljust(8, b"\0")


def request(opcode: int, *words: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}BBH{len(words)}I", opcode, 0, 1 + len(words), *words)


def answer(number: int, *, kind: int = 1, words: int = 0) -> bytes:
    return struct.pack("<BBHI24x", kind, 0, number % 65_536, words) + bytes(4 * words)


def number_of(message: bytes) -> int:
    (number,) = struct.unpack_from("<H", message, 2)
    return int(number)


def begun() -> Answers:
    """The answers of a server that has just let a client in."""
    answers = Answers()
    welcome = struct.pack("<BxHHH", 1, 11, 0, 3) + bytes(12)
    assert answers.feed(welcome[:10]) + answers.feed(welcome[10:]) == [welcome]
    return answers


def sent(answers: Answers, *injected: bool) -> None:
    for one in injected:
        answers.note_request(injected=one)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_requests_come_whole_and_in_order_however_they_arrive(order: str, step: int) -> None:
    long = struct.pack(f"{order}BBHI", 130, 4, 0, 4) + bytes(8)
    messages = [introduction(order), request(98, 1, 2, order=order), long, request(43, order=order)]
    said = b"".join(messages)
    requests, found = Requests(), []
    for start in range(0, len(said), step):
        found += requests.feed(said[start : start + step])
    assert found == messages
    assert requests.order == {"<": "little", ">": "big"}[order]


def test_a_request_without_a_length_does_not_keep_the_gate_busy_for_ever() -> None:
    requests = Requests()
    messages = requests.feed(introduction() + struct.pack("<BBHI", 130, 4, 0, 0))
    assert [len(message) for message in messages] == [28, 4]


@pytest.mark.parametrize("step", [1, 1000])
def test_answers_are_numbered_as_if_nothing_were_injected(step: int) -> None:
    answers = begun()
    sent(answers, True, False, False, True, False)
    told = [answer(1), answer(2, words=3), answer(3, kind=0), answer(3, kind=35, words=2), answer(4, kind=0), answer(5)]
    stream = b"".join(told)
    passed = [one for start in range(0, len(stream), step) for one in answers.feed(stream[start : start + step])]
    assert passed == [answer(1, words=3), answer(2, kind=0), answer(2, kind=35, words=2), answer(3)]


def test_numbers_go_on_beyond_sixteen_bits() -> None:
    answers = begun()
    for number in range(2, 200_000, 2):
        sent(answers, True, False)
        (passed,) = answers.feed(answer(number - 1) + answer(number))
        assert number_of(passed) == number // 2 % 65_536


def test_events_have_the_number_of_the_latest_request_and_some_have_none() -> None:
    answers = begun()
    sent(answers, False, True)
    assert answers.feed(answer(2, kind=28)) == [answer(1, kind=28)], (
        "an event after an injected request is the client's"
    )
    assert answers.feed(answer(2, kind=0x80 | 33)) == [answer(1, kind=0x80 | 33)], "so is one that another client sent"
    keymap = bytes([11]) + bytes(range(31))
    assert answers.feed(keymap) == [keymap]
