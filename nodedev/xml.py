"""Devices as XML and back: libvirt's node-device documents, with nodedev's capabilities among them.

Both ways follow `nodedev.fields.shape`; no capability is known by name here. The writer prints what
`virsh nodedev-dumpxml` prints, quotes and indentation too, so that dumps of both can be compared.
XML 1.0 has no place for control characters and lone surrogates: they are written as \\xNN text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from lxml import etree

from nodedev import schemas
from nodedev.capabilities import kinds
from nodedev.errors import Violation, XmlError
from nodedev.fields import Attribute, Element, Field, Text, backslashed, shape
from nodedev.model import Capability, Device

SIZE_MAX_BYTES = 1 << 20
DEPTH_MAX = 32
VIOLATIONS_MAX = 50

_INT64 = range(-(1 << 63), 1 << 63)
_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)
_BLANKS = " \t\r\n"
_FEED_BYTES = 4096
_QUOTED_MAX = 60

Emit = Callable[[object, list[str]], None]
Spell = Callable[[object], str]


@dataclass(frozen=True, slots=True)
class Document:
    """What a device document says that matters to a change: which device, and what it is to be."""

    name: str | None
    parent: str | None
    capabilities: tuple[Capability, ...]


def device_xml(device: Device) -> str:
    """The device's document, pretty printed, with a newline at its end."""
    out = ["<device>\n", f"  <name>{_escaped(device.name)}</name>\n"]
    if device.sysfs_path is not None:
        out.append(f"  <path>{_escaped(device.sysfs_path)}</path>\n")
    if device.devnode is not None:
        out.append(f"  <devnode type='dev'>{_escaped(device.devnode)}</devnode>\n")
    out.extend(f"  <devnode type='link'>{_escaped(link)}</devnode>\n" for link in device.links)
    if device.parent is not None:
        out.append(f"  <parent>{_escaped(device.parent)}</parent>\n")
    if device.driver is not None:
        out.append(f"  <driver>\n    <name>{_escaped(device.driver)}</name>\n  </driver>\n")
    for capability in device.capabilities:
        _writer(type(capability), "capability", capability.TYPE, 1)(capability, out)
    out.append("</device>\n")
    return "".join(out)


def read_device(xml: bytes | str) -> Document:
    """A device document's name, parent and capabilities; sysfs path, nodes and driver are passed over.

    Raises XmlError with each thing that is wrong: anything unknown is, so that no wish is ignored.
    """
    root = _parsed(xml)
    findings = _Findings()
    header = findings.header(root)
    found = [findings.capability(element) for element in _capabilities(root)]
    findings.once(_capabilities(root))
    findings.check()
    capabilities = tuple(capability for capability in found if capability is not None)
    return Document(header.name if header else None, header.parent if header else None, capabilities)


def validate(xml: bytes | str) -> list[Violation]:
    """What keeps a document from fitting the grammar: line, element path and message of each."""
    try:
        root = _parsed(xml)
    except XmlError as error:
        return list(error.violations)
    if schemas.device_grammar().validate(root):
        return []
    findings = _Findings()
    # The whole grammar's choice of capabilities makes libxml2 blame the wrong branch: each is judged
    # by its own fragment instead, and told in the reader's words where the reader objects too.
    findings.header(root)
    bare = deepcopy(root)
    for element in _capabilities(bare):
        bare.remove(element)
    _judge(findings, bare, schemas.header_grammar())
    for element in _capabilities(root):
        type_ = element.get("type")
        if type_ not in _shapes():
            findings.capability(element)
        elif not (grammar := schemas.capability_grammar(type_)).validate(element):
            _judge(findings, element, grammar, findings.capability)
    return findings.violations or [Violation("/device", "does not fit the grammar", root.sourceline)]


# Writing


_REFERENCES = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "'": "&apos;",
    '"': "&quot;",
    "\t": "&#9;",
    "\n": "&#10;",
    "\r": "&#13;",
}
_SPECIAL = re.compile("[&<>'\"\x00-\x1f\ud800-\udfff\ufffe\uffff]")


def _escaped(text: str) -> str:
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _REFERENCES.get(found[0]) or backslashed(found), text)


