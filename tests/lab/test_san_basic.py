"""The SAN host as nodedev tells it, against what each tool prints there at that moment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from lxml import etree

from nodedev.v1.capability_pb2 import Loop, Mpath, Raid, Storage

from .guest import Guest
from .seen import WALKED, Seen, capability, look, the

pytestmark = pytest.mark.lab

LIBVIRTS = ("pci", "scsi_host", "scsi_target", "scsi", "scsi_generic", "storage")
COMPARED = ("scsi_host", "scsi_target", "scsi", "storage")
# What libvirt's XML of a capability is made of: the element's own words, without its layout.
Shape = tuple[str, tuple[tuple[str, str], ...], str, tuple["Shape", ...]]


@pytest.fixture(scope="module")
def seen(nodedev_guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All that nodedev and the tools say, asked once."""
    return look(nodedev_guest, tmp_path_factory.mktemp("seen"))


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


def kernel_groups(words: list[str]) -> Iterator[tuple[str, list[tuple[str, str, int]]]]:
    """The groups of a multipath status line: state, and each path's number, state and failures."""
    rest = iter(words[3:])

    def skip_counted() -> None:
        for _ in range(int(next(rest))):
            next(rest)

    skip_counted()  # features
    skip_counted()  # hardware handler
    groups = int(next(rest))
    next(rest)  # the group to begin with
    for _ in range(groups):
        state = next(rest)
        skip_counted()  # the selector's
        paths, arguments = int(next(rest)), int(next(rest))
        found = []
        for _ in range(paths):
            found.append((next(rest), next(rest), int(next(rest))))
            for _ in range(arguments):
                next(rest)
        yield state, found


def test_maps_are_what_the_kernel_says(seen: Seen) -> None:
    """Groups, their states, and each path's state and failures are those of dmsetup status."""
    states = {"A": "active", "E": "enabled", "D": "disabled"}
    path_states = {"A": "active", "F": "failed"}
    status = seen.dmsetup("dmsetup-status.txt")
    for _, found in seen.every(Mpath):
        if found.implementation != "dm":
            continue
        theirs = [
            (
                states[state],
                [(seen.number(number), path_states[word], count) for number, word, count in paths],
            )
            for state, paths in kernel_groups(status[found.alias])
        ]
        ours = [
            (group.state, [(Path(path.block).name, path.state, path.failures) for path in group.paths])
            for group in found.groups
        ]
        assert ours == theirs, found.alias


def test_maps_are_what_multipathd_says(seen: Seen) -> None:
    """Alias, priorities, checkers, device states, failback and queueing are multipathd's."""
    for theirs in seen.json("multipathd-maps.json")["maps"]:
        device = seen.block(theirs["sysfs"])
        ours = the(device, Mpath)
        assert device.name == f"mpath_{theirs['uuid']}"
        assert (ours.wwid, ours.alias, ours.state) == (theirs["uuid"], theirs["name"], theirs["dm_st"])
        assert [
            (
                group.number,
                group.state,
                group.priority,
                group.selector,
                [
                    (path.block, path.checker, path.device_state, path.priority, path.marginal, path.state)
                    for path in group.paths
                ],
            )
            for group in ours.groups
        ] == [
            (
                group["group"],
                group["dm_st"],
                group["pri"],
                group["selector"],
                [
                    (
                        f"/dev/{path['dev']}",
                        path["chk_st"],
                        path["dev_st"],
                        path["pri"],
                        path["marginal_st"],
                        path["dm_st"],
                    )
                    for path in group["paths"]
                ],
            )
            for group in theirs["path_groups"]
        ]
        handler = theirs["hwhandler"].partition(" ")[2]
        assert ours.hardware_handler == handler
        queueing = "off" if theirs["queueing"] == "-" else theirs["queueing"]
        assert ours.queueing == queueing
        usable = [
            path for group in theirs["path_groups"] for path in group["paths"] if path["chk_st"] == "ready"
        ]
        assert ours.redundancy.usable_paths == len(usable)
        assert ours.health == "optimal"


