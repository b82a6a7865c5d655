"""Watches of pools and volumes, which ride on the inventory's change log.

A watch keeps nothing but its cursor. What changed in the pools since then is worked out from the
devices that changed and those related to them: as they are, and as they were, which the log tells.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping

from msgspec import Struct

from nodedev.inventory import Batch, Snapshot
from nodedev.model import Device
from nodedev.pools.book import Book, Pool, Pools
from nodedev.pools.definition import BY_ID
from nodedev.pools.volumes import Devices, View, Volume, offer, view
from nodedev.server.engine import Engine
from nodedev.server.pool_messages import pool_message
from nodedev.server.pool_views import Views
from nodedev.server.watching import BOOKMARK_SECONDS, Watches, split, within
from nodedev.v1 import pool_service_pb2 as pb

# By whether it was there before, and is there after.
_POOL_TYPES = {
    (False, True): pb.PoolChange.TYPE_ADDED,
    (True, True): pb.PoolChange.TYPE_CHANGED,
    (True, False): pb.PoolChange.TYPE_REMOVED,
}
_VOLUME_TYPES = {
    (False, True): pb.VolumeChange.TYPE_ADDED,
    (True, True): pb.VolumeChange.TYPE_CHANGED,
    (True, False): pb.VolumeChange.TYPE_REMOVED,
}
# A volume tells of the devices at the other end of these.
_TOLD = frozenset({"path", "member", "backing"})
_NOTHING = View({}, ())

_Change = pb.PoolChange | pb.VolumeChange


class _Earlier(Mapping[str, Device]):
    """The devices as they were before some changes of the present ones; None for one that was not there."""

    def __init__(self, present: Devices, before: Mapping[str, Device | None]) -> None:
        self._present = present
        self._before = before

    def __getitem__(self, name: str) -> Device:
        found = self._before[name] if name in self._before else self._present[name]
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        names = {name for name in self._present if name not in self._before}
        names.update(name for name, device in self._before.items() if device)
        return iter(sorted(names))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Moment(Struct, frozen=True):
    """The pools and devices of one time."""

    pools: Pools
    devices: Devices


class PoolWatches:
    """All open watches of pools."""

    def __init__(self, engine: Engine, book: Book, views: Views, watches: Watches) -> None:
        self._inventory = engine.inventory
        self._book = book
        self._views = views
        self._watches = watches

    async def watch(self, after: int, names: frozenset[str]) -> AsyncGenerator[pb.WatchPoolsResponse, None]:
        """The changes after a revision, of those pools or of all, for as long as somebody reads them."""
        with self._watches.admitted(), self._watches.woken() as wake:
            cursor = after
            if after == 0:
                snapshot = self._inventory.snapshot
                cursor = snapshot.revision
                present = self._present(snapshot, names)
                for response in split(present, _put, pb.WatchPoolsResponse, 0, cursor):
                    response.snapshot_complete = response.revision == cursor
                    yield response
            sent = cursor
            while True:
                wake.clear()
                batches = self._batches(cursor)
                if batches:
                    snapshot = self._inventory.snapshot
                    changes = list(self._changes(batches, cursor, snapshot, names))
                    cursor = snapshot.revision
                    resync = any(batch.resync for batch in batches)
                    if changes or resync:
                        for response in split(changes, _put, pb.WatchPoolsResponse, sent, cursor):
                            response.resync = resync
                            yield response
                        sent = cursor
                elif sent != cursor or not await within(wake, BOOKMARK_SECONDS):
                    sent = cursor
                    yield pb.WatchPoolsResponse(revision=cursor)

    def _batches(self, cursor: int) -> tuple[Batch, ...]:
        """All that came after; a watch that lags gets it as one step."""
        batches = []
        while batch := self._inventory.next(cursor):
            batches.append(batch)
            cursor = batch.revision
        return tuple(batches)

    def _present(self, snapshot: Snapshot, names: frozenset[str]) -> Iterator[_Change]:
        for pool in self._book.pools.values():
            if not names or pool.name in names:
                yield self._pool_change(pool, snapshot, before=False)
                for volume in self._views.of(pool, snapshot).volumes.values():
                    yield self._volume_change(volume, snapshot.devices, before=False)

    def _changes(
        self, batches: Iterable[Batch], cursor: int, snapshot: Snapshot, names: frozenset[str]
    ) -> Iterator[_Change]:
        were = _as_they_were(batches)
        before = _Moment(self._book.at(cursor), _Earlier(snapshot.devices, were))
        after = _Moment(self._book.pools, snapshot.devices)
        concerned = _concerned(were, snapshot.devices)
        hosts = any(_is_scsi_host(device) for device in (*were.values(), *map(after.devices.get, were)))
        for name in sorted({*before.pools, *after.pools}):
            if names and name not in names:
                continue
            earlier, now = before.pools.get(name), after.pools.get(name)
            if earlier != now:
                yield from self._whole(earlier, now, before, snapshot, told=True)
            elif now and now.active:
                changed = [
                    (was, is_now)
                    for device in concerned
                    if (was := _offer(now, device, before.devices))
                    != (is_now := _offer(now, device, after.devices))
                ]
                # Devices may share a by-id name, and which of them has it is seen from all of them.
                if (changed and now.definition.target == BY_ID) or (hosts and now.definition.adapter):
                    yield from self._whole(now, now, before, snapshot, told=False)
                elif changed:
                    yield from self._local(now, changed, snapshot)

    def _whole(
        self, earlier: Pool | None, now: Pool | None, before: _Moment, snapshot: Snapshot, *, told: bool
    ) -> Iterator[_Change]:
        """The difference of all that a pool showed and shows; `told` if it is itself a change."""
        shown = view(earlier.definition, before.devices) if earlier and earlier.active else _NOTHING
        shows = self._views.of(now, snapshot) if now else _NOTHING
        pool = now or earlier
        if pool and (told or shown.notes != shows.notes):
            yield self._pool_change(pool, snapshot, before=earlier is not None, after=now is not None)
        yield from self._difference(shown.volumes, shows.volumes, snapshot.devices)

    def _local(
        self, pool: Pool, changed: Iterable[tuple[object, object]], snapshot: Snapshot
    ) -> Iterator[_Change]:
        """The difference that some devices make."""
        pairs = list(changed)
        if any(not isinstance(found, Volume | None) for pair in pairs for found in pair):
            yield self._pool_change(pool, snapshot, before=True)
        shown, shows = (
            {found.name: found for pair in pairs if isinstance(found := pair[side], Volume)}
            for side in (0, 1)
        )
        yield from self._difference(shown, shows, snapshot.devices)

    def _difference(
        self, shown: Mapping[str, Volume], shows: Mapping[str, Volume], devices: Devices
    ) -> Iterator[_Change]:
        for name in sorted({*shown, *shows}):
            before, after = shown.get(name), shows.get(name)
            volume = after or before
            if volume and before != after:
                yield self._volume_change(volume, devices, before=before is not None, after=after is not None)

    def _pool_change(
        self, pool: Pool, snapshot: Snapshot, *, before: bool, after: bool = True
    ) -> pb.PoolChange:
        shows = self._views.of(pool, snapshot) if after else _NOTHING
        return pb.PoolChange(type=_POOL_TYPES[before, after], pool=pool_message(pool, shows))

    def _volume_change(
        self, volume: Volume, devices: Devices, *, before: bool, after: bool = True
    ) -> pb.VolumeChange:
        message = self._views.volume_message(volume, devices)
        return pb.VolumeChange(type=_VOLUME_TYPES[before, after], volume=message)


def _as_they_were(batches: Iterable[Batch]) -> Mapping[str, Device | None]:
    """Each changed device before the first of its changes; None for one that was not there."""
    were: dict[str, Device | None] = {}
    for batch in batches:
        for change in batch.changes:
            were.setdefault(change.device.name, change.previous)
    return were


def _concerned(were: Mapping[str, Device | None], devices: Devices) -> list[str]:
    """The devices whose volumes may have changed: those that did, and those that tell of them."""
    found = set(were)
    for name, before in were.items():
        for device in filter(None, (before, devices.get(name))):
            for relation in (*device.members, *device.holders):
                if relation.kind in _TOLD:
                    found.add(relation.device)
    return sorted(found)


def _offer(pool: Pool, name: str, devices: Devices) -> object:
    device = devices.get(name)
    return offer(pool.definition, device, devices) if device else None


def _is_scsi_host(device: Device | None) -> bool:
    return device is not None and device.capability("scsi_host") is not None


def _put(response: pb.WatchPoolsResponse, change: _Change) -> None:
    if isinstance(change, pb.PoolChange):
        response.pools.append(change)
    else:
        response.volumes.append(change)
