"""udev's database, read directly and held against libudev."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedev.facts import udev
from nodedev.facts.live import LiveSource
from nodedev.facts.udev import Database, Known, database_name, parse, with_kernel


@pytest.mark.parametrize(
    ("subsystem", "name", "uevent", "expected"),
    [
        ("block", "sda", {"MAJOR": "8", "MINOR": "0"}, "b8:0"),
        ("scsi_generic", "sg0", {"MAJOR": "21", "MINOR": "0"}, "c21:0"),
        ("net", "eth0", {"IFINDEX": "2"}, "n2"),
        ("scsi", "0:0:0:0", {}, "+scsi:0:0:0:0"),
    ],
)
def test_names_of_database_files(subsystem: str, name: str, uevent: dict[str, str], expected: str) -> None:
    """A device's file is named by its number, else its interface, else its subsystem and name."""
    assert database_name(subsystem, name, uevent) == expected


def test_a_file_of_the_database() -> None:
    """Properties and links are taken, tags and priorities passed over, and the device is initialized."""
    text = "S:disk/by-id/b\nS:disk/by-id/a\nI:5\nL:-1\nW:3\nE:ID_SERIAL=3=6\nG:systemd\nQ:systemd\nV:1\n"
    links = ("/dev/disk/by-id/a", "/dev/disk/by-id/b")
    assert parse(text) == Known({"ID_SERIAL": "3=6"}, links, initialized=True)


def test_an_empty_value_drops_the_kernels_property() -> None:
    """An empty value is udev's way to take a property back."""
    known = parse("E:DRIVER=\nI:5\n")
    assert with_kernel(known, "pci", {"DRIVER": "ahci", "PCI_ID": "1"}) == {"PCI_ID": "1", "SUBSYSTEM": "pci"}


def test_bookkeeping_is_no_property() -> None:
    """Tags and the time of initialization change without the device having changed."""
    known = parse("E:TAGS=:systemd:\nE:CURRENT_TAGS=:x:\nE:DEVLINKS=/dev/x\nI:5\n")
    assert with_kernel(known, "block", {}) == {"SUBSYSTEM": "block"}


def test_the_node_is_a_path() -> None:
    """The kernel names a node relative to /dev, a folder within it included."""
    assert with_kernel(Known(), "block", {"DEVNAME": "cciss/c0d0"})["DEVNAME"] == "/dev/cciss/c0d0"


@pytest.mark.parametrize("line", ["V:2", "X:new", "E:novalue", "Z"])
def test_what_is_not_known_is_not_guessed(line: str) -> None:
    """A line or version of a later udev is refused, for libudev to answer."""
    with pytest.raises(ValueError, match=r"line|version|value"):
        parse(f"I:1\n{line}\n")


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else than ValueError comes of a damaged file."""
    with suppress(ValueError):
        assert parse(text).initialized


def test_a_strange_file_is_left_to_libudev(tmp_path: Path) -> None:
    """A file that cannot be read here counts as a fallback and is no error."""
    (tmp_path / "+block:none").write_text("V:2\n")
    database = Database(str(tmp_path))
    assert database.read("block", "/devices/virtual/block/none", {}) == Known()
    assert database.fallbacks == 1


def test_without_a_database_nothing_is_initialized(tmp_path: Path) -> None:
    """In a container without udev a device has what the kernel says, and is not initialized."""
    database = Database(str(tmp_path / "none"))
    assert not database.exists
    assert database.read("block", "/devices/virtual/block/loop0", {"MAJOR": "7", "MINOR": "0"}) == Known()
    assert database.fallbacks == 0


@pytest.mark.parametrize("subsystem", ["block", "scsi", "pci", "scsi_host", "nvme", "virtio", "dmi"])
def test_libudev_says_the_same_of_this_machine(subsystem: str) -> None:
    """Properties, links and initialization of each device are those of libudev."""
    source = LiveSource({subsystem: ()})
    found = [(facts.path, Known(facts.properties, facts.links, facts.initialized)) for facts in source.scan()]
    assert list(udev.differences(found, subsystem)) == []


def test_differences_are_told() -> None:
    """A device that libudev describes otherwise, or alone, is named with what differs."""
    expected = dict(udev.from_libudev_all("block"))
    path, known = next(iter(expected.items()))
    wrong = Known({**known.properties, "ID_SERIAL": "x"}, ("/dev/x",), not known.initialized)
    told = list(udev.differences([(path, wrong), ("/devices/none", Known())], "block"))
    assert told[0] == f"{path}: ID_SERIAL is 'x', in libudev None"
    assert "/devices/none: not in libudev" in told
    assert len(told) == 4 + len(expected) - 1
