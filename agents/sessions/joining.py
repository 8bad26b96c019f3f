"""Makes whole files of what takes and attempts have written of them, and keeps the pieces where that cannot be.

What is to be done is planned anew by whoever does it, from the files that are there, and each file gets its name only
when it is complete: so it can be done again after a crash at any step. Pieces are removed when the whole has its name,
and not before. A piece under the output roots is believed to be ours only while no link leads to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import Progress, run_bounded
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.job import Container
from agents.pipelines.parts import (
    PartNumber,
    first_picture_command,
    has_picture,
    parameters_command,
    parse_parameters,
)
from agents.pipelines.recording_files import (
    DEMUXERS,
    NO_ROOM,
    FinishStep,
    as_part,
    describe_command,
    is_playable,
    join_step,
    kept_step,
)
from agents.sessions.earlier_parts import earlier_parts
from agents.sessions.join_haste import flushed_meanwhile, index_room
from agents.sessions.join_scratch import nameless_copies, require_room, scratch_texts
from agents.sessions.media_bytes import require_all_media
from agents.sessions.output_moves import OutputMoveError, forget_parts, place_outputs
from agents.sessions.placed_files import is_placed, note_placed
from agents.sessions.private_files import (
    by_descriptor,
    is_private,
    is_readable,
    lent,
    remove_private,
)
from agents.sessions.torn_files import mend_file
from gpu_balancer.runtime.durable_file import flush_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agents.bounded_program import ProgramRun
    from agents.pipelines.command import FileParts, OutputMove
    from agents.sessions.fence import FenceHold
    from agents.sessions.folder import AttemptFolder

_LOOKED_AT_WITHIN = timedelta(seconds=20)
_JOINED_WITHIN = timedelta(hours=1)
"""Copying runs at the disk's pace; a day of recording at 8 Mbit/s are 86 GB."""
_STANDS_STILL_WITHIN = timedelta(minutes=2)
"""A disk that writes nothing for so long hangs, and until it is given up the session cannot end."""
_MISSING = timedelta(seconds=1)
"""That a joined file may be shorter than its pieces: they are rounded, and their sound and pictures end apart."""
_PASSING = tuple(os.strerror(number) for number in (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EAGAIN))
"""Why ffmpeg could not look at a file, though there may be a film in it."""
_LOG = logging.getLogger(__name__)


class _KilledError(OSError):
    """A signal that was not ours has ended a joining."""


def resolved(files: Sequence[FileParts], moves: Sequence[OutputMove]) -> tuple[FileParts, ...]:
    """Gives files with their moves as they were looked up when the attempt began."""
    known = {move.part_path: move for move in moves}
    return tuple(
        file if file.move is None else replace(file, move=known.get(file.move.part_path, file.move)) for file in files
    )


async def plan_file(
    file: FileParts, own: Sequence[str], *, folder: AttemptFolder, ffmpeg: str
) -> tuple[FinishStep, ...]:
    """Plans how a file is made of what earlier attempts and this one have written.

    Args:
        file: The file; its move has its folder.
        own: Absolute paths of what this attempt has written, in order.
        folder: Its folder.
        ffmpeg: Absolute path of the ffmpeg that joins them.

    Returns:
        One step when all can be joined, else one for each part, in order; none when there is nothing of it.

    Raises:
        OSError: When ffmpeg cannot be started.
    """
    earlier = await asyncio.to_thread(earlier_parts, file, folder)
    found = (*(path for _, path in earlier), *own)
    if file.container is Container.MP4:
        for path in found:
            await asyncio.to_thread(mend_file, path, file.move)
    looked = {path: await plays(path, file.move, ffmpeg) for path in found}
    # What could not be looked at may be all there is: it is kept.
    before = [(number, path) for number, path in earlier if looked[path] is not False]
    ours = [path for path in own if looked[path] is not False]
    pieces = await _with_pictures([*(path for _, path in before), *ours], file, ffmpeg)
    if not pieces:
        return ()
    before = [(number, path) for number, path in before if path in pieces]
    ours = [path for path in ours if path in pieces]
    left_out = await asyncio.to_thread(_with_content, [path for _, path in earlier if path not in pieces])
    if not before or (all(looked[piece] for piece in pieces) and await _are_alike(pieces, file, ffmpeg)):
        room = await asyncio.to_thread(index_room, pieces, file)
        return (replace(join_step(file, pieces, ffmpeg, index_room=room), left_out=left_out),)
    steps = [kept_step(file, path, number, private=is_private(path, file.move)) for number, path in before]
    number = PartNumber(attempt=folder.key.attempt)
    if ours and ours != [file.own_path]:
        steps.append(replace(join_step(as_part(file, number), ours, ffmpeg), whole=False))
    elif ours:
        steps.append(kept_step(file, ours[0], number, private=is_private(ours[0], file.move)))
    return (replace(steps[0], left_out=left_out), *steps[1:])


