"""Every key of balancer.toml with its type, unit, default and meaning.

Impossible values are refused here, when the file is read, so that no running part has to ask itself what to do with
them. What only the machine can tell, such as whether a device that an entry matches exists, is checked where known.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from balancer.settings.profiles import BUILT_IN_PROFILES, ProfileSettings
from balancer.settings.restart_section import RestartSettings
from gpu_balancer.runtime.listen_address import parse_loopback_address
from gpu_balancer.runtime.recording_sections import (
    Applications,
    BrowserSettings,
    DeliverySettings,
    Destinations,
    RecordingSettings,
    named_once,
)
from gpu_balancer.runtime.settings_sections import (
    CalibrationSettings,
    CoreSet,
    DiskSettings,
    FfmpegSettings,
    IngestSettings,
    InputSettings,
    ListenAddress,
    LogSettings,
    OutputSettings,
    SessionSettings,
    TelemetrySettings,
    outlasting,
    parse_cores,
    repeated_addresses,
)
from gpu_balancer.runtime.settings_values import Distinct, Hours, Many, Seconds, Section, refuse

HIGHEST_WEIGHT = 10_000
"""Of a device. Weights are relative, so a larger one has no use; a typing mistake has."""

Weight = Annotated[int, Field(ge=0, le=HIGHEST_WEIGHT)]
"""Relative capacity; 100 is the best device by custom, 0 takes no new session."""

PixelRate = Annotated[int, Field(ge=1, le=10**12)]
"""Pixels per second of a device. The bound is some twenty times what the largest one does: more is a typing mistake."""


def _checked_http(address: str) -> str:
    if address:
        parse_loopback_address(address)
    return address


class ServerSettings(Section):
    """Where the balancer listens, and what it bears."""

    listen: Annotated[Distinct[ListenAddress], Field(min_length=1)] = (
        "unix:{state_dir}/balancer.sock",
        "127.0.0.1:50051",
    )
    """gRPC addresses: unix:PATH or a loopback HOST:PORT. {state_dir} is the state folder."""
    http: Annotated[str, AfterValidator(_checked_http), Field(validate_default=True)] = "127.0.0.1:8080"
    """HTTP address for artifacts and metrics, a loopback HOST:PORT. "": no HTTP."""
    max_receive_mib: Annotated[int, Field(ge=1, le=64)] = 1
    """Mebibytes of a request at most."""
    max_concurrent_streams: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Calls that one connection may have open at once."""
    shutdown_grace_s: Seconds = 5.0
    """Seconds that open calls get to end when the balancer stops."""

    @field_validator("http")
    @classmethod
    def _ports_differ(cls, http: str, info: ValidationInfo) -> str:
        listen: tuple[str, ...] = info.data.get("listen", ())
        clashes = repeated_addresses((*listen, http)) if http else repeated_addresses(listen)
        for path, message in clashes:
            if path == (len(listen),):
                raise ValueError(message)
        return http

    @field_validator("listen")
    @classmethod
    def _once(cls, listen: tuple[str, ...]) -> tuple[str, ...]:
        refuse(repeated_addresses(listen))
        return listen


class CostFactors(Section):
    """What a pixel costs, by what is done to it. Whole numbers, so that loads compare exactly."""

    decode: Annotated[int, Field(ge=0, le=1000)] = 1
    """Of a decoded pixel."""
    scale: Annotated[int, Field(ge=0, le=1000)] = 1
    """Of a scaled pixel."""
    encode: Annotated[int, Field(ge=0, le=1000)] = 5
    """Of an encoded pixel."""

    @model_validator(mode="after")
    def _something_costs(self) -> Self:
        if not (self.decode or self.scale or self.encode):
            refuse([((), "must not all be 0: every device would look idle")])
        return self


class PlacementSettings(Section):
    """How sessions are spread over devices."""

    policy: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = "least_weighted_load"
    """The rule that chooses, by its name among the entry points gpu_balancer.policies."""
    policy_timeout_ms: Annotated[int, Field(ge=1, le=5000)] = 50
    """Milliseconds that a rule of your own may take for an answer, 1 to 5,000; then it is out of use until a reload."""
    factors: CostFactors = CostFactors()
    """What a pixel costs, by what is done to it."""
    headroom: Annotated[float, Field(ge=0.05, le=1, allow_inf_nan=False)] = 0.9
    """Share of every capacity that may be booked, 0.05 to 1."""
    foreign_load: Distinct[Literal["nvidia", "cpu"]] = ("nvidia",)
    """Kinds of devices on which what other programs take, as measured, is not given to sessions."""
    least_batch_speed: Annotated[float, Field(ge=0.01, le=1, allow_inf_nan=False)] = 0.1
    """What a file that is content with what is left keeps when LIVE work needs the room, in times real time."""


