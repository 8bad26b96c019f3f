"""How the files of a recording are made of its takes: what is run, what is written, and where it goes in the end.

A take's file can be cut off anywhere, by a kill of ffmpeg or of the machine, and is joined all the same. A recording of
one take is copied once, stream by stream, into an ordinary file with its index in front. Of several, each is first
copied into an ordinary file by itself: only then is it known how long it really is, up to its last picture, and the
next one begins exactly there. What a file claims before that is too short when it was cut off.

Nothing is taken away before the file that was asked for stands where it was asked for, and each step writes its own
file anew, so all of it may be done again after a crash. Priming samples of encoded sound lie before zero and stay there
(`-copyts`), so that the picture begins at zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agents.pipelines.job import Container, FileOutput
from agents.pipelines.outputs import TAKES_FOLDER, file_parts, output_move
from agents.pipelines.parts import part_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agents.pipelines.command import FileParts, OutputMove
    from agents.pipelines.input_description import InputDescription
    from agents.pipelines.parts import PartNumber
    from agents.pipelines.recording import RecordingJob

_FORMATS = {Container.MP4: "mp4", Container.MKV: "matroska", Container.TS: "mpegts"}
_QUIET = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+warning", "-y")
DEMUXERS = {Container.MP4: "mov", Container.MKV: "matroska", Container.TS: "mpegts"}
"""ffmpeg's names of the formats when they are read."""
NO_ROOM = "reserved_moov_size is too small"
"""ffmpeg's words for an index that is larger than the room that was kept for it."""
_MOVED_TO_THE_FRONT = ("-movflags", "+faststart")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishStep:
    """How one file is made. First `texts` are written, then `commands` are run one after the other; then, as each ended
    with 0, `made_path` is moved to `final_path`, or `move` is done. `scratch` can be removed after that."""

    output: str
    """Id of the output."""
    takes: tuple[str, ...]
    """Absolute paths of the takes' files that go in, in order. None of them: there is nothing to make it of."""
    texts: Mapping[str, str]
    """Small files that the commands read, by absolute path."""
    commands: tuple[tuple[str, ...], ...]
    """Programs with their arguments, in order. Each overwrites what it writes."""
    made_path: str
    """Absolute path at which the file is complete when the last command has ended."""
    final_path: str
    """Absolute path that was asked for."""
    move: OutputMove | None
    """For a file under the output roots: `made_path` is its part path. None: an artifact, which is renamed."""
    directories: tuple[str, ...]
    """Absolute paths of folders that must exist before; the private folder of `move` is not among them."""
    scratch: tuple[str, ...]
    """Absolute paths of files that only the commands needed: `texts`, and `copies`."""
    copies: tuple[str, ...] = ()
    """Of each of `takes`, when there are several; `texts` lists them."""
    whole: bool = True
    """Whether it makes the whole file. False: a part of one that cannot be joined."""
    without_room: tuple[str, ...] | None = None
    """What is run in the place of the last command when that says `NO_ROOM`. None: it kept no room for the index."""
    left_out: tuple[str, ...] = ()
    """Absolute paths of what earlier attempts wrote of the file and no player can show: it stays where it is."""


def take_file(index: int, container: Container, number: int) -> str:
    """Gives the path of an output's file of one take, inside the artifacts. Ids of outputs are any text: no names."""
    return f"{TAKES_FOLDER}/{number}/output-{index}.{container.value}"


def take_files(job: RecordingJob, take_numbers: Sequence[int], *, artifacts_dir: str) -> dict[str, tuple[str, ...]]:
    """Gives where the takes of each file output are written.

    Args:
        job: The recording.
        take_numbers: In order.
        artifacts_dir: Absolute path of the attempt's artifacts.

    Returns:
        Absolute paths in the order of the takes, by the output's id.
    """
    return {
        output.id: tuple(f"{artifacts_dir}/{take_file(index, output.container, number)}" for number in take_numbers)
        for index, output in enumerate(job.outputs)
        if isinstance(output, FileOutput)
    }


def describe_command(ffmpeg: str, path: str) -> tuple[str, ...]:
    """Gives the program that tells what a file is, to be read by `parse_input_description`. It ends with a failure."""
    return (ffmpeg, "-hide_banner", "-nostdin", "-protocol_whitelist", "file", "-i", f"file:{path}")


def is_playable(description: InputDescription) -> bool:
    """Tells whether a take's file has anything in it. One that was cut off before its first second has not."""
    return description.error is None and any(stream.kind in ("video", "audio") for stream in description.streams)


def final_moves(job: RecordingJob) -> tuple[OutputMove, ...]:
    """Gives the moves of all files under the output roots, so that their places can be kept before anything is made."""
    outputs = [(index, output) for index, output in enumerate(job.outputs) if isinstance(output, FileOutput)]
    moves = [output_move(index, output, session=job.session, attempt=job.attempt) for index, output in outputs]
    return tuple(move for move in moves if move is not None)


