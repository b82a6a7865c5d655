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
from nodedev.facts.udev import Uevents

# Events that come closer together than this are one hint, so that a device in a storm is read once.
_QUIET_SECONDS = 0.02
# The first after a calm is most likely alone but for its twins, and is not held up for others.
_CALM_SECONDS = 0.002
_COLLECT_SECONDS = 0.2
# A running resync changes its files often: progress is looked at this often, and not with each change.
_PROGRESS_SECONDS = 1.0
# multipathd has no events over its socket; its checkers run every 5 s by default (multipath.conf(5)).
_MULTIPATHD_SECONDS = 5.0
_POLLING_SECONDS = 30.0

_MD_FILES = ("array_state", "degraded", "sync_action", "sync_completed", "dev-*/state")


class LiveWatch:
    """Everything a live host has to tell. To be started before the first scan, so that no event is missed.

    `mode` says where events come from: "udev", "kernel" where no udevd runs, or "polling" where the
    process gets none at all, as in some containers: then all is read again from time to time.
    """

    def __init__(self, source: Source, subsystems: Iterable[str], *, buffer_bytes: int | None = None) -> None:
        self._source = source
        self._uevents: Uevents | None = None
        # libudev may be missing, or the network namespace one that no uevent reaches.
        with suppress(ImportError, OSError):
            self._uevents = Uevents(subsystems, buffer_bytes=buffer_bytes)
        self.mode: str = self._uevents.mode if self._uevents else "polling"
        self._scan_due = math.inf if self._uevents else time.monotonic() + _POLLING_SECONDS
        self._poll = select.poll()
        self._reports: dict[int, Callable[[], Iterable[str]]] = {}
        self._arrays: dict[str, list[int]] = {}
        self._syncing: dict[str, float] = {}
        self._maps = dm.Events()
        self._hinted = -math.inf
        self._checked = self._check()
        self._multipathd_due = time.monotonic() + _MULTIPATHD_SECONDS
        if self._uevents:
            self._register(self._uevents.fileno(), select.POLLIN, partial(self._read_uevents, self._uevents))
        self._tables = (_Table("/proc/self/mountinfo", self._mounted), _Table("/proc/swaps", self._swapped))
        for table in self._tables:
            self._register(table.fd, select.POLLPRI, table.changed)
        if self._maps.descriptor is not None:
            self._register(self._maps.descriptor, select.POLLIN, self._changed_maps)
        for folder in Path("/sys/block").glob("md*/md"):
            self._follow(str(folder.parent.resolve()).removeprefix("/sys"))

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
        """The next hints, collected until the host is quiet for a moment."""
        self._lost = False
        paths: set[str] = set()
        now = time.monotonic()
        deadline = now + timeout_seconds
        while not paths and not self._lost and now < deadline:
            due = min((deadline, self._multipathd_due, self._scan_due, *self._syncing.values()))
            self._collect(paths, due - now)
            now = time.monotonic()
            self._tick(paths, now)
        until = now + _COLLECT_SECONDS
        quiet = _CALM_SECONDS if now - self._hinted > _COLLECT_SECONDS else _QUIET_SECONDS
        while now < until and self._collect(paths, quiet):
            now, quiet = time.monotonic(), _QUIET_SECONDS
        self._hinted = now if paths else self._hinted
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

    def _read_uevents(self, uevents: Uevents) -> Iterable[str]:
        paths, lost = uevents.drain()
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
