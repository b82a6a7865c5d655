"""A recorded host as a source of facts: a folder or .tar.gz, as `nodedev record` writes it.

Only `host.umockdev` must be there. What another file would have told is a FactError from the method
that needs it, so that it becomes a note as on a live host.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from posixpath import dirname
from sys import intern
from typing import IO

from msgspec.structs import replace

from nodedev.errors import FactError, RecordingError
from nodedev.facts import dm_text, manifest, mounts, multipathd, replay, umockdev
from nodedev.facts.dm_text import DmMap
from nodedev.facts.host import DeviceFacts, FileIdentity, Note, Watch
from nodedev.facts.manifest import Content, Manifest
from nodedev.facts.mounts import Mount, Swap
from nodedev.facts.multipathd import MultipathdMap
from nodedev.facts.replay import EVENTS, Event, Replay
from nodedev.facts.sysfs import attribute_text, by_number, drop_bookkeeping, name_pattern, text_of

DEVICES = "host.umockdev"
MANIFEST = "recording.json"
DM_TABLE, DM_STATUS, DM_INFO = "dmsetup-table.txt", "dmsetup-status.txt", "dmsetup-info.txt"
MULTIPATHD = "multipathd-maps.json"
MOUNTS = "mountinfo"
SWAPS = "swaps"

_TEXTS = (MANIFEST, DM_TABLE, DM_STATUS, DM_INFO, MULTIPATHD, MOUNTS, SWAPS, EVENTS)
# 50,000 LUNs with every attribute are about 1 GB; multipathd's own limit for a reply is 32 MiB.
_DEVICES_LIMIT_BYTES = 4 << 30
_TEXT_LIMIT_BYTES = 256 << 20
_ABSENT = "not in this recording"
_EVERYTHING = r"[^=\n]+"
_MISSING_END = Note("recording", "the description of this device may be cut off: no empty line closes it")


class RecordedSource:
    """A recorded host; `manifest` is what it says of itself.

    `attributes` names by subsystem the sysfs files to keep, as the live source reads them, and thereby
    the subsystems of a scan; without it everything is kept.
    """

    live = False

    def __init__(
        self,
        place: str,
        devices: Iterable[DeviceFacts],
        texts: Mapping[str, bytes],
        manifest: Manifest,
        attributes: Mapping[str, tuple[str, ...]] | None = None,
        events: tuple[Event, ...] = (),
    ) -> None:
        self.place = place
        self.manifest = manifest
        self._texts = dict(texts)
        self._attributes = attributes
        self._events = events
        self._devices: dict[str, DeviceFacts] = {}
        self._paths: dict[tuple[str, str], str] = {}
        self._numbers: dict[str, str] = {}
        for facts in devices:
            self._keep(facts)

    @classmethod
    def open(cls, path: Path, attributes: Mapping[str, tuple[str, ...]] | None = None) -> RecordedSource:
        """Reads a recording; raises RecordingError for one that is damaged, cut off or none at all."""
        devices: Mapping[str, DeviceFacts] | None = None
        texts: dict[str, bytes] = {}
        contents: dict[str, Content] = {}
        for name, stream in _files(path):
            place = f"{path}/{name}"
            if name == DEVICES:
                counted = _Counted(stream, place, _DEVICES_LIMIT_BYTES)
                devices = _parse_devices(counted, attributes)
            else:
                counted = _Counted(stream, place, _TEXT_LIMIT_BYTES)
                texts[name] = counted.read()
            contents[name] = counted.content()
        if devices is None:
            raise RecordingError(f"{path}: no recording, it has no {DEVICES}")
        about = _parse_manifest(texts, path)
        _verify(about, contents, path)
        if not about.udev or about.uninitialized:
            unready = devices if not about.udev else set(about.uninitialized) & devices.keys()
            devices = {
                **devices,
                **{path: replace(devices[path], initialized=False) for path in unready},
            }
        try:
            events = replay.parse(texts.pop(EVENTS, b""))
        except ValueError as error:
            raise RecordingError(f"{path}/{EVENTS}, {error}") from error
        return cls(str(path), devices.values(), texts, about, attributes, events)

    def scan(self) -> Iterator[DeviceFacts]:
        """Every recorded device of the subsystems asked for."""
        wanted = self._attributes
        return (facts for facts in self._devices.values() if wanted is None or facts.subsystem in wanted)

    def read(self, path: str) -> DeviceFacts | None:
        """The recorded device at a sysfs path."""
        return self._devices.get(path)

    def locate(self, subsystem: str, sysname: str) -> str | None:
        """The sysfs path of a device known by subsystem and kernel name."""
        return self._paths.get((subsystem, sysname))

    def locate_number(self, device_number: str) -> str | None:
        """The sysfs path of the block device with that "MAJOR:MINOR"."""
        return self._numbers.get(device_number)

    def notes(self) -> Iterable[Note]:
        """What could not be read when the host was recorded."""
        return self.manifest.notes

    def maps(self) -> Iterable[DmMap]:
        """The recorded device-mapper devices; where there are none, their files may be missing."""
        return self._maps.values()

    def map(self, device_number: str) -> DmMap | None:
        """One recorded device-mapper device."""
        return self._maps.get(device_number)

    def multipathd(self) -> Iterable[MultipathdMap]:
        """What multipathd said of its maps."""
        return self._multipathd.values()

    def multipathd_map(self, wwid: str) -> MultipathdMap | None:
        """What multipathd said of one map."""
        return self._multipathd.get(wwid)

    def mounts(self) -> Iterable[Mount]:
        """The mounts of the recorder's mount namespace."""
        return mounts.parse_mountinfo(self._text(mounts.SOURCE, MOUNTS))

    def swaps(self) -> Iterable[Swap]:
        """The active swap areas."""
        return mounts.parse_swaps(self._text(mounts.SOURCE, SWAPS))

    def watch(self) -> Watch | None:
        """The events that followed the snapshot; None where the recording is of one moment."""
        return Replay(self._events, self.advance) if self._events else None

    def advance(self, event: Event) -> None:
        """Makes the recorded host what it had become with an event."""
        changed: dict[str, DeviceFacts] = {}
        if event.devices:
            stream = _Counted(BytesIO(event.devices.encode()), f"{self.place}/{EVENTS}", _TEXT_LIMIT_BYTES)
            changed = dict(_parse_devices(stream, self._attributes))
        for path in event.gone:
            self._forget(path)
        for facts in changed.values():
            before = self._forget(facts.path)
            self._keep(replace(facts, partitions=facts.partitions or (before.partitions if before else ())))
        for path in {dirname(path) for path in (*event.gone, *changed)} | changed.keys():
            self._renew_partitions(path, changed)
        self._texts.update({name: text.encode() for name, text in event.texts.items()})
        for name in ("_maps", "_multipathd"):
            self.__dict__.pop(name, None)

    def _keep(self, facts: DeviceFacts) -> None:
        self._devices[facts.path] = facts
        self._paths[facts.subsystem, facts.kernel_name] = facts.path
        if facts.subsystem == "block" and facts.device_number:
            self._numbers[facts.device_number] = facts.path

    def _forget(self, path: str) -> DeviceFacts | None:
        facts = self._devices.pop(path, None)
        if facts:
            self._paths.pop((facts.subsystem, facts.kernel_name), None)
            if self._numbers.get(facts.device_number or "") == path:
                del self._numbers[facts.device_number or ""]
        return facts

    def _renew_partitions(self, path: str, changed: Mapping[str, DeviceFacts]) -> None:
        """Lists the partitions of a disk that are there now; an event tells of each by itself."""
        disk = self._devices.get(path)
        if disk is None or disk.subsystem != "block":
            return
        added = (facts.kernel_name for facts in changed.values() if dirname(facts.path) == path)
        names = {name for name in (*disk.partitions, *added) if f"{path}/{name}" in self._devices}
        self._devices[path] = replace(disk, partitions=by_number(names))

    def identify(self, path: str) -> FileIdentity | None:
        """The file a path named on the recorded host, if the recorder looked."""
        if path not in self.manifest.files:
            raise FactError("stat", _ABSENT)
        return self.manifest.files[path]

    @cached_property
    def _maps(self) -> Mapping[str, DmMap]:
        if not any(name in self._texts for name in (DM_TABLE, DM_STATUS, DM_INFO)) and not any(
            facts.subsystem == "block" and facts.kernel_name.startswith("dm-")
            for facts in self._devices.values()
        ):
            return {}
        table, status, info = (self._text(dm_text.SOURCE, name) for name in (DM_TABLE, DM_STATUS, DM_INFO))
        return {found.device_number: found for found in dm_text.parse_text(table, status, info)}

    @cached_property
    def _multipathd(self) -> Mapping[str, MultipathdMap]:
        return {
            found.wwid: found for found in multipathd.parse_maps(self._text(multipathd.SOURCE, MULTIPATHD))
        }

    def _text(self, source: str, name: str) -> str:
        if name in self._texts:
            return text_of(self._texts[name])
        noted = (note.message for note in self.manifest.notes if note.source == source)
        raise FactError(source, next(noted, f"{name} is {_ABSENT}"))


