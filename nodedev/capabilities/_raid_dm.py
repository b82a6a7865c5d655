"""Arrays that device-mapper drives: LVM's raid and mirror volumes, and the sets that dmraid builds.

Follows Linux' Documentation/admin-guide/device-mapper/dm-raid.rst, drivers/md/dm-raid1.c and
dm-stripe.c. LVM's raid and mirror are told by their target, dmraid's sets by their UUID.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from nodedev.capabilities import _dm
from nodedev.capabilities._raid_health import Evidence
from nodedev.facts.dm_targets import (
    RaidStatus,
    RaidTable,
    parse_mirror_status,
    parse_mirror_table,
    parse_raid_status,
    parse_raid_table,
)
from nodedev.facts.dm_text import SOURCE, DmTarget
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.md import SECTOR_BYTES, Copies, Progress

# drivers/md/dm-raid.c's algorithms behind the raid types, under mdadm's names.
_LAYOUTS = {
    "raid5_n": "parity-last",
    "raid5_la": "left-asymmetric",
    "raid5_ra": "right-asymmetric",
    "raid5_ls": "left-symmetric",
    "raid5_rs": "right-symmetric",
    "raid6_zr": "ddf-zero-restart",
    "raid6_nr": "ddf-N-restart",
    "raid6_nc": "ddf-N-continue",
    "raid6_n_6": "parity-last",
    "raid6_la_6": "left-asymmetric-6",
    "raid6_ra_6": "right-asymmetric-6",
    "raid6_ls_6": "left-symmetric-6",
    "raid6_rs_6": "right-symmetric-6",
}


class Leg(Struct, frozen=True):
    """One slot: the data device's number, None for a missing one, and the kernel's letter for it."""

    slot: int | None
    device_number: str | None
    state: str | None = None
    role: str | None = None


class DmArray(Struct, frozen=True):
    """What table and status say of an array; `notes` is what they do not."""

    level: str | None
    evidence: Evidence
    legs: tuple[Leg, ...]
    chunk_bytes: int | None = None
    layout: str | None = None
    action: str | None = None
    progress: Progress | None = None
    mismatches: int | None = None
    notes: tuple[str, ...] = ()


def is_array(facts: DeviceFacts, host: Host) -> bool:
    """Whether the dm device is an array; of an LVM volume only its table tells."""
    return facts.subsystem == "block" and _dm.is_raid(facts, host)


def metadata(facts: DeviceFacts) -> str | None:
    """Whose metadata describe the dm device: lvm, dmraid, or None where its UUID does not say."""
    return {"LVM": "lvm", "DMRAID": "dmraid"}.get(_dm.uuid_kind(facts) or "")


def read(facts: DeviceFacts, host: Host) -> DmArray:
    """The array as its table and status tell it."""
    targets = _targets(facts, host)
    types = {target.type for target in targets}
    try:
        if types == {"raid"}:
            return _raid(targets[0])
        if types == {"mirror"}:
            return _mirror(targets[0])
        if types and types <= {"striped", "linear"}:
            return _without_redundancy(targets)
    except ValueError as error:
        return _unknown(facts, host, str(error))
    if types:
        return _unknown(facts, host, f"nothing is known of a table of {' and '.join(sorted(types))}")
    unread = host.notes.get(SOURCE)
    return _unknown(facts, host, unread.message if unread else "the device has no table")


def _targets(facts: DeviceFacts, host: Host) -> tuple[DmTarget, ...]:
    found = host.maps.get(facts.device_number) if facts.device_number else None
    return found.targets if found else ()


def _raid(target: DmTarget) -> DmArray:
    table = parse_raid_table(target.parameters)
    notes: list[str] = []
    status = _status(target, notes)
    letters = status.health if status and len(status.health) == len(table.legs) else None
    action = status.action if status else None
    found = re.match(r"raid\d+", table.type)
    level = found[0] if found else table.type
    copies = _copies(table) if level == "raid10" else None
    legs = [
        Leg(slot, leg.data, letter, _role(letter, action))
        for slot, (leg, letter) in enumerate(
            zip(table.legs, letters or (None,) * len(table.legs), strict=True)
        )
    ]
    if table.journal_device:
        legs.append(Leg(None, table.journal_device, status.journal if status else None, "journal"))
    synced: bool | None = True
    if table.sync == "nosync" and level != "raid0":
        synced = None
        notes.append("built with nosync: that its devices are in sync was never established")
    return DmArray(
        level=level,
        evidence=Evidence(
            level=level,
            running=True,
            broken=False,
            total=len(table.legs),
            # What a recovery has not reached yet is no data; in a first sync every leg has its own.
            unusable=_slots(letters, "D-a" if action == "recover" else "D-"),
            degraded=None if letters is None else len(letters) - letters.count("A"),
            action=action,
            synced=synced,
            copies=copies,
        ),
        legs=tuple(legs),
        chunk_bytes=table.chunk_size_sectors * SECTOR_BYTES or None,
        layout=(str(copies) or None) if copies else _LAYOUTS.get(table.type),
        action=action,
        progress=_progress(status),
        mismatches=_mismatches(status),
        notes=tuple(notes),
    )


def _status(target: DmTarget, notes: list[str]) -> RaidStatus | None:
    try:
        return parse_raid_status(target.status)
    except ValueError as error:
        notes.append(str(error))
        return None


def _role(letter: str | None, action: str | None) -> str | None:
    """How md calls a leg with this letter: one not in sync is a spare being built, but in a first sync."""
    match letter:
        case "A":
            return "active"
        case "a":
            return "active" if action == "resync" else "spare"
        case "D":
            return "faulty"
        case _:
            return None


def _slots(letters: str | None, wanted: str) -> frozenset[int] | None:
    if letters is None:
        return None
    return frozenset(slot for slot, letter in enumerate(letters) if letter in wanted)


def _copies(table: RaidTable) -> Copies:
    """RAID10's layout, two near copies unless the table says otherwise."""
    number = table.raid10_copies or 2
    form = table.raid10_format or table.type.partition("_")[2] or "near"
    return Copies(near=number) if form == "near" else Copies(far=number, offset=form == "offset")


