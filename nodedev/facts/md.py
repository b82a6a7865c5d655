"""MD arrays as sysfs shows them.

Follows Linux' Documentation/admin-guide/md.rst, and mdadm for the names of layouts and the
spelling of UUIDs. Everything comes from a device's facts: nothing is opened here. The files
change under the reader (a member leaves, a resync ends), so each is taken by itself and is None
where it could not be read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from uuid import UUID

from msgspec import Struct

from nodedev.facts.host import DeviceFacts

SECTOR_BYTES = 512
KIB = 1024

ATTRIBUTES = (
    "md/array_state",
    "md/level",
    "md/raid_disks",
    "md/metadata_version",
    "md/uuid",
    "md/degraded",
    "md/chunk_size",
    "md/layout",
    "md/consistency_policy",
    "md/resync_start",
    "md/sync_action",
    "md/sync_completed",
    "md/sync_speed",
    "md/mismatch_cnt",
    "md/dev-*/slot",
    "md/dev-*/state",
    "md/dev-*/errors",
    "md/rd*",
)

_MD_MAJOR = "9"
_SUBARRAY = re.compile(r"[/-]([^/]+)/.+")
_MEMBER_FILE = re.compile(r"md/dev-([^/]+)/(?:slot|state|errors)")

# What md/level holds while no personality is loaded: the number of the superblock.
_LEVELS = {"-1": "linear", "-4": "multipath", "-5": "faulty", "-100": "container"}

# linux/raid/md_p.h and drivers/md/raid5.h by number, under the names of mdadm's maps.c.
_PARITY_LAYOUTS = {
    0: "left-asymmetric",
    1: "right-asymmetric",
    2: "left-symmetric",
    3: "right-symmetric",
    4: "parity-first",
    5: "parity-last",
    8: "ddf-zero-restart",
    9: "ddf-N-restart",
    10: "ddf-N-continue",
    16: "left-asymmetric-6",
    17: "right-asymmetric-6",
    18: "left-symmetric-6",
    19: "right-symmetric-6",
    20: "parity-first-6",
}
_RAID0_LAYOUTS = {1: "original", 2: "alternate"}


class Copies(Struct, frozen=True):
    """How RAID10 lays out its copies: `near` on neighbouring disks, `far` further down on each."""

    near: int = 1
    far: int = 1
    offset: bool = False

    def __str__(self) -> str:
        """What `mdadm --detail` prints: "near=2", "far=2", "near=2, offset=2"."""
        parts = [f"near={self.near}"] if self.near != 1 else []
        if self.far != 1:
            parts.append(f"{'offset' if self.offset else 'far'}={self.far}")
        return ", ".join(parts)


class Progress(Struct, frozen=True):
    """How far a running sync is, in bytes."""

    completed_bytes: int
    total_bytes: int


class MdMember(Struct, frozen=True):
    """One md/dev-* directory; `state` is the kernel's comma list, which may grow."""

    kernel_name: str
    slot: int | None = None
    state: str | None = None
    errors: int | None = None

    @property
    def words(self) -> frozenset[str]:
        """The words of the state."""
        return frozenset((self.state or "").split(",")) - {""}

    @property
    def in_sync(self) -> bool:
        """Whether it is a full member whose data can be used."""
        return "in_sync" in self.words and "faulty" not in self.words

    @property
    def role(self) -> str | None:
        """faulty, journal, replacement, active or spare; one that is rebuilding is a spare with a slot."""
        words = self.words
        for role in ("faulty", "journal", "replacement"):
            if role in words:
                return role
        if "in_sync" in words:
            return "active"
        return "spare" if "spare" in words else None


