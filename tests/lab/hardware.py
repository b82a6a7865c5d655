"""The storage hardware that a guest has, as QEMU arguments."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Lun:
    """A SCSI disk that several adapters present, under one serial and WWN."""

    serial: str
    wwn: int
    adapters: tuple[int, ...]
    size_mib: int = 128
    block_size: int = 512


LUNS = (
    Lun("LUN0", 0x500A0980000000A0, (0, 1)),
    Lun("LUN1", 0x500A0980000000A1, (0, 1)),
    Lun("LUN2", 0x500A0980000000A2, (0, 1)),
    Lun("LUN3", 0x500A0980000000A3, (0, 1, 2, 3), size_mib=256),
    Lun("LUN4", 0x500A0980000000A4, (0, 1, 2, 3), size_mib=256),
    Lun("LUN5", 0x500A0980000000A5, (0, 1), block_size=4096),
)


def _disk(path: Path, size_mib: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size_mib << 20)
    return path


def _drive(name: str, path: Path) -> list[str]:
    # Two drives on one file stay coherent through the machine's page cache: the raw format has none itself.
    return ["-drive", f"id={name},file={path},format=raw,if=none,file.locking=off,cache=unsafe"]


def san(folder: Path) -> list[str]:
    """The storage hardware as QEMU arguments; each PCI address is given, so that device names are stable."""
    disks = folder / "disks"
    arguments = []
    for adapter in range(4):
        arguments += ["-device", f"virtio-scsi-pci,id=hba{adapter},addr=0x{4 + adapter:x}"]
    for number, lun in enumerate(LUNS):
        image = _disk(disks / f"{lun.serial}.img", lun.size_mib)
        for adapter in lun.adapters:
            name = f"{lun.serial}-{adapter}"
            device = (
                f"scsi-hd,id={name},bus=hba{adapter}.0,drive=drive-{name},channel=0,scsi-id=0,lun={number},"
                f"serial={lun.serial},wwn=0x{lun.wwn:x},vendor=ACME,product=SAN-LUN,share-rw=on,"
                f"logical_block_size={lun.block_size},physical_block_size={lun.block_size}"
            )
            arguments += [*_drive(f"drive-{name}", image), "-device", device]
    arguments += [
        *_drive("drive-nvme", _disk(disks / "nvme.img", 128)),
        "-device",
        "nvme-subsys,id=sub0,nqn=sub0",
    ]
    for controller in range(2):
        arguments += [
            "-device",
            f"nvme,serial=NVM0,subsys=sub0,id=nvme{controller},addr=0x{8 + controller:x}",
        ]
    arguments += ["-device", "nvme-ns,drive=drive-nvme,bus=nvme0,nsid=1,shared=on"]
    medium = _disk(disks / "medium.img", 4)
    subprocess.run(["mke2fs", "-q", "-F", "-L", "MEDIUM", medium], check=True)
    arguments += [
        *_drive("drive-cd0", medium),
        "-device",
        "ide-cd,id=cd0,bus=ide.1,unit=0,drive=drive-cd0,serial=CD0",
    ]
    arguments += ["-device", "ide-cd,id=cd1,bus=ide.1,unit=1,serial=CD1"]  # an empty drive
    return arguments


def plain(folder: Path) -> list[str]:
    """A machine without a SAN as QEMU arguments: SATA disk, NVMe disk, USB stick, empty CD drive."""
    disks = folder / "disks"
    return [
        *_drive("drive-sata", _disk(disks / "sata.img", 512)),
        *("-device", "ahci,id=sata,addr=0x4"),
        *("-device", "ide-hd,bus=sata.0,drive=drive-sata,serial=SATA0,wwn=0x500a0980000000b0"),
        *_drive("drive-nvme", _disk(disks / "nvme.img", 128)),
        *("-device", "nvme,serial=NVME0,drive=drive-nvme,addr=0x5"),
        *_drive("drive-usb", _disk(disks / "usb.img", 32)),
        *("-device", "qemu-xhci,id=usb,addr=0x6"),
        *("-device", "usb-storage,bus=usb.0,port=1,drive=drive-usb,serial=USB0,removable=on"),
        *("-device", "ide-cd,bus=ide.1,unit=0,serial=CD0"),
    ]