def _parse_devices(
    stream: _Counted, attributes: Mapping[str, tuple[str, ...]] | None
) -> Mapping[str, DeviceFacts]:
    devices: dict[str, DeviceFacts] = {}
    partitions: dict[str, list[str]] = {}
    wanted = _Wanted(attributes)
    try:
        for stanza in umockdev.parse(stream, wanted.lines):
            facts = _facts(stanza, wanted)
            if facts.path in devices:
                raise RecordingError(f"{stream.place}: {facts.path} is described twice")
            devices[facts.path] = facts
            if facts.subsystem == "block" and facts.devtype == "partition":
                partitions.setdefault(dirname(facts.path), []).append(facts.kernel_name)
    except umockdev.StanzaError as error:
        raise RecordingError(f"{stream.place}, line {error.line}: {error.message}") from error
    if not devices:
        raise RecordingError(f"{stream.place}: no device in it")
    for path in partitions.keys() & devices.keys():
        devices[path] = replace(devices[path], partitions=by_number(partitions[path]))
    return devices


def _facts(stanza: umockdev.Stanza, wanted: _Wanted) -> DeviceFacts:
    properties = {intern(name): value for name, value in stanza.properties.items()}
    drop_bookkeeping(properties)
    subsystem = properties["SUBSYSTEM"]
    if stanza.node:
        properties.setdefault("DEVNAME", stanza.node)
    related: dict[str, list[str]] = {"slaves": [], "holders": []}
    symlinks: dict[str, str] = {}
    for name, target in stanza.symlinks.items():
        folder, slash, below = name.partition("/")
        if slash and folder in related:
            related[folder].append(below)
        elif not slash or wanted.names(subsystem).fullmatch(name):
            symlinks[name] = target
    return DeviceFacts(
        path=stanza.path,
        subsystem=subsystem,
        properties=properties,
        attributes={name: attribute_text(data) for name, data in stanza.attributes.items()},
        symlinks=symlinks,
        links=tuple(sorted(stanza.links or stanza.properties.get("DEVLINKS", "").split())),
        slaves=by_number(related["slaves"]),
        holders=by_number(related["holders"]),
        notes=() if stanza.closed else (_MISSING_END,),
    )


