"""From a host's facts to its devices: names, parents, capabilities and relations.

Names and parents are libvirt's (node_device_udev.c): `{subsystem}_{sysname}[_{serial}]`, each
character outside [A-Za-z0-9] turned into `_`; the parent is the nearest listed sysfs ancestor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from posixpath import dirname

from nodedev.capabilities import kinds
from nodedev.facts.host import DeviceFacts, Host, Note
from nodedev.model import COMPUTER, Capability, Device, Relation, Scene

_DMI = "/devices/virtual/dmi/id"
_NO_DMI = DeviceFacts(path=_DMI, subsystem="dmi", properties={}, attributes={}, symlinks={})
_SYSFS = "/devices/"


@dataclass(frozen=True, slots=True)
class Found:
    """What a pass found: devices as they are now, and the names of those that are gone."""

    devices: tuple[Device, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Draft:
    facts: DeviceFacts
    name: str
    parent: str | None
    capabilities: tuple[Capability, ...]
    members: tuple[Relation, ...]
    notes: tuple[Note, ...]


class Discovery:
    """Turns facts into devices, and remembers between passes what is named and related how."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        self._listed: set[str] = set()
        self._members: dict[str, tuple[Relation, ...]] = {}
        self._holders: dict[str, dict[str, str]] = {}

    def survey(self, host: Host) -> Found:
        """Every device of the host; the pass must have been scanned."""
        drafts = [draft for facts in _all(host) if (draft := self._draft(facts, host))]
        found = {draft.facts.path for draft in drafts}
        removed = tuple(filter(None, (self._forget(path) for path in sorted(self._listed - found))))
        for draft in drafts:
            self._relate(draft)
        return Found(tuple(self._device(draft) for draft in drafts), removed)

    def _draft(self, facts: DeviceFacts, host: Host) -> _Draft | None:
        """The device without its holders, which are known when all have been drafted."""
        scene = Scene(host, lambda other: self._name_of(other, host))
        capabilities: list[Capability] = []
        sources: list[str] = []
        listed = False
        for kind in kinds():
            capability = kind.probe(facts, scene)
            if capability:
                capabilities.append(capability)
                sources.extend(kind.sources)
                listed = listed or kind.lists
        if not listed:
            return None
        name = self._name_of(facts, host)
        self._listed.add(facts.path)
        notes = [*facts.notes, *scene.notes]
        notes += [host.notes[source] for source in dict.fromkeys(sources) if source in host.notes]
        if name != self._plain_name(facts, host):
            notes.append(Note("nodedev", f"another device has the name {self._plain_name(facts, host)}"))
        members = tuple(
            Relation(kind_, self._name_of(member, host)) for kind_, member in _members(facts, host)
        )
        return _Draft(facts, name, self._parent(facts), tuple(capabilities), members, tuple(notes))

    def _parent(self, facts: DeviceFacts) -> str | None:
        if facts.path == _DMI:
            return None
        path = dirname(facts.path)
        while len(path) > 1:
            if path in self._listed:
                return self._names[path]
            path = dirname(path)
        return COMPUTER

    def _relate(self, draft: _Draft) -> set[str]:
        """Brings the holders of the members, old and new, up to date; the names of those that changed."""
        before, after = self._members.get(draft.name, ()), draft.members
        if before == after:
            return set()
        for relation in before:
            self._holders.get(relation.device, {}).pop(draft.name, None)
        for relation in after:
            self._holders.setdefault(relation.device, {})[draft.name] = relation.kind
        self._members[draft.name] = after
        return {relation.device for relation in {*before, *after}}

    def _forget(self, path: str) -> str | None:
        """Drops a device that is gone, and tells its name."""
        self._listed.discard(path)
        name = self._names.pop(path, None)
        if name is None:
            return None
        self._paths.pop(name, None)
        for relation in self._members.pop(name, ()):
            self._holders.get(relation.device, {}).pop(name, None)
        self._holders.pop(name, None)
        return name

    def _device(self, draft: _Draft) -> Device:
        facts = draft.facts
        in_sysfs = facts.path.startswith(_SYSFS) and draft.parent is not None
        holders = self._holders.get(draft.name, {})
        return Device(
            name=draft.name,
            parent=draft.parent,
            sysfs_path=f"/sys{facts.path}" if in_sysfs else None,
            devnode=facts.devnode,
            links=facts.links,
            driver=facts.driver,
            device_number=facts.device_number if facts.subsystem == "block" else None,
            generation=facts.number("diskseq"),
            capabilities=draft.capabilities,
            members=draft.members,
            holders=tuple(Relation(kind, name) for name, kind in sorted(holders.items())),
            notes=draft.notes,
        )

    def _name_of(self, facts: DeviceFacts, host: Host) -> str:
        """The device's name; the first of two with the same one keeps it, the other is numbered."""
        known = self._names.get(facts.path)
        if known:
            return known
        name = plain = self._plain_name(facts, host)
        count = 1
        while name in self._paths:
            count += 1
            name = f"{plain}_{count}"
        self._names[facts.path] = name
        self._paths[name] = facts.path
        return name

    def _plain_name(self, facts: DeviceFacts, host: Host) -> str:
        if facts.path == _DMI:
            return COMPUTER
        own = (kind.naming(facts, host) for kind in kinds() if kind.naming)
        name = next(filter(None, own), None) or _libvirt_name(facts)
        return re.sub(r"[^A-Za-z0-9]", "_", name)


def _libvirt_name(facts: DeviceFacts) -> str:
    serial = facts.properties.get("ID_SERIAL") if facts.subsystem == "block" else None
    return "_".join(filter(None, (facts.subsystem, facts.sysname, serial)))


def _all(host: Host) -> Iterator[DeviceFacts]:
    """The scanned devices, ancestors first, and what stands for the machine where it has no DMI."""
    if host.device(_DMI) is None:
        yield _NO_DMI
    yield from host


def _members(facts: DeviceFacts, host: Host) -> Iterator[tuple[str, DeviceFacts]]:
    """What the device is made of, as the first capability that knows tells it, or the kernel."""
    for kind in kinds():
        if kind.members:
            known = tuple(kind.members(facts, host))
            if known:
                yield from known
                return
    yield from _kernel_members(facts, host)


def _kernel_members(facts: DeviceFacts, host: Host) -> Iterable[tuple[str, DeviceFacts]]:
    if facts.devtype == "partition":
        disk = host.device(dirname(facts.path))
        return [("partition", disk)] if disk else []
    kind = "dm" if "dm/name" in facts.attributes else "slave"
    return [(kind, slave) for name in facts.slaves if (slave := host.block(name))]
