"""Activating and deactivating what device-mapper drives: LVM's raid volumes and dmraid's sets.

Follows lvchange(8) and dmraid(8). Neither makes or unmakes an array on its disks.
"""

from __future__ import annotations

import re

from nodedev.capabilities import _dm
from nodedev.capabilities._obstacles import require_alike
from nodedev.capabilities._raid import Raid
from nodedev.errors import InvalidError, UnimplementedError
from nodedev.facts.host import DeviceFacts
from nodedev.model import Device, Site
from nodedev.plan import Command, Node, Plan

_DMRAID = "DMRAID-"
_LVM = "LVM-"
# A VG and an LV as lvm(8) allows them, joined as vg/lv.
_VOLUME = re.compile(r"[A-Za-z0-9+_.][A-Za-z0-9+_.-]*/[A-Za-z0-9+_.][A-Za-z0-9+_.-]*", re.ASCII)
_SET = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*", re.ASCII)
# LVM doubles the hyphens of both names, so that a single one stands between them.
_BETWEEN = re.compile(r"(?<!-)((?:--)*)-(?!-)")


def is_meant(raid: Raid) -> bool:
    """Whether a document means a device-mapper array."""
    return raid.implementation == "dm" or (raid.uuid or "").startswith((_LVM, _DMRAID))


def create(raid: Raid, site: Site) -> Plan:
    """Activates the volume or set."""
    name = _name(raid)
    locks = (f"dm {_dm_name(name)}",)
    for device in site.devices.values():
        found = device.capability(Raid.TYPE)
        if isinstance(found, Raid) and same(raid, found):
            pairs = {
                "name": (_dm_name(raid.name) if raid.name else None, found.name),
                "level": (raid.level_name, found.level),
                "metadata": (raid.metadata, found.metadata),
                "chunk": (raid.chunk_bytes, found.chunk_bytes),
                "layout": (raid.layout, found.layout),
            }
            require_alike(device.name, pairs)
            return Plan((), locks, existing=site.facts(device).path)
    return Plan((_command(name, "y", dmraid=_is_dmraid(raid)),), locks)


def destroy(device: Device, facts: DeviceFacts, node: Node) -> Plan:
    """Deactivates it."""
    kind, name = _dm.uuid_kind(facts), facts.attributes.get("dm/name", "")
    volume = _volume(name) if kind == "LVM" else name
    if kind not in ("LVM", "DMRAID") or volume is None:
        raise UnimplementedError(
            f"{device.name} is neither LVM's nor dmraid's, and who made it must take it down",
            reason="CAPABILITY_NOT_DESTROYABLE",
        )
    step = _command(volume, "n", dmraid=kind == "DMRAID")
    return Plan((step,), (device.name, f"dm {name}"), nodes=(node,))


def same(wanted: Raid, found: Raid) -> bool:
    """Whether it is the volume of that name, or of that dm uuid."""
    if found.implementation != "dm":
        return False
    if wanted.uuid and found.uuid:
        return wanted.uuid == found.uuid
    return bool(wanted.name) and found.name is not None and _dm_name(wanted.name or "") == found.name


def identity(wanted: Raid) -> str | None:
    """The dm name."""
    return f"raid dm {_dm_name(wanted.name)}" if wanted.name else None


def _name(raid: Raid) -> str:
    """What the tool calls it: vg/lv, or the set's name."""
    name = raid.name or ""
    if _is_dmraid(raid):
        name = name or (raid.uuid or "").removeprefix(_DMRAID)
        if _SET.fullmatch(name):
            return name
    else:
        name = name if "/" in name else _volume(name) or ""
        if _VOLUME.fullmatch(name):
            return name
    raise InvalidError(
        "a volume is given by its name, vg/lv or as device-mapper has it", reason="XML_INVALID"
    )


def _is_dmraid(raid: Raid) -> bool:
    return raid.metadata == "dmraid" or (raid.uuid or "").startswith(_DMRAID)


def _command(name: str, active: str, *, dmraid: bool) -> Command:
    if dmraid:
        return Command(("dmraid", "--activate", active, name))
    return Command(("lvchange", "--activate", active, name))


def _volume(dm_name: str) -> str | None:
    """The vg/lv of LVM's dm name: vg0-my--lv is vg0/my-lv."""
    parts = _BETWEEN.split(dm_name, maxsplit=1)
    if len(parts) != 3:  # noqa: PLR2004  before, doubled hyphens, behind
        return None
    return f"{parts[0]}{parts[1]}".replace("--", "-") + "/" + parts[2].replace("--", "-")


def _dm_name(name: str) -> str:
    """The dm name of vg/lv; any other name is one already."""
    group, slash, volume = name.partition("/")
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}" if slash else name
