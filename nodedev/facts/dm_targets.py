"""What the table and status lines of single device-mapper targets say.

Follows Linux' drivers/md/dm-mpath.c, dm-raid.c with Documentation/admin-guide/device-mapper/dm-raid.rst,
and dm-raid1.c with dm-log.c. The lines are positional, by counts they carry. A line that does not
add up raises ValueError with its text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

_DEVICE = re.compile(r"-|[0-9]+:[0-9]+")


class MultipathTablePath(Struct, frozen=True):
    """One path as the table names it."""

    device_number: str
    selector_arguments: tuple[str, ...]


class MultipathTableGroup(Struct, frozen=True):
    """One priority group: its path selector ("service-time") and its paths."""

    selector: str
    selector_arguments: tuple[str, ...]
    paths: tuple[MultipathTablePath, ...]


class MultipathTable(Struct, frozen=True):
    """A multipath target's table; `hardware_handler` is empty for none, `initial_group` counts from 1."""

    features: tuple[str, ...]
    hardware_handler: tuple[str, ...]
    initial_group: int
    groups: tuple[MultipathTableGroup, ...]


class MultipathStatusPath(Struct, frozen=True):
    """One path as the kernel sees it: state A (active) or F (failed)."""

    device_number: str
    state: str
    fail_count: int
    selector_status: tuple[str, ...]


class MultipathStatusGroup(Struct, frozen=True):
    """One priority group: state A (active), E (enabled) or D (disabled)."""

    state: str
    selector_status: tuple[str, ...]
    paths: tuple[MultipathStatusPath, ...]


class MultipathStatus(Struct, frozen=True):
    """A multipath target's status; `features` are queue_io and the count of pg_init."""

    features: tuple[str, ...]
    hardware_handler: tuple[str, ...]
    initial_group: int
    groups: tuple[MultipathStatusGroup, ...]


class RaidLeg(Struct, frozen=True):
    """One slot of a raid target: "MAJOR:MINOR" of its two devices; None for one missing or not used."""

    metadata: str | None
    data: str | None


class RaidTable(Struct, frozen=True):
    """A raid target's table; `sync` is "sync", "nosync" or None where the table forces neither."""

    type: str
    chunk_size_sectors: int
    sync: str | None
    rebuild: tuple[int, ...]
    write_mostly: tuple[int, ...]
    region_size_sectors: int | None
    raid10_format: str | None
    raid10_copies: int | None
    journal_device: str | None
    journal_mode: str | None
    parameters: tuple[str, ...]
    legs: tuple[RaidLeg, ...]


class RaidStatus(Struct, frozen=True):
    """A raid target's status; `health` is one character a leg: A in sync, a not, D dead, - missing.

    Older targets print fewer fields: before 1.5.0 neither action nor mismatches, before 1.10.0 no
    journal. The mismatches count only after a check.
    """

    type: str
    device_count: int
    health: str
    synced_sectors: int
    total_sectors: int
    action: str | None
    mismatch_count: int | None
    data_offset_sectors: int | None
    journal: str | None


class MirrorLeg(Struct, frozen=True):
    """One leg of a mirror target."""

    device_number: str
    offset_sectors: int


class MirrorTable(Struct, frozen=True):
    """A mirror target's table; the log's arguments hold its device (disk), region size, sync or nosync."""

    log_type: str
    log_arguments: tuple[str, ...]
    legs: tuple[MirrorLeg, ...]
    features: tuple[str, ...]


class MirrorLegStatus(Struct, frozen=True):
    """State A (alive), or what failed: D (write), F (flush), S (sync), R (read), U (unknown)."""

    device_number: str
    state: str


class MirrorStatus(Struct, frozen=True):
    """A mirror target's status, in regions; `log` is the log's own status: type, device, A, D, F or R."""

    legs: tuple[MirrorLegStatus, ...]
    synced_regions: int
    total_regions: int
    log: tuple[str, ...]


def parse_multipath_table(parameters: str) -> MultipathTable:
    """The table of a multipath target."""
    words = _Words("multipath table", parameters)
    features = words.counted()
    handler = words.counted()
    group_count, initial = words.number(), words.number()
    groups = []
    for _ in range(group_count):
        selector = words.word()
        arguments = words.counted()
        path_count, argument_count = words.number(), words.number()
        paths = tuple(MultipathTablePath(words.word(), words.take(argument_count)) for _ in range(path_count))
        groups.append(MultipathTableGroup(selector, arguments, paths))
    words.end()
    return MultipathTable(features, handler, initial, tuple(groups))


def parse_multipath_status(status: str) -> MultipathStatus:
    """The status of a multipath target."""
    words = _Words("multipath status", status)
    features = words.counted()
    handler = words.counted()
    group_count, initial = words.number(), words.number()
    groups = []
    for _ in range(group_count):
        state = words.word()
        selector = words.counted()
        path_count, argument_count = words.number(), words.number()
        paths = tuple(
            MultipathStatusPath(words.word(), words.word(), words.number(), words.take(argument_count))
            for _ in range(path_count)
        )
        groups.append(MultipathStatusGroup(state, selector, paths))
    words.end()
    return MultipathStatus(features, handler, initial, tuple(groups))


