"""How the fields of a capability stand in XML: one declaration serves writer, reader and docs.

A field without a mark is a child element of its own name. The marks, given with Annotated:

    Attribute()           an XML attribute of the element
    Element("size")       a child element of another name
    Text()                the element's own text
    Sub("removable")      a nested <capability type='removable'>

Booleans read yes and no; `Element(tag, words=("0", "1"))` for libvirt's digits. A tuple repeats
its element, None leaves it out, a dataclass nests.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

Words = tuple[str, str]
YES_NO: Words = ("no", "yes")


@dataclass(frozen=True, slots=True)
class Attribute:
    """An XML attribute, named as the field unless `name` says otherwise."""

    name: str | None = None
    words: Words = YES_NO


@dataclass(frozen=True, slots=True)
class Element:
    """A child element, named as the field unless `name` says otherwise."""

    name: str | None = None
    words: Words = YES_NO


@dataclass(frozen=True, slots=True)
class Text:
    """The text of the element itself."""

    words: Words = YES_NO


@dataclass(frozen=True, slots=True)
class Sub:
    """A nested capability element of that type."""

    type: str


Mark = Attribute | Element | Text | Sub
Place = Literal["attribute", "element", "text", "sub"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field's declaration, resolved: where it stands, its XML name, and its Python type."""

    name: str
    place: Place
    xml_name: str
    words: Words
    type: type
    repeated: bool
    required: bool

    @property
    def nested(self) -> bool:
        """Whether the value is a dataclass of its own."""
        return is_dataclass(self.type)


@cache
def shape(cls: type) -> tuple[Field, ...]:
    """The declarations of a dataclass's fields, in XML order."""
    hints = get_type_hints(cls, include_extras=True)
    return tuple(
        _resolve(item.name, hints[item.name], item.default is MISSING and item.default_factory is MISSING)
        for item in fields(cls)
    )


def _resolve(name: str, hint: Any, required: bool) -> Field:  # noqa: ANN401  a type form has no type
    mark: Mark = Element()
    if get_origin(hint) is Annotated:
        hint, mark = get_args(hint)
    repeated = False
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (option for option in get_args(hint) if option is not types.NoneType)
    if get_origin(hint) is tuple:
        hint, repeated = get_args(hint)[0], True
    match mark:
        case Attribute(xml_name, words):
            return Field(name, "attribute", xml_name or name, words, hint, repeated, required)
        case Element(xml_name, words):
            return Field(name, "element", xml_name or name, words, hint, repeated, required)
        case Text(words):
            return Field(name, "text", "", words, hint, repeated, required)
        case Sub(type_):
            return Field(name, "sub", type_, YES_NO, hint, repeated, required)
