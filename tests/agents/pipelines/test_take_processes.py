"""Takes at work on a real screen: their colours, their files after kills and pauses, their sound."""

from __future__ import annotations

import array
import contextlib
import re
import signal
import struct
import subprocess
import wave
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pipeline_cases import NONE, SECOND, mp4
from pipeline_programs import run_ffmpeg
from take_cases import HALF_RATE, recording, whole
from take_rig import PATIENCE_S, Take, TakeRig, device_with

from agents.pipelines.exit_classification import ExitOutcome, classify_exit
from agents.pipelines.exit_reasons import FailureReason
from agents.pipelines.frame_lines import parse_frame_lines
from agents.pipelines.hls import ended_playlist
from agents.pipelines.input_description import InputDescription, parse_input_description
from agents.pipelines.job import Container, FileOutput, HlsOutput, Rendition, VideoEncoding
from agents.pipelines.recording import Capture, Corner, StopRules, Watermark
from agents.pipelines.snapshots import snapshot_command, thumbnail_command
from agents.pipelines.stillness import parse_stillness
from fakes.bare_screen import Painter, bare_screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.command import Command
    from fakes.bare_screen import BareScreen

pytestmark = pytest.mark.process

BARS = (0xFFFFFF, 0xFFFF00, 0x00FFFF, 0x00FF00, 0xFF00FF, 0xFF0000, 0x0000FF, 0x000000, 0x808080, 0x305080)
BAR = 32
WIDTH, HEIGHT = BAR * len(BARS), 64
RATE = 30
MUTE = Capture(width=WIDTH, height=HEIGHT, sound=False)
HEARD = Capture(width=WIDTH, height=HEIGHT)
MKV = FileOutput(id="mkv", path="kept.mkv", container=Container.MKV)
TS = FileOutput(id="ts", path="sub/kept.ts", container=Container.TS)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareScreen]:
    """A screen with sound."""
    with bare_screen(tmp_path_factory.mktemp("screen"), width=WIDTH, height=HEIGHT, sound=True) as made:
        yield made


@pytest.fixture
def painter(screen: BareScreen) -> Iterator[Painter]:
    """Draws on it."""
    made = Painter(screen)
    made.fill(0)
    yield made
    made.close()


@pytest.fixture(params=["new", "old"])
def device(request: pytest.FixtureRequest) -> PipelineDevice:
    """A CPU device with either ffmpeg."""
    return device_with(request.getfixturevalue(f"{request.param}_ffmpeg"), new=request.param == "new")


@pytest.fixture
def rig_of() -> Iterator[Callable[..., TakeRig]]:
    """Makes rigs, and ends what still runs of them."""
    with contextlib.ExitStack() as stack:

        def make(**more: object) -> TakeRig:
            rig = TakeRig(**more)  # type: ignore[arg-type]
            stack.callback(rig.close)
            return rig

        yield make


@pytest.fixture
def new_device(new_ffmpeg: str) -> PipelineDevice:
    """A CPU device with the bundled ffmpeg."""
    return device_with(new_ffmpeg, new=True)


def _described(path: Path) -> InputDescription:
    return parse_input_description(run_ffmpeg("-i", str(path)).stderr)


def _times(path: Path, stream: str) -> list[float]:
    """Gives when each packet of a file is to be shown, and fails when anything in it cannot be decoded."""
    whole_file = run_ffmpeg("-loglevel", "error", "-i", str(path), "-map", "0", "-f", "null", "-")
    assert whole_file.stderr == ""
    told = run_ffmpeg(
        "-loglevel", "error", "-copyts", "-i", str(path), "-map", f"0:{stream}", "-c", "copy", "-f", "framecrc", "-"
    )
    base = re.search(r"#tb 0: (\d+)/(\d+)", told.stdout)
    assert base is not None
    lines = [line.split(",") for line in told.stdout.splitlines() if not line.startswith("#")]
    return sorted(int(line[2]) * int(base[1]) / int(base[2]) for line in lines)


