"""Which boot of the host this is: what lasts until the next one is told by it."""

from __future__ import annotations

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id(path: Path = BOOT_ID) -> str:
    """The kernel's random identity of this boot; empty where there is none to be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
