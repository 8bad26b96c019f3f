"""The daemons' own log: one JSON object per line for machines, or lines for people, on standard error.

Everything goes through the standard library's `logging`, whoever wrote it, and meets one chain here that adds time,
session and trace, and takes secrets out. Tracebacks are written without local variables, which hold secrets.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars

from gpu_balancer.runtime.redaction import HIDDEN, redact_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import EventDict, Processor, WrappedLogger

    from gpu_balancer.runtime.settings_sections import LogSettings

OUR_LOGGERS = ("gpu_balancer", "balancer", "agents")
"""Roots of our loggers: only these go below the severity "info", because libraries tell too much there."""

_SECRET_KEYS = frozenset({"password", "passphrase", "secret", "token", "stream_key", "authorization", "credentials"})
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def configure_logging(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Sets the process's log up; called again, it replaces what was set before.

    Args:
        settings: Form and least severity.
        stream: Where lines go. None: standard error.
    """
    stream = stream or _own_standard_error()
    people = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED, processors=_for_people(stream) if people else _FOR_MACHINES
        )
    )
    handler.addFilter(_is_news)
    logging.root.handlers[:] = [handler]
    logging.captureWarnings(capture=True)
    set_log_level(settings.level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _own_standard_error() -> TextIO:
    """Opens standard error once more: whoever closes it, as an operator's policy may, ends nobody's log."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace", buffering=1)


def _is_news(record: logging.LogRecord) -> bool:
    """Leaves out that a caller has hung up in the middle of an answer, of which gRPC writes a traceback."""
    return not (record.name.startswith("grpc.") and "ExecuteBatchError" in str(record.msg))


def set_log_level(level: str) -> None:
    """Sets the least severity that is written, at once and for all loggers of ours.

    Args:
        level: "debug", "info", "warning" or "error".
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.root.setLevel(max(number, logging.INFO))
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(number)


@contextmanager
def bind_session(session: str, attempt: int | None = None) -> Iterator[None]:
    """Puts a session's name and attempt on every log line that is written inside, also by tasks started inside.

    Args:
        session: "sessions/{id}".
        attempt: From 1. None: before the first placement.
    """
    known: dict[str, str | int] = {"session": session}
    if attempt is not None:
        known["attempt"] = attempt
    with bound_contextvars(**known):
        yield


def _add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Names the trace that a line belongs to, so that one leads to the other."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
            event["span_id"] = f"{context.span_id:016x}"
    return event


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # What begins with "_" is the formatter's own: the record and where it is from.
    return {
        key: value if key.startswith("_") else HIDDEN if key.lower() in _SECRET_KEYS else _redacted(value)
        for key, value in event.items()
    }


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact_text(value)
        case None | bool() | int() | float():
            return value
        case dict():
            return {
                str(key): HIDDEN if str(key).lower() in _SECRET_KEYS else _redacted(it) for key, it in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_redacted(item) for item in value]
        case _:
            return redact_text(str(value))


def _without_control_characters(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keeps what a client sent from steering the terminal of whoever reads the log."""
    return {
        key: _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", value) if isinstance(value, str) else value
        for key, value in event.items()
    }


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Begins each line alike, so that lines can be read and sorted without a parser."""
    first = {"time": event.pop("time"), "level": event.pop("level"), "message": event.pop("event")}
    return {**first, **event}


_SHARED: tuple[Processor, ...] = (
    merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    _add_trace,
    structlog.processors.format_exc_info,
    _redact,
)
_FOR_MACHINES: tuple[Processor, ...] = (
    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
    _in_order,
    structlog.processors.JSONRenderer(ensure_ascii=False),
)


def _for_people(stream: TextIO) -> tuple[Processor, ...]:
    return (
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _without_control_characters,
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        ),
    )
