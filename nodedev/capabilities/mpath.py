"""Multipath devices: dm-multipath maps, and the heads of native NVMe multipath.

Follows Linux' drivers/md/dm-mpath.c and drivers/nvme/host/multipath.c, and multipath-tools for the
words. What a map is made of is what the kernel says: the `slaves` of a dm device whose uuid begins
with `mpath-`, or the hidden namespaces of a head's controllers; never equal serials.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from posixpath import dirname

from msgspec import Struct

from nodedev.capabilities import _dm, _mpath_change
from nodedev.capabilities._nvme import HEAD, is_head
from nodedev.capabilities._paths import (
    UUID_PREFIX,
    Group,
    Leg,
    Mpath,
    Path,
    health_of,
    redundancy_of,
    usable,
)
from nodedev.capabilities._transport import (
    ATTRIBUTES,
    Ends,
    address_of,
    controller_of,
    ends_of,
    transport_of,
)
from nodedev.facts.dm_targets import parse_multipath_status, parse_multipath_table
from nodedev.facts.dm_text import DmMap, DmTarget
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.multipathd import MultipathdMap, MultipathdPath
from nodedev.model import CapabilityKind, Scene

__all__ = ["KIND", "Mpath"]

_CONTROLLER = re.compile(r"nvme(\d+)")

_PATH_STATES = {"A": "active", "F": "failed"}
_GROUP_STATES = {"A": "active", "E": "enabled", "D": "disabled"}
# Features of a multipath table that are followed by a value.
_WITH_VALUE = frozenset({"pg_init_retries", "pg_init_delay_msecs", "queue_mode"})
_UNSET = frozenset({"-", "undef"})
_ANA_ORDER = ("optimized", "non-optimized", "inaccessible", "persistent-loss", "change")


def is_map(facts: DeviceFacts) -> bool:
    """Whether the device is a dm-multipath map."""
    return facts.subsystem == "block" and _dm.is_multipath(facts)


def paths_of(facts: DeviceFacts, host: Host) -> Iterator[DeviceFacts]:
    """The disks that a map or head has in sysfs as its paths."""
    if is_map(facts):
        yield from filter(None, map(host.block, facts.slaves))
    elif head := HEAD.fullmatch(facts.path):
        for controller in _controllers(facts, host):
            # The middle number is the controller's own; until Linux 4.20 it was its cntlid.
            for number in (controller.kernel_name.removeprefix("nvme"), controller.text("cntlid")):
                path = host.device(f"{controller.path}/nvme{head[1]}c{number}n{head[2]}")
                if path:
                    yield path
                    break


def _controllers(head: DeviceFacts, host: Host) -> Iterator[DeviceFacts]:
    subsystem = host.device(dirname(head.path))
    names = filter(_CONTROLLER.fullmatch, subsystem.symlinks if subsystem else ())
    for name in sorted(names, key=lambda name: int(name.removeprefix("nvme"))):
        controller = host.find("nvme", name)
        if controller:
            yield controller


def probe(facts: DeviceFacts, scene: Scene) -> Mpath | None:
    """A map as DM, multipathd and sysfs tell it; an NVMe head from sysfs alone."""
    if is_map(facts):
        return _map(facts, scene)
    return _head(facts, scene) if is_head(facts) else None


class _Word(Struct, frozen=True):
    """What is said of one path: by the kernel's status, or by multipathd in its place."""

    device_number: str
    state: str | None = None
    failures: int | None = None


class _Layout(Struct, frozen=True):
    """One group before its paths are looked up."""

    number: int | None
    state: str | None
    selector: str | None
    priority: int | None
    words: tuple[_Word, ...]


class _Table(Struct, frozen=True):
    """How a map is laid out, by the kernel or by multipathd's copy."""

    features: tuple[str, ...]
    hardware_handler: str | None
    layouts: tuple[_Layout, ...]


