"""A synthetic SAN host of any size, from a seed: the same arguments give the same bytes.

LUNs over four paths with a map each (two in three over Fibre Channel, the others over iSCSI), MD
mirrors of SAS disks, LVM mirrors on maps, and loop devices over files. `stanzas` gives the devices
one at a time, `record` writes them as a recording, `tests.bench.tree` as a tree to read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from nodedev.facts.umockdev import Stanza, write

DM_MAJOR, MD_MAJOR, LOOP_MAJOR, SG_MAJOR, BSG_MAJOR = 253, 9, 7, 21, 248
_SD_MAJORS = (8, *range(65, 72), *range(128, 136))
_PCI = "/devices/pci0000:3a/0000:3a:00.0"
_FC_HOSTS, _ISCSI_HOSTS, _SAS_HOST = (1, 2), (3, 4, 5, 6), 7
_PORTS = 2
_ARRAY_DISKS = 2
_MIRROR_DEVICES = 5

_QUEUE = {
    "add_random": "0",
    "dax": "0",
    "discard_granularity": "4096",
    "discard_max_bytes": "1073741824",
    "discard_zeroes_data": "0",
    "hw_sector_size": "512",
    "logical_block_size": "512",
    "max_sectors_kb": "1280",
    "minimum_io_size": "4096",
    "nr_requests": "256",
    "optimal_io_size": "65536",
    "physical_block_size": "4096",
    "read_ahead_kb": "128",
    "rotational": "0",
    "rq_affinity": "1",
    "scheduler": "[none] mq-deadline ",
    "write_cache": "write back",
    "write_same_max_bytes": "0",
    "zoned": "none",
}
_BLOCK = {
    "alignment_offset": "0",
    "discard_alignment": "0",
    "ext_range": "256",
    "hidden": "0",
    "inflight": "       0        0",
    "range": "16",
    "removable": "0",
    "ro": "0",
    "stat": "     208        0    10174      891        1        0        0        9        0      852",
    **{f"queue/{name}": value for name, value in _QUEUE.items()},
}
_BLOCK_BYTES = {name: f"{value}\n".encode() for name, value in _BLOCK.items()}


def letters(number: int) -> str:
    """How sd and multipath count: a, b, ... z, aa."""
    text = ""
    while number >= 0:
        number, last = divmod(number, 26)
        text = chr(97 + last) + text
        number -= 1
    return text


def sd_number(index: int) -> str:
    """The "MAJOR:MINOR" that the kernel's sd.c gives the disk of that index."""
    return f"{_SD_MAJORS[index >> 4 & 15]}:{(index & 15) << 4 | index & 0xFFF00}"


@dataclass(frozen=True, slots=True)
class Disk:
    """One SCSI disk: where it stands, and what udev finds in its INQUIRY."""

    index: int
    scsi: str
    address: str
    wwid: str
    sectors: int
    id_path: str
    holder: str

    @property
    def name(self) -> str:
        """The kernel name."""
        return f"sd{letters(self.index)}"

    @property
    def path(self) -> str:
        """The sysfs path."""
        return f"{self.scsi}/block/{self.name}"

    @property
    def number(self) -> str:
        """The "MAJOR:MINOR"."""
        return sd_number(self.index)


