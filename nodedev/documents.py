"""XML documents as devices, and as other values that declare their fields; what is wrong with one, and where.

It follows `nodedev.fields.shape`; no capability is known by name here. `nodedev.xml` is the way back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from typing import Annotated, TypeVar

from lxml import etree
from msgspec import Struct

from nodedev import schemas
from nodedev.capabilities import kinds
from nodedev.errors import Violation, XmlError
from nodedev.fields import Attribute, Element, Field, Text, shape
from nodedev.model import Capability

VIOLATIONS_MAX = 50

T = TypeVar("T")


class Document(Struct, frozen=True):
    """What a device document asks for: which device, and what it is to be."""

    name: str | None
    parent: str | None
    capabilities: tuple[Capability, ...]


class _Devnode(Struct, frozen=True):
    type: Annotated[str, Attribute()]
    path: Annotated[str, Text()] = ""


class _Driver(Struct, frozen=True):
    name: str


class _Header(Struct, frozen=True):
    """A device element but for its capabilities."""

    name: str | None = None
    sysfs_path: Annotated[str | None, Element("path")] = None
    devnodes: Annotated[tuple[_Devnode, ...], Element("devnode")] = ()
    parent: str | None = None
    driver: _Driver | None = None


def read_device(xml: bytes | str) -> Document:
    """A device document's name, parent and capabilities; sysfs path, nodes and driver are passed over.

    Raises XmlError with all that is wrong. What is unknown is wrong, so that no wish is ignored.
    """
    root = schemas.parse(xml)
    reading = _Reading()
    header = reading.header(root)
    found = [reading.capability(element) for element in _capabilities(root)]
    if reading.violations or header is None:
        raise schemas.refusal(reading.violations)
    return Document(header.name, header.parent, tuple(filter(None, found)))


def read_element(cls: type[T], xml: bytes | str, tag: str) -> T:
    """A document as an instance of a struct that declares its fields; XmlError with all that is wrong."""
    root = schemas.parse(xml)
    reading = _Reading()
    if root.tag != tag:
        reading.reject(root, f"the document is to be a <{tag}>")
        raise schemas.refusal(reading.violations)
    found = reading.instance(cls, root, list(root))
    if not isinstance(found, cls):
        raise schemas.refusal(reading.violations)
    return found


def validate(xml: bytes | str) -> list[Violation]:
    """What keeps a document from fitting the grammar: line, element path and message of each."""
    try:
        root = schemas.parse(xml)
    except XmlError as error:
        return list(error.violations)
    if schemas.device_grammar().validate(root):
        return []
    # In the choice between all capabilities libxml2 blames whichever it tried last. So each part is
    # judged by itself, and in the reader's words where the reader objects too.
    reading = _Reading()
    bare = deepcopy(root)
    for element in _capabilities(bare):
        bare.remove(element)
    reading.judge(bare, schemas.header_grammar(), reading.header)
    for element in _capabilities(root):
        type_ = element.get("type", "")
        if type_ in _shapes():
            reading.judge(element, schemas.capability_grammar(type_), reading.capability)
        else:
            reading.capability(element)
    return reading.violations


@cache
def _shapes() -> dict[str, type[Capability]]:
    return {kind.type: kind.shape for kind in kinds()}


def _capabilities(root: etree._Element) -> list[etree._Element]:
    return root.findall("capability")


class _Reading:
    """Reads elements into structs by their shapes, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._seen: set[str] = set()

    def reject(self, element: etree._Element, message: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(_path(element), message, element.sourceline))

    def judge(
        self,
        element: etree._Element,
        grammar: etree.RelaxNG,
        read: Callable[[etree._Element], object],
    ) -> None:
        """Rejects what does not fit the grammar."""
        misfit = schemas.misfit(grammar, element)
        if misfit is None:
            return
        before = len(self.violations)
        read(element)
        if len(self.violations) == before:
            self.reject(*misfit)

    def header(self, root: etree._Element) -> _Header | None:
        """The device element without its capabilities."""
        if root.tag != "device":
            self.reject(root, "the document is to be a <device>")
            return None
        rest = [child for child in root if child.tag != "capability"]
        found = self.instance(_Header, root, rest)
        return found if isinstance(found, _Header) else None

    def capability(self, element: etree._Element) -> Capability | None:
        """A capability of the device itself."""
        type_ = element.get("type", "")
        if type_ not in _shapes():
            self.reject(element, f"the type is to be one of {', '.join(_shapes())}")
            return None
        if type_ in self._seen:
            self.reject(element, f"{_label(element)} is given twice")
        self._seen.add(type_)
        found = self.instance(_shapes()[type_], element, list(element))
        return found if isinstance(found, Capability) else None

    def instance(
        self, cls: type, element: etree._Element, children: Sequence[etree._Element]
    ) -> object | None:
        """An instance of the struct; None once anything has been rejected."""
        found: dict[Field, list[object]] = {}
        self._read_attributes(cls, element, found)
        self._read_text(cls, element, found)
        self._read_children(cls, children, found)
        for field in shape(cls):
            if field.required and field.repeated:
                found.setdefault(field, [])
            elif field.required and field.optional:
                found.setdefault(field, [None])
            elif field.required and field not in found:
                self.reject(element, f"{_place(field)} is missing")
        if self.violations:
            return None
        values = {field.name: tuple(items) if field.repeated else items[0] for field, items in found.items()}
        instance: object = cls(**values)
        return instance

    def _read_attributes(self, cls: type, element: etree._Element, found: dict[Field, list[object]]) -> None:
        known = {field.xml_name: field for field in shape(cls) if field.place == "attribute"}
        for name, text in element.attrib.items():
            field = known.get(str(name))
            if field:
                found[field] = [self._scalar(field, element, str(text))]
            elif not (element.tag == "capability" and name == "type"):
                self.reject(element, f"the attribute {_clipped(str(name))} is not known here")

    def _read_text(self, cls: type, element: etree._Element, found: dict[Field, list[object]]) -> None:
        text = "".join((element.text or "", *(child.tail or "" for child in element)))
        field = next((field for field in shape(cls) if field.place == "text"), None)
        if field and (text or field.required):
            found[field] = [self._scalar(field, element, text)]
        elif not field and text.strip(_BLANKS):
            self.reject(element, f'the text "{_clipped(text.strip(_BLANKS))}" is out of place')

    def _read_children(
        self, cls: type, children: Sequence[etree._Element], found: dict[Field, list[object]]
    ) -> None:
        known = {_place(field): field for field in shape(cls) if field.place in ("element", "sub")}
        for child in children:
            field = known.get(_label(child))
            if field is None:
                expected = ", ".join(known) or "text alone"
                self.reject(child, f"{_label(child)} is not known here, where there may be {expected}")
            elif field in found and not field.repeated:
                self.reject(child, f"{_label(child)} is given twice")
            else:
                found.setdefault(field, []).append(self._read_child(field, child))

    def _read_child(self, field: Field, child: etree._Element) -> object:
        if field.nested:
            return self.instance(field.type, child, list(child))
        for name in child.attrib:
            self.reject(child, f"the attribute {_clipped(str(name))} is not known here")
        for inner in child:
            self.reject(inner, f"{_label(inner)} is not known here, where there may be text alone")
        return self._scalar(field, child, child.text or "")

    def _scalar(self, field: Field, element: etree._Element, text: str) -> object:
        if field.type is str:
            return text
        text = text.strip(_BLANKS)
        shown = f'{field.xml_name or _label(element)}: "{_clipped(text)}"'
        if field.type is bool:
            if text in field.words:
                return field.words.index(text) == 1
            self.reject(element, f"{shown} is neither {field.words[1]} nor {field.words[0]}")
        elif not _NUMBER.fullmatch(text):
            self.reject(element, f"{shown} is no whole number")
        elif len(text) > _DIGITS_MAX or int(text) not in _INT64:
            self.reject(element, f"{shown} does not fit 64 bits")
        else:
            return int(text)
        return None


