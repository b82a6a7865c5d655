"""From a host's facts to its devices: names, parents, capabilities and relations.

Names and parents are libvirt's (node_device_udev.c): `{subsystem}_{sysname}[_{serial}]`, each
character outside [A-Za-z0-9] turned into `_`; the parent is the nearest listed sysfs ancestor.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from posixpath import dirname

from msgspec import Struct

from nodedev.capabilities import kinds_of
from nodedev.facts.host import DeviceFacts, Host, Note
from nodedev.model import COMPUTER, Capability, Device, Earlier, Relation, Scene

_log = logging.getLogger(__name__)

_DMI = "/devices/virtual/dmi/id"
_NO_DMI = DeviceFacts(path=_DMI, subsystem="dmi", properties={}, attributes={}, symlinks={})
_SYSFS = "/devices/"
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9]")
# What a loop device says does not depend on the disk below its file, which may hold thousands of them.
_BACKING = "backing"


class Found(Struct, frozen=True):
    """What a pass found: devices as they are now, and the names of those that are gone."""

    devices: tuple[Device, ...]
    removed: tuple[str, ...] = ()


class _Draft(Struct, frozen=True):
    facts: DeviceFacts
    name: str
    parent: str | None
    capabilities: tuple[Capability, ...]
    members: tuple[Relation, ...]
    notes: tuple[Note, ...]


class Discovery:
    """Turns facts into devices, and remembers between passes what is named and related how.

    `probes` counts the devices looked at since the start.
    """

    def __init__(self) -> None:
        self.probes = 0
        self._names = _Names()
        self._listed: dict[str, str] = {}
        self._devices: dict[str, Device] = {}
        self._holders: dict[str, dict[str, str]] = {}

    def survey(self, host: Host) -> Found:
        """Every device of the host; the pass must have been scanned."""
        present = {facts.path: facts for facts in _all(host)}
        gone = [path for path in self._listed if path not in present]
        removed = [self._forget(path).name for path in (*gone, *self._renamed(present.values(), host))]
        drafts = []
        for facts in present.values():
            draft = self._draft(facts, host)
            if draft:
                drafts.append(draft)
            elif facts.path in self._listed:
                removed.append(self._forget(facts.path).name)
        for draft in drafts:
            self._relate(draft)
        return Found(tuple(self._remember(draft) for draft in drafts), tuple(removed))

    def revisit(self, host: Host, paths: Iterable[str]) -> Found:
        """The devices at these sysfs paths, and those whose relations or claims they changed.

        The pass must be a new one, not scanned. The work is that of the paths and of what they
        changed: a device that comes out as it was leads no further.
        """
        waiting = dict.fromkeys(sorted(paths))
        present = [facts for path in waiting if (facts := host.device(path))]
        removed = []
        for path in self._renamed(present, host):
            removed.append(self._forget(path))
            waiting.update(self._neighbours(removed[-1]))
        found: dict[str, Device] = {}
        while waiting:
            path = next(iter(waiting))
            del waiting[path]
            before = self._devices.get(path)
            facts = host.device(path)
            draft = self._draft(facts, host, self._holding) if facts else None
            if draft:
                related = self._relate(draft)
                device = found[draft.name] = self._remember(draft)
                if device != before:
                    waiting.update(self._paths_of(related))
                    waiting.update(self._dependents(device))
            elif before:
                waiting.update(self._neighbours(before))
                removed.append(self._forget(path))
                found.pop(before.name, None)
        return Found(tuple(found.values()), tuple(device.name for device in removed))

    def _neighbours(self, device: Device) -> dict[str, None]:
        """The sysfs paths of what the device is made of and of what is made of it."""
        return self._paths_of(relation.device for relation in (*device.members, *device.holders))

    def _dependents(self, device: Device) -> dict[str, None]:
        """The sysfs paths of the devices that say something else when this one does."""
        holders = (relation.device for relation in device.holders if relation.kind != _BACKING)
        return self._paths_of((*(relation.device for relation in device.members), *holders))

    def _holding(self, facts: DeviceFacts) -> Iterator[tuple[str, Device]]:
        """What an earlier pass found built on a device, with each one's sysfs path."""
        for path in self._paths_of(self._holders.get(self._names.known(facts.path) or "", ())):
            if path in self._devices:
                yield path, self._devices[path]

    def _paths_of(self, names: Iterable[str]) -> dict[str, None]:
        return {path: None for name in names if (path := self._names.path(name)) in self._listed}

    def _renamed(self, present: Iterable[DeviceFacts], host: Host) -> list[str]:
        """The listed paths at which now stands a device of another name, as when dm-0 is reused."""
        return [
            facts.path
            for facts in present
            if facts.path in self._listed and self._names.plain(facts.path) != plain_name(facts, host)
        ]

    def _draft(self, facts: DeviceFacts, host: Host, earlier: Earlier | None = None) -> _Draft | None:
        """The device without its holders, which are known when all have been drafted."""
        self.probes += 1
        scene = Scene(host, lambda other: self._names.name(other, host), earlier=earlier)
        capabilities: list[Capability] = []
        sources: list[str] = []
        listed = False
        for kind in kinds_of(facts.subsystem):
            try:
                capability = kind.probe(facts, scene)
            except Exception:  # noqa: BLE001  one device that nobody foresaw must not hide the others
                _log.exception("%s: the probe of %s failed", facts.path, kind.type)
                scene.note("nodedev", f"its {kind.type} capability could not be made out; the log tells more")
                continue
            if capability:
                capabilities.append(capability)
                sources.extend(kind.sources)
                listed = listed or kind.lists
        if not listed:
            return None
        if facts.path not in self._listed and self._names.known(facts.path):
            self._names.drop(facts.path)  # a name from when others met it, and it was not all there yet
        name = self._names.name(facts, host)
        self._listed[facts.path] = name
        notes = [*facts.notes, *scene.notes]
        notes += [host.notes[source] for source in dict.fromkeys(sources) if source in host.notes]
        plain = self._names.plain(facts.path)
        if name != plain:
            notes.append(Note("nodedev", f"another device has the name {plain}"))
        members = tuple(Relation(kind, scene.name_of(member)) for kind, member in _members(facts, host))
        return _Draft(
            facts, name, self._parent(facts), tuple(capabilities), members, tuple(dict.fromkeys(notes))
        )

    def _parent(self, facts: DeviceFacts) -> str | None:
        if facts.path == _DMI:
            return None
        path = dirname(facts.path)
        while len(path) > 1:
            if path in self._listed:
                return self._listed[path]
            path = dirname(path)
        return COMPUTER

    def _relate(self, draft: _Draft) -> set[str]:
        """Makes the device a holder of its members; the names of those that this changed."""
        device = self._devices.get(draft.facts.path)
        before, after = set(device.members if device else ()), set(draft.members)
        for relation in before - after:
            self._holders[relation.device].pop(draft.name, None)
        for relation in after - before:
            self._holders.setdefault(relation.device, {})[draft.name] = relation.kind
        return {relation.device for relation in before ^ after}

    def _forget(self, path: str) -> Device:
        """Drops a device that is gone."""
        device = self._devices.pop(path)
        del self._listed[path]
        self._names.drop(path)
        for relation in device.members:
            self._holders[relation.device].pop(device.name, None)
        return device

    def _remember(self, draft: _Draft) -> Device:
        facts = draft.facts
        in_sysfs = facts.path.startswith(_SYSFS) and draft.parent is not None
        holders = self._holders.get(draft.name, {})
        device = Device(
            name=draft.name,
            parent=draft.parent,
            sysfs_path=f"/sys{facts.path}" if in_sysfs else None,
            devnode=facts.devnode,
            links=facts.links,
            driver=facts.driver,
            device_number=facts.device_number if facts.subsystem == "block" else None,
            generation=generation(facts),
            capabilities=draft.capabilities,
            members=draft.members,
            holders=tuple(Relation(kind, name) for name, kind in sorted(holders.items())),
            notes=draft.notes,
        )
        # What came out as it was stays the same object, for those that remember it by that.
        before = self._devices.get(facts.path)
        if device == before:
            return before
        self._devices[facts.path] = device
        return device


