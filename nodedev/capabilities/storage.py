"""Disks as libvirt lists them, and what can be used as one: maps, arrays, bound loop devices.

Follows libvirt's udevProcessStorage and udevKludgeStorageType (9.0): a whole disk with a node whose
type udev knows, or whose node's name tells it. To these are added, as `disk`, what libvirt drops and
nodedev has capabilities for: dm-multipath maps, running MD arrays, dm-raid arrays, bound loops.
A map's `serial` is its WWID, which for SCSI is its paths' serial too, so that one search finds the
map and its paths; arrays and loops have none unless udev gives one. `bus`, `vendor` and `model` are a
disk's own: a map's paths tell them.

Where libvirt multiplies sysfs' `size` by the logical block size, it is taken here as what it is, a
number of 512-byte sectors; and a disk of size 0 keeps its `num_blocks`, without which libvirt's XML
does not fit libvirt's grammar.
"""

from __future__ import annotations

from posixpath import join, normpath
from typing import Annotated

from msgspec import Struct

from nodedev.capabilities import _dm, _loops
from nodedev.capabilities._libvirt import sysfs_string
from nodedev.facts.host import DeviceFacts, Host
from nodedev.fields import Element, Sub
from nodedev.model import Capability, CapabilityKind, Scene

_SECTOR_BYTES = 512
_DASD = "dasd"
_TYPES_BY_PROPERTY = {"ID_DRIVE_FLOPPY": "floppy", "ID_CDROM": "cdrom", "ID_DRIVE_FLASH_SD": "sd"}
_TYPES_BY_NODE = {"/dev/vd": "disk", "/dev/dasd": _DASD, "/dev/nvme": "disk"}
_TYPES_BY_UDEV = {
    "disk": "disk",
    "floppy": "floppy",
    "sd": "sd",
    _DASD: _DASD,
    "cd": "cdrom",
    "cd/dvd": "cdrom",
}
# Linux' Documentation/admin-guide/md.rst: states in which there is no array to read from.
_STOPPED = (None, "clear", "inactive")


class Removable(Struct, frozen=True):
    """A drive whose medium can be taken out, and the medium in it."""

    media_available: Annotated[bool | None, Element(words=("0", "1"))] = None
    media_size_bytes: Annotated[int | None, Element("media_size")] = None
    media_label: str | None = None
    logical_block_size: int | None = None
    num_blocks: int | None = None


class Storage(Capability, frozen=True):
    """A disk. `num_blocks` counts logical blocks."""

    TYPE = "storage"

    block: str | None = None
    bus: str | None = None
    drive_type: str | None = None
    model: str | None = None
    vendor: str | None = None
    serial: str | None = None
    size_bytes: Annotated[int | None, Element("size")] = None
    logical_block_size: int | None = None
    num_blocks: int | None = None
    removable: Annotated[Removable | None, Sub("removable")] = None


def size_bytes(facts: DeviceFacts) -> int | None:
    """The size of a block device; sysfs counts 512-byte sectors, whatever the logical block is."""
    sectors = facts.number("size")
    return None if sectors is None else sectors * _SECTOR_BYTES


def is_storage(facts: DeviceFacts, host: Host) -> bool:
    """Whether the device carries this capability."""
    return drive_type(facts, host) is not None


def drive_type(facts: DeviceFacts, host: Host) -> str | None:
    """What kind of drive it is in libvirt's words; None for what is no drive, or has no size to tell."""
    if facts.subsystem != "block" or facts.devtype != "disk" or "size" not in facts.attributes:
        return None
    if facts.devnode is None:
        return None
    return _libvirt_drive_type(facts, facts.devnode) or ("disk" if _is_ours(facts, host) else None)


def _libvirt_drive_type(facts: DeviceFacts, devnode: str) -> str | None:
    known = facts.properties.get("ID_TYPE", "generic")
    if known != "generic":
        return _TYPES_BY_UDEV.get(known)
    for name, word in _TYPES_BY_PROPERTY.items():
        if name in facts.properties:
            return word
    return next((word for prefix, word in _TYPES_BY_NODE.items() if devnode.startswith(prefix)), None)