def _progress(status: RaidStatus | None) -> Progress | None:
    if status is None or status.action in ("idle", "frozen"):
        return None
    if status.action is None and status.synced_sectors >= status.total_sectors:
        return None
    return Progress(status.synced_sectors * SECTOR_BYTES, status.total_sectors * SECTOR_BYTES)


def _mismatches(status: RaidStatus | None) -> int | None:
    """The count after or during a check; dm-raid says 0 as well when the last action was none."""
    if status is None or (not status.mismatch_count and status.action != "check"):
        return None
    return status.mismatch_count


def _mirror(target: DmTarget) -> DmArray:
    """The target before dm-raid. R is a failed read, which leaves the leg's data as they are.

    "nosync" means here what dm-log.c says, known to be in sync: the log in memory starts from it.
    """
    table = parse_mirror_table(target.parameters)
    notes: tuple[str, ...] = ()
    letters: str | None = None
    progress = None
    synced = None
    try:
        status = parse_mirror_status(target.status)
        letters = "".join(leg.state for leg in status.legs)
        synced = status.synced_regions >= status.total_regions
        region = _region_bytes(table.log_type, table.log_arguments)
        if region and not synced:
            progress = Progress(status.synced_regions * region, target.length * SECTOR_BYTES)
    except ValueError as error:
        notes = (str(error),)
    return DmArray(
        level="raid1",
        evidence=Evidence(
            level="raid1",
            running=True,
            broken=False,
            total=len(table.legs),
            unusable=_slots(letters, "DFSU"),
            degraded=None if letters is None else len(letters) - letters.count("A"),
            action=None,
            synced=synced,
        ),
        legs=_lettered([leg.device_number for leg in table.legs], letters, alive="AR"),
        progress=progress,
        notes=notes,
    )


def _region_bytes(log_type: str, arguments: Sequence[str]) -> int | None:
    """The size of a region in the two logs the kernel keeps itself: core SIZE, disk DEVICE SIZE."""
    at = {"core": 0, "disk": 1}.get(log_type)
    if at is None or len(arguments) <= at or not arguments[at].isdecimal():
        return None
    return int(arguments[at]) * SECTOR_BYTES


def _without_redundancy(targets: Sequence[DmTarget]) -> DmArray:
    """The stripes and concatenations of dmraid, of one target or of several where the disks differ in size.

    Table: striped COUNT CHUNK (DEVICE OFFSET)..., linear DEVICE OFFSET; status of striped: COUNT
    DEVICE... 1 LETTERS, with D for a device that had an error. Linear has no status.
    """
    level = "raid0" if any(target.type == "striped" for target in targets) else "linear"
    letters: dict[str, str | None] = {}
    chunk = None
    for target in targets:
        words = target.parameters.split()
        if target.type == "striped":
            if len(words) < 4:  # noqa: PLR2004  a count, a chunk, and one stripe at least
                raise ValueError(f"not a striped table: {target.parameters!r}")
            chunk = chunk or int(words[1]) * SECTOR_BYTES
            words = words[2:]
        devices = words[::2]
        status = target.status.split()
        states = status[-1] if target.type == "striped" and len(status) == len(devices) + 3 else ""
        for at, device in enumerate(devices):
            letter = states[at] if len(states) == len(devices) else None
            letters[device] = "D" if "D" in (letter, letters.get(device)) else letter
    known = "".join(letter for letter in letters.values() if letter)
    complete = known if len(known) == len(letters) else None
    return DmArray(
        level=level,
        evidence=Evidence(
            level=level,
            running=True,
            broken=False,
            total=len(letters),
            unusable=_slots(complete, "D"),
            degraded=None,
            action=None,
            synced=True,
        ),
        legs=_lettered(list(letters), complete, alive="A"),
        chunk_bytes=chunk,
        notes=() if complete else ("the table's targets do not tell how their devices fare",),
    )


def _lettered(devices: Sequence[str], letters: str | None, alive: str) -> tuple[Leg, ...]:
    if letters is None or len(letters) != len(devices):
        return tuple(Leg(slot, device) for slot, device in enumerate(devices))
    return tuple(
        Leg(slot, device, letter, "active" if letter in alive else "faulty")
        for slot, (device, letter) in enumerate(zip(devices, letters, strict=True))
    )


def _unknown(facts: DeviceFacts, host: Host, why: str) -> DmArray:
    """An array of which only its UUID and its devices are known."""
    below = (host.block(name) for name in facts.slaves)
    return DmArray(
        level=None,
        evidence=Evidence(
            None, None, broken=False, total=None, unusable=None, degraded=None, action=None, synced=None
        ),
        legs=tuple(Leg(None, found.device_number) for found in below if found),
        notes=(why,),
    )
