"""The paths of a multipath device, and what follows from their states.

Three judge a path, and each word is shown as it was given: the kernel (`state`), multipathd
(`checker`) and the path's own driver (`device_state`). `usable` and `health_of` say what follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Struct

from nodedev.capabilities._transport import Address, Ends, Transport
from nodedev.fields import Attribute, Element
from nodedev.model import Capability

UUID_PREFIX = "mpath-"  # of the dm uuid of a map

_ANA_CLOSED = frozenset({"inaccessible", "persistent-loss", "change"})
_STATES_UP = frozenset({"active", "live"})
_CHECKERS_UP = frozenset({"ready", "ghost"})
_DEVICE_STATES_UP = frozenset({"running", "live"})
_UNDECIDED = frozenset({None, "undef", "unknown", "i/o pending"})


class Redundancy(Struct, frozen=True):
    """How many paths are usable, and through how many distinct adapters and target ports they run."""

    usable_paths: Annotated[int, Attribute()]
    adapters: Annotated[int | None, Attribute()] = None
    target_ports: Annotated[int | None, Attribute()] = None


class Path(Struct, frozen=True):
    """One path. `ana_state` is the NVMe word, or the SCSI disk's access_state.

    One without `device` is still in the kernel's table, but its disk has left sysfs.
    """

    state: Annotated[str | None, Attribute()] = None
    checker: Annotated[str | None, Attribute()] = None
    device_state: Annotated[str | None, Attribute()] = None
    failures: Annotated[int | None, Attribute()] = None
    priority: Annotated[int | None, Attribute()] = None
    ana_state: Annotated[str | None, Attribute()] = None
    marginal: Annotated[str | None, Attribute()] = None
    device: str | None = None
    block: str | None = None
    address: Address | None = None
    transport: Transport | None = None


class Group(Struct, frozen=True):
    """Paths that are used alike; without `number` those of which neither kernel nor multipathd tells."""

    number: Annotated[int | None, Attribute()] = None
    state: Annotated[str | None, Attribute()] = None
    selector: Annotated[str | None, Attribute()] = None
    priority: Annotated[int | None, Attribute()] = None
    paths: Annotated[tuple[Path, ...], Element("path")] = ()


class Mpath(Capability, frozen=True):
    """One disk over several paths."""

    TYPE = "mpath"

    implementation: str | None = None
    wwid: str | None = None
    alias: str | None = None
    state: str | None = None
    health: str | None = None
    redundancy: Redundancy | None = None
    queueing: str | None = None
    features: Annotated[tuple[str, ...], Element("feature")] = ()
    hardware_handler: str | None = None
    failback: str | None = None
    io_policy: str | None = None
    groups: Annotated[tuple[Group, ...], Element("group")] = ()

    def handles(self) -> tuple[str, ...]:
        """The WWID, the dm uuid and the alias."""
        uuid = f"{UUID_PREFIX}{self.wwid}" if self.wwid and self.implementation == "dm" else None
        return tuple(filter(None, (self.wwid, uuid, self.alias)))


def usable(path: Path) -> bool | None:
    """Whether I/O may go over the path; None where nobody who would know could be asked.

    One word against it is enough: a kernel state other than active (NVMe: live), a checker other
    than ready or ghost, a disk that its driver does not call running, or an ANA state in which the
    kernel sends nothing. `ghost`, a standby path that activates when it is used, counts as with
    multipathd. With no word against it, one of the kernel or the checker for it is needed: that the
    disk is running says nothing of the way to it.
    """
    words = (
        (path.state, _STATES_UP),
        (path.checker, _CHECKERS_UP),
        (path.device_state, _DEVICE_STATES_UP),
    )
    if any(word not in up and word not in _UNDECIDED for word, up in words) or path.ana_state in _ANA_CLOSED:
        return False
    return True if path.state in _STATES_UP or path.checker in _CHECKERS_UP else None


def health_of(paths: Sequence[bool | None]) -> str | None:
    """The health that follows from each path's usability; None where it depends on unknown ones.

    failed: no path is usable, or there is none. degraded: some are, not all. optimal: all are. Only
    paths that the device has count, so that an NVMe disk with a single port is not degraded for ever;
    how much redundancy is left stands in Redundancy.
    """
    if not any(known is not False for known in paths):
        return "failed"
    if True in paths and False in paths:
        return "degraded"
    return None if None in paths else "optimal"


class Leg(Struct, frozen=True):
    """A path with what is derived from it."""

    path: Path
    usable: bool | None
    ends: Ends


def redundancy_of(legs: Sequence[Leg]) -> Redundancy | None:
    """None while a path's usability is unknown; an end that cannot be told makes its count None."""
    if any(leg.usable is None for leg in legs):
        return None
    ends = [leg.ends for leg in legs if leg.usable]
    return Redundancy(
        usable_paths=len(ends),
        adapters=_distinct([end.adapter for end in ends]),
        target_ports=_distinct([end.target_port for end in ends]),
    )


def _distinct(ends: Sequence[str | None]) -> int | None:
    return None if None in ends else len(set(ends))
