"""Block devices that are no storage of libvirt's, each with its kind.

| kind | what it is, and how it is told |
|---|---|
| partition | the kernel's partition: DEVTYPE |
| mpath-partition | kpartx' partition of a map: dm uuid `partN-mpath-` |
| dm-partition | kpartx' partition of any other device: dm uuid `partN-` |
| lvm | a logical volume: dm uuid `LVM-` |
| lvm-internal | LVM's sub-volumes and layers: a suffix behind that uuid, or a name that LVM reserves |
| crypt, stratis, vdo, mpath, dmraid | dm uuid of that prefix |
| dm | any other device-mapper device |
| nvme-path | a path of native NVMe multipath: hidden, named nvmeScCnN; it has no node |
| zram, ram, loop, md, nbd, rbd, drbd, bcache, zvol, cdrom, floppy | by the kernel's name |
| disk | any other whole device |

A loop node without a file is no device. An md node that is stopped, and a container, are `md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from posixpath import basename, dirname
from typing import Annotated

from msgspec import Struct

from nodedev.capabilities import _dm, _loops, storage
from nodedev.facts.host import DeviceFacts, Host
from nodedev.fields import Attribute, Element
from nodedev.model import Capability, CapabilityKind, Scene

_SECTOR_BYTES = 512
_NVME_PATH = re.compile(r"nvme\d+c\d+n\d+")
_KINDS_BY_UUID = {
    "CRYPT": "crypt",
    "stratis": "stratis",
    "VDO": "vdo",
    "mpath": "mpath",
    "DMRAID": "dmraid",
}
_KINDS_BY_NAME = {
    "zram": "zram",
    "ram": "ram",
    "loop": "loop",
    "md": "md",
    "nbd": "nbd",
    "rbd": "rbd",
    "drbd": "drbd",
    "bcache": "bcache",
    "zd": "zvol",
    "sr": "cdrom",
    "fd": "floppy",
}
_ESCAPED_BYTE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_LINEAR = re.compile(r"\S+ (\d+)", re.ASCII)


class Partition(Struct, frozen=True):
    """Where a partition stands on its disk, and what the partition table says of it."""

    number: Annotated[int, Attribute()]
    start_bytes: Annotated[int | None, Element("start")] = None
    uuid: str | None = None
    type: str | None = None
    name: str | None = None


class DeviceMapper(Struct, frozen=True):
    """A device-mapper device; `targets` are the distinct types in its table."""

    name: str | None = None
    uuid: str | None = None
    state: str | None = None
    open_count: int | None = None
    targets: Annotated[tuple[str, ...], Element("target")] = ()


class Nvme(Struct, frozen=True):
    """How a hidden path reaches its namespace."""

    controller: str | None = None
    namespace_id: Annotated[int | None, Element("namespace")] = None
    ana_state: str | None = None


class Block(Capability, frozen=True):
    """A block device that libvirt does not know as storage."""

    TYPE = "block"

    block: str | None = None
    kind: str | None = None
    size_bytes: Annotated[int | None, Element("size")] = None
    logical_block_size: int | None = None
    physical_block_size: int | None = None
    read_only: bool | None = None
    rotational: bool | None = None
    hidden: bool | None = None
    partition: Partition | None = None
    device_mapper: DeviceMapper | None = None
    nvme: Nvme | None = None

    def handles(self) -> tuple[str, ...]:
        """The dm name and uuid."""
        mapped = self.device_mapper
        return tuple(filter(None, (mapped.name, mapped.uuid))) if mapped else ()


def is_block(facts: DeviceFacts, host: Host) -> bool:
    """Whether the device carries this capability."""
    if facts.subsystem != "block" or storage.is_storage(facts, host):
        return False
    return kind_of(facts) != "loop" or _loops.is_bound(facts)


def kind_of(facts: DeviceFacts) -> str:
    """What sort of block device it is, in the words of the table above."""
    if facts.devtype == "partition":
        return "partition"
    if _dm.is_dm(facts):
        return _dm_kind(facts)
    if facts.flag("hidden") and _NVME_PATH.fullmatch(facts.kernel_name):
        return "nvme-path"
    # Driver names are letters; what follows is a number, or sd's letters.
    letters = re.match(r"[a-z]*", facts.kernel_name)
    return _KINDS_BY_NAME.get(letters[0] if letters else "", "disk")


def _dm_kind(facts: DeviceFacts) -> str:
    prefix = _dm.uuid_kind(facts)
    if prefix == _dm.PARTITION:
        return "mpath-partition" if _dm.is_multipath_partition(facts) else "dm-partition"
    if prefix == "LVM":
        return "lvm-internal" if _dm.is_lvm_internal(facts) else "lvm"
    return _KINDS_BY_UUID.get(prefix or "", "dm")


def probe(facts: DeviceFacts, scene: Scene) -> Block | None:
    """A block device, from sysfs, udev's database and device-mapper's tables."""
    if not is_block(facts, scene.host):
        return None
    kind = kind_of(facts)
    # A partition has no queue of its own.
    queue = (scene.host.device(dirname(facts.path)) if kind == "partition" else None) or facts
    return Block(
        block=facts.devnode,
        kind=kind,
        size_bytes=storage.size_bytes(facts),
        logical_block_size=queue.number("queue/logical_block_size"),
        physical_block_size=queue.number("queue/physical_block_size"),
        read_only=facts.flag("ro"),
        rotational=queue.flag("queue/rotational"),
        hidden=facts.flag("hidden"),
        partition=_partition(facts, scene.host),
        device_mapper=_device_mapper(facts, scene) if _dm.is_dm(facts) else None,
        nvme=_nvme(facts) if kind == "nvme-path" else None,
    )


def _partition(facts: DeviceFacts, host: Host) -> Partition | None:
    """The kernel's partition, or one that kpartx made of a linear table."""
    number = facts.number("partition")
    start = facts.number("start")
    if number is None:
        number = _dm.partition_number(facts)
        start = _linear_start(facts, host)
    if number is None:
        return None
    known = facts.properties
    return Partition(
        number=number,
        start_bytes=None if start is None else start * _SECTOR_BYTES,
        uuid=known.get("ID_PART_ENTRY_UUID"),
        type=known.get("ID_PART_ENTRY_TYPE"),
        name=_unescaped(known["ID_PART_ENTRY_NAME"]) if "ID_PART_ENTRY_NAME" in known else None,
    )


