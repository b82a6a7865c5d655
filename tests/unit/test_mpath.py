"""Multipath maps and NVMe heads, from small recorded hosts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodedev.capabilities import _nvme, attributes, mpath
from nodedev.capabilities._paths import Group, Leg, Redundancy, health_of, redundancy_of, usable
from nodedev.capabilities._paths import Path as MapPath
from nodedev.capabilities._transport import Ends
from nodedev.capabilities.mpath import Mpath
from nodedev.facts.host import DeviceFacts, Host, Note
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Scene

DATA = Path(__file__).parent.parent / "data"
DM_FILES = ("dmsetup-table.txt", "dmsetup-status.txt", "dmsetup-info.txt")
WWID = "36001405e9270859a664d46ae8d1851e0"


def a_host(place: Path) -> Host:
    """A scanned pass over a recording."""
    return Host.scan(RecordedSource.open(place, attributes()))


def without(recording: str, tmp_path: Path, *names: str) -> Host:
    """The recorded host as it looks to whoever cannot read some sources."""
    place = shutil.copytree(DATA / recording, tmp_path / recording)
    for name in names:
        (place / name).unlink()
    return a_host(place)


def probed(host: Host, name: str) -> tuple[Mpath, list[Note]]:
    """The device's capability and the notes of its probe, others named after their kernel name."""
    facts = host.block(name)
    assert facts
    scene = Scene(host, lambda other: f"block_{other.kernel_name}")
    found = mpath.probe(facts, scene)
    assert found
    return found, scene.notes


def test_alua_map() -> None:
    """A map holds what kernel, multipathd and sysfs say; a ghost is a usable path."""
    found, notes = probed(a_host(DATA / "mpath-iscsi"), "dm-0")

    assert notes == []
    assert (found.implementation, found.wwid, found.alias, found.state) == ("dm", WWID, "mpatha", "active")
    assert (found.health, found.redundancy) == ("optimal", Redundancy(2, adapters=2, target_ports=2))
    assert (found.queueing, found.failback, found.hardware_handler) == ("12 chk", "immediate", "alua")
    assert found.features == ("queue_if_no_path", "queue_mode mq")
    first, second = found.groups
    assert (first.number, first.state, first.selector, first.priority) == (1, "active", "service-time 0", 50)
    assert (second.number, second.state, second.selector, second.priority) == (
        2,
        "enabled",
        "service-time 0",
        1,
    )
    (path,) = second.paths
    assert (path.device, path.block) == ("block_sdb", "/dev/sdb")
    assert (path.state, path.checker, path.device_state, path.failures) == ("active", "ghost", "running", 3)
    assert (path.priority, path.ana_state, path.marginal) == (1, "standby", "normal")
    assert path.transport
    assert path.transport.portal == "[2001:db8::5]:3260"
    assert path.address
    assert path.address.unit == 1


def test_handles() -> None:
    """A map is found by its WWID, its dm uuid and its alias."""
    found, _ = probed(a_host(DATA / "mpath-iscsi"), "dm-0")

    assert found.handles() == (WWID, f"mpath-{WWID}", "mpatha")


def test_failed_path() -> None:
    """A path that the kernel has failed degrades the map and is no redundancy."""
    found, _ = probed(a_host(DATA / "mpath-fc"), "dm-0")

    good, bad = found.groups[0].paths
    assert (good.state, bad.state, bad.failures) == ("active", "failed", 4)
    assert (bad.checker, bad.device_state) == ("faulty", "transport-offline")
    assert (found.health, found.redundancy) == ("degraded", Redundancy(1, adapters=1, target_ports=1))
    assert found.queueing == "off"


def test_kernel_and_checker_disagree() -> None:
    """A path the kernel calls active while the checker does not shows both words and is not usable."""
    found, _ = probed(a_host(DATA / "mpath-fc"), "dm-1")

    assert [(path.state, path.checker) for path in found.groups[0].paths] == [
        ("active", "faulty"),
        ("active", "i/o timeout"),
    ]
    assert (found.health, found.redundancy) == ("failed", Redundancy(0, adapters=0, target_ports=0))