def _map(facts: DeviceFacts, scene: Scene) -> Mpath:
    host = scene.host
    wwid = facts.attributes["dm/uuid"].removeprefix(UUID_PREFIX)
    mapped = host.maps.get(facts.device_number or "")
    told = host.multipathd.get(wwid)
    disks = {disk.device_number or disk.path: disk for disk in paths_of(facts, host)}
    target = _target(mapped, scene)
    table = (_kernel_table(target, told, scene) if target else None) or _told_table(told, disks)
    layouts = _completed(table.layouts if table else (), disks)
    checks = {path.device_number: path for group in told.groups for path in group.paths} if told else {}
    legs = [[_leg(word, disks, checks, scene) for word in layout.words] for layout in layouts]
    every = [leg for group in legs for leg in group]
    suspended = facts.flag("dm/suspended")
    # A map that never had a table is known to DM's ioctls alone.
    if suspended is None and mapped:
        suspended = mapped.suspended
    return Mpath(
        implementation="dm",
        wwid=wwid,
        alias=facts.text("dm/name"),
        state=None if suspended is None else "suspended" if suspended else "active",
        health="failed" if mapped and not target else health_of([leg.usable for leg in every]),
        redundancy=redundancy_of(every),
        queueing=_queueing(told, table),
        features=table.features if table else (),
        hardware_handler=table.hardware_handler if table else None,
        failback=told.failback if told else None,
        groups=tuple(
            Group(layout.number, layout.state, layout.selector, layout.priority, _paths(group))
            for layout, group in zip(layouts, legs, strict=True)
        ),
    )


def _target(mapped: DmMap | None, scene: Scene) -> DmTarget | None:
    """The multipath target; a map that multipathd left half made has none, or no table at all."""
    found = (
        next((target for target in mapped.targets if target.type == "multipath"), None) if mapped else None
    )
    if mapped and not found:
        scene.note("dm", "the map has no multipath table")
    return found


def _kernel_table(target: DmTarget, told: MultipathdMap | None, scene: Scene) -> _Table | None:
    """The kernel's own; the selector is in the table alone, the priority is multipathd's alone.

    Table and status are read one after the other and multipathd follows both, so what another moment's
    group says is told by its paths and left out.
    """
    try:
        table = parse_multipath_table(target.parameters)
        status = parse_multipath_status(target.status)
    except ValueError as error:
        scene.note("dm", str(error))
        return None
    selectors = {
        (number, frozenset(path.device_number for path in group.paths)): " ".join(
            (group.selector, str(len(group.selector_arguments)), *group.selector_arguments)
        )
        for number, group in enumerate(table.groups, 1)
    }
    priorities = {
        frozenset(path.device_number for path in group.paths): group.priority
        for group in (told.groups if told else ())
    }
    layouts = []
    for number, group in enumerate(status.groups, 1):
        disks = frozenset(path.device_number for path in group.paths)
        words = tuple(
            _Word(path.device_number, _PATH_STATES.get(path.state, path.state), path.fail_count)
            for path in group.paths
        )
        state = _GROUP_STATES.get(group.state, group.state)
        layouts.append(_Layout(number, state, selectors.get((number, disks)), priorities.get(disks), words))
    return _Table(_features(table.features), " ".join(table.hardware_handler) or None, tuple(layouts))


def _told_table(told: MultipathdMap | None, disks: Mapping[str, DeviceFacts]) -> _Table | None:
    """multipathd's, as far as its paths are `slaves`: it may be ahead of the kernel's map, or behind."""
    if told is None:
        return None
    layouts = (
        _Layout(
            group.number,
            group.dm_state,
            group.selector,
            group.priority,
            tuple(
                _Word(path.device_number, path.dm_state)
                for path in group.paths
                if path.device_number in disks
            ),
        )
        for group in told.groups
    )
    features, handler = ((text or "").split()[1:] for text in (told.features, told.hardware_handler))
    return _Table(
        _features(features), " ".join(handler) or None, tuple(layout for layout in layouts if layout.words)
    )


def _completed(layouts: Sequence[_Layout], disks: Mapping[str, DeviceFacts]) -> Sequence[_Layout]:
    """The groups, and last the paths that sysfs has in the map and nobody in a group."""
    placed = {word.device_number for layout in layouts for word in layout.words}
    rest = tuple(_Word(number) for number in disks if number not in placed)
    return [*layouts, _Layout(None, None, None, None, rest)] if rest else layouts


def _features(words: Iterable[str]) -> tuple[str, ...]:
    """The features of a table, each with its value."""
    features: list[str] = []
    for word in words:
        if features and features[-1] in _WITH_VALUE:
            features[-1] += f" {word}"
        else:
            features.append(word)
    return tuple(features)


