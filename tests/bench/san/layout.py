"""What a synthetic host has, and where: LUNs over paths, maps, arrays, mirrors, loop devices, from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random

DM_MAJOR = 253
_SD_MAJORS = (8, *range(65, 72), *range(128, 136))
PCI = "/devices/pci0000:3a/0000:3a:00.0"
FC_HOSTS, ISCSI_HOSTS, SAS_HOST = (1, 2), (3, 4, 5, 6), 7
PORTS = 2
ARRAY_DISKS = 2
_MIRROR_DEVICES = 5
IQN = "iqn.2026-11.com.example:san"


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
        rest = blocks - loops - self.arrays * (1 + ARRAY_DISKS) - self.mirrors * _MIRROR_DEVICES
        self.luns, left = divmod(rest, paths + 1)
        self.loops = loops + left
        self.blocks = blocks

    @cached_property
    def wwids(self) -> tuple[str, ...]:
        """The LUNs' and then the local disks' NAA names, with the 3 that scsi_id puts before them."""
        random = Random(self.seed)
        return tuple(
            f"3600a0980{random.getrandbits(96):024x}" for _ in range(self.luns + self.arrays * ARRAY_DISKS)
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
                host = FC_HOSTS[turn % len(FC_HOSTS)]
                target = turn // len(FC_HOSTS) % PORTS
                above = f"{PCI}/0000:3b:00.{host - 1}/host{host}/rport-{host}:0-{target}"
                id_path = f"pci-0000:3b:00.{host - 1}-fc-0x{wwpn(host, target)}-lun-{unit}"
            else:
                host, target = ISCSI_HOSTS[turn % len(ISCSI_HOSTS)], 0
                above = f"/devices/platform/host{host}/session{host}"
                id_path = f"ip-10.0.{host}.1:3260-iscsi-{IQN}-lun-{unit}"
            address = f"{host}:0:{target}:{unit}"
            scsi = f"{above}/target{host}:0:{target}/{address}"
            yield Disk(lun * self.paths + turn, scsi, address, wwid, self.sectors(lun), id_path, holder)

    def array_disks(self, array: int) -> Iterator[Disk]:
        """The local disks of an MD mirror."""
        for slot in range(ARRAY_DISKS):
            number = array * ARRAY_DISKS + slot
            index = self.luns * self.paths + number
            above = f"{PCI}/0000:3b:01.0/host{SAS_HOST}/port-{SAS_HOST}:{number}"
            address = f"{SAS_HOST}:0:{number}:0"
            scsi = f"{above}/end_device-{SAS_HOST}:{number}/target{SAS_HOST}:0:{number}/{address}"
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


def wwpn(host: int, port: int) -> str:
    """The WWPN of a target port behind a Fibre Channel host."""
    return f"20{host * PORTS + port:02x}d039ea000001"