def test_queueing_left_to_the_table() -> None:
    """Where multipathd has no setting of its own ("-"), the table's feature tells."""
    assert probed(a_host(DATA / "mpath-fc"), "dm-1")[0].queueing == "off"


def test_map_without_table() -> None:
    """A map that lost its table is listed, failed, with a note."""
    found, notes = probed(a_host(DATA / "mpath-fc"), "dm-2")

    assert (found.state, found.health) == ("active", "failed")
    assert [(group.number, [path.block for path in group.paths]) for group in found.groups] == [
        (None, ["/dev/sdg"])
    ]
    assert found.queueing is None
    assert notes == [Note("dm", "the map has no multipath table")]


def test_suspended_map_with_a_lost_disk() -> None:
    """A suspended map says so; a path whose disk has gone stays, unusable, without device."""
    found, notes = probed(a_host(DATA / "mpath-fc"), "dm-3")

    assert (found.state, found.health) == ("suspended", "degraded")
    assert found.groups[1].paths == (MapPath(state="active", failures=0),)
    assert notes == [Note("sysfs", "path 8:80 of the kernel's table is no block device any more")]


def test_equal_serials_make_no_map() -> None:
    """A volume on a disk that has a map's serial is no map, whatever it is called."""
    host = a_host(DATA / "mpath-fc")
    facts = host.block("dm-4")

    assert facts
    assert mpath.probe(facts, Scene(host, lambda other: other.kernel_name)) is None
    assert mpath.naming(facts, host) is None
    assert list(mpath.members(facts, host)) == []


def test_members_and_name() -> None:
    """A map's members are the kernel's slaves, and its name is the WWID's."""
    host = a_host(DATA / "mpath-iscsi")
    facts = host.block("dm-0")

    assert facts
    assert [(kind, path.kernel_name) for kind, path in mpath.members(facts, host)] == [
        ("path", "sda"),
        ("path", "sdb"),
    ]
    assert mpath.naming(facts, host) == f"mpath_{WWID}"


def test_without_multipathd(tmp_path: Path) -> None:
    """With multipathd away the kernel's words stand alone, and are enough to judge by."""
    found, _ = probed(without("mpath-iscsi", tmp_path, "multipathd-maps.json"), "dm-0")

    assert [group.number for group in found.groups] == [1, 2]
    assert [(path.state, path.checker, path.priority) for group in found.groups for path in group.paths] == [
        ("active", None, None),
        ("active", None, None),
    ]
    assert (found.health, found.queueing, found.failback) == ("optimal", "on", None)


def test_ordinary_user_with_multipathd(tmp_path: Path) -> None:
    """Without DM's ioctls multipathd's copy stands for the table, but nothing counts failures."""
    host = without("mpath-iscsi", tmp_path, *DM_FILES)
    found, _ = probed(host, "dm-0")

    assert "dm" in host.notes
    assert [(group.number, group.state, group.selector) for group in found.groups] == [
        (1, "active", "service-time 0"),
        (2, "enabled", "service-time 0"),
    ]
    assert found.groups[1].paths[0].failures is None
    assert (found.health, found.hardware_handler, found.features) == (
        "optimal",
        "alua",
        ("queue_if_no_path",),
    )


def test_ordinary_user_alone(tmp_path: Path) -> None:
    """With neither, sysfs' paths stand in one group without number, and nobody's health is guessed."""
    host = without("mpath-iscsi", tmp_path, *DM_FILES, "multipathd-maps.json")
    found, _ = probed(host, "dm-0")

    assert host.notes.keys() >= {"dm", "multipathd"}
    (group,) = found.groups
    assert replace(group, paths=()) == Group()
    assert [(path.block, path.state, path.device_state) for path in group.paths] == [
        ("/dev/sda", None, "running"),
        ("/dev/sdb", None, "running"),
    ]
    assert (found.health, found.redundancy, found.queueing) == (None, None, None)
    assert (found.wwid, found.alias, found.state) == (WWID, "mpatha", "active")


