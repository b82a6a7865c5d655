"""Devices as sysfs shows them (Documentation/filesystems/sysfs.rst): attributes, links, relations.

A device may vanish while it is read, and a driver may refuse an attribute at any moment: what cannot
be read is absent, and a device whose directory has gone is None.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from posixpath import basename, dirname, normpath
from sys import intern

from msgspec import Struct, field

from nodedev.facts.host import Note

SYSFS = "/sys"

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# A text attribute is at most a page; a binary one can be longer.
_PAGE_BYTES = 4096
_LIMIT_BYTES = 1 << 20
# A show() that follows a dead pointer prints this instead of failing (lib/vsprintf.c).
_FAULT = b"(efault)"
# Others only say that the device has no such thing at the moment.
_WORTH_A_NOTE = frozenset({errno.EACCES, errno.EPERM, errno.EIO})
_BOOKKEEPING = ("CURRENT_TAGS", "DEVLINKS", "DEVPATH", "TAGS", "UDEV_DATABASE_VERSION", "USEC_INITIALIZED")


def text_of(data: bytes) -> str:
    """Bytes of the kernel as text, undecodable ones kept as os.fsdecode does."""
    return data.decode("utf-8", "surrogateescape")


def attribute_text(data: bytes) -> str:
    """An attribute's text: the kernel ends most with one newline, which is not part of the value."""
    return text_of(data.removesuffix(b"\n"))


def by_number(names: Iterable[str]) -> tuple[str, ...]:
    """Kernel names as the kernel counts them: sda2 before sda10, sdz before sdaa."""
    return tuple(sorted(names, key=lambda name: (len(name), name)))


def drop_bookkeeping(properties: dict[str, str]) -> None:
    """Takes out of udev's properties what it keeps for itself, and what DeviceFacts says elsewhere."""
    for name in _BOOKKEEPING:
        properties.pop(name, None)


def name_pattern(patterns: Iterable[str]) -> str:
    """A regular expression for attribute names; `*` stands for any part of one path component."""
    return "|".join(re.escape(name).replace(r"\*", "[^/=\\n]*") for name in sorted(set(patterns))) or "(?!)"


class Wanted:
    """Which of a subsystem's attributes to read, sorted by folder once for all its devices.

    `plain` and `below` hold plain names, `globs` and `below_globs` wildcards; with one of these a folder
    must be `listed`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        below: dict[str, list[str]] = {}
        names: list[str] = []
        for pattern in dict.fromkeys(patterns):
            first, slash, rest = pattern.partition("/")
            if slash:
                below.setdefault(first, []).append(rest)
            else:
                names.append(first)
        self.plain = tuple(name for name in names if "*" not in name)
        globs = [name for name in names if "*" in name]
        self.globs = re.compile(name_pattern(globs)) if globs else None
        self.below = {first: Wanted(rest) for first, rest in below.items() if "*" not in first}
        self.below_globs = tuple(
            (re.compile(name_pattern([first])), Wanted(rest)) for first, rest in below.items() if "*" in first
        )
        self.listed = bool(globs or self.below_globs)

    def of(self, names: set[str]) -> list[str]:
        """Those of a folder's names that are wanted of it."""
        found = [name for name in self.plain if name in names]
        return [*found, *sorted(filter(self.globs.fullmatch, names))] if self.globs else found


class Entry(Struct):
    """A device's directory as read; `uevent` holds the kernel's own properties."""

    subsystem: str
    uevent: Mapping[str, str]
    attributes: dict[str, str] = field(default_factory=dict)
    symlinks: dict[str, str] = field(default_factory=dict)
    slaves: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    notes: list[Note] = field(default_factory=list)


