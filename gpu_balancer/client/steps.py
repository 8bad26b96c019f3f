"""Every step of a client in one class, which `AsyncClient` is and `Client` runs."""

from __future__ import annotations

from gpu_balancer.client.device_requests import DeviceRequests
from gpu_balancer.client.recording_requests import RecordingRequests
from gpu_balancer.client.trace_requests import TraceRequests
from gpu_balancer.client.transcoding import TranscodingRequests


class Steps(TranscodingRequests, RecordingRequests, TraceRequests, DeviceRequests):
    """Every call of the contract, and what is made of several of them."""
