"""Watches that never end: copies of a host's devices and pools, kept true."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Hashable, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

import grpc
from msgspec import Struct

from nodedev.client.connection import Certificate, aio_channel, error_of, normal
from nodedev.errors import UnavailableError
from nodedev.v1 import (
    device_pb2,
    device_service_pb2,
    device_service_pb2_grpc,
    pool_service_pb2,
    pool_service_pb2_grpc,
)

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

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Response = TypeVar("Response")

# A change's type is of the same number in each of the protos' messages.
_ADDED = device_service_pb2.DeviceChange.TYPE_ADDED
_CHANGED = device_service_pb2.DeviceChange.TYPE_CHANGED
_REMOVED = device_service_pb2.DeviceChange.TYPE_REMOVED


class Change(Struct, frozen=True):
    """What happened to a device; `before` is the copy held until then, None of an added one."""

    type: device_service_pb2.DeviceChange.Type.ValueType
    device: device_pb2.Device
    before: device_pb2.Device | None


class Update(Struct, frozen=True):
    """Changes in their order; `complete` when the copy is whole, `resync` after the service lost events."""

    revision: int
    changes: tuple[Change, ...]
    complete: bool
    resync: bool


class PoolChange(Struct, frozen=True):
    """What happened to a pool; `before` is the copy held until then, None of an added one."""

    type: pool_service_pb2.PoolChange.Type.ValueType
    pool: pool_service_pb2.Pool
    before: pool_service_pb2.Pool | None


class VolumeChange(Struct, frozen=True):
    """What happened to a volume; `before` is the copy held until then, None of an added one."""

    type: pool_service_pb2.VolumeChange.Type.ValueType
    volume: pool_service_pb2.Volume
    before: pool_service_pb2.Volume | None


class PoolUpdate(Struct, frozen=True):
    """As an Update, of pools and of volumes."""

    revision: int
    pools: tuple[PoolChange, ...]
    volumes: tuple[VolumeChange, ...]
    complete: bool
    resync: bool


class _Copy(Generic[Key, Item]):
    """What a stream has sent, by key; where the stream begins anew it keeps what comes again."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self._fresh: set[Key] | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing of a beginning is still to come."""
        return self._fresh is None

    def begin(self, *, anew: bool) -> None:
        """A stream starts, with all there is if `anew`."""
        self._fresh = set() if anew else None

    def take(
        self, sent: Iterable[tuple[int, Key, Item]], *, complete: bool
    ) -> list[tuple[int, Item, Item | None]]:
        """The changes that these make: type, item, and the copy held until then."""
        changes = [change for each in sent if (change := self._apply(*each))]
        if complete and self._fresh is not None:
            gone = [key for key in self.items if key not in self._fresh]
            changes.extend(self._remove(key) for key in gone)
            self._fresh = None
        return changes

    def _apply(self, type_: int, key: Key, item: Item) -> tuple[int, Item, Item | None] | None:
        if self._fresh is not None:
            self._fresh.add(key)
        before = self.items.get(key)
        if type_ == _REMOVED:
            return self._remove(key) if before else None
        if item == before:
            return None
        self.items[key] = item
        return (_CHANGED if before else _ADDED), item, before

    def _remove(self, key: Key) -> tuple[int, Item, Item | None]:
        item = self.items.pop(key)
        return _REMOVED, item, item


class _Watch(Generic[Response]):
    """A stream that is opened again wherever it ends: after a reconnect, a restart, or compaction."""

    def __init__(self, address: str, certificate: Certificate | None, after: int) -> None:
        self.revision = after
        self._address = normal(address)
        self._certificate = certificate

    def _open(self, channel: grpc.aio.Channel) -> AsyncIterable[Response]:
        """Opens the stream after the revision."""
        raise NotImplementedError

    async def _responses(self) -> AsyncGenerator[Response, None]:
        """What the streams send, one after the other."""
        connected = False
        delay = RECONNECT_SECONDS
        while True:
            try:
                async with aio_channel(self._address, self._certificate) as channel:
                    async for response in self._open(channel):
                        connected, delay = True, RECONNECT_SECONDS
                        yield response
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


class DeviceWatch(_Watch[device_service_pb2.WatchDevicesResponse]):
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
        super().__init__(address, certificate, after)
        self._wanted = wanted
        self._copy = _Copy[str, device_pb2.Device]()
        self.devices = self._copy.items

    def _open(self, channel: grpc.aio.Channel) -> AsyncIterable[device_service_pb2.WatchDevicesResponse]:
        self._copy.begin(anew=not self.revision)
        return device_service_pb2_grpc.DeviceServiceStub(channel).WatchDevices(
            device_service_pb2.WatchDevicesRequest(after_revision=self.revision, filter=self._wanted)
        )

    async def __aiter__(self) -> AsyncIterator[Update]:
        """The updates as they come."""
        async with aclosing(self._responses()) as responses:
            async for response in responses:
                changes = self._copy.take(
                    ((sent.type, sent.device.name, sent.device) for sent in response.changes),
                    complete=response.snapshot_complete,
                )
                if self._copy.whole:
                    self.revision = response.revision
                if changes or response.snapshot_complete or response.resync:
                    told = tuple(itertools.starmap(Change, changes))
                    yield Update(response.revision, told, response.snapshot_complete, response.resync)


class PoolWatch(_Watch[pool_service_pb2.WatchPoolsResponse]):
    """A true copy of a host's pools and their volumes, by pool and name; otherwise as DeviceWatch."""

    def __init__(
        self,
        address: str,
        names: Iterable[str] = (),
        *,
        after: int = 0,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(address, certificate, after)
        self._names = tuple(names)
        self._pools = _Copy[str, pool_service_pb2.Pool]()
        self._volumes = _Copy[tuple[str, str], pool_service_pb2.Volume]()
        self.pools = self._pools.items
        self.volumes = self._volumes.items

    def _open(self, channel: grpc.aio.Channel) -> AsyncIterable[pool_service_pb2.WatchPoolsResponse]:
        for copy in (self._pools, self._volumes):
            copy.begin(anew=not self.revision)
        return pool_service_pb2_grpc.StoragePoolServiceStub(channel).WatchPools(
            pool_service_pb2.WatchPoolsRequest(after_revision=self.revision, pools=self._names)
        )

    async def __aiter__(self) -> AsyncIterator[PoolUpdate]:
        """The updates as they come."""
        async with aclosing(self._responses()) as responses:
            async for response in responses:
                complete = response.snapshot_complete
                pools = self._pools.take(
                    ((sent.type, sent.pool.name, sent.pool) for sent in response.pools), complete=complete
                )
                volumes = self._volumes.take(
                    (
                        (sent.type, (sent.volume.pool, sent.volume.name), sent.volume)
                        for sent in response.volumes
                    ),
                    complete=complete,
                )
                if self._pools.whole:
                    self.revision = response.revision
                if pools or volumes or complete or response.resync:
                    yield PoolUpdate(
                        response.revision,
                        tuple(itertools.starmap(PoolChange, pools)),
                        tuple(itertools.starmap(VolumeChange, volumes)),
                        complete,
                        response.resync,
                    )
