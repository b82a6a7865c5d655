"""Devices, their relations, and the registry of capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from nodedev.facts.host import DeviceFacts, Host, Note

COMPUTER = "computer"


class Capability:
    """What a device can be or do; a frozen dataclass for each type, fields in XML order.

    `TYPE` is the XML's `<capability type=...>` and the name in the proto's oneof.
    """

    __slots__ = ()
    TYPE: ClassVar[str]

    def handles(self) -> tuple[str, ...]:
        """What else a person may call the device by: a WWID, a UUID, a dm name."""
        return ()


@dataclass(frozen=True, slots=True)
class Relation:
    """A device at the other end of a relation, and how it is used.

    Kinds: path (of a map), member (of an array), container (an array's), backing (of a loop
    device), partition (of a disk or map), dm (any other device-mapper table's), slave (any other).
    """

    kind: str
    device: str


@dataclass(frozen=True, slots=True)
class Device:
    """One host device. `sysfs_path` is the whole path below /, None for the root.

    `device_number` is a block device's "MAJOR:MINOR".
    `generation` is the kernel's diskseq: another device under a reused name has another one.
    """

    name: str
    parent: str | None
    sysfs_path: str | None
    devnode: str | None
    links: tuple[str, ...]
    driver: str | None
    device_number: str | None
    generation: int | None
    capabilities: tuple[Capability, ...]
    members: tuple[Relation, ...] = ()
    holders: tuple[Relation, ...] = ()
    notes: tuple[Note, ...] = ()

    def capability(self, type_: str) -> Capability | None:
        """The device's capability of that type, if it has it."""
        return next((found for found in self.capabilities if found.TYPE == type_), None)


@dataclass(slots=True)
class Scene:
    """What a probe may ask: the host as this pass reads it, and how devices are named."""

    host: Host
    name_of: Callable[[DeviceFacts], str]
    notes: list[Note] = field(default_factory=list)

    def note(self, source: str, message: str) -> None:
        """Adds a note to the device that is being probed."""
        self.notes.append(Note(source, message))


Probe = Callable[[DeviceFacts, Scene], Capability | None]
Naming = Callable[[DeviceFacts, Host], str | None]
Relating = Callable[[DeviceFacts, Host], Iterable[tuple[str, DeviceFacts]]]


@dataclass(frozen=True, slots=True)
class CapabilityKind:
    """A capability as it is registered: how it is read, and what of sysfs it needs for that.

    `attributes` names the sysfs files by subsystem; `*` matches within one path component
    ("md/dev-*/state"). `naming` gives a device of this kind a name of its own instead of
    libvirt's `{subsystem}_{sysname}[_{serial}]`; `members` the devices it is made of, with the
    relation's kind. `sources` are those whose failure is noted on each such device.
    `order` is the place among a device's capabilities: libvirt's own come first. One that does not
    `lists` only adds to devices that another capability lists.
    """

    shape: type[Capability]
    probe: Probe
    attributes: Mapping[str, tuple[str, ...]]
    order: int
    stock: bool = False
    lists: bool = True
    naming: Naming | None = None
    members: Relating | None = None
    sources: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """The capability's type as XML and proto call it."""
        return self.shape.TYPE
