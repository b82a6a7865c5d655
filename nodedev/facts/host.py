"""What is read of a host: plain values, the sources they come from, and one pass's view of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from posixpath import basename, dirname
from typing import Generic, Protocol, TypeVar, cast

from msgspec import Struct

from nodedev.errors import FactError
from nodedev.facts.dm_text import DmMap
from nodedev.facts.mounts import Mount, Swap
from nodedev.facts.multipathd import MultipathdMap

T = TypeVar("T")


class Note(Struct, frozen=True):
    """Something that could not be known, or that a reader should know: which source, and why."""

    source: str
    message: str


class FileIdentity(Struct, frozen=True):
    """What stat(2) says of a path: the file system's device number (a node's own), and the inode.

    `kind` is file, block or other; like `size_bytes`, a file's, it is not known of a recorded host.
    """

    device_number: str
    inode: int
    kind: str | None = None
    size_bytes: int | None = None


class DeviceFacts(Struct, frozen=True):
    """One device of sysfs with what udev keeps of it.

    `path` is the sysfs path below /sys ("/devices/..."). `attributes` holds the text of the sysfs
    files that some capability declared, trailing newline removed, keyed by the path below the
    device ("queue/rotational"). `symlinks` maps a link's name ("driver") to its target's text.
    `slaves`, `holders` and `partitions` are kernel names.
    """

    path: str
    subsystem: str
    properties: Mapping[str, str]
    attributes: Mapping[str, str]
    symlinks: Mapping[str, str]
    links: tuple[str, ...] = ()
    slaves: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    initialized: bool = True
    notes: tuple[Note, ...] = ()

    @property
    def kernel_name(self) -> str:
        """The last part of the sysfs path; `!` stands for a slash in the node's name."""
        return self.path.rpartition("/")[2]

    @property
    def sysname(self) -> str:
        """The kernel name as udev gives it, `!` turned into the slash it stands for."""
        return self.kernel_name.replace("!", "/")

    @property
    def devtype(self) -> str | None:
        """The kernel's DEVTYPE: disk, partition, scsi_host, scsi_target, scsi_device."""
        return self.properties.get("DEVTYPE")

    @property
    def devnode(self) -> str | None:
        """The device node, "/dev/sda"; None for a device without one."""
        return self.properties.get("DEVNAME")

    @property
    def device_number(self) -> str | None:
        """The kernel's "MAJOR:MINOR"."""
        if "MAJOR" in self.properties and "MINOR" in self.properties:
            return f"{self.properties['MAJOR']}:{self.properties['MINOR']}"
        return None

    @property
    def driver(self) -> str | None:
        """The name of the driver bound to the device."""
        target = self.symlinks.get("driver")
        return basename(target) if target else self.properties.get("DRIVER")

    def number(self, attribute: str) -> int | None:
        """The attribute as a decimal number; None where it is absent or something else."""
        try:
            return int(self.attributes[attribute])
        except (KeyError, ValueError):
            return None

    def flag(self, attribute: str) -> bool | None:
        """The attribute as the kernel's 0 or 1; None where it is absent or something else."""
        return {"0": False, "1": True}.get(self.attributes.get(attribute, "").strip())

    def text(self, attribute: str) -> str | None:
        """The attribute without surrounding blanks; None where it is absent or empty."""
        return self.attributes.get(attribute, "").strip() or None


class Hints(Struct, frozen=True):
    """Sysfs paths of devices to read again; `lost` when events were lost and only a scan can tell."""

    paths: frozenset[str] = frozenset()
    lost: bool = False


class Watch(Protocol):
    """Where hints come from: a live host, or a recording's stream of events."""

    @property
    def mode(self) -> str:
        """What brings them at present."""

    def wait(self, timeout_seconds: float) -> Hints:
        """The next hints; none when nothing happened within the time."""

    def close(self) -> None:
        """Ends the watch; not while a wait is under way."""


class Source(Protocol):
    """A host to read: a live one, or a recording. Raises FactError where a whole source is unreadable."""

    live: bool

    def scan(self) -> Iterator[DeviceFacts]:
        """Every device of the subsystems that some capability reads."""

    def read(self, path: str) -> DeviceFacts | None:
        """The device at a sysfs path as it is now; None when it is gone."""

    def locate(self, subsystem: str, sysname: str) -> str | None:
        """The sysfs path of a device known by subsystem and kernel name."""

    def locate_number(self, device_number: str) -> str | None:
        """The sysfs path of the block device with that "MAJOR:MINOR"."""

    def notes(self) -> Iterable[Note]:
        """What is missing of the host as a whole, said once instead of on each device."""

    def maps(self) -> Iterable[DmMap]:
        """Every device-mapper device, those without a table too."""

    def map(self, device_number: str) -> DmMap | None:
        """One device-mapper device; None when there is none of that number."""

    def multipathd(self) -> Iterable[MultipathdMap]:
        """What multipathd says of its maps."""

    def multipathd_map(self, wwid: str) -> MultipathdMap | None:
        """What multipathd says of one map; None when it has none of that WWID."""

    def mounts(self) -> Iterable[Mount]:
        """The mounts of this mount namespace."""

    def swaps(self) -> Iterable[Swap]:
        """The active swap areas."""

    def identify(self, path: str) -> FileIdentity | None:
        """The file a path names now; None when there is none."""

    def watch(self) -> Watch | None:
        """What tells of changes from now on; None where there will be none."""


