"""What udev knows of a device: its properties, its links, and whether its rules have run.

The database is read directly, as libudev does it (systemd's sd-device.c, device_read_db_internal):
a third of libudev's time, and linear. Its files are udev's private format, so libudev stays the
reference: it answers for each file that does not look as expected, and `differences` compares both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from posixpath import basename
from sys import intern
from typing import TYPE_CHECKING

from msgspec import Struct, field

from nodedev.facts.sysfs import SYSFS, drop_bookkeeping, text_of

if TYPE_CHECKING:
    import pyudev

DATABASE = "/run/udev/data"
# udevd's control socket: there while it runs.
CONTROL = "/run/udev/control"

_VERSION = "1"
# Version, time of initialization, link priority, tags, current tags, inotify watch; and the file's end.
_PASSED_OVER = frozenset({"V:", "I:", "L:", "G:", "Q:", "W:", ""})
_READ_BYTES = 65536


class Known(Struct, frozen=True):
    """What udev holds of a device beside what the kernel says; `removed` are properties it has unset."""

    properties: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    initialized: bool = False
    removed: tuple[str, ...] = ()


_UNKNOWN = Known()


def database_name(subsystem: str, kernel_name: str, uevent: Mapping[str, str]) -> str:
    """The name of a device's file in the database: b8:0, c21:0, n2, or +scsi:0:0:0:0."""
    if uevent.get("MAJOR", "0") != "0" and "MINOR" in uevent:
        return f"{'b' if subsystem == 'block' else 'c'}{uevent['MAJOR']}:{uevent['MINOR']}"
    if "IFINDEX" in uevent:
        return f"n{uevent['IFINDEX']}"
    return f"+{subsystem}:{kernel_name}"


def parse(text: str) -> Known:
    """One file of the database; raises ValueError for a line or a version that is not known."""
    links: list[str] = []
    properties: dict[str, str] = {}
    removed: list[str] = []
    for line in text.split("\n"):
        kind, content = line[:2], line[2:]
        if kind == "E:":
            name, equals, value = content.partition("=")
            if not equals:
                raise ValueError(f"a property without a value: {line!r}")
            if value:
                properties[intern(name)] = value
            else:
                # sd-device takes an empty value for the order to drop the property.
                removed.append(name)
        elif kind == "S:":
            links.append(f"/dev/{content}")
        elif kind == "V:" and content != _VERSION:
            raise ValueError(f"version {content} of the database")
        elif kind not in _PASSED_OVER:
            raise ValueError(f"unknown line {line!r}")
    return Known(properties, tuple(sorted(links)), True, tuple(removed))


