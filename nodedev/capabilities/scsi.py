"""SCSI logical units.

Follows libvirt's udevProcessSCSIDevice; the type numbers are SPC's peripheral device types.
"""

from __future__ import annotations

import re

from nodedev.facts.host import DeviceFacts
from nodedev.model import Capability, CapabilityKind, Scene

_NAME = re.compile(r"(\d+):(\d+):(\d+):(\d+)", re.ASCII)
# The words are libvirt's; other types it leaves out, and so do we.
_TYPES = {
    0x00: "disk",
    0x01: "tape",
    0x03: "processor",
    0x04: "worm",
    0x05: "cdrom",
    0x06: "scanner",
    0x07: "mod",
    0x08: "changer",
    0x0C: "raid",
    0x0D: "enclosure",
}


class Scsi(Capability, frozen=True):
    """A SCSI logical unit by its address."""

    TYPE = "scsi"

    host: int
    bus: int
    target: int
    lun: int
    type: str | None = None


def probe(facts: DeviceFacts, _scene: Scene) -> Scsi | None:
    """A SCSI logical unit, from its name and the type it answered to INQUIRY."""
    name = _NAME.fullmatch(facts.kernel_name)
    if facts.devtype != "scsi_device" or not name:
        return None
    host, bus, target, lun = (int(part) for part in name.groups())
    number = facts.number("type")
    return Scsi(host, bus, target, lun, None if number is None else _TYPES.get(number))


KIND = CapabilityKind(shape=Scsi, probe=probe, attributes={"scsi": ("type",)}, order=5, stock=True)
