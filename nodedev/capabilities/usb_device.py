"""USB devices, hubs among them.

Follows Linux' Documentation/ABI/testing/sysfs-bus-usb and libvirt's udevProcessUSBDevice.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from nodedev.facts.host import DeviceFacts
from nodedev.fields import Attribute, Text
from nodedev.model import Capability, CapabilityKind, Scene


class UsbId(Struct, frozen=True):
    """A vendor's or product's number, and its name where usb.ids or the device tells one."""

    id: Annotated[str, Attribute()]
    name: Annotated[str | None, Text()] = None


class UsbDevice(Capability, frozen=True):
    """A USB device."""

    TYPE = "usb_device"

    bus: int
    device: int
    product: UsbId | None = None
    vendor: UsbId | None = None


def probe(facts: DeviceFacts, scene: Scene) -> UsbDevice | None:  # noqa: ARG001
    """A USB device, by what it told the kernel of itself; nothing is asked of it."""
    bus, device = facts.number("busnum"), facts.number("devnum")
    if facts.devtype != "usb_device" or bus is None or device is None:
        return None
    return UsbDevice(
        bus=bus,
        device=device,
        product=_id(facts, "idProduct", "ID_MODEL_FROM_DATABASE", "product"),
        vendor=_id(facts, "idVendor", "ID_VENDOR_FROM_DATABASE", "manufacturer"),
    )


def _id(facts: DeviceFacts, number: str, known: str, told: str) -> UsbId | None:
    found = facts.text(number)
    return UsbId(f"0x{found}", facts.properties.get(known) or facts.text(told)) if found else None


KIND = CapabilityKind(
    shape=UsbDevice,
    probe=probe,
    attributes={"usb": ("busnum", "devnum", "idVendor", "idProduct", "manufacturer", "product")},
    order=2,
    stock=True,
)
