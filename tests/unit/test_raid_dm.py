"""Arrays of device-mapper on recorded hosts: LVM's raid and mirror volumes, dmraid's sets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodedev.capabilities import raid
from nodedev.capabilities.raid import Devices, Member, Raid, Sync
from nodedev.model import Scene
from tests.unit.recorded_raid import DATA, Pass


@pytest.fixture(scope="module")
def lvm() -> Pass:
    """LVM volumes of the raid and mirror targets."""
    return Pass(DATA / "raid-lvm")


@pytest.fixture(scope="module")
def dmraid() -> Pass:
    """Sets of dmraid, one with a partition."""
    return Pass(DATA / "raid-dmraid")


def test_lvm_raid1(lvm: Pass) -> None:
    """An LVM volume of the raid target has the shape of an md array; its members are the data legs."""
    array = lvm.named("vg0-good")

    assert array == Raid(
        implementation="dm",
        uuid="LVM-y0miIdbKrqyg3htR5w9nN7A4ch7OVRfKgood0000000000000000000000000000",
        name="vg0-good",
        level="raid1",
        metadata="lvm",
        state="active",
        health="optimal",
        devices=Devices(total=2, active=2, failed=0, spare=0, missing=0),
        sync=Sync(action="idle"),
        members=(
            Member(0, "active", "A", None, "device-dm-1", "/dev/dm-1"),
            Member(1, "active", "A", None, "device-dm-3", "/dev/dm-3"),
        ),
    )
    assert lvm.members("dm-4") == [("member", name) for name in ("dm-0", "dm-1", "dm-2", "dm-3")]


@pytest.mark.parametrize(
    ("name", "health_", "devices", "sync"),
    [
        ("building", "recovering", Devices(2, 1, 0, 1, 0), Sync("recover", 20480 * 512, 40960 * 512)),
        ("initial", "recovering", Devices(2, 2, 0, 0, 0), Sync("resync", 4096 * 512, 40960 * 512)),
        ("broken", "degraded", Devices(2, 1, 1, 0, 1), Sync("idle")),
        ("parity", "degraded", Devices(3, 2, 0, 0, 1), Sync("idle")),
        ("ten", "optimal", Devices(4, 4, 0, 0, 0), Sync("check", 81920 * 512, 81920 * 512, None, 16)),
        ("mir", "optimal", Devices(2, 2, 0, 0, 0), None),
        ("mirlag", "recovering", Devices(2, 2, 0, 0, 0), Sync(None, 10 * 1024 * 512, 40960 * 512)),
        ("mirdead", "degraded", Devices(2, 1, 1, 0, 1), Sync(None, 39 * 1024 * 512, 40960 * 512)),
    ],
)
def test_lvm_conditions(lvm: Pass, name: str, health_: str, devices: Devices, sync: Sync | None) -> None:
    """Health, counts and progress follow the letters and the ratio of the status."""
    array = lvm.named(f"vg0-{name}")

    assert (array.health, array.devices, array.sync) == (health_, devices, sync)


def test_nosync_is_not_optimal(lvm: Pass) -> None:
    """Of an array that was never synced the letters say nothing, and neither does the health."""
    array, notes = lvm.probed("dm-24")

    assert array is not None
    assert [member.state for member in array.members] == ["A", "A"]
    assert array.health is None
    assert notes == ["built with nosync: that its devices are in sync was never established"]


def test_lvm_layouts(lvm: Pass) -> None:
    """dm-raid's types are split into the level and mdadm's name of the layout."""
    ten, parity = lvm.named("vg0-ten"), lvm.named("vg0-parity")

    assert (ten.level, ten.layout, ten.chunk_bytes) == ("raid10", "far=2", 128 * 512)
    assert (parity.level, parity.layout, parity.chunk_bytes) == ("raid5", "left-symmetric", 128 * 512)


def test_missing_leg(lvm: Pass) -> None:
    """A leg that was not there when the volume was activated is a slot without a device."""
    assert lvm.named("vg0-parity").members[2] == Member(2, None, "-")


def test_mirror_has_its_log_among_the_relations(lvm: Pass) -> None:
    """The mirror target's log is a relation, and no member of the array."""
    assert [member.block for member in lvm.named("vg0-mir").members] == ["/dev/dm-39", "/dev/dm-40"]
    assert lvm.members("dm-42") == [("member", name) for name in ("dm-39", "dm-40", "dm-41")]


