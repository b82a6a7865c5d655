"""Assembling MD arrays that are on their members already.

Follows mdadm(8). Native superblocks carry the array's UUID where libblkid, and so udev, sees it. Of DDF and
IMSM udev knows no UUID, as that is mdadm's own making: their members are all named, and mdadm takes those
that carry the one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from nodedev.capabilities import _raid_examine
from nodedev.capabilities._obstacles import (
    in_the_way_of_removal,
    in_the_way_of_writing,
    node_of,
    refuse,
)
from nodedev.capabilities._raid import Member, Raid
from nodedev.capabilities.claim import Claim, Reason
from nodedev.errors import InvalidError, NotFoundError, Obstacle, PreconditionError
from nodedev.facts import md
from nodedev.facts.host import DeviceFacts
from nodedev.model import Device, Site
from nodedev.plan import Command, Consent, Examine, Node, Plan, Step

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", re.ASCII)
_NATIVE = "linux_raid_member"
_EXTERNAL = ("ddf_raid_member", "isw_raid_member")
_AT_REST = (None, "clear", "inactive")


class _Carrier(Struct, frozen=True):
    """A device with a superblock; `array` has it though it does not run, and would have to let it go."""

    device: Device
    facts: DeviceFacts
    array: Device | None = None


def bare(name: str | None) -> str | None:
    """The name without the host that made the array."""
    return name.rpartition(":")[2] if name else None


def runs(raid: Raid) -> bool:
    """Whether it is all that it can be: a container never gets further than inactive."""
    return raid.level == "container" or raid.state not in _AT_REST


def assembly(raid: Raid, site: Site, consent: Consent) -> Plan:
    """Assembles the array of a UUID from what carries it; with members missing only by force."""
    uuid = md.canonical_uuid(raid.uuid or "")
    if uuid is None:
        raise InvalidError(f"{raid.uuid} is no array's UUID", reason="XML_INVALID")
    for device in site.devices.values():
        found = device.capability(Raid.TYPE)
        if isinstance(found, Raid) and runs(found) and _uuid(found) == uuid:
            return Plan((), (f"array {uuid}",), existing=site.facts(device).path)
    carriers = tuple(carrier for carrier in _carriers(site, _NATIVE) if _carried(carrier) == uuid)
    if not carriers:
        return _external(raid, uuid, site, consent)
    arrays = {carrier.array.name: carrier.array for carrier in carriers if carrier.array}
    refuse(
        (
            *(obstacle for carrier in carriers for obstacle in _in_the_way(carrier, site)),
            *(found for array in arrays.values() for found in in_the_way_of_removal(site.facts(array), site)),
        ),
        uuid,
    )
    nodes = tuple(node_of(carrier.facts) for carrier in carriers)
    idle = tuple(node_of(site.facts(array)) for array in arrays.values())
    named = tuple(node.path for node in nodes)
    label = bare(carriers[0].facts.properties.get("ID_FS_LABEL"))
    return Plan(
        (
            Examine(("mdadm", "--examine", *named), _raid_examine.startable(uuid, force=consent.force)),
            *(Command(("mdadm", "--stop", node.path)) for node in idle),
            _call(raid.name or label, uuid, named, consent),
        ),
        (f"array {uuid}", *(carrier.device.name for carrier in carriers), *arrays),
        nodes=(*nodes, *idle),
    )


def waiting(site: Site) -> Iterator[Raid]:
    """The arrays of which disks carry the UUID, and that do not run."""
    running = {
        _uuid(raid)
        for device in site.devices.values()
        if isinstance(raid := device.capability(Raid.TYPE), Raid) and runs(raid)
    }
    found: dict[str, list[_Carrier]] = {}
    for carrier in _carriers(site, _NATIVE):
        uuid = _carried(carrier)
        if uuid and uuid not in running:
            found.setdefault(uuid, []).append(carrier)
    for uuid, carriers in found.items():
        first = carriers[0].facts
        yield Raid(
            implementation="md",
            uuid=uuid,
            name=bare(first.properties.get("ID_FS_LABEL")),
            metadata=first.properties.get("ID_FS_VERSION"),
            members=tuple(Member(device=each.device.name, block=each.facts.devnode) for each in carriers),
        )


def _external(raid: Raid, uuid: str, site: Site, consent: Consent) -> Plan:
    """A container from its members, or the volume of a container that is there."""
    nodes: tuple[Node, ...]
    locks: tuple[str, ...]
    if raid.container:
        container = site.find(raid.container)
        found = container.capability(Raid.TYPE)
        disks = tuple(member.block for member in found.members) if isinstance(found, Raid) else ()
        looked_at = tuple(filter(None, disks))
        nodes, locks = (node_of(site.facts(container)),), (container.name,)
    else:
        free = tuple(
            carrier
            for carrier in _carriers(site, *_EXTERNAL)
            if not carrier.array and not any(_in_the_way(carrier, site))
        )
        nodes = tuple(node_of(carrier.facts) for carrier in free)
        looked_at = (*(node.path for node in nodes), *_in_containers(site))
        locks = tuple(carrier.device.name for carrier in free)
    if not looked_at:
        raise PreconditionError(
            f"no device here carries the UUID {uuid}", reason="MEMBERS_MISSING", uuid=uuid
        )
    judge = _raid_examine.present(uuid, volume=bool(raid.container), free=bool(nodes))
    look = Examine(("mdadm", "--examine", "--brief", *looked_at), judge)
    # Without a device mdadm would look for the array on all there are.
    call = (_call(raid.name, uuid, tuple(node.path for node in nodes), consent),) if nodes else ()
    return Plan(
        (look, *call),
        (f"array {uuid}", *locks),
        nodes=nodes,
    )


def _in_containers(site: Site) -> Iterator[str]:
    """The disks of the containers that are there."""
    for device in site.devices.values():
        found = device.capability(Raid.TYPE)
        if isinstance(found, Raid) and found.level == "container":
            yield from (member.block for member in found.members if member.block)


def _call(name: str | None, uuid: str, nodes: tuple[str, ...], consent: Consent) -> Step:
    if not NAME.fullmatch(name or ""):
        name = uuid.partition(":")[0]
    insist = ("--run",) if consent.force else ()
    return Command(("mdadm", "--assemble", f"/dev/md/{name}", *insist, f"--uuid={uuid}", *nodes))


def _carriers(site: Site, *signatures: str) -> Iterator[_Carrier]:
    """The devices with such a superblock that no running array has; a path leaves that to its map."""
    for device in site.devices.values():
        claim = device.capability(Claim.TYPE)
        reasons = claim.reasons if isinstance(claim, Claim) else ()
        if not any(reason.type == "signature" and reason.what in signatures for reason in reasons):
            continue
        members = [reason for reason in reasons if reason.type == "member"]
        array = _at_rest(members, site)
        if any(reason.type in ("path", "multipath") for reason in reasons) or (members and not array):
            continue
        try:
            yield _Carrier(device, site.facts(device), array)
        except NotFoundError:
            continue


def _at_rest(members: list[Reason], site: Site) -> Device | None:
    """The one array that has a device and does not run."""
    array = site.devices.get(members[0].device or "") if len(members) == 1 else None
    found = array.capability(Raid.TYPE) if array else None
    return array if isinstance(found, Raid) and found.implementation == "md" and not runs(found) else None


def _in_the_way(carrier: _Carrier, site: Site) -> Iterator[Obstacle]:
    for obstacle in in_the_way_of_writing(carrier.facts, site, overwrite=True):
        if not (carrier.array and obstacle.type == "TYPE_MEMBER"):
            yield obstacle


def _carried(carrier: _Carrier) -> str | None:
    return md.canonical_uuid(carrier.facts.properties.get("ID_FS_UUID", ""))


def _uuid(raid: Raid) -> str | None:
    return md.canonical_uuid(raid.uuid or "")
