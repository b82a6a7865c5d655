"""Loop devices of our own, with numbers that nobody else asks for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

_SET_FD, _CLR_FD, _ADD, _REMOVE = 0x4C00, 0x4C01, 0x4C80, 0x4C81
_MAJOR, _FIRST = 7, 1000
_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop device and the file to bind it to."""

    name: str
    image: Path

    @property
    def node(self) -> Path:
        """Its device node."""
        return Path("/dev", self.name)

    def bind(self) -> None:
        """Binds it to the file."""
        with self.node.open("rb+") as device, self.image.open("rb+") as file:
            ioctl(device, _SET_FD, file.fileno())

    def release(self) -> None:
        """Lets the file go, since Linux 6.10 when the last one who has the node open closes it."""
        with self.node.open("rb") as device:
            ioctl(device, _CLR_FD)

    def storm(self, count: int) -> None:
        """Has the kernel send so many change events of it (Documentation/ABI/testing/sysfs-uevent)."""
        with Path(f"/sys/block/{self.name}/uevent").open("wb", buffering=0) as file:
            # Unbuffered: each write is one event.
            file.writelines(b"change" for _ in range(count))


def usable() -> bool:
    """Whether loop devices can be made here."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists()


@contextmanager
def loop(image: Path) -> Iterator[Loop]:
    """A loop device, not bound yet; gone at the end."""
    with image.open("wb") as file:
        file.truncate(_BYTES)
    # One by a high number, as two programs that ask for a free one may get the same.
    with Path("/dev/loop-control").open("rb") as control:
        number = next(
            number
            for number in range(_FIRST + os.getpid() % _FIRST, 1 << 20)
            if not Path(f"/sys/block/loop{number}").exists()
        )
        ioctl(control, _ADD, number)
        made = Loop(f"loop{number}", image)
        if not made.node.exists():  # no devtmpfs
            os.mknod(made.node, stat.S_IFBLK | 0o600, os.makedev(_MAJOR, number))
        try:
            yield made
        finally:
            with suppress(OSError):
                made.release()
            ioctl(control, _REMOVE, number)
            made.node.unlink(missing_ok=True)
