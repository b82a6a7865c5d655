"""USB devices and their interfaces, on a recorded host with a USB disk, beside what libvirt said there."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from nodedev.capabilities import attributes, kinds_of
from nodedev.discovery import Discovery
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Device, Scene
from nodedev.xml import device_xml

PLAIN = Path(__file__).parents[2] / "fixtures" / "plain"


@pytest.fixture(scope="module")
def devices() -> dict[str, Device]:
    """The devices of the host by name."""
    scanned = Host.scan(RecordedSource.open(PLAIN, attributes()))
    return {device.name: device for device in Discovery().survey(scanned).devices}


@pytest.mark.parametrize("name", ["usb_usb2", "usb_2_1", "usb_2_1_1_0"])
def test_libvirts_document_is_the_same(devices: dict[str, Device], name: str) -> None:
    """Hub, device and interface are word for word what libvirt's nodedev prints."""
    theirs = etree.parse(PLAIN / "peers" / "libvirt-nodedev.xml").xpath(f"//device[name='{name}']")
    assert isinstance(theirs, list)
    ours = etree.fromstring(device_xml(devices[name]))
    assert etree.tostring(ours, method="c14n2", strip_text=True) == etree.tostring(
        theirs[0], method="c14n2", strip_text=True
    )


def test_a_usb_disks_host_is_below_its_interface(devices: dict[str, Device]) -> None:
    """The chain from a USB disk up is the one of the hardware."""
    chain, name = [], devices["scsi_host8"].parent
    while name:
        chain.append(name)
        name = devices[name].parent
    assert chain == ["usb_2_1_1_0", "usb_2_1", "usb_usb2", "pci_0000_00_06_0", "computer"]


@pytest.mark.parametrize("lost", ["busnum", "bInterfaceClass"])
def test_what_goes_while_it_is_read_is_no_device(lost: str) -> None:
    """A device whose descriptor is gone carries neither capability."""
    scanned = Host.scan(RecordedSource.open(PLAIN, attributes()))
    gone = [facts for facts in scanned if facts.subsystem == "usb" and lost in facts.attributes]
    assert gone
    for facts in gone:
        rest = {name: text for name, text in facts.attributes.items() if name != lost}
        left = DeviceFacts(facts.path, "usb", facts.properties, rest, facts.symlinks)
        assert not [
            kind for kind in kinds_of("usb") if kind.probe(left, Scene(scanned, lambda each: each.path))
        ]