def _spelling(field: Field) -> Spell:
    if field.type is bool:
        words = field.words
        return lambda value: words[bool(value)]
    if field.type is int:
        return str
    if field.type is str:
        return lambda value: _escaped(str(value))
    raise TypeError(f"{field.name}: no XML for {field.type}")


@cache
def _writer(cls: type, tag: str, type_: str | None, depth: int) -> Emit:
    """Writes one instance as an element; all that does not depend on the values is prepared here."""
    indent = "  " * depth
    opening = f"{indent}<{tag}" + (f" type='{type_}'" if type_ else "")
    fields = shape(cls)
    attributes = [
        (field.name, f" {field.xml_name}='", _spelling(field)) for field in fields if field.place == "attribute"
    ]
    texts = [(field.name, _spelling(field)) for field in fields if field.place == "text"]
    children = [
        (field.name, field.repeated, _child_writer(field, depth + 1))
        for field in fields
        if field.place in ("element", "sub")
    ]
    if texts and children:
        raise TypeError(f"{cls.__name__} has both text and elements")

    def head(value: object) -> str:
        written = opening
        for name, before, spell in attributes:
            item = getattr(value, name)
            if item is not None:
                written += f"{before}{spell(item)}'"
        return written

    def write_text(value: object, out: list[str]) -> None:
        ((name, spell),) = texts
        item = getattr(value, name)
        text = "" if item is None else spell(item)
        out.append(f"{head(value)}>{text}</{tag}>\n" if text else f"{head(value)}/>\n")

    def write(value: object, out: list[str]) -> None:
        start = len(out)
        out.append("")
        for name, repeated, emit in children:
            item = getattr(value, name)
            if repeated:
                for each in item or ():
                    emit(each, out)
            elif item is not None:
                emit(item, out)
        if len(out) == start + 1:
            out[start] = f"{head(value)}/>\n"
        else:
            out[start] = f"{head(value)}>\n"
            out.append(f"{indent}</{tag}>\n")

    return write_text if texts else write


def _child_writer(field: Field, depth: int) -> Emit:
    if field.place == "sub":
        return _writer(field.type, "capability", field.xml_name, depth)
    if field.nested:
        return _writer(field.type, field.xml_name, None, depth)
    before, after = f"{'  ' * depth}<{field.xml_name}>", f"</{field.xml_name}>\n"
    spell = _spelling(field)
    return lambda value, out: out.append(f"{before}{spell(value)}{after}")


# Reading


@dataclass(frozen=True, slots=True)
class _Devnode:
    type: Annotated[str, Attribute()]
    path: Annotated[str, Text()] = ""


@dataclass(frozen=True, slots=True)
class _Driver:
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Header:
    """A device element but for its capabilities."""

    name: str | None = None
    sysfs_path: Annotated[str | None, Element("path")] = None
    devnodes: Annotated[tuple[_Devnode, ...], Element("devnode")] = ()
    parent: str | None = None
    driver: _Driver | None = None


@cache
def _shapes() -> dict[str, type[Capability]]:
    return {kind.type: kind.shape for kind in kinds()}