@dataclass(frozen=True, slots=True)
class Mapped:
    """One device-mapper device."""

    minor: int
    name: str
    uuid: str
    sectors: int
    table: str
    status: str
    slaves: tuple[str, ...]
    holders: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The sysfs path."""
        return f"/devices/virtual/block/dm-{self.minor}"


class San:
    """The whole host: `blocks` block devices, each LUN over `paths` paths."""

    def __init__(self, blocks: int, *, paths: int = 4, seed: int = 1, failed_permille: int = 5) -> None:
        self.paths = paths
        self.seed = seed
        self.failed_permille = failed_permille
        self.arrays = blocks // 200
        self.mirrors = blocks // 500
        loops = blocks // 50
        rest = blocks - loops - self.arrays * (1 + _ARRAY_DISKS) - self.mirrors * _MIRROR_DEVICES
        self.luns, left = divmod(rest, paths + 1)
        self.loops = loops + left
        self.blocks = blocks

    @cached_property
    def wwids(self) -> tuple[str, ...]:
        """The LUNs' and then the local disks' NAA names, with the 3 that scsi_id puts before them."""
        random = Random(self.seed)
        return tuple(
            f"3600a0980{random.getrandbits(96):024x}" for _ in range(self.luns + self.arrays * _ARRAY_DISKS)
        )

    def sectors(self, lun: int) -> int:
        """The size of a LUN."""
        return 1 << (21 + Random(self.seed * 1_000_003 + lun).randrange(6))

    def lun_paths(self, lun: int) -> Iterator[Disk]:
        """The disks that lead to a LUN."""
        holder, wwid = f"virtual/block/dm-{lun}", self.wwids[lun]
        for turn in range(self.paths):
            unit = lun if lun < 256 else 0x4000 | lun
            if lun % 3:
                host = _FC_HOSTS[turn % len(_FC_HOSTS)]
                target = turn // len(_FC_HOSTS) % _PORTS
                above = f"{_PCI}/0000:3b:00.{host - 1}/host{host}/rport-{host}:0-{target}"
                id_path = f"pci-0000:3b:00.{host - 1}-fc-0x{_wwpn(host, target)}-lun-{unit}"
            else:
                host, target = _ISCSI_HOSTS[turn % len(_ISCSI_HOSTS)], 0
                above = f"/devices/platform/host{host}/session{host}"
                id_path = f"ip-10.0.{host}.1:3260-iscsi-{_IQN}-lun-{unit}"
            address = f"{host}:0:{target}:{unit}"
            scsi = f"{above}/target{host}:0:{target}/{address}"
            yield Disk(lun * self.paths + turn, scsi, address, wwid, self.sectors(lun), id_path, holder)

    def array_disks(self, array: int) -> Iterator[Disk]:
        """The local disks of an MD mirror."""
        for slot in range(_ARRAY_DISKS):
            number = array * _ARRAY_DISKS + slot
            index = self.luns * self.paths + number
            above = f"{_PCI}/0000:3b:01.0/host{_SAS_HOST}/port-{_SAS_HOST}:{number}"
            address = f"{_SAS_HOST}:0:{number}:0"
            scsi = f"{above}/end_device-{_SAS_HOST}:{number}/target{_SAS_HOST}:0:{number}/{address}"
            id_path = f"pci-0000:3b:01.0-sas-phy{number}-lun-0"
            wwid = self.wwids[self.luns + number]
            yield Disk(index, scsi, address, wwid, 1 << 22, id_path, f"virtual/block/md{array}")

    def failed(self, disk: Disk) -> bool:
        """Whether the path is down."""
        return Random(self.seed * 7_919 + disk.index).randrange(1000) < self.failed_permille

    def map_of(self, lun: int) -> Mapped:
        """A LUN's multipath map: two groups, the first optimized."""
        disks = list(self.lun_paths(lun))
        groups = [group for group in (disks[::2], disks[1::2]) if group]
        table = [f"1 queue_if_no_path 1 alua {len(groups)} 1"]
        status = [f"2 0 1 0 {len(groups)} 1"]
        for turn, group in enumerate(groups):
            table.append(f"service-time 0 {len(group)} 2 " + " ".join(f"{disk.number} 1 1" for disk in group))
            states = " ".join(f"{disk.number} {'F 1' if self.failed(disk) else 'A 0'} 0 1" for disk in group)
            status.append(f"{'E' if turn else 'A'} 0 {len(group)} 2 {states}")
        wwid, above = self.wwids[lun], lun // 2
        return Mapped(
            lun,
            f"mpath{letters(lun)}",
            f"mpath-{wwid}",
            self.sectors(lun),
            f"multipath {' '.join(table)} ",
            f"multipath {' '.join(status)} ",
            tuple(disk.path for disk in disks),
            tuple(f"virtual/block/dm-{minor}" for minor in self._legs(above)[lun % 2 :: 2])
            if above < self.mirrors
            else (),
            (f"disk/by-id/scsi-{wwid}", f"disk/by-id/wwn-0x{wwid[1:]}"),
        )

    def _legs(self, mirror: int) -> range:
        first = self.luns + mirror * _MIRROR_DEVICES
        return range(first, first + _MIRROR_DEVICES - 1)

    def mirror(self, mirror: int) -> Iterator[Mapped]:
        """An LVM mirror on two maps: rmeta and rimage on each, and the volume over them."""
        legs, vg = self._legs(mirror), f"vg{mirror}"
        group = f"LVM-{Random(self.seed * 31 + mirror).getrandbits(128):032x}"
        top = legs.stop
        parts = [f"{kind}_{slot}" for kind in ("rmeta", "rimage") for slot in (0, 1)]
        for minor, part in zip(legs, parts, strict=True):
            sectors, start = (8192, 2048) if "meta" in part else (40960, 10240)
            lun = mirror * 2 + int(part[-1])
            yield Mapped(
                minor,
                f"{vg}-data_{part}",
                f"{group}{minor:032x}",
                sectors,
                f"linear {DM_MAJOR}:{lun} {start}",
                "linear ",
                (f"/devices/virtual/block/dm-{lun}",),
                (f"virtual/block/dm-{top}",),
            )
        meta0, meta1, image0, image1 = (f"{DM_MAJOR}:{minor}" for minor in legs)
        yield Mapped(
            top,
            f"{vg}-data",
            f"{group}{top:032x}",
            40960,
            f"raid raid1 3 0 region_size 4096 2 {meta0} {image0} {meta1} {image1}",
            "raid raid1 2 AA 40960/40960 idle 0 0 -",
            tuple(f"/devices/virtual/block/dm-{minor}" for minor in legs),
            links=(f"{vg}/data",),
        )

    def maps(self) -> Iterator[Mapped]:
        """Every device-mapper device."""
        yield from map(self.map_of, range(self.luns))
        for mirror in range(self.mirrors):
            yield from self.mirror(mirror)

    def disks(self) -> Iterator[Disk]:
        """Every SCSI disk."""
        for lun in range(self.luns):
            yield from self.lun_paths(lun)
        for array in range(self.arrays):
            yield from self.array_disks(array)


