"""SCSI generic nodes, /dev/sgN. Follows libvirt's udevProcessSCSIGeneric."""

from __future__ import annotations

from nodedev.facts.host import DeviceFacts
from nodedev.model import Capability, CapabilityKind, Scene


class ScsiGeneric(Capability, frozen=True):
    """A character device that passes SCSI commands through."""

    TYPE = "scsi_generic"

    char: str | None = None


def probe(facts: DeviceFacts, _scene: Scene) -> ScsiGeneric | None:
    """A SCSI generic node, from its uevent."""
    if facts.subsystem != "scsi_generic" or facts.devnode is None:
        return None
    return ScsiGeneric(char=facts.devnode)


KIND = CapabilityKind(shape=ScsiGeneric, probe=probe, attributes={"scsi_generic": ()}, order=6, stock=True)
