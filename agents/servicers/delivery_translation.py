"""From the copies of an artifact to the contract's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.deliveries.status import DeliveryState
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agents.deliveries.status import DeliveryStatus

_STATES = {
    DeliveryState.PENDING: session_pb2.DELIVERY_STATE_PENDING,
    DeliveryState.DELIVERED: session_pb2.DELIVERY_STATE_DELIVERED,
    DeliveryState.FAILED: session_pb2.DELIVERY_STATE_FAILED,
}


def delivery_messages(copies: Iterable[DeliveryStatus]) -> list[session_pb2.Delivery]:
    """Makes the messages of an artifact's copies."""
    messages = []
    for copy in copies:
        message = session_pb2.Delivery(
            destination=copy.destination,
            state=_STATES[copy.state],
            location=copy.location,
            try_count=copy.try_count,
            message=copy.message,
        )
        message.update_time.FromDatetime(copy.update_time)
        messages.append(message)
    return messages
