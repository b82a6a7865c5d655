"""Device-mapper's tables, states and statuses, by ioctl on /dev/mapper/control.

Follows linux/dm-ioctl.h. Never waits for I/O: the status is asked with the no-flush flag.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from functools import partial
from pathlib import Path

from msgspec import Struct

from nodedev.errors import FactError
from nodedev.facts.dm_text import SOURCE, DmMap, DmTarget, Span, targets
from nodedev.facts.text import printable

CONTROL = Path("/dev/mapper/control")
MISC = Path("/proc/misc")

Call = Callable[[int, bytearray], object]

# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, padding,
# dev, name, uuid, data. struct dm_name_list: dev, next, name. struct dm_target_spec: sector_start,
# length, status, next, target_type, and behind it the parameters.
_HEADER = struct.Struct("@IIIIIIiIIIQ128s129s7s")
_NAME_LIST = struct.Struct("=QI")
_TARGET_SPEC = struct.Struct("@QQiI16s")

_EVENT = struct.Struct("=I")
_NAME_BYTES = 128

_VERSION, _LIST_DEVICES, _TABLE_STATUS, _ARM_POLL = 0, 2, 12, 16
# A client of minor version 0 is served by every kernel of this major version.
_MAJOR_VERSION = 4
_READONLY, _SUSPEND, _STATUS_TABLE, _BUFFER_FULL = 1 << 0, 1 << 1, 1 << 4, 1 << 8
_NOFLUSH, _SECURE_DATA = 1 << 11, 1 << 15

_FIRST_BUFFER_BYTES, _LAST_BUFFER_BYTES = 16 << 10, 64 << 20
# A table can be reloaded between the two questions for it and for its status.
_ATTEMPTS = 3


class _Reply(Struct, frozen=True):
    """What the kernel wrote back."""

    flags: int
    target_count: int
    open_count: int
    event_number: int
    device: int
    name: str
    uuid: str
    data: memoryview


def read_maps(*, misc: Path = MISC, control: Path = CONTROL) -> Iterator[DmMap]:
    """Every device-mapper device, those without a table too; none where the kernel has no device-mapper.

    Raises FactError where the kernel refuses, as it does without CAP_SYS_ADMIN.
    """
    with _opened(misc, control) as call:
        if call:
            yield from maps_by(call)


def read_map(device_number: str, *, misc: Path = MISC, control: Path = CONTROL) -> DmMap | None:
    """The device-mapper device with that "MAJOR:MINOR"; None when there is none. Errors as read_maps."""
    major, _, minor = device_number.partition(":")
    with _opened(misc, control) as call:
        return _map(call, os.makedev(int(major), int(minor))) if call else None


def maps_by(call: Call) -> Iterator[DmMap]:
    """As read_maps, by whatever answers the ioctls."""
    _check_version(call)
    listed = _ask(call, _LIST_DEVICES)
    for _, device in _listed(listed.data) if listed else ():
        found = _map(call, device)
        # Gone since it was listed.
        if found:
            yield found


@contextmanager
def _opened(misc: Path, control: Path) -> Iterator[Call | None]:
    """The ioctl of the control node; None without device-mapper.

    To open the node loads the module dm-mod, which would change the host, so the kernel's list of
    misc devices is asked first (dm-ioctl.c registers "device-mapper"; libdm looks there as well).
    """
    minor = _misc_minor(misc)
    if minor is None:
        yield None
        return
    try:
        descriptor = os.open(control, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise _refused(error, f"cannot open {control}") from error
    try:
        node = os.fstat(descriptor)
        if not stat.S_ISCHR(node.st_mode) or os.minor(node.st_rdev) != minor:
            raise FactError(SOURCE, f"{control} is not the control node of device-mapper")
        yield partial(ioctl, descriptor)
    finally:
        os.close(descriptor)


def _misc_minor(misc: Path) -> int | None:
    try:
        lines = misc.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise _refused(error, f"cannot read {misc}") from error
    for line in lines:
        minor, _, name = line.strip().partition(" ")
        if name == "device-mapper":
            return int(minor)
    return None


def _refused(error: OSError, action: str) -> FactError:
    reason = error.strerror or str(error)
    if error.errno in {errno.EACCES, errno.EPERM}:
        reason = "device-mapper tells only a process with CAP_SYS_ADMIN (root)"
    elif error.errno == errno.ENOENT:
        reason = "it does not exist, though the kernel has device-mapper"
    return FactError(SOURCE, f"{action}: {reason}")


def _check_version(call: Call) -> None:
    buffer = bytearray(_HEADER.size)
    _pack(buffer, 0, 0)
    try:
        call(_number(_VERSION), buffer)
    except OSError as error:
        # The kernel writes its own version even as it refuses ours.
        version = _HEADER.unpack_from(buffer)[:3]
        if version[0] != _MAJOR_VERSION:
            spoken = ".".join(map(str, version))
            raise FactError(SOURCE, f"the kernel's device-mapper speaks version {spoken}, not 4") from error
        raise _refused(error, "the kernel refused the version") from error


def _number(command: int) -> int:
    """The ioctl's number: _IOWR(0xfd, command, struct dm_ioctl)."""
    return 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | command


