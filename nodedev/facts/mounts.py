r"""Mounts and swap areas, from /proc/self/mountinfo and /proc/swaps (proc(5)).

Both print blanks and backslashes in names as octal escapes: `\040 \011 \012 \134`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from nodedev.errors import FactError
from nodedev.facts.text import printable

SOURCE = "mounts"
MOUNTINFO = Path("/proc/self/mountinfo")
SWAPS = Path("/proc/swaps")


class Mount(Struct, frozen=True):
    """One mount; `source` as the file system names it, octal escapes decoded.

    The device number of btrfs, overlay, nfs and the like is an anonymous one, "0:NN", of no block device.
    `read_only` is so where either this mount or its file system is.
    """

    device_number: str
    mount_point: str
    filesystem: str
    source: str
    read_only: bool


class Swap(Struct, frozen=True):
    """One active swap area; `kind` is partition or file, sizes in bytes.

    The kernel adds " (deleted)" to a path that no longer names what is swapped on. It is taken off a
    device node, which is never named so; a file's path keeps it, as another file may have the path now.
    """

    path: str
    kind: str
    size_bytes: int
    used_bytes: int
    priority: int


def read_mounts(*, path: Path = MOUNTINFO) -> tuple[Mount, ...]:
    """The mounts of this mount namespace, in the order they were made; FactError when unreadable."""
    return parse_mountinfo(_read(path))


def read_swaps(*, path: Path = SWAPS) -> tuple[Swap, ...]:
    """The active swap areas, none in a kernel without swap; FactError when unreadable."""
    # Without CONFIG_SWAP the kernel has no such file.
    return parse_swaps(_read(path)) if path.exists() else ()


def _read(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes())
    except OSError as error:
        raise FactError(SOURCE, f"cannot read {path}: {error.strerror or error}") from error


# 36 35 98:0 /root /mount\040point rw,noatime shared:1 master:2 - ext4 /dev/root rw,errors=continue
# The optional fields are any number, none too; the source may be empty.
_MOUNT = re.compile(
    r"[0-9]+ [0-9]+ (?P<number>[0-9]+:[0-9]+) [^ ]+ (?P<point>[^ ]+) (?P<options>[^ ]+)(?: [^ ]+)*?"
    r" - (?P<filesystem>[^ ]+) (?P<source>[^ ]*) (?P<superblock>.*)"
)
_SWAP = re.compile(
    r"(?P<path>[^ \t]+)[ \t]+(?P<kind>[a-z]+)[ \t]+(?P<size>[0-9]+)[ \t]+(?P<used>[0-9]+)[ \t]+"
    r"(?P<priority>-?[0-9]+)(?:[ \t].*)?"
)


def _lines(text: str) -> list[str]:
    return [line for line in printable(text, keep="\n\t").split("\n") if line]


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """The mounts of a mountinfo file's text; raises FactError for a line that is none."""
    return tuple(_mount(line) for line in _lines(text))


def _mount(line: str) -> Mount:
    found = _MOUNT.fullmatch(line)
    if not found:
        raise FactError(SOURCE, f"not a line of mountinfo: {line!r}")
    options = {*found["options"].split(","), *found["superblock"].split(",")}
    return Mount(
        device_number=found["number"],
        mount_point=_unescaped(found["point"]),
        filesystem=_unescaped(found["filesystem"]),
        source=_unescaped(found["source"]),
        read_only="ro" in options,
    )


def parse_swaps(text: str) -> tuple[Swap, ...]:
    """The swap areas of a /proc/swaps file's text; raises FactError for a line that is none."""
    # The kernel always prints the line of headings first.
    return tuple(_swap(line) for line in _lines(text)[1:])


def _swap(line: str) -> Swap:
    found = _SWAP.fullmatch(line)
    if not found:
        raise FactError(SOURCE, f"not a line of /proc/swaps: {line!r}")
    path = _unescaped(found["path"])
    if found["kind"] == "partition":
        path = path.removesuffix(" (deleted)")
    return Swap(
        path=path,
        kind=found["kind"],
        # The kernel counts KiB.
        size_bytes=int(found["size"]) * 1024,
        used_bytes=int(found["used"]) * 1024,
        priority=int(found["priority"]),
    )


# The tab, the newline and printable ASCII: what the kernel ever escapes (fs/proc_namespace.c, seq_file.c).
_ESCAPE = re.compile(r"\\(01[12]|0[4-7][0-7]|1[0-7]{2})")


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount an absolute path without symbolic links lies on: the longest mount point above it.

    Of mounts at one point the last is meant, which hides the others. None for a path that is on no
    mount, as where the root of a container is not listed.
    """
    best: Mount | None = None
    for mount in mounts:
        point = mount.mount_point.rstrip("/") + "/"
        covers = f"{path}/".startswith(point)
        if covers and (best is None or len(mount.mount_point) >= len(best.mount_point)):
            best = mount
    return best


# A server, a cluster's lock or a process in user space answers here, and stat(2) waits for it. autofs
# and fuse are among them: the first blocks while it mounts, the second is whatever its daemon is.
_REMOTE = frozenset(
    {
        "9p",
        "afs",
        "autofs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse",
        "fuseblk",
        "gfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "virtiofs",
        "vboxsf",
    }
)


def is_remote(filesystem: str) -> bool:
    """Whether stat(2) on a file system of this type may wait for something outside this kernel."""
    return filesystem in _REMOTE or filesystem.startswith("fuse.")
