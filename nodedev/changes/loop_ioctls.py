"""The ioctls of loop devices, after Linux' include/uapi/linux/loop.h and drivers/block/loop.c."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from nodedev.errors import AbortedError, DeadlineError, InvalidError, PreconditionError
from nodedev.plan import Ioctl

READ_ONLY, AUTOCLEAR, PARTSCAN, DIRECT_IO = 1, 4, 8, 16

_FLAGS = {"READ_ONLY": READ_ONLY, "AUTOCLEAR": AUTOCLEAR, "PARTSCAN": PARTSCAN, "DIRECT_IO": DIRECT_IO}
_SET_FD, _CLR_FD, _SET_STATUS64, _GET_STATUS64 = 0x4C00, 0x4C01, 0x4C04, 0x4C05
_SET_DIRECT_IO, _SET_BLOCK_SIZE, _CONFIGURE = 0x4C08, 0x4C09, 0x4C0A
_CTL_GET_FREE = 0x4C82
_GET_DISKSEQ = 0x80081280  # BLKGETDISKSEQ, Linux 5.15
# lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit; lo_number, two of encryption, lo_flags;
# then lo_file_name, lo_crypt_name, lo_encrypt_key, lo_init.
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG_HEAD = struct.Struct("=2I")
_CONFIG_RESERVED = bytes(64)

# Others bind free devices too: each lost race is a new one to be found.
_RACES_MAX = 64
_LOCK_SECONDS = 10.0
_LOCK_PAUSE_SECONDS = 0.01


class Status(Struct, frozen=True):
    """What LOOP_GET_STATUS64 tells of a bound device."""

    offset: int
    size_limit: int
    flags: int
    file_name: bytes

    def packed(self) -> bytes:
        """The kernel's struct loop_info64."""
        return _INFO.pack(
            0, 0, 0, self.offset, self.size_limit, 0, 0, 0, self.flags, self.file_name, b"", b"", 0, 0
        )


def status(descriptor: int) -> Status | None:
    """The device's parameters; None when no file is bound, or no longer."""
    buffer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(descriptor, _GET_STATUS64, buffer)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    found = _INFO.unpack(buffer)
    return Status(found[3], found[4], found[8], found[9])


def bind(step: Ioctl) -> tuple[str, int]:
    """Binds the file to a free device: its node, and its descriptor, locked, on which its life depends."""
    flags = _flags(step)
    with _Descriptor(_open_file(step, read_only=bool(flags & READ_ONLY))) as file:
        for _ in range(_RACES_MAX):
            node = f"/dev/loop{_free_number()}"
            descriptor = _open_node(node)
            if descriptor is None:
                continue
            try:
                lock(descriptor)
                bound = _bind(descriptor, file, step, flags)
            except BaseException:
                os.close(descriptor)
                raise
            if bound:
                return node, descriptor
            os.close(descriptor)
    raise AbortedError("others take every free loop device first", reason="OPERATION_IN_PROGRESS")


def settle(descriptor: int, step: Ioctl) -> None:
    """Gives a bound device its last flags; autoclear ends here unless it is one of them."""
    found = status(descriptor)
    if found is None:
        raise AbortedError("the loop device was detached meanwhile", reason="DEVICE_CHANGED")
    kept = found.flags & ~(AUTOCLEAR | PARTSCAN)
    fcntl.ioctl(descriptor, _SET_STATUS64, replace(found, flags=kept | _flags(step)).packed())


def unlock(descriptor: int) -> None:
    """Lets others, this service too, lock a device whose descriptor stays open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def detach(step: Ioctl, release: Callable[[], None]) -> bool:
    """Detaches the file; whether it is off, or else goes with the last opener.

    Unless `lazy`, a device that somebody has open stays as it was, and this raises DEVICE_BUSY.
    The kernel itself never refuses (since 3.7): it turns autoclear on and says that all is well.
    `release` lets go of what this service keeps open.
    """
    with _Descriptor(os.open(step.node, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as descriptor:
        lock(descriptor)
        before = status(descriptor)
        if before is None:
            return True
        _require_generation(descriptor, step)
        release()
        fcntl.ioctl(descriptor, _CLR_FD, 0)
        after = status(descriptor)
        if after is None or step.argument("lazy") == "yes":
            return after is None
        if not before.flags & AUTOCLEAR:
            fcntl.ioctl(descriptor, _SET_STATUS64, before.packed())
    raise BlockingIOError(errno.EBUSY, "open", step.node)


def lock(descriptor: int) -> None:
    """Keeps udevd from looking at the device meanwhile, as it asks block device owners to do.

    Its probing leaves stale partitions behind where a device is detached under it (util-linux#2815).
    """
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise DeadlineError("another process keeps the loop device locked") from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return


class _Descriptor:
    """A descriptor that is closed with the block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *raised: object) -> None:
        os.close(self._descriptor)