_IQN = "iqn.2026-11.com.example:san"


def _wwpn(host: int, port: int) -> str:
    return f"20{host * _PORTS + port:02x}d039ea000001"


def stanzas(san: San) -> Iterator[Stanza]:
    """Every device of the host, one at a time, parents first."""
    yield from _adapters(san)
    targets: set[str] = set()
    for disk in san.disks():
        target = disk.scsi.rpartition("/")[0]
        if target not in targets:
            targets.add(target)
            yield _stanza(target, "scsi", {"DEVTYPE": "scsi_target"})
        yield from _disk(san, disk)
    for mapped in san.maps():
        yield _mapped(mapped, san)
    for array in range(san.arrays):
        yield _array(array, list(san.array_disks(array)))
    yield from map(_loop, range(san.loops))


def _stanza(
    path: str,
    subsystem: str,
    properties: Mapping[str, str] = {},
    attributes: Mapping[str, str] = {},
    symlinks: Mapping[str, str] = {},
    node: str | None = None,
    number: str | None = None,
    links: Iterable[str] = (),
    shared: Mapping[str, bytes] = {},
) -> Stanza:
    every = {**properties, "SUBSYSTEM": subsystem}
    links = tuple(f"/dev/{link}" for link in links)
    content = {**shared, **{name: f"{value}\n".encode() for name, value in attributes.items()}}
    if node and number:
        every["DEVNAME"] = f"/dev/{node}"
        every["MAJOR"], every["MINOR"] = number.split(":")
        content["dev"] = f"{number}\n".encode()
    if links:
        every["DEVLINKS"] = " ".join(links)
    return Stanza(path, f"/dev/{node}" if node else None, links, every, content, dict(symlinks))