def test_status_line_that_is_none(tmp_path: Path) -> None:
    """A status line that does not add up is a note, and the map is told by the others."""
    place = shutil.copytree(DATA / "mpath-iscsi", tmp_path / "odd")
    status = place / "dmsetup-status.txt"
    status.write_text(status.read_text().replace("2 1 A 0 1 2", "9 1 A 0 1 2"))

    found, notes = probed(a_host(place), "dm-0")

    assert [note.source for note in notes] == ["dm"]
    assert [group.number for group in found.groups] == [1, 2]
    assert found.groups[0].paths[0].state == "active"


def test_paths_multipathd_alone_has_are_left_out(tmp_path: Path) -> None:
    """A path that multipathd lists and the kernel does not have in the map is no path of it."""
    place = shutil.copytree(DATA / "mpath-iscsi", tmp_path / "ahead")
    for name in DM_FILES:
        (place / name).unlink()
    told = place / "multipathd-maps.json"
    told.write_text(told.read_text().replace('"8:16"', '"8:96"'))

    found, _ = probed(a_host(place), "dm-0")

    assert [(group.number, [path.block for path in group.paths]) for group in found.groups] == [
        (1, ["/dev/sda"]),
        (None, ["/dev/sdb"]),
    ]


def test_table_of_another_moment(tmp_path: Path) -> None:
    """After a reload between two readings, what does not belong to a group's paths is left out."""
    place = shutil.copytree(DATA / "mpath-iscsi", tmp_path / "reloaded")
    table = place / "dmsetup-table.txt"
    table.write_text(table.read_text().replace("8:16 1 1", "8:32 1 1"))

    found, _ = probed(a_host(place), "dm-0")

    assert [group.selector for group in found.groups] == ["service-time 0", None]


def test_sas_map() -> None:
    """Two ports of one expander behind one HBA are two target ports and one adapter."""
    found, _ = probed(a_host(DATA / "mpath-sas"), "dm-0")

    assert found.redundancy == Redundancy(2, adapters=1, target_ports=2)


def test_nvme_head_over_pcie() -> None:
    """A head without ANA has its hidden paths in one group, their state the controller's."""
    found, _ = probed(a_host(DATA / "mpath-nvme"), "nvme0n1")

    (group,) = found.groups
    assert (found.implementation, found.health, found.io_policy) == ("nvme", "optimal", "numa")
    assert (found.state, found.alias, found.queueing) == (None, None, None)
    assert (group.number, group.state) == (1, None)
    assert [(path.device, path.block, path.state) for path in group.paths] == [
        ("block_nvme0c0n1", None, "live"),
        ("block_nvme0c1n1", None, "live"),
    ]
    assert found.redundancy == Redundancy(2, adapters=2, target_ports=2)
    assert found.handles() == ("uuid.00000000-0000-0000-0000-000000000000",)


def test_nvme_head_with_ana() -> None:
    """Each ANA state is a group, the best first; a controller that is not live has no usable path."""
    found, _ = probed(a_host(DATA / "mpath-nvme"), "nvme2n1")

    assert [(group.number, group.state, [path.device for path in group.paths]) for group in found.groups] == [
        (1, "optimized", ["block_nvme2c3n1", "block_nvme2c10n1"]),
        (2, "non-optimized", ["block_nvme2c2n1"]),
    ]
    assert [path.state for path in found.groups[0].paths] == ["live", "connecting"]
    assert (found.health, found.io_policy) == ("degraded", "round-robin")
    assert found.redundancy == Redundancy(2, adapters=2, target_ports=2)


def test_nvme_paths_named_by_cntlid() -> None:
    """Kernels before 4.20 name a path by its controller's id; all inaccessible, the head has failed."""
    found, _ = probed(a_host(DATA / "mpath-nvme"), "nvme4n1")

    assert [path.device for path in found.groups[0].paths] == ["block_nvme4c6n1", "block_nvme4c8n1"]
    assert (found.groups[0].state, found.health) == ("inaccessible", "failed")


