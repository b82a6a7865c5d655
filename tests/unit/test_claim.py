"""Why devices may not be given away, from a small recorded host that has one of each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nodedev.capabilities import attributes, claim
from nodedev.capabilities.claim import Reason
from nodedev.facts.host import DeviceFacts, Host, Note
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Scene
from nodedev.v1 import capability_pb2

DATA = Path(__file__).parent.parent / "data"


def a_host(place: Path = DATA / "claims") -> Host:
    """A scanned pass over a recording."""
    return Host.scan(RecordedSource.open(place, attributes()))


def probed(host: Host, name: str) -> tuple[tuple[Reason, ...], list[Note]]:
    """The device's reasons and the notes of its probe, others named after their kernel name."""
    facts = host.block(name)
    assert facts
    scene = Scene(host, lambda other: other.kernel_name)
    found = claim.probe(facts, scene)
    return found.reasons if found else (), scene.notes


ABOVE_MD = (
    Reason("mounted", device="dm-2", target="/mnt/data", what="ext4"),
    Reason("mounted", device="dm-2", target="/mnt/sub dir", what="ext4"),
    Reason("swap", device="dm-3"),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sda", (Reason("path", device="dm-0"), *ABOVE_MD)),
        (
            "dm-1",
            (Reason("member", device="md127"), *ABOVE_MD, Reason("signature", what="linux_raid_member")),
        ),
        (
            "md127",
            (
                Reason("held", device="dm-2", what="lvm"),
                Reason("held", device="dm-3", what="lvm"),
                *ABOVE_MD,
                Reason("signature", what="LVM2_member"),
            ),
        ),
        (
            "dm-2",
            (
                Reason("mounted", target="/mnt/data", what="ext4"),
                Reason("mounted", target="/mnt/sub dir", what="ext4"),
                Reason("signature", what="ext4"),
            ),
        ),
        ("dm-3", (Reason("swap"), Reason("signature", what="swap"))),
    ],
)
def test_lvm_on_md_on_maps(name: str, expected: tuple[Reason, ...]) -> None:
    """What is mounted or swapped on counts for everything below it, each device once."""
    assert probed(a_host(), name) == (expected, [])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "sde",
            (
                Reason("held", device="dm-4", what="crypt"),
                Reason("mounted", device="sde1", target="/mnt/part", what="xfs"),
                Reason("partitioned", what="3"),
            ),
        ),
        ("sde1", (Reason("mounted", target="/mnt/part", what="xfs"), Reason("signature", what="xfs"))),
        ("sde2", (Reason("held", device="dm-4", what="crypt"), Reason("signature", what="crypto_LUKS"))),
        ("sde3", ()),
        ("sdk", (Reason("signature", what="gpt"),)),
    ],
)
def test_partitions(name: str, expected: tuple[Reason, ...]) -> None:
    """A disk has its partitions' claims; a partition not its neighbours', nor the table copied to it."""
    assert probed(a_host(), name) == (expected, [])


def test_partition_of_a_path() -> None:
    """A partition of a disk that is in a map is as little free as the disk."""
    reasons, _ = probed(a_host(), "sdl1")

    assert reasons == (
        Reason("path", device="dm-5"),
        Reason("mounted", device="dm-6", target="/mnt/kpartx", what="ext4"),
    )


def test_kpartx_partition_holds_its_map() -> None:
    """A partition that kpartx made of a map holds the map."""
    assert probed(a_host(), "dm-5")[0] == (
        Reason("held", device="dm-6", what="partition"),
        Reason("mounted", device="dm-6", target="/mnt/kpartx", what="ext4"),
    )


def test_open_beyond_what_is_seen() -> None:
    """Openers are a reason only where the kernel counts more than holders, mounts and swaps explain."""
    host = a_host()

    assert probed(host, "dm-4")[0] == (Reason("open", what="1"),)
    for name in ("dm-0", "dm-2", "dm-3"):
        assert not any(reason.type == "open" for reason in probed(host, name)[0])


def test_multipath_claims_what_no_map_has() -> None:
    """Only a word of exactly "1" claims, and only while no map has the disk."""
    host = a_host()

    assert probed(host, "sdf")[0] == (Reason("multipath"),)
    assert probed(host, "sdg")[0] == ()
    assert not any(reason.type == "multipath" for reason in probed(host, "sda")[0])


def test_mount_without_device_number() -> None:
    """A btrfs mount, whose number is no device's, is found by the link that it names."""
    assert probed(a_host(), "sdh")[0] == (
        Reason("mounted", target="/mnt/btrfs", what="btrfs"),
        Reason("signature", what="btrfs"),
    )


def test_not_ready() -> None:
    """A device that udev has not finished with, or is told to keep off from, is not ready."""
    host = a_host()

    assert probed(host, "sdi")[0] == (Reason("not-ready"),)
    assert probed(host, "dm-7")[0][-1] == Reason("not-ready", what="DM_UDEV_DISABLE_OTHER_RULES_FLAG")


