"""A recording: one attempt of a recording session as plain values, with profile, defaults and ids already filled in.

It mirrors `proto/gpu_balancer/v1/recording.proto` without knowing it, as `job` mirrors the media of a transcode. Ranges
are those of the contract and are checked where a request comes in, not again here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from agents.pipelines.job import FrameRate, JobOutput, Rendition

_USUAL_RATE = FrameRate(numerator=30, denominator=1)


class ColorScheme(StrEnum):
    """What a page is told that its viewer prefers."""

    LIGHT = "light"
    DARK = "dark"


class GateKind(StrEnum):
    """What is awaited before the first picture is taken."""

    IMMEDIATELY = "immediately"
    """Nothing but the display."""
    FIRST_CONTENTFUL_PAINT = "first_contentful_paint"
    NETWORK_IDLE = "network_idle"
    """Nothing was under way on the network for half a second."""
    SELECTOR = "selector"
    """An element is there and visible."""
    CONSOLE_SIGNAL = "console_signal"
    FIRST_WINDOW = "first_window"
    """A window of an application is visible."""


class Corner(StrEnum):
    """A corner of the picture."""

    TOP_LEFT = "top_left"
    TOP_RIGHT = "top_right"
    BOTTOM_LEFT = "bottom_left"
    BOTTOM_RIGHT = "bottom_right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """A cookie that a page finds when it is opened."""

    name: str
    value: str
    domain: str | None = None
    """None: the page's host."""
    path: str = "/"
    secure: bool = False
    http_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicAuth:
    """User and password for the page's own server."""

    username: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSource:
    """A web page."""

    url: str
    """With its secrets."""
    device_scale_factor: float = 1.0
    """Device pixels per CSS pixel."""
    locale: str = "en-US"
    timezone: str | None = None
    """IANA name. None: the agent's own."""
    user_agent: str | None = None
    """None: what the browser is."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """For the page's own origin only."""
    cookies: tuple[Cookie, ...] = ()
    basic_auth: BasicAuth | None = None
    init_script: str | None = None
    color_scheme: ColorScheme = ColorScheme.LIGHT
    show_scrollbars: bool = False
    accept_http_errors: bool = False
    ignore_certificate_errors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationSource:
    """A program of the operator's, by its name in the settings."""

    name: str


RecordingSource = PageSource | ApplicationSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """How the display is looked at."""

    width: int = 1280
    """Pixels, even."""
    height: int = 720
    """Pixels, even."""
    frame_rate: FrameRate = _USUAL_RATE
    """Constant."""
    show_cursor: bool = False
    sound: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGate:
    """When the recording begins."""

    kind: GateKind = GateKind.FIRST_CONTENTFUL_PAINT
    timeout: timedelta = timedelta(seconds=30)
    """From the opening of the page."""
    selector: str | None = None
    """CSS, for SELECTOR."""
    signal: str = "START_RECORDING"
    """For CONSOLE_SIGNAL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRules:
    """When the recording ends by itself. None: it does not for that."""

    end_signal: str = "END_RECORDING"
    silence: timedelta | None = None
    idle: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """A still picture laid over every frame."""

    path: str
    """Absolute, links followed."""
    corner: Corner = Corner.BOTTOM_RIGHT
    margin: int = 16
    """Pixels."""
    opacity: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingJob:
    """Everything that one attempt of a recording session has to do."""

    session: str
    """The session's id, without "sessions/"."""
    attempt: int
    """From 1."""
    source: RecordingSource
    capture: Capture
    gate: StartGate
    stop_rules: StopRules
    renditions: tuple[Rendition, ...]
    """At least one; all have encoded video, or none and sound."""
    outputs: tuple[JobOutput, ...]
    """At least one."""
    watermark: Watermark | None = None
    thumbnail_interval: timedelta | None = None
    """None: no thumbnails."""
    destinations: tuple[str, ...] = ()
    """Names in the settings."""
    allow_software_encode: bool = False
    continues: bool = False
    """Whether it goes on with what earlier attempts have made."""

    @property
    def pictures(self) -> bool:
        """Whether it has pictures at all, not sound alone."""
        return any(rendition.video is not None for rendition in self.renditions)
