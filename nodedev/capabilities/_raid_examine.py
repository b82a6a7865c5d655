"""Whether an array could start, from the superblocks of its members as mdadm reads them.

Follows what mdadm's Assemble.c and util.c (`enough`) ask for before they start an array. To read is to
open, so only a change does it, of the members that it names; `mdadm --examine` opens them for reading alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from msgspec import Struct

from nodedev.capabilities._raid_health import Evidence, data_lost
from nodedev.errors import PreconditionError
from nodedev.facts import md

_PARITY = ("raid4", "raid5", "raid6")
_FIELD = re.compile(r"^ *([A-Z][A-Za-z ]*?) : (.*?)\s*$", re.MULTILINE)
# A 0.90 superblock's row for the device itself: number, major, minor, slot, words.
_THIS = re.compile(r"^this +\d+ +\d+ +\d+ +(\d+) +active", re.MULTILINE)
_ROLE = re.compile(r"(?:Active|Replacement) device (\d+)", re.IGNORECASE)
_BRIEF = re.compile(r"^ARRAY .*?(?:\bcontainer=(\S+) .*)?\bUUID=(\S+)", re.MULTILINE)
# The kernel and mdadm take a member that missed the last update of a superblock.
_EVENTS_BEHIND = 1


class Superblock(Struct, frozen=True):
    """One member's; `slot` is None for a spare, `required` how many members the array had at the end."""

    uuid: str
    level: str
    total: int
    required: int
    events: int
    clean: bool
    slot: int | None


def parse(text: str) -> Iterator[Superblock]:
    """The native superblocks in what `mdadm --examine` prints of some devices; others are left out."""
    for part in re.split(r"^/.*:$", text, flags=re.MULTILINE):
        fields = dict(_FIELD.findall(part))
        uuid = md.canonical_uuid(fields.get("Array UUID") or fields.get("UUID", ""))
        states = fields.get("Array State", "").partition(" ")[0]
        required = str(len(states) - states.count(".")) if states else fields.get("Active Devices", "")
        total, events = fields.get("Raid Devices", ""), fields.get("Events", "").rpartition(".")[2]
        if not (uuid and total.isdecimal() and events.isdecimal() and required.isdecimal()):
            continue
        slot = _ROLE.match(fields.get("Device Role", "")) or _THIS.search(part)
        yield Superblock(
            uuid=uuid,
            level=fields.get("Raid Level", ""),
            total=int(total),
            required=int(required),
            events=int(events),
            clean=fields.get("State", "") != "active",
            slot=int(slot[1]) if slot else None,
        )


def startable(uuid: str, *, force: bool) -> Callable[[str], None]:
    """What raises MEMBERS_MISSING unless the members examined can start the array, degraded with `force`."""

    def judge(text: str) -> None:
        members = [found for found in parse(text) if found.uuid == uuid]
        if not members:
            return  # superblocks of a sort that is not known here: mdadm will tell
        newest = max(members, key=lambda member: member.events)
        current = [member for member in members if member.events + _EVENTS_BEHIND >= newest.events]
        slots = frozenset(member.slot for member in current if member.slot is not None)
        missing = frozenset(range(newest.total)) - slots
        lost = data_lost(Evidence(newest.level, True, False, newest.total, missing, None, None, None))
        have = f"{len(slots)} of the {newest.total} members of the {newest.level} array {uuid} are here"
        trouble = None
        if lost:
            trouble = f"{have}, which is not enough"
        elif missing and newest.level in _PARITY and not newest.clean:
            trouble = f"{have}, and as it was not stopped, its parity cannot stand in for the others"
        elif len(slots) < newest.required and not force:
            trouble = f"{have}, and it had {newest.required} when it was last used; force starts it degraded"
        if trouble:
            raise PreconditionError(trouble, reason="MEMBERS_MISSING", uuid=uuid)

    return judge


def present(uuid: str, *, volume: bool, free: bool = True) -> Callable[[str], None]:
    """Raises MEMBERS_MISSING unless the UUID is there: a container's of `free` members, or a `volume`'s."""

    def judge(text: str) -> None:
        found = {md.canonical_uuid(own): container for container, own in _BRIEF.findall(text)}
        if uuid not in found:
            raise PreconditionError(
                f"no device here carries the UUID {uuid}", reason="MEMBERS_MISSING", uuid=uuid
            )
        if found[uuid] and not volume:
            raise PreconditionError(
                f"{uuid} is a volume of the container {found[uuid]}: start that one first, and then name it"
                " as the volume's container",
                reason="MEMBERS_MISSING",
                uuid=uuid,
            )
        if not free:
            raise PreconditionError(
                f"the devices that carry the UUID {uuid} are taken", reason="MEMBERS_MISSING", uuid=uuid
            )

    return judge
