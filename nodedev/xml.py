"""Devices as XML: libvirt's node-device documents, with nodedev's capabilities among them.

It follows `nodedev.fields.shape`; no capability is known by name here. What is written is what
`virsh nodedev-dumpxml` prints, quotes and indentation too, so that dumps of both can be compared.
XML 1.0 has no place for control characters and lone surrogates: they are written as backslash escapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import cast

from nodedev.fields import Field, backslashed, shape
from nodedev.model import Device


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
        cls: type = type(capability)
        _writer(cls, "capability", capability.TYPE, 1)(capability, out)
    out.append("</device>\n")
    return "".join(out)


def element_xml(value: object, tag: str) -> str:
    """Any instance that declares its fields, as a document of its own."""
    out: list[str] = []
    cls: type = type(value)
    _writer(cls, tag, None, 0)(value, out)
    return "".join(out)


Emit = Callable[[object, list[str]], None]
Spell = Callable[[object], str]

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
        return cast("Spell", _escaped)
    raise TypeError(f"{field.name}: no XML for {field.type}")


@cache
def _writer(cls: type, tag: str, type_: str | None, depth: int) -> Emit:
    """Writes an instance as an element; whatever does not depend on its values is prepared here, once."""
    indent = "  " * depth
    head = _head_writer(cls, f"{indent}<{tag}" + (f" type='{type_}'" if type_ else ""))
    texts = [(field.name, _spelling(field)) for field in shape(cls) if field.place == "text"]
    children = [
        (field.name, field.repeated, _child_writer(field, depth + 1))
        for field in shape(cls)
        if field.place in ("element", "sub")
    ]
    if texts and children:
        raise TypeError(f"{cls.__name__} has both text and elements")

    def write_text(value: object, out: list[str]) -> None:
        ((name, spell),) = texts
        item = getattr(value, name)
        text = "" if item is None else spell(item)
        out.append(f"{head(value)}>{text}</{tag}>\n" if text else f"{head(value)}/>\n")

    def write_children(value: object, out: list[str]) -> None:
        start = len(out)
        out.append(f"{head(value)}>\n")
        for name, repeated, write in children:
            item = getattr(value, name)
            if repeated:
                for each in item:
                    write(each, out)
            elif item is not None:
                write(item, out)
        if len(out) > start + 1:
            out.append(f"{indent}</{tag}>\n")
        else:
            out[start] = f"{head(value)}/>\n"

    return write_text if texts else write_children


def _head_writer(cls: type, opening: str) -> Callable[[object], str]:
    attributes = [
        (field.name, f" {field.xml_name}='", _spelling(field))
        for field in shape(cls)
        if field.place == "attribute"
    ]

    def head(value: object) -> str:
        written = opening
        for name, before, spell in attributes:
            item = getattr(value, name)
            if item is not None:
                written += f"{before}{spell(item)}'"
        return written

    return head


def _child_writer(field: Field, depth: int) -> Emit:
    if field.place == "sub":
        return _writer(field.type, "capability", field.xml_name, depth)
    if field.nested:
        return _writer(field.type, field.xml_name, None, depth)
    before, after = f"{'  ' * depth}<{field.xml_name}>", f"</{field.xml_name}>\n"
    spell = _spelling(field)
    return lambda value, out: out.append(f"{before}{spell(value)}{after}")
