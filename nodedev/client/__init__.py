"""Clients: `Client` for threads, with whole answers; for an event loop, watches that never end."""

from typing import TYPE_CHECKING

from nodedev.client.calls import CALL_SECONDS, Client
from nodedev.client.connection import Certificate

if TYPE_CHECKING:
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


def __getattr__(name: str) -> object:
    """What belongs to watches, loaded when first asked for: most commands have no use for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nodedev.client import watch  # noqa: PLC0415

    return getattr(watch, name)
