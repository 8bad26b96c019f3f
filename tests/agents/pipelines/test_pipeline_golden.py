"""Every golden command is compared with its file, and really run as far as a machine without a GPU can.

To accept changed commands: GOLDEN_UPDATE=1 pytest tests/agents/pipelines/test_pipeline_golden.py, then read the diff.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from golden_text import golden_text
from pipeline_cases import CASES, Case
from pipeline_devices import OLD_FFMPEG
from pipeline_programs import run_ffmpeg, run_program

from agents.pipelines.command_builder import build_command
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.job import FileOutput, HlsOutput, IngestInput, UriInput

if TYPE_CHECKING:
    from agents.pipelines.capability import FfmpegBuild, PipelineDevice
    from agents.pipelines.command import Command
    from agents.pipelines.job import Job

GOLDEN = Path(__file__).parent / "golden"
_ALL = [(case, name) for case in CASES for name in case.devices]
_RUNNABLE = [(case, name) for case, name in _ALL if case.expected and name.startswith("cpu")]
_NVIDIA = [(case, name) for case, name in _ALL if case.devices[name].kind == "nvidia"]
_NO_DRIVER = "Cannot load libcuda.so.1"
_WRONG_OPTION = re.compile(
    r"Unrecognized option|Option not found|Error setting option|Error applying|has not been used for any stream|"
    r"No such filter|Option '\w+' not found|Undefined constant|Unable to parse|Error parsing (?!global)|"
    r"Invalid stream specifier"
)


def _id(pair: tuple[Case, str]) -> str:
    return f"{pair[0].name}-{pair[1]}"


def _command(case: Case, device: PipelineDevice, artifacts_dir: str = "/artifacts") -> Command:
    return build_command(
        case.job, device, artifacts_dir=artifacts_dir, progress_path="/session/progress", ingest_url=case.ingest_url
    )


@pytest.mark.parametrize("pair", _ALL, ids=_id)
def test_a_command_is_what_its_golden_file_says(pair: tuple[Case, str]) -> None:
    case, device = pair
    text = golden_text(_command(case, case.devices[device]))
    path = GOLDEN / f"{case.name}.{device}.txt"
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{case.name}.{device}.txt" for case, device in _ALL}


@pytest.mark.process
@pytest.mark.parametrize("pair", _RUNNABLE, ids=_id)
def test_a_cpu_command_makes_what_was_asked_for(
    pair: tuple[Case, str], request: pytest.FixtureRequest, media: Path, tmp_path: Path
) -> None:
    """Each output is opened, its streams are compared, and every frame of it is decoded."""
    case, name = pair
    device = case.devices[name]
    program = request.getfixturevalue("old_ffmpeg" if device.ffmpeg_builds[0] is OLD_FFMPEG else "new_ffmpeg")
    real = _with_program(device, program)
    command = build_command(
        _moved(case.job, media, tmp_path),
        real,
        artifacts_dir=str(tmp_path / "artifacts"),
        progress_path=str(tmp_path / "progress"),
    )
    private = [str(Path(move.part_path).parent) for move in command.output_moves]
    for directory in (*command.directories, *private):
        Path(directory).mkdir(exist_ok=True, parents=True)
    done = subprocess.run(
        command.argv,
        env={**os.environ, **command.env},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\[(?:error|fatal)\]", done.stderr), done.stderr
    assert (tmp_path / "progress").read_text().rstrip().endswith("progress=end")
    folder = tmp_path / "artifacts"
    made = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    for path, streams in case.expected.items():
        if path.startswith("/srv"):
            _check_file(tmp_path / path.removeprefix("/"), streams, case.seconds)
        elif path in made:
            _check_file(folder / path, streams, case.seconds)
        else:
            _check_hls(folder / path, streams)


@pytest.mark.process
@pytest.mark.parametrize("pair", _NVIDIA, ids=_id)
def test_an_nvidia_command_gets_as_far_as_the_missing_driver(
    pair: tuple[Case, str], request: pytest.FixtureRequest, media: Path, tmp_path: Path
) -> None:
    case, name = pair
    device = case.devices[name]
    if isinstance(case.job.input, IngestInput) or not case.job.input.uri.startswith("/"):
        pytest.skip("its input is a network's; its options are in other cases")
    program = request.getfixturevalue("old_ffmpeg" if device.ffmpeg_builds[0] is OLD_FFMPEG else "new_ffmpeg")
    command = build_command(
        _moved(case.job, media, tmp_path),
        _with_program(device, program),
        artifacts_dir=str(tmp_path / "artifacts"),
        progress_path=str(tmp_path / "progress"),
    )
    private = [str(Path(move.part_path).parent) for move in command.output_moves]
    for directory in (*command.directories, *private):
        Path(directory).mkdir(exist_ok=True, parents=True)
    done = run_program(*command.argv)
    assert not _WRONG_OPTION.search(done.stderr), done.stderr
    if "cuda" in " ".join(command.argv):
        assert _NO_DRIVER in done.stderr or done.returncode == 0, done.stderr
    else:
        assert done.returncode == 0, done.stderr


def _nvenc_option_sets() -> dict[str, tuple[str, ...]]:
    """Every distinct set of NVENC options of all golden commands, as options of the first stream."""
    found: dict[str, tuple[str, ...]] = {}
    for case, name in _NVIDIA:
        argv = _command(case, case.devices[name]).argv
        for index in sorted({match[1] for text in argv if (match := re.fullmatch(r"-c:v:(\d+)", text))}):
            suffix = f":v:{index}"
            options = tuple(
                text
                for option, value in pairwise(argv)
                if option.endswith(suffix) and option.startswith("-")
                for text in (f"{option.removesuffix(suffix)}:v:0", value)
            )
            if options[1].endswith("_nvenc"):
                found[" ".join(options)] = options
    return found


@pytest.mark.process
@pytest.mark.parametrize("program", ["new_ffmpeg", "old_ffmpeg"])
@pytest.mark.parametrize("options", _nvenc_option_sets().values(), ids=lambda options: options[1])
def test_every_nvenc_option_is_taken_up_to_the_missing_driver(
    options: tuple[str, ...], program: str, request: pytest.FixtureRequest
) -> None:
    """With `-hwaccel cuda` the device fails before any encoder is looked at, so encoders are asked alone, too."""
    path = request.getfixturevalue(program)
    if program == "old_ffmpeg" and "av1_nvenc" in options:
        pytest.skip("ffmpeg 5.1 has no av1_nvenc")
    done = _try_encoder(path, options)
    assert not _WRONG_OPTION.search(done.stderr), done.stderr
    assert _NO_DRIVER in done.stderr or done.returncode == 0, done.stderr


@pytest.mark.process
@pytest.mark.parametrize(
    "wrong",
    [("-preset:v:0", "p33"), ("-bogus:v:0", "1"), ("-tune:v:0", "zerolatency"), ("-crf:v:0", "23")],
    ids=lambda wrong: wrong[0],
)
def test_a_wrong_nvenc_option_would_be_noticed(wrong: tuple[str, ...], new_ffmpeg: str) -> None:
    options = next(iter(_nvenc_option_sets().values()))
    done = _try_encoder(new_ffmpeg, (*options, *wrong))
    assert _WRONG_OPTION.search(done.stderr), done.stderr


def _try_encoder(program: str, options: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    source = ("-f", "lavfi", "-i", "testsrc2=size=320x192:rate=25:duration=0.2")
    pixels = ("-filter:v:0", "format=nv12")
    return run_program(
        program, "-hide_banner", "-nostdin", "-loglevel", "level+warning", *source, *pixels, *options, "-f", "null", "-"
    )


def _cuda_graphs(*, of_old: bool = False) -> set[str]:
    graphs = set()
    for case, name in _NVIDIA:
        device = case.devices[name]
        if of_old:
            old = tuple(replace(build, scaler_blackens=False) for build in device.ffmpeg_builds)
            device = replace(device, ffmpeg_builds=old)
        argv = _command(case, device).argv
        if "-filter_complex" in argv:
            graph = argv[argv.index("-filter_complex") + 1]
            if "scale_cuda" in graph:
                graphs.add(graph)
    return graphs


@pytest.mark.process
@pytest.mark.parametrize("graph", sorted(_cuda_graphs()), ids=range(len(_cuda_graphs())))
def test_every_cuda_filter_graph_is_read_without_complaint(graph: str, new_ffmpeg: str) -> None:
    done = _try_graph(new_ffmpeg, graph)
    assert not _WRONG_OPTION.search(done.stderr), done.stderr


@pytest.mark.process
@pytest.mark.parametrize("graph", sorted(_cuda_graphs(of_old=True)), ids=range(len(_cuda_graphs(of_old=True))))
def test_every_cuda_filter_graph_for_an_old_ffmpeg_is_read_without_complaint(graph: str, old_ffmpeg: str) -> None:
    done = _try_graph(old_ffmpeg, graph)
    assert not _WRONG_OPTION.search(done.stderr), done.stderr


@pytest.mark.process
@pytest.mark.parametrize("wrong", ["passthru=0", "format=nv13", "interp_algo=best"])
def test_a_wrong_cuda_filter_option_would_be_noticed(wrong: str, new_ffmpeg: str) -> None:
    graph = next(graph for graph in sorted(_cuda_graphs()) if "split" not in graph)
    done = _try_graph(new_ffmpeg, graph.replace("passthrough=0", wrong))
    assert _WRONG_OPTION.search(done.stderr), done.stderr


def _try_graph(program: str, graph: str) -> subprocess.CompletedProcess[str]:
    """Has a graph set up with frames in memory: options are read before it is noticed that they are not on a GPU."""
    labels = re.findall(r"\[(v-[\w-]+)\]", graph)
    maps = [text for label in labels for text in ("-map", f"[{label}]")]
    source = ("-f", "lavfi", "-i", "testsrc2=size=320x192:rate=25:duration=0.2")
    return run_program(
        program, "-hide_banner", "-nostdin", "-loglevel", "level+warning", *source, "-filter_complex", graph, *maps,
        *("-f", "null", "-"),
    )  # fmt: skip


def _with_program(device: PipelineDevice, program: str) -> PipelineDevice:
    builds: tuple[FfmpegBuild, ...] = tuple(replace(build, path=program) for build in device.ffmpeg_builds)
    assert len(builds) == 1
    return replace(
        device,
        ffmpeg_builds=builds,
        capabilities=tuple(replace(capability, ffmpeg=program) for capability in device.capabilities),
        core_count=2,
    )


def _moved(job: Job, media: Path, folder: Path) -> Job:
    """Points a job's input and its outputs outside of the artifacts into the folders of a test."""
    assert isinstance(job.input, UriInput)
    source = replace(job.input, uri=str(media / Path(job.input.uri).name))
    outputs = tuple(
        replace(output, path=str(folder / output.path.removeprefix("/")))
        if isinstance(output, FileOutput | HlsOutput) and output.path.startswith("/")
        else output
        for output in job.outputs
    )
    return replace(job, input=source, outputs=outputs)


