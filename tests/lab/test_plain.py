"""A machine without a SAN: what is not there is not missed, and libvirt's devices are the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedev.v1.capability_pb2 import Block, Mpath, Raid

from .guest import Guest
from .install import install
from .seen import Seen, look
from .test_san_basic import libvirts

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def plain(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """What is said of a guest of its own with partitions, LVM, an encrypted volume, NVMe and a USB stick.

    `guest` is asked for because it tells whether there can be a lab here.
    """
    folder: Path = tmp_path_factory.mktemp("plain")
    with Guest(plain=True) as machine:
        machine.script("plain.sh")
        install(machine, tmp_path_factory.mktemp("install"))
        assert machine.run("ls /proc/mdstat /run/multipathd.pid", check=False).returncode
        yield look(machine, folder, walked=())


def test_nothing_that_is_absent_is_listed(plain: Seen) -> None:
    """Without MD, multipathd and loop files there are no such devices, and no note of any other one."""
    assert not [*plain.every(Mpath), *plain.every(Raid)]
    notes = {(device.name, note.source) for device in plain.devices.values() for note in device.notes}
    assert {source for _, source in notes} <= {"dmi"}


def test_libvirts_devices_are_the_same(plain: Seen) -> None:
    """Names and parents are libvirt's, from the machine down to partitions' disks and a USB stick."""
    theirs = {name: device.findtext("parent", "") for name, device in libvirts(plain).items()}
    assert {name: plain.devices[name].parent for name in theirs} == theirs
    assert any(name.startswith("usb_") for name in theirs)


def test_kinds(plain: Seen) -> None:
    """Partitions, logical volumes and the encrypted one on top have their kinds."""
    kinds = {device.devnode: found.kind for device, found in plain.every(Block)}
    mapped = {name: kinds[f"/dev/{plain.block_of(name)}"] for name in ("plain-root", "plain-home", "home")}
    assert mapped == {"plain-root": "lvm", "plain-home": "lvm", "home": "crypt"}
    assert len([node for node, kind in kinds.items() if kind == "partition"]) == 4
    assert all(
        re.fullmatch(r"/dev/(sd[a-z]|nvme\d+n\d+p)\d", node) for node in kinds if kinds[node] == "partition"
    )


def test_documents_and_properties(plain: Seen) -> None:
    """Each document fits both grammars, and udev's properties are libudev's."""
    for answers in (plain.answer["violations"], plain.answer["stock_violations"]):
        assert {name: found for name, found in answers.items() if found} == {}
    assert plain.answer["udev_differences"] == []
