"""SCSI disks: the target, the device, its generic and bsg nodes, and the block device."""

from __future__ import annotations

from collections.abc import Iterator

from nodedev.facts.umockdev import Stanza
from tests.bench.san.layout import Disk, San
from tests.bench.san.stanza import BLOCK_BYTES, stanza

SG_MAJOR, BSG_MAJOR = 21, 248


def disk_stanzas(san: San, disk: Disk) -> Iterator[Stanza]:
    """One disk with all its nodes; its target comes before."""
    failed = san.failed(disk)
    attributes = {
        "type": "0",
        "vendor": "ACME    ",
        "model": "SAN-LUN C-Mode  ",
        "rev": "9131",
        "state": "transport-offline" if failed else "running",
        "access_state": "active/optimized",
        "queue_depth": "64",
        "scsi_level": "6",
        "timeout": "30",
    }
    up = "../" * disk.scsi.count("/")
    driver = {"driver": f"{up}bus/scsi/drivers/sd", "generic": f"scsi_generic/sg{disk.index}"}
    scsi = {"DEVTYPE": "scsi_device", "DRIVER": "sd", "MODALIAS": "scsi:t-0x00"}
    yield stanza(disk.scsi, "scsi", scsi, attributes, driver)
    generic, bsg = f"sg{disk.index}", disk.address
    device = {"device": f"../../../{disk.address}"}
    yield stanza(
        f"{disk.scsi}/scsi_generic/{generic}",
        "scsi_generic",
        symlinks=device,
        node=generic,
        number=f"{SG_MAJOR}:{disk.index}",
    )
    yield stanza(
        f"{disk.scsi}/bsg/{bsg}",
        "bsg",
        symlinks=device,
        node=f"bsg/{bsg}",
        number=f"{BSG_MAJOR}:{disk.index}",
    )
    naa, serial = disk.wwid[1:], disk.wwid[-12:]
    path = disk.holder.startswith("virtual/block/dm-")
    properties = {
        "DEVTYPE": "disk",
        "DISKSEQ": str(disk.index + 1),
        "ID_BUS": "scsi",
        "ID_FS_TYPE": "mpath_member" if path else "linux_raid_member",
        "ID_MODEL": "SAN-LUN_C-Mode",
        "ID_MODEL_ENC": r"SAN-LUN\x20C-Mode\x20\x20",
        "ID_PATH": disk.id_path,
        "ID_PATH_TAG": disk.id_path.replace(":", "_").replace(".", "_"),
        "ID_REVISION": "9131",
        "ID_SCSI": "1",
        "ID_SCSI_INQUIRY": "1",
        "ID_SCSI_SERIAL": serial,
        "ID_SERIAL": disk.wwid,
        "ID_SERIAL_SHORT": naa,
        "ID_TYPE": "disk",
        "ID_VENDOR": "ACME",
        "ID_VENDOR_ENC": r"ACME\x20\x20\x20\x20",
        "ID_WWN": f"0x{naa[:16]}",
        "ID_WWN_VENDOR_EXTENSION": f"0x{naa[16:]}",
        "ID_WWN_WITH_EXTENSION": f"0x{naa}",
        "SCSI_IDENT_LUN_NAA_REGEXT": naa,
        "SCSI_IDENT_SERIAL": serial,
        "SCSI_MODEL": "SAN-LUN_C-Mode",
        "SCSI_REVISION": "9131",
        "SCSI_TPGS": "1",
        "SCSI_TYPE": "disk",
        "SCSI_VENDOR": "ACME",
        "TAGS": ":systemd:",
    }
    if path:
        properties |= {"DM_MULTIPATH_DEVICE_PATH": "1", "SYSTEMD_READY": "0"}
    yield stanza(
        disk.path,
        "block",
        properties,
        {"size": str(disk.sectors), "diskseq": str(disk.index + 1)},
        {
            **device,
            f"holders/{disk.holder.rpartition('/')[2]}": f"{'../' * disk.path.count('/')}{disk.holder}",
        },
        disk.name,
        disk.number,
        [
            f"disk/by-path/{disk.id_path}",
            f"disk/by-diskseq/{disk.index + 1}",
            f"disk/by-id/scsi-{disk.wwid}",
            f"disk/by-id/scsi-SACME_SAN-LUN_C-Mode_{serial}",
            f"disk/by-id/wwn-0x{naa}",
        ],
        BLOCK_BYTES,
    )