def _flags(step: Ioctl) -> int:
    return sum(_FLAGS[word] for word in (step.argument("flags") or "").split())


def _free_number() -> int:
    with _Descriptor(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)) as control:
        return fcntl.ioctl(control, _CTL_GET_FREE)


def _open_file(step: Ioctl, *, read_only: bool) -> int:
    """The backing file, if it still is the one that the plan is about."""
    path = step.argument("file") or ""
    mode = os.O_RDONLY if read_only else os.O_RDWR
    descriptor = os.open(path, mode | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    found = os.fstat(descriptor)
    number = found.st_rdev if stat.S_ISBLK(found.st_mode) else found.st_dev
    known = f"{os.major(number)}:{os.minor(number)} {found.st_ino}"
    if not (stat.S_ISBLK(found.st_mode) or stat.S_ISREG(found.st_mode)):
        os.close(descriptor)
        raise InvalidError(f"{path} is neither a file nor a block device", reason="BACKING_INVALID")
    if known != step.argument("identity"):
        os.close(descriptor)
        raise AbortedError(f"{path} is another file now", reason="DEVICE_CHANGED", path=path)
    return descriptor


def _open_node(node: str) -> int | None:
    """The free device's node; None when it is free no longer, or has no node yet."""
    try:
        return os.open(node, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        # A device that was bound read-only meanwhile cannot be opened for writing.
        if error.errno in (errno.EACCES, errno.EROFS, errno.EBUSY, errno.ENXIO):
            return None
        if error.errno == errno.ENOENT:
            time.sleep(_LOCK_PAUSE_SECONDS)
            return None
        raise


def _bind(descriptor: int, file: int, step: Ioctl, flags: int) -> bool:
    """Whether the device was still free."""
    offset, limit, size = (int(step.argument(name) or 0) for name in ("offset", "size_limit", "block_size"))
    name = os.fsencode(step.argument("file") or "")[:63]
    wanted = Status(offset, limit, flags, name)
    try:
        if step.request == "LOOP_CONFIGURE":
            config = _CONFIG_HEAD.pack(file, size) + wanted.packed() + _CONFIG_RESERVED
            fcntl.ioctl(descriptor, _CONFIGURE, config)
        else:
            fcntl.ioctl(descriptor, _SET_FD, file)
            _set_up(descriptor, wanted, size)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    found = status(descriptor)
    if flags & DIRECT_IO and found and not found.flags & DIRECT_IO:
        # The kernel then goes on without a word, through the page cache.
        raise PreconditionError(
            "the backing file's file system cannot do direct I/O with this offset and sector size",
            reason="DIRECT_IO_UNSUPPORTED",
        )
    return True


def _set_up(descriptor: int, wanted: Status, block_size: int) -> None:
    """What LOOP_CONFIGURE does at once, before Linux 5.8."""
    try:
        fcntl.ioctl(descriptor, _SET_STATUS64, replace(wanted, flags=wanted.flags & AUTOCLEAR).packed())
        if block_size:
            fcntl.ioctl(descriptor, _SET_BLOCK_SIZE, block_size)
        if wanted.flags & DIRECT_IO:
            fcntl.ioctl(descriptor, _SET_DIRECT_IO, 1)
    except OSError:
        with suppress(OSError):
            fcntl.ioctl(descriptor, _CLR_FD, 0)
        raise


def _require_generation(descriptor: int, step: Ioctl) -> None:
    """Raises GENERATION_MISMATCH when the node leads to another device than the plan is about."""
    wanted = step.argument("generation")
    buffer = bytearray(8)
    if wanted is None:
        return
    try:
        fcntl.ioctl(descriptor, _GET_DISKSEQ, buffer)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            return  # an older kernel
        raise
    (found,) = struct.unpack("=Q", buffer)
    if str(found) != wanted:
        raise AbortedError(
            f"{step.node} is another device now", reason="GENERATION_MISMATCH", generation=str(found)
        )
