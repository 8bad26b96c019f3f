"""When each captured picture is shown: in the slot of its time, whatever came between, and none is lost needlessly."""

from __future__ import annotations

import random
import subprocess
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

import pytest

from agents.pipelines.audio_encoders import audio_options
from agents.pipelines.capture_filters import LATER_OF_TWO_LEFT_OUT, in_slots
from agents.pipelines.capture_input import frame_stretch, rate_text
from agents.pipelines.capture_slots import slots_from_turn
from agents.pipelines.job import AudioRendition, FrameRate

pytestmark = pytest.mark.process

THIRTY = FrameRate(numerator=30, denominator=1)
NTSC = FrameRate(numerator=30000, denominator=1001)


@pytest.fixture(params=["new", "old"])
def ffmpeg(request: pytest.FixtureRequest) -> str:
    """Either ffmpeg."""
    program: str = request.getfixturevalue(f"{request.param}_ffmpeg")
    return program


def shown(
    ffmpeg: str, taken_us: list[int], rate: FrameRate, *, slots: bool = True, fps: FrameRate | None = None
) -> list[int]:
    """Encodes pictures that were taken at such times, as takes do, and tells which of them each slot shows."""
    told = [f"eq(N,{number})*{time_us}" for number, time_us in enumerate(taken_us)]
    # ffmpeg takes no expression that is nested deeply, as a long sum is.
    times = "+".join(f"({'+'.join(told[at : at + 20])})" for at in range(0, len(told), 20))
    numbered = "geq=lum='mod(N,200)+20':cb=128:cr=128,format=gray"
    graph = f"nullsrc=s=16x16:r=30,trim=end_frame={len(taken_us)},{numbered},settb=1/1000000,setpts='{times}'"
    graph += f",{in_slots(rate)}" if slots else ""
    graph += f",fps={rate_text(fps)}" if fps is not None else ""
    encoded = ("-fps_mode", "cfr", "-r", rate_text(fps or rate), "-f", "rawvideo", "-pix_fmt", "gray", "-")
    general = ("-v", "error", "-nostdin", *(LATER_OF_TWO_LEFT_OUT if slots else ()))
    command = [ffmpeg, *general, "-filter_complex", f"{graph}[v]", "-map", "[v]", *encoded]
    pixels = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    numbers: list[int] = []
    for at in range(0, len(pixels), 256):
        last = numbers[-1] if numbers else 0
        numbers.append(last + (pixels[at] - 20 - last) % 200)
    return numbers


def grabbed(count: int, *, pause_us: int = 33_333, late_us: int = 0, seed: int = 3) -> list[int]:
    """Times at which a grabber takes pictures that pauses for whole microseconds, and wakes late by chance."""
    chance = random.Random(seed)
    return [0, *(number * pause_us + chance.randint(0, late_us) for number in range(1, count))]


def held_up(taken_us: list[int], at: int, by_us: int) -> list[int]:
    """The same when it got no processor for a while: it takes what it missed all at once."""
    late_us = taken_us[at] + by_us
    return [max(time_us, late_us) if number >= at else time_us for number, time_us in enumerate(taken_us)]


def most_apart(numbers: list[int], taken_us: list[int], rate: FrameRate, *, after: int = 0) -> float:
    """Tells how many slots a picture is farthest from when it was taken, pictures that stand in left out."""
    slots_us = rate.denominator * 1e6 / rate.numerator
    apart = [
        slot - taken_us[number] / slots_us
        for slot, (number, before) in enumerate(zip(numbers, [-1, *numbers], strict=False))
        if number != before and slot >= after
    ]
    return max(map(abs, apart))


@pytest.mark.parametrize("late_us", [0, 500, 28_000])
def test_pictures_that_are_merely_late_follow_one_another(ffmpeg: str, late_us: int) -> None:
    taken_us = grabbed(150, late_us=late_us)
    assert shown(ffmpeg, taken_us, THIRTY) == list(range(150))


@pytest.mark.parametrize("by_us", [20_000, 60_000, 100_000])
def test_a_standstill_of_a_tenth_of_a_second_costs_no_picture(ffmpeg: str, by_us: int) -> None:
    taken_us = grabbed(150, late_us=500)
    for at in (30, 70, 110):
        taken_us = held_up(taken_us, at, by_us)
    assert shown(ffmpeg, taken_us, THIRTY) == list(range(150))


@pytest.mark.parametrize("seed", range(4))
def test_ffmpeg_keeps_the_pictures_that_the_rule_keeps(ffmpeg: str, seed: int) -> None:
    """Of standstills that are apart: else ffmpeg fills the gap of the second with a picture that was left out."""
    chance = random.Random(seed)
    taken_us = grabbed(190, late_us=8_000, seed=seed)
    for at in range(20, 180, 20):
        taken_us = held_up(taken_us, at + chance.randrange(4), chance.randrange(20_000, 400_000))
    kept, slot, late = [0], 0, 0.0
    for number, time_us in enumerate(taken_us[1:], 1):
        late_for_turn = time_us * float(frame_stretch(THIRTY)) / (1e6 / 30) - (slot + 1)
        moved = slots_from_turn(late_for_turn, late)
        slot, late = slot + 1 + moved, late_for_turn - moved
        kept += [number] if moved > -1 else []
    assert len(kept) < len(taken_us)
    assert sorted(set(shown(ffmpeg, taken_us, THIRTY))) == kept


