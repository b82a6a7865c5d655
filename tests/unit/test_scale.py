"""What one event costs is counted, not timed: the same reads and probes on a large host as on a small one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nodedev.capabilities import attributes, kinds, kinds_of
from nodedev.discovery import Discovery
from nodedev.facts.host import Host
from nodedev.facts.recorded import RecordedSource
from nodedev.inventory import Inventory
from nodedev.model import Scene
from tests.bench.counted import Counted, Counter, Work, counts
from tests.bench.generate import San, record

# Two sizes that are quick. NODEDEV_SCALE=1000,20000,50000 asks for others, the first of which is the measure.
SIZES = tuple(map(int, os.environ.get("NODEDEV_SCALE", "500,2500").split(",")))
# All loop devices of the synthetic host lie on one disk, whose message names each of them.
GROWS_BY_ITS_HOLDERS = "a loop device is bound"
# Kernel names, numbers and sizes of the larger host have more digits.
LONGER_NAMES = 1.1
# The share of each kind of device is a little different.
AS_MANY = 1.05


@pytest.fixture(scope="module", name="hosts")
def fixture_hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A recorded host of each size."""
    folders = {blocks: tmp_path_factory.mktemp(f"host{blocks}") for blocks in SIZES}
    for blocks, folder in folders.items():
        record(San(blocks), folder)
    return folders


@pytest.fixture(scope="module", name="counted")
def fixture_counted(hosts: dict[int, Path]) -> dict[int, dict[str, Work]]:
    """The work of each kind of event at each size."""
    return {blocks: counts(folder, San(blocks)) for blocks, folder in hosts.items()}


def test_an_event_costs_the_same_on_a_large_host(counted: dict[int, dict[str, Work]]) -> None:
    """An event at a device of some kind reads, probes and changes what it does on a small host."""
    small, *larger = (
        {label: (work.reads, work.probes, work.changed) for label, work in counted[blocks].items()}
        for blocks in SIZES
    )
    assert [different for different in larger if different != small] == []


def test_an_event_of_nothing_new_tells_watches_nothing(counted: dict[int, dict[str, Work]]) -> None:
    """A device that comes out as it was is probed alone, and no watch hears of it."""
    for of_size in counted.values():
        quiet = {label: work for label, work in of_size.items() if label.startswith("nothing new")}
        assert quiet
        assert {(work.probes, work.changed, work.bytes) for work in quiet.values()} == {(1, 0, 0)}


def test_a_watch_is_told_as_much_of_an_event_on_a_large_host(counted: dict[int, dict[str, Work]]) -> None:
    """The bytes that tell of a change are those of the devices it changed, whatever else there is."""
    small, *larger = (counted[blocks] for blocks in SIZES)
    for label, work in small.items():
        if label.startswith("nothing new"):
            continue
        assert work.bytes > 0
        if label != GROWS_BY_ITS_HOLDERS:
            assert all(each[label].bytes <= work.bytes * LONGER_NAMES for each in larger)


def test_a_host_is_scanned_by_work_in_proportion(hosts: dict[int, Path]) -> None:
    """Each device of a scanned host is probed once, and none is read again."""
    for folder in hosts.values():
        source = Counted.open(folder, attributes())
        assert isinstance(source, Counted)
        devices = len(tuple(Host.scan(source)))
        source.reads = 0
        assert Counter(source).probes == devices
        assert source.reads < devices


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, Python's and C's."""
    count = 0

    def called(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_a_device_takes_as_many_calls_on_a_large_host(hosts: dict[int, Path]) -> None:
    """From facts to a published inventory: nothing is searched that is longer where there is more."""
    each: list[float] = []
    for folder in hosts.values():
        host = Host.scan(RecordedSource.open(folder, attributes()))
        found = Discovery().survey(host).devices
        each.append(calls(lambda host=host: Discovery().survey(host)) / len(found))  # type: ignore[misc]
        each.append(calls(lambda found=found: Inventory().replace(found)) / len(found))  # type: ignore[misc]
    surveyed, published = each[::2], each[1::2]
    assert max(surveyed) < surveyed[0] * AS_MANY
    assert max(published) < published[0] * AS_MANY


def test_a_kind_says_nothing_of_subsystems_that_it_does_not_read(hosts: dict[int, Path]) -> None:
    """Only the kinds that declare attributes of a device's subsystem need to be asked about it."""
    host = Host.scan(RecordedSource.open(hosts[SIZES[0]], attributes()))
    scene = Scene(host, lambda facts: facts.kernel_name)
    for facts in host:
        asked = {kind.type for kind in kinds_of(facts.subsystem)}
        assert not [kind.type for kind in kinds() if kind.type not in asked and kind.probe(facts, scene)]
