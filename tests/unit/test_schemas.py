"""The grammar: what libvirt prints fits it, what nobody means does not."""

from __future__ import annotations

import pytest
from lxml import etree

from nodedev import schemas
from nodedev.capabilities import kinds

PCI = """\
<device>
  <name>pci_0000_82_00_0</name>
  <path>/sys/devices/pci0000:80/0000:80:02.0/0000:82:00.0</path>
  <parent>pci_0000_80_02_0</parent>
  <driver>
    <name>qla2xxx</name>
  </driver>
  <capability type='pci'>
    <class>0x0c0400</class>
    <domain>0</domain>
    <bus>130</bus>
    <slot>0</slot>
    <function>0</function>
    <product id='0x2532'>ISP2532-based 8Gb Fibre Channel to PCI Express HBA</product>
    <vendor id='0x1077'/>
    <capability type='virt_functions' maxCount='7'>
      <address domain='0x0000' bus='0x82' slot='0x00' function='0x1'/>
    </capability>
    <capability type='mdev_types'>
      <type id='any'><name>of them</name><availableInstances>1</availableInstances></type>
    </capability>
    <capability type='vpd'>
      <name>An HBA</name>
      <fields access='readonly'><vendor_field index='Z'>x</vendor_field></fields>
    </capability>
    <iommuGroup number='31'>
      <address domain='0x0000' bus='0x82' slot='0x00' function='0x0'/>
    </iommuGroup>
    <numa node='-1'/>
    <pci-express>
      <link validity='cap' port='0' speed='5' width='8'/>
      <link validity='sta' speed='5' width='8'/>
    </pci-express>
  </capability>
</device>
"""
FC_HOST = """\
<device>
  <name>scsi_host5</name>
  <parent>pci_0000_82_00_0</parent>
  <capability type='scsi_host'>
    <host>5</host>
    <unique_id>2</unique_id>
    <capability type='fc_host'>
      <wwnn>2001001b32a9da4e</wwnn>
      <wwpn>2101001b32a9da4e</wwpn>
      <fabric_wwn>2001000dec9877c1</fabric_wwn>
    </capability>
    <capability type='vport_ops'>
      <max_vports>164</max_vports>
      <vports>5</vports>
    </capability>
  </capability>
</device>
"""
CDROM = """\
<device>
  <name>block_sr0_QEMU_DVD_ROM_QM00003</name>
  <devnode type='dev'>/dev/sr0</devnode>
  <devnode type='link'>/dev/cdrom</devnode>
  <parent>scsi_1_0_0_0</parent>
  <capability type='storage'>
    <block>/dev/sr0</block>
    <bus>ata</bus>
    <drive_type>cdrom</drive_type>
    <capability type='removable'>
      <media_available>1</media_available>
      <media_size>4096</media_size>
      <media_label>INSTALL</media_label>
      <logical_block_size>2048</logical_block_size>
      <num_blocks>2</num_blocks>
    </capability>
    <capability type='hotpluggable'/>
  </capability>
</device>
"""


@pytest.mark.parametrize("xml", [PCI, FC_HOST, CDROM, "<device/>"])
def test_takes_what_libvirt_prints(xml: str) -> None:
    """Documents of libvirt's fit, also where they say what nodedev does not read."""
    schemas.device_grammar().assertValid(etree.fromstring(xml))


@pytest.mark.parametrize(
    ("document", "whole", "damaged"),
    [
        (PCI, "<bus>130</bus>", ""),
        (PCI, "<bus>130</bus>", "<bus>0x82</bus>"),
        (PCI, " function='0x0'", ""),
        (PCI, "virt_functions", "functions"),
        (PCI, "type='pci'", "type='net'"),
        (FC_HOST, "<vports>5</vports>", "<vports>5</vports><vports>5</vports>"),
        (FC_HOST, "<vports>5</vports>", "<vports>-5</vports>"),
        (CDROM, "<media_available>1<", "<media_available>yes<"),
        (CDROM, " type='link'", " type='symlink'"),
        (CDROM, "<parent>", "<parent wwnn='2001001b32a9da4e'>"),
        (CDROM, "<capability type='hotpluggable'/>", "hotpluggable"),
    ],
)
def test_refuses_what_nobody_means(document: str, whole: str, damaged: str) -> None:
    """Missing, doubled, misplaced or unreadable parts do not fit."""
    assert whole in document

    assert not schemas.device_grammar().validate(etree.fromstring(document.replace(whole, damaged)))


def test_whole_grammar_has_every_capability() -> None:
    """What fits a capability's own fragment fits the whole grammar within a device."""
    for kind in kinds():
        bare = etree.fromstring(f"<capability type='{kind.type}'/>")
        device = etree.fromstring(f"<device><capability type='{kind.type}'/></device>")

        fits = schemas.capability_grammar(kind.type).validate(bare)

        assert schemas.device_grammar().validate(device) == fits
        assert not schemas.header_grammar().validate(device)


def test_fragments_do_not_collide() -> None:
    """No definition of one fragment changes another's."""
    names = [
        define.get("name")
        for name in ("device", *(kind.type for kind in kinds()))
        for define in schemas.fragment(name).iterfind("{*}define")
        if define.get("combine") is None
    ]

    assert len(names) == len(set(names))


def test_a_capability_without_fragment() -> None:
    """A capability that brings no fragment is found out by its file's name."""
    with pytest.raises(FileNotFoundError, match=r"teleport\.rng"):
        schemas.fragment("teleport")


def test_misfit_is_the_deepest_place() -> None:
    """Of all that libxml2 logs about one mistake, the innermost element is told."""
    grammar = schemas.capability_grammar("scsi_host")
    (element,) = etree.fromstring(FC_HOST.replace("<vports>5", "<vports>five")).iterfind("capability")

    found = schemas.misfit(grammar, element)

    assert found is not None
    assert (found[0].tag, found[0].sourceline) == ("vports", 14)


def test_misfit_of_what_fits() -> None:
    """An element that fits has none."""
    (element,) = etree.fromstring(FC_HOST).iterfind("capability")

    assert schemas.misfit(schemas.capability_grammar("scsi_host"), element) is None


def test_misfit_names_what_is_missing() -> None:
    """A missing element is named."""
    element = etree.fromstring("<capability type='scsi'><host>0</host></capability>")

    assert schemas.misfit(schemas.capability_grammar("scsi"), element) == (element, "<bus> is missing")


def test_misfit_with_foreign_namespaces() -> None:
    """An element of another namespace, whose path has a prefix, does not keep a place from being told."""
    element = etree.fromstring("<capability type='scsi'><x:host xmlns:x='urn:x'/></capability>")

    found = schemas.misfit(schemas.capability_grammar("scsi"), element)

    assert found is not None
    assert found[0] is element
