"""SCSI targets, and the Fibre Channel port behind one.

Follows libvirt's virNodeDeviceGetSCSITargetCaps: a target right below an rport is that port's.
"""

from __future__ import annotations

from posixpath import basename, dirname
from typing import Annotated

from msgspec import Struct

from nodedev.facts.host import DeviceFacts, Host
from nodedev.fields import Sub
from nodedev.model import Capability, CapabilityKind, Scene


class FcRemotePort(Struct, frozen=True):
    """The storage's port; the name in hexadecimal with 0x, as libvirt prints it here."""

    rport: str
    wwpn: str | None = None


class ScsiTarget(Capability, frozen=True):
    """A SCSI target."""

    TYPE = "scsi_target"

    target: str
    fc_remote_port: Annotated[FcRemotePort | None, Sub("fc_remote_port")] = None


def probe(facts: DeviceFacts, scene: Scene) -> ScsiTarget | None:
    """A SCSI target, from its name and its place in sysfs."""
    if facts.devtype != "scsi_target":
        return None
    return ScsiTarget(target=facts.sysname, fc_remote_port=_fc_remote_port(facts, scene.host))


def _fc_remote_port(facts: DeviceFacts, host: Host) -> FcRemotePort | None:
    name = basename(dirname(facts.path))
    port = host.find("fc_remote_ports", name) if name.startswith("rport-") else None
    wwpn = port.text("port_name") if port else None
    return FcRemotePort(name, wwpn) if wwpn else None


KIND = CapabilityKind(
    shape=ScsiTarget,
    probe=probe,
    attributes={"scsi": (), "fc_remote_ports": ("port_name",)},
    order=4,
    stock=True,
)