def _check_file(path: Path, streams: tuple[str, ...], seconds: float) -> None:
    told = parse_input_description(run_ffmpeg("-i", str(path)).stderr)
    assert told.error is None
    found = []
    for stream in told.streams:
        depth = "10" if stream.pixel_format and "10" in stream.pixel_format else "8"
        shape = f" {stream.width}x{stream.height}/{depth}" if stream.kind == "video" else ""
        found.append(f"{stream.codec}{shape}")
        if stream.kind == "video":
            assert stream.sample_aspect_ratio in (None, 1)
            assert stream.rotation_degrees is None
    assert tuple(found) == streams
    assert told.facts.duration is not None
    assert abs(told.facts.duration.total_seconds() - seconds) < 0.2
    decoded = run_ffmpeg("-v", "error", "-xerror", "-stats", "-i", str(path), "-map", "0", "-f", "null", "-")
    assert decoded.returncode == 0, decoded.stderr
    if told.facts.frame_rate and told.facts.width:
        pace = told.facts.frame_rate.numerator / told.facts.frame_rate.denominator
        frames = int(re.findall(r"frame=\s*(\d+)", decoded.stderr)[-1])
        assert abs(frames - pace * seconds) <= 3


def _check_hls(folder: Path, variants: tuple[str, ...]) -> None:
    """Checks the master playlist's variants: "name segments", 0 segments where any number will do."""
    master = (folder / "master.m3u8").read_text()
    listed = re.findall(r"^([\w-]+)/index\.m3u8$", master, re.MULTILINE)
    named = [variant.split()[0] for variant in variants]
    assert [name for name in listed if name in named] == named
    for name in listed:
        text = (folder / name / "index.m3u8").read_text()
        segments = re.findall(r"^segment_\d{5}\.\w+$", text, re.MULTILINE)
        assert segments
        assert all((folder / name / segment).stat().st_size > 0 for segment in segments)
        assert "#EXT-X-ENDLIST" in text
        wanted = next((int(variant.split()[1]) for variant in variants if variant.split()[0] == name), 0)
        if wanted:
            assert len(segments) == wanted
            durations = [float(value) for value in re.findall(r"#EXTINF:([\d.]+)", text)]
            assert durations[:-1] == pytest.approx([1.0] * (wanted - 1), abs=0.05)
            assert durations[-1] < 1.05
        decoded = run_ffmpeg(
            "-v", "error", "-xerror", "-allowed_extensions", "ALL", "-i", str(folder / name / "index.m3u8"),
            *("-f", "null", "-"),
        )  # fmt: skip
        assert decoded.returncode == 0, decoded.stderr
