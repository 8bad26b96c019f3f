"""Every call of the contract that clients make: its path, its messages, whether it may be made twice, how long it is.

A table instead of the generated stubs, because the same steps serve grpc and grpc.aio, whose stubs have different
types. A test holds it against the contract's own description, so that no call is missing and no type is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from google.protobuf.message import Message

from gpu_balancer.v1 import balancer_service_pb2 as balancer
from gpu_balancer.v1 import device_service_pb2 as devices
from gpu_balancer.v1 import session_service_pb2 as sessions
from gpu_balancer.v1 import upload_service_pb2 as uploads

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)

_PROMPT = timedelta(seconds=30)
# A golden probe tries each codec for real on each ffmpeg; a shutdown that stops sessions waits for their outputs.
_LONG = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[RequestT, ResponseT]):
    """One call of the contract."""

    service: str
    """Name of the service without its package."""
    name: str
    """Name of the call."""
    request: type[RequestT]
    response: type[ResponseT]
    repeatable: bool = True
    """Whether a second call does no harm when it is unknown whether the first one arrived."""
    timeout: timedelta | None = _PROMPT
    """Longest time until the answer. None: a stream, which has no such bound."""

    @property
    def path(self) -> str:
        """The path under which gRPC knows the call."""
        return f"/gpu_balancer.v1.{self.service}/{self.name}"


# Creating is repeatable because every request carries a request id.
CREATE_SESSION = Method(
    service="SessionService",
    name="CreateSession",
    request=sessions.CreateSessionRequest,
    response=sessions.CreateSessionResponse,
)
GET_SESSION = Method(
    service="SessionService",
    name="GetSession",
    request=sessions.GetSessionRequest,
    response=sessions.GetSessionResponse,
)
LIST_SESSIONS = Method(
    service="SessionService",
    name="ListSessions",
    request=sessions.ListSessionsRequest,
    response=sessions.ListSessionsResponse,
)
WATCH_SESSION = Method(
    service="SessionService",
    name="WatchSession",
    request=sessions.WatchSessionRequest,
    response=sessions.WatchSessionResponse,
    timeout=None,
)
WATCH_SESSIONS = Method(
    service="SessionService",
    name="WatchSessions",
    request=sessions.WatchSessionsRequest,
    response=sessions.WatchSessionsResponse,
    timeout=None,
)
STOP_SESSION = Method(
    service="SessionService",
    name="StopSession",
    request=sessions.StopSessionRequest,
    response=sessions.StopSessionResponse,
)
PAUSE_SESSION = Method(
    service="SessionService",
    name="PauseSession",
    request=sessions.PauseSessionRequest,
    response=sessions.PauseSessionResponse,
)
RESUME_SESSION = Method(
    service="SessionService",
    name="ResumeSession",
    request=sessions.ResumeSessionRequest,
    response=sessions.ResumeSessionResponse,
)
EXTEND_SESSION = Method(
    service="SessionService",
    name="ExtendSession",
    request=sessions.ExtendSessionRequest,
    response=sessions.ExtendSessionResponse,
)
SNAPSHOT_SESSION = Method(
    service="SessionService",
    name="SnapshotSession",
    request=sessions.SnapshotSessionRequest,
    response=sessions.SnapshotSessionResponse,
)
DELETE_SESSION = Method(
    service="SessionService",
    name="DeleteSession",
    request=sessions.DeleteSessionRequest,
    response=sessions.DeleteSessionResponse,
)
PLAN_SESSION = Method(
    service="SessionService",
    name="PlanSession",
    request=sessions.PlanSessionRequest,
    response=sessions.PlanSessionResponse,
)
EXPLAIN_SESSION = Method(
    service="SessionService",
    name="ExplainSession",
    request=sessions.ExplainSessionRequest,
    response=sessions.ExplainSessionResponse,
)
EXPORT_TRACE = Method(
    service="SessionService",
    name="ExportTrace",
    request=sessions.ExportTraceRequest,
    response=sessions.ExportTraceResponse,
    timeout=None,
)
READ_SESSION_LOG = Method(
    service="SessionService",
    name="ReadSessionLog",
    request=sessions.ReadSessionLogRequest,
    response=sessions.ReadSessionLogResponse,
    timeout=None,
)
LIST_ARTIFACTS = Method(
    service="SessionService",
    name="ListArtifacts",
    request=sessions.ListArtifactsRequest,
    response=sessions.ListArtifactsResponse,
)
READ_ARTIFACT = Method(
    service="SessionService",
    name="ReadArtifact",
    request=sessions.ReadArtifactRequest,
    response=sessions.ReadArtifactResponse,
    timeout=None,
)
LIST_DEVICES = Method(
    service="DeviceService",
    name="ListDevices",
    request=devices.ListDevicesRequest,
    response=devices.ListDevicesResponse,
)
GET_DEVICE = Method(
    service="DeviceService",
    name="GetDevice",
    request=devices.GetDeviceRequest,
    response=devices.GetDeviceResponse,
)
WATCH_DEVICES = Method(
    service="DeviceService",
    name="WatchDevices",
    request=devices.WatchDevicesRequest,
    response=devices.WatchDevicesResponse,
    timeout=None,
)
UPDATE_DEVICE = Method(
    service="DeviceService",
    name="UpdateDevice",
    request=devices.UpdateDeviceRequest,
    response=devices.UpdateDeviceResponse,
)
DRAIN_DEVICE = Method(
    service="DeviceService",
    name="DrainDevice",
    request=devices.DrainDeviceRequest,
    response=devices.DrainDeviceResponse,
)
PROBE_DEVICE = Method(
    service="DeviceService",
    name="ProbeDevice",
    request=devices.ProbeDeviceRequest,
    response=devices.ProbeDeviceResponse,
    timeout=_LONG,
)
# A second calibration would be refused, or measure once more for minutes.
CALIBRATE_DEVICE = Method(
    service="DeviceService",
    name="CalibrateDevice",
    request=devices.CalibrateDeviceRequest,
    response=devices.CalibrateDeviceResponse,
    repeatable=False,
    timeout=None,
)
DELETE_CALIBRATION = Method(
    service="DeviceService",
    name="DeleteCalibration",
    request=devices.DeleteCalibrationRequest,
    response=devices.DeleteCalibrationResponse,
)
# The answer tells what changed: a second reload would tell that nothing did.
RELOAD_SETTINGS = Method(
    service="DeviceService",
    name="ReloadSettings",
    request=devices.ReloadSettingsRequest,
    response=devices.ReloadSettingsResponse,
    repeatable=False,
)
CREATE_UPLOAD = Method(
    service="UploadService",
    name="CreateUpload",
    request=uploads.CreateUploadRequest,
    response=uploads.CreateUploadResponse,
)
# Not repeated as it is: the upload's received_bytes must be asked for first.
WRITE_UPLOAD = Method(
    service="UploadService",
    name="WriteUpload",
    request=uploads.WriteUploadRequest,
    response=uploads.WriteUploadResponse,
    repeatable=False,
    timeout=None,
)
GET_UPLOAD = Method(
    service="UploadService",
    name="GetUpload",
    request=uploads.GetUploadRequest,
    response=uploads.GetUploadResponse,
)
DELETE_UPLOAD = Method(
    service="UploadService",
    name="DeleteUpload",
    request=uploads.DeleteUploadRequest,
    response=uploads.DeleteUploadResponse,
)
GET_BALANCER = Method(
    service="BalancerService",
    name="GetBalancer",
    request=balancer.GetBalancerRequest,
    response=balancer.GetBalancerResponse,
)
# A daemon that was told to end and is gone cannot be told again.
SHUTDOWN = Method(
    service="BalancerService",
    name="Shutdown",
    request=balancer.ShutdownRequest,
    response=balancer.ShutdownResponse,
    repeatable=False,
    timeout=_LONG,
)
