"""Why a device may not be given away: every reason that can be seen, none where none is.

The kernel's holders (Documentation/ABI/stable/sysfs-block) say what is built on a device, mountinfo
and /proc/swaps what is in use above, udev's database (libblkid) what lies on it.

| reason | means, and how it is told |
|---|---|
| held | a device is built on it: `holders`; the text is by what: lvm, crypt, partition (kpartx), bcache |
| path | it is a path of a multipath map or of an NVMe head |
| member | it is a member of an array, MD's or device-mapper's |
| mounted | it, or `device` above it, is mounted at `target` |
| swap | it, or `device` above it, is swapped on |
| signature | udev found a file system, RAID or LVM member, LUKS, or a partition table without partitions |
| partitioned | the kernel has that many partitions of it |
| multipath | multipath claims it (DM_MULTIPATH_DEVICE_PATH) though no map has it |
| open | device-mapper counts more openers, the text, than holders, mounts, swaps and loops explain |
| not-ready | udev has not finished with it, or device-mapper tells its rules to keep off |
| backing | it is behind a loop device |

What is built on a partition, and on the disk that a partition is of, counts: the kernel refuses an
exclusive opener in both directions. Mounts and swaps of everything further up count too, each
device once however many ways lead to it. The work is that of what stands above the device: for a
path, its map and what is on the map.

What has no trace here: a guest's or a database's own open of a disk that is no dm device, and mounts
in other mount namespaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from posixpath import dirname
from typing import Annotated, TypeVar

from msgspec import Struct

from nodedev.capabilities import _dm, _loops
from nodedev.capabilities._nvme import head_of
from nodedev.errors import FactError
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.mounts import Mount, Swap
from nodedev.fields import Attribute, Element, Text
from nodedev.model import Capability, CapabilityKind, Scene

TYPES = (
    "held",
    "path",
    "member",
    "mounted",
    "swap",
    "signature",
    "partitioned",
    "multipath",
    "open",
    "not-ready",
    "backing",
)

_HELD_BY = {"LVM": "lvm", "CRYPT": "crypt", _dm.PARTITION: "partition"}
_NODES = "/dev/"
_MULTIPATH_MEMBER = "mpath_member"
_KEEP_OFF = "DM_UDEV_DISABLE_OTHER_RULES_FLAG"

T = TypeVar("T")


class Reason(Struct, frozen=True):
    """One reason; `device` is who holds it, or what above it is in use, none for the device itself."""

    type: Annotated[str, Attribute()]
    device: Annotated[str | None, Attribute()] = None
    target: Annotated[str | None, Attribute()] = None
    what: Annotated[str | None, Text()] = None


class Claim(Capability, frozen=True):
    """The reasons, in the order of TYPES; a device without any has no claim."""

    TYPE = "claim"

    reasons: Annotated[tuple[Reason, ...], Element("reason")] = ()


class _Use(Struct, frozen=True):
    """One thing built on a device; `device` is None where it could not be read."""

    type: str
    device: DeviceFacts | None
    what: str | None = None


class _Named(Struct, frozen=True):
    """What names its device by a path: under that path, and under the device number behind it."""

    mounts: Mapping[str, tuple[Mount, ...]]
    swaps: Mapping[str, tuple[Swap, ...]]


def probe(facts: DeviceFacts, scene: Scene) -> Claim | None:
    """The device's claims; a source that could not be read is a note, as no claim then means little."""
    if facts.subsystem != "block":
        return None
    uses = [use for base in _bases(facts, scene.host) for use in _uses(base, scene)]
    reasons = [
        *(Reason(use.type, device=_name(use.device, scene), what=use.what) for use in uses),
        *(reason for device in _above(facts, scene) for reason in _in_use(device, facts, scene)),
        *_contents(facts, scene.host),
        *_readiness(facts, scene.host),
        *_openers(facts, scene),
    ]
    if _multipath_claims(facts) and not any(use.type == "path" for use in uses):
        reasons.append(Reason("multipath"))
    for source in ("mounts", *(("dm",) if _dm.is_dm(facts) else ())):
        if source in scene.host.notes:
            scene.notes.append(scene.host.notes[source])
    ordered = sorted(dict.fromkeys(reasons), key=lambda reason: TYPES.index(reason.type))
    return Claim(tuple(ordered)) if ordered else None


