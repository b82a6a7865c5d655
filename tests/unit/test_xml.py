"""Device documents: how they look, what is read from them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from msgspec.structs import replace

from nodedev import schemas
from nodedev.capabilities import kinds
from nodedev.capabilities.loop import Backing, Loop
from nodedev.capabilities.storage import Storage
from nodedev.documents import VIOLATIONS_MAX, Document, read_device, validate
from nodedev.errors import XmlError
from nodedev.model import Device
from nodedev.xml import device_xml
from tests.unit.strategies import devices, wild_texts

LIBVIRT_SCHEMA = Path("/usr/share/libvirt/schemas/nodedev.rng")

LOOP = Loop(
    backing=Backing(device="254:0", inode=17261, deleted=False, path="/srv/l0.img"),
    offset_bytes=0,
    read_only=True,
)
DEVICE = Device(
    name="loop_loop0",
    parent="computer",
    sysfs_path="/sys/devices/virtual/block/loop0",
    devnode="/dev/loop0",
    links=("/dev/disk/by-diskseq/15", "/dev/disk/by-label/a&b"),
    driver="loop",
    device_number="7:0",
    generation=15,
    capabilities=(
        Storage(block="/dev/loop0", drive_type="disk", size_bytes=512, logical_block_size=512, num_blocks=1),
        LOOP,
    ),
)
LOOP_XML = """\
<device>
  <name>loop_loop0</name>
  <path>/sys/devices/virtual/block/loop0</path>
  <devnode type='dev'>/dev/loop0</devnode>
  <devnode type='link'>/dev/disk/by-diskseq/15</devnode>
  <devnode type='link'>/dev/disk/by-label/a&amp;b</devnode>
  <parent>computer</parent>
  <driver>
    <name>loop</name>
  </driver>
  <capability type='storage'>
    <block>/dev/loop0</block>
    <drive_type>disk</drive_type>
    <size>512</size>
    <logical_block_size>512</logical_block_size>
    <num_blocks>1</num_blocks>
  </capability>
  <capability type='loop'>
    <backing device='254:0' inode='17261' deleted='no'>/srv/l0.img</backing>
    <offset>0</offset>
    <read_only>yes</read_only>
  </capability>
</device>
"""


RAID_REQUEST = """\
<device>
  <name>r</name>
  <capability type='raid'>
    <name>r</name>
    <level>raid1</level>
    <member><device>block_sda</device></member>
    <member><device>block_sdb</device></member>
  </capability>
</device>
"""


def loop(body: str) -> str:
    """A document that asks for a loop device."""
    return f"<device>\n<capability type='loop'>\n{body}\n</capability>\n</device>"


def with_ours_removed(xml: str) -> str:
    """The document without the capabilities that libvirt does not have."""
    ours = {kind.type for kind in kinds() if not kind.stock}
    root = etree.fromstring(xml)
    for capability in root.findall("capability"):
        if capability.get("type") in ours:
            root.remove(capability)
    return etree.tostring(root, encoding="unicode")


def test_looks_like_libvirt() -> None:
    """A dump has libvirt's order, indentation and quotes."""
    assert device_xml(DEVICE) == LOOP_XML


def test_root_has_neither_path_nor_parent() -> None:
    """The root device says no more than it has."""
    root = Device("computer", None, None, None, (), None, None, None, ())

    assert device_xml(root) == "<device>\n  <name>computer</name>\n</device>\n"


def test_relations_and_notes_stay_out() -> None:
    """Only capabilities say more than libvirt's document does."""
    assert "backing" not in device_xml(DEVICE).replace("</backing>", "").replace("<backing ", "")
    assert {child.tag for child in etree.fromstring(device_xml(DEVICE))} == {
        "name",
        "path",
        "devnode",
        "parent",
        "driver",
        "capability",
    }


