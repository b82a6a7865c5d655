"""Which volumes are whose paths, and which volume is meant by a key, a path or a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from operator import attrgetter

from msgspec import Struct

from nodedev.model import Device, Relation
from nodedev.pools.volumes import Devices, Volume


class Side(Enum):
    """Where a related volume stands, seen from the one asked about."""

    SAME = "same"
    MEMBER = "member"
    HOLDER = "holder"


class Related(Struct, frozen=True):
    """A volume related to another.

    `chain` are the relations from the one asked about to this one, nearest first: a volume on an array
    of maps has its paths by ("member", "path"). The same device in another pool has none.
    """

    side: Side
    chain: tuple[str, ...]
    volume: Volume


def related(volume: Volume, volumes: Iterable[Volume], devices: Devices) -> tuple[Related, ...]:
    """What the volume is made of and what is built on it, in every pool, at any distance.

    Nearest first; the relations may lead over devices that are no volumes, a volume group's say.
    """
    by_device: dict[str, list[Volume]] = {}
    for other in volumes:
        by_device.setdefault(other.device, []).append(other)
    found = [
        Related(Side.SAME, (), other)
        for other in by_device.get(volume.device, ())
        if (other.pool, other.name) != (volume.pool, volume.name)
    ]
    for side, chains in (
        (Side.MEMBER, _reached(volume.device, devices, members=True)),
        (Side.HOLDER, _reached(volume.device, devices, members=False)),
    ):
        found += [
            Related(side, chain, other) for name, chain in chains.items() for other in by_device.get(name, ())
        ]
    return tuple(found)


def _reached(name: str, devices: Devices, *, members: bool) -> Mapping[str, tuple[str, ...]]:
    """The devices on one side of this one, nearest first, each with the shortest chain to it."""
    chains: dict[str, tuple[str, ...]] = {name: ()}
    waiting = [name]
    for near in waiting:
        for relation in _relations(devices.get(near), members=members):
            if relation.device not in chains:
                chains[relation.device] = (*chains[near], relation.kind)
                waiting.append(relation.device)
    del chains[name]
    return chains


def _relations(device: Device | None, *, members: bool) -> tuple[Relation, ...]:
    if device is None:
        return ()
    return device.members if members else device.holders


def preferred(volumes: Iterable[Volume], devices: Devices) -> tuple[Volume, ...]:
    """Those to be used among volumes that answer to the same name: none that another one is built on."""
    found = sorted(volumes, key=attrgetter("pool", "name"))
    names = {volume.device for volume in found}
    below = set[str]()
    for name in names:
        below.update(_reached(name, devices, members=True))
    return tuple(volume for volume in found if volume.device not in below)


def with_key(key: str, volumes: Iterable[Volume]) -> Iterator[Volume]:
    """The volumes of an identity: a WWID, an array's UUID, a loop device's file."""
    return (volume for volume in volumes if volume.key == key)


def with_path(path: str, volumes: Iterable[Volume], devices: Devices) -> Iterator[Volume]:
    """The volumes at a path: their own, or any node or link of their devices."""
    for volume in volumes:
        device = devices.get(volume.device)
        if path == volume.path or (device and (path == device.devnode or path in device.links)):
            yield volume


def with_name(name: str, volumes: Iterable[Volume]) -> Iterator[Volume]:
    """The volumes of a name, which may be several in different pools."""
    return (volume for volume in volumes if volume.name == name)
