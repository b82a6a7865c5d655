"""Creating and stopping MD arrays; `_raid_assembly` assembles them, `_raid_dm_change` has device-mapper's.

Follows mdadm(8). Members are named one by one, by the node that the kernel gives them now: mdadm never
looks around for itself, as that would open every disk of the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodedev.capabilities import _raid_dm_change
from nodedev.capabilities._obstacles import (
    in_the_way_of_removal,
    in_the_way_of_writing,
    node_of,
    refuse,
    require_alike,
)
from nodedev.capabilities._raid import Member, Raid
from nodedev.capabilities._raid_assembly import NAME, assembly, bare, waiting
from nodedev.errors import (
    AlreadyExistsError,
    InvalidError,
    Obstacle,
    Violation,
)
from nodedev.facts import md
from nodedev.facts.host import Host
from nodedev.model import Capability, Changing, Device, Site
from nodedev.plan import Command, Consent, Node, Plan, Probe, Step

# udev's rules assemble what they see the members of (mdadm#29).
_GRACE_SECONDS = 2.0
_LEAST = {
    "linear": 2,
    "raid0": 2,
    "raid1": 2,
    "raid4": 2,
    "raid5": 2,
    "raid6": 4,
    "raid10": 2,
    "container": 1,
}
_POLICIES = {"bitmap": "--bitmap=internal", "resync": "--consistency-policy=resync"}
# An IMSM container has no UUID before its first volume, so that it could not be known again.
_EXTERNAL = ("ddf",)
_METADATA = ("0.90", "1.0", "1.1", "1.2", *_EXTERNAL)
_LAYOUT = re.compile(r"(near|far|offset)=(\d+)")
_WORD = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_KIB = 1024


def create(wanted: Capability, site: Site, consent: Consent) -> Plan:
    """A new array from members, the array of a UUID from what carries it, or a dm volume activated."""
    raid = _raid(wanted)
    if _raid_dm_change.is_meant(raid):
        return _raid_dm_change.create(raid, site)
    if raid.level is None and raid.uuid:
        return assembly(raid, site, consent)
    return _creation(raid, site, consent)


def destroy(device: Device, site: Site, consent: Consent) -> Plan:  # noqa: ARG001
    """Stops an array that nobody uses, or deactivates a volume; create brings it back."""
    found = device.capability(Raid.TYPE)
    raid = found if isinstance(found, Raid) else Raid()
    facts = site.facts(device)
    refuse((*in_the_way_of_removal(facts, site), *_volumes(device, raid)), device.name)
    node = node_of(facts)
    if raid.implementation == "dm":
        return _raid_dm_change.destroy(device, facts, node)
    members = (member.device for member in raid.members if member.device)
    return Plan((Command(("mdadm", "--stop", node.path)),), (device.name, *members), nodes=(node,))


def same(wanted: Capability, device: Device, host: Host) -> bool:  # noqa: ARG001
    """Whether the device is the array of that UUID, or of those members."""
    found = device.capability(Raid.TYPE)
    if not isinstance(wanted, Raid) or not isinstance(found, Raid):
        return False
    if _raid_dm_change.is_meant(wanted):
        return _raid_dm_change.same(wanted, found)
    if wanted.uuid:
        return found.uuid is not None and md.canonical_uuid(wanted.uuid) == md.canonical_uuid(found.uuid)
    if found.implementation != "md" or not found.uuid:
        return False
    if wanted.container:
        return found.container == wanted.container and bare(found.name) == wanted.name
    return bool(wanted.members) and not found.container and _has_members(wanted, found)


def identity(wanted: Capability) -> str | None:
    """The UUID or the dm name; none for an array that is yet to be written, which would be written again."""
    if not isinstance(wanted, Raid):
        return None
    if _raid_dm_change.is_meant(wanted):
        return _raid_dm_change.identity(wanted)
    canonical = md.canonical_uuid(wanted.uuid) if wanted.uuid else None
    return f"raid {canonical}" if canonical else None


def aliases(wanted: Capability, host: Host) -> Iterator[str]:  # noqa: ARG001
    """The dm uuid of a volume, which outlasts a change of its name."""
    if isinstance(wanted, Raid) and wanted.uuid and _raid_dm_change.is_meant(wanted):
        yield f"raid dm {wanted.uuid}"


def default_name(wanted: Capability) -> str:
    """The name that the array will have."""
    return f"raid_{wanted.uuid or wanted.name}" if isinstance(wanted, Raid) else Raid.TYPE


def _creation(raid: Raid, site: Site, consent: Consent) -> Plan:
    level = _checked(raid)
    devices = tuple(_member(member, number, site) for number, member in enumerate(raid.members))
    if len({device.name for device in devices}) < len(devices):
        raise _invalid("a device is a member twice")
    container = _container(raid, site) if raid.container else None
    locks = (f"array {raid.name}", *(device.name for device in (*devices, *filter(None, (container,)))))
    for device in site.devices.values():
        found = device.capability(Raid.TYPE)
        if isinstance(found, Raid) and same(raid, device, site.host):
            _require_alike(raid, level, found, device.name)
            return Plan((), locks, existing=site.facts(device).path)
        if isinstance(found, Raid) and bare(found.name) == raid.name:
            raise AlreadyExistsError(f"{device.name} is an array of that name", device=device.name)
    facts = tuple(site.facts(device) for device in devices)
    allowed = [device.name in consent.overwrite or device.devnode in consent.overwrite for device in devices]
    refuse(
        (
            obstacle
            for each, overwrite in zip(facts, allowed, strict=True)
            for obstacle in in_the_way_of_writing(each, site, overwrite=overwrite)
        ),
        raid.name or "",
    )
    nodes = [node_of(each) for each in facts]
    if container:
        nodes = [node_of(site.facts(container))]
    looks = _looks(devices, nodes, allowed)
    return Plan((*looks, _call(raid, level, nodes, _count(raid, container))), locks, nodes=tuple(nodes))


def _count(raid: Raid, container: Device | None) -> int:
    """How many members are active; of a container, unless the document says so, all."""
    found = container.capability(Raid.TYPE) if container else None
    if isinstance(found, Raid):
        return (raid.devices.total if raid.devices else None) or len(found.members)
    return sum(member.role != "spare" for member in raid.members)


def _looks(devices: tuple[Device, ...], nodes: list[Node], allowed: list[bool]) -> Iterator[Step]:
    """A look at each member with libblkid, as what udev knows may be old."""
    # A volume has none of its own; and nothing is wiped before all others have been looked at.
    for overwrite, device, node in sorted(
        zip(allowed, devices, nodes, strict=False), key=lambda each: each[0]
    ):
        if overwrite:
            # Left there, an old superblock would be found again on the member or in the array.
            yield Command(("wipefs", "--all", "--quiet", node.path))
        yield Probe(("blkid", "--probe", "--output", "export", node.path), device.name)


def _call(raid: Raid, level: str, nodes: list[Node], count: int) -> Step:
    """The call of mdadm; `--run` answers what it might ask."""
    options = [f"--level={level}", f"--raid-devices={count}"]
    if not raid.container and len(nodes) > count:
        options.append(f"--spare-devices={len(nodes) - count}")
    if raid.metadata and not raid.container:
        options.append(f"--metadata={raid.metadata}")
    if raid.chunk_bytes:
        options.append(f"--chunk={raid.chunk_bytes // _KIB}K")
    if raid.layout:
        options.append(f"--layout={_mdadm_layout(raid.layout)}")
    if raid.consistency_policy:
        options.append(_POLICIES[raid.consistency_policy])
    if raid.uuid:
        options.append(f"--uuid={raid.uuid}")
    # mdadm takes the first devices for the array, and the rest as spares.
    order = sorted(range(len(nodes)), key=lambda at: _rank(raid.members[at]) if raid.members else (0, 0))
    named = (nodes[at].path for at in order)
    return Command(("mdadm", "--create", f"/dev/md/{raid.name}", "--run", *options, *named))


def _rank(member: Member) -> tuple[int, int]:
    return int(member.role == "spare"), member.slot or 0


def _raid(wanted: Capability) -> Raid:
    if not isinstance(wanted, Raid):
        raise TypeError(f"{wanted.TYPE} is no array")
    return wanted


def _checked(raid: Raid) -> str:
    """The level as mdadm calls it, of a wish that could be carried out somewhere."""
    level = raid.level_name or ""
    active = sum(member.role != "spare" for member in raid.members)
    roles = {member.role for member in raid.members}
    external = raid.metadata in _EXTERNAL and not raid.container
    chunk, layout, policy = raid.chunk_bytes, raid.layout, raid.consistency_policy
    trouble = (
        (level not in _LEAST, f"the level is to be one of {', '.join(_LEAST)}"),
        (not NAME.fullmatch(raid.name or ""), "the array needs a name: letters, digits, ._-, at most 32"),
        (bool(raid.uuid) and not md.canonical_uuid(raid.uuid or ""), f"{raid.uuid} is no UUID"),
        (
            not raid.container and raid.metadata not in (None, *_METADATA),
            f"the metadata is to be one of {', '.join(_METADATA)}",
        ),
        ((level == "container") != external, f"a container has metadata {' or '.join(_EXTERNAL)}"),
        (policy not in (None, *_POLICIES), f"the consistency policy is to be one of {', '.join(_POLICIES)}"),
        (chunk is not None and (chunk < _KIB or chunk % _KIB != 0), "the chunk is to be whole KiB"),
        (layout is not None and not _mdadm_layout(layout), f"{layout} is no layout"),
        (bool(raid.container and raid.members), "a volume takes its members from its container"),
        (not roles <= {None, "active", "spare"}, "a member is active or spare"),
        (
            not raid.container and active < _LEAST.get(level, 0),
            f"{level} needs {_LEAST.get(level, 0)} members, not {active}",
        ),
    )
    for wrong, message in trouble:
        if wrong:
            raise _invalid(message)
    return level


def _invalid(message: str) -> InvalidError:
    return InvalidError(message, reason="MEMBERS_INVALID", violations=(Violation("raid", message),))


def _mdadm_layout(layout: str) -> str:
    """Mdadm's argument for what it prints as a layout; empty for what it would not take."""
    found = _LAYOUT.fullmatch(layout)
    if found:
        return f"{found[1][0]}{found[2]}"
    return layout if _WORD.fullmatch(layout) else ""


