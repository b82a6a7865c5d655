"""CHAP passwords: each in a file of its own that nobody but its owner may read, and nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from nodedev.errors import PreconditionError

_LIMIT_BYTES = 256


def read(folder: Path, name: str) -> str:
    """The password in a file of that name; SECRET_INVALID, which says why but never what."""
    path = folder / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _invalid(path, error.strerror or "it cannot be read") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _invalid(path, "it is no file")
        if found.st_uid not in (0, os.geteuid()):
            raise _invalid(path, "it belongs to another user")
        if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _invalid(path, "others than its owner have rights on it; chmod 600 takes them")
        data = file.read(_LIMIT_BYTES + 1)
    password = data.decode(errors="replace").removesuffix("\n")
    if not password or len(data) > _LIMIT_BYTES or not password.isprintable():
        raise _invalid(path, f"it is to hold one line of at most {_LIMIT_BYTES} bytes, the password")
    return password


def _invalid(path: Path, why: str) -> PreconditionError:
    return PreconditionError(f"secret {path}: {why}", reason="SECRET_INVALID", path=str(path))
