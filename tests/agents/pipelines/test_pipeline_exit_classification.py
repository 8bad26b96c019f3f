"""What became of an ffmpeg. The log lines are real ones, of ffmpeg 9.0 and 5.1, shortened to what matters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.pipelines.exit_classification import ExitOutcome, Outcome, classify_exit
from agents.pipelines.exit_reasons import FailureReason

_QUIET = ("[aac @ 0x55d0a7] [warning] 2 frames left in the queue on closing",)


def _classify(code: int | None, *log: str, made: bool = True, **more: object) -> Outcome:
    state: dict[str, object] = {"stopping": False, **more}
    return classify_exit(exit_code=code, log_tail=log, made_output=made, **state)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "stopping", "made", "kind"),
    [
        (0, False, True, ExitOutcome.COMPLETED),
        (0, True, True, ExitOutcome.COMPLETED),
        (0, True, False, ExitOutcome.STOPPED),
        (255, True, True, ExitOutcome.STOPPED),
        (255, True, False, ExitOutcome.STOPPED),
        (143, True, False, ExitOutcome.STOPPED),
        (143, True, True, ExitOutcome.FAILED),
        (143, False, False, ExitOutcome.FAILED),
        (255, False, True, ExitOutcome.FAILED),
        (0, False, False, ExitOutcome.FAILED),
        (137, True, True, ExitOutcome.FAILED),
        (137, False, True, ExitOutcome.FAILED),
        (None, False, True, ExitOutcome.FAILED),
        (None, True, True, ExitOutcome.FAILED),
    ],
)
def test_the_state_decides_what_an_exit_code_means(
    code: int | None, stopping: bool, made: bool, kind: ExitOutcome
) -> None:
    assert _classify(code, *_QUIET, stopping=stopping, made=made).kind is kind


def test_a_report_that_found_no_room_fails_nothing() -> None:
    log = "[error] Error closing progress log, loss of information possible: No space left on device"
    assert _classify(255, log, stopping=True).kind is ExitOutcome.STOPPED
    assert _classify(0, log).kind is ExitOutcome.COMPLETED


@pytest.mark.parametrize(
    ("code", "stopping", "made", "reason"),
    [
        (255, False, True, FailureReason.KILLED),
        (137, True, True, FailureReason.KILLED),
        (-9, False, True, FailureReason.KILLED),
        (None, False, False, FailureReason.KILLED),
        (0, False, False, FailureReason.NO_OUTPUT),
        (139, False, True, FailureReason.FFMPEG_CRASHED),
        (-6, True, True, FailureReason.FFMPEG_CRASHED),
        (228, False, True, FailureReason.DISK_FULL),
        (1, False, True, FailureReason.FFMPEG_FAILED),
        (1, True, True, FailureReason.FFMPEG_FAILED),
    ],
)
def test_without_a_word_in_the_log_the_code_gives_the_reason(
    code: int | None, stopping: bool, made: bool, reason: FailureReason
) -> None:
    assert _classify(code, *_QUIET, stopping=stopping, made=made).failure_reason is reason


_INPUTS: list[tuple[int, tuple[str, ...]]] = [
    (
        254,
        (
            "[in#0 @ 0x55f6cdc12e00] [error] Error opening input: No such file or directory",
            "[error] Error opening input file /nonexist.mp4.",
            "[fatal] Error opening input files: No such file or directory",
        ),
    ),
    (
        8,
        (
            "[http @ 0x555dd7a59c00] [warning] HTTP error 404 Not Found",
            "[in#0 @ 0x555dd7a58f40] [error] Error opening input: Server returned 404 Not Found",
        ),
    ),
    (
        145,
        (
            "[tcp @ 0x55ed] [error] Connection to tcp://127.0.0.1:7009?tcp_nodelay=0 failed: Connection refused",
            "[rtmp @ 0x55ed47a17c00] [error] Cannot open connection tcp://127.0.0.1:7009?tcp_nodelay=0",
            "[in#0 @ 0x55ed47a16f40] [error] Error opening input: Connection refused",
        ),
    ),
    (1, ("[error] /etc/motd: Invalid data found when processing input",)),
    (1, ("[error] http://127.0.0.1:7003/x.ts: Server returned 404 Not Found",)),
    (
        1,
        (
            "[tcp @ 0x55dd] [error] Connection to tcp://127.0.0.1:7009?tcp_nodelay=0 failed: Connection refused",
            "[error] rtmp://127.0.0.1:7009/a/***: Connection refused",
        ),
    ),
    (234, ("[fatal] Stream map '0:V:0' matches no streams.", "[fatal] Error parsing options for output file x.")),
]


@pytest.mark.parametrize(("code", "log"), _INPUTS)
def test_an_input_that_cannot_be_opened_is_told(code: int, log: tuple[str, ...]) -> None:
    outcome = _classify(code, *log, made=False)
    assert outcome.failure_reason is FailureReason.INPUT_UNREADABLE


@pytest.mark.parametrize(
    "log",
    [
        (
            "[rtmp @ 0x55f60d485c80] [error] Cannot open connection tcp://127.0.0.1:7011?listen&listen_timeout=2000",
            "[in#0 @ 0x55f60d484e80] [error] Error opening input: Connection timed out",
        ),
        ("[in#0 @ 0x5578c1397e00] [error] Error opening input: Connection timed out",),
        ("[error] srt://127.0.0.1:7012?mode=listener: Connection timed out",),
    ],
)
def test_nobody_who_publishes_in_time_is_told_apart_from_an_input_that_is_wrong(log: tuple[str, ...]) -> None:
    assert _classify(146, *log, made=False, published=True).failure_reason is FailureReason.NO_PUBLISHER
    assert _classify(146, *log, made=False).failure_reason is FailureReason.INPUT_UNREADABLE


@pytest.mark.parametrize(
    "line",
    [
        "[in#0/flv @ 0x55e01af8f040] [error] Error during demuxing: Input/output error",
        "[error] rtmp://127.0.0.1:7011/live/***: Input/output error",
    ],
)
def test_a_publisher_that_leaves_has_completed_its_stream_but_a_source_that_breaks_off_has_not(line: str) -> None:
    assert _classify(0, line, published=True).kind is ExitOutcome.COMPLETED
    lost = _classify(0, line)
    assert lost.failure_reason is FailureReason.INPUT_LOST
    assert _classify(0, line, stopping=True).kind is ExitOutcome.COMPLETED


@pytest.mark.parametrize(
    "line",
    [
        "[in#0/mpegts @ 0x55f7af300f40] [error] Error during demuxing: Connection timed out",
        "[error] http://127.0.0.1:7002/x.ts: Connection timed out",
    ],
)
def test_a_stream_that_falls_silent_is_lost_whoever_sends_it(line: str) -> None:
    assert _classify(0, line).failure_reason is FailureReason.INPUT_LOST
    assert _classify(0, line, published=True).failure_reason is FailureReason.INPUT_LOST


_OUTPUTS: list[tuple[int, FailureReason, tuple[str, ...]]] = [
    (
        228,
        FailureReason.DISK_FULL,
        (
            "[aost#0:1/aac @ 0x55fa6e9a6f80] [error] Error submitting a packet to the muxer: No space left on device",
            "[out#0/mp4 @ 0x55fa6e9ec3c0] [error] Error muxing a packet",
        ),
    ),
    (1, FailureReason.DISK_FULL, ("[error] av_interleaved_write_frame(): No space left on device",)),
    (
        254,
        FailureReason.OUTPUT_UNWRITABLE,
        ("[out#0/mp4 @ 0x55b8563f33c0] [fatal] Error opening output /nodir/o.mp4: No such file or directory",),
    ),
    (
        254,
        FailureReason.OUTPUT_UNWRITABLE,
        (
            "[tee @ 0x5595] [error] Slave '[f=mp4]/nodir/o.mp4': error opening: No such file or directory",
            "[tee @ 0x5595] [error] Slave muxer #0 failed, aborting.",
            "[out#0/tee @ 0x55] [error] Could not write header (incorrect codec parameters ?): No such file",
        ),
    ),
    (
        145,
        FailureReason.OUTPUT_UNREACHABLE,
        (
            "[tcp @ 0x560f] [error] Connection to tcp://127.0.0.1:7009?tcp_nodelay=0 failed: Connection refused",
            "[out#0/flv @ 0x560f] [fatal] Error opening output rtmp://127.0.0.1:7009/a/***: Connection refused",
        ),
    ),
    (
        145,
        FailureReason.OUTPUT_UNREACHABLE,
        (
            "[tcp @ 0x7fa3] [error] Connection to tcp://127.0.0.1:7009?tcp_nodelay=0 failed: Connection refused",
            "[tee @ 0x563d] [error] Slave '[f=flv]rtmp://127.0.0.1:7009/a/***': error opening: Connection refused",
        ),
    ),
    (
        224,
        FailureReason.OUTPUT_UNREACHABLE,
        ("[vost#0:0/libx264 @ 0x55cc] [error] Error submitting a packet to the muxer: Broken pipe",),
    ),
    (1, FailureReason.OUTPUT_UNREACHABLE, ("[error] av_interleaved_write_frame(): Connection reset by peer",)),
]


@pytest.mark.parametrize(("code", "reason", "log"), _OUTPUTS)
@pytest.mark.parametrize("made", [True, False])
def test_an_output_that_fails_is_told(code: int, reason: FailureReason, log: tuple[str, ...], made: bool) -> None:
    assert _classify(code, *log, made=made).failure_reason is reason


@pytest.mark.parametrize("code", [0, 255])
def test_an_output_that_fails_while_it_is_completed_is_no_success(code: int) -> None:
    line = "[out#0/mp4 @ 0x55fa] [error] Error writing trailer: No space left on device"
    assert _classify(code, line, stopping=True).failure_reason is FailureReason.DISK_FULL


def test_a_bare_name_is_the_input_s_unless_the_input_is_known_by_another() -> None:
    """ffmpeg 5.1 names inputs and outputs alike."""
    line = "[error] rtmp://live.example/app/***: Connection refused"
    assert _classify(1, line, made=False).failure_reason is FailureReason.INPUT_UNREADABLE
    known = _classify(1, line, made=False, input_name="/media/clip.mp4")
    assert known.failure_reason is FailureReason.OUTPUT_UNREACHABLE


def test_an_srt_server_that_left_is_no_disk_that_failed() -> None:
    line = "[vost#0:0/libx264 @ 0x5568] [error] Error submitting a packet to the muxer: Input/output error"
    assert _classify(251, line, made=True).failure_reason is FailureReason.OUTPUT_UNWRITABLE
    assert _classify(251, line, made=True, pushes=True).failure_reason is FailureReason.OUTPUT_UNREACHABLE


_DEVICES: list[tuple[FailureReason, str]] = [
    (
        FailureReason.ENGINE_FAULT,
        "[h264 @ 0x55] [error] cvdl->cuvidDecodePicture(decoder, &params) failed -> CUDA_ERROR_UNKNOWN: unknown error",
    ),
    (
        FailureReason.ENGINE_FAULT,
        "[h264_nvenc @ 0x1a] [error] EncodePicture failed!: generic error (20): (no details)",
    ),
    (FailureReason.ENGINE_FAULT, "[av1_nvenc @ 0x1a] [error] Failed locking bitstream buffer: generic error (20): x"),
    (FailureReason.DEVICE_LOST, "[CUDA @ 0x5639] [error] cu->cuInit(0) failed -> CUDA_ERROR_UNKNOWN: unknown error"),
    (
        FailureReason.DEVICE_LOST,
        "[h264_nvenc @ 0x1a] [error] dl->cuCtxPushCurrent(ctx->cu_context) failed -> CUDA_ERROR_LAUNCH_FAILED: launch",
    ),
    (FailureReason.DEVICE_LOST, "[CUDA @ 0x5639] [error] cu->cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no device"),
    (FailureReason.DEVICE_LOST, "[h264_nvenc @ 0x5639ede1f940] [error] Cannot load libcuda.so.1"),
    (
        FailureReason.ENCODER_SESSION_LIMIT,
        "[h264_nvenc @ 0x1a] [error] OpenEncodeSessionEx failed: out of memory (10): (no details)",
    ),
    (
        FailureReason.DEVICE_MEMORY,
        "[AVHWFramesContext @ 0x1a] [error] cu->cuMemAlloc() failed -> CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    ),
    (FailureReason.DEVICE_MEMORY, "[h264 @ 0x1a] [error] No decoder surfaces left"),
    (
        FailureReason.ENCODER_UNAVAILABLE,
        "[h264_nvenc @ 0x1a] [error] OpenEncodeSessionEx failed: unsupported device (2)",
    ),
    (FailureReason.ENCODER_UNAVAILABLE, "[av1_nvenc @ 0x1a] [error] No capable devices found"),
    (
        FailureReason.ENCODER_UNAVAILABLE,
        "[h264_nvenc @ 0x1a] [error] Driver does not support the required nvenc API version. Found: 12.2",
    ),
    (FailureReason.ENCODER_UNAVAILABLE, "[fatal] Unknown encoder 'av1_nvenc'"),
]


@pytest.mark.parametrize(("reason", "line"), _DEVICES)
def test_the_device_s_own_words_come_before_what_follows_from_them(reason: FailureReason, line: str) -> None:
    log = (
        line,
        "[vost#0:0/h264_nvenc @ 0x1b] [error] Error while opening encoder - maybe incorrect parameters.",
        "[out#0/mp4 @ 0x1c] [error] Could not write header (incorrect codec parameters ?): Invalid argument",
    )
    outcome = _classify(187, *log, made=False)
    assert outcome.failure_reason is reason


def test_an_encoder_that_refuses_is_told_by_what_it_said() -> None:
    outcome = _classify(
        234,
        "[libopus @ 0x5589] [error] Invalid channel layout 2.1 for specified mapping family -1.",
        "[aost#0:0/libopus @ 0x5589] [enc:libopus @ 0x5589] [error] Error while opening encoder - maybe incorrect.",
        made=False,
    )
    assert outcome.failure_reason is FailureReason.ENCODER_UNAVAILABLE
    assert "Invalid channel layout 2.1" in outcome.message


def test_the_first_error_explains_a_failure_without_a_name() -> None:
    outcome = _classify(
        69,
        "[fc#0 @ 0x55d6] [warning] nothing of note",
        "[fc#0 @ 0x55d6] [error] Error sending frames to consumers: Result too large",
        "[error] Conversion failed!",
    )
    assert outcome.failure_reason is FailureReason.FFMPEG_FAILED
    assert "Error sending frames to consumers: Result too large" in outcome.message
    assert "0x55d6" not in outcome.message


_LINES = st.one_of(
    st.sampled_from([line for _, log in _INPUTS for line in log] + [line for _, line in _DEVICES]),
    st.sampled_from([line for _, _, log in _OUTPUTS for line in log]),
    st.text(max_size=80),
)


@given(
    code=st.one_of(st.none(), st.integers(min_value=-70, max_value=300)),
    stopping=st.booleans(),
    made=st.booleans(),
    published=st.booleans(),
    log=st.lists(_LINES, max_size=8),
    name=st.one_of(st.none(), st.text(max_size=10)),
)
def test_every_end_has_an_outcome(
    code: int | None, stopping: bool, made: bool, published: bool, log: list[str], name: str | None
) -> None:
    outcome = classify_exit(
        exit_code=code, stopping=stopping, log_tail=log, made_output=made, published=published, input_name=name
    )
    failed = outcome.kind is ExitOutcome.FAILED
    assert failed == (outcome.failure_reason is not None)
    assert outcome.message
    if failed:
        assert outcome.message.startswith("Cannot ")
        assert " Try " in outcome.message
    if outcome.kind is ExitOutcome.STOPPED:
        assert stopping
    if outcome.kind is ExitOutcome.COMPLETED:
        assert code == 0
