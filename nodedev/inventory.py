"""The devices as they are known now, by revision, and what changed before.

A snapshot never changes. Revisions grow with each published change, and across restarts: the
first is the time of the start in microseconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from posixpath import basename

from msgspec import Struct

from nodedev.errors import NotFoundError, OutOfRangeError, PreconditionError
from nodedev.facts.dm_text import unmangled
from nodedev.facts.host import Note
from nodedev.model import Device

LOG_LIMIT = 10_000


class ChangeKind(Enum):
    """What happened to a device."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class Change(Struct, frozen=True):
    """One device's change; `device` as it is now, or as it was when it was removed."""

    kind: ChangeKind
    device: Device
    previous: Device | None = None


class Batch(Struct, frozen=True):
    """What one revision changed; `resync` marks one that made good for lost events."""

    revision: int
    changes: tuple[Change, ...]
    resync: bool = False


class Snapshot(Struct, frozen=True):
    """All devices at one revision, in the order of their names."""

    revision: int
    devices: Mapping[str, Device]
    notes: tuple[Note, ...]


class Inventory:
    """The one holder of the present devices: discovery publishes, everything else reads."""

    def __init__(self, log_limit: int = LOG_LIMIT) -> None:
        self.revision = time.time_ns() // 1000
        self.notes: tuple[Note, ...] = ()
        # What is known of devices from elsewhere than the host: whether they are defined.
        self.annotate: Callable[[Device], Device] | None = None
        # In the order of their names, but for those added since the last snapshot.
        self._devices: dict[str, Device] = {}
        self._added = False
        self._handles: dict[str, dict[str, None]] = {}
        self._snapshot: Snapshot | None = None
        self._log: deque[Batch] = deque()
        self._log_limit = log_limit
        self._logged = 0
        # The log holds every revision after this one, so that each has its place in it.
        self._compacted = self.revision
        self._subscribers: dict[Callable[[], None], None] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The present devices; made when first asked for, not with each change."""
        if self._snapshot is None:
            if self._added:
                # Python's sort takes what is in order already in one go.
                self._devices = {name: self._devices[name] for name in sorted(self._devices)}
                self._added = False
            self._snapshot = Snapshot(self.revision, self._devices.copy(), self.notes)
        return self._snapshot

    def replace(
        self, devices: Iterable[Device], notes: tuple[Note, ...] = (), *, resync: bool = False
    ) -> None:
        """Publishes a whole host; only what differs from the present becomes a change."""
        now = {device.name: device for device in devices}
        gone = [name for name in self._devices if name not in now]
        self.publish(now.values(), gone, notes, resync=resync)

    def publish(
        self,
        devices: Iterable[Device],
        removed: Iterable[str] = (),
        notes: tuple[Note, ...] | None = None,
        *,
        resync: bool = False,
    ) -> None:
        """Publishes devices as they are now and those that are gone, as one revision."""
        changes = tuple(self._apply(devices, removed))
        noted = notes is not None and notes != self.notes
        if notes is not None:
            self.notes = notes
        if not (changes or noted or resync):
            return
        self.revision += 1
        self._snapshot = None
        self._append(Batch(self.revision, changes, resync))
        for wake in tuple(self._subscribers):
            wake()

    def advance(self) -> int:
        """A revision in which no device changed, but something kept beside them did: a pool's definition."""
        self.revision += 1
        self._snapshot = None
        self._append(Batch(self.revision, ()))
        for wake in tuple(self._subscribers):
            wake()
        return self.revision

    def _apply(self, devices: Iterable[Device], removed: Iterable[str]) -> Iterator[Change]:
        for name in removed:
            previous = self._devices.pop(name, None)
            if previous:
                self._index(previous, present=False)
                yield Change(ChangeKind.REMOVED, previous, previous)
        for found in devices:
            device = self.annotate(found) if self.annotate else found
            previous = self._devices.get(device.name)
            # Discovery gives the same object again for what came out as it was; a resync is mostly that.
            if previous is device or previous == device:
                continue
            if previous:
                self._index(previous, present=False)
            else:
                self._added = True
            self._devices[device.name] = device
            self._index(device, present=True)
            yield Change(ChangeKind.CHANGED if previous else ChangeKind.ADDED, device, previous)

    def _append(self, batch: Batch) -> None:
        self._log.append(batch)
        self._logged += len(batch.changes)
        while self._logged > self._log_limit and len(self._log) > 1:
            dropped = self._log.popleft()
            self._logged -= len(dropped.changes)
            self._compacted = dropped.revision

    def next(self, after: int) -> Batch | None:
        """What the revision behind this one changed; None when there is none yet.

        Errors: OutOfRangeError REVISION_COMPACTED where the log no longer tells, REVISION_UNKNOWN
        for one that was never published here.
        """
        if after > self.revision:
            raise OutOfRangeError(
                f"revision {after} is not known", reason="REVISION_UNKNOWN", revision=str(self.revision)
            )
        if after < self._compacted:
            raise OutOfRangeError(
                f"revision {after} is older than the change log", compacted_revision=str(self._compacted)
            )
        if after == self.revision:
            return None
        return self._log[after - self._compacted]

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after each publication until the returned function is called."""
        self._subscribers[wake] = None
        return lambda: self._subscribers.pop(wake, None)

    def find(self, handle: str) -> Device:
        """The device by name, node, link, dm name, WWID, UUID, "MAJOR:MINOR", kernel name or sysfs path.

        Where several answer to a handle, as a map and its paths do to a WWID, it is the one that
        the others are members of. Errors: DEVICE_NOT_FOUND, HANDLE_AMBIGUOUS.
        """
        device = self._devices.get(handle)
        if device:
            return device
        names = self._handles.get(_canonical(handle), {})
        found = [self._devices[name] for name in names]
        below = {relation.device for device in found for relation in device.members}
        top = [device for device in found if device.name not in below]
        if not top:
            raise NotFoundError(f"no device is called {handle!r}", handle=handle)
        if len(top) > 1:
            listed = ", ".join(sorted(device.name for device in top))
            raise PreconditionError(
                f"{handle!r} may be any of {listed}", reason="HANDLE_AMBIGUOUS", handle=handle, devices=listed
            )
        return top[0]

    def _index(self, device: Device, *, present: bool) -> None:
        for handle in _handles(device):
            if present:
                self._handles.setdefault(handle, {})[device.name] = None
            else:
                names = self._handles[handle]
                del names[device.name]
                if not names:
                    del self._handles[handle]


def _handles(device: Device) -> Iterable[str]:
    handles = dict.fromkeys(device.links)
    for handle in (device.sysfs_path, device.devnode):
        if handle:
            handles[handle] = None
    if device.device_number:
        handles[device.device_number] = None
    if device.device_number and device.sysfs_path:
        handles[basename(device.sysfs_path)] = None
    for capability in device.capabilities:
        for handle in capability.handles():
            handles[handle] = None
            # A dm name is found as dmsetup prints it too.
            if "\\x" in handle:
                handles[unmangled(handle)] = None
    return handles


def _canonical(handle: str) -> str:
    """Lets /sys/block/sda and /sys/class/block/sda mean the device of that kernel name."""
    for folder in ("/sys/block/", "/sys/class/block/"):
        if handle.startswith(folder):
            return handle.removeprefix(folder).rstrip("/")
    return handle