def _colors(path: Path, width: int) -> list[tuple[int, int, int]]:
    """Decodes a file's first picture as a player does that follows its tags, and gives the middle of each bar."""
    filters = "scale=in_color_matrix=auto:in_range=auto:flags=accurate_rnd+full_chroma_int,format=rgb24"
    command = ["-loglevel", "error", "-i", str(path), "-frames:v", "1", "-vf", filters, "-f", "rawvideo", "-"]
    pixels = subprocess.run(
        [run_ffmpeg("-version").args[0], *command], capture_output=True, check=True, timeout=PATIENCE_S
    ).stdout
    height = len(pixels) // (3 * width)
    bar = width // len(BARS)
    places = [((height // 2) * width + index * bar + bar // 2) * 3 for index in range(len(BARS))]
    return [(pixels[place], pixels[place + 1], pixels[place + 2]) for place in places]


def _off(colors: list[tuple[int, int, int]]) -> int:
    """Tells by how many levels of 255 the worst channel of the bars is off."""
    return max(
        abs(found - wanted)
        for color, bar in zip(colors, BARS, strict=True)
        for found, wanted in zip(color, bar.to_bytes(3, "big"), strict=True)
    )


def _run(command: Command) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command.argv, env={**command.env, "PATH": "/usr/bin"}, capture_output=True, check=False, timeout=PATIENCE_S
    )


def _draw_bars(painter: Painter) -> None:
    for index, color in enumerate(BARS):
        painter.fill(color, index * BAR, 0, BAR, HEIGHT)


def test_a_held_take_asks_nobody_for_anything_until_it_is_let_go(
    device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    job = recording(mp4("out.mp4"), capture=HEARD)
    rig = rig_of(job=job, device=device, screen=screen, folder=tmp_path)
    take = rig.start(held=True)
    # It has read the options before its graph by then, and would read on.
    take.await_that(Path(take.places.progress).exists)
    with pytest.raises(subprocess.TimeoutExpired):
        take.process.wait(timeout=0.5)
    assert not take.has_connections()
    assert not list(rig.artifacts.rglob("output-*"))
    take.let_go()
    take.await_frames(RATE)
    take.end()
    assert rig.finish()


def test_a_held_take_that_nobody_holds_any_more_ends_and_leaves_nothing(
    device: PipelineDevice, screen: BareScreen, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    rig = rig_of(job=recording(mp4("out.mp4"), capture=HEARD), device=device, screen=screen, folder=tmp_path)
    take = rig.start(held=True)
    take.let_go(unsaid=True)
    assert take.process.wait(timeout=PATIENCE_S) != 0
    assert not list(rig.artifacts.rglob("output-*"))


def test_colours_come_out_as_they_were_shown(
    device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    _draw_bars(painter)
    names = ("same", "half", "deep")
    renditions = tuple(
        Rendition(id=name, video=VideoEncoding(quality=1, **more), audio=NONE)
        for name, more in zip(names, ({}, {"width": WIDTH // 2}, {"bit_depth": 10}), strict=True)
    )
    job = recording(*(mp4(f"{name}.mp4", name) for name in names), renditions=renditions, capture=MUTE)
    rig = rig_of(job=job, device=device, screen=screen, folder=tmp_path)
    take = rig.start()
    take.await_frames(10)
    take.end()
    made = rig.finish()
    for name in names:
        path = made[f"{name}.mp4"]
        assert "(tv, bt709" in run_ffmpeg("-i", str(path)).stderr
        assert _off(_colors(path, WIDTH // 2 if name == "half" else WIDTH)) <= 2


def test_a_snapshot_is_exact_and_a_thumbnail_small(
    device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    _draw_bars(painter)
    rig = rig_of(job=recording(capture=MUTE), device=device, screen=screen, folder=tmp_path)
    whole_picture, thumbnail = tmp_path / "whole.png", tmp_path / "00001.jpg"
    assert _run(snapshot_command(MUTE, rig.build, rig.access, path=str(whole_picture))).returncode == 0
    assert _off(_colors(whole_picture, WIDTH)) == 0
    small = _run(snapshot_command(MUTE, rig.build, rig.access, width=160))
    assert small.returncode == 0
    assert struct.unpack(">II", small.stdout[16:24]) == (160, 32)
    assert _run(thumbnail_command(MUTE, rig.build, rig.access, path=str(thumbnail))).returncode == 0
    assert _off(_colors(thumbnail, WIDTH)) <= 4


def test_takes_that_ended_any_how_become_one_file(
    device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    outputs = (mp4("recording.mp4"), MKV, TS)
    rig = rig_of(
        job=recording(*outputs, capture=HEARD), device=device, screen=screen, folder=tmp_path / "it's, [a] folder"
    )
    rig.folder.mkdir()
    for number, how in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
        painter.fill(0x400000 * (number + 1))
        take = rig.start()
        take.await_frames(75)
        log = take.end(how)
        stopped = classify_exit(
            exit_code=take.process.returncode,
            stopping=how is signal.SIGTERM,
            log_tail=log.splitlines(),
            made_output=True,
            captured=True,
        )
        assert stopped.kind is (ExitOutcome.STOPPED if how is signal.SIGTERM else ExitOutcome.FAILED)
    made = rig.finish()
    for path in made.values():
        times = _times(path, "v:0")
        assert len(times) >= 3 * 75 - 2 * RATE
        steps = [after - before for before, after in pairwise(times)]
        # Nothing is shown twice or out of order; where takes meet, sound may be a little longer than the picture.
        assert min(steps) > 0.02
        assert sum(step > 0.05 for step in steps) <= 2
        assert max(steps) < 0.2
        described = _described(path)
        assert [stream.codec for stream in described.streams] == ["h264", "aac"]
        assert described.facts.duration is not None
        assert abs(described.facts.duration.total_seconds() - (times[-1] - times[0])) < 0.3
    content = made["recording.mp4"].read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert b"moof" not in content
    assert _times(made["recording.mp4"], "v:0")[0] == 0
    assert rig.finish() == made


def test_a_kill_costs_less_than_two_seconds(
    new_device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    outputs = (mp4("recording.mp4"), MKV, TS)
    rig = rig_of(job=recording(*outputs, capture=HEARD), device=new_device, screen=screen, folder=tmp_path)
    take = rig.start()
    take.await_frames(80)
    take.end(signal.SIGKILL)
    truth, _ = parse_frame_lines(Path(take.places.frames).read_text(), None)
    for path in rig.finish().values():
        assert truth.encoded_frames - len(_times(path, "v:0")) < 2 * RATE
        # Keyframes are no further apart than 2 s.
        keys = run_ffmpeg("-skip_frame", "nokey", "-i", str(path), "-map", "0:v", "-f", "framecrc", "-").stdout
        assert sum(not line.startswith("#") for line in keys.splitlines()) >= 1


def test_hls_goes_on_behind_a_discontinuity(
    device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    hls = HlsOutput(id="hls", path="hls", segment_duration=SECOND)
    renditions = (whole(keyframe_interval=SECOND), whole("slow", keyframe_interval=SECOND, frame_rate=HALF_RATE))
    job = recording(hls, renditions=renditions, capture=HEARD)
    rig = rig_of(job=job, device=device, screen=screen, folder=tmp_path)
    folder = rig.artifacts / "hls"
    before: dict[Path, bytes] = {}
    for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        take = rig.start()
        take.await_frames(75)
        take.end(how)
        assert {path: path.read_bytes() for path in before} == before
        listed = re.findall(r"^segment.*$", (folder / "whole" / "index.m3u8").read_text(), re.MULTILINE)
        before = {folder / "whole" / name: (folder / "whole" / name).read_bytes() for name in listed}
    text = (folder / "whole" / "index.m3u8").read_text()
    assert text.count("#EXT-X-DISCONTINUITY\n") == 2
    assert "#EXT-X-ENDLIST" not in text
    assert listed == [f"segment_{index:05d}.m4s" for index in range(len(listed))]
    for playlist in folder.glob("*/index.m3u8"):
        playlist.write_text(ended_playlist(playlist.read_text()))
    played = run_ffmpeg("-loglevel", "error", "-i", str(folder / "master.m3u8"), "-map", "0:v:0", "-f", "null", "-")
    assert (played.returncode, played.stderr) == (0, "")


def test_a_mark_lies_in_its_corner_and_shines_through(
    device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    mark = tmp_path / "mark 50%.png"
    drawn = run_ffmpeg(
        "-f", "lavfi", "-i", "color=white:size=32x16", "-frames:v", "1", "-update", "1", str(tmp_path / "m.png")
    )
    assert drawn.returncode == 0
    (tmp_path / "m.png").rename(mark)
    painter.fill(0)
    watermark = Watermark(path=str(mark), corner=Corner.TOP_LEFT, margin=0, opacity=0.5)
    job = recording(
        renditions=(Rendition(id="a", video=VideoEncoding(quality=1), audio=NONE),), capture=MUTE, watermark=watermark
    )
    rig = rig_of(job=job, device=device, screen=screen, folder=tmp_path)
    take = rig.start()
    take.await_frames(20)
    take.end()
    (made,) = rig.finish().values()
    raw = tmp_path / "raw"
    run_ffmpeg("-sseof", "-0.2", "-i", str(made), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", str(raw))
    pixels = raw.read_bytes()
    assert abs(pixels[(8 * WIDTH + 16) * 3] - 128) <= 3
    assert pixels[(40 * WIDTH + 100) * 3] <= 2


def test_silence_and_stillness_are_told(
    device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    rules = StopRules(silence=SECOND * 5, idle=SECOND * 5)
    rig = rig_of(job=recording(capture=HEARD, stop_rules=rules), device=device, screen=screen, folder=tmp_path)
    take = rig.start()
    silence, idleness = Path(take.places.silence), Path(take.places.idleness)

    def both() -> bool:
        texts = [path.read_text() if path.exists() else "" for path in (silence, idleness)]
        return all(parse_stillness(text, None)[0].since is not None for text in texts)

    take.await_that(both)
    painter.fill(0x00FF00)
    take.await_that(lambda: parse_stillness(idleness.read_text(), None)[0].until is not None)
    take.end()


def test_sound_and_picture_of_one_moment_stay_together(
    new_device: PipelineDevice, screen: BareScreen, painter: Painter, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    beep = tmp_path / "beep.wav"
    with wave.open(str(beep), "wb") as written:
        written.setparams((1, 2, 48000, 0, "NONE", ""))
        written.writeframes(struct.pack("<9600h", *([20000, -20000] * 4800)))
    environment = screen.environment
    subprocess.run(["pactl", "upload-sample", str(beep), "beep"], env=environment, check=True)
    rig = rig_of(job=recording(capture=HEARD), device=new_device, screen=screen, folder=tmp_path)
    take = rig.start(sound_delay=timedelta(milliseconds=500))
    take.await_frames(30)
    subprocess.run(["pactl", "play-sample", "beep", "output"], env=environment, check=True, capture_output=True)
    painter.fill(0xFFFFFF)
    take.await_frames(90)
    take.end()
    (made,) = rig.finish().values()
    raw = tmp_path / "raw"
    run_ffmpeg("-i", str(made), "-map", "0:v", "-vf", "scale=1:1,format=gray", "-f", "rawvideo", str(raw))
    flash = next(index for index, level in enumerate(raw.read_bytes()) if level > 128) / RATE
    pcm = tmp_path / "pcm"
    run_ffmpeg(
        "-i", str(made), "-map", "0:a", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-f", "s16le", str(pcm)
    )
    samples = array.array("h", pcm.read_bytes())
    heard = next(index for index, level in enumerate(samples) if abs(level) > 4000) / 48000
    # A busy machine draws the flash late; what is shown here is that both clocks are one and the delay goes right.
    assert heard - flash == pytest.approx(0.5, abs=0.25)


def test_a_display_or_sound_server_that_is_gone_is_named(
    device: PipelineDevice, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    def outcome(take: Take, log: str) -> FailureReason | None:
        code = take.process.returncode
        made = take.progress().frames > 0
        told = classify_exit(exit_code=code, stopping=False, log_tail=log.splitlines(), made_output=made, captured=True)
        return told.failure_reason

    with bare_screen(tmp_path, width=WIDTH, height=HEIGHT, sound=True) as lost:
        rig = rig_of(job=recording(capture=HEARD), device=device, screen=lost, folder=tmp_path)
        take = rig.start()
        take.await_frames(10)
        assert lost.sound is not None
        lost.sound.kill()
        _, log = take.process.communicate(timeout=PATIENCE_S)
        assert outcome(take, log) is FailureReason.SOUND_LOST
        take = rig.start()
        _, log = take.process.communicate(timeout=PATIENCE_S)
        assert outcome(take, log) is FailureReason.SOUND_LOST
        # A number that no server has: another one may have taken that of a server that is gone.
        nowhere = replace(lost, name=":59999")
        take = rig_of(job=recording(capture=MUTE), device=device, screen=nowhere, folder=tmp_path).start()
        _, log = take.process.communicate(timeout=PATIENCE_S)
        assert outcome(take, log) is FailureReason.DISPLAY_LOST


@pytest.mark.parametrize("content", [None, b"no picture"], ids=["gone", "no-picture"])
def test_a_watermark_that_cannot_be_read_any_more_is_named(
    device: PipelineDevice,
    screen: BareScreen,
    tmp_path: Path,
    rig_of: Callable[..., TakeRig],
    content: bytes | None,
) -> None:
    mark = tmp_path / "mark.png"
    if content is not None:
        mark.write_bytes(content)
    job = replace(recording(capture=MUTE), watermark=Watermark(path=str(mark)))
    take = rig_of(job=job, device=device, screen=screen, folder=tmp_path).start()
    _, log = take.process.communicate(timeout=PATIENCE_S)
    told = classify_exit(
        exit_code=take.process.returncode,
        stopping=False,
        log_tail=log.splitlines(),
        made_output=False,
        captured=True,
        input_name=f"file:{mark}",
    )
    assert told.failure_reason is FailureReason.INPUT_UNREADABLE
    assert f"the watermark over the picture: {mark}" in told.message


def test_a_take_whose_display_went_away_still_completes_its_file(
    device: PipelineDevice, tmp_path: Path, rig_of: Callable[..., TakeRig]
) -> None:
    with bare_screen(tmp_path, width=WIDTH, height=HEIGHT) as lost:
        rig = rig_of(job=recording(capture=MUTE), device=device, screen=lost, folder=tmp_path)
        take = rig.start()
        take.await_frames(30)
        lost.x_server.kill()
        lost.x_server.wait()
        take.end()
        (made,) = rig.finish().values()
        assert len(_times(made, "v:0")) >= 20
