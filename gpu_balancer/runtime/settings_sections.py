"""Sections of settings that the balancer and its agents share.

The balancer writes the settings of the agents that it starts, and operators write them for agents that they start, so
both read the same models. A key whose default is None is off, or follows from something else, unless it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from gpu_balancer.runtime.listen_address import TcpAddress, UnixAddress, parse_listen_address, require_loopback
from gpu_balancer.runtime.settings_values import (
    FROM_ROOT,
    AbsolutePath,
    Distinct,
    MediaProtocol,
    PushProtocol,
    Seconds,
    Section,
    refuse,
)

LARGEST_CORE_NUMBER = 4095
"""CONFIG_NR_CPUS of x86 kernels ends at 8,192; no machine with more than 4,096 cores runs this."""
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def parse_cores(text: str) -> tuple[int, ...]:
    """Reads a core set as `taskset --cpu-list` writes it: "0-7,9".

    Returns:
        The core numbers, rising, each once.

    Raises:
        ValueError: When it does not parse, goes backwards, names a core twice or one above 4095.
    """
    cores: list[int] = []
    for piece in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(piece)
        if match is None:
            raise ValueError(f'must be core numbers and ranges such as "0-7,9", not {text!r}')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"must not have a range that goes backwards: {piece!r}")
        if last > LARGEST_CORE_NUMBER:
            raise ValueError(f"must not name a core above {LARGEST_CORE_NUMBER}: {piece!r}")
        cores += range(first, last + 1)
    if len(set(cores)) < len(cores):
        raise ValueError(f"must not name a core twice: {text!r}")
    return tuple(sorted(cores))


def format_cores(cores: Iterable[int]) -> str:
    """Writes a core set as `parse_cores` reads it: "0-7,9"."""
    ranges: list[list[int]] = []
    for core in sorted(cores):
        if ranges and core == ranges[-1][1] + 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def parse_ports(text: str) -> range:
    """Reads a range of ports: "19350-19449".

    Raises:
        ValueError: When it does not parse, goes backwards, or leaves 1024 to 65535.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f'must be a range of ports such as "19350-19449", not {text!r}')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1024 <= first <= last <= 65535:
        raise ValueError(f"must be a rising range of ports from 1024 to 65535, not {text!r}")
    return range(first, last + 1)


def _checked_cores(text: str) -> str:
    parse_cores(text)
    return text


def _checked_ports(text: str) -> str:
    parse_ports(text)
    return text


def _checked_listen_address(text: str) -> str:
    parse_listen_address(text)
    return text


def _checked_host(host: str) -> str:
    require_loopback(host)
    return host


def _checked_candidate(candidate: str) -> str:
    if candidate != "bundled" and not candidate.startswith("/"):
        raise ValueError(f'must be "bundled" or an absolute path, not {candidate!r}')
    return candidate


def _checked_endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f'must be a URL with a port such as "http://127.0.0.1:4317", not {url!r}')
    return url


CoreSet = Annotated[str, AfterValidator(_checked_cores)]
"""Cores as "0-7,9"; `parse_cores` reads it."""
PortRange = Annotated[str, AfterValidator(_checked_ports)]
"""Ports as "19350-19449"; `parse_ports` reads it."""
ListenAddress = Annotated[str, AfterValidator(_checked_listen_address)]
"""A gRPC address on loopback or a Unix socket; may begin with "unix:{state_dir}/"."""


def outlasting(sessions: AnySessionSettings, info: ValidationInfo) -> AnySessionSettings:
    """Refuses a stop that kills before a stalled input lets ffmpeg hear it. For a field that comes after `inputs`."""
    inputs = info.data.get("inputs")
    if isinstance(inputs, InputSettings) and sessions.stop_timeout_s <= inputs.read_timeout_s:
        stop_s, read_s = f"{sessions.stop_timeout_s:g}", f"{inputs.read_timeout_s:g}"
        if "stop_timeout_s" in sessions.model_fields_set:
            refuse([(("stop_timeout_s",), f"must be above inputs.read_timeout_s, {read_s}, not {stop_s}")])
        told = f"must be below sessions.stop_timeout_s, {stop_s}, not {read_s}"
        refuse([((FROM_ROOT, "inputs", "read_timeout_s"), told)])
    return sessions