def sessions(text: str) -> dict[str, tuple[str, str]]:
    """Each iSCSI disk's target and portal, as iscsiadm -P 3 prints them."""
    found = {}
    target = portal = ""
    for line in text.splitlines():
        if opened := re.match(r"Target: (\S+)", line):
            target = opened[1]
        elif opened := re.match(r"\s+Persistent Portal: (\S+),\d+$", line):
            portal = opened[1]
        elif opened := re.search(r"Attached scsi disk (\S+)", line):
            found[f"/dev/{opened[1]}"] = (target, portal)
    return found


def test_transports_are_what_iscsiadm_says(seen: Seen) -> None:
    """Each iSCSI path has its session's target and portal, every other SCSI path goes over virtio."""
    iscsi = sessions(seen.text("iscsi-sessions.txt"))
    assert len(iscsi) == 4
    for _, found in seen.every(Mpath):
        for path in (path for group in found.groups for path in group.paths):
            way = path.transport
            if found.implementation == "nvme":
                assert way.type == "pcie"
            elif path.block in iscsi:
                assert (way.type, (way.target, way.portal)) == ("iscsi", iscsi.pop(path.block))
            else:
                assert way.type == "virtio"
    assert not iscsi


def test_nvme_paths_are_what_nvme_says(seen: Seen) -> None:
    """Native NVMe multipath has the paths of its subsystem, each over its controller."""
    (host,) = seen.json("nvme-subsys.json")
    (subsystem,) = host["Subsystems"]
    ((head, found),) = (pair for pair in seen.every(Mpath) if pair[1].implementation == "nvme")
    assert subsystem["Name"] in head.sysfs_path
    ours = sorted(
        (path.address.controller, path.transport.type, path.transport.address, path.state, path.transport.nqn)
        for group in found.groups
        for path in group.paths
    )
    theirs = [
        (path["Name"], path["Transport"], path["Address"], path["State"], subsystem["NQN"])
        for path in subsystem["Paths"]
    ]
    assert ours == sorted(theirs)


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


HOST_STATE = """
dmsetup table; dmsetup info -c --noheadings -o name,open,events,suspended; cat /proc/mdstat /proc/swaps
losetup --list --noheadings -O NAME,BACK-FILE,AUTOCLEAR | sort; cut -d' ' -f1 /proc/modules | sort
grep -H . /sys/block/*/diskseq; find /dev -newer /run/before | sort; cat /sys/kernel/uevent_seqnum
multipathd show maps raw format '%n %w %S %1 %2'; cut -d' ' -f4- /proc/self/mountinfo; iscsiadm -m session
"""


def test_reading_opens_no_block_device_and_changes_nothing(nodedev_guest: Guest, tmp_path: Path) -> None:
    """No opened file of list and record is a block device, no such open is tried, the host is as before.

    Nor does the recording hold the CHAP secret that sysfs shows, or the key in the DM table.
    """
    guest = nodedev_guest
    guest.run("rm -rf /run/recorded* /run/trace*; touch /run/before")
    before = guest.run(HOST_STATE).stdout
    trace = "strace -f -qq --seccomp-bpf -yy -e trace=open,openat,openat2 -o /run/trace"
    guest.run(f"{trace}.list nodedev list --json >/run/listed.json", timeout=600)
    guest.run(f"{trace}.record nodedev record /run/recorded", timeout=600)
    assert guest.run(HOST_STATE).stdout == before
    for command in ("list", "record"):
        guest.get(f"/run/trace.{command}", tmp_path / "trace")
        calls = (tmp_path / "trace").read_text().splitlines()
        assert len(calls) > 1000
        assert [call for call in calls if "<block " in call] == []
        nodes = {found[1] for call in calls if (found := re.search(r'"(/dev/[^"]*)"', call))}
        assert nodes <= {"/dev/mapper/control", "/dev/null", "/dev/urandom", "/dev/tty", "/dev/shm"}
    guest.get("/run/recorded", tmp_path / "recorded")
    guest.get("/run/listed.json", tmp_path / "recorded" / "listed.json")
    for file in (tmp_path / "recorded").iterdir():
        text = file.read_bytes()
        for secret in (b"a-chap-secret", b"a-key-that-no-recording-may-hold"):
            assert secret not in text, file
            assert secret.hex().encode() not in text, file