class QueueSettings(Section):
    """Sessions that may wait for a device."""

    max_sessions: Annotated[int, Field(ge=0, le=10_000)] = 100
    """Sessions that may wait at once; 0: none."""
    max_wait_s: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] = 86_400.0
    """Seconds that a session waits at most, however long it may."""
    batch_ages_after_s: Seconds = 600.0
    """Seconds after which a BATCH session counts as LIVE in the order of the queue."""
    keep_device_after_s: Seconds = 60.0
    """Seconds after which the head of the queue gets a device kept for it, so that others overtake it no longer."""


class QuarantineSettings(Section):
    """Devices that fail at sessions are put aside until a golden probe passes."""

    failures: Annotated[int, Field(ge=1, le=100)] = 2
    """Failures in a row of the device's own after which it is put aside."""
    within_s: Seconds = 3600.0
    """Seconds in which they must lie."""
    first_pause_s: Seconds = 30.0
    """Seconds until the probe of a device that fails again after it passed one; doubled each further time."""
    longest_pause_s: Seconds = 3600.0
    """Seconds between probes at most."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.longest_pause_s < self.first_pause_s:
            refuse([(("longest_pause_s",), f"must not be below first_pause_s, which is {self.first_pause_s:g}")])
        return self


class AgentsSettings(Section):
    """How the agents come to be and how long to wait for them."""

    launch: Literal["local", "external"] = "local"
    """local: the balancer starts one agent per device. external: agents are started from outside, at `addresses`."""
    addresses: Distinct[ListenAddress] = ()
    """Of external agents: unix:PATH or a loopback HOST:PORT. {state_dir} is the balancer's state folder."""
    start_timeout_s: Seconds = 10.0
    """Seconds until a started agent must answer."""
    exit_timeout_s: Seconds = 15.0
    """Seconds until an agent asked to end must be gone."""
    call_timeout_s: Seconds = 10.0
    """Seconds for an agent's answer to a call that does not stream."""
    reconcile_timeout_s: Seconds = 3.0
    """Seconds for which a balancer that starts waits for its agents to tell what they run, before it serves."""
    replace_hung_after_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 20.0
    """Seconds without an answer after which a local agent is killed and started anew; its sessions run on."""
    orphan_exit_s: Seconds = 60.0
    """Seconds without a balancer after which a local agent without sessions exits."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.launch == "external" and not self.addresses:
            refuse([(("addresses",), 'must name at least one agent when launch = "external"')])
        if self.launch == "local" and self.addresses:
            refuse([(("addresses",), 'must be given with launch = "external" only')])
        return self


class CapacitySettings(Section):
    """What a device can do. A key that is not given follows from the device: its model, or its cores."""

    weight: Weight | None = None
    """Relative capacity, 0 to 10,000; 100 is the best device by custom. 0: takes no new session."""
    decode_pixels_per_second: PixelRate | None = None
    """Pixels of 8-bit H.264 decoded per second, all engines together."""
    scale_pixels_per_second: PixelRate | None = None
    """Pixels scaled per second."""
    encode_pixels_per_second: PixelRate | None = None
    """Pixels of 8-bit H.264 encoded per second at speed "fast", all engines together."""
    memory_mib: Annotated[int, Field(ge=1, le=2**24)] | None = None
    """Mebibytes of memory that sessions may book."""


class DeviceSettings(CapacitySettings):
    """What is said of the NVIDIA GPUs that an entry matches."""

    match: Annotated[str, Field(min_length=1, max_length=128)]
    """UUID, PCI address, NVML index, or a pattern with * and ? for the UUID or the model name."""
    encoder_sessions: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Hardware encoder sessions open at once."""


