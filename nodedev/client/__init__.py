"""Clients: `Client` for threads, with whole answers; `DeviceWatch` for an event loop, which never ends."""

from nodedev.client.calls import CALL_SECONDS, Client
from nodedev.client.connection import Certificate
from nodedev.client.watch import Change, DeviceWatch, Update

__all__ = ["CALL_SECONDS", "Certificate", "Change", "Client", "DeviceWatch", "Update"]