def _class(base: str, subsystem: str, attributes: Mapping[str, str]) -> Stanza:
    """A class device under the object of the same name."""
    name = base.rpartition("/")[2]
    return _stanza(f"{base}/{subsystem}/{name}", subsystem, {}, attributes, {"device": f"../../../{name}"})


def _pci(path: str, identity: str, class_: str, driver: str) -> Stanza:
    slot = path.rpartition("/")[2]
    vendor, device = identity.split(":")
    properties = {
        "DRIVER": driver,
        "PCI_CLASS": class_,
        "PCI_ID": identity,
        "PCI_SUBSYS_ID": identity,
        "PCI_SLOT_NAME": slot,
        "ID_PATH": f"pci-{slot}",
        "MODALIAS": f"pci:v0000{vendor}d0000{device}",
    }
    attributes = {"class": f"0x{class_.lower():>06}", "vendor": f"0x{vendor.lower()}", "numa_node": "0"}
    attributes["device"] = f"0x{device.lower()}"
    return _stanza(
        path,
        "pci",
        properties,
        attributes,
        {"driver": f"{'../' * path.count('/')}bus/pci/drivers/{driver}"},
    )


def _adapters(san: San) -> Iterator[Stanza]:
    dmi = {"sys_vendor": "ACME", "product_name": "SAN Host", "product_serial": "1", "bios_vendor": "ACME"}
    yield _stanza("/devices/virtual/dmi/id", "dmi", {}, dmi)
    yield _pci(_PCI, "8086:2030", "60400", "pcieport")
    for host in _FC_HOSTS:
        pci = f"{_PCI}/0000:3b:00.{host - 1}"
        yield _pci(pci, "10DF:F400", "C0400", "lpfc")
        yield from _scsi_host(f"{pci}/host{host}", {"proc_name": "lpfc"})
        ports = {"node_name": f"0x200000109b00000{host}", "port_name": f"0x100000109b00000{host}"}
        ports |= {"fabric_name": "0x1000c4f57c000001", "max_npiv_vports": "255", "npiv_vports_inuse": "0"}
        yield _class(f"{pci}/host{host}", "fc_host", ports)
        for port in range(_PORTS):
            names = {"port_name": f"0x{_wwpn(host, port)}", "node_name": "0x2000d039ea000001"}
            names["port_state"] = "Online"
            yield _class(f"{pci}/host{host}/rport-{host}:0-{port}", "fc_remote_ports", names)
    for host in _ISCSI_HOSTS:
        base = f"/devices/platform/host{host}"
        yield from _scsi_host(base, {"proc_name": "iscsi_tcp"})
        yield _class(base, "iscsi_host", {"ipaddress": f"10.0.{host}.100"})
        session = {"targetname": _IQN, "state": "LOGGED_IN"}
        yield _class(f"{base}/session{host}", "iscsi_session", session)
        portal = {"persistent_address": f"10.0.{host}.1", "persistent_port": "3260"}
        portal |= {"address": f"10.0.{host}.1", "port": "3260"}
        yield _class(f"{base}/session{host}/connection{host}:0", "iscsi_connection", portal)
    pci = f"{_PCI}/0000:3b:01.0"
    yield _pci(pci, "1000:0097", "10700", "mpt3sas")
    base = f"{pci}/host{_SAS_HOST}"
    yield from _scsi_host(base, {"proc_name": "mpt3sas", "host_sas_address": "0x500605b000000001"})
    for number in range(san.arrays * _ARRAY_DISKS):
        end_device = f"{base}/port-{_SAS_HOST}:{number}/end_device-{_SAS_HOST}:{number}"
        yield _class(end_device, "sas_device", {"sas_address": f"0x5000c500{number:08x}"})


def _scsi_host(base: str, attributes: Mapping[str, str]) -> Iterator[Stanza]:
    yield _stanza(base, "scsi", {"DEVTYPE": "scsi_host"})
    number = base.rpartition("/host")[2]
    yield _class(base, "scsi_host", {"unique_id": number, "state": "running", **attributes})