@pytest.mark.skipif(not LIBVIRT_SCHEMA.exists(), reason="libvirt's schemas are not installed")
def test_stock_grammar_takes_the_rest() -> None:
    """With nodedev's capabilities removed, a dump is a document of libvirt's."""
    grammar = etree.RelaxNG(etree.parse(LIBVIRT_SCHEMA))

    grammar.assertValid(etree.fromstring(with_ours_removed(device_xml(DEVICE))))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a<b>&\"c'", "a&lt;b&gt;&amp;&quot;c&apos;"),
        ("bell\x07", r"bell\x07"),
        ("undecodable\udcff", r"undecodable\xff"),
        ("half\ud800", r"half\ud800"),
        ("none\uffff", r"none\uffff"),
        ("tab\tline\nreturn\r", "tab&#9;line&#10;return&#13;"),
        ("ü and 🖴", "ü and 🖴"),
    ],
)
def test_characters(text: str, written: str) -> None:
    """Markup is escaped as libvirt does it; what XML 1.0 cannot hold is spelled out."""
    device = Device(text, None, None, None, (), None, None, None, (Loop(Backing(device=text, path=text)),))

    document = device_xml(device)

    assert f"<name>{written}</name>" in document
    assert f"<backing device='{written}'>{written}</backing>" in document


@settings(deadline=None)
@given(device=devices(st.builds(Loop, st.builds(Backing, device=wild_texts, path=wild_texts)), wild_texts))
def test_any_text_makes_a_document(device: Device) -> None:
    """Whatever a name or a link holds, the document is well-formed and fits the grammar."""
    document = device_xml(device)

    assert validate(document) == []
    assert read_device(document).name == etree.fromstring(document).findtext("name")


def test_reads_what_it_wrote() -> None:
    """A dump can be read back: name, parent and capabilities."""
    document = read_device(LOOP_XML)

    assert (document.name, document.parent) == ("loop_loop0", "computer")
    assert document.capabilities == DEVICE.capabilities


def test_reads_a_request() -> None:
    """To create a device, the capability with what is wished for is enough."""
    document = read_device(
        "<device><capability type='loop'><backing>/srv/a b.img</backing></capability></device>"
    )

    assert document.name is None
    assert document.parent is None
    assert document.capabilities == (Loop(backing=Backing(path="/srv/a b.img")),)


@pytest.mark.parametrize(
    "xml",
    [
        loop("<backing>/srv/a.img</backing>"),
        "<device><capability type='mpath'><wwid>3600140</wwid></capability></device>",
        "<device><capability type='raid'><uuid>f0e1</uuid></capability></device>",
        RAID_REQUEST,
    ],
)
def test_requests_fit_the_grammar(xml: str) -> None:
    """What create documents ask for is valid, and read."""
    assert validate(xml) == []
    assert len(read_device(xml).capabilities) == 1


def test_comments_and_blanks_do_not_matter() -> None:
    """Comments, processing instructions, CDATA and blanks around numbers and words are no content."""
    document = read_device(
        "<?xml version='1.0' encoding='utf-16'?><!-- a --><device>"
        "<capability type='loop'><?x y?><backing>/srv<!-- b -->/a<![CDATA[&]]></backing>"
        "<offset> 512\n</offset><read_only> yes </read_only></capability></device>"
    )

    assert document.capabilities == (Loop(backing=Backing(path="/srv/a&"), offset_bytes=512, read_only=True),)


def test_bytes_bring_their_encoding() -> None:
    """Bytes are read in the encoding they declare."""
    xml = "<?xml version='1.0' encoding='iso-8859-1'?><device><name>\xfc</name></device>"

    assert read_device(xml.encode("iso-8859-1")).name == "ü"


