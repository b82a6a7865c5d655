"""A pool's volumes, as its definition sees the devices.

A volume is one device. Whether a device is a volume of a pool follows from the device and from those it
is related to directly, so that a change of one device costs the work of that device alone.

Every device that a pool is about is a volume or a note of the pool, never silently absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from posixpath import basename

from msgspec import Struct
from msgspec.structs import replace

from nodedev.capabilities.claim import Claim, Reason
from nodedev.capabilities.loop import Loop
from nodedev.capabilities.mpath import Mpath
from nodedev.capabilities.raid import Raid
from nodedev.capabilities.scsi_host import ScsiHost
from nodedev.capabilities.storage import Storage
from nodedev.facts.host import Note
from nodedev.model import Device
from nodedev.pools.definition import BY_ID, BY_PATH, DEV, MAP_FOLDERS, MAPPER, MPATH, Adapter, Definition

Devices = Mapping[str, Device]

SOURCE = "pool"
# Relations that say what a volume is made of; a partition or a volume group says something else.
_MADE_OF = frozenset({"path", "member", "backing"})
# by-id links, those that are the same on every host first; udev gives a disk several.
_STABLE = (
    "dm-uuid-",
    "md-uuid-",
    "wwn-",
    "nvme-eui.",
    "nvme-uuid.",
    "scsi-3",
    "scsi-2",
    "scsi-",
    "ata-",
    "nvme-",
    "virtio-",
    "usb-",
)
_HOST = re.compile(r"(.*)/host(\d+)/")
_PCI = re.compile(r".*/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])(?=/)")
# systemd's udev-builtin-path_id.c, handle_scsi_iscsi
_ISCSI_LINK = re.compile(r"/dev/disk/by-path/(?:.*-)?ip-.+-iscsi-(.+)-lun-(?:\d+|0x[0-9a-f]+)")
_SESSION = re.compile(r"/session\d+/")


class Constituent(Struct, frozen=True):
    """What a volume is made of: how, the device if it is one, and its node or file."""

    kind: str
    device: str | None
    path: str | None


class Volume(Struct, frozen=True):
    """One volume: `name` is the basename of `path`, `key` its identity on any host.

    `stable_path` names this device and no other, also after a reboot. `reasons` are the claims for
    which it may not be given away.
    """

    pool: str
    name: str
    path: str
    stable_path: str
    device: str
    key: str | None
    capacity_bytes: int | None
    read_only: bool
    generation: int | None
    constituents: tuple[Constituent, ...] = ()
    reasons: tuple[Reason, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def available_for_use(self) -> bool:
        """Whether nothing that can be seen speaks against giving it to a guest."""
        return not self.reasons and bool(self.capacity_bytes)


Offer = Volume | Note | None


class View(Struct, frozen=True):
    """All that a pool shows, volumes by name."""

    volumes: Mapping[str, Volume]
    notes: tuple[Note, ...]

    @property
    def capacity_bytes(self) -> int:
        """The volumes' sizes together, as far as they are known."""
        return sum(volume.capacity_bytes or 0 for volume in self.volumes.values())


def view(pool: Definition, devices: Devices) -> View:
    """The pool's volumes among the devices; of two with the same name the first device's."""
    volumes: dict[str, Volume] = {}
    notes: list[Note] = []
    if pool.adapter and not any(_is_adapter(pool.adapter, device) for device in devices.values()):
        notes.append(Note(SOURCE, "the adapter of its source is not on this host"))
    for device in devices.values():
        found = offer(pool, device, devices)
        if isinstance(found, Note):
            notes.append(found)
        elif found and found.name in volumes:
            shared = Note(SOURCE, f"{device.name} has the same name, {found.name}, and is not shown")
            first = volumes[found.name]
            volumes[found.name] = replace(first, notes=(*first.notes, shared))
            notes.append(shared)
        elif found:
            volumes[found.name] = found
    return View(dict(sorted(volumes.items())), tuple(notes))


def offer(pool: Definition, device: Device, devices: Devices) -> Offer:
    """What a device is in a pool: a volume, something to be noted, or nothing."""
    return None if device.inactive else _OFFERS[pool.type](pool, device, devices)


