"""Bound loop devices.

Follows Linux' Documentation/ABI/testing/sysfs-block-loop. An unbound node is no device: the
kernel makes /sys/block/loopN/loop/ only while a file is bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from nodedev.errors import FactError
from nodedev.facts.host import DeviceFacts, Host
from nodedev.fields import Attribute, Element, Text
from nodedev.model import Capability, CapabilityKind, Scene

_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Backing:
    """The file behind a loop device, as seen from this mount namespace."""

    device: Annotated[str | None, Attribute()] = None
    inode: Annotated[int | None, Attribute()] = None
    deleted: Annotated[bool | None, Attribute()] = None
    path: Annotated[str | None, Text()] = None


@dataclass(frozen=True, slots=True)
class Loop(Capability):
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


def is_bound(facts: DeviceFacts) -> bool:
    """Whether a file is bound to the loop device."""
    return "loop/backing_file" in facts.attributes


def probe(facts: DeviceFacts, scene: Scene) -> Loop | None:
    """A bound loop device's parameters, from sysfs and a stat(2) of its file."""
    if not is_bound(facts):
        return None
    return Loop(
        backing=_backing(facts, scene),
        offset_bytes=facts.number("loop/offset"),
        size_limit_bytes=facts.number("loop/sizelimit"),
        read_only=facts.flag("ro"),
        direct_io=facts.flag("loop/dio"),
        partition_scan=facts.flag("loop/partscan"),
        autoclear=facts.flag("loop/autoclear"),
        sector_size_bytes=facts.number("queue/logical_block_size"),
    )


def _backing(facts: DeviceFacts, scene: Scene) -> Backing:
    """Tells a deleted file from one whose name ends so: the kernel's text is the same for both."""
    text = facts.attributes["loop/backing_file"]
    try:
        found = scene.host.identify(text)
        if found:
            return Backing(path=text, device=found.device_number, inode=found.inode, deleted=False)
    except FactError as error:
        scene.note(error.source, error.message)
        return Backing(path=text)
    if text.endswith(_DELETED):
        return Backing(path=text.removesuffix(_DELETED), deleted=True)
    scene.note("stat", f"{text} is not in this mount namespace")
    return Backing(path=text)


def members(facts: DeviceFacts, host: Host) -> Iterator[tuple[str, DeviceFacts]]:
    """The disk that holds the backing file, or is it."""
    text = facts.attributes.get("loop/backing_file")
    if text is None:
        return
    try:
        found = host.identify(text)
    except FactError:
        return
    below = host.block_number(found.device_number) if found else None
    if below:
        yield "backing", below


KIND = CapabilityKind(
    shape=Loop,
    probe=probe,
    naming=lambda facts, _host: f"loop_{facts.kernel_name}" if is_bound(facts) else None,
    members=members,
    attributes={
        "block": (
            "ro",
            "queue/logical_block_size",
            "loop/backing_file",
            "loop/offset",
            "loop/sizelimit",
            "loop/dio",
            "loop/partscan",
            "loop/autoclear",
        )
    },
    order=30,
)