def test_nvme_head_without_controllers() -> None:
    """A head that outlives its last controller has failed and no groups."""
    found, _ = probed(a_host(DATA / "mpath-nvme"), "nvme7n1")

    assert (found.health, found.groups) == ("failed", ())


@pytest.mark.parametrize("name", ["nvme6n1", "nvme0n1p1", "nvme0c0n1"])
def test_no_heads(name: str) -> None:
    """A namespace without native multipath, a head's partition and a hidden path are no heads."""
    host = a_host(DATA / "mpath-nvme")
    facts = host.block(name)

    assert facts
    assert mpath.probe(facts, Scene(host, lambda other: other.kernel_name)) is None


def test_head_of_a_hidden_path() -> None:
    """A hidden path leads to its head, any other disk to none."""
    host = a_host(DATA / "mpath-nvme")
    hidden, plain = host.block("nvme4c8n1"), host.block("nvme6n1")

    assert hidden
    assert plain
    head = _nvme.head_of(hidden, host)
    assert head
    assert head.kernel_name == "nvme4n1"
    assert _nvme.head_of(plain, host) is None
    assert _nvme.head_of(replace(hidden, path=f"{plain.path.removesuffix('n1')}c0n1"), host) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (MapPath(state="active"), True),
        (MapPath(state="active", checker="ready", device_state="running"), True),
        (MapPath(state="active", checker="ghost"), True),
        (MapPath(state="active", checker="i/o pending"), True),
        (MapPath(state="active", checker="undef"), True),
        (MapPath(state="undef", checker="ready"), True),
        (MapPath(state="live", ana_state="non-optimized"), True),
        (MapPath(state="active", ana_state="standby"), True),
        (MapPath(state="failed", checker="ready"), False),
        (MapPath(state="active", checker="shaky"), False),
        (MapPath(state="active", checker="disconnected"), False),
        (MapPath(state="active", device_state="offline"), False),
        (MapPath(state="live", ana_state="inaccessible"), False),
        (MapPath(state="resetting", ana_state="optimized"), False),
        (MapPath(device_state="offline"), False),
        (MapPath(device_state="running"), None),
        (MapPath(), None),
    ],
)
def test_usable(path: MapPath, expected: bool | None) -> None:
    """One word against a path is enough, and one of the kernel or the checker for it is needed."""
    assert usable(path) is expected


def test_redundancy_counts_what_is_known() -> None:
    """An adapter that cannot be told makes their number unknown; a path not usable adds nothing."""
    here, there = Ends("0000:05:00.0", "0x1"), Ends(None, "0x2")
    path = MapPath(state="active")

    assert redundancy_of([Leg(path, True, here), Leg(path, True, there)]) == Redundancy(2, None, 2)
    assert redundancy_of([Leg(path, True, here), Leg(path, False, there)]) == Redundancy(1, 1, 1)
    assert redundancy_of([Leg(path, True, here), Leg(path, None, there)]) is None


known = st.lists(st.sampled_from([True, False, None]))


@given(known)
def test_health_needs_no_order(paths: list[bool | None]) -> None:
    """The order of the paths changes nothing of the health."""
    shuffled = sorted(paths, key=str)

    assert health_of(paths) == health_of(shuffled)


@given(known)
def test_health_is_never_better_than_known(paths: list[bool | None]) -> None:
    """Optimal needs every path usable, failed none, and an unknown path is never taken for either."""
    health = health_of(paths)

    assert (health == "optimal") == (bool(paths) and all(path is True for path in paths))
    assert (health == "failed") == all(path is False for path in paths)


def test_facts_of_no_block_device() -> None:
    """A device of another subsystem is no multipath device."""
    facts = DeviceFacts(
        path="/devices/virtual/nvme-subsystem/nvme-subsys0",
        subsystem="nvme-subsystem",
        properties={},
        attributes={},
        symlinks={},
    )

    assert not mpath.is_map(facts)
    assert not _nvme.is_head(facts)
