"""libvirt's own capabilities, and `block`, on an invented host that has one of each (tests/data/stock)."""

from __future__ import annotations

from pathlib import Path
from posixpath import basename

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.capabilities import (
    _dm,
    attributes,
    block,
    kinds,
    pci,
    scsi,
    scsi_generic,
    scsi_host,
    scsi_target,
    storage,
    system,
)
from nodedev.capabilities.block import Block, DeviceMapper, Nvme, Partition
from nodedev.capabilities.pci import (
    Address,
    Bridge,
    Id,
    IommuGroup,
    Link,
    Numa,
    Pci,
    PciExpress,
    VirtualFunctions,
)
from nodedev.capabilities.scsi import Scsi
from nodedev.capabilities.scsi_host import FcHost, ScsiHost, VportOps
from nodedev.capabilities.scsi_target import FcRemotePort, ScsiTarget
from nodedev.capabilities.storage import Removable, Storage
from nodedev.capabilities.system import Firmware, Hardware, System
from nodedev.facts.host import DeviceFacts, Host, Note
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Capability, Scene

RECORDING = Path(__file__).parent.parent / "data" / "stock"
HBA = "/devices/pci0000:00/0000:00:1c.0/0000:5e:00.0"
PORT = f"{HBA}/host0/rport-0:0-1"
STOCK = ("system", "pci", "usb", "usb_device", "scsi_host", "scsi_target", "scsi", "scsi_generic", "storage")
SERIAL = "3500a0980000000a0"


@pytest.fixture(scope="module")
def host() -> Host:
    """The invented host, scanned."""
    return Host.scan(RecordedSource.open(RECORDING, attributes()))


def scene(host: Host) -> Scene:
    """What a probe is given, devices named by the kernel."""
    return Scene(host, lambda facts: facts.kernel_name)


def device(host: Host, path: str) -> DeviceFacts:
    """The device at a sysfs path."""
    found = host.device(path)
    assert found is not None, path
    return found


def disk(host: Host, kernel_name: str) -> DeviceFacts:
    """The block device of that name."""
    found = host.block(kernel_name)
    assert found is not None, kernel_name
    return found


def pci_function(host: Host, name: str) -> Pci:
    """The capability of a PCI function."""
    found = next(facts for facts in host if facts.subsystem == "pci" and basename(facts.path) == name)
    capability = pci.probe(found, scene(host))
    assert capability is not None
    return capability


def storage_of(host: Host, kernel_name: str) -> Storage:
    """The storage capability of a block device that has it."""
    capability = storage.probe(disk(host, kernel_name), scene(host))
    assert capability is not None
    return capability


def block_of(host: Host, kernel_name: str) -> Block:
    """The block capability of a block device that has it."""
    capability = block.probe(disk(host, kernel_name), scene(host))
    assert capability is not None
    return capability


def probed(host: Host, facts: DeviceFacts) -> list[Capability]:
    """The capabilities of this test that a device has."""
    found = (kind.probe(facts, scene(host)) for kind in kinds() if kind.type in (*STOCK, "block"))
    return [capability for capability in found if capability]


def test_the_stock_kinds_are_registered_in_libvirts_order() -> None:
    """The capabilities of libvirt come first, each marked so, and `block` behind them is not."""
    assert tuple(kind.type for kind in kinds() if kind.stock) == STOCK
    assert [kind.type for kind in kinds()][: len(STOCK) + 1] == [*STOCK, "block"]


def test_each_device_has_at_most_one_of_the_capabilities(host: Host) -> None:
    """No device is two things at once, and a disk is either storage or block."""
    for facts in host:
        assert len(probed(host, facts)) <= 1, facts.path


def test_class_devices_are_no_devices_of_their_own(host: Host) -> None:
    """What stands in scsi_host, fc_host, fc_remote_ports or bsg only tells of the device below."""
    for facts in host:
        if facts.subsystem in ("scsi_host", "fc_host", "fc_remote_ports", "bsg", "virtio", "ccw"):
            assert probed(host, facts) == []


# The machine


def test_system_is_told_by_smbios(host: Host) -> None:
    """Control characters go, blanks stay, empty strings are absent, and the uuid is in lower case."""
    assert system.probe(device(host, "/devices/virtual/dmi/id"), scene(host)) == System(
        product="Rack 9000 ",
        hardware=Hardware(vendor="ACME", serial="S1", uuid="4c4c4544-0039-3510-8035-b7c04f4e3332"),
        firmware=Firmware("ACME", "2.1", "01/02/2026"),
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"product_uuid": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"},
        {"product_uuid": "Not Settable"},
    ],
)
def test_a_machine_without_uuid_has_the_nil_uuid_and_a_note(host: Host, attributes: dict[str, str]) -> None:
    """The grammar of libvirt demands hardware, uuid and firmware; what is not known is said in a note."""
    facts = DeviceFacts("/devices/virtual/dmi/id", "dmi", {}, attributes, {})
    here = scene(host)
    assert system.probe(facts, here) == System(
        hardware=Hardware(uuid="00000000-0000-0000-0000-000000000000"), firmware=Firmware()
    )
    assert [note.source for note in here.notes] == ["dmi"]


