"""Which processes have a block device open, from the descriptors in /proc; those it may see."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_NAMED_MAX = 8


def of_node(node: str) -> tuple[str, ...]:
    """The first processes, as "qemu-system-x86 (1234)", without this one."""
    number = os.stat(node).st_rdev  # noqa: PTH116
    return tuple(islice(_openers(number), _NAMED_MAX))


def _openers(number: int) -> Iterator[str]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid() and _has_open(process, number):
            yield f"{_name(process)} ({process.name})"


def _has_open(process: Path, number: int) -> bool:
    try:
        return any(_is(descriptor, number) for descriptor in (process / "fd").iterdir())
    except OSError:
        return False  # it has ended, or is another user's


def _is(descriptor: Path, number: int) -> bool:
    # The link tells a node from a remote file, which stat(2) might wait for.
    try:
        if not os.readlink(descriptor).startswith("/dev/"):  # noqa: PTH115
            return False
        found = descriptor.stat()
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == number


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="backslashreplace").strip()
    except OSError:
        return "a process"
