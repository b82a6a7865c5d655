"""Who may open a device node: stat(2) of it, which opens nothing and waits for nothing on devtmpfs."""

from __future__ import annotations

import stat
from pathlib import Path

from msgspec import Struct


class Permissions(Struct, frozen=True):
    """A node's mode bits and owners, as numbers."""

    mode: int
    owner: int
    group: int


def permissions(devnode: str) -> Permissions | None:
    """A node's permissions; None for what is no node below /dev, or is gone."""
    if not devnode.startswith("/dev/"):
        return None
    try:
        found = Path(devnode).lstat()
    except OSError:
        return None
    if not stat.S_ISBLK(found.st_mode):
        return None
    return Permissions(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
