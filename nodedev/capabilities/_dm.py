"""What a device-mapper device is, told by its uuid, its name and its table.

The uuid's prefix names the subsystem that made the device (dm/uuid in sysfs): `mpath-`, `LVM-`,
`DMRAID-`, `CRYPT-`, and `part<N>-` before another's for a partition that kpartx made.
"""

from __future__ import annotations

import re

from nodedev.facts.host import DeviceFacts, Host

PARTITION = "part"

_PARTITION = re.compile(r"part(\d+)-(.+)", re.ASCII)
# VG and LV uuid, 32 characters each; anything behind them is the suffix of a sub-LV or layer.
_LVM_UUID_LENGTH = len("LVM-") + 64
# lvm2 keeps these words for its sub-LVs and lets no user's LV name hold one (lib/misc/lvm-string.c);
# rimage and rmeta carry them in the name alone. Only a name's last part, behind any hyphen, is looked
# at: a VG may be called anything.
_LVM_COMPONENT = re.compile(
    r"_(?:rimage|rmeta|mimage|mlog|tdata|tmeta|cdata|cmeta|corig|cpool|cvol|wcorig|pmspare|vdata|vorigin"
    r"|imeta|iorig)[^-]*$"
)
# LVM doubles the hyphens of a name, so that an odd run of them ends the VG's.
_PVMOVE = re.compile(r"(?<!-)(?:--)*-pvmove\d+$")
_RAID_TARGETS = ("raid", "mirror")
# Told apart by the uuid already: no need to read the table of each of thousands of maps.
_NEVER_RAID = ("mpath", PARTITION, "CRYPT")


def is_dm(facts: DeviceFacts) -> bool:
    """Whether the block device is device-mapper's."""
    return "dm/name" in facts.attributes


def uuid(facts: DeviceFacts) -> str | None:
    """The dm uuid as the kernel holds it; None where its maker gave none."""
    return facts.text("dm/uuid")


def uuid_kind(facts: DeviceFacts) -> str | None:
    """The uuid's prefix: mpath, LVM, DMRAID, CRYPT ..., `part` for any partition; None without one."""
    known = uuid(facts)
    if known is None or "-" not in known:
        return None
    return PARTITION if _PARTITION.match(known) else known.partition("-")[0]


def partition_number(facts: DeviceFacts) -> int | None:
    """The number of a partition that kpartx made."""
    found = _PARTITION.match(uuid(facts) or "")
    return int(found[1]) if found else None


def is_multipath(facts: DeviceFacts) -> bool:
    """Whether it is a dm-multipath map."""
    return uuid_kind(facts) == "mpath"


def is_multipath_partition(facts: DeviceFacts) -> bool:
    """Whether it is a partition of a map, made by kpartx."""
    found = _PARTITION.match(uuid(facts) or "")
    return bool(found and found[2].startswith("mpath-"))


def is_lvm_internal(facts: DeviceFacts) -> bool:
    """Whether it is a sub-LV or layer that LVM keeps to itself, RAID images among them."""
    if uuid_kind(facts) != "LVM":
        return False
    name = facts.attributes.get("dm/name", "")
    suffixed = len(uuid(facts) or "") > _LVM_UUID_LENGTH
    return bool(suffixed or _LVM_COMPONENT.search(name) or _PVMOVE.search(name))


def targets(facts: DeviceFacts, host: Host) -> tuple[str, ...] | None:
    """The distinct target types in the table's order; None where the table could not be read."""
    found = host.maps.get(facts.device_number) if facts.device_number else None
    return tuple(dict.fromkeys(target.type for target in found.targets)) if found else None


def is_raid(facts: DeviceFacts, host: Host) -> bool:
    """Whether it is a dm-raid array: a dmraid set, or a volume of one raid or mirror target.

    An LVM RAID volume's uuid is that of any volume: without a readable table it is not recognised.
    """
    if not is_dm(facts) or is_lvm_internal(facts):
        return False
    kind = uuid_kind(facts)
    if kind == "DMRAID":
        return not _is_dmraid_partition(facts, host)
    found = host.maps.get(facts.device_number) if kind not in _NEVER_RAID and facts.device_number else None
    return found is not None and len(found.targets) == 1 and found.targets[0].type in _RAID_TARGETS


def _is_dmraid_partition(facts: DeviceFacts, host: Host) -> bool:
    """Whether it is a partition that dmraid made: its uuid is of the same sort, its table linear on a set."""
    below = (host.block(name) for name in facts.slaves)
    on_set = any(found and uuid_kind(found) == "DMRAID" for found in below)
    return on_set and targets(facts, host) in (None, ("linear",))
