"""What tells that a host has changed: uevents, and poll(2) on what the kernel changes without one.

An event is only a hint at which device to read again; what it carries is not believed. Follows
Linux' Documentation/admin-guide/md.rst ("responds to select/poll"), proc(5) for mountinfo and
swaps, and linux/dm-ioctl.h (DM_DEV_ARM_POLL).
"""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from posixpath import basename

from nodedev.errors import FactError
from nodedev.facts import dm
from nodedev.facts.host import Hints, Source
from nodedev.facts.multipathd import MultipathdMap
from nodedev.facts.uevents import Uevents

# In a storm events are collected for as long as the reading of the last ones took, but no longer than this.
_COLLECT_SECONDS = 0.2
# A running resync changes its files often: progress is looked at this often, and not with each change.
_PROGRESS_SECONDS = 1.0
# multipathd has no events over its socket; its checkers run every 5 s by default (multipath.conf(5)).
_MULTIPATHD_SECONDS = 5.0
_POLLING_SECONDS = 30.0

_MD_FILES = ("array_state", "degraded", "sync_action", "sync_completed", "dev-*/state")


class LiveWatch:
    """Everything a live host has to tell. To be started before the first scan, so that no event is missed.

    `mode` is "udev", "kernel" while no udevd runs, or "polling" where the process gets no events at
    all, as in some containers: then all is read again from time to time.
    """

    def __init__(self, source: Source, subsystems: Iterable[str], *, buffer_bytes: int | None = None) -> None:
        self._source = source
        self._uevents: Uevents | None = None
        # A process may be kept from the socket, as some containers do.
        with suppress(OSError):
            self._uevents = Uevents(subsystems, buffer_bytes=buffer_bytes)
        self._scan_due = math.inf if self._uevents else time.monotonic() + _POLLING_SECONDS
        self._poll = select.poll()
        self._reports: dict[int, Callable[[], Iterable[str]]] = {}
        self._arrays: dict[str, list[int]] = {}
        self._syncing: dict[str, float] = {}
        self._maps = dm.Events()
        self._hinted = self._rested = -math.inf
        self._checked = self._check()
        self._multipathd_due = time.monotonic() + _MULTIPATHD_SECONDS
        for descriptor in self._uevents.descriptors if self._uevents else ():
            self._register(descriptor, select.POLLIN, self._read_uevents)
        self._tables = (_Table("/proc/self/mountinfo", self._mounted), _Table("/proc/swaps", self._swapped))
        for table in self._tables:
            self._register(table.fd, select.POLLPRI, table.changed)
        if self._maps.descriptor is not None:
            self._register(self._maps.descriptor, select.POLLIN, self._changed_maps)
        for folder in Path("/sys/block").glob("md*/md"):
            self._follow(str(folder.parent.resolve()).removeprefix("/sys"))

    @property
    def mode(self) -> str:
        """Where events come from at present."""
        return self._uevents.mode if self._uevents else "polling"

    def close(self) -> None:
        """Ends the watch; not while a wait is under way."""
        for path in tuple(self._arrays):
            self._unfollow(path)
        for table in self._tables:
            os.close(table.fd)
        self._maps.close()
        if self._uevents:
            self._uevents.close()

    def wait(self, timeout_seconds: float) -> Hints:
        """The next hints: at once after a calm, else those of as long as the last ones took to be read.

        So a single event is not held up for others, and a device in a storm is read half the time at most.
        """
        self._lost = False
        paths: set[str] = set()
        now = time.monotonic()
        if self._hinted > self._rested:
            self._rested = now + min(now - self._hinted, _COLLECT_SECONDS)
        deadline = now + timeout_seconds
        while not paths and not self._lost and now < deadline:
            late = self._uevents.due if self._uevents else math.inf
            due = min((deadline, late, self._multipathd_due, self._scan_due, *self._syncing.values()))
            self._collect(paths, due - now)
            now = time.monotonic()
            self._tick(paths, now)
        while now < self._rested:
            self._collect(paths, self._rested - now)
            now = time.monotonic()
        if paths or self._lost:
            self._hinted = now
        for path in paths:
            if basename(path).startswith("md"):
                self._follow(path)
        return Hints(frozenset(paths), self._lost)

    def _collect(self, paths: set[str], seconds: float) -> bool:
        """Takes what is there within the time; whether there was anything."""
        ready = self._poll.poll(max(0.0, seconds) * 1000)
        for fd, _event in ready:
            report = self._reports.get(fd)
            if report:
                paths.update(report())
        return bool(ready)

    def _tick(self, paths: set[str], now: float) -> None:
        """What is looked at by the clock: checkers, the progress of resyncs, all where no events come."""
        if now >= self._scan_due:
            self._scan_due = now + _POLLING_SECONDS
            self._lost = True
        if self._uevents:
            paths.update(self._uevents.overdue(now))
        if now >= self._multipathd_due:
            paths.update(self._changed_multipathd())
            # A host of thousands of maps is asked less often: never more than a twentieth of the time.
            cost = time.monotonic() - now
            self._multipathd_due = now + max(_MULTIPATHD_SECONDS, 20 * cost)
        for path in [path for path, due in self._syncing.items() if now >= due]:
            self._syncing[path] = now + _PROGRESS_SECONDS
            paths.add(path)

    def _register(self, fd: int, events: int, report: Callable[[], Iterable[str]]) -> None:
        self._reports[fd] = report
        self._poll.register(fd, events)

    def _forget(self, fd: int) -> None:
        del self._reports[fd]
        self._poll.unregister(fd)

    def _read_uevents(self) -> Iterable[str]:
        paths, lost = self._uevents.drain() if self._uevents else (set(), False)
        self._lost = self._lost or lost
        return paths

    def _follow(self, path: str) -> None:
        """Opens an array's files anew: after it was stopped and started the old ones tell nothing."""
        self._unfollow(path)
        fds: list[int] = []
        for pattern in _MD_FILES:
            for file in Path(f"/sys{path}/md").glob(pattern):
                with suppress(OSError):
                    fds.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
        for fd in fds:
            self._register(fd, select.POLLPRI, partial(self._array_changed, path, fd))
            self._array_changed(path, fd)
        if fds:
            self._arrays[path] = fds

    def _unfollow(self, path: str) -> None:
        for fd in self._arrays.pop(path, ()):
            self._forget(fd)
            os.close(fd)
        self._syncing.pop(path, None)

    def _array_changed(self, path: str, fd: int) -> Iterable[str]:
        """Reads the file, without which the kernel does not notify again (T23)."""
        try:
            text = os.pread(fd, 64, 0).strip()
        except OSError:
            # The array or the member is gone, and would be reported without end.
            self._poll.modify(fd, 0)
            return (path,)
        if text in {b"resync", b"recover", b"check", b"repair", b"reshape"}:
            self._syncing.setdefault(path, time.monotonic() + _PROGRESS_SECONDS)
        elif text == b"idle":
            self._syncing.pop(path, None)
        return (path,)

    def _changed_maps(self) -> Iterable[str]:
        """The maps whose event number moved."""
        descriptor = self._maps.descriptor
        numbers = self._maps.changed()
        if descriptor is not None and self._maps.descriptor is None:
            self._forget(descriptor)
        return filter(None, (self._source.locate_number(number) for number in numbers))

    def _changed_multipathd(self) -> Iterable[str]:
        before, now = self._checked, self._check()
        self._checked = now
        changed = [
            found
            for wwid in before.keys() | now.keys()
            if before.get(wwid) != now.get(wwid) and (found := now.get(wwid) or before.get(wwid))
        ]
        names = (found.sysfs_name for found in changed)
        return filter(None, (self._source.locate("block", name) for name in names if name))

    def _check(self) -> dict[str, MultipathdMap]:
        try:
            return {found.wwid: found for found in self._source.multipathd()}
        except FactError:
            return {}

    def _mounted(self) -> Iterable[tuple[object, str | None]]:
        """Each mount with the block device below it."""
        for mount in self._source.mounts():
            yield mount, self._source.locate_number(mount.device_number) or self._node(mount.source)

    def _swapped(self) -> Iterable[tuple[object, str | None]]:
        """Each swap area with the block device it is on; the amount in use does not count."""
        for swap in self._source.swaps():
            yield swap.path, self._node(swap.path)

    def _node(self, path: str) -> str | None:
        """The sysfs path of the block device that a node or a link in /dev leads to."""
        if not path.startswith("/dev/"):
            return None
        return self._source.locate("block", basename(os.path.realpath(path)))


class _Table:
    """A table of /proc that poll(2) watches; tells the devices of the lines that came or went."""

    def __init__(self, path: str, read: Callable[[], Iterable[tuple[object, str | None]]]) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._read = read
        self._before = self._lines()

    def changed(self) -> Iterable[str]:
        now = self._lines()
        before, self._before = self._before, now
        different = before.keys() ^ now.keys()
        return filter(None, (now.get(line) or before.get(line) for line in different))

    def _lines(self) -> dict[object, str | None]:
        try:
            return dict(self._read())
        except FactError:
            return {}
