"""What file a path names, without ever waiting for its file system in this process.

A stat(2) that needs a block of a map without paths sleeps where no signal reaches it, and a process
with a thread in that sleep cannot end. So the kernel's memory alone is asked first, where each file in
use is, a loop device's too (openat2(2), RESOLVE_CACHED, Linux 5.12); what is not there, as a deleted
file's name, is left to a child, which may sleep for as long as it likes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess

from nodedev.errors import FactError
from nodedev.facts.host import FileIdentity

SOURCE = "stat"

# include/uapi/asm-generic/unistd.h: one number on every architecture.
_SYS_OPENAT2 = 437
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
# EAGAIN: not in memory. The others: a kernel before 5.12, or a filter of system calls that knows no openat2.
_UNDECIDED = frozenset({errno.EAGAIN, errno.EINVAL, errno.ENOSYS, errno.EPERM})

# Paths at which a child sleeps still.
_asleep: dict[str, subprocess.Popen[bytes]] = {}


class _OpenHow(ctypes.Structure):
    """The kernel's struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def identify(path: str, deadline_seconds: float) -> FileIdentity | None:
    """The file that the path names; None when there is none. Raises FactError where that cannot be told."""
    name = os.fsencode(path)
    try:
        descriptor = _open_cached(name)
    except OSError as error:
        if error.errno in _GONE:
            return None
        if error.errno in _UNDECIDED:
            return _asked_in_a_child(path, name, deadline_seconds)
        raise FactError(SOURCE, f"{path}: {os.strerror(error.errno or 0)}") from error
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return _identity(found.st_mode, found.st_rdev, found.st_dev, found.st_ino, found.st_size)


def _open_cached(name: bytes) -> int:
    """A descriptor that stands for the file (O_PATH, which opens no device), from the kernel's memory."""
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_CACHED)
    descriptor: int = _libc.syscall(_SYS_OPENAT2, _AT_FDCWD, name, ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "openat2")
    return descriptor


def _asked_in_a_child(path: str, name: bytes, deadline_seconds: float) -> FileIdentity | None:
    """As stat(1) answers; of a path at which an earlier child sleeps still nothing more is asked."""
    earlier = _asleep.get(path)
    if earlier:
        if earlier.poll() is None:
            raise FactError(SOURCE, f"{path}: an earlier call still blocks")
        del _asleep[path]
    command = (b"stat", b"-L", b"-c", b"%f %t %T %d %i %s", b"--", name)
    try:
        child = subprocess.Popen(  # noqa: S603  no shell, and the path is one argument behind --
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise FactError(SOURCE, f"{path}: cannot run stat: {error.strerror}") from error
    try:
        printed, complaint = child.communicate(timeout=deadline_seconds)
    except subprocess.TimeoutExpired as error:
        child.kill()
        for pipe in filter(None, (child.stdout, child.stderr)):
            pipe.close()
        _asleep[path] = child
        raise FactError(SOURCE, f"{path}: no answer within {deadline_seconds:g} s") from error
    if child.returncode:
        told = complaint.decode(errors="replace").rstrip()
        if told.endswith(tuple(os.strerror(number) for number in _GONE)):
            return None
        raise FactError(SOURCE, f"{path}: {told.rpartition(': ')[2]}")
    mode, major, minor, file_system, inode, size = printed.split()
    return _identity(
        int(mode, 16), os.makedev(int(major, 16), int(minor, 16)), int(file_system), int(inode), int(size)
    )


def _identity(mode: int, node: int, file_system: int, inode: int, size: int) -> FileIdentity:
    number = node if stat.S_ISBLK(mode) else file_system
    kind = "block" if stat.S_ISBLK(mode) else "file" if stat.S_ISREG(mode) else "other"
    size_bytes = size if kind == "file" else None
    return FileIdentity(f"{os.major(number)}:{os.minor(number)}", inode, kind, size_bytes)
