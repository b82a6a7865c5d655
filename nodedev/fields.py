"""How the fields of a capability stand in XML: one declaration serves writer, reader and docs.

A field without a mark is a child element of its own name. The marks, given with Annotated:

    Attribute()           an XML attribute of the element
    Element("size")       a child element of another name
    Text()                the element's own text
    Sub("removable")      a nested <capability type='removable'>

Booleans read yes and no; `Element(tag, words=("0", "1"))` for libvirt's digits. A tuple repeats
its element, None leaves it out, a struct nests.
"""

from __future__ import annotations

import re
import types
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Struct
from msgspec.structs import fields

Words = tuple[str, str]
YES_NO: Words = ("no", "yes")


class Attribute(Struct, frozen=True):
    """An XML attribute, named as the field unless `name` says otherwise."""

    name: str | None = None
    words: Words = YES_NO


class Element(Struct, frozen=True):
    """A child element, named as the field unless `name` says otherwise."""

    name: str | None = None
    words: Words = YES_NO


class Text(Struct, frozen=True):
    """The text of the element itself."""

    words: Words = YES_NO


class Sub(Struct, frozen=True):
    """A nested capability element of that type."""

    type: str


Mark = Attribute | Element | Text | Sub
Place = Literal["attribute", "element", "text", "sub"]


class Field(Struct, frozen=True):
    """One field's declaration, resolved: where it stands, its XML name, and its Python type.

    `required` fields have no default; `optional` ones may be None.
    """

    name: str
    place: Place
    xml_name: str
    words: Words
    type: type
    repeated: bool
    required: bool
    optional: bool

    @property
    def nested(self) -> bool:
        """Whether the value is a struct of its own."""
        return issubclass(self.type, Struct)


@cache
def shape(cls: type[Struct]) -> tuple[Field, ...]:
    """The declarations of a struct's fields, in XML order."""
    return tuple(_resolve(item.name, item.type, item.required) for item in fields(cls))


def _resolve(name: str, hint: Any, required: bool) -> Field:  # noqa: ANN401  a type form has no type
    mark: Mark = Element()
    if get_origin(hint) is Annotated:
        hint, mark = get_args(hint)
    repeated = optional = False
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (option for option in get_args(hint) if option is not types.NoneType)
        optional = True
    if get_origin(hint) is tuple:
        hint, repeated = get_args(hint)[0], True
    if get_origin(hint) is Literal:
        hint = type(get_args(hint)[0])
    place, xml_name, words = _stand(mark, name)
    return Field(name, place, xml_name, words, hint, repeated, required, optional)


def _stand(mark: Mark, name: str) -> tuple[Place, str, Words]:
    match mark:
        case Attribute(xml_name, words):
            return "attribute", xml_name or name, words
        case Element(xml_name, words):
            return "element", xml_name or name, words
        case Text(words):
            return "text", "", words
        case Sub(type_):
            return "sub", type_, YES_NO


_BYTE_MAX = 0xFF
# Python's surrogateescape keeps an undecodable byte as U+DC00 plus the byte.
_ESCAPED_BYTES = range(0xDC80, 0xDD00)


def backslashed(found: re.Match[str]) -> str:
    r"""A character that a format cannot carry, spelled out: \xNN for bytes and controls, else \uNNNN."""
    code = ord(found[0])
    if code in _ESCAPED_BYTES:
        code -= 0xDC00
    return f"\\x{code:02x}" if code <= _BYTE_MAX else f"\\u{code:04x}"
