"""The kernel's uevents as they come over netlink."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.facts.udev import Uevent
from nodedev.facts.uevents import parse

ATTACHED = (
    b"change@/devices/virtual/block/loop7\0ACTION=change\0DEVPATH=/devices/virtual/block/loop7\0"
    b"SUBSYSTEM=block\0DISK_MEDIA_CHANGE=1\0MAJOR=7\0MINOR=7\0DEVNAME=loop7\0DEVTYPE=disk\0SEQNUM=4711\0"
)


def test_an_event_is_read() -> None:
    """Of a message counts which device it is about, and its number."""
    assert parse(ATTACHED) == ("block", Uevent("/devices/virtual/block/loop7", 4711))


def test_a_moved_device_is_read_in_both_places() -> None:
    """A renamed device is gone from where it was."""
    message = ATTACHED.replace(b"ACTION=change", b"ACTION=move\0DEVPATH_OLD=/devices/virtual/block/l\xff7")
    found = parse(message)
    assert found
    assert found[1].former_path == "/devices/virtual/block/l\udcff7"


@pytest.mark.parametrize("lost", [b"DEVPATH=", b"SUBSYSTEM=", b"SEQNUM=", b"SEQNUM=4711"])
def test_what_lacks_a_part_is_none(lost: bytes) -> None:
    """A message without path, subsystem or number is not the kernel's."""
    assert parse(ATTACHED.replace(lost, b"X")) is None


@given(st.binary())
def test_no_message_is_too_odd(message: bytes) -> None:
    """Whatever comes is an event or none."""
    found = parse(message)
    assert found is None or found[1].number >= 0
