"""From the outputs of a job to muxers, folders and renames, and which muxers share an output of ffmpeg's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, assert_never
from urllib.parse import urlsplit

from agents.pipelines.command import FileParts, OutputMove
from agents.pipelines.formats import check_fit
from agents.pipelines.hls import hls_muxer, presentation_folders
from agents.pipelines.input_options import NETWORK_TIMEOUT_MICROSECONDS, NETWORK_TIMEOUT_MILLISECONDS, is_live
from agents.pipelines.job import CaptureInput, Container, FileOutput, HlsOutput, PushOutput
from agents.pipelines.muxers import Muxer
from agents.pipelines.parts import PartNumber, part_name
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason
from agents.pipelines.streams import AudioStream, Stream, VideoStream, is_encoded, output_streams

if TYPE_CHECKING:
    from agents.pipelines.command import HlsPresentation
    from agents.pipelines.ffmpeg_features import FfmpegFeatures
    from agents.pipelines.job import Job
    from agents.pipelines.streams import RenditionStreams
    from agents.pipelines.video_encoders import Options

_FORMATS = {Container.MP4: "mp4", Container.MKV: "matroska", Container.TS: "mpegts"}
_FRAGMENT_MICROSECONDS = "1000000"
_CLUSTER_MILLISECONDS = "1000"
"""Of a live Matroska: by itself it would keep up to 5 s back, which a kill would lose."""
_TAKE_FRAGMENT_MICROSECONDS, _TAKE_CLUSTER_MILLISECONDS = "500000", "500"
"""What a take that is killed loses, beside what its encoder holds. What so many pieces cost, joining takes away."""
_LINGER_SECONDS = "2"
TAKES_FOLDER = ".takes"
"""Inside the artifacts; never shown to clients."""
JOINED_FOLDER = f"{TAKES_FOLDER}/joined"
"""Inside the artifacts: where files are made of their parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """Where everything goes."""

    groups: tuple[tuple[Muxer, ...], ...]
    """Muxers that share streams which must be encoded only once are in one group."""
    directories: tuple[str, ...]
    moves: tuple[OutputMove, ...]
    presentations: tuple[HlsPresentation, ...]
    """Live ones."""
    files: tuple[FileParts, ...]
    """Of a job that continues others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    muxer: Muxer
    directories: tuple[str, ...]
    move: OutputMove | None = None
    presentation: HlsPresentation | None = None
    parts: FileParts | None = None


def plan_outputs(
    job: Job, streams: dict[str, RenditionStreams], features: FfmpegFeatures, *, artifacts_dir: str
) -> OutputPlan:
    """Plans the outputs of a job.

    Args:
        job: The job.
        streams: What each rendition consists of.
        features: What the ffmpeg has.
        artifacts_dir: Absolute path of the folder for relative paths.

    Returns:
        The plan.

    Raises:
        PipelineError: When an output cannot hold what goes there, or two outputs are one place.
    """
    places = []
    taken: set[str] = set()
    for index, output in enumerate(job.outputs):
        renditions = output_streams(index, output, streams)
        check_fit(index, output, renditions, job.facts, features)
        place = _place(index, job, output, renditions, features, artifacts_dir)
        if place.muxer.url in taken:
            raise PipelineError(
                reason=PipelineErrorReason.UNSUPPORTED,
                field=f"outputs[{index}]",
                message="Cannot write two outputs to the same place. Try another path or URL.",
            )
        taken.add(place.muxer.url)
        places.append(place)
    directories = dict.fromkeys(directory for place in places for directory in place.directories)
    parents_first = sorted(directories, key=lambda directory: directory.count("/"))
    return OutputPlan(
        groups=_groups(tuple(place.muxer for place in places)),
        directories=tuple(parents_first),
        moves=tuple(place.move for place in places if place.move is not None),
        presentations=tuple(place.presentation for place in places if place.presentation is not None),
        files=tuple(place.parts for place in places if place.parts is not None),
    )


def _place(
    index: int,
    job: Job,
    output: FileOutput | HlsOutput | PushOutput,
    renditions: tuple[RenditionStreams, ...],
    features: FfmpegFeatures,
    artifacts_dir: str,
) -> _Place:
    streams = _distinct_streams(renditions)
    match output:
        case FileOutput():
            return _file(index, job, output, streams, features, artifacts_dir)
        case HlsOutput():
            folder = str(_absolute(output.path, artifacts_dir, index))
            if "%" in folder:
                raise PipelineError(
                    reason=PipelineErrorReason.UNSUPPORTED,
                    field=f"outputs[{index}].hls.path",
                    message="Cannot write HLS to a path with '%' in it: ffmpeg would take it for a number to fill in. "
                    "Try another folder.",
                )
            live = is_live(job.input, job.facts)
            take = job.input.take if isinstance(job.input, CaptureInput) else 1
            part = job.attempt if job.continues else None
            muxer, made = hls_muxer(
                output, folder, renditions, streams, live=live, take=take, part=part, starts_at=job.resumed_at
            )
            return _Place(muxer=muxer, directories=presentation_folders(made), presentation=made if live else None)
        case PushOutput():
            return _push(index, output, streams)
        case _:
            assert_never(output)


def _file(
    index: int, job: Job, output: FileOutput, streams: tuple[Stream, ...], features: FfmpegFeatures, artifacts_dir: str
) -> _Place:
    options = _captured_options(output.container) if isinstance(job.input, CaptureInput) else None
    if options is None:
        options = _file_options(output.container, features, live=is_live(job.input, job.facts))
    parts = file_parts(index, output, session=job.session, attempt=job.attempt, artifacts_dir=artifacts_dir)
    move, final = parts.move, parts.final_path
    url = final if move is None else move.part_path
    joined = job.continues and not isinstance(job.input, CaptureInput)
    url = parts.own_path if joined else url
    muxer = Muxer(format=_FORMATS[output.container], options=options, url=url, streams=streams)
    directories = (str(PurePosixPath(final).parent),) if move is None else ()
    return _Place(muxer=muxer, directories=directories, move=move, parts=parts if joined else None)


def file_parts(index: int, output: FileOutput, *, session: str, attempt: int, artifacts_dir: str) -> FileParts:
    """Tells where a file is made that is joined of what several attempts, or takes, have written.

    Args:
        index: The output's place in the job.
        output: The output.
        session: Of the job.
        attempt: Of the job.
        artifacts_dir: Absolute path of the folder for relative paths.
    """
    move = output_move(index, output, session=session, attempt=attempt)
    final = output_path(index, output, artifacts_dir)
    scratch = f"{artifacts_dir}/{JOINED_FOLDER}/output-{index}"
    suffix = output.container.value
    if move is None:
        own, made = part_name(final, PartNumber(attempt=attempt)), f"{scratch}.{suffix}"
    else:
        own, made = str(PurePosixPath(move.part_path).with_name(f"own-{index}.{suffix}")), move.part_path
    return FileParts(
        output=output.id,
        container=output.container,
        own_path=own,
        made_path=made,
        final_path=final,
        scratch=scratch,
        move=move,
    )


def output_path(index: int, output: FileOutput, artifacts_dir: str) -> str:
    """Gives the absolute path that was asked for.

    Args:
        index: The output's place in the job, for errors.
        output: The output.
        artifacts_dir: Absolute path of the folder for relative paths.

    Raises:
        PipelineError: When it has no name, or ".." in it.
    """
    return str(_absolute(output.path, artifacts_dir, index))


def output_move(index: int, output: FileOutput, *, session: str, attempt: int) -> OutputMove | None:
    """Tells where a file is written until it is complete. None: at its place, as it is an artifact.

    Args:
        index: The output's place in the job.
        output: The output.
        session: Of the job.
        attempt: Of the job.
    """
    final = PurePosixPath(output.path)
    if not final.is_absolute():
        return None
    # A name of our own inside the private folder: the final name may be as long as names can be.
    part = final.with_name(f".gpu-balancer-{session}-{attempt}") / f"part-{index}.{output.container.value}"
    return OutputMove(part_path=str(part), final_path=str(final), overwrite=output.overwrite)


def _file_options(container: Container, features: FfmpegFeatures, *, live: bool) -> Options:
    """A file of known end has its index in front; any other can be played whenever its writing ends."""
    if not live:
        return (("movflags", "+faststart"),) if container is Container.MP4 else ()
    flushed = (("flush_packets", "1"),)
    if container is Container.MKV:
        return (("cluster_time_limit", _CLUSTER_MILLISECONDS), *flushed)
    if container is not Container.MP4:
        return flushed
    flags = "+hybrid_fragmented" if features.hybrid_mp4 else "+frag_keyframe+delay_moov+default_base_moof"
    return (("movflags", flags), ("frag_duration", _FRAGMENT_MICROSECONDS), *flushed)


def _captured_options(container: Container) -> Options:
    """A take must be good up to the last second wherever it is cut off. It never stays as it is, so that it need not be
    an ordinary MP4 in the end; and Matroska, left alone, keeps up to 5 s back."""
    match container:
        case Container.MP4:
            flags = "+frag_keyframe+delay_moov+default_base_moof"
            return (("movflags", flags), ("frag_duration", _TAKE_FRAGMENT_MICROSECONDS), ("flush_packets", "1"))
        case Container.MKV:
            return (("cluster_time_limit", _TAKE_CLUSTER_MILLISECONDS), ("flush_packets", "1"))
        case Container.TS:
            return (("flush_packets", "1"),)


def _push(index: int, output: PushOutput, streams: tuple[Stream, ...]) -> _Place:
    scheme = urlsplit(output.url).scheme.lower()
    bound: Options = (("rw_timeout", str(NETWORK_TIMEOUT_MICROSECONDS)),)
    options: Options
    match scheme:
        case "rtmp" | "rtmps":
            format_name, options = "flv", (("flvflags", "no_duration_filesize"), *bound)
        case "srt":
            format_name = "mpegts"
            # Without lingering, what is on its way when ffmpeg ends is lost: up to a second of it.
            options = (*bound, ("connect_timeout", str(NETWORK_TIMEOUT_MILLISECONDS)), ("linger", _LINGER_SECONDS))
        case _:
            raise PipelineError(
                reason=PipelineErrorReason.UNSUPPORTED,
                field=f"outputs[{index}].push.url",
                message=f'Cannot push by "{scheme}": only RTMP and SRT are spoken. Try an rtmp, rtmps or srt URL.',
            )
    return _Place(muxer=Muxer(format=format_name, options=options, url=output.url, streams=streams), directories=())


def _absolute(path: str, artifacts_dir: str, index: int) -> PurePosixPath:
    asked = PurePosixPath(path)
    if not asked.name or ".." in asked.parts:
        raise PipelineError(
            reason=PipelineErrorReason.UNSUPPORTED,
            field=f"outputs[{index}].path",
            message='Cannot write to a path with ".." in it, or without a name. Try a plain one.',
        )
    return PurePosixPath(artifacts_dir) / asked


def _distinct_streams(renditions: tuple[RenditionStreams, ...]) -> tuple[Stream, ...]:
    videos: list[VideoStream] = [one.video for one in renditions if one.video is not None]
    sounds: list[AudioStream] = [one.audio for one in renditions if one.audio is not None]
    return tuple(dict.fromkeys([*videos, *sounds]))


def _groups(muxers: tuple[Muxer, ...]) -> tuple[tuple[Muxer, ...], ...]:
    """Joins muxers that have an encoded stream in common, directly or through others."""
    groups: list[list[Muxer]] = []
    for muxer in muxers:
        encoded = {stream for stream in muxer.streams if is_encoded(stream)}
        joined = [group for group in groups if any(encoded & set(member.streams) for member in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([*(member for group in joined for member in group), muxer])
    return tuple(tuple(group) for group in groups)