class Lookup(Generic[T]):
    """Values of one source by key, each read when first asked for, or all of them beforehand."""

    def __init__(self, read: Callable[[str], T | None], host: Host, source: str) -> None:
        self._read = read
        self._host = host
        self._source = source
        self._known: dict[str, T | None] = {}
        self._complete = False

    def fill(self, values: Mapping[str, T]) -> None:
        """Takes all the values there are: nothing is read from here on."""
        self._known = dict(values)
        self._complete = True

    def get(self, key: str) -> T | None:
        """The value; None where there is none, or its source failed, which then is a note."""
        if key not in self._known and not self._complete:
            found = self._host.ask(self._source, lambda: (self._read(key),))
            self._known[key] = found[0] if found else None
        return self._known.get(key)


class Host:
    """One pass over a source: everything is read at most once and stays the same until its end.

    A scanned pass holds every device, map and multipathd's word from the start; any other reads
    what it is asked for, so that its work is that of what is asked. `notes` tells by source which
    failed, `answered` which did not; the others were not asked.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.notes = {note.source: note for note in source.notes()}
        self.answered: set[str] = set()
        self._devices: dict[str, DeviceFacts | None] = {}
        self._paths: dict[tuple[str, str], str | None] = {}
        self._numbers: dict[str, str | None] = {}
        self._files: dict[str, FileIdentity | None] = {}
        self._derived: dict[Callable[[Host], object], object] = {}
        self.maps = Lookup(source.map, self, "dm")
        self.multipathd = Lookup(source.multipathd_map, self, "multipathd")

    @classmethod
    def scan(cls, source: Source) -> Host:
        """A pass that starts with every device of the source."""
        host = cls(source)
        for facts in source.scan():
            host._remember(facts)
        maps = host.ask("dm", source.maps)
        host.maps.fill({found.device_number: found for found in maps})
        for found in maps:
            if found.device_number not in host._numbers:
                host._remember(_tableless(found))
        host.multipathd.fill({found.wwid: found for found in host.ask("multipathd", source.multipathd)})
        return host

    def _remember(self, facts: DeviceFacts) -> None:
        self._devices[facts.path] = facts
        self._paths[facts.subsystem, facts.kernel_name] = facts.path
        if facts.subsystem == "block" and facts.device_number:
            self._numbers[facts.device_number] = facts.path

    def __iter__(self) -> Iterator[DeviceFacts]:
        """The devices read so far, in the order of their sysfs paths."""
        return iter(sorted(filter(None, self._devices.values()), key=lambda facts: facts.path))

    def device(self, path: str) -> DeviceFacts | None:
        """The device at a sysfs path; None when there is none."""
        if path not in self._devices:
            self._devices[path] = None
            facts = self.source.read(path)
            if facts:
                self._remember(facts)
        return self._devices[path]

    def find(self, subsystem: str, kernel_name: str) -> DeviceFacts | None:
        """The device of a subsystem with that kernel name, as in /sys/class or /sys/bus."""
        key = (subsystem, kernel_name)
        if key not in self._paths:
            self._paths[key] = self.source.locate(subsystem, kernel_name)
        path = self._paths[key]
        return self.device(path) if path else None

    def block(self, kernel_name: str) -> DeviceFacts | None:
        """The block device with that kernel name ("sda", "dm-0")."""
        return self.find("block", kernel_name)

    def block_number(self, device_number: str) -> DeviceFacts | None:
        """The block device with that "MAJOR:MINOR"."""
        if device_number not in self._numbers:
            self._numbers[device_number] = self.source.locate_number(device_number)
        path = self._numbers[device_number]
        return self.device(path) if path else None

    def ancestors(self, facts: DeviceFacts) -> Iterator[DeviceFacts]:
        """The devices above this one in sysfs, nearest first."""
        path = dirname(facts.path)
        while len(path) > len("/devices"):
            found = self.device(path)
            if found:
                yield found
            path = dirname(path)

    @cached_property
    def mounts(self) -> Mapping[str, tuple[Mount, ...]]:
        """The mounts of each block device, by device number."""
        return _grouped(self.ask("mounts", self.source.mounts), lambda mount: mount.device_number)

    @cached_property
    def swaps(self) -> Mapping[str, Swap]:
        """The active swap areas by path."""
        return {swap.path: swap for swap in self.ask("swaps", self.source.swaps)}

    def identify(self, path: str) -> FileIdentity | None:
        """The file a path names now; raises FactError when that cannot be told safely."""
        if path not in self._files:
            self._files[path] = self.source.identify(path)
        return self._files[path]

    def once(self, derive: Callable[[Host], T]) -> T:
        """What a function makes of the whole pass, computed when first asked for and kept to its end."""
        if derive not in self._derived:
            self._derived[derive] = derive(self)
        return cast("T", self._derived[derive])

    def ask(self, source: str, read: Callable[[], Iterable[T]]) -> tuple[T, ...]:
        """What a source as a whole tells; nothing, and a note, where it cannot."""
        try:
            found = tuple(read())
        except FactError as error:
            self.notes[error.source] = Note(error.source, error.message)
            return ()
        self.answered.add(source)
        return found


def _tableless(found: DmMap) -> DeviceFacts:
    """A device-mapper device that was never given a table: the kernel makes it no block device."""
    major, minor = found.device_number.split(":")
    return DeviceFacts(
        path=f"/device-mapper/dm-{minor}",
        subsystem="block",
        properties={"MAJOR": major, "MINOR": minor, "DEVTYPE": "disk"},
        attributes={"dm/name": found.name, "dm/uuid": found.uuid},
        symlinks={},
        notes=(Note("dm", "no table was ever loaded, so there is no block device"),),
    )


def _grouped(values: Iterable[T], key: Callable[[T], str]) -> Mapping[str, tuple[T, ...]]:
    groups: dict[str, tuple[T, ...]] = {}
    for value in values:
        groups[key(value)] = (*groups.get(key(value), ()), value)
    return groups
