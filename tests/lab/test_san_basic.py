"""The SAN host as nodedev tells it, against what each tool prints there at that moment."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from lxml import etree

from nodedev.v1.capability_pb2 import Loop, Mpath, Raid

from .seen import WALKED, Seen, capability

pytestmark = pytest.mark.lab

LIBVIRTS = ("pci", "usb", "usb_device", "scsi_host", "scsi_target", "scsi", "scsi_generic", "storage")
COMPARED = ("scsi_host", "scsi_target", "scsi", "storage")
# What libvirt's XML of a capability is made of: the element's own words, without its layout.
Shape = tuple[str, tuple[tuple[str, str], ...], str, tuple["Shape", ...]]


def shape(element: etree._Element) -> Shape:
    """An element by what it says; the order of its children is the grammar's own."""
    attributes = tuple(sorted((str(name), str(value)) for name, value in element.attrib.items()))
    text = (element.text or "").strip()
    return str(element.tag), attributes, text, tuple(sorted(shape(child) for child in element))


def in_sectors_of_512(storage: etree._Element) -> etree._Element:
    """A disk's capability as libvirt would print it without its bug.

    sysfs counts 512-byte sectors whatever the logical block is; libvirt takes them for logical blocks,
    so that a disk with blocks of 4096 bytes has eight times its size.
    """
    for part in storage.iter("capability"):
        block_size = int(part.findtext("logical_block_size") or 512)
        for name in ("size", "media_size", "num_blocks"):
            for found in part.iterfind(name):
                found.text = str(int(found.text or "0") * 512 // block_size)
    return storage


def libvirts(seen: Seen) -> Mapping[str, etree._Element]:
    """The devices of the storage stack that libvirt lists, by name."""
    found = {}
    for device in etree.fromstring(seen.text("libvirt-nodedev.xml").encode()).iterfind("device"):
        types = {capability.get("type") for capability in device.findall("capability")}
        if types & set(LIBVIRTS):
            found[device.findtext("name", "")] = device
    return found


def test_libvirts_devices_have_the_same_names_and_parents(seen: Seen) -> None:
    """Every device that libvirt lists for the storage stack is here under its name and parent."""
    theirs = {name: device.findtext("parent", "") for name, device in libvirts(seen).items()}
    ours = {name: device.parent for name, device in seen.devices.items() if name in theirs}
    assert len(theirs) > 60
    assert ours == theirs


@pytest.mark.parametrize("type_", COMPARED)
def test_libvirts_capabilities_are_equal(seen: Seen, type_: str) -> None:
    """A capability that libvirt has too says the same, but for the size of disks with large blocks."""
    compared = 0
    for name, device in libvirts(seen).items():
        for theirs in device.xpath("capability[@type=$type]", type=type_):
            (ours,) = seen.document(name).xpath("capability[@type=$type]", type=type_)
            assert shape(ours) == shape(in_sectors_of_512(theirs)), name
            compared += 1
    assert compared


def test_libvirts_nodes_and_drivers_are_equal(seen: Seen) -> None:
    """Paths, nodes, links and drivers are the same as libvirt's."""
    for name, theirs in libvirts(seen).items():
        ours = seen.document(name)
        for tag in ("path", "devnode", "driver"):
            assert [shape(one) for one in ours.findall(tag)] == [shape(one) for one in theirs.findall(tag)], (
                name
            )


def test_every_map_array_and_loop_is_listed(seen: Seen) -> None:
    """What multipathd, /proc/mdstat and losetup list is all there."""
    maps = {found["uuid"] for found in seen.json("multipathd-maps.json")["maps"]}
    assert maps == {found.wwid for _, found in seen.every(Mpath) if found.implementation == "dm"}
    arrays = set(re.findall(r"^(md\S+) :", seen.text("mdstat"), re.MULTILINE))
    assert arrays == {
        seen.kernel_name(device.name) for device, found in seen.every(Raid) if found.implementation == "md"
    }
    loops = {found["name"] for found in seen.json("losetup.json")["loopdevices"]}
    assert loops == {device.devnode for device, _ in seen.every(Loop)}


def test_each_block_device_appears_once(seen: Seen) -> None:
    """Every device of /sys/block is one device here, but for the loop nodes without a file."""
    bound = {found["name"].removeprefix("/dev/") for found in seen.json("losetup.json")["loopdevices"]}
    expected = {
        name for name in seen.answer["block_devices"] if not re.fullmatch(r"loop\d+", name) or name in bound
    }
    counts = {name: len(seen.by_kernel_name.get(name, [])) for name in expected}
    assert counts == dict.fromkeys(expected, 1)
    assert not [name for name in seen.by_kernel_name if re.fullmatch(r"loop\d+", name) and name not in bound]


def test_device_mapper_without_a_table_is_listed(seen: Seen) -> None:
    """Every device of dmsetup is there by number, the one too that has no table and is not in sysfs."""
    lines = (line.split("|") for line in seen.text("dmsetup-info.txt").splitlines())
    expected = {f"{fields[2]}:{fields[3]}" for fields in lines}
    numbers = {device.device_number for device in seen.devices.values()}
    assert expected <= numbers


def test_documents_fit_both_grammars(seen: Seen) -> None:
    """Each document fits our grammar whole, and libvirt's as installed without our capabilities."""
    assert {name: found for name, found in seen.answer["violations"].items() if found} == {}
    assert {name: found for name, found in seen.answer["stock_violations"].items() if found} == {}
    assert seen.answer["violations"].keys() == seen.devices.keys()


def test_relations_are_the_kernels(seen: Seen) -> None:
    """Who stands on whom is what slaves and holders say, and what they do not know comes with its kind."""
    edges = set()
    for edge in seen.edges:
        holder, member = seen.devices[edge.holder], seen.devices[edge.member]
        assert (edge.kind, member.name) in [(found.kind, found.device) for found in holder.members]
        assert (edge.kind, holder.name) in [(found.kind, found.device) for found in member.holders]
        upper, lower = seen.kernel_name(holder.name), seen.kernel_name(member.name)
        # It has a partition and the paths of native NVMe multipath elsewhere; kpartx' partitions are dm's.
        elsewhere = upper.startswith("nvme") or (edge.kind == "partition" and not upper.startswith("dm-"))
        if edge.kind not in ("backing", "container") and not elsewhere:
            edges.add((upper, lower))
    assert edges == {(holder, member) for holder, member in seen.answer["sysfs_edges"]}


def test_lvm_on_md_on_maps_reads_right_both_ways(seen: Seen) -> None:
    """A logical volume reaches down to eight paths over one array and two maps; a map reaches up to it."""
    volume, lower = WALKED
    down = {seen.kernel_name(name) for name in seen.answer["walks"][volume][0]}
    blocks = [seen.block(name) for name in down]
    assert len([block for block in blocks if capability(block, Raid)]) == 1
    assert len([block for block in blocks if capability(block, Mpath)]) == 2
    assert len([name for name in down if name.startswith("sd")]) == 8
    assert down == reached(seen.block_of(volume), seen.answer["sysfs_edges"])
    up = {seen.kernel_name(name) for name in seen.answer["walks"][lower][1]}
    assert up == reached(seen.block_of(lower), [edge[::-1] for edge in seen.answer["sysfs_edges"]])
    assert seen.block_of(volume) in up


def reached(start: str, edges: list[tuple[str, str]]) -> set[str]:
    """The start and all that is reached from it."""
    found = {start}
    while more := {to for begin, to in edges if begin in found} - found:
        found |= more
    return found


def test_udev_properties_are_libudevs(seen: Seen) -> None:
    """What is read directly of udev's database is what libudev says, in every subsystem."""
    assert seen.answer["udev_differences"] == []
