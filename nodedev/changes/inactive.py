"""Devices that are not there and could be started: defined ones, and those whose members wait."""

from __future__ import annotations

from nodedev.capabilities import kinds
from nodedev.changes.definitions import Definition, Definitions, Wish, definition_of
from nodedev.errors import NodedevError
from nodedev.model import Capability, CapabilityKind, Site


def inactive(definitions: Definitions, site: Site) -> tuple[Definition, ...]:
    """In the order of their names; a definition goes before what is found of the same device."""
    found = {
        definition.identity: definition for definition in definitions if not _is_there(definition.wish, site)
    }
    kept = {definition.identity for definition in definitions}
    for kind in kinds():
        for capability in kind.changing.waiting(site) if kind.changing else ():
            waiting = _waiting(kind, capability)
            if waiting and waiting.identity not in kept:
                found.setdefault(waiting.identity, waiting)
    return tuple(sorted(found.values(), key=lambda definition: definition.name))


def _is_there(wish: Wish, site: Site) -> bool:
    type_ = wish.capability.TYPE
    return any(
        wish.changing.same(wish.capability, device, site.host)
        for device in site.devices.values()
        if device.capability(type_)
    )


def _waiting(kind: CapabilityKind, capability: Capability) -> Definition | None:
    try:
        return definition_of(Wish(None, capability, kind.changing)) if kind.changing else None
    except NodedevError:
        return None  # a WWID so long or odd that it makes no name