def _name(device: DeviceFacts | None, scene: Scene) -> str | None:
    return scene.name_of(device) if device else None


def _bases(facts: DeviceFacts, host: Host) -> Iterator[DeviceFacts]:
    """The device, its partitions, and the disk it is a partition of."""
    yield facts
    yield from _partitions(facts, host)
    disk = _disk(facts, host)
    if disk:
        yield disk


def _partitions(facts: DeviceFacts, host: Host) -> Iterator[DeviceFacts]:
    found = (host.device(f"{facts.path}/{name}") for name in facts.partitions)
    return filter(None, found)


def _disk(facts: DeviceFacts, host: Host) -> DeviceFacts | None:
    return host.device(dirname(facts.path)) if facts.devtype == "partition" else None


def _uses(facts: DeviceFacts, scene: Scene) -> Iterator[_Use]:
    """What is built on the device directly: holders, an NVMe head, loop devices."""
    host = scene.host
    for name in facts.holders:
        yield _held(name, host.block(name), host)
    head = head_of(facts, host)
    if head:
        yield _Use("path", head)
    for name in _loops_over(facts, scene):
        yield _Use("backing", host.block(name))


def _held(name: str, holder: DeviceFacts | None, host: Host) -> _Use:
    if name.startswith("md"):
        return _Use("member", holder)
    if holder is None or not _dm.is_dm(holder):
        return _Use("held", holder, re.sub(r"[-_\d].*", "", name))
    if _dm.is_multipath(holder):
        return _Use("path", holder)
    if _dm.is_raid(holder, host):
        return _Use("member", holder)
    return _Use("held", holder, _HELD_BY.get(_dm.uuid_kind(holder) or "", "dm"))


def _above(facts: DeviceFacts, scene: Scene) -> Iterator[DeviceFacts]:
    """The device and everything built on it, at any height, each once.

    For a partition also its disk and what is built on that, but not the disk's other partitions.
    """
    host = scene.host
    seen = {facts.path}
    waiting = [facts]
    disk = _disk(facts, host)
    if disk:
        seen.add(disk.path)
        yield disk
        waiting += _fresh(_uses(disk, scene), seen)
    for device in waiting:
        yield device
        waiting += _fresh(_uses(device, scene), seen)
        waiting += _fresh((_Use("partitioned", part) for part in _partitions(device, host)), seen)


def _fresh(uses: Iterable[_Use], seen: set[str]) -> Iterator[DeviceFacts]:
    for use in uses:
        if use.device and use.device.path not in seen:
            seen.add(use.device.path)
            yield use.device


def _in_use(device: DeviceFacts, asked: DeviceFacts, scene: Scene) -> Iterator[Reason]:
    mounts, swaps = _mounts(device, scene.host), _swaps(device, scene.host)
    if not mounts and not swaps:
        return
    name = None if device is asked else scene.name_of(device)
    for mount in mounts:
        yield Reason("mounted", device=name, target=mount.mount_point, what=mount.filesystem)
    if swaps:
        yield Reason("swap", device=name)


def _mounts(facts: DeviceFacts, host: Host) -> tuple[Mount, ...]:
    numbered = host.mounts.get(facts.device_number or "", ())
    return (*numbered, *_naming(facts, host.once(_named).mounts))


def _swaps(facts: DeviceFacts, host: Host) -> tuple[Swap, ...]:
    return _naming(facts, host.once(_named).swaps)


def _contents(facts: DeviceFacts, host: Host) -> Iterator[Reason]:
    signature = facts.properties.get("ID_FS_TYPE")
    if signature and signature != _MULTIPATH_MEMBER:
        yield Reason("signature", what=signature)
    elif "ID_FS_AMBIVALENT" in facts.properties:
        yield Reason("signature", what=facts.properties["ID_FS_AMBIVALENT"])
    if facts.partitions:
        yield Reason("partitioned", what=str(len(facts.partitions)))
    # udev's rules copy a disk's ID_* to its partitions, its partition table among them.
    table = facts.properties.get("ID_PART_TABLE_TYPE")
    disk = _disk(facts, host)
    if table and not facts.partitions and not (disk and table == disk.properties.get("ID_PART_TABLE_TYPE")):
        yield Reason("signature", what=table)