def _disk(san: San, disk: Disk) -> Iterator[Stanza]:
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
    yield _stanza(disk.scsi, "scsi", scsi, attributes, driver)
    generic, bsg = f"sg{disk.index}", disk.address
    device = {"device": f"../../../{disk.address}"}
    yield _stanza(
        f"{disk.scsi}/scsi_generic/{generic}",
        "scsi_generic",
        symlinks=device,
        node=generic,
        number=f"{SG_MAJOR}:{disk.index}",
    )
    yield _stanza(
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
    yield _stanza(
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
        _BLOCK_BYTES,
    )


def _related(paths: Iterable[str], folder: str) -> dict[str, str]:
    """The links to related devices from one of /devices/virtual/block."""
    return {
        f"{folder}/{path.rpartition('/')[2]}": f"../../../../{path.removeprefix('/devices/')}"
        for path in paths
    }


def _mapped(mapped: Mapped, san: San) -> Stanza:
    properties = {
        "DEVTYPE": "disk",
        "DISKSEQ": str(san.blocks * 2 + mapped.minor),
        "DM_ACTIVATION": "1",
        "DM_NAME": mapped.name,
        "DM_SUSPENDED": "0",
        "DM_UDEV_PRIMARY_SOURCE_FLAG": "1",
        "DM_UDEV_RULES": "1",
        "DM_UDEV_RULES_VSN": "2",
        "DM_UUID": mapped.uuid,
        "TAGS": ":systemd:",
    }
    if mapped.uuid.startswith("mpath-"):
        wwid = mapped.uuid.removeprefix("mpath-")
        properties |= {"DM_SERIAL": wwid, "DM_TYPE": "scsi", "DM_WWN": f"0x{wwid[1:]}"}
        properties["MPATH_DEVICE_READY"] = "1"
    attributes = {
        "size": str(mapped.sectors),
        "diskseq": properties["DISKSEQ"],
        "dm/name": mapped.name,
        "dm/uuid": mapped.uuid,
        "dm/suspended": "0",
    }
    links = [
        f"mapper/{mapped.name}",
        f"disk/by-id/dm-name-{mapped.name}",
        f"disk/by-id/dm-uuid-{mapped.uuid}",
    ]
    return _stanza(
        mapped.path,
        "block",
        properties,
        attributes,
        {**_related(mapped.slaves, "slaves"), **_related(mapped.holders, "holders")},
        f"dm-{mapped.minor}",
        f"{DM_MAJOR}:{mapped.minor}",
        [*links, *mapped.links],
        _BLOCK_BYTES,
    )


def _array(number: int, disks: list[Disk]) -> Stanza:
    uuid = f"{number:08x}-0000-4000-8000-00000000beef"
    attributes = {
        "size": str(disks[0].sectors - 2048),
        "md/array_state": "clean",
        "md/level": "raid1",
        "md/raid_disks": str(len(disks)),
        "md/metadata_version": "1.2",
        "md/uuid": uuid,
        "md/degraded": "0",
        "md/chunk_size": "0",
        "md/layout": "0",
        "md/consistency_policy": "resync",
        "md/resync_start": "none",
        "md/sync_action": "idle",
        "md/sync_completed": "none",
        "md/sync_speed": "none",
        "md/mismatch_cnt": "0",
    }
    symlinks = _related([disk.path for disk in disks], "slaves")
    for slot, disk in enumerate(disks):
        attributes[f"md/dev-{disk.name}/slot"] = str(slot)
        attributes[f"md/dev-{disk.name}/state"] = "in_sync"
        attributes[f"md/dev-{disk.name}/errors"] = "0"
        symlinks[f"md/rd{slot}"] = f"dev-{disk.name}"
    properties = {"DEVTYPE": "disk", "MD_LEVEL": "raid1", "MD_UUID": uuid.replace("-", ":")}
    return _stanza(
        f"/devices/virtual/block/md{number}",
        "block",
        {**properties, "MD_DEVNAME": f"array{number}"},
        attributes,
        symlinks,
        f"md{number}",
        f"{MD_MAJOR}:{number}",
        [f"md/array{number}"],
        _BLOCK_BYTES,
    )


def _loop(number: int) -> Stanza:
    attributes = {
        "size": "131072",
        "loop/backing_file": f"/srv/images/{number}.img",
        "loop/offset": "0",
        "loop/sizelimit": "0",
        "loop/autoclear": "0",
        "loop/partscan": "0",
        "loop/dio": "0",
    }
    return _stanza(
        f"/devices/virtual/block/loop{number}",
        "block",
        {"DEVTYPE": "disk", "DISKSEQ": str(10_000_000 + number)},
        attributes,
        {},
        f"loop{number}",
        f"{LOOP_MAJOR}:{number}",
        (),
        _BLOCK_BYTES,
    )


def _told(san: San, lun: int) -> Mapping[str, object]:
    """What multipathd says of a map, as `show maps json` has it."""
    mapped, groups = san.map_of(lun), []
    disks = list(san.lun_paths(lun))
    for number, group in enumerate(filter(None, (disks[::2], disks[1::2])), 1):
        paths = [
            {
                "dev": disk.name,
                "dev_t": disk.number,
                "dm_st": "failed" if san.failed(disk) else "active",
                "dev_st": "transport-offline" if san.failed(disk) else "running",
                "chk_st": "faulty" if san.failed(disk) else "ready",
                "checker": "tur",
                "pri": 50 if number == 1 else 10,
                "marginal_st": "normal",
            }
            for disk in group
        ]
        groups.append(
            {
                "selector": "service-time 0",
                "pri": 50 if number == 1 else 10,
                "dm_st": "active" if number == 1 else "enabled",
                "marginal_st": "normal",
                "group": number,
                "paths": paths,
            }
        )
    return {
        "name": mapped.name,
        "uuid": san.wwids[lun],
        "sysfs": f"dm-{lun}",
        "failback": "immediate",
        "queueing": "on",
        "paths": sum(not san.failed(disk) for disk in disks),
        "write_prot": "rw",
        "dm_st": "active",
        "features": "1 queue_if_no_path",
        "hwhandler": "1 alua",
        "path_faults": 0,
        "vend": "ACME",
        "prod": "SAN-LUN C-Mode",
        "rev": "9131",
        "path_groups": groups,
    }


def multipathd_json(san: San, luns: Iterable[int]) -> str:
    """What multipathd prints of these LUNs' maps, one key a line as it does."""
    document = {"major_version": 0, "minor_version": 1, "maps": [_told(san, lun) for lun in luns]}
    return json.dumps(document, indent=1, separators=(",", " : "))


def record(san: San, folder: Path) -> None:
    """Writes the host as `nodedev record` does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "host.umockdev").open("wb") as file:
        file.writelines(map(write, stanzas(san)))
    tables, statuses, infos = [], [], []
    for mapped in san.maps():
        tables.append(f"{mapped.name}: 0 {mapped.sectors} {mapped.table}\n")
        statuses.append(f"{mapped.name}: 0 {mapped.sectors} {mapped.status}\n")
        opened = len(mapped.holders)
        infos.append(f"{mapped.name}:{mapped.uuid}:{DM_MAJOR}:{mapped.minor}:{opened}:1:0:L--w\n")
    for name, lines in (("table", tables), ("status", statuses), ("info", infos)):
        (folder / f"dmsetup-{name}.txt").write_text("".join(lines))
    (folder / "multipathd-maps.json").write_text(multipathd_json(san, range(san.luns)))
    (folder / "mountinfo").write_text(f"25 1 {DM_MAJOR}:0 / / rw - ext4 /dev/mapper/mpatha rw\n")
    (folder / "swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")


def main() -> None:
    """Writes a recording from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--paths", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    record(San(wanted.blocks, paths=wanted.paths, seed=wanted.seed), wanted.folder)


if __name__ == "__main__":
    main()
