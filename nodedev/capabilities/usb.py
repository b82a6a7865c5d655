"""Interfaces of USB devices, to which drivers are bound.

Follows Linux' Documentation/ABI/testing/sysfs-bus-usb and libvirt's udevProcessUSBInterface.
"""

from __future__ import annotations

from typing import Annotated

from nodedev.facts.host import DeviceFacts
from nodedev.fields import Element
from nodedev.model import Capability, CapabilityKind, Scene


class Usb(Capability, frozen=True):
    """An interface; class, subclass and protocol as USB's list of class codes has them, 8 for storage."""

    TYPE = "usb"

    number: int
    interface_class: Annotated[int, Element("class")]
    subclass: int
    protocol: int


def probe(facts: DeviceFacts, scene: Scene) -> Usb | None:  # noqa: ARG001
    """An interface, by its descriptor as the kernel holds it, which is in hexadecimal."""
    if facts.devtype != "usb_interface":
        return None
    try:
        return Usb(*(int(facts.attributes[f"bInterface{part}"], 16) for part in _DESCRIPTOR))
    except (KeyError, ValueError):
        return None  # it goes while it is read


_DESCRIPTOR = ("Number", "Class", "SubClass", "Protocol")

KIND = CapabilityKind(
    shape=Usb,
    probe=probe,
    attributes={"usb": tuple(f"bInterface{part}" for part in _DESCRIPTOR)},
    order=2,
    stock=True,
)