def _parsed(xml: bytes | str) -> etree._Element:
    """The root of a document within the limits; entities, and the DOCTYPE that brings them, are refused."""
    # A declared encoding means the bytes a str came from; what is fed here is UTF-8.
    data = xml.encode("utf-8", "surrogatepass") if isinstance(xml, str) else xml
    if len(data) > SIZE_MAX_BYTES:
        raise _refused([Violation("/", f"larger than {SIZE_MAX_BYTES} bytes")])
    parser = etree.XMLPullParser(
        ("start", "end"),
        encoding="utf-8" if isinstance(xml, str) else None,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        depth = 0
        for start in range(0, len(data), _FEED_BYTES):
            parser.feed(data[start : start + _FEED_BYTES])
            depth = _check_depth(parser, depth)
        root = parser.close()
    except etree.XMLSyntaxError as error:
        raise _refused([Violation("/", error.msg or "not well-formed", error.lineno)]) from error
    if root.tag != "device":
        raise _refused([Violation(_path(root), "the document's element is to be <device>", root.sourceline)])
    return root


def _check_depth(parser: etree.XMLPullParser[etree._Element], depth: int) -> int:
    for event, element in parser.read_events():
        depth += 1 if event == "start" else -1
        if depth == 1 and element.getroottree().docinfo.doctype:
            raise _refused([Violation("/", "a DOCTYPE is not allowed", 1)])
        if depth > DEPTH_MAX:
            raise _refused(
                [Violation("/", f"elements nest more than {DEPTH_MAX} deep", element.sourceline)]
            )
    return depth


def _refused(violations: Sequence[Violation]) -> XmlError:
    first = violations[0]
    where = f"line {first.line}: " if first.line else ""
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return XmlError(f"{where}{first.field}: {first.message}{more}", violations=tuple(violations))


class _Findings:
    """Reads elements into dataclasses by their shapes, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def reject(self, element: etree._Element, message: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(_path(element), message, element.sourceline))

    def check(self) -> None:
        if self.violations:
            raise _refused(self.violations)

    def header(self, root: etree._Element) -> _Header | None:
        """The device element without its capabilities."""
        rest = [child for child in root if child.tag != "capability"]
        found = self.instance(_Header, root, rest)
        return found if isinstance(found, _Header) else None

    def capability(self, element: etree._Element) -> Capability | None:
        """A top-level capability element."""
        cls = _shapes().get(element.get("type", ""))
        if cls is None:
            known = ", ".join(sorted(_shapes()))
            self.reject(element, f"the type is to be one of {known}")
            return None
        found = self.instance(cls, element, list(element))
        return found if isinstance(found, Capability) else None

    def once(self, elements: Iterable[etree._Element]) -> None:
        """Rejects the second capability of a type."""
        seen: set[str] = set()
        for element in elements:
            label = _label(element)
            if label in seen:
                self.reject(element, f"{label} is given twice")
            seen.add(label)

    def instance(
        self, cls: type, element: etree._Element, children: Sequence[etree._Element]
    ) -> object | None:
        """An instance of the dataclass; None when anything has been rejected so far."""
        found: dict[str, list[object]] = {}
        self._attributes(cls, element, found)
        self._children(cls, element, children, found)
        self._text(cls, element, found)
        for field in shape(cls):
            if field.required and not field.repeated and field.name not in found:
                self.reject(element, f"{_place(field)} is missing")
        if self.violations:
            return None
        return cls(
            **{
                field.name: tuple(found[field.name]) if field.repeated else found[field.name][0]
                for field in shape(cls)
                if field.name in found or (field.required and not found.setdefault(field.name, []))
            }
        )

    def _attributes(self, cls: type, element: etree._Element, found: dict[str, list[object]]) -> None:
        known = {field.xml_name: field for field in shape(cls) if field.place == "attribute"}
        for name, text in element.attrib.items():
            field = known.get(str(name))
            if field:
                found[field.name] = [self._scalar(field, element, str(text))]
            elif not (element.tag == "capability" and name == "type"):
                self.reject(element, f"the attribute {name} is not known here")

    def _children(
        self,
        cls: type,
        element: etree._Element,
        children: Sequence[etree._Element],
        found: dict[str, list[object]],
    ) -> None:
        known = {_place(field): field for field in shape(cls) if field.place in ("element", "sub")}
        for child in children:
            label = _label(child)
            field = known.get(label)
            if field is None:
                expected = ", ".join(known) or "no element"
                self.reject(child, f"{label} is not known in {_label(element)}; expected: {expected}")
            elif field.name in found and not field.repeated:
                self.reject(child, f"{label} is given twice")
            else:
                found.setdefault(field.name, []).append(self._child(field, child))

    def _child(self, field: Field, child: etree._Element) -> object:
        if field.nested:
            return self.instance(field.type, child, list(child))
        for name in child.attrib:
            self.reject(child, f"the attribute {str(name)} is not known here")
        for inner in child:
            self.reject(inner, f"{_label(inner)} is not known in {_label(child)}; expected: text")
        return self._scalar(field, child, child.text or "")
