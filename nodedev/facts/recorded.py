"""A recorded host as a source of facts: a folder or .tar.gz, as `nodedev record` writes it.

Only `host.umockdev` must be there. What another file would have told is a FactError from the method
that needs it, so that it becomes a note as on a live host.
"""

from __future__ import annotations

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath
from posixpath import dirname
from typing import IO, TypeVar

from nodedev.errors import FactError, RecordingError
from nodedev.facts import dm, manifest, mounts, multipathd, umockdev
from nodedev.facts.dm import DmMap
from nodedev.facts.host import DeviceFacts, FileIdentity, Note
from nodedev.facts.manifest import Content, Manifest
from nodedev.facts.mounts import Mount, Swap
from nodedev.facts.multipathd import MultipathdMap
from nodedev.facts.sysfs import attribute_text, by_number, kept_properties, name_pattern, text_of

DEVICES = "host.umockdev"
MANIFEST = "recording.json"
DM_TABLE, DM_STATUS, DM_INFO = "dmsetup-table.txt", "dmsetup-status.txt", "dmsetup-info.txt"
MULTIPATHD = "multipathd-maps.json"
MOUNTS = "mountinfo"
SWAPS = "swaps"

_TEXTS = (MANIFEST, DM_TABLE, DM_STATUS, DM_INFO, MULTIPATHD, MOUNTS, SWAPS)
# 50,000 LUNs with every attribute are about 1 GB; multipathd's own limit for a reply is 32 MiB.
_DEVICES_LIMIT_BYTES = 4 << 30
_TEXT_LIMIT_BYTES = 256 << 20
_ABSENT = "not in this recording"
_EVERYTHING = r"[^=\n]+"
_MISSING_END = Note("recording", "the description of this device may be cut off: no empty line closes it")

T = TypeVar("T")


class RecordedSource:
    """A recorded host; `manifest` is what it says of itself.

    `attributes` names by subsystem the sysfs files to keep, as the live source reads them, and thereby
    the subsystems of a scan; without it everything is kept.
    """

    live = False

    def __init__(
        self,
        place: str,
        devices: Mapping[str, DeviceFacts],
        texts: Mapping[str, bytes],
        manifest: Manifest,
        subsystems: frozenset[str] | None = None,
    ) -> None:
        self.place = place
        self.manifest = manifest
        self._devices = devices
        self._texts = texts
        self._subsystems = subsystems
        self._paths = {(facts.subsystem, facts.kernel_name): path for path, facts in devices.items()}
        self._numbers = {
            facts.device_number: path
            for path, facts in devices.items()
            if facts.subsystem == "block" and facts.device_number
        }

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
        return cls(str(path), devices, texts, about, frozenset(attributes) if attributes is not None else None)

    def scan(self) -> Iterator[DeviceFacts]:
        """Every recorded device of the subsystems asked for."""
        wanted = self._subsystems
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
        """The recorded device-mapper devices; none at all need no files."""
        if DM_TABLE not in self._texts and not any(facts.subsystem == "block" for facts in self._dm):
            return ()
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
        return self._parsed("mounts", MOUNTS, mounts.parse_mountinfo)

    def swaps(self) -> Iterable[Swap]:
        """The active swap areas."""
        return self._parsed("swaps", SWAPS, mounts.parse_swaps)

    def identify(self, path: str) -> FileIdentity | None:
        """The file a path named on the recorded host, if the recorder looked."""
        if path not in self.manifest.files:
            raise FactError("stat", _ABSENT)
        return self.manifest.files[path]
