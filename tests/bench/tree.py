"""The synthetic host as /sys, /run/udev and /dev of a private mount namespace, for all to read alike.

The kernel's properties stand in uevent files, the others in udev's database, as on a real host.
Attributes of the same content are one file with many names: a host of 20,000 block devices has a
million of them.
"""

# A million small files: pathlib would take most of the time.
# ruff: noqa: PTH103, PTH120, PTH211
from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from nodedev.facts.udev import database_name
from nodedev.facts.umockdev import Stanza

_KERNEL = ("MAJOR", "MINOR", "DEVNAME", "DEVTYPE", "DISKSEQ", "DRIVER", "MODALIAS", "PCI_")
_ELSEWHERE = frozenset({"SUBSYSTEM", "DEVLINKS", "TAGS"})
_BUSES = frozenset({"pci", "scsi"})
_FOLDERS = (
    "sys/devices",
    "sys/bus",
    "sys/class",
    "sys/block",
    "sys/dev/block",
    "sys/dev/char",
    "run/udev/data",
)
_NODES = (("null", 1, 3), ("zero", 1, 5), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_DESCRIPTORS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))

_ENTER = """
mkdir -p /run/udev && mount --bind "$0/run/udev" /run/udev &&
mount --bind "$0/sys" /sys && mount --bind "$0/dev" /dev && exec "$@"
"""


class Tree:
    """The tree below a folder, filled device by device."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._same: dict[bytes, str] = {}
        self._made: set[str] = set()
        for folder in (*_FOLDERS, "same", "dev"):
            self._folder(f"{self._root}/{folder}")
        for name, major, minor in _NODES:
            os.mknod(f"{self._root}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        for name, descriptor in _DESCRIPTORS:
            os.symlink(f"/proc/self/fd{descriptor}", f"{self._root}/dev/{name}")

    def fill(self, devices: Iterable[Stanza]) -> None:
        """Adds the devices."""
        for device in devices:
            self._add(device)

    def _add(self, device: Stanza) -> None:
        root, path = self._root, device.path
        base, name = f"{root}/sys{path}", path.rpartition("/")[2]
        subsystem = device.properties["SUBSYSTEM"]
        self._folder(base)
        for key, data in device.attributes.items():
            self._file(f"{base}/{key}", data)
        for key, target in device.symlinks.items():
            self._link(target, f"{base}/{key}")
        kernel = {key: value for key, value in device.properties.items() if key.startswith(_KERNEL)}
        lines = (f"{key}={value.removeprefix('/dev/')}\n" for key, value in kernel.items())
        self._file(f"{base}/uevent", "".join(lines).encode())
        up = "../" * path.count("/")
        if subsystem in _BUSES:
            self._link(f"{up}bus/{subsystem}", f"{base}/subsystem")
            self._link(f"../../..{path}", f"{root}/sys/bus/{subsystem}/devices/{name}")
        else:
            self._link(f"{up}class/{subsystem}", f"{base}/subsystem")
            self._link(f"../..{path}", f"{root}/sys/class/{subsystem}/{name}")
        if subsystem == "block":
            self._link(f"..{path}", f"{root}/sys/block/{name}")
            for folder in ("holders", "slaves"):
                self._folder(f"{base}/{folder}")
        if device.node:
            self._node(device, subsystem, up)
        lines = (f"S:{link.removeprefix('/dev/')}\n" for link in device.links)
        own = (
            f"E:{key}={value}\n"
            for key, value in device.properties.items()
            if key not in kernel and key not in _ELSEWHERE
        )
        data = "".join((*lines, "I:1000000\n", *own, "V:1\n")).encode()
        self._file(f"{root}/run/udev/data/{database_name(subsystem, name, kernel)}", data, shared=False)

    def _node(self, device: Stanza, subsystem: str, up: str) -> None:
        assert device.node
        number = device.attributes["dev"].decode().strip()
        major, minor = map(int, number.split(":"))
        kind, mode = ("block", stat.S_IFBLK) if subsystem == "block" else ("char", stat.S_IFCHR)
        self._link(f"../..{device.path}", f"{self._root}/sys/dev/{kind}/{number}")
        node = f"{self._root}{device.node}"
        self._folder(os.path.dirname(node))
        os.mknod(node, mode | 0o660, os.makedev(major, minor))
        for link in device.links:
            up = "../" * (link.count("/") - 2)
            # Of the paths of a LUN one has the shared links.
            with suppress(FileExistsError):
                self._link(f"{up}{device.node.removeprefix('/dev/')}", f"{self._root}{link}")

    def _folder(self, path: str) -> None:
        if path not in self._made:
            os.makedirs(path, exist_ok=True)
            self._made.add(path)

    def _file(self, path: str, data: bytes, *, shared: bool = True) -> None:
        self._folder(os.path.dirname(path))
        same = self._same.get(data) if shared else None
        if same:
            try:
                os.link(same, path)
            except OSError:  # as many links as the file system allows
                pass
            else:
                return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)
        if shared:
            self._same[data] = path

    def _link(self, target: str, path: str) -> None:
        self._folder(os.path.dirname(path))
        os.symlink(target, path)


@contextmanager
def tree(devices: Iterable[Stanza]) -> Iterator[Path]:
    """A folder with the host's tree, in memory, with a mount of its own that is gone at the end; needs root.

    Not in /dev/shm: a tmpfs counts each name as an inode (mm/shmem.c, shmem_link), and has one for every
    second page of memory. The largest hosts have four million names.
    """
    root = Path(mkdtemp(prefix="nodedev-bench-", dir="/tmp"))
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "mode=755,nr_inodes=0,size=75%", "nodedev-bench", root], check=True
        )
        try:
            Tree(root).fill(devices)
            yield root
        finally:
            subprocess.run(["umount", "--lazy", root], check=True)
    finally:
        root.rmdir()


def inside(root: Path, command: Sequence[str | Path]) -> list[str]:
    """The command line that runs a command where the tree is the host."""
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        _ENTER,
        str(root),
        *map(str, command),
    ]


def environment(**more: str) -> dict[str, str]:
    """The environment for it: libudev would refuse a /sys that is no sysfs."""
    return {**os.environ, "SYSTEMD_DEVICE_VERIFY_SYSFS": "0", **more}