class MdArray(Struct, frozen=True):
    """What sysfs, and after it udev, say of an array.

    `container` is the kernel name of the container a volume lies in. `degraded`, `sync_action`
    and what belongs to them do not exist for levels without redundancy.
    """

    state: str | None
    level: str | None
    raid_disks: int | None
    metadata: str | None
    container: str | None
    uuid: str | None
    name: str | None
    degraded: int | None
    chunk_bytes: int | None
    layout: str | None
    copies: Copies | None
    consistency_policy: str | None
    resync_pending: bool
    sync_action: str | None
    progress: Progress | None
    sync_rate_bytes: int | None
    mismatches: int | None
    members: tuple[MdMember, ...]

    @property
    def is_container(self) -> bool:
        """Whether it only holds the disks of arrays with external metadata."""
        return self.level == "container"

    @property
    def slots_in_sync(self) -> frozenset[int]:
        """The slots with a full member in them."""
        return frozenset(member.slot for member in self.members if member.in_sync and member.slot is not None)

    @property
    def running(self) -> bool:
        """Whether a personality drives it; a container never has one."""
        return self.state not in (None, "clear", "inactive")


def is_array(facts: DeviceFacts) -> bool:
    """Whether the block device is an MD array, a stopped one's lingering node included."""
    if facts.subsystem != "block" or facts.devtype == "partition":
        return False
    return "md/array_state" in facts.attributes or facts.properties.get("MAJOR") == _MD_MAJOR


def canonical_uuid(text: str) -> str | None:
    """A UUID as mdadm spells it, 8:8:8:8, from that, the dashed spelling, or bare digits.

    None for anything else, and for the zeros of an array that has none.
    """
    digits = re.sub(r"[:-]", "", text.strip().lower())
    if not re.fullmatch(r"[0-9a-f]{32}", digits) or not digits.strip("0"):
        return None
    return ":".join(digits[at : at + 8] for at in range(0, 32, 8))


def dashed_uuid(canonical: str) -> str | None:
    """The kernel's spelling of a canonical UUID; None for what is none, such as a dm uuid."""
    if canonical_uuid(canonical) != canonical:
        return None
    return str(UUID(canonical.replace(":", "")))


def read(facts: DeviceFacts) -> MdArray:
    """The array as its sysfs files were read."""
    metadata, container = _metadata(facts)
    level = _level(facts, metadata, container)
    layout = _number(facts, "md/layout")
    chunk = _number(facts, "md/chunk_size")
    rate = facts.number("md/sync_speed")
    copies = _copies(layout) if level == "raid10" and layout is not None else None
    return MdArray(
        state=facts.text("md/array_state"),
        level=level,
        raid_disks=_number(facts, "md/raid_disks"),
        metadata=metadata,
        container=container,
        uuid=_uuid(facts),
        name=facts.properties.get("MD_NAME") or facts.properties.get("MD_DEVNAME"),
        degraded=facts.number("md/degraded"),
        chunk_bytes=chunk or None,
        layout=str(copies) or None if copies else _layout(level, layout),
        copies=copies,
        # "unknown" is what the kernel says while no personality is loaded.
        consistency_policy=_unless(facts.text("md/consistency_policy"), "unknown"),
        resync_pending=_unless(facts.text("md/resync_start"), "none") is not None,
        sync_action=facts.text("md/sync_action"),
        progress=parse_progress(facts.text("md/sync_completed") or ""),
        sync_rate_bytes=None if rate is None else rate * KIB,
        mismatches=facts.number("md/mismatch_cnt"),
        members=_members(facts),
    )


def container_of(facts: DeviceFacts) -> str | None:
    """The kernel name of the container that an array is a volume of."""
    return _metadata(facts)[1]


def linked_members(facts: DeviceFacts) -> tuple[MdMember, ...]:
    """The members by the links md/rdN and the slaves, for facts that hold nothing below md/dev-*.

    umockdev-record goes one level deep. A slot's link says nothing of its member's state.
    """
    slots = {
        target.removeprefix("dev-"): int(name.removeprefix("md/rd"))
        for name, target in facts.symlinks.items()
        if re.fullmatch(r"md/rd\d{1,9}", name, re.ASCII)
    }
    return _by_slot(MdMember(kernel_name=name, slot=slots.get(name)) for name in facts.slaves)


