"""Device-mapper's tables, states and statuses, by ioctl on /dev/mapper/control.

Follows linux/dm-ioctl.h. Never waits for I/O: the status is asked with the no-flush flag.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DmTarget:
    """One line of a table: the target's span in 512-byte sectors, its parameters and its status."""

    start: int
    length: int
    type: str
    parameters: str
    status: str


@dataclass(frozen=True, slots=True)
class DmMap:
    """One device-mapper device; `name` and `uuid` as the kernel holds them, not mangled."""

    name: str
    uuid: str
    device_number: str
    suspended: bool
    read_only: bool
    open_count: int
    event_number: int
    targets: tuple[DmTarget, ...]
