"""Arrays and loop devices: each word that mdadm, the kernel and losetup say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from nodedev.v1.capability_pb2 import Loop, Raid, Storage

from .seen import Seen, the

pytestmark = pytest.mark.lab


def details(text: str) -> Mapping[str, str]:
    """The lines of mdadm --detail."""
    lines = (line.partition(" : ") for line in text.splitlines())
    return {name.strip(): value.strip() for name, separator, value in lines if separator}


def member_lines(text: str) -> Mapping[str, tuple[int | None, str]]:
    """Each member's slot and what mdadm --detail says of it."""
    rows = re.findall(r"^ +(?:\d+|-) +\d+ +\d+ +(\d+|-) +(.*?) +(/dev/\S+)$", text, re.MULTILINE)
    return {node: (None if slot == "-" else int(slot), words) for slot, words, node in rows}


def arrays(seen: Seen) -> Iterator[str]:
    """The kernel's names of the MD arrays."""
    return (peer.name[len("mdadm-detail-") : -4] for peer in seen.peers.glob("mdadm-detail-*.txt"))


def test_arrays_are_what_mdadm_says(seen: Seen) -> None:
    """Level, UUID, name, metadata, layout, counts and size are those of mdadm --detail."""
    checked = set()
    for array in arrays(seen):
        detail = details(seen.text(f"mdadm-detail-{array}.txt"))
        export = details(seen.text(f"mdadm-export-{array}.txt").replace("=", " : "))
        device = seen.block(array)
        ours = the(device, Raid)
        checked.add(ours.level)
        assert (ours.level, ours.uuid) == (export["MD_LEVEL"], export["MD_UUID"])
        assert device.name == f"raid_{export['MD_UUID'].replace(':', '_')}"
        assert ours.name in (export.get("MD_NAME"), export["MD_DEVNAME"])
        if "MD_METADATA" in export:
            assert ours.metadata == export["MD_METADATA"]
        if ours.level == "container":
            assert [volume.block for volume in ours.volumes] == ["/dev/md120"]
            continue
        assert ours.devices.total == int(export["MD_DEVICES"])
        assert ours.devices.active == int(detail["Active Devices"])
        assert ours.devices.failed == int(detail["Failed Devices"])
        assert ours.devices.spare == int(detail.get("Spare Devices", 0))
        assert ours.consistency_policy == detail["Consistency Policy"]
        assert ours.layout == detail.get("Layout", "").replace("-unknown-", "")
        assert ours.chunk_bytes == int(detail.get("Chunk Size", "0K").removesuffix("K")) << 10
        size_kib = int(detail["Array Size"].split()[0])
        assert the(device, Storage).size_bytes == size_kib << 10
        assert ours.health == ("degraded" if "degraded" in detail["State"] else "optimal")
        assert ours.state == detail["State"].split(", ")[0]
    assert checked == {"raid0", "raid1", "raid5", "raid10", "container"}


def test_members_are_what_mdadm_says(seen: Seen) -> None:
    """Each member has the slot and the role that mdadm gives it."""
    roles = {"active sync": "active", "spare": "spare", "faulty": "faulty"}
    for array in arrays(seen):
        text = seen.text(f"mdadm-detail-{array}.txt")
        ours = the(seen.block(array), Raid)
        if ours.level == "container":
            nodes = set(re.findall(r"^ +- +\d+ +\d+ +- +(/dev/\S+)$", text, re.MULTILINE))
            assert {member.block for member in ours.members} == nodes
            assert not any(member.HasField("slot") or member.role for member in ours.members)
            continue
        expected = {
            node: (slot, roles[re.sub(r" set-\w$", "", words)])
            for node, (slot, words) in member_lines(text).items()
        }
        # mdadm numbers a map by its dm node.
        assert {
            member.block: (member.slot if member.HasField("slot") else None, member.role)
            for member in ours.members
        } == expected


def test_a_container_and_its_volume_name_each_other(seen: Seen) -> None:
    """The volume says in which container it is, and stands on it as well as on its disks."""
    ((container, whole),) = (pair for pair in seen.every(Raid) if pair[1].level == "container")
    ((volume, part),) = (pair for pair in seen.every(Raid) if pair[1].container)
    assert part.container == container.name
    assert [found.device for found in whole.volumes] == [volume.name]
    assert ("container", container.name) in [(found.kind, found.device) for found in volume.members]
    assert volume.name in [found.device for found in container.holders]


def test_dm_arrays_are_what_the_kernel_says(seen: Seen) -> None:
    """LVM's raid and mirror and the dmraid set have the members and states of dmsetup status."""
    status = seen.dmsetup("dmsetup-status.txt")
    table = seen.dmsetup("dmsetup-table.txt")
    found = {array.name: array for _, array in seen.every(Raid)}
    ours = found["vg0-mir"]
    _, _, _, level, number, letters, _, action, *_ = status["vg0-mir"]
    assert (ours.level, ours.devices.total, ours.sync.action) == (level, int(number), action)
    assert [member.state for member in ours.members] == list(letters)
    assert [member.block.removeprefix("/dev/") for member in ours.members] == [
        seen.number(number) for number in table["vg0-mir"][-3::2]
    ]
    for name in ("vg0-oldmir", "isw_bcdefghij_Volume0"):
        mirror = status[name]
        numbers, letters = mirror[4 : 4 + int(mirror[3])], mirror[-3]
        assert [(member.block.removeprefix("/dev/"), member.state) for member in found[name].members] == [
            (seen.number(number), letter) for number, letter in zip(numbers, letters, strict=True)
        ]
    assert found["isw_bcdefghij_Volume0"].metadata == "dmraid"


def test_loops_are_what_losetup_says(seen: Seen) -> None:
    """Every column of losetup is the same, and a deleted file is told from one whose name says so."""
    deleted = set()
    for theirs in seen.json("losetup.json")["loopdevices"]:
        ours = the(seen.block(theirs["name"].removeprefix("/dev/")), Loop)
        backing = ours.backing
        if backing.deleted:
            deleted.add(backing.path)
        assert backing.path == (
            theirs["back-file"].removesuffix(" (deleted)") if backing.deleted else theirs["back-file"]
        )
        if not backing.deleted:
            assert (backing.inode, backing.device) == (theirs["back-ino"], theirs["back-maj:min"].strip())
        assert (ours.offset_bytes, ours.size_limit_bytes) == (theirs["offset"], theirs["sizelimit"])
        assert (ours.read_only, ours.direct_io) == (theirs["ro"], theirs["dio"])
        assert (ours.autoclear, ours.partition_scan) == (theirs["autoclear"], theirs["partscan"])
        assert ours.sector_size_bytes == theirs["log-sec"]
    assert deleted == {"/srv/deleted.img"}
