"""Clients: `Client` for threads, with whole answers; for an event loop, watches that never end."""

from nodedev.client.calls import CALL_SECONDS, Client
from nodedev.client.connection import Certificate
from nodedev.client.watch import (
    Change,
    DeviceWatch,
    PoolChange,
    PoolUpdate,
    PoolWatch,
    Update,
    VolumeChange,
)

__all__ = [
    "CALL_SECONDS",
    "Certificate",
    "Change",
    "Client",
    "DeviceWatch",
    "PoolChange",
    "PoolUpdate",
    "PoolWatch",
    "Update",
    "VolumeChange",
]