def _queueing(told: MultipathdMap | None, table: _Table | None) -> str | None:
    """What becomes of I/O without a path: multipathd's word; where it leaves that to the table, its."""
    if told and told.queueing and told.queueing not in _UNSET:
        return told.queueing
    if table is None:
        return None
    return "on" if "queue_if_no_path" in table.features else "off"


def _leg(
    word: _Word, disks: Mapping[str, DeviceFacts], checks: Mapping[str, MultipathdPath], scene: Scene
) -> Leg:
    disk = disks.get(word.device_number)
    told = checks.get(word.device_number)
    if disk is None:
        scene.note("sysfs", f"path {word.device_number} of the kernel's table is no block device any more")
        lost = Path(word.state, told.checker_state if told else None, failures=word.failures)
        # The kernel's word for it is that of the last I/O.
        return Leg(lost, usable=False, ends=Ends(None, None))
    scsi = _scsi_device(disk, scene.host)
    driver = scsi or controller_of(disk, scene.host)
    transport = transport_of(disk, scene.host)
    path = Path(
        state=word.state,
        checker=told.checker_state if told else None,
        device_state=driver.text("state") if driver else None,
        failures=word.failures,
        priority=told.priority if told else None,
        ana_state=scsi.text("access_state") if scsi else None,
        marginal=told.marginal_state if told else None,
        device=scene.name_of(disk),
        block=disk.devnode,
        address=address_of(disk),
        transport=transport,
    )
    return Leg(path, usable(path), ends_of(disk, transport, scene.host))


def _scsi_device(disk: DeviceFacts, host: Host) -> DeviceFacts | None:
    above, _, name = disk.path.rpartition("/block/")
    found = host.device(above) if name else None
    return found if found and found.subsystem == "scsi" else None


def _head(facts: DeviceFacts, scene: Scene) -> Mpath:
    """A head: one group for each ANA state, all paths in one where the subsystem has no ANA."""
    subsystem = scene.host.device(dirname(facts.path))
    groups: dict[str | None, list[Leg]] = {}
    for disk in paths_of(facts, scene.host):
        leg = _nvme_leg(disk, scene)
        groups.setdefault(leg.path.ana_state, []).append(leg)
    legs = [leg for group in groups.values() for leg in group]
    return Mpath(
        implementation="nvme",
        wwid=facts.text("wwid"),
        health=health_of([leg.usable for leg in legs]),
        redundancy=redundancy_of(legs),
        io_policy=subsystem.text("iopolicy") if subsystem else None,
        groups=tuple(
            Group(number, state=state, paths=_paths(groups[state]))
            for number, state in enumerate(sorted(groups, key=_ana_rank), 1)
        ),
    )


def _ana_rank(state: str | None) -> tuple[int, str]:
    return (_ANA_ORDER.index(state) if state in _ANA_ORDER else len(_ANA_ORDER), state or "")


def _nvme_leg(disk: DeviceFacts, scene: Scene) -> Leg:
    controller = controller_of(disk, scene.host)
    transport = transport_of(disk, scene.host)
    path = Path(
        state=controller.text("state") if controller else None,
        ana_state=disk.text("ana_state"),
        device=scene.name_of(disk),
        block=disk.devnode,
        address=address_of(disk),
        transport=transport,
    )
    return Leg(path, usable(path), ends_of(disk, transport, scene.host))


def _paths(legs: Iterable[Leg]) -> tuple[Path, ...]:
    return tuple(leg.path for leg in legs)


def naming(facts: DeviceFacts, _host: Host) -> str | None:
    """A map's name, the same on every host; a head keeps libvirt's, under which clients know it."""
    return f"mpath_{facts.attributes['dm/uuid'].removeprefix(UUID_PREFIX)}" if is_map(facts) else None


def members(facts: DeviceFacts, host: Host) -> Iterator[tuple[str, DeviceFacts]]:
    """The paths."""
    return (("path", path) for path in paths_of(facts, host))


KIND = CapabilityKind(
    shape=Mpath,
    probe=probe,
    naming=naming,
    members=members,
    attributes={
        **ATTRIBUTES,
        "block": (*ATTRIBUTES["block"], "dm/uuid", "dm/name", "dm/suspended", "hidden", "wwid", "ana_state"),
        "scsi": ("state", "access_state"),
        "nvme": (*ATTRIBUTES["nvme"], "cntlid"),
        "nvme-subsystem": ("iopolicy",),
    },
    order=10,
    sources=("dm", "multipathd"),
    changing=_mpath_change.CHANGING,
)
