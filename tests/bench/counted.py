"""What an event costs, counted and not timed: reads, probes and bytes, of like events at any size.

`python -m tests.bench.counted BLOCKS...` prints them as JSON. What stands on a device counts: a map below
an LVM mirror costs more than a free one. So each event has its place by what it is, not by a kernel name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from msgspec.structs import replace

from nodedev.capabilities import attributes
from nodedev.discovery import Discovery
from nodedev.facts.dm_text import DmMap
from nodedev.facts.host import DeviceFacts, FileIdentity, Host
from nodedev.facts.mounts import Mount, Swap
from nodedev.facts.multipathd import MultipathdMap
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Device
from nodedev.proto import device_message
from nodedev.v1.device_service_pb2 import DeviceChange
from tests.bench.generate import record
from tests.bench.san.layout import San

_BOUND_LATER = "/devices/virtual/block/loop2"


@dataclass(frozen=True, slots=True)
class Work:
    """What one event took: facts read, devices probed, devices that came out different, bytes to a watch."""

    reads: int
    probes: int
    changed: int
    bytes: int


class Counted(RecordedSource):
    """A recorded host that counts what is read of it; reading all of something counts all of it.

    `now` are devices, by path, that are different from what was recorded; None one that is gone.
    """

    reads = 0
    now: Mapping[str, DeviceFacts | None] = {}

    def scan(self) -> Iterator[DeviceFacts]:
        """Every device."""
        return filter(None, (self.now.get(facts.path, facts) for facts in super().scan()))

    def read(self, path: str) -> DeviceFacts | None:
        """One device."""
        self.reads += 1
        return self.now[path] if path in self.now else super().read(path)

    def locate(self, subsystem: str, sysname: str) -> str | None:
        """One link."""
        self.reads += 1
        return super().locate(subsystem, sysname)

    def locate_number(self, device_number: str) -> str | None:
        """One link."""
        self.reads += 1
        return super().locate_number(device_number)

    def map(self, device_number: str) -> DmMap | None:
        """One map."""
        self.reads += 1
        return super().map(device_number)

    def maps(self) -> Iterable[DmMap]:
        """All maps."""
        found = tuple(super().maps())
        self.reads += len(found)
        return found

    def multipathd_map(self, wwid: str) -> MultipathdMap | None:
        """One map."""
        self.reads += 1
        return super().multipathd_map(wwid)

    def multipathd(self) -> Iterable[MultipathdMap]:
        """All maps."""
        found = tuple(super().multipathd())
        self.reads += len(found)
        return found

    def mounts(self) -> Iterable[Mount]:
        """All mounts."""
        found = tuple(super().mounts())
        self.reads += len(found)
        return found

    def swaps(self) -> Iterable[Swap]:
        """All swaps."""
        found = tuple(super().swaps())
        self.reads += len(found)
        return found

    def identify(self, path: str) -> FileIdentity | None:
        """One file; every loop device's lies on one disk, the map that is mounted as /."""
        self.reads += 1
        return FileIdentity("253:0", crc32(path.encode()), "file", 1 << 20)


class Counter:
    """A surveyed host, at which one event after the other happens."""

    def __init__(self, source: Counted) -> None:
        self._source = source
        self._discovery = Discovery()
        self._known: dict[str, Device] = {
            device.name: device for device in self._discovery.survey(Host.scan(source)).devices
        }

    @property
    def probes(self) -> int:
        """All that were made so far."""
        return self._discovery.probes

    def event(self, path: str) -> Work:
        """The work of an event at a device."""
        self._source.reads, probes = 0, self.probes
        found = self._discovery.revisit(Host(self._source), [path])
        changed = [device for device in found.devices if self._known.get(device.name) != device]
        told = [
            DeviceChange(type=DeviceChange.TYPE_CHANGED, device=device_message(device)) for device in changed
        ]
        gone = [self._known.pop(name) for name in found.removed]
        told += [
            DeviceChange(type=DeviceChange.TYPE_REMOVED, device=device_message(device)) for device in gone
        ]
        self._known |= {device.name: device for device in found.devices}
        sent = sum(change.ByteSize() for change in told)
        return Work(self._source.reads, self.probes - probes, len(told), sent)

    def change(self, path: str, make: Callable[[DeviceFacts], DeviceFacts], at: str = "") -> Work:
        """The work when a device is another than before, and an event comes there or `at` another one."""
        facts = RecordedSource.read(self._source, path)
        assert facts
        self._source.now = {**self._source.now, path: make(facts)}
        return self.event(at or path)

    def bound(self, path: str) -> Work:
        """The work when a recorded device comes that was not there yet."""
        self._source.now = {other: facts for other, facts in self._source.now.items() if other != path}
        return self.event(path)


