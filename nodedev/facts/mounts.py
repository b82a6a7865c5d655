"""Mounts and swap areas, from /proc/self/mountinfo and /proc/swaps (proc(5))."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount; `source` as the file system names it, octal escapes decoded."""

    device_number: str
    mount_point: str
    filesystem: str
    source: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Swap:
    """One active swap area; `kind` is partition or file, sizes in bytes."""

    path: str
    kind: str
    size_bytes: int
    used_bytes: int
    priority: int