class Listing(Struct):
    """What a directory holds, symlinks apart from what they lead to."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    symlinks: set[str] = field(default_factory=set)


class Sysfs:
    """A sysfs tree; `reads` counts the files, folders and links read since the start."""

    def __init__(self, root: str = SYSFS) -> None:
        self.root = root
        self.reads = 0

    def devices(self, subsystem: str) -> Iterator[str]:
        """The sysfs paths of a subsystem's devices; none where the kernel does not have it."""
        for folder in (f"{self.root}/class/{subsystem}", f"{self.root}/bus/{subsystem}/devices"):
            try:
                # A class may have files of its own beside the links to its devices.
                with os.scandir(folder) as entries:
                    links = [entry.path for entry in entries if entry.is_symlink()]
            except OSError:
                continue
            self.reads += 1
            yield from filter(None, map(self.resolve, links))
            return

    def locate(self, subsystem: str, kernel_name: str) -> str | None:
        """The sysfs path of a subsystem's device by its kernel name."""
        return self.resolve(f"{self.root}/class/{subsystem}/{kernel_name}") or self.resolve(
            f"{self.root}/bus/{subsystem}/devices/{kernel_name}"
        )

    def locate_number(self, device_number: str) -> str | None:
        """The sysfs path of the block device with that "MAJOR:MINOR"."""
        return self.resolve(f"{self.root}/dev/block/{device_number}")

    def resolve(self, link: str) -> str | None:
        """The sysfs path that one of the tree's own links leads to."""
        target = self.link(link)
        if target is None:
            return None
        path = normpath(f"{dirname(link)}/{target}").removeprefix(self.root)
        return path if path.startswith("/devices/") else None

    def read(self, path: str, wanted: Mapping[str, Wanted]) -> Entry | None:
        """The device at a sysfs path; None for one that is gone, or a directory that is no device."""
        directory = self.root + path
        uevent = self.data(f"{directory}/uevent")
        target = self.link(f"{directory}/subsystem")
        if not isinstance(uevent, bytes) or target is None:
            return None
        entry = Entry(basename(target), parse_uevent(uevent))
        listing = self.listing(directory)
        self._listed(entry, directory, "", wanted.get(entry.subsystem, _NOTHING), listing)
        if entry.subsystem == "block":
            self._relations(entry, directory, listing)
        # What is read of a device that goes away meanwhile looks like attributes it does not have.
        if not os.access(f"{directory}/uevent", os.F_OK):
            return None
        return entry

    def data(self, path: str) -> bytes | OSError:
        """A file's bytes, or why there are none."""
        self.reads += 1
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError as error:
            return error
        try:
            data = chunk = os.read(descriptor, _PAGE_BYTES)
            while len(chunk) == _PAGE_BYTES and len(data) < _LIMIT_BYTES:
                chunk = os.read(descriptor, _PAGE_BYTES)
                data += chunk
        except OSError as error:
            return error
        finally:
            os.close(descriptor)
        return OSError(errno.EFAULT, "bad address") if data.startswith(_FAULT) else data

    def listing(self, directory: str) -> Listing:
        """What a directory holds; nothing where it cannot be read."""
        self.reads += 1
        files, folders, symlinks = set(), set(), set()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    # Most are files; sysfs tells the type with the name, so that none costs a call.
                    if entry.is_file(follow_symlinks=False):
                        files.add(entry.name)
                    elif entry.is_symlink():
                        symlinks.add(entry.name)
                    else:
                        folders.add(entry.name)
        except OSError:
            return Listing()
        return Listing(files, folders, symlinks)

    def _names(self, directory: str) -> tuple[str, ...]:
        """The names of the links in a folder that is there for them."""
        self.reads += 1
        try:
            with os.scandir(directory) as entries:
                return by_number([entry.name for entry in entries if entry.is_symlink()])
        except OSError:
            return ()

    def _below(self, entry: Entry, directory: str, prefix: str, wanted: Wanted) -> None:
        """Reads what is wanted of a folder below the device's own, listing it only for a wildcard."""
        if wanted.listed:
            self._listed(entry, directory, prefix, wanted, self.listing(directory))
            return
        for name in wanted.plain:
            self._add(entry, directory, name, prefix + name)
        for name, inner in wanted.below.items():
            self._below(entry, f"{directory}/{name}", f"{prefix}{name}/", inner)

    def _listed(self, entry: Entry, directory: str, prefix: str, wanted: Wanted, listing: Listing) -> None:
        """Reads what is wanted of a folder whose listing is known."""
        for name in wanted.of(listing.files):
            self._add(entry, directory, name, prefix + name)
        # All links of the device's own folder are facts, further down the wanted ones.
        for name in wanted.of(listing.symlinks) if prefix else listing.symlinks:
            if name != "subsystem":
                self._add_link(entry, directory, name, prefix + name)
        for name, inner in wanted.below.items():
            # A link is followed where it is named: iommu_group/devices/*.
            if name in listing.folders or name in listing.symlinks:
                self._below(entry, f"{directory}/{name}", f"{prefix}{name}/", inner)
        for pattern, inner in wanted.below_globs:
            for name in sorted(filter(pattern.fullmatch, listing.folders)):
                self._below(entry, f"{directory}/{name}", f"{prefix}{name}/", inner)

    def _add(self, entry: Entry, directory: str, name: str, key: str) -> None:
        data = self.data(f"{directory}/{name}")
        if isinstance(data, bytes):
            entry.attributes[key] = attribute_text(data)
        elif data.errno == errno.ELOOP:
            self._add_link(entry, directory, name, key)
        elif data.errno in _WORTH_A_NOTE:
            entry.notes.append(Note("sysfs", f"{key}: {os.strerror(data.errno)}"))

    def _add_link(self, entry: Entry, directory: str, name: str, key: str) -> None:
        target = self.link(f"{directory}/{name}")
        if target is not None:
            entry.symlinks[key] = target

    def _relations(self, entry: Entry, directory: str, listing: Listing) -> None:
        if "slaves" in listing.folders:
            entry.slaves = self._names(f"{directory}/slaves")
        if "holders" in listing.folders:
            entry.holders = self._names(f"{directory}/holders")
        if entry.uevent.get("DEVTYPE") == "disk":
            # A partition is named after its disk: sda1, nvme0n1p1, cciss!c0d0p1.
            disk = basename(directory)
            entry.partitions = by_number(
                name
                for name in listing.folders
                if name.startswith(disk) and os.access(f"{directory}/{name}/partition", os.F_OK)
            )

    def link(self, path: str) -> str | None:
        """A symlink's text; None where there is none."""
        self.reads += 1
        try:
            return os.readlink(path)  # noqa: PTH115  this is the hot path
        except OSError:
            return None


_NOTHING = Wanted(())


def parse_uevent(data: bytes) -> dict[str, str]:
    """The kernel's own properties of a device, from its uevent file."""
    pairs = (line.partition("=") for line in text_of(data).split("\n"))
    return {intern(name): value for name, equals, value in pairs if equals}
