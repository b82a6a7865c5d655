"""PCI functions.

Follows Linux' Documentation/ABI/testing/sysfs-bus-pci and libvirt's udevProcessPCI. Names come from
udev's hwdb, which like libvirt's libpciaccess has them from pci.ids, but adds a known subsystem's name
in parentheses. Left out: a link's port, which only the configuration space tells; `vpd`, whose reading
can stall a device; `mdev_types`.
"""

from __future__ import annotations

import re
from posixpath import basename
from typing import Annotated

from msgspec import Struct

from nodedev.facts.host import DeviceFacts
from nodedev.fields import Attribute, Element, Sub, Text
from nodedev.model import Capability, CapabilityKind, Scene

_ADDRESS = re.compile(r"([0-9a-f]{4,}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_VIRTUAL_FUNCTION = re.compile(r"virtfn(\d+)", re.ASCII)
_GROUP_MEMBER = re.compile(r"iommu_group/devices/([^/]+)")
_CARDBUS_BRIDGE = 0x0607
# What the kernel prints for the width of a link that is none (PCIE_LNK_WIDTH_UNKNOWN).
_NO_LINK = (0, 0xFF)


class Id(Struct, frozen=True):
    """A vendor's or product's number, and its name where pci.ids knows one."""

    id: Annotated[str, Attribute()]
    name: Annotated[str | None, Text()] = None


class Address(Struct, frozen=True):
    """Where a function is, each part in hexadecimal."""

    domain: Annotated[str, Attribute()]
    bus: Annotated[str, Attribute()]
    slot: Annotated[str, Attribute()]
    function: Annotated[str, Attribute()]


class PhysicalFunction(Struct, frozen=True):
    """The function whose virtual one this is."""

    address: Address | None = None


class VirtualFunctions(Struct, frozen=True):
    """The virtual functions there are, and how many there can be."""

    max_count: Annotated[int | None, Attribute("maxCount")] = None
    addresses: Annotated[tuple[Address, ...], Element("address")] = ()


class Bridge(Struct, frozen=True):
    """That other buses lie behind the function."""


class IommuGroup(Struct, frozen=True):
    """The functions that can only be given away together."""

    number: Annotated[int, Attribute()]
    addresses: Annotated[tuple[Address, ...], Element("address")] = ()


class Numa(Struct, frozen=True):
    """The memory node the function is near to."""

    node: Annotated[int, Attribute()]


class Link(Struct, frozen=True):
    """A PCI Express link: `cap` what it can do, `sta` what it does; speed in GT/s."""

    validity: Annotated[str, Attribute()]
    speed: Annotated[str | None, Attribute()] = None
    width: Annotated[int | None, Attribute()] = None


class PciExpress(Struct, frozen=True):
    """A PCI Express function; one that is part of the root complex has no link."""

    links: Annotated[tuple[Link, ...], Element("link")] = ()


class Pci(Capability, frozen=True):
    """A PCI function. `class_code` is base class, subclass and interface in hexadecimal."""

    TYPE = "pci"

    class_code: Annotated[str | None, Element("class")]
    domain: int
    bus: int
    slot: int
    function: int
    product: Id | None = None
    vendor: Id | None = None
    physical_function: Annotated[PhysicalFunction | None, Sub("phys_function")] = None
    virtual_functions: Annotated[VirtualFunctions | None, Sub("virt_functions")] = None
    pci_bridge: Annotated[Bridge | None, Sub("pci-bridge")] = None
    cardbus_bridge: Annotated[Bridge | None, Sub("cardbus-bridge")] = None
    iommu_group: Annotated[IommuGroup | None, Element("iommuGroup")] = None
    numa: Numa | None = None
    pci_express: Annotated[PciExpress | None, Element("pci-express")] = None


def probe(facts: DeviceFacts, scene: Scene) -> Pci | None:
    """A PCI function, from its uevent and sysfs; nothing is read from its configuration space."""
    if facts.subsystem != "pci" or "PCI_CLASS" not in facts.properties:
        return None
    place = _ADDRESS.fullmatch(facts.kernel_name)
    if not place:
        return None
    domain, bus, slot, function = (int(part, 16) for part in place.groups())
    code = int(facts.properties["PCI_CLASS"], 16)
    vendor, _, product = facts.properties.get("PCI_ID", "").lower().partition(":")
    bridge = "subordinate_bus_number" in facts.attributes
    cardbus = code >> 8 == _CARDBUS_BRIDGE
    node = facts.number("numa_node")
    return Pci(
        class_code=f"0x{code:06x}",
        domain=domain,
        bus=bus,
        slot=slot,
        function=function,
        product=Id(f"0x{product}", facts.properties.get("ID_MODEL_FROM_DATABASE")) if product else None,
        vendor=Id(f"0x{vendor}", facts.properties.get("ID_VENDOR_FROM_DATABASE")) if vendor else None,
        physical_function=_physical_function(facts),
        virtual_functions=_virtual_functions(facts),
        pci_bridge=Bridge() if bridge and not cardbus else None,
        cardbus_bridge=Bridge() if bridge and cardbus else None,
        iommu_group=_iommu_group(facts, scene),
        numa=Numa(node) if node is not None and node >= 0 else None,
        pci_express=_pci_express(facts),
    )


def _address(name: str) -> Address | None:
    found = _ADDRESS.fullmatch(name)
    if not found:
        return None
    domain, bus, slot, function = found.groups()
    return Address(f"0x{domain}", f"0x{bus}", f"0x{slot}", f"0x{function}")


def _physical_function(facts: DeviceFacts) -> PhysicalFunction | None:
    target = facts.symlinks.get("physfn")
    return PhysicalFunction(_address(basename(target))) if target else None


def _virtual_functions(facts: DeviceFacts) -> VirtualFunctions | None:
    """The functions in the kernel's own order, that of their routing ids."""
    numbered = {
        int(found[1]): basename(target)
        for link, target in facts.symlinks.items()
        if (found := _VIRTUAL_FUNCTION.fullmatch(link))
    }
    addresses = (_address(numbered[number]) for number in sorted(numbered))
    known = tuple(address for address in addresses if address)
    possible = facts.number("sriov_totalvfs") or None
    return VirtualFunctions(possible, known) if known or possible else None


def _iommu_group(facts: DeviceFacts, scene: Scene) -> IommuGroup | None:
    """The group, whole or not at all: who gives away a part of it by an incomplete list is misled."""
    number = basename(facts.symlinks.get("iommu_group", ""))
    if not number.isdecimal():
        return None
    names = (found[1] for name in facts.symlinks if (found := _GROUP_MEMBER.fullmatch(name)))
    addresses = tuple(address for name in sorted(names) if (address := _address(name)))
    if not addresses:
        scene.note("sysfs", f"which functions share IOMMU group {number} could not be read")
        return None
    return IommuGroup(int(number), addresses)


def _pci_express(facts: DeviceFacts) -> PciExpress | None:
    """The link, from the attributes that the kernel gives to PCI Express functions alone."""
    if "max_link_width" not in facts.attributes:
        return None
    can = _link(facts, "cap", "max")
    does = _link(facts, "sta", "current") if can else None
    return PciExpress(tuple(link for link in (can, does) if link))


def _link(facts: DeviceFacts, validity: str, which: str) -> Link | None:
    width = facts.number(f"{which}_link_width")
    if width is None or (validity == "cap" and width in _NO_LINK):
        return None
    # "8.0 GT/s PCIe"; "Unknown" where the link is down.
    speed = re.match(r"([0-9]+(?:\.[0-9]+)?) GT/s", facts.attributes.get(f"{which}_link_speed", ""))
    return Link(validity, speed[1].removesuffix(".0") if speed else None, width)


KIND = CapabilityKind(
    shape=Pci,
    probe=probe,
    attributes={
        "pci": (
            "numa_node",
            "sriov_totalvfs",
            "subordinate_bus_number",
            "max_link_speed",
            "max_link_width",
            "current_link_speed",
            "current_link_width",
            "iommu_group/devices/*",
        )
    },
    order=2,
    stock=True,
)