def parse_progress(text: str) -> Progress | None:
    """The sync_completed file, "1000 / 2000" in sectors; None for "none" and "delayed"."""
    found = re.fullmatch(r"\s*(\d{1,20})\s*/\s*(\d{1,20})\s*", text, re.ASCII)
    return Progress(int(found[1]) * SECTOR_BYTES, int(found[2]) * SECTOR_BYTES) if found else None


def parse_current(text: str) -> int | None:
    """The new value of a file that reads "new (old)" while the array is reshaped."""
    found = re.match(r"\s*(-?\d{1,20})(?=\s|$)", text, re.ASCII)
    return int(found[1]) if found else None


def _number(facts: DeviceFacts, attribute: str) -> int | None:
    return parse_current(facts.attributes.get(attribute, ""))


def _unless(text: str | None, word: str) -> str | None:
    return None if text == word else text


def _metadata(facts: DeviceFacts) -> tuple[str | None, str | None]:
    """The superblock's version or external format; or for a volume the container that has it.

    A volume reads "external:/md124/0", or "external:-md124/0" while its container is not to act.
    """
    text = facts.text("md/metadata_version")
    if text is None or not text.startswith("external:"):
        return text, None
    kind = text.removeprefix("external:")
    volume = _SUBARRAY.fullmatch(kind)
    return (None, volume[1]) if volume else (kind or None, None)


def _level(facts: DeviceFacts, metadata: str | None, container: str | None) -> str | None:
    """The kernel knows no level of a container, whose file is empty, nor of some inactive arrays."""
    external = (facts.text("md/metadata_version") or "").startswith("external:")
    if external and metadata and not container:
        return "container"
    text = facts.text("md/level") or facts.properties.get("MD_LEVEL")
    if text and text.isdecimal():
        return f"raid{text}"
    return _LEVELS.get(text, text) if text else None


def _uuid(facts: DeviceFacts) -> str | None:
    """md/uuid, newer than many kernels and zero for external metadata; else what mdadm told udev.

    The kernel prints the bytes of a 0.90 superblock's four words as they lie in memory, mdadm the
    words: on a little-endian host the first is the second with each word turned round.
    """
    kernel = canonical_uuid(facts.attributes.get("md/uuid", ""))
    udev = canonical_uuid(facts.properties.get("MD_UUID", ""))
    if kernel and (facts.text("md/metadata_version") or "").startswith("0.") and sys.byteorder == "little":
        kernel = ":".join(bytes.fromhex(word)[::-1].hex() for word in kernel.split(":"))
    return kernel or udev


def _layout(level: str | None, number: int | None) -> str | None:
    """The name of a layout; its number where mdadm has no name for it; None where none applies."""
    if number is None:
        return None
    match level:
        case "raid5" | "raid6":
            return _PARITY_LAYOUTS.get(number, str(number))
        # mdadm leaves it at its UnSet, -1, where members of one size leave nothing to lay out.
        case "raid0" if number > 0:
            return _RAID0_LAYOUTS.get(number, str(number))
        case _:
            return None


def _copies(layout: int) -> Copies:
    return Copies(near=layout & 0xFF or 1, far=layout >> 8 & 0xFF or 1, offset=bool(layout & 0x10000))


def _members(facts: DeviceFacts) -> tuple[MdMember, ...]:
    names = {found[1] for key in facts.attributes if (found := _MEMBER_FILE.fullmatch(key))}
    return _by_slot(
        MdMember(
            kernel_name=name,
            slot=facts.number(f"md/dev-{name}/slot"),
            state=facts.text(f"md/dev-{name}/state"),
            errors=facts.number(f"md/dev-{name}/errors"),
        )
        for name in names
    )


def _by_slot(members: Iterable[MdMember]) -> tuple[MdMember, ...]:
    return tuple(
        sorted(members, key=lambda member: (member.slot is None, member.slot or 0, member.kernel_name))
    )
