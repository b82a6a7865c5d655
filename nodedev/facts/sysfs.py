"""Devices as sysfs shows them (Documentation/filesystems/sysfs.rst): attributes, links, relations.

A device may vanish while it is read, and a driver may refuse an attribute at any moment: what cannot
be read is absent, and a device whose directory has gone is None.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from posixpath import basename, normpath
from sys import intern

SYSFS = "/sys"

# The kernel gives an attribute one page; a binary attribute can be longer (vpd_pg83, an EDID).
_READ_BYTES = 65536
# A show() that copies from a dead pointer prints this instead of failing (lib/vsprintf.c).
_FAULT = b"(efault)"
_NO_LINKS: tuple[str, ...] = ()


def text_of(data: bytes) -> str:
    """Bytes of the kernel as text, undecodable ones kept as os.fsdecode does."""
    return data.decode("utf-8", "surrogateescape")


def attribute_text(data: bytes) -> str:
    """An attribute's text: the kernel ends most with one newline, which is not part of the value."""
    return text_of(data.removesuffix(b"\n"))


def by_number(names: Iterable[str]) -> tuple[str, ...]:
    """Kernel names as the kernel counts them: sda2 before sda10, sdz before sdaa."""
    return tuple(sorted(names, key=lambda name: (len(name), name)))


# What udev keeps for itself, or what DeviceFacts says elsewhere.
_BOOKKEEPING = frozenset(
    {"CURRENT_TAGS", "DEVLINKS", "DEVPATH", "TAGS", "UDEV_DATABASE_VERSION", "USEC_INITIALIZED"}
)


def kept_properties(properties: Iterable[tuple[str, str]]) -> dict[str, str]:
    """udev's properties without its bookkeeping; names are shared between devices to save memory."""
    return {intern(name): value for name, value in properties if name not in _BOOKKEEPING}


def name_pattern(patterns: Iterable[str]) -> str:
    """A regular expression for attribute names; `*` stands for any part of one path component."""
    return "|".join(re.escape(name).replace(r"\*", "[^/=\\n]*") for name in sorted(set(patterns))) or "(?!)"
