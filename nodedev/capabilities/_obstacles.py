"""What keeps a device from being changed: its claims, read from the host as it is now.

A claim on the contents alone (CONTENTS) keeps nobody from taking a device away, as its data stay; it
keeps everybody from writing to it, unless the caller has named the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nodedev.capabilities import _dm, claim
from nodedev.capabilities.claim import Claim, Reason
from nodedev.errors import AlreadyExistsError, Obstacle, PreconditionError
from nodedev.facts.host import DeviceFacts
from nodedev.model import Scene, Site
from nodedev.plan import Node

CONTENTS = frozenset({"signature", "partitioned"})
# No sign that anybody uses the device: multipath may want it, and udev may not have looked yet.
UNUSED = CONTENTS | {"multipath", "not-ready"}

_SENTENCES = {
    "held": "built on by {device} ({what})",
    "path": "a path of {device}",
    "member": "a member of {device}",
    "mounted": "mounted at {target}",
    "swap": "used as swap",
    "signature": "not empty, it holds {what}",
    "partitioned": "divided into {what} partitions",
    "multipath": "claimed by multipath, though no map has it",
    "open": "open, {what} times",
    "not-ready": "not ready, udev has not finished with it",
    "backing": "behind the loop device {device}",
}


def reasons(facts: DeviceFacts, site: Site) -> tuple[Reason, ...]:
    """The device's claims now."""
    found = claim.probe(facts, Scene(site.host, site.name_of))
    return found.reasons if isinstance(found, Claim) else ()


def in_the_way_of_writing(facts: DeviceFacts, site: Site, *, overwrite: bool) -> Iterator[Obstacle]:
    """Why the device may not be written to; its contents are none when they may be lost."""
    for reason in reasons(facts, site):
        if not (overwrite and reason.type in CONTENTS):
            yield _obstacle(reason, site.name_of(facts))


def in_the_way_of_removal(facts: DeviceFacts, site: Site) -> Iterator[Obstacle]:
    """Why the device may not be taken away: who uses it, or a partition that goes with it."""
    for reason in reasons(facts, site):
        holder = _holder(reason, site)
        if reason.type == "held" and holder and _dm.is_multipath_partition(holder):
            # What uses it from above is a claim of the map too; here is who is built on it.
            yield from in_the_way_of_removal(holder, site)
        elif reason.type not in UNUSED:
            yield _obstacle(reason, site.name_of(facts))


def _holder(reason: Reason, site: Site) -> DeviceFacts | None:
    device = site.devices.get(reason.device or "")
    return site.host.device((device.sysfs_path or "").removeprefix("/sys")) if device else None


def _obstacle(reason: Reason, device: str) -> Obstacle:
    sentence = _SENTENCES.get(reason.type, reason.type).format(
        device=reason.device or "another device", target=reason.target or "an unknown place", what=reason.what
    )
    above = f" (through {reason.device})" if reason.type in ("mounted", "swap") and reason.device else ""
    return Obstacle(f"TYPE_{reason.type.upper().replace('-', '_')}", device, sentence + above)


def refuse(obstacles: Iterable[Obstacle], device: str) -> None:
    """Raises DEVICE_BUSY with every obstacle, if there is one."""
    found = tuple(dict.fromkeys(obstacles))
    if found:
        first = found[0]
        more = f" (and {len(found) - 1} more reasons)" if len(found) > 1 else ""
        raise PreconditionError(f"{first.device} is {first.message}{more}", obstacles=found, device=device)


def require_alike(device: str, pairs: Mapping[str, tuple[object, object]]) -> None:
    """Raises DEVICE_EXISTS naming each field that was asked for and is different."""
    different = [field for field, (asked, present) in pairs.items() if asked is not None and asked != present]
    if different:
        raise AlreadyExistsError(
            f"{device} is there, and differs in {', '.join(different)}",
            device=device,
            fields=", ".join(different),
        )


def node_of(facts: DeviceFacts) -> Node:
    """The device's node, with the number that says whether it still is that device's."""
    if not facts.devnode or not facts.device_number:
        raise PreconditionError(
            f"{facts.kernel_name} has no device node", reason="DEVICE_UNUSABLE", device=facts.kernel_name
        )
    return Node(facts.devnode, facts.device_number)