def test_without_udev_no_device_is_unready(tmp_path: Path) -> None:
    """Where udev does not run at all, that is the host's note and no claim on every device."""
    place = shutil.copytree(DATA / "claims", tmp_path / "claims")
    note = {"source": "udev", "message": "udevd does not run"}
    (place / "recording.json").write_text(json.dumps({"format": 1, "udev": False, "notes": [note]}))
    host = a_host(place)

    assert probed(host, "sdi")[0] == ()


def test_loop_over_a_node() -> None:
    """A disk behind a loop device has that claim, and the loop device's mount."""
    assert probed(a_host(), "sdj")[0] == (
        Reason("mounted", device="loop0", target="/mnt/loop", what="ext4"),
        Reason("backing", device="loop0"),
    )


def test_other_holders() -> None:
    """A holder that is no dm device is named by its kind."""
    assert probed(a_host(), "sdm")[0] == (
        Reason("held", device="dm-7", what="lvm"),
        Reason("held", device="bcache0", what="bcache"),
        Reason("mounted", device="dm-9", target="/mnt/top", what="ext4"),
    )


def test_leg_of_a_dm_array_is_a_member() -> None:
    """What a volume with a raid target holds is a member of an array."""
    assert probed(a_host(), "dm-7")[0][0] == Reason("member", device="dm-9")


def test_a_device_above_is_visited_once() -> None:
    """However many ways lead up to a device, it is looked at once."""
    host = a_host()
    facts = host.block("sdm")
    asked: list[str] = []

    def name_of(other: DeviceFacts) -> str:
        asked.append(other.kernel_name)
        return other.kernel_name

    assert facts
    claim.probe(facts, Scene(host, name_of))

    assert asked.count("dm-9") == 1


def test_holder_that_is_gone(tmp_path: Path) -> None:
    """A holder that cannot be read any more still claims, without a name."""
    place = shutil.copytree(DATA / "claims", tmp_path / "claims")
    devices = place / "host.umockdev"
    devices.write_text(
        devices.read_text().replace("holders/bcache0=", "holders/drbd_x=").replace("md127=", "md9=")
    )
    host = a_host(place)

    assert Reason("held", what="drbd") in probed(host, "sdm")[0]
    assert probed(host, "dm-0")[0][0] == Reason("member")


def test_hidden_nvme_path() -> None:
    """A path of native NVMe multipath lists its head, and is not unready though udev never sees it."""
    assert probed(a_host(DATA / "mpath-nvme"), "nvme0c1n1")[0] == (Reason("path", device="nvme0n1"),)


def test_free_disk_has_no_claim() -> None:
    """Without a reason the capability is absent, as on a device that is no block device."""
    host = a_host()
    target = host.device("/devices/pci0000:00/0000:00:04.0/host0/target0:0:0/0:0:0:6")

    assert target
    assert probed(host, "loop1") == ((), [])
    assert claim.probe(target, Scene(host, lambda other: other.kernel_name)) is None


def test_unread_mounts_are_a_note(tmp_path: Path) -> None:
    """Where the mounts could not be read, even a device without a claim says so."""
    place = shutil.copytree(DATA / "claims", tmp_path / "claims")
    (place / "mountinfo").unlink()

    reasons, notes = probed(a_host(place), "sdg")

    assert reasons == ()
    assert [note.source for note in notes] == ["mounts"]


def test_unread_tables_are_a_note_on_dm_devices(tmp_path: Path) -> None:
    """Without DM's ioctls openers are unknown, which is noted where there could be some."""
    place = shutil.copytree(DATA / "claims", tmp_path / "claims")
    for name in ("dmsetup-table.txt", "dmsetup-status.txt", "dmsetup-info.txt"):
        (place / name).unlink()
    host = a_host(place)

    assert [note.source for note in probed(host, "dm-4")[1]] == ["dm"]
    assert probed(host, "sdg")[1] == []


def test_a_pass_of_few_devices_says_the_same() -> None:
    """A pass that reads only what it is asked for finds the claims that a scan finds."""
    source = RecordedSource.open(DATA / "claims", attributes())
    scanned = Host.scan(source)

    for facts in scanned:
        if facts.subsystem == "block":
            assert probed(Host(source), facts.kernel_name) == probed(scanned, facts.kernel_name)


def test_work_is_that_of_what_stands_above() -> None:
    """Beside loop devices, a probe reads only the devices that stand above the one asked for."""
    host = Host(RecordedSource.open(DATA / "claims", attributes()))

    probed(host, "sda")

    assert {facts.kernel_name for facts in host} == {"sda", "dm-0", "md127", "dm-2", "dm-3", "loop0", "loop1"}


def test_words_are_those_of_the_proto() -> None:
    """Each reason's word is a value of the proto's enum, in the same order."""
    words = [
        name.removeprefix("TYPE_").replace("_", "-").lower()
        for name in capability_pb2.Claim.Type.DESCRIPTOR.values_by_name
    ]

    assert words == ["unspecified", *claim.TYPES]