def generation(facts: DeviceFacts) -> int | None:
    """The kernel's diskseq (Linux 5.15), which its uevent file has too."""
    text = facts.properties.get("DISKSEQ", "")
    return int(text) if text.isdecimal() and facts.devtype == "disk" else None


class _Names:
    """Which sysfs path has which name; the first of two with the same one keeps it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._plain: dict[str, str] = {}
        self._paths: dict[str, str] = {}

    def name(self, facts: DeviceFacts, host: Host) -> str:
        """The device's name; numbered from 2 where the plain one is another's."""
        known = self._names.get(facts.path)
        if known:
            return known
        name = plain = plain_name(facts, host)
        count = 1
        while name in self._paths:
            count += 1
            name = f"{plain}_{count}"
        self._names[facts.path] = name
        self._plain[facts.path] = plain
        self._paths[name] = facts.path
        return name

    def known(self, path: str) -> str | None:
        """The name that was given to the device at a sysfs path."""
        return self._names.get(path)

    def plain(self, path: str) -> str:
        """The name without a number."""
        return self._plain[path]

    def path(self, name: str) -> str | None:
        """Where the device of that name is."""
        return self._paths.get(name)

    def drop(self, path: str) -> None:
        """Lets the name be given again."""
        del self._paths[self._names.pop(path)]
        del self._plain[path]


def plain_name(facts: DeviceFacts, host: Host) -> str:
    """The name by what the device is; another one's may be the same."""
    if facts.path == _DMI:
        return COMPUTER
    own = (kind.naming(facts, host) for kind in kinds_of(facts.subsystem) if kind.naming)
    name = next(filter(None, own), None) or _libvirt_name(facts)
    return _UNNAMEABLE.sub("_", name)


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
    for kind in kinds_of(facts.subsystem):
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
