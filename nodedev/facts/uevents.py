"""Uevents: udev's, sent when its rules have run, and the kernel's own where none of those follows in time.

Follows Linux' lib/kobject_uevent.c and libudev's monitor. udevd may be stopped or stuck, or in another
network namespace, which only the kernel's events reach (Linux 4.18); a watch of its alone would be silent.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Literal

from nodedev.facts.udev import CONTROL, Monitor, Uevent

_KERNEL_GROUP = 1
_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_FIRST_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO
_NETLINK_KOBJECT_UEVENT = 15
_SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; root may have more than net.core.rmem_max
# Enough for some 300,000 queued events; without CAP_NET_ADMIN the kernel gives less.
_BUFFER_BYTES = 128 << 20
# A uevent's variables are at most 2 KiB (UEVENT_BUFFER_SIZE).
_MESSAGE_BYTES = 8192
# udev's rules take milliseconds, unless they are many at once.
_RULES_SECONDS = 2.0


class Uevents:
    """Which devices the uevents of some subsystems are about. OSError: none come to this process."""

    def __init__(self, subsystems: Iterable[str], *, buffer_bytes: int | None = None) -> None:
        _require_reached()
        wanted = frozenset(subsystems)
        self._kernel = _KernelEvents(wanted, buffer_bytes or _BUFFER_BYTES)
        self._udev: Monitor | None = None
        # libudev may be missing.
        with suppress(ImportError, OSError):
            self._udev = Monitor(wanted, buffer_bytes or _BUFFER_BYTES)
        # Those of the kernel that udev has not passed on yet, and when that is overdue.
        self._waiting: dict[str, tuple[int, float]] = {}

    @property
    def mode(self) -> Literal["udev", "kernel"]:
        """Whose events come at present."""
        return "udev" if self._udev and os.path.exists(CONTROL) else "kernel"  # noqa: PTH110

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Each is readable when there are events."""
        return tuple(source.fileno() for source in (self._kernel, self._udev) if source)

    @property
    def due(self) -> float:
        """When the first event of the kernel is overdue, by the monotonic clock."""
        return next(iter(self._waiting.values()))[1] if self._waiting else math.inf

    def drain(self) -> tuple[set[str], bool]:
        """The sysfs paths of all queued events, and whether the kernel had to drop some (ENOBUFS)."""
        # The kernel's first: udev's are of those that were queued before them.
        news, lost = self._kernel.drain()
        ruled, ruled_lost = self._udev.drain() if self._udev else ([], False)
        paths = {path for event in ruled for path in _paths(event)}
        if self.mode == "kernel":
            paths.update(path for event in news for path in _paths(event))
        else:
            due = time.monotonic() + _RULES_SECONDS
            for event in news:
                for path in _paths(event):
                    first_due = self._waiting.get(path, (0, due))[1]
                    self._waiting[path] = event.number, first_due
        for event in ruled:
            for path in _paths(event):
                if self._waiting.get(path, (math.inf, 0))[0] <= event.number:
                    del self._waiting[path]
        return paths, lost or ruled_lost

    def overdue(self, now: float) -> set[str]:
        """The devices whose rules take too long, if they run at all."""
        late = set()
        while self.due <= now:
            path = next(iter(self._waiting))
            del self._waiting[path]
            late.add(path)
        return late

    def close(self) -> None:
        """Ends the subscriptions."""
        self._kernel.close()
        if self._udev:
            self._udev.close()


def _require_reached() -> None:
    """Raises OSError in a network namespace that uevents do not reach: one of another user namespace."""
    with open("/proc/self/ns/net", "rb") as namespace:  # noqa: PTH123
        try:
            owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
        except OSError:
            return  # one above this process', or a kernel before 4.9
    try:
        if os.fstat(owner).st_ino != _FIRST_USER_NAMESPACE:
            raise OSError(errno.ENONET, "uevents do not reach this network namespace")
    finally:
        os.close(owner)


def _paths(event: Uevent) -> Iterator[str]:
    yield event.path
    if event.former_path:
        yield event.former_path


class _KernelEvents:
    """The kernel's uevents; all subsystems' come, as the kernel has no filter for its own."""

    def __init__(self, subsystems: frozenset[str], buffer_bytes: int) -> None:
        self._subsystems = subsystems
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            _NETLINK_KOBJECT_UEVENT,
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._socket.bind((0, _KERNEL_GROUP))

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> tuple[list[Uevent], bool]:
        events: list[Uevent] = []
        lost = False
        while True:
            try:
                message, sender = self._socket.recvfrom(_MESSAGE_BYTES)
            except BlockingIOError:
                return events, lost
            except OSError:
                lost = True
                continue
            # Whoever may send here could pretend to be the kernel, but for the sender's number.
            event = parse(message) if sender[0] == 0 else None
            if event and event[0] in self._subsystems:
                events.append(event[1])

    def close(self) -> None:
        self._socket.close()


def parse(message: bytes) -> tuple[str, Uevent] | None:
    """A uevent of the kernel with its subsystem; None for anything else."""
    fields = dict(part.partition(b"=")[::2] for part in message.split(b"\0")[1:])
    path, subsystem, number = (fields.get(name) for name in (b"DEVPATH", b"SUBSYSTEM", b"SEQNUM"))
    if not (path and subsystem and number and number.isdigit()):
        return None
    former = fields.get(b"DEVPATH_OLD")
    return os.fsdecode(subsystem), Uevent(
        os.fsdecode(path), int(number), os.fsdecode(former) if former else None
    )