def test_who_is_late_for_good_is_not_taken_for_one_who_catches_up(ffmpeg: str) -> None:
    taken_us = [time_us + 60_000 * (number >= 50) for number, time_us in enumerate(grabbed(150))]
    assert most_apart(shown(ffmpeg, taken_us, THIRTY), taken_us, THIRTY, after=55) < 0.95


@pytest.mark.parametrize("by_us", [40_000, 120_000, 1_000_000])
def test_after_a_standstill_pictures_are_shown_at_their_times_again(ffmpeg: str, by_us: int) -> None:
    taken_us = held_up(grabbed(150), 50, by_us)
    numbers = shown(ffmpeg, taken_us, THIRTY)
    assert len(numbers) == 150
    assert numbers[85:] == list(range(85, 150))
    # ffmpeg fills half of a gap with the picture after it.
    assert most_apart(numbers, taken_us, THIRTY) < 1.25
    assert most_apart(numbers, taken_us, THIRTY, after=85) < 0.1


def test_many_standstills_leave_nothing_behind_which_ffmpegs_own_way_does(ffmpeg: str) -> None:
    taken_us = grabbed(190)
    for at in (20, 60, 100, 140):
        taken_us = held_up(taken_us, at, 120_000)
    assert most_apart(shown(ffmpeg, taken_us, THIRTY), taken_us, THIRTY, after=150) < 0.1
    assert most_apart(shown(ffmpeg, taken_us, THIRTY, slots=False), taken_us, THIRTY, after=150) > 1.5


@pytest.mark.parametrize("pause_us", [33_000, 33_700])
def test_of_a_pace_that_is_not_the_one_asked_for_no_more_is_lost_than_must_be(ffmpeg: str, pause_us: int) -> None:
    """An hour's worth in seconds: of a pace too high the surplus is left out, for one too low pictures stand in."""
    taken_us = grabbed(190, pause_us=pause_us, late_us=300)
    numbers = shown(ffmpeg, taken_us, THIRTY)
    assert most_apart(numbers, taken_us, THIRTY) < 0.95
    lost = set(range(190)) - set(numbers)
    stand_in = sum(one == other for one, other in pairwise(numbers))
    surplus = round(190 - 190 * pause_us / 33_333.33)
    assert abs(len(lost) - max(surplus, 0)) <= 1
    assert abs(stand_in - max(-surplus, 0)) <= 1


def test_half_the_rate_shows_every_second_picture(ffmpeg: str) -> None:
    fifteen = FrameRate(numerator=15, denominator=1)
    numbers = shown(ffmpeg, grabbed(120, late_us=5_000), THIRTY, fps=fifteen)
    assert {other - one for one, other in pairwise(numbers[1:-1])} == {2}


def test_a_rate_that_is_no_whole_number_has_slots_too(ffmpeg: str) -> None:
    taken_us = grabbed(150, pause_us=33_366, late_us=2_000)
    assert shown(ffmpeg, taken_us, NTSC) == list(range(150))


@pytest.mark.parametrize(
    ("rate", "pause_us"),
    [
        (THIRTY, 33_333),
        (NTSC, 33_367),
        (FrameRate(numerator=60, denominator=1), 16_667),
        (FrameRate(numerator=25, denominator=1), 40_000),
        (FrameRate(numerator=128, denominator=1), 7_813),
    ],
)
def test_the_stretch_makes_the_grabbers_pause_a_frame(rate: FrameRate, pause_us: int) -> None:
    assert pause_us * frame_stretch(rate) == Fraction(10**6 * rate.denominator, rate.numerator)


def test_pictures_have_their_slots_after_three_hours_too(ffmpeg: str) -> None:
    """Without the stretch the last one would be three slots early, and three before it left out."""
    taken = [0, 324_000, 324_001]
    times = "+".join(f"eq(N,{place})*{number * 33_333}" for place, number in enumerate(taken))
    graph = f"nullsrc=s=16x16:r=30,trim=end_frame=3,settb=1/1000000,setpts='{times}',{in_slots(THIRTY)}[v]"
    encoded = ("-fps_mode", "passthrough", "-enc_time_base", "1:1000000", "-c:v", "rawvideo", "-f", "framecrc", "-")
    command = [ffmpeg, "-v", "error", "-nostdin", "-filter_complex", graph, "-map", "[v]", *encoded]
    told = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    shown_us = [int(line.split(",")[2]) for line in told.splitlines() if not line.startswith("#")]
    assert [round(time_us * 30 / 1e6, 3) for time_us in shown_us] == taken


def test_captured_sound_is_made_as_much_longer_as_its_pictures(ffmpeg: str) -> None:
    options = audio_options(AudioRendition(), field="audio", captured_delay=timedelta(), stretch=Fraction(1005, 1000))
    filters = dict(options)["filter"]
    source = ("-f", "lavfi", "-i", "sine=r=48000:d=40,aformat=channel_layouts=stereo")
    command = [ffmpeg, "-v", "error", "-nostdin", *source, "-filter:a", filters, "-f", "s16le", "-"]
    samples = len(subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout) / 4
    assert samples / 48_000 == pytest.approx(40.2, abs=0.02)