def opened(folder: Path) -> Counter:
    """A recorded host before its third loop device was bound."""
    source = Counted.open(folder, attributes())
    assert isinstance(source, Counted)
    source.now = {_BOUND_LATER: None}
    return Counter(source)


def counts(folder: Path, san: San) -> dict[str, Work]:
    """The work of each kind of event on a recorded synthetic host."""
    counter = opened(folder)
    plain = {label: counter.event(path) for label, path in places(san).items()}
    lun = _free(san, fibre_channel=True)
    disk = next(san.lun_paths(lun))
    array = "/devices/virtual/block/md0"
    return {
        **{f"nothing new, {label}": work for label, work in plain.items()},
        "a map's path goes offline": counter.change(
            disk.scsi, lambda facts: _with(facts, "state", "transport-offline"), san.map_of(lun).path
        ),
        "an array degrades": counter.change(array, lambda facts: _with(facts, "md/degraded", "1")),
        "a loop device is bound": counter.bound(_BOUND_LATER),
    }


def _with(facts: DeviceFacts, attribute: str, value: str) -> DeviceFacts:
    return replace(facts, attributes={**facts.attributes, attribute: value})


def _free(san: San, *, fibre_channel: bool) -> int:
    """A LUN on which nothing stands, with all its paths up; an iSCSI one where not asked for the other."""
    return next(
        lun
        for lun in range(san.luns - 1, 2 * san.mirrors, -1)
        if bool(lun % 3) == fibre_channel and not any(map(san.failed, san.lun_paths(lun)))
    )


def _below_mirror(san: San) -> int:
    """A LUN below an LVM mirror, with all its paths up; not LUN 0, which is mounted."""
    return next(
        lun for lun in range(1, 2 * san.mirrors) if lun % 3 and not any(map(san.failed, san.lun_paths(lun)))
    )


def places(san: San) -> dict[str, str]:
    """The sysfs path of one device of each kind."""
    fc, iscsi, below = _free(san, fibre_channel=True), _free(san, fibre_channel=False), _below_mirror(san)
    leg, *_, volume = san.mirror(0)
    return {
        "a Fibre Channel path": next(san.lun_paths(fc)).path,
        "an iSCSI path": next(san.lun_paths(iscsi)).path,
        "a path below a mirror": next(san.lun_paths(below)).path,
        "a path of the map below /": next(san.lun_paths(0)).path,
        "a map over Fibre Channel": san.map_of(fc).path,
        "a map over iSCSI": san.map_of(iscsi).path,
        "a map below a mirror": san.map_of(below).path,
        "the map below /": san.map_of(0).path,
        "an LVM mirror": volume.path,
        "its leg": leg.path,
        "an array": "/devices/virtual/block/md0",
        "an array's disk": next(san.array_disks(0)).path,
        "a loop device": "/devices/virtual/block/loop0",
    }


def measure(blocks: int) -> dict[str, dict[str, int]]:
    """The work of each kind of event on a host of so many block devices."""
    san = San(blocks)
    with TemporaryDirectory(prefix="nodedev-bench-") as folder:
        record(san, Path(folder))
        return told(Path(folder), san)


def told(recording: Path, san: San) -> dict[str, dict[str, int]]:
    """The counts as JSON has them."""
    return {label: asdict(work) for label, work in counts(recording, san).items()}


def main() -> None:
    """Prints the counts of one recorded host, or of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--recording", type=Path, help="of the one size, if it is there already")
    wanted = parser.parse_args()
    if wanted.recording:
        (blocks,) = wanted.sizes
        json.dump(told(wanted.recording, San(blocks)), sys.stdout)
    else:
        json.dump({blocks: measure(blocks) for blocks in wanted.sizes}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