class CpuDeviceSettings(CapacitySettings):
    """A device made of processor cores."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    """Name of the device: lower-case letters, digits, '-'."""
    cores: CoreSet
    """Its cores: "0-7,9"."""


class BalancerSessionSettings(SessionSettings):
    """How sessions are run and kept."""

    keep_ended_h: Hours = 168.0
    """Hours that an ended session, its log and its artifacts are kept."""
    keep_artifacts_gib: Annotated[float, Field(gt=0, le=2**20, allow_inf_nan=False)] | None = None
    """Gibibytes that artifacts of ended sessions may take together; the sessions that ended first go. Not given: not
    bounded."""


class UploadSettings(Section):
    """Files that clients send because the daemon cannot read them."""

    max_size_mib: Annotated[int, Field(ge=1, le=2**24)] = 16_384
    """Mebibytes of an upload at most."""
    expire_after_h: Hours = 24.0
    """Hours after which an upload is removed, unless a session uses it."""


class HostSettings(Section):
    """What the machine that all devices sit in can do beside them. A key that is not given follows from the machine."""

    memory_mib: Annotated[int, Field(ge=256, le=2**24)] | None = None
    """Mebibytes of its memory that recordings may book. Not given: what it has."""
    upload_bits_per_second: Annotated[int, Field(ge=10_000, le=10**12)] | None = None
    """Bits per second that pushes to other machines may take. Not given: not limited."""


class BalancerSettings(Section):
    """Settings of gpu-balancerd. Every key has a default: the file may be absent."""

    server: ServerSettings = ServerSettings()
    placement: PlacementSettings = PlacementSettings()
    queue: QueueSettings = QueueSettings()
    quarantine: QuarantineSettings = QuarantineSettings()
    restart: RestartSettings = RestartSettings()
    agents: AgentsSettings = AgentsSettings()
    devices: Many[DeviceSettings] = ()
    cpu_devices: Annotated[Many[CpuDeviceSettings], Field(validate_default=True)] = ()
    inputs: InputSettings = InputSettings()
    outputs: OutputSettings = OutputSettings()
    sessions: Annotated[BalancerSessionSettings, Field(validate_default=True)] = BalancerSessionSettings()
    uploads: UploadSettings = UploadSettings()
    recordings: RecordingSettings = RecordingSettings()
    browser: BrowserSettings = BrowserSettings()
    applications: Annotated[Applications, AfterValidator(named_once)] = ()
    deliveries: DeliverySettings = DeliverySettings()
    destinations: Annotated[Destinations, AfterValidator(named_once)] = ()
    host: HostSettings = HostSettings()
    ffmpeg: FfmpegSettings = FfmpegSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    ingest: IngestSettings = IngestSettings()
    profiles: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")], ProfileSettings] = BUILT_IN_PROFILES
    disk: DiskSettings = DiskSettings()
    log: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    _outlasting = field_validator("sessions")(outlasting)

    @field_validator("devices")
    @classmethod
    def _matches_differ(cls, devices: tuple[DeviceSettings, ...]) -> tuple[DeviceSettings, ...]:
        seen = [device.match.lower() for device in devices]
        refuse(
            ((index, "match"), f"must not be given twice: {device.match!r}")
            for index, device in enumerate(devices)
            if device.match.lower() in seen[:index]
        )
        return devices

    @field_validator("cpu_devices")
    @classmethod
    def _cores_differ(
        cls, cpu_devices: tuple[CpuDeviceSettings, ...], info: ValidationInfo
    ) -> tuple[CpuDeviceSettings, ...]:
        mistakes: list[tuple[tuple[str | int, ...], str]] = []
        names: set[str] = set()
        owners: dict[int, str] = {}
        for index, device in enumerate(cpu_devices):
            if device.name in names:
                mistakes.append(((index, "name"), f"must not be used by two CPU devices: {device.name!r}"))
            names.add(device.name)
            shared = [core for core in parse_cores(device.cores) if core in owners]
            if shared:
                told = f"must not share cores with other CPU devices: core {shared[0]} is {owners[shared[0]]}'s"
                mistakes.append(((index, "cores"), told))
            owners |= dict.fromkeys(parse_cores(device.cores), device.name)
        refuse(mistakes)
        _refuse_only_zeros((*info.data.get("devices", ()), *cpu_devices))
        return cpu_devices

    @field_validator("profiles")
    @classmethod
    def _with_built_in(cls, profiles: dict[str, ProfileSettings]) -> dict[str, ProfileSettings]:
        return BUILT_IN_PROFILES | profiles


def _refuse_only_zeros(entries: tuple[CapacitySettings, ...]) -> None:
    """Weights that are not given follow from capacity and are above 0, so one such entry is enough."""
    if entries and all(entry.weight == 0 for entry in entries):
        raise ValueError(
            "must not leave only weights of 0: no device would take a session. "
            'Try a weight above 0 for one of them, or [[devices]] with match = "*" and no weight for all others'
        )