def _with_content(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path for path in paths if Path(path).is_file() and Path(path).stat().st_size)


async def plays(path: str, move: OutputMove | None, ffmpeg: str) -> bool | None:
    """Tells whether there is anything in a file that a player could show. None: that could not be told.

    Args:
        path: Absolute path of the file.
        move: Where the file that it is of goes. None: it is an artifact.
        ffmpeg: Absolute path of the ffmpeg that looks.

    Raises:
        OSError: When ffmpeg cannot be started.
    """
    if not await asyncio.to_thread(is_readable, path, move):
        return False
    run = await _look(describe_command(ffmpeg, path), (path,), move)
    untold = run.timed_out or _was_killed(run) or any(why in run.output for why in _PASSING)
    return None if untold else is_playable(parse_input_description(run.output))


async def make(step: FinishStep, folder: AttemptFolder, fence: FenceHold) -> None:
    """Makes one file. An artifact gets its name then, and its pieces are removed.

    Args:
        step: How.
        folder: The attempt's.
        fence: The session's, held; whatever writes files inherits it.

    Raises:
        OSError: When it cannot be made.
    """
    try:
        if not await asyncio.to_thread(_is_made, step, folder):
            await _join(step, fence)
            if step.move is None:
                await asyncio.to_thread(_put, Path(step.made_path), Path(step.final_path))
        if step.move is None:
            await asyncio.to_thread(remove_pieces, step)
    finally:
        await asyncio.to_thread(_remove, step.scratch)


def place(
    steps: Sequence[FinishStep], folder: AttemptFolder
) -> tuple[tuple[FinishStep, ...], tuple[OutputMoveError, ...]]:
    """Puts files that were made under the output roots in place. Blocks for the disk; may be repeated.

    Returns:
        The steps whose files stand where they should, artifacts among them, and why others do not: a name is taken, or
        somebody has changed the folder.

    Raises:
        OSError: When it cannot be noted which files they are. None is in place then.
    """
    note_placed(folder, [step.move for step in steps if step.move is not None])
    placed, errors = [], []
    for step in steps:
        try:
            place_outputs([] if step.move is None else [step.move], all_made=False)
            placed.append(step)
        except OutputMoveError as error:
            errors.append(error)
    return tuple(placed), tuple(errors)


def tidy(steps: Sequence[FinishStep]) -> None:
    """Removes what files were made of, once they stand in place and the end is written down."""
    forget_parts([step.move for step in steps if step.move is not None])
    for step in steps:
        remove_pieces(step)


def remove_pieces(step: FinishStep) -> None:
    """Removes what a whole file was made of, once it has its name."""
    for piece in step.takes if step.commands else ():
        if step.move is None or not is_private(piece, step.move):
            Path(piece).unlink(missing_ok=True)
            continue
        try:
            remove_private(piece, step.move.folder)
        except OSError as error:
            _LOG.warning("Left %s, which a whole file was made of: %s", piece, error)


async def _join(step: FinishStep, fence: FenceHold) -> None:
    """Runs the programs that make a file, and once more when somebody has ended one of them: the kernel out of memory.

    What they had begun when they could not is removed: a part of a copy.
    """
    if not step.commands:
        return
    try:
        await _join_once(step, fence)
    except _KilledError as error:
        _LOG.warning("Joining %s once more: %s", step.output, error.strerror)
        await _join_once(step, fence)


async def _join_once(step: FinishStep, fence: FenceHold) -> None:
    # What one of an agent that was killed has made: it takes the room that this one needs.
    await asyncio.to_thread(_remove_made, step)
    with contextlib.ExitStack() as stack:
        copies = await asyncio.to_thread(stack.enter_context, nameless_copies(step))
        await asyncio.to_thread(require_room, step, copies)
        await asyncio.to_thread(_prepare, step, copies)
        try:
            *firsts, last = step.commands
            for command in firsts:
                await _join_by(command, step, copies, fence)
            try:
                await _join_by(last, step, copies, fence)
            except OSError as error:
                if step.without_room is None or NO_ROOM not in str(error):
                    raise
                await _join_by(step.without_room, step, copies, fence)
            if step.copies:
                await _require_all(step, copies)
            await asyncio.to_thread(require_all_media, step.takes, step.made_path, step.move)
        except OSError:
            await asyncio.to_thread(_remove_made, step)
            raise


async def _join_by(command: Sequence[str], step: FinishStep, copies: Mapping[str, int], fence: FenceHold) -> None:
    async with flushed_meanwhile(Path(step.made_path)):
        run = await _run(
            by_descriptor(command, copies),
            step.takes,
            step.move,
            written=step.made_path,
            timeout=_JOINED_WITHIN,
            inherited=(fence.descriptor, *copies.values()),
        )
    if run.exit_code != 0 or os.strerror(errno.EIO) in run.output:
        raise _refused(run)


