"""RAID arrays: MD arrays and containers, LVM's raid and mirror volumes, dmraid's sets.

Follows Linux' Documentation/admin-guide/md.rst and device-mapper/dm-raid.rst; layouts go by mdadm's
names. What an array is made of and how it fares stands in one shape, whoever drives it.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodedev.capabilities import _raid_change, _raid_dm
from nodedev.capabilities._raid import Devices, Member, Raid, Sync, Volume
from nodedev.capabilities._raid_dm import DmArray
from nodedev.capabilities._raid_health import Evidence, container_health, health
from nodedev.facts import md
from nodedev.facts.dm_text import SOURCE
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.md import MdArray
from nodedev.model import CapabilityKind, Scene

__all__ = ["KIND", "Devices", "Member", "Raid", "Sync", "Volume"]


def probe(facts: DeviceFacts, scene: Scene) -> Raid | None:
    """An array's make-up and condition, from sysfs for md, from the table and status for dm."""
    if md.is_array(facts):
        return _md_raid(facts, scene)
    if _raid_dm.is_array(facts, scene.host):
        return _dm_raid(facts, scene)
    return None


def naming(facts: DeviceFacts, host: Host) -> str | None:
    """`raid_` and the md or dm UUID; an array without one keeps libvirt's sort of name."""
    uuid = None
    if md.is_array(facts):
        uuid = md.read(facts).uuid
    elif _raid_dm.is_array(facts, host):
        uuid = facts.text("dm/uuid")
    return f"raid_{uuid}" if uuid else None


def members(facts: DeviceFacts, host: Host) -> Iterator[tuple[str, DeviceFacts]]:
    """The disks or legs below, and for a volume its container, whose disks are the same ones."""
    if md.is_array(facts):
        container = md.container_of(facts)
        found = host.block(container) if container else None
        if found:
            yield "container", found
    elif not _raid_dm.is_array(facts, host):
        return
    for name in facts.slaves:
        found = host.block(name)
        if found:
            yield "member", found


def _md_raid(facts: DeviceFacts, scene: Scene) -> Raid:
    array = md.read(facts)
    container = scene.host.block(array.container) if array.container else None
    if array.container and not container:
        scene.note("sysfs", f"the container {array.container} is not there")
    if not array.uuid:
        scene.note("md", "the array has no UUID that could be read, so it goes by its kernel name")
    if array.state is None:
        scene.note("sysfs", "md/array_state could not be read")
    if facts.slaves and not array.members:
        scene.note("sysfs", "md/dev-* could not be read: the states of the members are not known")
    return Raid(
        implementation="md",
        uuid=array.uuid,
        name=array.name,
        level=array.level,
        metadata=md.read(container).metadata if container else array.metadata,
        state=array.state,
        health=_md_health(array),
        devices=_md_devices(array),
        chunk_bytes=array.chunk_bytes,
        layout=array.layout,
        consistency_policy=array.consistency_policy,
        sync=_md_sync(array),
        members=tuple(_md_members(facts, array, scene)),
        container=scene.name_of(container) if container else None,
        volumes=tuple(_volumes(facts, scene)) if array.is_container else (),
    )


def _md_health(array: MdArray) -> str | None:
    if array.is_container:
        return container_health(array.state, any(member.role == "faulty" for member in array.members))
    total = array.raid_disks
    unusable = None
    if array.members and total is not None:
        unusable = frozenset(range(total)) - array.slots_in_sync
    return health(
        Evidence(
            level=array.level,
            running=array.running if array.state else None,
            # Since Linux 5.4 a raid0 or linear array that lost a member says so, since 6.1 others too.
            broken=array.state == "broken",
            total=total,
            unusable=unusable,
            degraded=array.degraded,
            action=array.sync_action,
            synced=not array.resync_pending,
            copies=array.copies,
        )
    )


def _md_devices(array: MdArray) -> Devices | None:
    """Counts as the kernel's GET_ARRAY_INFO has them; an array at rest has given nobody a part yet."""
    failed = sum(member.role == "faulty" for member in array.members) if array.members else None
    if not array.running:
        return Devices(failed=failed) if array.is_container and failed is not None else None
    if not array.members:
        # The kernel's `degraded` counts the slots that are not in sync.
        known = array.raid_disks is not None and array.degraded is not None
        return Devices(
            total=array.raid_disks,
            active=(array.raid_disks or 0) - (array.degraded or 0) if known else None,
        )
    filled = {member.slot for member in array.members if member.slot is not None and member.role != "faulty"}
    return Devices(
        total=array.raid_disks,
        active=len(array.slots_in_sync),
        failed=failed,
        spare=sum("spare" in member.words and member.role != "faulty" for member in array.members),
        missing=None if array.raid_disks is None else len(set(range(array.raid_disks)) - filled),
    )


