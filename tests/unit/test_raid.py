"""Arrays of recorded hosts: md and its containers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodedev.capabilities import raid
from nodedev.capabilities.raid import Devices, Member, Raid, Sync, Volume
from nodedev.model import Scene
from tests.unit.recorded_raid import DATA, Pass


@pytest.fixture(scope="module")
def md() -> Pass:
    """Arrays of most levels and conditions."""
    return Pass(DATA / "raid-md")


@pytest.fixture(scope="module")
def containers() -> Pass:
    """A DDF and an IMSM container with their volumes."""
    return Pass(DATA / "raid-containers")


def test_mirror(md: Pass) -> None:
    """A raid1 shows its identity, its counts and its members, each with the kernel's words."""
    assert md.raid("md0") == Raid(
        implementation="md",
        uuid="000000a0:11112222:33334444:55556666",
        name="lab:mirror",
        level="raid1",
        metadata="1.2",
        state="clean",
        health="optimal",
        devices=Devices(total=2, active=2, failed=0, spare=0, missing=0),
        consistency_policy="bitmap",
        sync=Sync(action="idle", mismatches=0),
        members=(
            Member(0, "active", "in_sync", 0, "device-sda1", "/dev/sda1"),
            Member(1, "active", "in_sync,write_mostly", 3, "device-sdb1", "/dev/sdb1"),
        ),
    )


def test_raid5_with_a_spare(md: Pass) -> None:
    """A spare is counted apart and has no slot."""
    array = md.raid("md1")

    assert (array.health, array.layout, array.chunk_bytes) == ("optimal", "left-symmetric", 512 * 1024)
    assert array.devices == Devices(total=3, active=3, failed=0, spare=1, missing=0)
    assert array.members[3] == Member(None, "spare", "spare", 0, "device-sdf", "/dev/sdf")
    assert array.sync == Sync(action="idle", mismatches=128)


def test_faulty_member(md: Pass) -> None:
    """A failed disk has lost its slot, and stays a member until it is removed."""
    array = md.raid("md2")

    assert array.health == "degraded"
    assert array.devices == Devices(total=2, active=1, failed=1, spare=0, missing=1)
    assert array.members[1] == Member(None, "faulty", "faulty,blocked", 7, "device-sdh", "/dev/sdh")


def test_recovery(md: Pass) -> None:
    """While a spare is built, the array recovers, the spare has its slot, and the sync its progress."""
    array = md.raid("md3")

    assert array.health == "recovering"
    assert array.sync == Sync("recover", 1000 * 512, 2000 * 512, 512 * 1024, 0)
    assert array.members[2].role == "spare"
    assert array.members[2].slot == 2


def test_reshape(md: Pass) -> None:
    """Of two values, the new one counts; a reshape leaves the array optimal."""
    array = md.raid("md4")

    assert (array.health, array.layout, array.chunk_bytes) == ("optimal", "left-symmetric", 128 * 1024)
    assert array.devices == Devices(total=4, active=4, failed=0, spare=0, missing=0)
    assert array.sync == Sync("reshape", 40 * 512, 160 * 512, 100 * 1024, 0)


def test_raid0(md: Pass) -> None:
    """A level without redundancy has no sync at all."""
    array = md.raid("md5")

    assert (array.health, array.layout, array.sync) == ("optimal", "original", None)


def test_raid10_without_a_disk(md: Pass) -> None:
    """A slot that nothing fills is missing, and what holds the other copies is enough."""
    array = md.raid("md6")

    assert (array.health, array.layout) == ("degraded", "near=2")
    assert array.devices == Devices(total=4, active=3, failed=0, spare=0, missing=1)


def test_inactive_array(md: Pass) -> None:
    """An array that has not started has given its members no part."""
    array, notes = md.probed("md7")

    assert array is not None
    assert (array.state, array.health, array.devices) == ("inactive", "inactive", None)
    assert array.members == (Member(None, None, "spare", 0, "device-sdv", "/dev/sdv"),)
    assert notes == ["the array has no UUID that could be read, so it goes by its kernel name"]


def test_stopped_node(md: Pass) -> None:
    """The node that a stopped array leaves behind is inactive."""
    assert (md.raid("md9").state, md.raid("md9").health) == ("clear", "inactive")


def test_names(md: Pass) -> None:
    """An array is named by its UUID; without one it keeps the kernel's name, and a note says so."""
    assert raid.naming(md.facts("md0"), md.host) == "raid_000000a0:11112222:33334444:55556666"
    assert raid.naming(md.facts("md8"), md.host) is None
    assert raid.naming(md.facts("sda"), md.host) is None
    array, notes = md.probed("md8")
    assert array is not None
    assert (array.metadata, array.uuid, array.health) == ("none", None, "optimal")
    assert len(notes) == 1