@pytest.mark.parametrize(
    ("xml", "line", "field", "message"),
    [
        ("", None, "/", "no element"),
        ("<device>", 1, "/", "Premature end"),
        ("<device>\n<name>\n</device>", 3, "/", "mismatch"),
        ("<device>&foo;</device>", 1, "/", "foo"),
        (b"<device><name>\xff</name></device>", 1, "/", "Invalid bytes"),
        (b"<?xml version='1.0' encoding='klingon'?><device/>", 1, "/", "encoding"),
        ("<device><name>\ud800</name></device>", 1, "/", "Invalid bytes"),
        ("<device><name>\x01</name></device>", 1, "/", "invalid"),
        ("<!DOCTYPE device SYSTEM 'file:///etc/hostname'>\n<device/>", None, "/", "DOCTYPE"),
        ("<!DOCTYPE device [<!ENTITY a 'b'>]>\n<device><name>&a;</name></device>", None, "/", "DOCTYPE"),
        ("<network/>", 1, "/network", "<device>"),
        ("<device xmlns='urn:x'/>", 1, "/{urn:x}device", "<device>"),
        ("<device>\n<nam/></device>", 2, "/device/nam", "<nam> is not known here"),
        ("<device>x</device>", 1, "/device", '"x" is out of place'),
        ("<device><name>a</name>\n<name>b</name></device>", 2, "/device/name[2]", "given twice"),
        ("<device a='1'/>", 1, "/device", "attribute a"),
        ("<device>\n<capability/></device>", 2, "/device/capability[@type='']", "one of"),
        ("<device><capability type='net'/></device>", 1, "/device/capability[@type='net']", "one of"),
        (loop("\n<ofset>1</ofset>"), 4, "/device/capability[@type='loop']/ofset", "<ofset> is not known"),
        (loop("<offset>1k</offset>"), 3, "/device/capability[@type='loop']/offset", '"1k" is no whole'),
        (loop("<offset>٣</offset>"), 3, "/device/capability[@type='loop']/offset", "is no whole"),
        (loop("<offset>1_0</offset>"), 3, "/device/capability[@type='loop']/offset", "is no whole"),
        (loop("<offset/>"), 3, "/device/capability[@type='loop']/offset", "is no whole"),
        (loop(f"<offset>{1 << 63}</offset>"), 3, "/device/capability[@type='loop']/offset", "64 bits"),
        (loop(f"<offset>{'9' * 9999}</offset>"), 3, "/device/capability[@type='loop']/offset", "64 bits"),
        (
            loop("<autoclear>1</autoclear>"),
            3,
            "/device/capability[@type='loop']/autoclear",
            "neither yes nor",
        ),
        (
            loop("<offset>1</offset>\n<offset>2</offset>"),
            4,
            "/device/capability[@type='loop']/offset[2]",
            "twice",
        ),
        (loop("<backing inode='x'/>"), 3, "/device/capability[@type='loop']/backing", 'inode: "x"'),
        (loop("<backing size='1'/>"), 3, "/device/capability[@type='loop']/backing", "attribute size"),
        (loop("<backing><a/></backing>"), 3, "/device/capability[@type='loop']/backing/a", "text alone"),
        (loop("<offset a='1'>1</offset>"), 3, "/device/capability[@type='loop']/offset", "attribute a"),
        (loop("<offset>1<b/></offset>"), 3, "/device/capability[@type='loop']/offset/b", "text alone"),
        (loop("words"), 2, "/device/capability[@type='loop']", '"words" is out of place'),
        (
            "<device><capability type='scsi'><host>0</host><bus>0</bus><lun>0</lun></capability></device>",
            1,
            "/device/capability[@type='scsi']",
            "<target> is missing",
        ),
    ],
)
def test_refusals(xml: bytes | str, line: int | None, field: str, message: str) -> None:
    """What is wrong is told by line, place and reason, by the reader and by the grammar alike."""
    with pytest.raises(XmlError) as caught:
        read_device(xml)

    (violation,) = caught.value.violations
    assert validate(xml) == [violation]
    assert (violation.line, violation.field) == (line, field)
    assert message in violation.message


def test_a_capability_is_given_once() -> None:
    """Two capabilities of one type, which the grammar cannot tell, are refused by the reader."""
    with pytest.raises(XmlError, match=r"^line 3: /device/capability.*given twice"):
        read_device(loop("</capability><capability type='loop'>"))


