"""What a table or a tree says of a device in a word or two, out of its capabilities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from google.protobuf.message import Message

from nodedev.facts.dm_text import unmangled
from nodedev.v1 import capability_pb2, device_pb2

Device = device_pb2.Device

# device-mapper's uuids are 68 characters and more; what else has a name stays below this.
_LONG_NAME = 60


def capabilities(device: Device) -> tuple[str, ...]:
    """The types, in their order."""
    return tuple(kind for capability in device.capabilities if (kind := capability.WhichOneof("kind")))


def capability(device: Device, *types: str) -> Message | None:
    """The first of the types that the device has."""
    for type_ in types:
        for found in device.capabilities:
            if found.WhichOneof("kind") == type_:
                return cast("Message", getattr(found, type_))
    return None


def value(message: Message | None, *path: str) -> str | int | None:
    """What stands at the path of fields; None where one of them is not set."""
    for field in path[:-1]:
        if message is None or not message.HasField(field):
            return None
        message = getattr(message, field)
    if message is None or not message.HasField(path[-1]):
        return None
    return cast("str | int", getattr(message, path[-1]))


def word(message: Message | None, *path: str) -> str:
    """What stands at the path, as text; empty where it is not set."""
    found = value(message, *path)
    return "" if found is None else str(found)


def is_block(device: Device) -> bool:
    """Whether it is a block device; a hidden one has no device number."""
    return capability(device, "block", "storage") is not None


def kind(device: Device) -> str:
    """What the device is first of all: mpath, raid, loop, partition, disk, pci..."""
    types = capabilities(device)
    special = next((type_ for type_ in types if type_ in ("mpath", "raid", "loop")), "")
    storage = capability(device, "storage")
    return (
        special
        or word(capability(device, "block"), "kind")
        or word(storage, "drive_type")
        or ("disk" if storage else next(iter(types), ""))
    )


def size_bytes(device: Device) -> int | None:
    """The size, or that of the medium in the drive."""
    found = value(capability(device, "storage", "block"), "size_bytes")
    if found is None:
        found = value(capability(device, "storage"), "removable", "media_size_bytes")
    return None if found is None else int(found)


def health(device: Device) -> str:
    """Of a map or an array."""
    return word(capability(device, "mpath", "raid"), "health")


def state(device: Device) -> str:
    """What the kernel says of a map, an array or another dm device; deleted of a loop device's file."""
    if device.inactive:
        return "inactive"
    if value(capability(device, "loop"), "backing", "deleted"):
        return "deleted"
    found = word(capability(device, "mpath", "raid"), "state")
    return found or word(capability(device, "block"), "device_mapper", "state")


def alias(device: Device) -> str:
    """What people call it on this host: a dm name, an array's name, a loop device's file."""
    raid = capability(device, "raid")
    return (
        unmangled(word(capability(device, "mpath"), "alias"))
        or (word(raid, "name") if word(raid, "implementation") == "md" else unmangled(word(raid, "name")))
        or word(capability(device, "loop"), "backing", "path")
        or unmangled(word(capability(device, "block"), "device_mapper", "name"))
        or word(capability(device, "block"), "partition", "name")
    )


def short_name(device: Device) -> str:
    """The name; where a dm uuid makes it too long to read, what people call the device, or its node."""
    if len(device.name) <= _LONG_NAME:
        return device.name
    return alias(device) or device.devnode or device.name


def progress(device: Device) -> tuple[str, float] | None:
    """What a RAID array is doing besides serving, resync or recovery, and how much of it is done."""
    raid = capability(device, "raid")
    completed, total = value(raid, "sync", "completed_bytes"), value(raid, "sync", "total_bytes")
    if not isinstance(completed, int) or not isinstance(total, int) or total == 0:
        return None
    return word(raid, "sync", "action"), completed / total


def paths(device: Device) -> str:
    """A map's usable paths of all, "3/4"."""
    mpath = capability(device, "mpath")
    if not isinstance(mpath, capability_pb2.Mpath) or not mpath.HasField("redundancy"):
        return ""
    return f"{mpath.redundancy.usable_paths}/{sum(len(group.paths) for group in mpath.groups)}"


def claims(device: Device) -> Iterator[capability_pb2.Claim.Reason]:
    """Why it may not be given away."""
    claim = capability(device, "claim")
    if isinstance(claim, capability_pb2.Claim):
        yield from claim.reasons


def used_by(device: Device) -> str:
    """The claims in short: mount points, holders, [SWAP], signatures."""
    # LVM never lets udev's rules look into its own sub-volumes.
    internal = kind(device) == "lvm-internal"
    found = (
        reason
        for reason in claims(device)
        if not (internal and reason.type == capability_pb2.Claim.TYPE_NOT_READY)
    )
    return ", ".join(dict.fromkeys(filter(None, map(_short, found))))


def _short(reason: capability_pb2.Claim.Reason) -> str:
    if reason.type == capability_pb2.Claim.TYPE_SWAP:
        return "[SWAP]"
    name = capability_pb2.Claim.Type.Name(reason.type).removeprefix("TYPE_").lower().replace("_", "-")
    if reason.type in (capability_pb2.Claim.TYPE_PARTITIONED, capability_pb2.Claim.TYPE_OPEN):
        return name  # `what` is a count
    if reason.type == capability_pb2.Claim.TYPE_NOT_READY:
        return name  # `what` is the name of a flag
    return reason.target or reason.device or reason.what or name


def claim_sentence(reason: capability_pb2.Claim.Reason) -> str:
    """A claim in words: "mounted: /srv (by block_dm_3)"."""
    name = capability_pb2.Claim.Type.Name(reason.type).removeprefix("TYPE_").lower().replace("_", " ")
    what = ", ".join(filter(None, (reason.target, reason.what)))
    by = f"by {reason.device}" if reason.device and what else reason.device
    rest = f"{what} ({by})" if what and by else what or by
    return f"{name}: {rest}" if rest else name


def leg_states(device: Device) -> dict[str, str]:
    """What a map or an array says of each of its legs, by device name."""
    mpath, raid = capability(device, "mpath"), capability(device, "raid")
    found: dict[str, str] = {}
    if isinstance(mpath, capability_pb2.Mpath):
        for group in mpath.groups:
            for path in group.paths:
                other = path.checker or path.ana_state
                found[path.device] = " ".join(filter(None, (path.state, other)))
    if isinstance(raid, capability_pb2.Raid):
        for member in raid.members:
            other = "" if member.state == member.role else member.state
            found[member.device] = " ".join(filter(None, (member.role, other)))
    return found
