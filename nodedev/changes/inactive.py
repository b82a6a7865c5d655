"""Devices that are not there and could be started: defined ones, and those whose members wait."""

from __future__ import annotations

from collections.abc import Iterator

from nodedev.capabilities import kinds
from nodedev.changes.definitions import Definition, Definitions, Wish, changing_of, definition_of
from nodedev.errors import NodedevError
from nodedev.facts.host import Host
from nodedev.model import Capability, CapabilityKind, Changing, Device, Site


def inactive(definitions: Definitions, site: Site) -> tuple[Definition, ...]:
    """In the order of their names; a definition goes before what is found of the same device."""
    there = {word for device in site.devices.values() for word in _active(device, site.host)}
    found = {
        definition.identity: definition
        for definition in definitions
        if there.isdisjoint(_words(definition.wish.capability, definition.wish.changing, site.host))
    }
    for kind in kinds():
        for capability in kind.changing.waiting(site) if kind.changing else ():
            waiting = _waiting(kind, capability)
            if waiting and definitions.by_identity(waiting.identity) is None:
                found.setdefault(waiting.identity, waiting)
    return tuple(sorted(found.values(), key=lambda definition: definition.name))


def _active(device: Device, host: Host) -> Iterator[str]:
    changed = changing_of(device)
    if changed:
        yield from _words(*changed, host)


def _words(capability: Capability, changing: Changing, host: Host) -> Iterator[str]:
    """All that the device is known by; whatever shares one of them is the same device."""
    identity = changing.identity(capability)
    if identity:
        yield identity
    yield from changing.aliases(capability, host)


def _waiting(kind: CapabilityKind, capability: Capability) -> Definition | None:
    try:
        return definition_of(Wish(None, capability, kind.changing)) if kind.changing else None
    except NodedevError:
        return None  # a WWID so long or odd that it makes no name