def _maps(pool: Definition, device: Device, devices: Devices) -> Offer:
    found = device.capability("mpath")
    if not isinstance(found, Mpath):
        return None
    if device.devnode is None:
        return Note(SOURCE, f"{device.name} has no block device")
    if found.implementation != "dm" and pool.target in MAP_FOLDERS:
        return Note(
            SOURCE,
            f"{device.name} is native NVMe multipath, without a name in {pool.target}; {BY_ID} has one",
        )
    return _volume(pool, device, devices, _link(device, pool.target))


def _arrays(pool: Definition, device: Device, devices: Devices) -> Offer:
    found = device.capability("raid")
    if not isinstance(found, Raid):
        return None
    if not isinstance(device.capability("storage"), Storage):
        if found.level == "container":
            return None  # what can be used are the arrays in it
        return Note(SOURCE, f"{device.name} is {found.state or 'not running'}, there is nothing to use")
    return _volume(pool, device, devices, _link(device, pool.target))


def _loops(pool: Definition, device: Device, devices: Devices) -> Offer:
    if device.capability("loop") is None:
        return None
    return _volume(pool, device, devices, device.devnode)


def _luns(pool: Definition, device: Device, devices: Devices) -> Offer:
    """A disk of the source, or a map of such disks."""
    if device.capability("mpath"):
        return _lun_map(pool, device, devices)
    if not is_lun(pool, device, devices):
        return None
    above = map_of(device, devices)
    if pool.target in MAP_FOLDERS and above is None:
        return Note(SOURCE, f"{device.name} ({device.devnode}) is a LUN of this pool without a multipath map")
    if above and (pool.target in MAP_FOLDERS or (pool.target == BY_ID and _shared_link(device, above))):
        return None  # its map is there in its place
    return _volume(pool, device, devices, _link(device, pool.target))


def _lun_map(pool: Definition, device: Device, devices: Devices) -> Offer:
    """A map, where the target's names are those of maps; by-id ones are, as far as udev lets it have them."""
    paths = (path for path in _paths(device, devices) if is_lun(pool, path, devices))
    if pool.target in MAP_FOLDERS:
        return _volume(pool, device, devices, _link(device, pool.target)) if any(paths) else None
    if pool.target == BY_ID:
        shared = next(filter(None, (_shared_link(path, device) for path in paths)), None)
        return _volume(pool, device, devices, shared) if shared else None
    return None


_OFFERS: Mapping[str, Callable[[Definition, Device, Devices], Offer]] = {
    "mpath": _maps,
    "raid": _arrays,
    "loop": _loops,
    "scsi": _luns,
    "iscsi": _luns,
}


def _paths(device: Device, devices: Devices) -> Iterator[Device]:
    """The disks that a map is made of."""
    found = (devices.get(member.device) for member in device.members if member.kind == "path")
    return filter(None, found)


def map_of(device: Device, devices: Devices) -> Device | None:
    """The map that a disk is a path of."""
    found = (devices.get(holder.device) for holder in device.holders if holder.kind == "path")
    return next(filter(None, found), None)


def is_lun(pool: Definition, device: Device, devices: Devices) -> bool:
    """Whether the device is a disk of a scsi or iscsi pool's source."""
    storage = device.capability("storage")
    if not isinstance(storage, Storage) or storage.drive_type != "disk" or device.sysfs_path is None:
        return False
    if pool.adapter:
        host = _HOST.match(device.sysfs_path)
        found = devices.get(f"scsi_host{host[2]}") if host else None
        # Without the host's own device, as while it goes, its number in the path is all there is.
        if found is None:
            return host is not None and pool.adapter.number == int(host[2])
        return _is_adapter(pool.adapter, found)
    return pool.iqn is not None and iscsi_target(device, devices) == pool.iqn


def _is_adapter(adapter: Adapter, device: Device) -> bool:
    host = device.capability("scsi_host")
    if not isinstance(host, ScsiHost):
        return False
    if adapter.wwpn:
        port = host.fc_host
        return port is not None and (port.wwnn, port.wwpn) == (adapter.wwnn, adapter.wwpn)
    if adapter.pci:
        found = _PCI.match(device.sysfs_path or "")
        return (
            found is not None
            and found[1] == str(adapter.pci)
            and (adapter.unique_id is None or host.unique_id == adapter.unique_id)
        )
    return adapter.number == host.host