@pytest.mark.parametrize("name", ["dm-0", "dm-51", "sda"])
def test_what_is_no_array(lvm: Pass, name: str) -> None:
    """A leg, a linear volume and a disk are no arrays."""
    assert lvm.probed(name) == (None, [])
    assert lvm.members(name) == []
    assert raid.naming(lvm.facts(name), lvm.host) is None


def test_dmraid_mirror(dmraid: Pass) -> None:
    """A mirror of dmraid: "nosync" means there that the firmware's metadata call it in sync."""
    array = dmraid.raid("dm-0")

    assert (array.implementation, array.level, array.metadata) == ("dm", "raid1", "dmraid")
    assert (array.health, array.uuid) == ("optimal", "DMRAID-isw_bcdefg_Mirror")


def test_dmraid_stripes(dmraid: Pass) -> None:
    """A striped set is a raid0, of several targets too, and with a dead disk it has failed."""
    good, dead = dmraid.raid("dm-2"), dmraid.raid("dm-3")

    assert (good.level, good.chunk_bytes, good.health, good.sync) == ("raid0", 128 * 512, "optimal", None)
    assert (dead.level, dead.health) == ("raid0", "failed")
    assert [(member.role, member.state) for member in dead.members] == [("active", "A"), ("faulty", "D")]


def test_dmraid_partition(dmraid: Pass) -> None:
    """The partition of a set has a UUID of the same sort, and is no array."""
    assert dmraid.probed("dm-1") == (None, [])


def test_unreadable_tables(tmp_path: Path) -> None:
    """Without the tables a set is known by its UUID alone, and an LVM volume not as an array."""
    for name in ("raid-lvm", "raid-dmraid"):
        (tmp_path / name).mkdir()
        shutil.copy(DATA / name / "host.umockdev", tmp_path / name)
    lvm, dmraid = Pass(tmp_path / "raid-lvm"), Pass(tmp_path / "raid-dmraid")

    array, notes = dmraid.probed("dm-0")

    assert lvm.probed("dm-4") == (None, [])
    assert array is not None
    assert (array.uuid, array.metadata, array.level, array.health, array.devices) == (
        "DMRAID-isw_bcdefg_Mirror",
        "dmraid",
        None,
        None,
        None,
    )
    assert [member.block for member in array.members] == ["/dev/sda", "/dev/sdb"]
    assert notes == ["dmsetup-table.txt is not in this recording"]


@pytest.mark.parametrize(
    ("table", "status"),
    [
        ("raid raid1 3 0 region_size 4096 2 253:0 253:1 253:2", "raid raid1 2 AA 40960/40960 idle 0 0 -"),
        ("raid raid1 3 0 region_size 4096 2 253:0 253:1 253:2 253:3", "raid nonsense"),
        ("raid raid1 3 0 region_size 4096 2 253:0 253:1 253:2 253:3", "raid raid1 3 AAA 1/1 idle 0 0 -"),
        ("mirror core 1 1024 2 8:0 0 8:16 0", "mirror nonsense"),
    ],
)
def test_lines_that_do_not_add_up(tmp_path: Path, table: str, status: str) -> None:
    """A table or status that cannot be read leaves an array without a health."""
    array = changed(tmp_path / "raid-lvm", "vg0-good", table, status).named("vg0-good")

    assert array.health is None
    assert array.uuid is not None


@pytest.mark.parametrize("target", ["raid45 core 2 64 nosync", "striped 2", "linear 8:0 0"])
def test_other_targets_of_dmraid(tmp_path: Path, target: str) -> None:
    """A set whose target tells nothing of its disks is an array without a health."""
    name, *_ = target.split()
    recording = changed(tmp_path / "raid-dmraid", "pdc_hijk", target, name)

    array, notes = recording.probed("dm-2")

    assert array is not None
    assert array.health is None
    assert notes


def test_suspended(dmraid: Pass) -> None:
    """The state is device-mapper's; None where sysfs did not say."""
    facts = dmraid.facts("dm-2")
    scene = Scene(dmraid.host, lambda other: other.kernel_name)

    states = [
        found.state
        for text in ("0", "1", "")
        if isinstance(
            found := raid.probe(replace(facts, attributes={**facts.attributes, "dm/suspended": text}), scene),
            Raid,
        )
    ]

    assert states == ["active", "suspended", None]


