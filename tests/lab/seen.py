"""What nodedev and the other tools said of the guest at one moment, to be held against each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from lxml import etree
from nodedev.v1 import capability_pb2, device_pb2
from nodedev.v1 import device_service_pb2 as pb

from .guest import HERE, Guest

ASK_SECONDS = 600.0
WALKED = ("vg1-data", "mpathd")


@dataclass(frozen=True)
class Seen:
    """The answers of one service, in `answer` as ask.py prints them, and a folder of peers.sh."""

    answer: Mapping[str, Any]
    peers: Path

    @cached_property
    def devices(self) -> Mapping[str, device_pb2.Device]:
        """The devices by name."""
        listed = ParseDict(self.answer["listed"], pb.ListDevicesResponse())
        assert len({device.name for device in listed.devices}) == len(listed.devices)
        return {device.name: device for device in listed.devices}

    @cached_property
    def by_kernel_name(self) -> Mapping[str, list[device_pb2.Device]]:
        """The block devices by the last part of their sysfs path."""
        found: dict[str, list[device_pb2.Device]] = {}
        for device in self.devices.values():
            if capability(device, "storage") or capability(device, "block"):
                found.setdefault(device.sysfs_path.rpartition("/")[2], []).append(device)
        return found

    def block(self, kernel_name: str) -> device_pb2.Device:
        """The one device of a kernel name."""
        (device,) = self.by_kernel_name[kernel_name]
        return device

    def kernel_name(self, name: str) -> str:
        """The kernel's name of a device."""
        return self.devices[name].sysfs_path.rpartition("/")[2]

    def number(self, device_number: str) -> str:
        """The kernel's name of the block device with that MAJOR:MINOR."""
        (name,) = (
            self.kernel_name(name)
            for name, device in self.devices.items()
            if device.device_number == device_number
        )
        return name

    def block_of(self, dm_name: str) -> str:
        """The kernel's name of a dm device."""
        (name,) = (
            self.kernel_name(device.name)
            for device in self.devices.values()
            if f"/dev/mapper/{dm_name}" in device.links
        )
        return name

    def with_capability(self, type_: str) -> Iterable[device_pb2.Device]:
        """The devices that carry a capability."""
        return (device for device in self.devices.values() if capability(device, type_))

    def document(self, name: str) -> etree._Element:
        """A device's XML."""
        return etree.fromstring(self.answer["dumps"][name])

    def text(self, peer: str) -> str:
        """What a tool printed."""
        return (self.peers / peer).read_text()

    def json(self, peer: str) -> Any:
        """What a tool printed, as JSON."""
        return json.loads(self.text(peer))

    def dmsetup(self, peer: str) -> Mapping[str, list[str]]:
        """The words that dmsetup prints of each device's only target, by its name."""
        lines = (line.partition(": ") for line in self.text(peer).splitlines())
        return {name: rest.split() for name, _, rest in lines}


def capability(device: device_pb2.Device, type_: str) -> Any:
    """The message of one of a device's capabilities; None without it."""
    for found in device.capabilities:
        if found.WhichOneof("kind") == type_:
            return getattr(found, type_)
    return None


def mpath(device: device_pb2.Device) -> capability_pb2.Mpath:
    """A device's mpath capability."""
    found = capability(device, "mpath")
    assert isinstance(found, capability_pb2.Mpath)
    return found


def raid(device: device_pb2.Device) -> capability_pb2.Raid:
    """A device's raid capability."""
    found = capability(device, "raid")
    assert isinstance(found, capability_pb2.Raid)
    return found


def loop(device: device_pb2.Device) -> capability_pb2.Loop:
    """A device's loop capability."""
    found = capability(device, "loop")
    assert isinstance(found, capability_pb2.Loop)
    return found


def look(guest: Guest, folder: Path) -> Seen:
    """Ask all of them, one right after the other."""
    guest.script("peers.sh", "/run/peers")
    guest.get("/run/peers", folder / "peers")
    guest.put(HERE / "ask.py", "/run/ask.py")
    guest.run(
        f"PYTHONPATH=/opt/nodedev python3 /run/ask.py {' '.join(WALKED)} >/run/ask.json", timeout=ASK_SECONDS
    )
    guest.get("/run/ask.json", folder / "ask.json")
    return Seen(json.loads((folder / "ask.json").read_text()), folder / "peers")