_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)
_INT64 = range(-(1 << 63), 1 << 63)
_DIGITS_MAX = 40
_BLANKS = " \t\r\n"
_CLIPPED_MAX = 60


def _clipped(text: str) -> str:
    return text if len(text) <= _CLIPPED_MAX else f"{text[:_CLIPPED_MAX]}..."


def _place(field: Field) -> str:
    """Where a field stands, in the words of `_label` for an element."""
    match field.place:
        case "sub":
            return f"<capability type='{field.xml_name}'>"
        case "element":
            return f"<{field.xml_name}>"
        case "attribute":
            return f"the attribute {field.xml_name}"
        case "text":
            return "the text"


def _label(element: etree._Element) -> str:
    if element.tag == "capability":
        return f"<capability type='{_clipped(element.get('type', ''))}'>"
    return f"<{_clipped(str(element.tag))}>"


def _path(element: etree._Element) -> str:
    """The way to an element: /device/capability[@type='raid']/member[2]/device."""
    steps = []
    for step in (element, *element.iterancestors()):
        tag = _clipped(str(step.tag))
        parent = step.getparent()
        alike = [child for child in (() if parent is None else parent) if child.tag == step.tag]
        if tag == "capability":
            steps.append(f"/{tag}[@type='{_clipped(step.get('type', ''))}']")
        elif len(alike) > 1:
            steps.append(f"/{tag}[{alike.index(step) + 1}]")
        else:
            steps.append(f"/{tag}")
    return "".join(reversed(steps))
