"""The settings of one agent: written by the balancer for the agents it starts, by an operator for external ones."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from gpu_balancer.runtime.recording_sections import (
    Applications,
    BrowserSettings,
    DeliverySettings,
    Destinations,
    RecordingSettings,
    named_once,
)
from gpu_balancer.runtime.settings_sections import (
    AgentDeviceSettings,
    AgentServerSettings,
    CalibrationSettings,
    DiskSettings,
    FfmpegSettings,
    IngestSettings,
    InputSettings,
    LogSettings,
    OutputSettings,
    SessionSettings,
    TelemetrySettings,
    outlasting,
)
from gpu_balancer.runtime.settings_values import Section


class AgentSettings(Section):
    """Settings of gpu-balancer-agent. Every key has a default: the file may be empty."""

    device: AgentDeviceSettings = AgentDeviceSettings()
    server: AgentServerSettings = AgentServerSettings()
    inputs: InputSettings = InputSettings()
    outputs: OutputSettings = OutputSettings()
    ffmpeg: FfmpegSettings = FfmpegSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    ingest: IngestSettings = IngestSettings()
    recordings: RecordingSettings = RecordingSettings()
    browser: BrowserSettings = BrowserSettings()
    applications: Annotated[Applications, AfterValidator(named_once)] = ()
    deliveries: DeliverySettings = DeliverySettings()
    destinations: Annotated[Destinations, AfterValidator(named_once)] = ()
    sessions: Annotated[SessionSettings, Field(validate_default=True)] = SessionSettings()
    disk: DiskSettings = DiskSettings()
    log: LogSettings = LogSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    _outlasting = field_validator("sessions")(outlasting)