# PCI


def test_a_pci_function_with_names_group_node_and_link(host: Host) -> None:
    """Numbers are padded as libvirt prints them; a link that is down has a width and no speed."""
    assert pci_function(host, "0000:5e:00.0") == Pci(
        class_code="0x0c0400",
        domain=0,
        bus=0x5E,
        slot=0,
        function=0,
        product=Id("0x2261", "ISP2722 Fibre Channel"),
        vendor=Id("0x1077", "QLogic Corp."),
        iommu_group=IommuGroup(
            7, (Address("0x0000", "0x5e", "0x00", "0x0"), Address("0x0000", "0x5e", "0x00", "0x1"))
        ),
        numa=Numa(1),
        pci_express=PciExpress((Link("cap", "8", 8), Link("sta", None, 0))),
    )


def test_virtual_functions_are_listed_in_the_kernels_order(host: Host) -> None:
    """virtfn10 comes behind virtfn2, and a function that has none yet still tells how many it can have."""
    physical = pci_function(host, "0000:3b:00.0").virtual_functions
    assert physical is not None
    assert physical.max_count == 64
    assert [(address.slot, address.function) for address in physical.addresses] == [
        ("0x02", "0x0"),
        ("0x02", "0x2"),
        ("0x03", "0x2"),
    ]
    assert pci_function(host, "0000:3b:00.1").virtual_functions == VirtualFunctions(64)


def test_a_virtual_function_names_its_physical_one(host: Host) -> None:
    """The physfn link is the address."""
    function = pci_function(host, "0000:3b:02.0").physical_function
    assert function == pci.PhysicalFunction(Address("0x0000", "0x3b", "0x00", "0x0"))


def test_a_group_whose_members_are_not_known_is_left_out_with_a_note(host: Host) -> None:
    """Half an IOMMU group would mislead whoever gives a function to a guest."""
    here = scene(host)
    found = pci.probe(device(host, "/devices/pci0000:3a/0000:3b:02.0"), here)
    assert found is not None
    assert found.iommu_group is None
    assert here.notes == [Note("sysfs", "which functions share IOMMU group 9 could not be read")]


def test_bridges_are_told_by_the_kernel(host: Host) -> None:
    """A function with a bus behind it is a PCI or a CardBus bridge; negative NUMA nodes are none."""
    root_port, cardbus = pci_function(host, "0000:00:1c.0"), pci_function(host, "0000:00:1e.0")
    assert (root_port.pci_bridge, root_port.cardbus_bridge) == (Bridge(), None)
    assert (cardbus.pci_bridge, cardbus.cardbus_bridge) == (None, Bridge())
    assert root_port.numa is None


def test_pci_express_without_a_link_is_empty_and_conventional_pci_has_none(host: Host) -> None:
    """A function of the root complex has no link, which the kernel shows as width 255."""
    assert pci_function(host, "0000:00:1f.5").pci_express == PciExpress()
    assert pci_function(host, "0000:00:1e.0").pci_express is None


def test_a_pci_domain_may_be_wider_than_four_digits(host: Host) -> None:
    """VMD puts its functions into domains from 0x10000 on."""
    assert pci_function(host, "10000:00:02.0").domain == 0x10000


# SCSI


def test_an_fc_host_with_npiv(host: Host) -> None:
    """Names lose their 0x, and the NPIV counts are there."""
    assert scsi_host.probe(device(host, f"{HBA}/host0"), scene(host)) == ScsiHost(
        host=0,
        unique_id=3,
        fc_host=FcHost("20000024ff7d1234", "21000024ff7d1234", "100000051e0a0b0c"),
        vport_ops=VportOps(max_vports=254, vports=2),
    )


def test_an_npiv_port_can_make_none_itself(host: Host) -> None:
    """A virtual port is an fc_host without vport_ops, and one that has no fabric name shows none."""
    found = scsi_host.probe(device(host, f"{HBA}/host0/vport-0:0-0/host5"), scene(host))
    assert found is not None
    assert found.fc_host == FcHost("5001a4a000000001", "5001a4a000000002")
    assert found.vport_ops is None


def test_a_target_behind_a_remote_port(host: Host) -> None:
    """The port is the rport right above the target, its name with 0x as libvirt prints it there."""
    assert scsi_target.probe(device(host, f"{PORT}/target0:0:0"), scene(host)) == ScsiTarget(
        "target0:0:0", FcRemotePort("rport-0:0-1", "0x500a098000000001")
    )


