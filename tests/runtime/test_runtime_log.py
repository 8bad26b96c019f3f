"""A line of the log names its session, hides secrets, and is JSON for machines."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from gpu_balancer.runtime.log import bind_session, configure_logging, set_log_level
from gpu_balancer.runtime.settings_sections import LogSettings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Gives the process's logging back as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.captureWarnings(capture=False)
    for name in ("gpu_balancer", "balancer", "agents"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def _configured(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(LogSettings(**settings), stream=stream)
    return stream


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_that_begins_with_time_level_and_message() -> None:
    stream = _configured()
    logging.getLogger("agents.sessions").warning("Lost %d frames", 3)
    (line,) = _lines(stream)
    assert list(line)[:3] == ["time", "level", "message"]
    assert (line["level"], line["message"], line["logger"]) == ("warning", "Lost 3 frames", "agents.sessions")
    assert line["time"].endswith("Z")


def test_structured_loggers_write_the_same_lines() -> None:
    stream = _configured()
    structlog.get_logger("balancer.engine").info("Placed", device="GPU-1", weight=66)
    (line,) = _lines(stream)
    assert (line["message"], line["device"], line["weight"], line["logger"]) == (
        "Placed",
        "GPU-1",
        66,
        "balancer.engine",
    )


async def test_each_line_of_a_session_has_its_name_and_attempt_also_in_tasks_started_inside() -> None:
    stream = _configured()

    async def work(session: str) -> None:
        with bind_session(session, 2):
            await asyncio.sleep(0)
            await asyncio.gather(deeper(), deeper())

    async def deeper() -> None:
        await asyncio.sleep(0)
        logging.getLogger("agents").info("line")

    await asyncio.gather(work("sessions/a"), work("sessions/b"))
    logging.getLogger("agents").info("outside")
    lines = _lines(stream)
    assert sorted((line["session"], line["attempt"]) for line in lines[:4]) == [
        ("sessions/a", 2), ("sessions/a", 2), ("sessions/b", 2), ("sessions/b", 2),
    ]  # fmt: skip
    assert "session" not in lines[4]


def test_before_its_placement_a_session_has_no_attempt() -> None:
    stream = _configured()
    with bind_session("sessions/a"):
        logging.getLogger("balancer").info("queued")
    assert "attempt" not in _lines(stream)[0]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_reaches_the_log(log_format: str) -> None:
    stream = _configured(format=log_format)
    key = "abcd-efgh-ijkl"
    log = logging.getLogger("agents")
    log.info("publishing to %s", f"rtmp://host/app/{key}")
    log.info("nested", extra={"outputs": [{"url": f"srt://host:1?passphrase={key}"}], "stream_key": key})
    structlog.get_logger("agents").info("structured", url=f"rtmp://host/app/{key}", deep={"token": key})
    try:
        raise ValueError(f"cannot open rtmp://host/app/{key}")
    except ValueError:
        log.exception("failed")
    assert key not in stream.getvalue()
    assert stream.getvalue().count("rtmp://host/app/***") >= 3


def test_a_traceback_shows_no_local_variables() -> None:
    stream = _configured(format="console")
    password = "".join(("word", "word"))
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("agents").exception("failed")
    assert "RuntimeError: broken" in stream.getvalue()
    assert password not in stream.getvalue()


def test_a_line_for_people_cannot_steer_their_terminal() -> None:
    stream = _configured(format="console")
    logging.getLogger("agents").info("name \x1b[2J\x07")
    assert "\x1b" not in stream.getvalue()
    assert "name \\x1b[2J\\x07" in stream.getvalue()


def test_without_a_terminal_auto_means_json() -> None:
    stream = _configured(format="auto")
    logging.getLogger("agents").info("x")
    assert _lines(stream)[0]["message"] == "x"


def test_the_level_holds_for_ours_and_changes_at_once_while_libraries_stay_quiet() -> None:
    stream = _configured(level="warning")
    ours, theirs = logging.getLogger("balancer.engine"), logging.getLogger("somebody.else")
    ours.info("1")
    set_log_level("debug")
    ours.debug("2")
    theirs.debug("3")
    theirs.info("4")
    assert [line["message"] for line in _lines(stream)] == ["2", "4"]


def test_configuring_again_writes_each_line_once() -> None:
    _configured()
    stream = _configured()
    logging.getLogger("agents").info("once")
    assert len(_lines(stream)) == 1


def test_a_line_inside_a_span_names_its_trace() -> None:
    stream = _configured()
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("admit") as span:
        logging.getLogger("balancer").info("x")
    assert _lines(stream)[0]["trace_id"] == f"{span.get_span_context().trace_id:032x}"


def test_a_caller_who_hung_up_is_no_news_of_grpc() -> None:
    stream = _configured()
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    grpc_log.error("ExecuteBatchError raised in core by servicer method [%s]", "/v1.Files/Read")
    grpc_log.error("Unexpected [%s] raised by servicer method", "ValueError")
    assert [line["message"] for line in _lines(stream)] == ["Unexpected [ValueError] raised by servicer method"]


_CLOSES_STANDARD_ERROR = """
import logging, os, sys
from gpu_balancer.runtime.log import configure_logging
from gpu_balancer.runtime.settings_sections import LogSettings
configure_logging(LogSettings())
{closes}
logging.getLogger("balancer").info("still told")
"""


@pytest.mark.process
@pytest.mark.parametrize("closes", ["sys.stderr.close()", "os.close(2)"])
def test_whoever_closes_standard_error_ends_nobodys_log(closes: str) -> None:
    program = _CLOSES_STANDARD_ERROR.format(closes=closes)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(answer.stderr)["message"] == "still told"
