"""What a loop device is, and the bound ones of a host.

A loop device leaves no trace on what is behind it, so they are gone through by number; a pass that
reads only some devices can do that too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Struct

from nodedev.facts.host import DeviceFacts, Host
from nodedev.fields import Attribute, Element, Text
from nodedev.model import Capability, Device

# The kernel gives a new loop device the lowest free number; only one made by hand leaves a gap.
_GAP = 16


class Backing(Struct, frozen=True):
    """The file behind a loop device, as seen from this mount namespace."""

    device: Annotated[str | None, Attribute()] = None
    inode: Annotated[int | None, Attribute()] = None
    deleted: Annotated[bool | None, Attribute()] = None
    path: Annotated[str | None, Text()] = None


class Loop(Capability, frozen=True):
    """A file as a block device."""

    TYPE = "loop"

    backing: Backing | None = None
    offset_bytes: Annotated[int | None, Element("offset")] = None
    size_limit_bytes: Annotated[int | None, Element("size_limit")] = None
    read_only: bool | None = None
    direct_io: bool | None = None
    partition_scan: bool | None = None
    autoclear: bool | None = None
    sector_size_bytes: Annotated[int | None, Element("sector_size")] = None

    def handles(self) -> tuple[str, ...]:
        """The file."""
        return (self.backing.path,) if self.backing and self.backing.path else ()


def is_bound(facts: DeviceFacts) -> bool:
    """Whether a file is bound to the loop device."""
    return "loop/backing_file" in facts.attributes


def bound(host: Host) -> Iterator[DeviceFacts]:
    """The bound loop devices in the order of their numbers."""
    number = missing = 0
    while missing < _GAP:
        loop = host.block(f"loop{number}")
        missing = 0 if loop else missing + 1
        number += 1
        if loop and is_bound(loop):
            yield loop


def backing_path(device: Device) -> str | None:
    """What the loop device was last seen to be over; None for any other device."""
    loop = device.capability(Loop.TYPE)
    return loop.backing.path if isinstance(loop, Loop) and loop.backing else None
