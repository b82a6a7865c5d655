"""How devices stand on each other: a view over a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from nodedev.model import Device, Relation


class Edge(Struct, frozen=True):
    """One device stands on another; `kind` as in Relation."""

    holder: str
    member: str
    kind: str


def edges(device: Device) -> tuple[Edge, ...]:
    """What the device is made of."""
    return tuple(Edge(device.name, relation.device, relation.kind) for relation in device.members)


def below(devices: Mapping[str, Device], roots: Iterable[str]) -> frozenset[str]:
    """The roots and all that they are made of, down to the disks."""
    return _reached(devices, roots, lambda device: device.members)


def above(devices: Mapping[str, Device], roots: Iterable[str]) -> frozenset[str]:
    """The roots and all that is made of them."""
    return _reached(devices, roots, lambda device: device.holders)


def _reached(
    devices: Mapping[str, Device], roots: Iterable[str], step: Callable[[Device], tuple[Relation, ...]]
) -> frozenset[str]:
    """The listed devices that the steps lead to; each is visited once, whatever loops there are."""
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        device = devices.get(name)
        if device is None or name in reached:
            continue
        reached.add(name)
        waiting.extend(relation.device for relation in step(device))
    return frozenset(reached)
