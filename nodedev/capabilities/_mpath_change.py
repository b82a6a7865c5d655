"""Making and flushing maps, which is multipathd's business: it is told to, and nothing else is touched.

multipathd's `del map` takes a map's kpartx partitions with it, and knows that the map is meant to be
gone; dmsetup does neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nodedev.capabilities._obstacles import in_the_way_of_removal, node_of, refuse, require_alike
from nodedev.capabilities._paths import Mpath
from nodedev.capabilities.claim import Claim
from nodedev.capabilities.storage import Storage
from nodedev.errors import InvalidError, PreconditionError, UnimplementedError
from nodedev.facts.host import Host
from nodedev.model import Capability, Changing, Device, Site
from nodedev.plan import Command, Consent, Message, Plan, Step

# A path that comes back, and udev's rules for it, make multipathd think again (mdadm#29's like).
_GRACE_SECONDS = 2.0
# What multipathd's command line takes as one word (multipathd/cli.c splits at blanks).
_WORD = re.compile(r"[\w.:@+=/-]+", re.ASCII)
_SEVERAL = 2


def create(wanted: Capability, site: Site, consent: Consent) -> Plan:  # noqa: ARG001
    """Has multipathd make the map of a WWID from the paths that are there."""
    wwid = _wwid(wanted)
    locks = (f"wwid {wwid}",)
    alias = wanted.alias if isinstance(wanted, Mpath) else None
    for device in site.devices.values():
        found = device.capability(Mpath.TYPE)
        if isinstance(found, Mpath) and _has(device, wwid):
            require_alike(device.name, {"alias": (alias, found.alias)})
            return Plan((), locks, existing=site.facts(device).path)
    paths = tuple(device for device in site.devices.values() if _is_path(device, wwid))
    if not paths:
        raise PreconditionError(f"no disk here has the WWID {wwid}", reason="PATHS_MISSING", wwid=wwid)
    used = (found for path in paths for found in in_the_way_of_removal(site.facts(path), site))
    refuse(used, paths[0].name)
    # multipathd looks for a map named like the WWID afterwards, and says "fail" where maps have aliases
    # (cli_add_map of 0.9.4, seen run).
    return Plan((Message(f"add map {wwid}", conclusive=False),), (*locks, *(path.name for path in paths)))


def destroy(device: Device, site: Site, consent: Consent) -> Plan:
    """Flushes a map that nobody uses; its partitions go with it."""
    mpath = device.capability(Mpath.TYPE)
    if not isinstance(mpath, Mpath) or mpath.implementation != "dm":
        raise UnimplementedError(
            f"{device.name} is the kernel's own multipathing, there as long as its paths are",
            reason="CAPABILITY_NOT_DESTROYABLE",
        )
    facts = site.facts(device)
    refuse(in_the_way_of_removal(facts, site), device.name)
    if not (mpath.redundancy and mpath.redundancy.usable_paths) and not consent.force:
        raise PreconditionError(
            f"{device.name} has no usable path: what it has queued would be lost, which needs force",
            reason="NO_USABLE_PATH",
            device=device.name,
        )
    alias = facts.attributes.get("dm/name", "")
    step: Step = Message(f"del map {alias}")
    if not _WORD.fullmatch(alias):
        step = Command(("multipath", "-f", alias))  # it hands the name on to multipathd whole
    return Plan((step,), (device.name, f"wwid {mpath.wwid}"), nodes=(node_of(facts),))


def same(wanted: Capability, device: Device, host: Host) -> bool:  # noqa: ARG001
    """Whether the device is the map of that WWID."""
    return isinstance(wanted, Mpath) and wanted.wwid is not None and _has(device, wanted.wwid)


def identity(wanted: Capability) -> str | None:
    """The WWID."""
    if not isinstance(wanted, Mpath) or not wanted.wwid or wanted.implementation not in (None, "dm"):
        return None
    return f"mpath {wanted.wwid}"


def default_name(wanted: Capability) -> str:
    """The name that the map will have."""
    return f"mpath_{_wwid(wanted)}"


def waiting(site: Site) -> Iterator[Mpath]:
    """The WWIDs that multipath has claimed several disks of, none of which is in a map."""
    found: dict[str, list[Device]] = {}
    for device in site.devices.values():
        storage = device.capability(Storage.TYPE)
        # Equal serials alone prove nothing; that multipath wants these disks is udev's word.
        if isinstance(storage, Storage) and storage.serial and _claims(device) & {"multipath", "path"}:
            found.setdefault(storage.serial, []).append(device)
    for wwid, paths in found.items():
        if len(paths) >= _SEVERAL and not any("path" in _claims(path) for path in paths):
            yield Mpath(implementation="dm", wwid=wwid)


def _wwid(wanted: Capability) -> str:
    if not isinstance(wanted, Mpath):
        raise TypeError(f"{wanted.TYPE} is no map")
    if wanted.implementation not in (None, "dm"):
        raise UnimplementedError("only device-mapper's maps can be created, the kernel makes its own")
    if not wanted.wwid or not _WORD.fullmatch(wanted.wwid):
        raise InvalidError("a map is created by its WWID", reason="XML_INVALID")
    return wanted.wwid


def _has(device: Device, wwid: str) -> bool:
    found = device.capability(Mpath.TYPE)
    return isinstance(found, Mpath) and found.implementation == "dm" and found.wwid == wwid


def _is_path(device: Device, wwid: str) -> bool:
    storage = device.capability(Storage.TYPE)
    return isinstance(storage, Storage) and storage.serial == wwid and not device.capability(Mpath.TYPE)


def _claims(device: Device) -> set[str]:
    claim = device.capability(Claim.TYPE)
    return {reason.type for reason in claim.reasons} if isinstance(claim, Claim) else set()


CHANGING = Changing(
    create, destroy, same, identity, default_name, waiting=waiting, grace_seconds=_GRACE_SECONDS
)