def test_handles(md: Pass) -> None:
    """An array is found by its UUID in mdadm's and in the kernel's spelling, and by its name."""
    assert md.raid("md0").handles() == (
        "000000a0:11112222:33334444:55556666",
        "000000a0-1111-2222-3333-444455556666",
        "lab:mirror",
    )


def test_recording_one_level_deep(md: Pass) -> None:
    """Without the members' folders, slots come from md/rdN, and what else is not known is a note."""
    array, notes = md.probed("md10")

    assert array is not None
    assert [(member.slot, member.block) for member in array.members] == [(0, "/dev/sdz"), (1, "/dev/sdy")]
    assert {(member.role, member.state, member.errors) for member in array.members} == {(None, None, None)}
    assert array.devices == Devices(total=2, active=2)
    assert array.health == "optimal"
    assert notes == ["md/dev-* could not be read: the states of the members are not known"]


def test_members_are_the_disks(md: Pass) -> None:
    """An array is related to its disks, spares included, and a disk to nothing."""
    assert md.members("md1") == [("member", name) for name in ("sdc", "sdd", "sde", "sdf")]
    assert md.members("sda") == []


@pytest.mark.parametrize(
    ("container", "metadata", "volumes"),
    [
        ("md127", "ddf", (Volume("device-md126", "/dev/md126"),)),
        ("md125", "imsm", (Volume("device-md123", "/dev/md123"), Volume("device-md124", "/dev/md124"))),
    ],
)
def test_container(containers: Pass, container: str, metadata: str, volumes: tuple[Volume, ...]) -> None:
    """A container is inactive and well; it has volumes, and disks that have no part in it."""
    array = containers.raid(container)

    assert (array.level, array.metadata, array.state, array.health) == (
        "container",
        metadata,
        "inactive",
        "optimal",
    )
    assert array.volumes == volumes
    assert array.devices == Devices(failed=0)
    assert {(member.slot, member.role, member.state) for member in array.members} == {(None, None, "spare")}


def test_volume(containers: Pass) -> None:
    """A volume has its container's metadata, and is related to the container beside its disks."""
    array = containers.raid("md126")

    assert (array.level, array.metadata, array.container) == ("raid1", "ddf", "device-md127")
    assert (array.health, array.volumes) == ("optimal", ())
    assert containers.members("md126") == [("container", "md127"), ("member", "sda"), ("member", "sdb")]
    assert containers.members("md127") == [("member", "sda"), ("member", "sdb")]


def test_volume_of_another_container(tmp_path: Path) -> None:
    """An array on a container's disks is its volume only when it names that container."""
    shutil.copytree(DATA / "raid-containers", tmp_path / "recording")
    devices = tmp_path / "recording" / "host.umockdev"
    devices.write_text(devices.read_text().replace("external:-md125/0", "external:-md99/0"))

    array = Pass(tmp_path / "recording").raid("md125")

    assert array.volumes == (Volume("device-md123", "/dev/md123"),)


def test_pending_resync(containers: Pass) -> None:
    """An array whose first resync waits for a write is not optimal yet."""
    array = containers.raid("md123")

    assert (array.state, array.health) == ("read-auto", "recovering")
    assert array.sync == Sync(action="idle", mismatches=0)


def test_container_of_which_nothing_is_read(containers: Pass) -> None:
    """A volume whose container is gone says so, and has no metadata."""
    facts = containers.facts("md126")
    orphan = replace(facts, attributes={**facts.attributes, "md/metadata_version": "external:/md99/0"})
    scene = Scene(containers.host, lambda other: other.kernel_name)

    found = raid.probe(orphan, scene)

    assert isinstance(found, Raid)
    assert (found.container, found.metadata) == (None, None)
    assert [note.message for note in scene.notes] == ["the container md99 is not there"]


def test_vanished_files(md: Pass) -> None:
    """An array of which nothing could be read any more is neither well nor ill."""
    facts = replace(md.facts("md0"), attributes={"size": "1"})
    scene = Scene(md.host, lambda other: other.kernel_name)

    found = raid.probe(facts, scene)

    assert isinstance(found, Raid)
    assert (found.state, found.health, found.devices, found.sync) == (None, None, None, None)
    assert "md/array_state could not be read" in [note.message for note in scene.notes]
