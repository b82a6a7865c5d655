"""The machine itself, the root of all devices.

Follows /sys/class/dmi/id (Linux' drivers/firmware/dmi-id.c) and libvirt's udevGetDMIData.
"""

from __future__ import annotations

import re

from msgspec import Struct

from nodedev.capabilities._libvirt import sysfs_string
from nodedev.facts.host import DeviceFacts
from nodedev.model import Capability, CapabilityKind, Scene

# libvirt's grammar demands a uuid. libvirt itself makes one up at each start of its daemon where
# SMBIOS has none, and prints this one, RFC 9562's for "none", where there is no SMBIOS.
NIL_UUID = "00000000-0000-0000-0000-000000000000"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Hardware(Struct, frozen=True):
    """The product as its maker calls it."""

    vendor: str | None = None
    version: str | None = None
    serial: str | None = None
    uuid: str | None = None


class Firmware(Struct, frozen=True):
    """The BIOS or UEFI."""

    vendor: str | None = None
    version: str | None = None
    release_date: str | None = None


class System(Capability, frozen=True):
    """What SMBIOS tells of the machine; hardware and firmware are there even where it tells nothing."""

    TYPE = "system"

    product: str | None = None
    hardware: Hardware | None = None
    firmware: Firmware | None = None


def probe(facts: DeviceFacts, scene: Scene) -> System | None:
    """SMBIOS as sysfs shows it; a device without attributes stands for a machine without SMBIOS."""
    if facts.subsystem != "dmi":
        return None
    return System(
        product=sysfs_string(facts, "product_name"),
        hardware=Hardware(
            vendor=sysfs_string(facts, "sys_vendor"),
            version=sysfs_string(facts, "product_version"),
            serial=sysfs_string(facts, "product_serial"),
            uuid=_uuid(facts, scene),
        ),
        firmware=Firmware(
            vendor=sysfs_string(facts, "bios_vendor"),
            version=sysfs_string(facts, "bios_version"),
            release_date=sysfs_string(facts, "bios_date"),
        ),
    )


def _uuid(facts: DeviceFacts, scene: Scene) -> str:
    """The machine's UUID; SMBIOS writes all bits alike for one that was never set."""
    known = (facts.text("product_uuid") or "").lower()
    if _UUID.fullmatch(known) and len(set(known.replace("-", ""))) > 1:
        return known
    scene.note("dmi", "product_uuid is not set, or not readable by this user: the uuid shown is the nil UUID")
    return NIL_UUID


KIND = CapabilityKind(
    shape=System,
    probe=probe,
    attributes={
        "dmi": (
            "product_name",
            "sys_vendor",
            "product_version",
            "product_serial",
            "product_uuid",
            "bios_vendor",
            "bios_version",
            "bios_date",
        )
    },
    order=1,
    stock=True,
)
