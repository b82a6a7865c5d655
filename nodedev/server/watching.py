"""Watches: each a cursor into the inventory's change log, so that a slow client costs no memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import Message

from nodedev.errors import ExhaustedError
from nodedev.inventory import Batch, ChangeKind, Inventory
from nodedev.proto import device_message
from nodedev.server.filters import Filter
from nodedev.v1 import device_pb2, pool_service_pb2
from nodedev.v1 import device_service_pb2 as pb

WATCHERS_MAX = 256
BOOKMARK_SECONDS = 30.0
MESSAGE_BYTES = 1 << 20

_MADE_MAX = 16

Change = TypeVar("Change", bound=Message)
Response = TypeVar("Response", pb.WatchDevicesResponse, pool_service_pb2.WatchPoolsResponse)

# By whether the device passed the filter before the change, and passes it after.
_TYPES = {
    (False, True): pb.DeviceChange.TYPE_ADDED,
    (True, True): pb.DeviceChange.TYPE_CHANGED,
    (True, False): pb.DeviceChange.TYPE_REMOVED,
}


class Watches:
    """All open watches of one inventory."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._open = 0
        self._made: dict[int, tuple[device_pb2.Device, ...]] = {}

    async def watch(self, after: int, wanted: Filter) -> AsyncGenerator[pb.WatchDevicesResponse, None]:
        """The changes after a revision, for as long as somebody reads them."""
        with self.admitted(), self.woken() as wake:
            cursor = after
            if after == 0:
                snapshot = self._inventory.snapshot
                cursor = snapshot.revision
                present = filter(wanted.passes, snapshot.devices.values())
                added = (_change(pb.DeviceChange.TYPE_ADDED, device_message(device)) for device in present)
                for response in split(added, _put, pb.WatchDevicesResponse, 0, cursor):
                    response.snapshot_complete = response.revision == cursor
                    yield response
            sent = cursor
            while True:
                wake.clear()
                batch = self._inventory.next(cursor)
                if batch:
                    cursor = batch.revision
                    changes = self._changes(batch, wanted)
                    if changes or batch.resync:
                        for response in split(changes, _put, pb.WatchDevicesResponse, sent, cursor):
                            response.resync = batch.resync
                            yield response
                        sent = cursor
                elif sent != cursor or not await within(wake, BOOKMARK_SECONDS):
                    sent = cursor
                    yield pb.WatchDevicesResponse(revision=cursor)

    def _changes(self, batch: Batch, wanted: Filter) -> list[pb.DeviceChange]:
        """What of the batch a watch with that filter has to learn."""
        messages = self._messages(batch)
        changes = []
        for change, message in zip(batch.changes, messages, strict=True):
            before = change.previous is not None and wanted.passes(change.previous)
            after = change.kind is not ChangeKind.REMOVED and wanted.passes(change.device)
            if before or after:
                changes.append(_change(_TYPES[before, after], message))
        return changes

    def _messages(self, batch: Batch) -> tuple[device_pb2.Device, ...]:
        """The batch's devices, made once for all watches that are about as far."""
        if batch.revision not in self._made:
            if len(self._made) >= _MADE_MAX:
                del self._made[next(iter(self._made))]
            self._made[batch.revision] = tuple(device_message(change.device) for change in batch.changes)
        return self._made[batch.revision]

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a watch as long as it is open; TOO_MANY_WATCHERS."""
        if self._open >= WATCHERS_MAX:
            raise ExhaustedError(f"{WATCHERS_MAX} watches are open, and no more are served")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    @contextmanager
    def woken(self) -> Iterator[asyncio.Event]:
        """An event that each new revision sets."""
        wake = asyncio.Event()
        unsubscribe = self._inventory.subscribe(wake.set)
        try:
            yield wake
        finally:
            unsubscribe()


def _change(type_: pb.DeviceChange.Type.ValueType, device: device_pb2.Device) -> pb.DeviceChange:
    return pb.DeviceChange(type=type_, device=device)


def _put(response: pb.WatchDevicesResponse, change: pb.DeviceChange) -> None:
    response.changes.append(change)


def split(
    changes: Iterable[Change],
    put: Callable[[Response, Change], None],
    begin: Callable[..., Response],
    before: int,
    revision: int,
) -> Iterator[Response]:
    """Messages of a bounded size; all but the last say the revision from which all could be sent again."""
    response, size = begin(revision=before), 0
    for change in changes:
        length = change.ByteSize()
        if size and size + length > MESSAGE_BYTES:
            yield response
            response, size = begin(revision=before), 0
        put(response, change)
        size += length
    response.revision = revision
    yield response


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set before the time is over."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