def _is_ours(facts: DeviceFacts, host: Host) -> bool:
    return (
        _loops.is_bound(facts)
        or facts.text("md/array_state") not in _STOPPED
        or _dm.is_multipath(facts)
        or _dm.is_raid(facts, host)
    )


def probe(facts: DeviceFacts, scene: Scene) -> Storage | None:
    """A disk, from sysfs and udev's database."""
    word = drive_type(facts, scene.host)
    if word is None:
        return None
    whole = size_bytes(facts)
    block_size = facts.number("queue/logical_block_size")
    below = _below(facts, scene.host)
    removable = _removable(facts, word)
    return Storage(
        block=facts.devnode,
        bus=facts.properties.get("ID_BUS"),
        drive_type=word,
        model=_trimmed(below, "model"),
        vendor=_trimmed(below, "vendor"),
        serial=_serial(facts, word, below),
        size_bytes=None if removable else whole,
        logical_block_size=None if removable else block_size,
        num_blocks=None if removable else _blocks(whole, block_size),
        removable=removable,
    )


def _below(facts: DeviceFacts, host: Host) -> DeviceFacts | None:
    """The device whose disk it is: a SCSI unit, an NVMe controller or subsystem, a virtio function."""
    target = facts.symlinks.get("device")
    return host.device(normpath(join(facts.path, target))) if target else None


def _trimmed(below: DeviceFacts | None, attribute: str) -> str | None:
    """A string of the device below; one of blanks alone stays as an empty one, as libvirt prints it."""
    text = sysfs_string(below, attribute) if below else None
    return text.strip() if text else None


def _serial(facts: DeviceFacts, word: str, below: DeviceFacts | None) -> str | None:
    if word == _DASD:
        return sysfs_string(below, "uid") if below else None
    if _dm.is_multipath(facts):
        return (_dm.uuid(facts) or "").removeprefix("mpath-")
    return facts.properties.get("ID_SERIAL")


def _blocks(size: int | None, block_size: int | None) -> int | None:
    return size // block_size if size is not None and block_size else None


def _removable(facts: DeviceFacts, word: str) -> Removable | None:
    """The medium, where libvirt tells it apart: other removable drives count as fixed ones."""
    if word not in ("cdrom", "floppy") or not facts.flag("removable"):
        return None
    known = facts.properties
    present = known.get("ID_CDROM_MEDIA") == "1" if word == "cdrom" else "ID_FS_LABEL" in known
    if not present:
        # A drive keeps the size of the medium that was in it last.
        return Removable(media_available=False, media_size_bytes=0)
    size, block_size = size_bytes(facts), facts.number("queue/logical_block_size")
    return Removable(
        media_available=True,
        media_size_bytes=size,
        media_label=known.get("ID_FS_LABEL"),
        logical_block_size=block_size,
        num_blocks=_blocks(size, block_size),
    )


def naming(facts: DeviceFacts, host: Host) -> str | None:
    """A DASD's name: libvirt takes its uid for the serial, which udev does not have."""
    if not (facts.devnode or "").startswith("/dev/dasd") or drive_type(facts, host) != _DASD:
        return None
    serial = _serial(facts, _DASD, _below(facts, host))
    return "_".join(filter(None, (facts.subsystem, facts.sysname, serial)))


KIND = CapabilityKind(
    shape=Storage,
    probe=probe,
    naming=naming,
    attributes={
        "block": (
            "size",
            "removable",
            "queue/logical_block_size",
            "md/array_state",
            "dm/name",
            "dm/uuid",
            "loop/backing_file",
        ),
        "scsi": ("vendor", "model"),
        "virtio": ("vendor",),
        "nvme": ("model",),
        "nvme-subsystem": ("model",),
        "ccw": ("vendor", "uid"),
        "pci": ("vendor",),
    },
    order=7,
    stock=True,
)
