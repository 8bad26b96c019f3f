"""Commands of takes, without running them.

To accept changed commands: GOLDEN_UPDATE=1 pytest tests/agents/pipelines/test_take_command.py, then read the diff.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from golden_text import golden_text
from pipeline_cases import COPY, SECOND, mp4
from pipeline_devices import OLD_FFMPEG, ada, cpu, hopper
from take_cases import ACCESS, CASES, PLACES, recording, whole

from agents.pipelines.holding import hold_of
from agents.pipelines.job import (
    CaptureInput,
    FrameRate,
    HlsOutput,
    InputFacts,
    Job,
    Rendition,
    VideoEncoding,
    VideoPassthrough,
)
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason
from agents.pipelines.recording import Capture, StopRules
from agents.pipelines.takes import build_take, recording_coders

if TYPE_CHECKING:
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.command import Command
    from agents.pipelines.recording import RecordingJob

GOLDEN = Path(__file__).parent / "golden_takes"
_ALL = [(name, device) for name, (_, devices) in CASES.items() for device in devices]


def _take(
    job: RecordingJob, device: PipelineDevice, *, number: int = 1, sound_delay: timedelta = timedelta()
) -> Command:
    return build_take(job, device, ACCESS, PLACES, number=number, sound_delay=sound_delay)


def _after(command: Command, option: str) -> str:
    return command.argv[command.argv.index(option) + 1]


def _refused(job: RecordingJob, device: PipelineDevice) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        _take(job, device)
    return caught.value


@pytest.mark.parametrize(("name", "device"), _ALL)
def test_a_take_is_what_its_golden_file_says(name: str, device: str) -> None:
    job, devices = CASES[name]
    text = golden_text(_take(job, devices[device], number=2, sound_delay=timedelta(milliseconds=66)))
    path = GOLDEN / f"{name}.{device}.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_take_is_made_by_a_case() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.{device}.txt" for name, device in _ALL}


def test_keyframes_are_never_further_apart_than_a_kill_may_cost() -> None:
    assert "expr:gte(t,n_forced*2)" in _take(recording(), cpu()).argv
    close = recording(renditions=(whole(keyframe_interval=SECOND),))
    assert "expr:gte(t,n_forced*1)" in _take(close, cpu()).argv


def test_what_x264_holds_back_follows_from_the_frame_rate() -> None:
    def options(rate: int, cores: int) -> tuple[str, bool]:
        job = recording(capture=Capture(frame_rate=FrameRate(numerator=rate, denominator=1)))
        command = _take(job, cpu(core_count=cores))
        return _after(command, "-rc-lookahead:v:0"), "sliced-threads=1" in command.argv

    assert options(30, 4) == ("10", False)
    assert options(30, 16) == ("10", True)
    assert options(10, 2) == ("5", True)
    assert options(1, 2) == ("0", True)


def test_only_the_first_take_begins_hls_anew_and_none_ends_it() -> None:
    job = recording(HlsOutput(id="hls", path="hls"))
    first, second = _take(job, cpu()), _take(job, cpu(), number=2)
    assert _after(first, "-hls_flags") == "temp_file+independent_segments+omit_endlist"
    assert _after(second, "-hls_flags") == "temp_file+independent_segments+omit_endlist+append_list"


def test_files_go_to_a_hidden_place_of_the_take_wherever_they_are_to_end() -> None:
    job = recording(mp4("a.mp4"), mp4("/srv/out/b.mp4"), renditions=(whole(),))
    command = _take(job, cpu(), number=3)
    assert command.directories == ("/session/artifacts/.takes/3",)
    assert command.output_moves == ()
    assert "/session/artifacts/.takes/3/output-0.mp4" in command.argv[-1]
    assert "/session/artifacts/.takes/3/output-1.mp4" in command.argv[-1]


def test_nvenc_gets_the_display_as_it_is_until_something_has_to_be_done_to_it() -> None:
    assert "hwupload_cuda" not in _after(_take(recording(), ada()), "-filter_complex")
    assert "-init_hw_device" not in _take(recording(), ada()).argv
    smaller = _take(recording(renditions=(whole(height=360),)), ada())
    assert "format=nv12,hwupload_cuda" in _after(smaller, "-filter_complex")
    same = _take(recording(renditions=(whole(height=720),)), ada())
    assert "hwupload_cuda" not in _after(same, "-filter_complex")


def test_an_encoder_on_the_host_has_to_be_allowed() -> None:
    error = _refused(recording(), hopper())
    assert error.reason is PipelineErrorReason.NO_CAPABILITY
    assert "allow_software_encode" in error.message
    with pytest.raises(PipelineError):
        recording_coders(recording(), hopper())
    assert recording_coders(recording(), ada()).encoders["whole"].hardware


@pytest.mark.parametrize(
    "rendition", [Rendition(id="a", video=VideoPassthrough()), Rendition(id="a", video=VideoEncoding(), audio=COPY)]
)
def test_what_is_raw_is_not_passed_through(rendition: Rendition) -> None:
    error = _refused(recording(renditions=(rendition,)), cpu())
    assert error.field == "renditions[0]"
    assert error.message.startswith("Cannot pass a display's picture or sound through")


def test_sound_alone_has_no_picture_to_stand_still() -> None:
    job, devices = CASES["sound-alone"]
    error = _refused(replace(job, stop_rules=StopRules(idle=SECOND)), devices["cpu"])
    assert error.field == "stop_rules.idle"


def test_an_old_ffmpeg_is_not_asked_for_what_it_does_not_know() -> None:
    assert "-stats_enc_pre:v:0" in _take(recording(), cpu()).argv
    assert "-stats_enc_pre:v:0" not in _take(recording(), cpu(OLD_FFMPEG)).argv


def test_the_display_is_reached_by_its_cookie_and_its_own_sound_server() -> None:
    environment = _take(recording(), cpu()).env
    assert environment == {"XAUTHORITY": "/run/d7/authority", "PULSE_SERVER": "unix:/run/d7/sound"}


def test_sound_is_moved_against_the_picture_both_ways() -> None:
    later = _take(recording(), cpu(), sound_delay=timedelta(milliseconds=66))
    earlier = _take(recording(), cpu(), sound_delay=timedelta(milliseconds=-5))
    assert _after(later, "-filter:a:0").startswith("asetpts=PTS*1.000010000+0.066000/TB,atrim=start=0,")
    assert _after(earlier, "-filter:a:0").startswith("asetpts=PTS*1.000010000-0.005000/TB,")
    assert _after(_take(recording(), cpu()), "-filter:a:0").startswith("asetpts=PTS*1.000010000,atrim=start=0,")


def test_a_display_is_never_held() -> None:
    capture = CaptureInput(display=":7", width=2, height=2, frame_rate=FrameRate(numerator=1, denominator=1))
    job = Job(session="s", attempt=1, input=capture, facts=InputFacts(), renditions=(whole(),), outputs=(mp4("a.mp4"),))
    assert hold_of(job) is None