def repeated_addresses(addresses: tuple[str, ...]) -> list[tuple[tuple[str | int, ...], str]]:
    """Finds addresses that could not be listened on at once, as mistakes for `settings_values.refuse`."""
    mistakes: list[tuple[tuple[str | int, ...], str]] = []
    parsed = [parse_listen_address(text) for text in addresses]
    for index, address in enumerate(parsed):
        earlier = next((other for other in range(index) if _collide(parsed[other], address)), None)
        if earlier is not None:
            told = f"must not be listened on twice: {addresses[index]!r}, taken by {addresses[earlier]!r}"
            mistakes.append(((index,), told))
    return mistakes


def _collide(one: UnixAddress | TcpAddress, other: UnixAddress | TcpAddress) -> bool:
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return one == other
    # localhost is both 127.0.0.1 and ::1. Port 0 is another one each time.
    same_host = one.host == other.host or "localhost" in {one.host, other.host}
    return same_host and one.port == other.port != 0


class InputSettings(Section):
    """What sessions may read, and how long reading may take."""

    roots: Distinct[AbsolutePath] = ()
    """Folders under which files may be read; links are followed before the check. Empty: no files but uploads."""
    protocols: Distinct[MediaProtocol] = ("file", "http", "https", "rtmp", "rtmps", "rtsp", "srt")
    """Ways for media to come in."""
    allow_private_networks: bool = False
    """Lets streams be read from loopback, private, link-local and other addresses that are not public."""
    probe_timeout_s: Seconds = 5.0
    """Seconds to find out what an input is, at most."""
    probe_size_mib: Annotated[int, Field(ge=1, le=1024)] = 5
    """Mebibytes read of an input to find out what it is, at most."""
    read_timeout_s: Seconds = 5.0
    """Seconds without a byte after which a stream counts as lost."""
    first_frame_timeout_s: Seconds = 30.0
    """Seconds until the first frame must be written; a slow drip of bytes defeats read_timeout_s."""


class OutputSettings(Section):
    """Where sessions may write."""

    roots: Distinct[AbsolutePath] = ()
    """Folders under which files may be written. Empty: none; sessions then leave artifacts and pushes only."""
    protocols: Distinct[PushProtocol] = ("rtmp", "rtmps", "srt")
    """Ways for media to be pushed out."""
    allow_private_networks: bool = False
    """Lets media be pushed to loopback, private, link-local and other addresses that are not public."""


class FfmpegSettings(Section):
    """The ffmpeg programs to try."""

    candidates: Annotated[Distinct[Annotated[str, AfterValidator(_checked_candidate)]], Field(min_length=1)] = (
        "bundled",
        "/usr/bin/ffmpeg",
    )
    """In order of preference: absolute paths, or "bundled" for the one inside the imageio-ffmpeg package. For each
    codec the first that passes the golden probe is used."""
    probe_timeout_s: Seconds = 20.0
    """Seconds that one try of the golden probe may take."""


class CalibrationSettings(Section):
    """How `devices calibrate` measures what a device carries."""

    window_s: Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)] = 0.5
    """Seconds that one measurement takes, about. Shorter ones vary more; the whole is bounded anyway."""
    rounds: Annotated[int, Field(ge=1, le=9)] = 3
    """Times that everything is measured, and samples that have to agree; the middle one counts."""


class IngestSettings(Section):
    """Where agents await publishers. Ports are taken from the ranges by all agents of the host."""

    host: Annotated[str, AfterValidator(_checked_host)] = "127.0.0.1"
    """Loopback host to listen on."""
    rtmp_ports: PortRange = "19350-19449"
    """TCP ports for RTMP, one per awaiting session."""
    srt_ports: PortRange = "19450-19549"
    """UDP ports for SRT, one per awaiting session."""