def _linear_start(facts: DeviceFacts, host: Host) -> int | None:
    """The sector at which the one linear target begins on its device ("253:0 2048")."""
    found = host.maps.get(facts.device_number) if facts.device_number else None
    if not found or [target.type for target in found.targets] != ["linear"]:
        return None
    place = _LINEAR.match(found.targets[0].parameters)
    return int(place[1]) if place else None


def _unescaped(text: str) -> str:
    r"""A name as it is in the partition table; udev keeps blanks and others as \xNN."""
    raw = text.encode("utf-8", "surrogateescape")
    return _ESCAPED_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), raw).decode(
        "utf-8", "surrogateescape"
    )


def _device_mapper(facts: DeviceFacts, scene: Scene) -> DeviceMapper:
    found = scene.host.maps.get(facts.device_number) if facts.device_number else None
    if found is None:
        scene.note("dm", "no table could be read: an LVM RAID volume would be shown as any other")
    suspended = facts.flag("dm/suspended")
    return DeviceMapper(
        name=facts.attributes.get("dm/name"),
        uuid=_dm.uuid(facts),
        state=None if suspended is None else ("suspended" if suspended else "active"),
        open_count=found.open_count if found else None,
        targets=_dm.targets(facts, scene.host) or (),
    )


def _nvme(facts: DeviceFacts) -> Nvme:
    return Nvme(
        controller=basename(dirname(facts.path)),
        namespace_id=facts.number("nsid"),
        ana_state=facts.text("ana_state"),
    )


def naming(facts: DeviceFacts, host: Host) -> str | None:
    """A device-mapper device's name: the uuid tells it from the next one to be the same dm-N."""
    known = _dm.uuid(facts)
    if known is None or not is_block(facts, host):
        return None
    return f"block_{facts.sysname}_{known}"


def members(facts: DeviceFacts, host: Host) -> Iterable[tuple[str, DeviceFacts]]:
    """The disk or map of a partition that kpartx made; of all else the kernel tells the members."""
    if _dm.partition_number(facts) is None:
        return ()
    return [("partition", disk) for name in facts.slaves if (disk := host.block(name))]


KIND = CapabilityKind(
    shape=Block,
    probe=probe,
    naming=naming,
    members=members,
    attributes={
        "block": (
            "size",
            "ro",
            "hidden",
            "queue/logical_block_size",
            "queue/physical_block_size",
            "queue/rotational",
            "partition",
            "start",
            "dm/name",
            "dm/uuid",
            "dm/suspended",
            "nsid",
            "ana_state",
            "loop/backing_file",
        )
    },
    order=8,
)
