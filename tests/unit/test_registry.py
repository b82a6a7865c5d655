"""Each registered capability, held against what every capability must have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from msgspec import Struct

from nodedev import proto, schemas
from nodedev.capabilities import kinds
from nodedev.documents import read_device, validate
from nodedev.fields import shape
from nodedev.model import Capability, CapabilityKind, Device
from nodedev.v1 import capability_pb2
from nodedev.xml import device_xml
from tests.unit.strategies import capabilities, descriptor_of

each_kind = pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.type)
_PROTO_TYPES = {
    FieldDescriptor.TYPE_INT32: int,
    FieldDescriptor.TYPE_INT64: int,
    FieldDescriptor.TYPE_UINT32: int,
    FieldDescriptor.TYPE_BOOL: bool,
    FieldDescriptor.TYPE_STRING: str,
    FieldDescriptor.TYPE_ENUM: str,
}


def test_types_are_unique() -> None:
    """No two capabilities are registered under one type."""
    types = [kind.type for kind in kinds()]

    assert len(types) == len(set(types))


def test_each_oneof_line_has_a_capability() -> None:
    """What the proto promises is registered, and nothing else is."""
    oneof = capability_pb2.Capability.DESCRIPTOR.oneofs_by_name["kind"]

    assert {field.name for field in oneof.fields} == {kind.type for kind in kinds()}


@each_kind
def test_values_are_frozen_and_slotted(kind: CapabilityKind) -> None:
    """A capability and all that nests in it are frozen, and have no fields but those declared."""
    for cls, _ in _pairs(kind.shape, descriptor_of(kind.shape)):
        assert cls.__struct_config__.frozen
        assert not cls.__struct_config__.dict


@each_kind
def test_fields_match_the_message(kind: CapabilityKind) -> None:
    """Struct and message have the same fields, of the same kind, and what may be None may be unset."""
    for cls, descriptor in _pairs(kind.shape, descriptor_of(kind.shape)):
        fields = {field.name: field for field in shape(cls)}
        assert set(fields) == set(descriptor.fields_by_name), descriptor.full_name
        for name, target in descriptor.fields_by_name.items():
            field, where = fields[name], f"{descriptor.full_name}.{name}"
            assert field.repeated == target.is_repeated, where
            assert field.nested == (target.message_type is not None), where
            assert field.nested or field.type is _PROTO_TYPES[target.type], where
            assert target.has_presence or not field.optional, where


@each_kind
def test_xml_names_are_unambiguous(kind: CapabilityKind) -> None:
    """No two fields stand in one place, and an element has text or elements, not both."""
    for cls, _ in _pairs(kind.shape, descriptor_of(kind.shape)):
        places = [(field.place, field.xml_name) for field in shape(cls)]
        assert len(places) == len(set(places)), cls
        kinds_of_content = {field.place for field in shape(cls)} & {"text", "element", "sub"}
        assert "text" not in kinds_of_content or kinds_of_content == {"text"}, cls


@each_kind
def test_fragment_defines_only_what_is_its_own(kind: CapabilityKind) -> None:
    """A fragment adds one choice of capability, and its other definitions bear its type's name."""
    names = [define.get("name", "") for define in schemas.fragment(kind.type)]

    assert names.count("capability") == 1
    assert all(name == "capability" or name.startswith(f"{kind.type}.") for name in names)


@each_kind
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_round_trips(kind: CapabilityKind, data: st.DataObject) -> None:
    """Any instance fits the grammar, and comes back from XML and from proto as it was."""
    capability = data.draw(capabilities(kind))
    document = device_xml(_bearing(capability))

    assert validate(document) == []
    assert read_device(document).capabilities == (capability,)
    assert proto.capability_value(proto.capability_message(capability)) == capability


@each_kind
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_elements_stand_in_any_order(kind: CapabilityKind, data: st.DataObject) -> None:
    """A person may write a capability's elements in another order than nodedev does."""
    root = etree.fromstring(device_xml(_bearing(data.draw(capabilities(kind)))))
    for capability in root.iterfind("capability"):
        capability[:] = reversed(capability)

    assert validate(etree.tostring(root)) == []


def _bearing(capability: Capability) -> Device:
    return Device("device", "computer", None, None, (), None, None, None, (capability,))


def _pairs(cls: type[Struct], descriptor: Descriptor) -> Iterator[tuple[type[Struct], Descriptor]]:
    yield cls, descriptor
    for field in shape(cls):
        target = descriptor.fields_by_name.get(field.name)
        if field.nested and target is not None and target.message_type is not None:
            yield from _pairs(field.type, target.message_type)