class SessionSettings(Section):
    """How agents run sessions."""

    stop_timeout_s: Seconds = 8.0
    """Seconds to complete outputs after a stop before processes are killed. Above [inputs] read_timeout_s: a stalled
    input keeps ffmpeg from hearing a stop until then."""
    stalled_timeout_s: Seconds = 30.0
    """Seconds without a new frame after which a session fails with STALLED, or OUTPUT_STALLED. A publisher who pauses,
    a recording that rests and a program that is held at a speed are not counted."""
    degraded_below: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.97
    """Speed in times real time, over 10 seconds, below which a live session is told as DEGRADED."""
    log_max_mib: Annotated[int, Field(ge=1, le=1024)] = 16
    """Mebibytes of log kept per attempt."""
    log_tail_lines: Annotated[int, Field(ge=1, le=200)] = 20
    """Last lines of its log that a failure carries."""
    fence_dir: AbsolutePath | None = None
    """Folder of the lock files by which one attempt of a session at a time writes; the same for all agents of a host.
    Not given: fences below /run/gpu-balancer for root, else below XDG_RUNTIME_DIR, else below /tmp."""


class DiskSettings(Section):
    """How much of the disk that has the state folder is kept free. Of small disks less: see the keys."""

    low_mib: Annotated[int, Field(ge=1, le=2**24)] = 512
    """Mebibytes below which no session begins that leaves artifacts there; a twentieth of the disk at most."""
    least_mib: Annotated[int, Field(ge=1, le=2**24)] = 128
    """Mebibytes below which the least important session is stopped, outputs completed; a fiftieth at most."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least_mib > self.low_mib:
            key = "least_mib" if "least_mib" in self.model_fields_set else "low_mib"
            word = "not be above low_mib" if key == "least_mib" else "not be below least_mib"
            refuse([((key,), f"must {word}: {self.least_mib} of {self.low_mib}")])
        return self


AnySessionSettings = TypeVar("AnySessionSettings", bound=SessionSettings)


class LogSettings(Section):
    """The daemon's own log, on standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """One JSON object per line, or lines for people. auto: for people on a terminal, else JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""


class TelemetrySettings(Section):
    """Traces and metrics. Prometheus text is always on the balancer's HTTP port."""

    otlp_endpoint: Annotated[str, AfterValidator(_checked_endpoint)] | None = None
    """OTLP gRPC endpoint of a collector, for traces and metrics; https:// for TLS. Not given: nothing is sent."""
    service_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "gpu-balancer"
    """service.name of the balancer; that of agents has "-agent" behind it."""
    trace_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of sessions that are traced, 0 to 1."""
    metrics_interval_s: Seconds = 15.0
    """Seconds between metrics sent by OTLP."""


class AgentDeviceSettings(Section):
    """The device of an agent."""

    kind: Literal["nvidia", "cpu"] = "cpu"
    """What the device is made of."""
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "cpu-0"
    """UUID of the GPU, "GPU-…", or the name of the CPU device."""
    cores: CoreSet | None = None
    """Cores of a CPU device, which the agent pins itself to. Not given: all that it may run on."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "nvidia" and self.cores is not None:
            refuse([(("cores",), "must not be given for an NVIDIA GPU: its host's cores are shared by all devices")])
        if self.kind == "nvidia" and not self.id.startswith(("GPU-", "MIG-")):
            refuse([(("id",), f"must be the GPU's UUID, as nvidia-smi -L prints it, not {self.id!r}")])
        return self


class AgentServerSettings(Section):
    """Where an agent listens and keeps its things."""

    listen: Annotated[Distinct[ListenAddress], Field(min_length=1)] = ("unix:{state_dir}/agent.sock",)
    """gRPC addresses: unix:PATH or a loopback HOST:PORT. {state_dir} is the state folder."""
    state_dir: AbsolutePath | None = None
    """State folder. Not given: the folder of this file."""
    max_receive_mib: Annotated[int, Field(ge=1, le=64)] = 1
    """Mebibytes of a request at most."""
    max_concurrent_streams: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Calls that one connection may have open at once."""
    orphan_exit_s: Seconds | None = None
    """Seconds without a balancer after which an agent without sessions exits. Not given: never."""

    @field_validator("listen")
    @classmethod
    def _once(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        refuse(repeated_addresses(listen))
        return listen