def _multipath_claims(facts: DeviceFacts) -> bool:
    """Whether multipath means to have the disk; a partition's word is its disk's, copied by udev."""
    claimed = facts.properties.get("DM_MULTIPATH_DEVICE_PATH") == "1"
    return claimed or facts.properties.get("ID_FS_TYPE") == _MULTIPATH_MEMBER


def _readiness(facts: DeviceFacts, host: Host) -> Iterator[Reason]:
    # A hidden NVMe disk has no node, and udev never hears of it.
    if not facts.initialized and facts.devnode and host.once(_udev_works):
        yield Reason("not-ready")
    elif facts.properties.get(_KEEP_OFF) == "1":
        yield Reason("not-ready", what=_KEEP_OFF)


def _udev_works(host: Host) -> bool:
    return all(note.source != "udev" for note in host.source.notes())


def _openers(facts: DeviceFacts, scene: Scene) -> Iterator[Reason]:
    host = scene.host
    mapped = host.maps.get(facts.device_number) if _dm.is_dm(facts) and facts.device_number else None
    if mapped is None:
        return
    # A holder opens it once, and so does a file system, however often it is mounted.
    explained = (
        len(facts.holders)
        + bool(_mounts(facts, host))
        + len(_swaps(facts, host))
        + len(_loops_over(facts, scene))
    )
    if mapped.open_count > explained:
        yield Reason("open", what=str(mapped.open_count))


def _naming(facts: DeviceFacts, index: Mapping[str, tuple[T, ...]]) -> tuple[T, ...]:
    """What of an index names the device: by number, node or link."""
    if not index:
        return ()
    found: dict[T, None] = {}
    for key in (facts.device_number, facts.devnode, *facts.links):
        found.update(dict.fromkeys(index.get(key or "", ())))
    return tuple(found)


def _named(host: Host) -> _Named:
    """Mounts without a device number of a block device (btrfs), and swaps.

    Each is a handful on any host, and gathered once for the pass.
    """
    anonymous = (
        mount for number, mounts in host.mounts.items() if number.startswith("0:") for mount in mounts
    )
    return _Named(
        mounts=_indexed(((mount.source, mount) for mount in anonymous), host),
        swaps=_indexed(((swap.path, swap) for swap in host.swaps.values()), host),
    )


def _loops_over(facts: DeviceFacts, scene: Scene) -> tuple[str, ...]:
    """The kernel names of the loop devices over the device's node.

    A pass over the whole host goes through all loop devices once; any other reads those that were
    over this device before, and those that are new are read for themselves.
    """
    if scene.earlier is None:
        return _naming(facts, scene.host.once(_looped))
    candidates = (
        scene.host.device(path)
        for path, device in scene.earlier(facts)
        if (_loops.backing_path(device) or "").startswith(_NODES)
    )
    return _naming(facts, _backings(filter(None, candidates), scene.host))


def _looped(host: Host) -> Mapping[str, tuple[str, ...]]:
    return _backings(_loops.bound(host), host)


def _backings(loops: Iterable[DeviceFacts], host: Host) -> Mapping[str, tuple[str, ...]]:
    bound = filter(_loops.is_bound, loops)
    return _indexed(((loop.attributes["loop/backing_file"], loop.kernel_name) for loop in bound), host)


def _indexed(named: Iterable[tuple[str, T]], host: Host) -> Mapping[str, tuple[T, ...]]:
    index: dict[str, tuple[T, ...]] = {}
    for path, value in named:
        if path.startswith(_NODES):
            for key in filter(None, (path, _number(path, host))):
                index[key] = (*index.get(key, ()), value)
    return index


def _number(path: str, host: Host) -> str | None:
    """The device number behind a node; None where it cannot be told, and the path alone must do."""
    try:
        found = host.identify(path)
    except FactError:
        return None
    return found.device_number if found else None


KIND = CapabilityKind(
    shape=Claim,
    probe=probe,
    attributes={"block": ("dm/name", "dm/uuid", "loop/backing_file")},
    order=90,
    lists=False,
)