def _pack(buffer: bytearray, flags: int, device: int) -> None:
    sizes = (len(buffer), _HEADER.size)
    _HEADER.pack_into(
        buffer, 0, _MAJOR_VERSION, 0, 0, *sizes, 0, 0, flags | _NOFLUSH, 0, 0, device, b"", b"", b""
    )


def _ask(call: Call, command: int, device: int = 0, flags: int = 0) -> _Reply | None:
    """One request, with as large a buffer as the answer needs; None when there is no such device."""
    size = _FIRST_BUFFER_BYTES
    while size <= _LAST_BUFFER_BYTES:
        buffer = bytearray(size)
        _pack(buffer, flags, device)
        try:
            call(_number(command), buffer)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise _refused(error, "the kernel refused a question") from error
        header = _HEADER.unpack_from(buffer)
        _, _, _, _, start, targets, opened, answer_flags, event, _, number, name, uuid, _ = header
        if not answer_flags & _BUFFER_FULL:
            data = memoryview(buffer)[start:]
            return _Reply(answer_flags, targets, opened, event, number, _text(name), _text(uuid), data)
        size *= 2
    raise FactError(SOURCE, f"an answer is longer than {_LAST_BUFFER_BYTES} bytes")


def _text(raw: bytes) -> str:
    return printable(raw.partition(b"\0")[0])


def _listed(data: memoryview) -> Iterator[tuple[int, int]]:
    """Where each entry of a list of devices starts, and the device's number."""
    offset = 0
    while True:
        device, following = _NAME_LIST.unpack_from(data, offset)
        # An empty list is one entry of device number 0.
        if device:
            yield offset, device
        if not following:
            return
        offset += following


def _map(call: Call, device: int) -> DmMap | None:
    for attempt in range(_ATTEMPTS):
        table = _ask(call, _TABLE_STATUS, device, _STATUS_TABLE | _SECURE_DATA)
        status = _ask(call, _TABLE_STATUS, device)
        if table is None or status is None:
            return None
        parameters, statuses = dict(_spans(table)), dict(_spans(status))
        same = (table.name, table.uuid, *parameters) == (status.name, status.uuid, *statuses)
        if same or attempt == _ATTEMPTS - 1:
            # The status of another table than this one tells nothing of it.
            return _assembled(table, targets(parameters, statuses if same else {}))
    return None


def _assembled(reply: _Reply, found: tuple[DmTarget, ...]) -> DmMap:
    return DmMap(
        name=reply.name,
        uuid=reply.uuid,
        device_number=f"{os.major(reply.device)}:{os.minor(reply.device)}",
        suspended=bool(reply.flags & _SUSPEND),
        read_only=bool(reply.flags & _READONLY),
        open_count=reply.open_count,
        event_number=reply.event_number,
        targets=found,
    )


def _spans(reply: _Reply) -> Iterator[tuple[Span, str]]:
    """The targets of a table: where each lies, and its parameters or status."""
    offset = 0
    for _ in range(reply.target_count):
        start, length, _, following, kind = _TARGET_SPEC.unpack_from(reply.data, offset)
        text = bytes(reply.data[offset + _TARGET_SPEC.size : following])
        yield (start, length, _text(kind)), _text(text)
        # Counted from the first target, not from this one.
        offset = following


class Events:
    """Which devices' event numbers have moved: paths failing, legs of dm-raid, devices made and removed.

    The control node becomes readable with each event once it is armed (dm-ioctl.h, DM_DEV_ARM_POLL,
    Linux 4.13). `descriptor` is None where the kernel has no device-mapper, or tells this process nothing.
    """

    def __init__(self, *, misc: Path = MISC, control: Path = CONTROL) -> None:
        self.descriptor: int | None = None
        self._numbers: dict[str, int] = {}
        with suppress(FactError), _opened(misc, control) as call:
            if call:
                self.descriptor = os.open(control, os.O_RDONLY | os.O_CLOEXEC)
                self.changed()

    def changed(self) -> set[str]:
        """The device numbers of those that changed since the last call."""
        if self.descriptor is None:
            return set()
        call = partial(ioctl, self.descriptor)
        try:
            _ask(call, _ARM_POLL)
            reply = _ask(call, _LIST_DEVICES)
        except FactError:
            # Not root, or a kernel that cannot be armed: uevents alone tell then.
            self.close()
            return set()
        before, self._numbers = self._numbers, dict(_event_numbers(reply.data)) if reply else {}
        return {number for number, _ in before.items() ^ self._numbers.items()}

    def close(self) -> None:
        """Closes the node."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _event_numbers(data: memoryview) -> Iterator[tuple[str, int]]:
    """Each listed device's event number, which stands behind its name, aligned (Linux 4.13)."""
    for offset, device in _listed(data):
        start = offset + _NAME_LIST.size
        length = bytes(data[start : start + _NAME_BYTES]).index(0) + 1
        (number,) = _EVENT.unpack_from(data, -(-(start + length) // 8) * 8)
        yield f"{os.major(device)}:{os.minor(device)}", number