def _member(member: Member, number: int, site: Site) -> Device:
    handle = member.device or member.block
    if not handle:
        raise _invalid(f"member {number + 1} has neither device nor block")
    device = site.find(handle)
    if handle not in (device.name, device.devnode):
        raise _invalid(f"{handle} is {device.name}, which is to be named so, or by its node {device.devnode}")
    if member.device and member.block and member.block != device.devnode:
        raise _invalid(f"{member.device} is not {member.block}")
    return device


def _container(raid: Raid, site: Site) -> Device:
    device = site.find(raid.container or "")
    found = device.capability(Raid.TYPE)
    if not isinstance(found, Raid) or found.level != "container" or device.name != raid.container:
        raise _invalid(f"{raid.container} is no container's name")
    return device


def _has_members(wanted: Raid, found: Raid) -> bool:
    present = {name for member in found.members for name in (member.device, member.block) if name}
    return len(wanted.members) == len(found.members) and all(
        (member.device or member.block) in present for member in wanted.members
    )


def _require_alike(wanted: Raid, level: str, found: Raid, name: str) -> None:
    pairs = {
        "name": (wanted.name, bare(found.name)),
        "level": (level, found.level),
        "metadata": (wanted.metadata, found.metadata),
        "chunk": (wanted.chunk_bytes, found.chunk_bytes),
        "layout": (wanted.layout, found.layout),
        "consistency_policy": (wanted.consistency_policy, found.consistency_policy),
    }
    require_alike(name, pairs)


def _volumes(device: Device, raid: Raid) -> Iterator[Obstacle]:
    for volume in raid.volumes:
        yield Obstacle("TYPE_HELD", device.name, f"the container of {volume.device or volume.block}")


CHANGING = Changing(create, destroy, same, identity, default_name, aliases, waiting, _GRACE_SECONDS)
