"""What one event costs is counted, not timed: the same reads and probes on a large host as on a small one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from nodedev.capabilities import attributes, kinds, kinds_of
from nodedev.discovery import Discovery
from nodedev.facts.dm_text import DmMap
from nodedev.facts.host import DeviceFacts, FileIdentity, Host
from nodedev.facts.mounts import Mount, Swap
from nodedev.facts.multipathd import MultipathdMap
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Scene
from tests.bench.generate import San, record

SMALL, LARGE = 500, 2500


class Counted(RecordedSource):
    """A recorded host that counts what is read of it; reading all of something counts all of it."""

    reads = 0

    def read(self, path: str) -> DeviceFacts | None:
        """One device."""
        self.reads += 1
        return super().read(path)

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
        return FileIdentity("253:0", 1 + hash(path) % 1000, "file", 1 << 20)


@pytest.fixture(scope="module", name="hosts")
def fixture_hosts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small recorded host and a large one."""
    folders = []
    for blocks in (SMALL, LARGE):
        folders.append(tmp_path_factory.mktemp(f"host{blocks}"))
        record(San(blocks), folders[-1])
    return folders[0], folders[1]


def work(folder: Path, name: str) -> tuple[int, int]:
    """The reads and probes of an event at a block device, on a host that is known already."""
    source = Counted.open(folder, attributes())
    assert isinstance(source, Counted)
    discovery = Discovery()
    discovery.survey(Host.scan(source))
    path = source.locate("block", name)
    assert path
    source.reads, probes = 0, discovery.probes
    discovery.revisit(Host(source), [path])
    return source.reads, discovery.probes - probes


@pytest.mark.parametrize("name", ["sda", "sdaw", "dm-0", "dm-12", "md0", "loop0", "loop3"])
def test_an_event_costs_the_same_on_a_large_host(hosts: tuple[Path, Path], name: str) -> None:
    """An event at a path, a map, an array or a loop device reads and probes what it did on a small host."""
    small, large = hosts
    assert work(large, name) == work(small, name)


def new_loop_work(folder: Path) -> tuple[int, int]:
    """The reads and probes when a loop device is bound whose file lies where all the others' do."""
    source = Counted.open(folder, attributes())
    assert isinstance(source, Counted)
    path = source.locate("block", "loop2")
    assert path
    bound = source.read(path)
    assert bound
    source._forget(path)  # noqa: SLF001  the host before the file was bound
    discovery = Discovery()
    discovery.survey(Host.scan(source))
    source._keep(bound)  # noqa: SLF001
    source.reads, probes = 0, discovery.probes
    found = discovery.revisit(Host(source), [path])
    assert any(device.name == "loop_loop2" for device in found.devices)
    return source.reads, discovery.probes - probes


def test_a_new_loop_device_does_not_touch_the_others(hosts: tuple[Path, Path]) -> None:
    """A loop device over a file costs the same however many files on that disk are bound already."""
    small, large = hosts
    assert new_loop_work(large) == new_loop_work(small)


def test_a_host_is_scanned_by_work_in_proportion(hosts: tuple[Path, Path]) -> None:
    """Each device of a scanned host is probed once, and nothing is read again."""
    for folder in hosts:
        source = Counted.open(folder, attributes())
        assert isinstance(source, Counted)
        discovery = Discovery()
        host = Host.scan(source)
        found = discovery.survey(host)
        assert discovery.probes == len(tuple(host))
        assert len(found.devices) <= discovery.probes


def test_a_kind_says_nothing_of_subsystems_that_it_does_not_read(hosts: tuple[Path, Path]) -> None:
    """Only the kinds that declare attributes of a device's subsystem need to be asked about it."""
    host = Host.scan(RecordedSource.open(hosts[0], attributes()))
    scene = Scene(host, lambda facts: facts.kernel_name)
    for facts in host:
        asked = {kind.type for kind in kinds_of(facts.subsystem)}
        assert not [kind.type for kind in kinds() if kind.type not in asked and kind.probe(facts, scene)]
