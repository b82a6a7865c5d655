"""Hypothesis strategies: any instance that a struct's declarations and its proto message allow."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from nodedev.facts.host import Note
from nodedev.fields import Field, shape
from nodedev.model import Capability, CapabilityKind, Device, Relation
from nodedev.v1 import capability_pb2

T = TypeVar("T")

# XML 1.0's characters but for the surrogates; the others cannot come back as they were.
texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\ufffe\uffff", exclude_categories=["Cs"]).filter(
        lambda character: character >= " " or character in "\t\n\r"
    ),
    min_size=1,
    max_size=12,
)
wild_texts = st.text(max_size=8) | st.binary(max_size=6).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)
# What the narrowest of the numeric fields holds.
numbers = st.integers(min_value=0, max_value=2**31 - 1)


def descriptor_of(cls: type[Capability]) -> Descriptor:
    """The proto message in the oneof under the capability's type."""
    found = capability_pb2.Capability.DESCRIPTOR.fields_by_name[cls.TYPE].message_type
    assert found is not None
    return found


def capabilities(kind: CapabilityKind) -> st.SearchStrategy[Capability]:
    """Instances of a registered capability."""
    return instances(kind.shape, descriptor_of(kind.shape))


def instances(cls: type[T], descriptor: Descriptor) -> st.SearchStrategy[T]:
    """Instances of a struct that stands for a message."""
    shaped: type = cls
    fields = {field.name: _values(field, descriptor.fields_by_name[field.name]) for field in shape(shaped)}
    return st.builds(cls, **fields)


def _values(field: Field, target: FieldDescriptor) -> st.SearchStrategy[object]:
    one = _value(field, target)
    if field.repeated:
        return st.lists(one, max_size=3).map(tuple)
    return st.none() | one if field.optional else one


def _value(field: Field, target: FieldDescriptor) -> st.SearchStrategy[object]:
    if target.message_type is not None:
        return instances(field.type, target.message_type)
    if target.enum_type is not None:
        prefix = f"{target.enum_type.name.upper()}_"
        names = [value.name for value in target.enum_type.values if value.number]
        return st.sampled_from([name.removeprefix(prefix).lower().replace("_", "-") for name in names])
    return {str: texts, int: numbers, bool: st.booleans()}[field.type]


relations = st.builds(Relation, texts, texts)
notes = st.builds(Note, texts, texts)


def devices(
    capability: st.SearchStrategy[Capability], words: st.SearchStrategy[str] = texts
) -> st.SearchStrategy[Device]:
    """Devices with at most one such capability."""
    return st.builds(
        Device,
        name=words,
        parent=st.none() | words,
        sysfs_path=st.none() | words,
        devnode=st.none() | words,
        links=st.lists(words, max_size=3).map(tuple),
        driver=st.none() | words,
        device_number=st.none() | words,
        generation=st.none() | numbers,
        capabilities=st.lists(capability, max_size=1).map(tuple),
        members=st.lists(relations, max_size=2).map(tuple),
        holders=st.lists(relations, max_size=2).map(tuple),
        notes=st.lists(notes, max_size=2).map(tuple),
    )
