"""The watch that never ends: a copy of a host's devices, kept true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from nodedev.client.connection import Certificate, aio_channel, error_of, normal
from nodedev.errors import UnavailableError
from nodedev.v1 import device_pb2, device_service_pb2, device_service_pb2_grpc

RECONNECT_SECONDS = 0.1
RECONNECT_SECONDS_MAX = 5.0

# What a service that goes away and comes back looks like to a stream.
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a device; `before` is the copy held until then, None of an added one."""

    type: device_service_pb2.DeviceChange.Type.ValueType
    device: device_pb2.Device
    before: device_pb2.Device | None


@dataclass(frozen=True, slots=True)
class Update:
    """Changes in their order; `complete` when the copy is whole, `resync` after the service lost events."""

    revision: int
    changes: tuple[Change, ...]
    complete: bool
    resync: bool


class DeviceWatch:
    """A true copy of a host's devices, kept through reconnects, restarts and compaction.

    Iterating gives the updates, for ever; `devices` is the copy as of the last one. After a
    reconnect only what differs from the copy comes as a change. Errors of the first connection, and
    refusals that trying again would not mend, are raised; those of later connections are waited out.
    """

    def __init__(
        self,
        address: str,
        wanted: device_service_pb2.DeviceFilter | None = None,
        *,
        after: int = 0,
        certificate: Certificate | None = None,
    ) -> None:
        self.devices: dict[str, device_pb2.Device] = {}
        self.revision = after
        self._address = normal(address)
        self._wanted = wanted
        self._certificate = certificate
        self._fresh: set[str] | None = None

    async def __aiter__(self) -> AsyncIterator[Update]:
        """The updates as they come."""
        connected = False
        delay = RECONNECT_SECONDS
        while True:
            try:
                async with aio_channel(self._address, self._certificate) as channel:
                    stub = device_service_pb2_grpc.DeviceServiceStub(channel)
                    request = device_service_pb2.WatchDevicesRequest(
                        after_revision=self.revision, filter=self._wanted
                    )
                    self._fresh = None if self.revision else set()
                    async for response in stub.WatchDevices(request):
                        connected, delay = True, RECONNECT_SECONDS
                        update = self._take(response)
                        if update.changes or update.complete or update.resync:
                            yield update
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure, self._address)
                if error.status == "OUT_OF_RANGE":
                    self.revision = 0
                    continue
                starting = error.reason == UnavailableError.reason
                if not (starting or (connected and failure.code() in _PASSING)):
                    raise error from failure
            await asyncio.sleep(delay)
            delay = min(2 * delay, RECONNECT_SECONDS_MAX)

    def _take(self, response: device_service_pb2.WatchDevicesResponse) -> Update:
        """Brings the copy up to date, and tells what that changed."""
        changes = [change for sent in response.changes if (change := self._apply(sent))]
        if self._fresh is not None:
            self._fresh.update(sent.device.name for sent in response.changes)
            if response.snapshot_complete:
                gone = [name for name in self.devices if name not in self._fresh]
                changes.extend(self._remove(name) for name in gone)
                self._fresh = None
        if self._fresh is None:
            self.revision = response.revision
        return Update(response.revision, tuple(changes), response.snapshot_complete, response.resync)

    def _apply(self, sent: device_service_pb2.DeviceChange) -> Change | None:
        name, before = sent.device.name, self.devices.get(sent.device.name)
        if sent.type == device_service_pb2.DeviceChange.TYPE_REMOVED:
            return self._remove(name) if before else None
        if sent.device == before:
            return None
        self.devices[name] = sent.device
        types = device_service_pb2.DeviceChange
        return Change(types.TYPE_CHANGED if before else types.TYPE_ADDED, sent.device, before)

    def _remove(self, name: str) -> Change:
        device = self.devices.pop(name)
        return Change(device_service_pb2.DeviceChange.TYPE_REMOVED, device, device)
