"""Devices, their relations, and the registry of capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from msgspec import Struct, field

from nodedev.errors import NotFoundError
from nodedev.facts.host import DeviceFacts, Host, Note
from nodedev.plan import Consent, Plan

COMPUTER = "computer"


class Capability(Struct, frozen=True):
    """What a device can be or do; a frozen struct for each type, fields in XML order.

    `TYPE` is the XML's `<capability type=...>` and the name in the proto's oneof.
    """

    TYPE: ClassVar[str]

    def handles(self) -> tuple[str, ...]:
        """What else a person may call the device by: a WWID, a UUID, a dm name."""
        return ()


class Relation(Struct, frozen=True):
    """A device at the other end of a relation, and how it is used.

    Kinds: path (of a map), member (of an array), container (an array's), backing (of a loop
    device), partition (of a disk or map), dm (any other device-mapper table's), slave (any other).
    """

    kind: str
    device: str


class Device(Struct, frozen=True):
    """One host device. `sysfs_path` is the whole path below /, None for the root.

    `device_number` is a block device's "MAJOR:MINOR".
    `generation` is the kernel's diskseq: another device under a reused name has another one.
    A device that is `inactive` is not there, and could be started; a `persistent` one has a
    definition, and with `autostart` is started with the service.
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
    inactive: bool = False
    persistent: bool = False
    autostart: bool = False

    def capability(self, type_: str) -> Capability | None:
        """The device's capability of that type, if it has it."""
        return next((found for found in self.capabilities if found.TYPE == type_), None)


Earlier = Callable[[DeviceFacts], Iterable[tuple[str, Device]]]


class Scene(Struct):
    """What a probe may ask: the host as this pass reads it, and how devices are named.

    `earlier`, in a pass that reads only some devices, gives what earlier ones found built on a device,
    with each one's sysfs path: a hint at what to read, in place of going through all that there are.
    """

    host: Host
    name_of: Callable[[DeviceFacts], str]
    notes: list[Note] = field(default_factory=list)
    earlier: Earlier | None = None

    def note(self, source: str, message: str) -> None:
        """Adds a note to the device that is being probed."""
        self.notes.append(Note(source, message))


class Site(Struct, frozen=True):
    """What a planner may ask: the devices as they are known, and the host as it is now.

    `find` takes any handle and raises NotFoundError. `kernel` is the version of the kernel, (6, 1).
    """

    devices: Mapping[str, Device]
    host: Host
    find: Callable[[str], Device]
    name_of: Callable[[DeviceFacts], str]
    kernel: tuple[int, int]

    def facts(self, device: Device) -> DeviceFacts:
        """The device as it is now; raises NotFoundError when it is gone."""
        path = (device.sysfs_path or "").removeprefix("/sys")
        found = self.host.device(path) if path else None
        if found is None:
            raise NotFoundError(f"{device.name} is not there any more", handle=device.name)
        return found


Creating = Callable[[Capability, Site, Consent], Plan]
Destroying = Callable[[Device, Site, Consent], Plan]


class Changing(Struct, frozen=True):
    """How devices of a capability are made and unmade.

    `create` plans what a document asks for, `destroy` the end of a device. `same` tells whether a
    device is the one that a document means. `identity` is what a definition of it is kept by, None
    for a document that cannot be kept, and `aliases` what else tells that two of them mean one device;
    `default_name` how it is called before it is there. `waiting` gives those that are not there, though
    all that they are made of is.
    `grace_seconds`: how long after its end such a device may come back by itself.
    """

    create: Creating
    destroy: Destroying
    same: Callable[[Capability, Device, Host], bool]
    identity: Callable[[Capability], str | None]
    default_name: Callable[[Capability], str]
    aliases: Callable[[Capability, Host], Iterable[str]] = lambda _capability, _host: ()
    waiting: Callable[[Site], Iterable[Capability]] = lambda _: ()
    grace_seconds: float = 0.0


Probe = Callable[[DeviceFacts, Scene], Capability | None]
Naming = Callable[[DeviceFacts, Host], str | None]
Relating = Callable[[DeviceFacts, Host], Iterable[tuple[str, DeviceFacts]]]


class CapabilityKind(Struct, frozen=True):
    """A capability as it is registered: how it is read, and what of sysfs it needs for that.

    `attributes` names the sysfs files by subsystem; `*` matches within one path component
    ("md/dev-*/state"). `naming` gives a device of this kind a name of its own instead of
    libvirt's `{subsystem}_{sysname}[_{serial}]`; `members` the devices it is made of, with the
    relation's kind. `sources` are those whose failure is noted on each such device.
    `order` is the place among a device's capabilities: libvirt's own come first. One that does not
    `lists` only adds to devices that another capability lists. `changing` is of those that can be
    created and destroyed.
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
    changing: Changing | None = None

    @property
    def type(self) -> str:
        """The capability's type as XML and proto call it."""
        return self.shape.TYPE