def test_names(lvm: Pass, dmraid: Pass) -> None:
    """A dm array is named by its dm uuid, and found by it and by the dm name."""
    assert (raid.naming(lvm.facts("dm-4"), lvm.host) or "").startswith("raid_LVM-y0miId")
    assert raid.naming(dmraid.facts("dm-2"), dmraid.host) == "raid_DMRAID-pdc_hijk"
    assert dmraid.raid("dm-2").handles() == ("DMRAID-pdc_hijk", "pdc_hijk")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("AaA 1024/40960 recover", "recovering"),
        ("AaD 1024/40960 recover", "failed"),
        ("aaD 1024/40960 resync", "recovering"),
        ("AaD 40960/40960 idle", "degraded"),
        ("ADD 40960/40960 idle", "failed"),
    ],
)
def test_legs_not_in_sync(tmp_path: Path, status: str, expected: str) -> None:
    """A leg that is being recovered holds no data yet; one in its first sync holds its own."""
    array = changed(
        tmp_path / "raid-lvm",
        "vg0-good",
        "raid raid5_ls 3 128 region_size 4096 3 253:0 253:1 253:2 253:3 253:5 253:6",
        f"raid raid5_ls 3 {status} 0 0 -",
    ).named("vg0-good")

    assert array.health == expected


def test_array_set_up_by_hand(tmp_path: Path) -> None:
    """An array without a dm uuid keeps the kernel's name, and a note says so."""
    changed(tmp_path / "raid-dmraid", "pdc_hijk", "mirror core 1 1024 2 8:32 0 8:48 0", "mirror")
    devices = tmp_path / "raid-dmraid" / "host.umockdev"
    devices.write_text(devices.read_text().replace("A: dm/uuid=DMRAID-pdc_hijk\\n", "A: dm/uuid=\\n"))
    recording = Pass(tmp_path / "raid-dmraid")

    array, notes = recording.probed("dm-2")

    assert array is not None
    assert (array.uuid, array.metadata, array.level) == (None, None, "raid1")
    assert raid.naming(recording.facts("dm-2"), recording.host) is None
    assert "the array has no UUID, so it goes by its kernel name" in notes


def test_journal(tmp_path: Path) -> None:
    """A journal is a member without a slot, and counts as none of the slots' devices."""
    array = changed(
        tmp_path / "raid-lvm",
        "vg0-good",
        "raid raid5_ls 5 128 region_size 4096 journal_dev 8:0 2 253:0 253:1 253:2 253:3",
        "raid raid5_ls 2 AA 40960/40960 idle 0 0 A",
    ).named("vg0-good")

    assert array.members[2] == Member(None, "journal", "A", None, "device-sda", "/dev/sda")
    assert array.devices == Devices(total=2, active=2, failed=0, spare=0, missing=0)


@pytest.mark.parametrize(
    ("ratio", "sync"),
    [("40960/40960", None), ("512/40960", Sync(None, 512 * 512, 40960 * 512))],
)
def test_targets_that_name_no_action(tmp_path: Path, ratio: str, sync: Sync | None) -> None:
    """dm-raid before 1.5.0 tells how far a sync is, and not which."""
    letters = "Aa" if sync else "AA"
    array = changed(
        tmp_path / "raid-lvm",
        "vg0-good",
        "raid raid1 3 0 region_size 4096 2 253:0 253:1 253:2 253:3",
        f"raid raid1 2 {letters} {ratio}",
    ).named("vg0-good")

    assert array.sync == sync
    assert array.health == ("degraded" if sync else "optimal")


def test_mirror_with_another_log(tmp_path: Path) -> None:
    """A log in user space does not tell the size of its regions, so the progress is not known."""
    array = changed(
        tmp_path / "raid-lvm",
        "vg0-good",
        "mirror userspace 4 uuid clustered-disk 253:0 1024 2 253:1 0 253:3 0",
        "mirror 2 253:1 253:3 3/40 1 AR 3 userspace 253:0 A",
    ).named("vg0-good")

    assert (array.sync, array.health) == (None, "degraded")
    assert [(member.role, member.state) for member in array.members] == [("active", "A"), ("active", "R")]


def changed(recording: Path, name: str, table: str, status: str) -> Pass:
    """A pass over a copy of the recording of that name, with another target under the dm name."""
    shutil.copytree(DATA / recording.name, recording)
    for kind, text in (("table", table), ("status", status)):
        path = recording / f"dmsetup-{kind}.txt"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name}:")]
        path.write_text("\n".join([*lines, f"{name}: 0 40960 {text}", ""]))
    return Pass(recording)
