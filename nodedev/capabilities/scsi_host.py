"""SCSI hosts: an HBA's port, an iSCSI session's, a USB bridge.

Follows libvirt's udevProcessSCSIHost and virNodeDeviceGetSCSIHostCaps. The device is the one of the
`scsi` bus; the class devices of the same name below it (scsi_host, fc_host) only tell more of it.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Struct

from nodedev.facts.host import DeviceFacts, Host
from nodedev.fields import Sub
from nodedev.model import Capability, CapabilityKind, Scene

_NAME = re.compile(r"host(\d+)", re.ASCII)


class FcHost(Struct, frozen=True):
    """The port's Fibre Channel names, hexadecimal without 0x."""

    wwnn: str | None = None
    wwpn: str | None = None
    fabric_wwn: str | None = None


class VportOps(Struct, frozen=True):
    """How many NPIV ports the port can have, and has."""

    max_vports: int | None = None
    vports: int | None = None


class ScsiHost(Capability, frozen=True):
    """A SCSI host."""

    TYPE = "scsi_host"

    host: int
    unique_id: int | None = None
    fc_host: Annotated[FcHost | None, Sub("fc_host")] = None
    vport_ops: Annotated[VportOps | None, Sub("vport_ops")] = None


def probe(facts: DeviceFacts, scene: Scene) -> ScsiHost | None:
    """A SCSI host, from its name and its class devices."""
    name = _NAME.fullmatch(facts.kernel_name)
    if facts.devtype != "scsi_host" or not name:
        return None
    port = scene.host.find("fc_host", facts.kernel_name)
    return ScsiHost(
        host=int(name[1]),
        unique_id=_unique_id(facts, scene.host),
        fc_host=_fc_host(port) if port else None,
        vport_ops=_vport_ops(port) if port else None,
    )


def _unique_id(facts: DeviceFacts, host: Host) -> int | None:
    known = host.find("scsi_host", facts.kernel_name)
    number = known.number("unique_id") if known else None
    return number if number is not None and number >= 0 else None


def _fc_host(port: DeviceFacts) -> FcHost | None:
    """The port's names; libvirt's grammar wants the first two together."""
    wwnn, wwpn = _wwn(port, "node_name"), _wwn(port, "port_name")
    return FcHost(wwnn, wwpn, _wwn(port, "fabric_name")) if wwnn and wwpn else None


def _wwn(port: DeviceFacts, attribute: str) -> str | None:
    known = port.text(attribute)
    return known.removeprefix("0x") if known else None


def _vport_ops(port: DeviceFacts) -> VportOps | None:
    """The NPIV counts, which the kernel shows exactly where it has vport_create (write-only)."""
    possible, used = port.number("max_npiv_vports"), port.number("npiv_vports_inuse")
    return VportOps(possible, used) if possible is not None and used is not None else None


KIND = CapabilityKind(
    shape=ScsiHost,
    probe=probe,
    attributes={
        "scsi": (),
        "scsi_host": ("unique_id",),
        "fc_host": ("node_name", "port_name", "fabric_name", "max_npiv_vports", "npiv_vports_inuse"),
    },
    order=3,
    stock=True,
)