class _Wanted:
    """The patterns of the attributes to keep, compiled once for each subsystem."""

    def __init__(self, attributes: Mapping[str, tuple[str, ...]] | None) -> None:
        self._attributes = attributes
        self._compiled: dict[str, tuple[re.Pattern[str], re.Pattern[str]]] = {}

    def lines(self, subsystem: str) -> re.Pattern[str]:
        return self._patterns(subsystem)[0]

    def names(self, subsystem: str) -> re.Pattern[str]:
        return self._patterns(subsystem)[1]

    def _patterns(self, subsystem: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
        if subsystem not in self._compiled:
            names = _EVERYTHING
            if self._attributes is not None:
                names = name_pattern(self._attributes.get(subsystem, ()))
            self._compiled[subsystem] = (umockdev.line_pattern(names), re.compile(names))
        return self._compiled[subsystem]


def _parse_manifest(texts: Mapping[str, bytes], path: Path) -> Manifest:
    if MANIFEST not in texts:
        return Manifest(format=manifest.FORMAT)
    try:
        return manifest.parse(texts[MANIFEST])
    except ValueError as error:
        raise RecordingError(f"{path}/{MANIFEST}: {error}") from error


def _verify(about: Manifest, contents: Mapping[str, Content], path: Path) -> None:
    for name, written in about.contents.items():
        found = contents.get(name)
        if found is None and name in (DEVICES, *_TEXTS):
            raise RecordingError(f"{path}: {name} is missing, though {MANIFEST} lists it")
        if found and found.size_bytes != written.size_bytes:
            raise RecordingError(
                f"{path}/{name}: {found.size_bytes} bytes, {written.size_bytes} were written"
            )
        if found and found != written:
            raise RecordingError(f"{path}/{name}: changed since it was recorded (SHA-256 differs)")


class _Counted:
    """A file of a recording being read: counts and hashes what passes, and stops at a limit."""

    def __init__(self, stream: IO[bytes], place: str, limit_bytes: int) -> None:
        self.place = place
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._hash = sha256()

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._stream.read(size if size >= 0 else self._limit_bytes + 1)
        except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
            raise RecordingError(f"{self.place}: {_trouble(error)}") from error
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            raise RecordingError(f"{self.place}: larger than {self._limit_bytes >> 20} MiB, no recording is")
        self._hash.update(data)
        return data

    def content(self) -> Content:
        return Content(self._hash.hexdigest(), self._size_bytes)


def _files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of a recording that are read here, by name."""
    if path.is_dir():
        return _folder_files(path)
    if path.is_file():
        return _archive_files(path)
    raise RecordingError(f"{path}: {'neither a folder nor a .tar.gz' if path.exists() else 'does not exist'}")


def _folder_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for name in (DEVICES, *_TEXTS):
        # A FIFO or a device in place of a file would block for ever.
        if not (path / name).is_file():
            continue
        try:
            with (path / name).open("rb") as stream:
                yield name, stream
        except OSError as error:
            raise RecordingError(f"{path}/{name}: {error.strerror}") from error


def _archive_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise RecordingError(f"{path}: its member {member.name!r} points outside")
                # The archive may hold the files themselves or one folder of them.
                wanted = name.name in (DEVICES, *_TEXTS) and len(name.parts) <= 2  # noqa: PLR2004
                stream = archive.extractfile(member) if wanted and member.isfile() else None
                if stream:
                    yield name.name, stream
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise RecordingError(f"{path}: {_trouble(error)}") from error


def _trouble(error: Exception) -> str:
    if isinstance(error, EOFError | zlib.error) or "unexpected end of data" in str(error):
        return "cut off, the archive ends too early"
    if isinstance(error, tarfile.ReadError | gzip.BadGzipFile):
        return "neither a folder nor a .tar.gz"
    return str(error)