def _md_sync(array: MdArray) -> Sync | None:
    if array.sync_action is None:
        return None
    return Sync(
        action=array.sync_action,
        completed_bytes=array.progress.completed_bytes if array.progress else None,
        total_bytes=array.progress.total_bytes if array.progress else None,
        rate_bytes=array.sync_rate_bytes,
        mismatches=array.mismatches,
    )


def _md_members(facts: DeviceFacts, array: MdArray, scene: Scene) -> Iterator[Member]:
    """The members by slot; those of an array at rest, as of a container, have no part to play yet."""
    known = array.members or md.linked_members(facts)
    for member in known:
        found = scene.host.block(member.kernel_name)
        yield Member(
            slot=member.slot,
            role=member.role if array.running or member.role in ("faulty", "journal") else None,
            state=member.state,
            errors=member.errors,
            device=scene.name_of(found) if found else None,
            block=found.devnode if found else None,
        )


def _volumes(facts: DeviceFacts, scene: Scene) -> Iterator[Volume]:
    """The arrays that name this container; they hold the container's disks, so only those are asked."""
    names = {holder for slave in facts.slaves if (disk := scene.host.block(slave)) for holder in disk.holders}
    for name in sorted(names):
        found = scene.host.block(name)
        if found and md.is_array(found) and md.container_of(found) == facts.kernel_name:
            yield Volume(device=scene.name_of(found), block=found.devnode)


def _dm_raid(facts: DeviceFacts, scene: Scene) -> Raid:
    array = _raid_dm.read(facts, scene.host)
    for message in array.notes:
        scene.note(SOURCE, message)
    if not facts.text("dm/uuid"):
        scene.note("sysfs", "the array has no UUID, so it goes by its kernel name")
    suspended = facts.flag("dm/suspended")
    return Raid(
        implementation="dm",
        uuid=facts.text("dm/uuid"),
        name=facts.text("dm/name"),
        level=array.level,
        metadata=_raid_dm.metadata(facts),
        state=None if suspended is None else "suspended" if suspended else "active",
        health=health(array.evidence),
        devices=_dm_devices(array),
        chunk_bytes=array.chunk_bytes,
        layout=array.layout,
        sync=_dm_sync(array),
        members=tuple(_dm_members(array, scene)),
    )


def _dm_devices(array: DmArray) -> Devices | None:
    """Counts of the table's slots by the status' letters, without the journal."""
    slots = [leg for leg in array.legs if leg.slot is not None]
    if not slots:
        return None
    if any(leg.state is None for leg in slots):
        return Devices(total=len(slots))
    roles = [leg.role for leg in slots]
    return Devices(
        total=len(slots),
        active=roles.count("active"),
        failed=sum(leg.role == "faulty" and leg.device_number is not None for leg in slots),
        spare=roles.count("spare"),
        missing=sum(role not in ("active", "spare") for role in roles),
    )


def _dm_sync(array: DmArray) -> Sync | None:
    """The mirror target names no action; it tells how far it is while it is not in sync."""
    if array.action is None and array.progress is None:
        return None
    return Sync(
        action=array.action,
        completed_bytes=array.progress.completed_bytes if array.progress else None,
        total_bytes=array.progress.total_bytes if array.progress else None,
        mismatches=array.mismatches,
    )


def _dm_members(array: DmArray, scene: Scene) -> Iterator[Member]:
    """One for each slot, the device that holds the data; LVM's metadata legs are relations only."""
    for leg in array.legs:
        found = scene.host.block_number(leg.device_number) if leg.device_number else None
        yield Member(
            slot=leg.slot,
            role=leg.role,
            state=leg.state,
            device=scene.name_of(found) if found else None,
            block=found.devnode if found else None,
        )


KIND = CapabilityKind(
    shape=Raid,
    probe=probe,
    naming=naming,
    members=members,
    attributes={"block": ("dm/name", "dm/uuid", "dm/suspended", *md.ATTRIBUTES)},
    order=20,
    changing=_raid_change.CHANGING,
)