@pytest.mark.parametrize(("lun", "word"), [(0, "disk"), (1, "tape"), (4, "cdrom"), (6, "mod"), (49409, None)])
def test_a_logical_units_type_is_libvirts_word(host: Host, lun: int, word: str | None) -> None:
    """A type that libvirt has no word for is left out, and the LUN is decimal however large."""
    facts = device(host, f"{PORT}/target0:0:0/0:0:0:{lun}")
    assert scsi.probe(facts, scene(host)) == Scsi(0, 0, 0, lun, word)


def test_a_generic_node_is_its_character_device(host: Host) -> None:
    """The capability is the node's path."""
    found = host.find("scsi_generic", "sg0")
    assert found is not None
    assert scsi_generic.probe(found, scene(host)) == scsi_generic.ScsiGeneric("/dev/sg0")


# Storage


def test_a_disk_of_4096_byte_blocks_has_its_true_size(host: Host) -> None:
    """The kernel counts 512-byte sectors whatever the logical block; libvirt shows 8 times too much."""
    assert storage_of(host, "sda") == Storage(
        block="/dev/sda",
        bus="scsi",
        drive_type="disk",
        model="SAN-LUN",
        vendor="ACME",
        serial=SERIAL,
        size_bytes=1 << 30,
        logical_block_size=4096,
        num_blocks=1 << 18,
    )


def test_a_removable_disk_is_a_fixed_one_to_libvirt(host: Host) -> None:
    """A card reader without a card has size 0, blank vendors stay empty, control characters go."""
    found = storage_of(host, "sdb")
    assert (found.removable, found.size_bytes, found.num_blocks) == (None, 0, 0)
    assert (found.vendor, found.model) == ("", "XY")


def test_a_cdrom_with_a_medium(host: Host) -> None:
    """The medium's size and label stand in `removable`, counted in its own blocks."""
    found = storage_of(host, "sr0")
    assert (found.drive_type, found.size_bytes, found.logical_block_size) == ("cdrom", None, None)
    assert found.removable == Removable(
        media_available=True,
        media_size_bytes=1433600 * 512,
        media_label="DEBIAN 12",
        logical_block_size=2048,
        num_blocks=1433600 * 512 // 2048,
    )


def test_a_cdrom_without_a_medium_keeps_no_stale_size(host: Host) -> None:
    """An empty drive still shows sysfs the size of the last medium."""
    found = storage_of(host, "sr1")
    assert found.drive_type == "cdrom"
    assert found.removable == Removable(media_available=False, media_size_bytes=0)


def test_a_floppys_medium_is_told_by_its_label(host: Host) -> None:
    """A label stands for a medium, and a drive without one is empty, as in libvirt."""
    assert storage_of(host, "fd0").removable == Removable(media_available=False, media_size_bytes=0)
    with_medium = storage_of(host, "fd1").removable
    assert with_medium is not None
    assert (with_medium.media_label, with_medium.media_size_bytes) == ("DRIVERS", 2880 * 512)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mmcblk0", ("sd", None, None, "0x1234")),
        ("dasda", ("dasd", "IBM", None, "IBM.750000000DXP71.1500.20")),
        ("vda", ("disk", "0x1af4", None, None)),
        ("nvme0n1", ("disk", None, "Fast Disk", "Fast_Disk_1")),
        ("cciss!c0d0", ("disk", None, None, None)),
        ("loop0", ("disk", None, None, None)),
        ("md127", ("disk", None, None, None)),
        ("dm-0", ("disk", None, None, SERIAL)),
        ("dm-2", ("disk", None, None, None)),
        ("dm-10", ("disk", None, None, None)),
    ],
)
def test_what_carries_storage(host: Host, name: str, told: tuple[str | None, ...]) -> None:
    """Drives whose type udev or the node's name tells, and maps, arrays and bound loops as disks."""
    found = storage_of(host, name)
    assert (found.drive_type, found.vendor, found.model, found.serial) == told
    assert found.size_bytes is not None


def test_a_dasd_is_named_by_the_uid_that_libvirt_takes_for_its_serial(host: Host) -> None:
    """There is no serial in udev for a DASD; every other disk has libvirt's rule."""
    assert storage.naming(disk(host, "dasda"), host) == "block_dasda_IBM.750000000DXP71.1500.20"
    assert storage.naming(disk(host, "sda"), host) is None