def iscsi_target(device: Device, devices: Devices) -> str | None:
    """The name of the target that a disk's iSCSI session is to; None for one without a session.

    udev's by-path link has it, and where there is none, the disk's place in its map.
    """
    if not _SESSION.search(device.sysfs_path or ""):
        return None
    linked = next(filter(None, map(_ISCSI_LINK.fullmatch, device.links)), None)
    if linked:
        return linked[1]
    above = map_of(device, devices)
    found = above.capability("mpath") if above else None
    for group in found.groups if isinstance(found, Mpath) else ():
        for path in group.paths:
            if path.device == device.name and path.transport:
                return path.transport.target
    return None


def _volume(pool: Definition, device: Device, devices: Devices, link: str | None) -> Offer:
    path = link or device.devnode
    if path is None:
        return Note(SOURCE, f"{device.name} has no block device")
    notes = () if link else (Note(SOURCE, f"it has no name in {pool.target}, and is shown by its node"),)
    storage, claim, loop = (device.capability(type_) for type_ in ("storage", "claim", "loop"))
    return Volume(
        pool=pool.name,
        name=basename(path),
        path=path,
        stable_path=_stable_path(device, path),
        device=device.name,
        key=_key(device) or path,
        capacity_bytes=storage.size_bytes if isinstance(storage, Storage) else None,
        read_only=isinstance(loop, Loop) and loop.read_only is True,
        generation=device.generation,
        constituents=tuple(_constituents(device, devices)),
        reasons=claim.reasons if isinstance(claim, Claim) else (),
        notes=notes,
    )


def _key(device: Device) -> str | None:
    """What the device is on any host; a loop device is the place in a file."""
    mpath, raid, loop, storage = (device.capability(type_) for type_ in ("mpath", "raid", "loop", "storage"))
    if isinstance(mpath, Mpath):
        return mpath.wwid
    if isinstance(raid, Raid):
        return raid.uuid
    if isinstance(loop, Loop):
        file = loop.backing.path if loop.backing else None
        return f"{file}@{loop.offset_bytes}" if file and loop.offset_bytes else file
    return storage.serial if isinstance(storage, Storage) else None


def _constituents(device: Device, devices: Devices) -> Iterator[Constituent]:
    loop = device.capability("loop")
    if isinstance(loop, Loop):
        below = next((member.device for member in device.members if member.kind == "backing"), None)
        yield Constituent("backing", below, loop.backing.path if loop.backing else None)
        return
    for member in device.members:
        if member.kind in _MADE_OF:
            found = devices.get(member.device)
            yield Constituent(member.kind, member.device, found.devnode if found else None)


def _link(device: Device, folder: str) -> str | None:
    """The device's path in a folder; chosen alike on each host where it has several."""
    if folder == DEV:
        return device.devnode
    folders = (MPATH, MAPPER) if folder == MPATH else (folder,)  # udev has not made /dev/mpath since 2009
    for place in folders:
        found = _below(device.links, place)
        if found:
            return found[0]
    return None


def _below(links: Iterable[str], folder: str) -> list[str]:
    found = [link for link in links if link.startswith(f"{folder}/") and "/" not in link[len(folder) + 1 :]]
    return sorted(found, key=_rank if folder == BY_ID else None)


def _rank(link: str) -> tuple[int, str]:
    name = basename(link)
    order = next((place for place, prefix in enumerate(_STABLE) if name.startswith(prefix)), len(_STABLE))
    return order, name


def _shared_link(path: Device, above: Device) -> str | None:
    """The stable name of a LUN that udev lets its map have: the path's own link leads to the map."""
    return next((link for link in _below(path.links, BY_ID) if link in above.links), None)


def _stable_path(device: Device, path: str) -> str:
    """A path that is this device's alone, after a reboot as well.

    A disk's by-id link may lead to another path of the same LUN, or to its map; a map's dm-uuid to
    nothing else.
    """
    if device.capability("mpath") or device.capability("raid"):
        return next(iter(_below(device.links, BY_ID)), path)
    if device.capability("loop") or path.startswith(f"{BY_PATH}/"):
        return path
    return (*_below(device.links, BY_PATH), *_below(device.links, BY_ID), path)[0]
