"""Devices as messages: what is set, what is left unset, and what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedev import proto
from nodedev.capabilities import kinds
from nodedev.capabilities.loop import Backing, Loop
from nodedev.capabilities.storage import Storage
from nodedev.errors import InvalidError
from nodedev.facts.host import Note
from nodedev.model import Device, Relation
from nodedev.v1 import capability_pb2, device_pb2
from tests.unit.strategies import capabilities, devices, wild_texts

LOOP = Loop(backing=Backing(path="/srv/l0.img", deleted=False), offset_bytes=0)
DEVICE = Device(
    name="loop_loop0",
    parent="computer",
    sysfs_path="/sys/devices/virtual/block/loop0",
    devnode="/dev/loop0",
    links=("/dev/disk/by-diskseq/15", "/dev/disk/by-label/x"),
    driver=None,
    device_number="7:0",
    generation=15,
    capabilities=(Storage(block="/dev/loop0"), LOOP),
    members=(Relation("backing", "block_sda"),),
    holders=(Relation("dm", "block_dm_0"),),
    notes=(Note("stat", "not in this mount namespace"),),
)


def test_device() -> None:
    """A device's message has its fields by name, and its capabilities in the oneof."""
    assert proto.device_message(DEVICE) == device_pb2.Device(
        name="loop_loop0",
        parent="computer",
        sysfs_path="/sys/devices/virtual/block/loop0",
        devnode="/dev/loop0",
        links=["/dev/disk/by-diskseq/15", "/dev/disk/by-label/x"],
        device_number="7:0",
        generation=15,
        capabilities=[
            capability_pb2.Capability(storage=capability_pb2.Storage(block="/dev/loop0")),
            capability_pb2.Capability(
                loop=capability_pb2.Loop(
                    backing=capability_pb2.Loop.Backing(path="/srv/l0.img", deleted=False), offset_bytes=0
                )
            ),
        ],
        members=[device_pb2.Relation(kind="backing", device="block_sda")],
        holders=[device_pb2.Relation(kind="dm", device="block_dm_0")],
        notes=[device_pb2.Note(source="stat", message="not in this mount namespace")],
    )


def test_unset_is_not_zero() -> None:
    """None is unset, while zero, no and an empty element are there."""
    message = proto.capability_message(LOOP).loop

    assert message.HasField("offset_bytes")
    assert message.backing.HasField("deleted")
    assert not message.HasField("size_limit_bytes")
    assert proto.capability_message(Loop(backing=Backing())).loop.HasField("backing")
    assert not proto.capability_message(Loop()).loop.HasField("backing")
    assert proto.capability_message(Loop()).WhichOneof("kind") == "loop"


@pytest.mark.parametrize("word", ["held", "not-ready"])
def test_words_of_an_enum(word: str) -> None:
    """A word is the enum's value of that name, and comes back as the word."""
    kind = next(kind for kind in kinds() if kind.type == "claim")
    message = capability_pb2.Capability()
    number = capability_pb2.Claim.Type.Value(f"TYPE_{word.upper().replace('-', '_')}")
    message.claim.reasons.add(type=number, device="mpath_x")

    assert f"'{word}'" in repr(proto.capability_value(message))
    assert isinstance(proto.capability_value(message), kind.shape)
    assert proto.capability_message(proto.capability_value(message)) == message


def test_a_word_that_no_enum_has() -> None:
    """A word without a value of its own is the unspecified one."""
    message = capability_pb2.Capability()
    message.claim.reasons.add(type=capability_pb2.Claim.TYPE_UNSPECIFIED)

    assert proto.capability_message(proto.capability_value(message)) == message


@pytest.mark.parametrize(
    ("text", "carried"),
    [
        ("undecodable\udcff", r"undecodable\xff"),
        ("half\ud800", r"half\ud800"),
        ("control\x01", "control\x01"),
    ],
)
def test_text_that_is_no_unicode(text: str, carried: str) -> None:
    """What UTF-8 cannot carry is spelled out, in single and repeated fields alike."""
    device = Device(text, None, None, None, ("/dev/a", text), None, None, None, (Storage(model=text),))

    message = proto.device_message(device)

    assert message.name == carried
    assert list(message.links) == ["/dev/a", carried]
    assert message.capabilities[0].storage.model == carried


def test_number_over_64_bits() -> None:
    """A number that int64 cannot hold stays unset instead of becoming another one."""
    message = proto.capability_message(Loop(offset_bytes=1 << 63, size_limit_bytes=(1 << 63) - 1))

    assert not message.loop.HasField("offset_bytes")
    assert message.loop.size_limit_bytes == (1 << 63) - 1


def test_relation_and_note() -> None:
    """Relations and notes have messages of their own."""
    assert proto.relation(Relation("path", "block_sda")) == device_pb2.Relation(
        kind="path", device="block_sda"
    )
    assert proto.note(Note("dm", "no")) == device_pb2.Note(source="dm", message="no")


def test_capability_of_no_kind() -> None:
    """A message without a known kind, as of a newer peer, is refused."""
    with pytest.raises(InvalidError, match="unknown"):
        proto.capability_value(capability_pb2.Capability())


@settings(deadline=None)
@given(device=devices(st.one_of([capabilities(kind) for kind in kinds()])))
def test_devices_round_trip(device: Device) -> None:
    """A device comes back from its message, over the wire too, as it was."""
    message = device_pb2.Device.FromString(proto.device_message(device).SerializeToString())

    assert proto.device_value(message) == device


@settings(deadline=None)
@given(device=devices(st.builds(Loop, st.builds(Backing, path=wild_texts)), wild_texts))
def test_any_text_makes_a_message(device: Device) -> None:
    """Whatever a name or a link holds, the message can be sent."""
    message = proto.device_message(device)

    assert device_pb2.Device.FromString(message.SerializeToString()) == message