def file_places(job: RecordingJob, *, artifacts_dir: str) -> tuple[FileParts, ...]:
    """Tells where every file of a recording is made, in the order of the outputs."""
    return tuple(
        file_parts(index, output, session=job.session, attempt=job.attempt, artifacts_dir=artifacts_dir)
        for index, output in enumerate(job.outputs)
        if isinstance(output, FileOutput)
    )


def join_step(parts: FileParts, pieces: Sequence[str], ffmpeg: str, *, index_room: int = 0) -> FinishStep:
    """Plans how one file is made of what takes or attempts have written of it.

    An index goes to the front. Moved there when all is written, it has the whole file written again, and until then the
    disk has nothing to do; room that is kept for it saves both.

    Args:
        parts: The file.
        pieces: Absolute paths of what goes in, in order; at least one.
        ffmpeg: Absolute path of the ffmpeg that joins them.
        index_room: Bytes to keep for the index in the front of an MP4. 0: it is moved there.
    """
    parents = () if parts.move is not None else (parts.final_path.rpartition("/")[0],)
    made, container, suffix = parts.made_path, parts.container, parts.container.value
    texts: dict[str, str] = {}
    copies: tuple[str, ...] = ()
    firsts: list[tuple[str, ...]] = []
    if len(pieces) > 1:
        copies = tuple(f"{parts.scratch}-{number}.{suffix}" for number in range(1, len(pieces) + 1))
        texts[f"{parts.scratch}.txt"] = concat_list(copies)
        firsts = [_copied(ffmpeg, piece, copy, container, ()) for piece, copy in zip(pieces, copies, strict=True)]

    def last(in_front: tuple[str, ...]) -> tuple[str, ...]:
        if copies:
            return _joined(ffmpeg, f"{parts.scratch}.txt", made, container, in_front)
        return _copied(ffmpeg, pieces[0], made, container, in_front)

    with_room = ("-moov_size", str(index_room)) if index_room else _MOVED_TO_THE_FRONT
    return FinishStep(
        output=parts.output,
        takes=tuple(pieces),
        texts=texts,
        commands=(*firsts, last(with_room)),
        made_path=made,
        final_path=parts.final_path,
        move=parts.move,
        directories=(parts.scratch.rpartition("/")[0], *parents),
        scratch=(*texts, *copies),
        copies=copies,
        without_room=last(_MOVED_TO_THE_FRONT) if index_room else None,
    )


def as_part(file: FileParts, number: PartNumber) -> FileParts:
    """Gives a file as one that is called a part."""
    final = part_name(file.final_path, number)
    return replace(file, final_path=final, move=None if file.move is None else replace(file.move, final_path=final))


def kept_step(file: FileParts, path: str, number: PartNumber, *, private: bool) -> FinishStep:
    """Plans nothing but to have a piece stand as a part where the file should.

    Args:
        file: The file.
        path: Absolute path of the piece.
        number: Of the part.
        private: Whether the piece is in a folder of ours under the output roots, from where it has to go.
    """
    move = as_part(file, number).move if private else None
    return FinishStep(
        output=file.output,
        takes=(path,),
        texts={},
        commands=(),
        made_path=path,
        final_path=path if move is None else move.final_path,
        move=None if move is None else replace(move, part_path=path),
        directories=(),
        scratch=(),
        whole=False,
    )


def concat_list(paths: Sequence[str]) -> str:
    """Writes a list for ffmpeg's concat demuxer.

    Args:
        paths: Absolute paths, in order.
    """
    quoted = ("'" + path.replace("'", "'\\''") + "'" for path in paths)
    return "".join(["ffconcat version 1.0\n", *(f"file {path}\n" for path in quoted)])


def _copied(ffmpeg: str, take: str, made: str, container: Container, in_front: tuple[str, ...]) -> tuple[str, ...]:
    # A disk that was full, or a kill, tears what was written last; a picture in halves would end a joining there.
    opened = ("-fflags", "+discardcorrupt", "-copyts", *_guard(DEMUXERS[container]), "-i", f"file:{take}")
    return (ffmpeg, *_QUIET, *opened, *_written(made, container, in_front))


def _joined(ffmpeg: str, listed: str, made: str, container: Container, in_front: tuple[str, ...]) -> tuple[str, ...]:
    opened = (
        "-copyts",
        *_guard(f"concat,{DEMUXERS[container]}"),
        "-f",
        "concat",
        "-safe",
        "0",
        "-i",
        f"file:{listed}",
    )
    return (ffmpeg, *_QUIET, *opened, *_written(made, container, in_front))


def _guard(demuxers: str) -> tuple[str, ...]:
    return ("-protocol_whitelist", "file", "-format_whitelist", demuxers)


def _written(made: str, container: Container, in_front: tuple[str, ...]) -> tuple[str, ...]:
    index = in_front if container is Container.MP4 else ()
    return ("-map", "0", "-c", "copy", "-f", _FORMATS[container], *index, f"file:{made}")
