"""Devices as protobuf messages and back, field by field of the same name.

Both ways follow `nodedev.fields.shape` and the message's descriptor; what can be known of a pair of
struct and message is worked out once. None leaves a field unset. A word of an enum is the value's
name without the enum's prefix: "not-ready" is TYPE_NOT_READY, an unknown word TYPE_UNSPECIFIED.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from nodedev.capabilities import kinds
from nodedev.errors import InvalidError
from nodedev.facts.host import Note
from nodedev.fields import Field, backslashed, shape
from nodedev.model import Capability, Device, Relation
from nodedev.v1 import capability_pb2, device_pb2

M = TypeVar("M", bound=Message)
Fill = Callable[[object, Message], None]
Take = Callable[[Message], object]

_ONEOF = "kind"
_SURROGATE = re.compile("[\ud800-\udfff]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def device_message(device: Device) -> device_pb2.Device:
    """The device with its capabilities, relations and notes."""
    return filled(device, device_pb2.Device())


def device_value(message: device_pb2.Device) -> Device:
    """The device that a message is of; raises InvalidError for a capability of no known kind."""
    value = _taker(Device, message.DESCRIPTOR)(message)
    assert isinstance(value, Device)  # noqa: S101  the taker's class is its argument
    return value


def capability_message(capability: Capability) -> capability_pb2.Capability:
    """The capability, in the oneof under its type."""
    message = capability_pb2.Capability()
    _fill_capability(capability, message)
    return message


def capability_value(message: capability_pb2.Capability) -> Capability:
    """The capability that a message is of; raises InvalidError when it is of no known kind."""
    return _take_capability(message)


def relation(value: Relation) -> device_pb2.Relation:
    """One end of a relation."""
    return filled(value, device_pb2.Relation())


def note(value: Note) -> device_pb2.Note:
    """A note on a device or on the whole host."""
    return filled(value, device_pb2.Note())


def filled(value: object, message: M) -> M:
    """The message with the fields of the same names of a struct in it, which must all be there."""
    cls: type = type(value)
    _filler(cls, message.DESCRIPTOR)(value, message)
    return message


# From values to messages


@cache
def _filler(cls: type, descriptor: Descriptor) -> Fill:
    """Copies an instance's fields into a message of that type."""
    targets = [(field, _target(field, descriptor)) for field in shape(cls)]
    plain = [field.name for field, target in targets if not field.repeated and _is_plain(target)]
    others = [
        (field.name, field.repeated, _copier(field, target))
        for field, target in targets
        if field.repeated or not _is_plain(target)
    ]

    def fill(value: object, message: Message) -> None:
        # Most fields are these; a call for each would take as long as all the rest.
        for name in plain:
            item = getattr(value, name)
            if item is not None:
                try:
                    setattr(message, name, item)
                except ValueError:
                    _carry(setattr, message, name, item)
        for name, repeated, copy in others:
            item = getattr(value, name)
            if repeated:
                for each in item:
                    copy(each, message)
            elif item is not None:
                copy(item, message)

    return fill


def _is_plain(target: FieldDescriptor) -> bool:
    return target.message_type is None and target.enum_type is None


def _copier(field: Field, target: FieldDescriptor) -> Fill:
    """Copies one value into its field, or to the end of a repeated one."""
    name = field.name
    if target.message_type is not None:
        return _nested_copier(field, _message_filler(field.type, target.message_type))
    put = _append if field.repeated else setattr
    if target.enum_type is not None:
        numbers = _numbers(target.enum_type)
        return lambda word, message: put(message, name, numbers.get(str(word), 0))

    def copy(value: object, message: Message) -> None:
        try:
            put(message, name, value)
        except ValueError:
            _carry(put, message, name, value)

    return copy


def _nested_copier(field: Field, fill: Fill) -> Fill:
    name = field.name
    if field.repeated:
        return lambda value, message: fill(value, getattr(message, name).add())

    def copy(value: object, message: Message) -> None:
        nested = getattr(message, name)
        nested.SetInParent()  # it is there even when nothing in it is set
        fill(value, nested)

    return copy


def _message_filler(cls: type, descriptor: Descriptor) -> Fill:
    return _fill_capability if cls is Capability else _filler(cls, descriptor)


def _fill_capability(value: object, message: Message) -> None:
    assert isinstance(value, Capability)  # noqa: S101  a Device holds no others
    cls: type = type(value)
    nested = getattr(message, value.TYPE)
    nested.SetInParent()
    _filler(cls, nested.DESCRIPTOR)(value, nested)


def _append(message: Message, name: str, value: object) -> None:
    getattr(message, name).append(value)


def _carry(put: Callable[[Message, str, object], None], message: Message, name: str, value: object) -> None:
    """Puts what protobuf refused: text that is no Unicode escaped, a number over 64 bits not at all."""
    if isinstance(value, str):
        put(message, name, _SURROGATE.sub(backslashed, value))


# From messages to values


@cache
def _taker(cls: type, descriptor: Descriptor) -> Take:
    """Makes an instance from a message of that type."""
    takes = [(field.name, _field_taker(field, _target(field, descriptor))) for field in shape(cls)]

    def take(message: Message) -> object:
        value: object = cls(**{name: take_field(message) for name, take_field in takes})
        return value

    return take


def _field_taker(field: Field, target: FieldDescriptor) -> Take:
    name, take = field.name, _item_taker(field.type, target)
    if field.repeated:
        return lambda message: tuple(take(item) for item in getattr(message, name))
    if field.optional and target.has_presence:
        return lambda message: take(getattr(message, name)) if message.HasField(name) else None
    return lambda message: take(getattr(message, name))


def _item_taker(cls: type, target: FieldDescriptor) -> Callable[..., object]:
    if target.message_type is not None:
        return _take_capability if cls is Capability else _taker(cls, target.message_type)
    if target.enum_type is not None:
        words = {number: word for word, number in _numbers(target.enum_type).items()}
        return words.get
    return lambda value: value


def _take_capability(message: Message) -> Capability:
    type_ = message.WhichOneof(_ONEOF)
    cls: type | None = _shapes().get(type_ or "")
    if type_ is None or cls is None:
        raise InvalidError(f"a capability of {'unknown' if type_ is None else type_} kind")
    nested = getattr(message, type_)
    value = _taker(cls, nested.DESCRIPTOR)(nested)
    assert isinstance(value, Capability)  # noqa: S101  the taker's class is its argument
    return value


# Tables


@cache
def _shapes() -> Mapping[str, type[Capability]]:
    return {kind.type: kind.shape for kind in kinds()}


def _target(field: Field, descriptor: Descriptor) -> FieldDescriptor:
    target = descriptor.fields_by_name.get(field.name)
    if target is None:
        raise TypeError(f"{descriptor.full_name} has no field {field.name}")
    return target


def _numbers(enum: EnumDescriptor) -> Mapping[str, int]:
    prefix = _HUMP.sub("_", enum.name).upper() + "_"
    return {value.name.removeprefix(prefix).lower().replace("_", "-"): value.number for value in enum.values}