class Database(Struct):
    """The udev database in a folder; `reads` counts its files read, `fallbacks` those left to libudev."""

    folder: str = DATABASE
    reads: int = 0
    fallbacks: int = 0

    @property
    def exists(self) -> bool:
        """Whether there is a database at all: not in a container, nor before udevd's start."""
        return os.path.isdir(self.folder)  # noqa: PTH112

    def read(self, subsystem: str, path: str, uevent: Mapping[str, str]) -> Known:
        """What udev knows of the device at a sysfs path; nothing where it has no file of it."""
        self.reads += 1
        name = database_name(subsystem, basename(path), uevent)
        try:
            descriptor = os.open(f"{self.folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return _UNKNOWN
        except OSError:
            return self._fallback(path)
        try:
            data = b""
            while chunk := os.read(descriptor, _READ_BYTES):
                data += chunk
                if len(chunk) < _READ_BYTES:
                    break
            return parse(text_of(data))
        except (OSError, ValueError):
            return self._fallback(path)
        finally:
            os.close(descriptor)

    def _fallback(self, path: str) -> Known:
        self.fallbacks += 1
        return from_libudev(f"{SYSFS}{path}") or _UNKNOWN


def from_libudev(syspath: str) -> Known | None:
    """What libudev says of the device, its kernel properties among them; None when it is gone."""
    import pyudev  # noqa: PLC0415  60 ms that most starts never need

    try:
        device = pyudev.Devices.from_sys_path(_context(), syspath)
    except pyudev.DeviceNotFoundError:
        return None
    return _known(device)


def from_libudev_all(subsystem: str) -> Iterator[tuple[str, Known]]:
    """What libudev says of each device of one subsystem, with its sysfs path.

    One subsystem at a time: enumerating all of them takes libudev time quadratic in the devices.
    """
    for device in _context().list_devices(subsystem=subsystem):
        yield device.device_path, _known(device)


def with_kernel(known: Known, subsystem: str, uevent: Mapping[str, str]) -> dict[str, str]:
    """The device's properties as libudev gives them: the kernel's, and udev's over them."""
    properties = {**uevent, "SUBSYSTEM": subsystem}
    if "DEVNAME" in properties and not properties["DEVNAME"].startswith("/"):
        properties["DEVNAME"] = f"/dev/{properties['DEVNAME']}"
    for name in known.removed:
        properties.pop(name, None)
    properties.update(known.properties)
    drop_bookkeeping(properties)
    return properties


def differences(facts: Iterable[tuple[str, Known]], subsystem: str) -> Iterator[str]:
    """Where libudev says something else of the subsystem's devices; each given with all its properties."""
    expected = dict(from_libudev_all(subsystem))
    for path, found in facts:
        reference = expected.pop(path, None)
        if reference is None:
            yield f"{path}: not in libudev"
            continue
        for name in sorted(found.properties.keys() | reference.properties.keys()):
            mine, theirs = found.properties.get(name), reference.properties.get(name)
            if mine != theirs:
                yield f"{path}: {name} is {mine!r}, in libudev {theirs!r}"
        if found.links != reference.links:
            yield f"{path}: links are {found.links}, in libudev {reference.links}"
        if found.initialized != reference.initialized:
            yield f"{path}: initialized is {found.initialized}, in libudev {reference.initialized}"
    yield from (f"{path}: only in libudev" for path in expected)


@cache
def _context() -> pyudev.Context:
    import pyudev  # noqa: PLC0415  as above

    return pyudev.Context()


def _known(device: pyudev.Device) -> Known:
    properties = {str(name): str(value) for name, value in device.properties.items()}
    drop_bookkeeping(properties)
    return Known(
        properties, tuple(sorted(str(link) for link in device.device_links)), bool(device.is_initialized)
    )


class Uevent(Struct, frozen=True):
    """What happened to the device at a sysfs path; `number` grows with each uevent of the machine."""

    path: str
    number: int
    former_path: str | None = None


class Monitor:
    """The uevents of some subsystems as udevd passes them on, filtered in the kernel.

    Without udevd it is silent. Not pyudev's observer: that ends for good when the kernel's buffer overflows.
    """

    def __init__(self, subsystems: Iterable[str], buffer_bytes: int) -> None:
        import pyudev  # noqa: PLC0415  as above

        self._monitor = pyudev.Monitor.from_netlink(_context())
        for subsystem in subsystems:
            self._monitor.filter_by(subsystem)
        with suppress(OSError):
            self._monitor.set_receive_buffer_size(buffer_bytes)
        self._monitor.start()
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))

    def fileno(self) -> int:
        """The descriptor that is readable when there are events."""
        return self._socket.fileno()

    def drain(self) -> tuple[list[Uevent], bool]:
        """All queued events, and whether the kernel had to drop some (ENOBUFS)."""
        events: list[Uevent] = []
        lost = False
        while True:
            # Reading the error clears it; pyudev would raise it and leave what is queued unread.
            lost = bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)) or lost
            try:
                device = self._monitor.poll(0)
            except OSError:
                lost = True
                continue
            if device is None:
                return events, lost
            former = device.properties["DEVPATH_OLD"] if device.action == "move" else None
            events.append(Uevent(device.device_path, device.sequence_number, former))

    def close(self) -> None:
        """Ends the subscription."""
        self._socket.close()
