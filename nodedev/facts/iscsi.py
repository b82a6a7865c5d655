"""What an iSCSI session has brought: the logical units below it in sysfs, disks or not.

Follows the kernel's scsi_transport_iscsi.c for where a session stands, scsi_sysfs.c for `type`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

SYSFS = Path("/sys")
# T10 SPC: peripheral device type 00h.
DISK = 0

_ADDRESS = re.compile(r"\d+:\d+:\d+:\d+")


class LogicalUnit(Struct, frozen=True):
    """One unit: its SCSI address, its type, and the disk's kernel name once its driver has it."""

    address: str
    type: int | None
    block: str | None


def logical_units(session: int, sysfs: Path = SYSFS) -> tuple[LogicalUnit, ...]:
    """The units of a session by their addresses; none when it is gone."""
    folder = sysfs / "class" / "iscsi_session" / f"session{session}" / "device"
    return tuple(sorted(_units(folder), key=lambda unit: unit.address))


def _units(folder: Path) -> Iterator[LogicalUnit]:
    for target in _names(folder):
        if target.startswith("target"):
            for name in _names(folder / target):
                if _ADDRESS.fullmatch(name):
                    unit = folder / target / name
                    yield LogicalUnit(name, _number(unit / "type"), next(iter(_names(unit / "block")), None))


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(path.name for path in folder.iterdir()))
    except OSError:
        return ()  # it goes while it is read


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