def test_all_is_told_at_once() -> None:
    """Every violation is reported, up to a limit that keeps the answer small."""
    with pytest.raises(XmlError, match=r"^line 3: .*ofset.* \(and 1 more\)$") as caught:
        read_device(loop("<ofset/><autoclear>on</autoclear>"))
    assert len(caught.value.violations) == 2

    with pytest.raises(XmlError) as caught:
        read_device(loop("<x/>" * 1000))
    assert len(caught.value.violations) == VIOLATIONS_MAX


@pytest.mark.parametrize("depth", [schemas.DEPTH_MAX, 200, 100_000])
def test_deep_documents(depth: int) -> None:
    """A document that nests too deep is refused while it is parsed."""
    with pytest.raises(XmlError, match="deep"):
        read_device("<device>" + "<a>" * depth)


def test_large_documents() -> None:
    """A document over the limit is refused unparsed."""
    with pytest.raises(XmlError, match="larger than 1048576 bytes"):
        read_device("<device>" + " " * schemas.SIZE_MAX_BYTES + "</device>")


def test_crowded_documents() -> None:
    """A document of more elements than any device has is refused while it is parsed."""
    with pytest.raises(XmlError, match="more than 10000 elements"):
        read_device(loop("<x/>" * schemas.ELEMENTS_MAX))
    with pytest.raises(XmlError, match="more than 64 attributes"):
        read_device("<device " + " ".join(f"a{number}='1'" for number in range(65)) + "/>")


def test_entities_do_not_grow() -> None:
    """A document of nested entities is refused for its DOCTYPE."""
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 12))
    bomb = f"<!DOCTYPE device [<!ENTITY e0 'ha'>{entities}]><device><name a='&e11;'>&e11;</name></device>"

    with pytest.raises(XmlError, match=r"DOCTYPE|[Aa]mplification|loop"):
        read_device(bomb)


def test_what_only_the_grammar_knows() -> None:
    """A value that the shape allows and the grammar does not is told by its place."""
    (violation,) = validate(loop("<backing>/a</backing>\n<offset>-1</offset>"))

    assert (violation.line, violation.field) == (4, "/device/capability[@type='loop']/offset")
    assert violation.message == "is not allowed here, or not with this content"


def test_a_valid_part_is_not_blamed() -> None:
    """Only the capability that is wrong is named, not its valid neighbours."""
    xml = LOOP_XML.replace("<read_only>yes", "<read_only>maybe")

    (violation,) = validate(xml)

    assert violation.field == "/device/capability[@type='loop']/read_only"
    assert violation.message == 'read_only: "maybe" is neither yes nor no'


def read_or_refused(xml: bytes | str) -> Document | XmlError:
    """What the reader makes of a document."""
    try:
        return read_device(xml)
    except XmlError as error:
        return error


@settings(deadline=None, max_examples=300)
@given(xml=st.binary() | st.text() | st.text(alphabet="<>/='& devicaptyloop").map(loop))
def test_no_input_is_too_odd(xml: bytes | str) -> None:
    """Whatever comes, it is read or refused with its violations."""
    found = read_or_refused(xml)

    assert isinstance(found, Document) or found.violations
    assert validate(xml) or isinstance(found, Document)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_documents(data: st.DataObject) -> None:
    """A document with a piece cut out or doubled is refused, or what was understood can be read again."""
    start = data.draw(st.integers(0, len(LOOP_XML)))
    end = data.draw(st.integers(start, len(LOOP_XML)))
    doubled = data.draw(st.booleans())

    found = read_or_refused(LOOP_XML[:start] + LOOP_XML[start:end] * 2 * doubled + LOOP_XML[end:])

    if isinstance(found, Document):
        again = device_xml(replace(DEVICE, name=found.name or "", capabilities=found.capabilities))
        assert read_device(again).capabilities == found.capabilities
    else:
        assert found.violations