async def _require_all(step: FinishStep, copies: Mapping[str, int]) -> None:
    """Makes sure that all is in a file before the pieces go: ffmpeg takes what it cannot read for the end.

    Raises:
        OSError: When it is not.
    """
    lengths = [await _length(step, path, copies) for path in step.copies]
    whole, made = sum(lengths, timedelta()), await _length(step, step.made_path, {})
    if made < whole - _MISSING:
        raise OSError(None, f"only {made.total_seconds():.1f} s of {whole.total_seconds():.1f} could be joined")


async def _length(step: FinishStep, path: str, copies: Mapping[str, int]) -> timedelta:
    """Tells how long a file is. Zero: that cannot be told."""
    command = by_descriptor(describe_command(step.commands[0][0], path), copies)
    read = () if path in copies else (path,)
    run = await _look(command, read, step.move, inherited=tuple(copies.values()))
    return parse_input_description(run.output).facts.duration or timedelta()


def _remove_made(step: FinishStep) -> None:
    if step.move is None or not is_private(step.made_path, step.move):
        Path(step.made_path).unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        remove_private(step.made_path, step.move.folder)


async def _with_pictures(pieces: Sequence[str], file: FileParts, ffmpeg: str) -> list[str]:
    """Leaves out pieces with sound and no picture where others have pictures.

    Streams are joined by their place in a file. A piece that lacks one would have all after it go into the wrong place.
    """
    if len(pieces) <= 1:
        return list(pieces)
    shown = []
    for piece in pieces:
        run = await _look(first_picture_command(ffmpeg, piece, DEMUXERS[file.container]), (piece,), file.move)
        if run.timed_out or _was_killed(run) or has_picture(run.output):
            shown.append(piece)
    return shown or list(pieces)


async def _are_alike(pieces: Sequence[str], file: FileParts, ffmpeg: str) -> bool:
    """Tells whether pieces can be joined without encoding them again."""
    found = set()
    for piece in pieces:
        command = parameters_command(ffmpeg, piece, DEMUXERS[file.container])
        run = await _look(command, (piece,), file.move)
        found.add(() if run.timed_out else parse_parameters(run.output))
    return len(found) == 1 and () not in found


def _refused(run: ProgramRun) -> OSError:
    """Makes the error of a joining that did not end well. Its text tells of a full disk, its exit status does not."""
    if run.exit_code is not None and _was_killed(run):
        return _KilledError(None, f"ffmpeg was ended by a signal ({signal.strsignal(-run.exit_code)})")
    full = errno.ENOSPC if os.strerror(errno.ENOSPC) in run.output else None
    return OSError(full, run.output.strip()[-500:] or "the joining took too long, or stood still")


async def _look(
    command: Sequence[str], read: Sequence[str], move: OutputMove | None, *, inherited: tuple[int, ...] = ()
) -> ProgramRun:
    """Runs ffmpeg to look at a file of ours, and once more when somebody has ended it."""
    run = await _run(command, read, move, timeout=_LOOKED_AT_WITHIN, inherited=inherited)
    if _was_killed(run):
        run = await _run(command, read, move, timeout=_LOOKED_AT_WITHIN, inherited=inherited)
    return run


def _was_killed(run: ProgramRun) -> bool:
    return run.exit_code is not None and run.exit_code < 0


async def _run(
    command: Sequence[str],
    read: Sequence[str],
    move: OutputMove | None,
    *,
    timeout: timedelta,
    written: str | None = None,
    inherited: tuple[int, ...] = (),
) -> ProgramRun:
    """Runs ffmpeg on files of ours, wherever their paths lead by then."""
    with contextlib.ExitStack() as stack:
        held = await asyncio.to_thread(stack.enter_context, lent(read, move, written=written))
        given = (*inherited, *held.values())
        progress = None if written is None else Progress(shown=lambda: _changed(written), within=_STANDS_STILL_WITHIN)
        return await run_bounded(by_descriptor(command, held), timeout=timeout, inherited=given, progress=progress)


def _changed(path: str) -> tuple[int, int] | None:
    """Gives what changes with every write of a file. An index is moved to the front without it becoming longer."""
    with contextlib.suppress(OSError):
        status = Path(path).stat()
        return status.st_size, status.st_mtime_ns
    return None


def _is_made(step: FinishStep, folder: AttemptFolder) -> bool:
    """Tells whether a predecessor has made a file: it gets its name only when it is complete."""
    return Path(step.final_path).is_file() if step.move is None else is_placed(folder, step.move)


def _prepare(step: FinishStep, copies: Mapping[str, int]) -> None:
    for directory in step.directories:
        Path(directory).mkdir(parents=True, exist_ok=True)
    for path, text in scratch_texts(step, copies).items():
        write_durably(Path(path), text.encode())


def _put(made: Path, final: Path) -> None:
    """Gives a finished artifact its name, durably."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(final)
    flush_folder(final.parent)


def _remove(paths: Sequence[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)