def parse_raid_table(parameters: str) -> RaidTable:
    """The table of a raid target."""
    words = _Words("raid table", parameters)
    raid_type = words.word()
    count = words.number()
    rest = words.rest()
    at = _leg_count_at(rest, count)
    if at is None or at < 1:
        raise words.wrong()
    legs, options = rest[at + 1 :], rest[1:at]
    numbers = {
        name: tuple(words.as_number(value) for value in _values(options, name))
        for name in ("rebuild", "write_mostly", "region_size", "raid10_copies")
    }
    return RaidTable(
        type=raid_type,
        chunk_size_sectors=words.as_number(rest[0]),
        sync=next((word for word in options if word in {"sync", "nosync"}), None),
        rebuild=numbers["rebuild"],
        write_mostly=numbers["write_mostly"],
        region_size_sectors=next(iter(numbers["region_size"]), None),
        raid10_format=next(iter(_values(options, "raid10_format")), None),
        raid10_copies=next(iter(numbers["raid10_copies"]), None),
        journal_device=next(iter(_values(options, "journal_dev")), None),
        journal_mode=next(iter(_values(options, "journal_mode")), None),
        parameters=rest[:at],
        legs=tuple(
            RaidLeg(_device(metadata), _device(data))
            for metadata, data in zip(legs[::2], legs[1::2], strict=True)
        ),
    )


def parse_raid_status(status: str) -> RaidStatus:
    """The status of a raid target; what a newer kernel may add behind the known fields is ignored."""
    words = _Words("raid status", status)
    raid_type, device_count, health = words.word(), words.number(), words.word()
    synced, total = words.ratio()
    action, mismatches, data_offset, journal, *_ = (*words.rest(), None, None, None, None)
    return RaidStatus(
        type=raid_type,
        device_count=device_count,
        health=health,
        synced_sectors=synced,
        total_sectors=total,
        action=action,
        mismatch_count=None if mismatches is None else words.as_number(mismatches),
        data_offset_sectors=None if data_offset is None else words.as_number(data_offset),
        journal=journal,
    )


def parse_mirror_table(parameters: str) -> MirrorTable:
    """The table of a mirror target, LVM's before its raid1."""
    words = _Words("mirror table", parameters)
    log_type = words.word()
    log_arguments = words.counted()
    legs = tuple(MirrorLeg(words.word(), words.number()) for _ in range(words.number()))
    features = words.counted() if words.more() else ()
    words.end()
    return MirrorTable(log_type, log_arguments, legs, features)


def parse_mirror_status(status: str) -> MirrorStatus:
    """The status of a mirror target; the log's part is absent in old kernels."""
    words = _Words("mirror status", status)
    devices = words.counted()
    synced, total = words.ratio()
    states = "".join(words.counted())
    if len(states) != len(devices):
        raise words.wrong()
    log = words.rest()
    # A log in user space that does not answer gives one bare word in place of a counted list.
    if len(log) > 1 and log[0] == str(len(log) - 1):
        log = log[1:]
    legs = tuple(MirrorLegStatus(*leg) for leg in zip(devices, states, strict=True))
    return MirrorStatus(legs, synced, total, log)


def _leg_count_at(words: Sequence[str], parameter_count: int) -> int | None:
    """Where the count of legs stands: behind the counted parameters, else where the line adds up.

    Kernels before 5.6 (target 1.15.1) print a wrong count of parameters beside rebuild,
    write_mostly and a journal.
    """
    places: Sequence[int] = (parameter_count, *range(1, len(words)))
    for at in places:
        legs = words[at + 1 :]
        if (
            legs
            and len(legs) % 2 == 0
            and words[at] == str(len(legs) // 2)
            and all(map(_DEVICE.fullmatch, legs))
        ):
            return at
    return None


def _values(options: Sequence[str], name: str) -> tuple[str, ...]:
    return tuple(value for word, value in pairwise(options) if word == name)


def _device(word: str) -> str | None:
    return None if word == "-" else word


class _Words:
    """The words of one line, taken in order."""

    def __init__(self, what: str, line: str) -> None:
        self._what = what
        self._line = line
        self._words = line.split()
        self._at = 0

    def wrong(self) -> ValueError:
        return ValueError(f"not a {self._what}: {self._line!r}")

    def more(self) -> bool:
        return self._at < len(self._words)

    def take(self, count: int) -> tuple[str, ...]:
        taken = tuple(self._words[self._at : self._at + count])
        if len(taken) < count:
            raise self.wrong()
        self._at += count
        return taken

    def word(self) -> str:
        return self.take(1)[0]

    def as_number(self, word: str) -> int:
        # No number of the kernel's has more than 20 digits; int() itself refuses very long ones.
        if not (word.isascii() and word.isdigit() and len(word) <= len(str(2**64))):
            raise self.wrong()
        return int(word)

    def number(self) -> int:
        return self.as_number(self.word())

    def counted(self) -> tuple[str, ...]:
        """A count and that many words."""
        return self.take(self.number())

    def ratio(self) -> tuple[int, int]:
        """Two numbers with a slash between them."""
        done, _, total = self.word().partition("/")
        return self.as_number(done), self.as_number(total)

    def rest(self) -> tuple[str, ...]:
        return self.take(len(self._words) - self._at)

    def end(self) -> None:
        if self.more():
            raise self.wrong()
