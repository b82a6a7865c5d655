"""Builds a sysfs and a udev database in a folder, laid out as the kernel and udevd do."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import relpath
from pathlib import Path

from nodedev.facts.live import LiveSource

BUSES = frozenset({"scsi", "pci", "virtio", "platform"})

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "block": (
        "size",
        "ro",
        "absent",
        "queue/rotational",
        "dm/uuid",
        "loop/backing_file",
        "md/level",
        "md/dev-*/state",
        "md/rd*",
        "partition",
    ),
    "scsi": ("vendor", "vpd_pg80"),
    "iscsi_session": ("targetname",),
    "pci": ("vendor", "iommu_group/devices/*"),
}


class Tree:
    """A host's sysfs and udev database below one folder."""

    def __init__(self, folder: Path) -> None:
        self.sysfs = folder / "sys"
        self.database = folder / "udev"
        self.proc = folder / "proc"
        for made in (self.sysfs / "devices", self.database, self.proc / "self"):
            made.mkdir(parents=True)

    def source(self, attributes: Mapping[str, tuple[str, ...]] = ATTRIBUTES) -> LiveSource:
        """The tree as a live host."""
        return LiveSource(attributes, sysfs=str(self.sysfs), database=str(self.database))

    def device(
        self,
        path: str,
        subsystem: str,
        uevent: Mapping[str, str] | None = None,
        attributes: Mapping[str, str | bytes] | None = None,
        links: Mapping[str, str] | None = None,
        *,
        udev: str | None = None,
    ) -> str:
        """Makes a device; a link's value is the sysfs path that it leads to."""
        folder = self.sysfs / path.lstrip("/")
        folder.mkdir(parents=True)
        kernel = dict(uevent or {})
        (folder / "uevent").write_text("".join(f"{name}={value}\n" for name, value in kernel.items()))
        for name, value in (attributes or {}).items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(value if isinstance(value, bytes) else f"{value}\n".encode())
        for name, target in (links or {}).items():
            self.link(folder / name, self.sysfs / target.lstrip("/"))
        members = f"bus/{subsystem}/devices" if subsystem in BUSES else f"class/{subsystem}"
        home = f"bus/{subsystem}" if subsystem in BUSES else f"class/{subsystem}"
        (self.sysfs / members).mkdir(parents=True, exist_ok=True)
        self.link(folder / "subsystem", self.sysfs / home)
        self.link(self.sysfs / members / folder.name, folder)
        name = f"+{subsystem}:{folder.name}"
        if "MAJOR" in kernel:
            number = f"{kernel['MAJOR']}:{kernel['MINOR']}"
            self.link(self.sysfs / "dev" / "block" / number, folder)
            name = f"b{number}"
        if udev is not None:
            (self.database / name).write_text(udev)
        return path

    def block(
        self,
        path: str,
        number: str,
        attributes: Mapping[str, str | bytes] | None = None,
        links: Mapping[str, str] | None = None,
        *,
        udev: str | None = "I:1\n",
        devtype: str = "disk",
    ) -> str:
        """Makes a block device with its queue."""
        major, minor = number.split(":")
        name = path.rpartition("/")[2]
        uevent = {
            "MAJOR": major,
            "MINOR": minor,
            "DEVNAME": name.replace("!", "/"),
            "DEVTYPE": devtype,
        }
        own = {"dev": number, "size": "2048", "ro": "0"}
        if devtype == "disk":
            own["queue/rotational"] = "1"
        return self.device(path, "block", uevent, {**own, **(attributes or {})}, links, udev=udev)

    @staticmethod
    def link(link: Path, target: Path) -> None:
        """Makes a relative link, as sysfs has them."""
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(relpath(target, link.parent))


SDA = "/devices/pci0000:00/0000:00:04.0/host0/target0:0:0/0:0:0:0/block/sda"
DM0 = "/devices/virtual/block/dm-0"
MD0 = "/devices/virtual/block/md0"
LOOP0 = "/devices/virtual/block/loop0"
CCISS = "/devices/pci0000:00/0000:00:04.0/cciss0/c0d0/block/cciss!c0d0"
SESSION = "/devices/platform/host1/session1/iscsi_session/session1"


def storage(folder: Path) -> Tree:
    """A host with one of each: a path disk with partitions, a map, an array, a loop device, a session."""
    tree = Tree(folder)
    pci = tree.device(
        "/devices/pci0000:00/0000:00:04.0",
        "pci",
        {"DRIVER": "ahci", "PCI_SLOT_NAME": "0000:00:04.0"},
        {"vendor": "0x1af4", "config": b"\xf4\x1a" * 128, "power/control": "auto"},
        {"driver": "bus/pci/drivers/ahci", "iommu_group": "kernel/iommu_groups/3"},
        udev="I:1\nE:ID_VENDOR_FROM_DATABASE=Red Hat\n",
    )
    tree.link(tree.sysfs / "kernel/iommu_groups/3/devices/0000:00:04.0", tree.sysfs / pci.lstrip("/"))
    tree.device(
        SDA.removesuffix("/block/sda"),
        "scsi",
        {"DEVTYPE": "scsi_device"},
        {"vendor": 'A"C\\E  ', "vpd_pg80": b"\x00\x80\x00\x04LUN0", "rev": "é"},
        udev="",
    )
    tree.block(
        SDA,
        "8:0",
        {"holders/.keep": "", "slaves/.keep": ""},
        {"holders/dm-0": DM0, "device": SDA.removesuffix("/block/sda")},
        udev="S:disk/by-path/pci-0\nS:disk/by-id/wwn-0x5\nI:31\nL:-5\nE:ID_SERIAL=360\nE:TAGS=:systemd:\nG:systemd\nQ:systemd\nV:1\n",
    )
    for number in (1, 2, 10):
        tree.block(f"{SDA}/sda{number}", f"8:{number}", {"partition": str(number)}, devtype="partition")
    tree.block(
        DM0, "253:0", {"dm/uuid": "mpath-360"}, {"slaves/sda": SDA}, udev="I:2\nE:DM_NAME=odd\\x20name\n"
    )
    tree.block(
        MD0,
        "9:0",
        {"md/level": "raid1", "md/dev-sda1/state": "in_sync", "md/dev-sda10/state": "faulty\nspare"},
        {"md/rd0": f"{MD0}/md/dev-sda1"},
    )
    tree.block(LOOP0, "7:0", {"loop/backing_file": b"/srv/\xff odd\tname\n"}, udev=None)
    tree.block(CCISS, "104:0")
    tree.device(
        SESSION,
        "iscsi_session",
        None,
        {"targetname": "iqn.2026-11.com.example:t", "password": "geheim", "username_in": "wer"},
    )
    (tree.proc / "self" / "mountinfo").write_text(
        "25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=continue\n"
        "30 25 0:40 / /mnt rw - cifs //joe:geheim@nas/x ro,username=joe,password=geheim\n"
    )
    (tree.proc / "swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")
    return tree