# Block


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sda1", "partition"),
        ("sdc", "disk"),
        ("sdd", "disk"),
        ("xvda", "disk"),
        ("nvme0c3n1", "nvme-path"),
        ("zram0", "zram"),
        ("ram0", "ram"),
        ("md126", "md"),
        ("md125", "md"),
        ("dm-1", "mpath-partition"),
        ("dm-3", "lvm-internal"),
        ("dm-4", "lvm-internal"),
        ("dm-5", "lvm-internal"),
        ("dm-6", "lvm"),
        ("dm-7", "crypt"),
        ("dm-8", "dm"),
        ("dm-9", "lvm-internal"),
        ("dm-11", "dmraid"),
        ("dm-12", "lvm"),
        ("dm-13", "dm-partition"),
        ("dm-14", "lvm"),
    ],
)
def test_every_other_block_device_has_a_kind(host: Host, name: str, kind: str) -> None:
    """What libvirt drops is listed, told apart by DEVTYPE, dm uuid, dm name and kernel name."""
    assert block_of(host, name).kind == kind
    assert storage.probe(disk(host, name), scene(host)) is None


def test_an_unbound_loop_node_is_no_device(host: Host) -> None:
    """The nodes of the loop module without a file stand for nothing."""
    assert probed(host, disk(host, "loop1")) == []


def test_a_partition_takes_its_queue_from_its_disk(host: Host) -> None:
    """Block sizes are the disk's; the name's escapes are decoded, bytes that are no UTF-8 kept."""
    assert block_of(host, "sda1") == Block(
        block="/dev/sda1",
        kind="partition",
        size_bytes=4 << 20,
        logical_block_size=4096,
        physical_block_size=4096,
        read_only=False,
        rotational=True,
        partition=Partition(
            number=1,
            start_bytes=1 << 20,
            uuid="a7e0-01",
            type="c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            name="EFI system\N{NO-BREAK SPACE}\udcff",
        ),
    )


def test_a_kpartx_partition_is_told_by_uuid_and_table(host: Host) -> None:
    """Its number is in the uuid, its start in the linear table, and it is a partition of the map."""
    found = block_of(host, "dm-1")
    assert found.partition == Partition(number=2, start_bytes=1024 * 512, name="data")
    assert found.device_mapper == DeviceMapper(
        name="mpatha-part2",
        uuid=f"part2-mpath-{SERIAL}",
        state="suspended",
        open_count=1,
        targets=("linear",),
    )
    facts = disk(host, "dm-1")
    assert [(kind, member.kernel_name) for kind, member in block.members(facts, host)] == [
        ("partition", "dm-0")
    ]


def test_a_dm_device_is_found_by_name_and_uuid(host: Host) -> None:
    """A device-mapper device of any kind goes by its dm name and uuid, another block device by neither."""
    assert block_of(host, "dm-1").handles() == ("mpatha-part2", f"part2-mpath-{SERIAL}")
    assert block_of(host, "sda1").handles() == ()


def test_a_tables_target_types_are_given_once_each(host: Host) -> None:
    """A volume of several linear segments is linear."""
    found = block_of(host, "dm-6").device_mapper
    assert found is not None
    assert found.targets == ("linear",)


def test_a_hidden_path_has_no_node(host: Host) -> None:
    """It is known by its controller and namespace."""
    found = block_of(host, "nvme0c3n1")
    assert (found.block, found.hidden) == (None, True)
    assert found.nvme == Nvme(controller="nvme3", namespace_id=1, ana_state="optimized")


def test_a_dm_device_without_a_table_says_so(host: Host) -> None:
    """Without its table an LVM RAID volume looks like any other: a note, not a guess."""
    here = scene(host)
    found = block.probe(disk(host, "dm-12"), here)
    assert found is not None
    assert found.kind == "lvm"
    assert [note.source for note in here.notes] == ["dm"]


def test_dm_devices_are_named_with_their_uuid(host: Host) -> None:
    """Only those that are no more than block: maps and arrays have names of their own."""
    names = {name: block.naming(disk(host, name), host) for name in ("dm-0", "dm-1", "dm-2", "dm-8", "sda1")}
    assert names == {
        "dm-0": None,
        "dm-1": f"block_dm-1_part2-mpath-{SERIAL}",
        "dm-2": None,
        "dm-8": None,
        "sda1": None,
    }


# Device-mapper


def test_raid_is_told_by_table_or_uuid(host: Host) -> None:
    """A raid volume and a dmraid set are arrays; LVM's parts, a pvmove and partitions are not."""
    arrays = [facts.kernel_name for facts in host if facts.subsystem == "block" and _dm.is_raid(facts, host)]
    assert sorted(arrays) == ["dm-10", "dm-2"]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=120))
def test_any_uuid_has_a_kind_or_none(text: str) -> None:
    """Whatever a tool gives for a uuid, its prefix is told without an error."""
    facts = DeviceFacts("/devices/virtual/block/dm-0", "block", {}, {"dm/name": text, "dm/uuid": text}, {})
    kind = _dm.uuid_kind(facts)
    assert kind is None or text.strip().startswith(kind)
    assert _dm.is_multipath(facts) == text.startswith("mpath-")
    assert isinstance(block.kind_of(facts), str)
