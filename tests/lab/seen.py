"""What nodedev and the other tools said of the guest at one moment, to be held against each other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from lxml import etree

from nodedev.v1 import device_pb2
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.capability_pb2 import Block, Storage

from .guest import HERE, Guest

ASK_SECONDS = 600.0
WALKED = ("vg1-data", "mpathd")


M = TypeVar("M", bound=Message)


class Answer(TypedDict):
    """What ask.py prints: `walks` are a handle's members and holders, `sysfs_edges` holder and slave."""

    listed: dict[str, object]
    dumps: dict[str, str]
    violations: dict[str, list[str]]
    stock_violations: dict[str, list[str]]
    topology: dict[str, object]
    walks: dict[str, tuple[list[str], list[str]]]
    sysfs_edges: list[tuple[str, str]]
    block_devices: list[str]
    udev_differences: list[str]


@dataclass(frozen=True)
class Seen:
    """The answers of one service, as ask.py prints them, and a folder of peers.sh."""

    answer: Answer
    peers: Path

    @cached_property
    def devices(self) -> Mapping[str, device_pb2.Device]:
        """The devices by name."""
        listed = ParseDict(self.answer["listed"], pb.ListDevicesResponse())
        assert len({device.name for device in listed.devices}) == len(listed.devices)
        return {device.name: device for device in listed.devices}

    @cached_property
    def edges(self) -> Iterable[pb.Edge]:
        """Every relation of the topology."""
        return ParseDict(self.answer["topology"], pb.GetTopologyResponse()).edges

    @cached_property
    def by_kernel_name(self) -> Mapping[str, list[device_pb2.Device]]:
        """The block devices by the last part of their sysfs path."""
        found: dict[str, list[device_pb2.Device]] = {}
        for device in self.devices.values():
            if capability(device, Storage) or capability(device, Block):
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

    def every(self, kind: type[M]) -> Iterable[tuple[device_pb2.Device, M]]:
        """The devices that carry a capability, with it."""
        for device in self.devices.values():
            if found := capability(device, kind):
                yield device, found

    def document(self, name: str) -> etree._Element:
        """A device's XML."""
        return etree.fromstring(self.answer["dumps"][name])

    def text(self, peer: str) -> str:
        """What a tool printed."""
        return (self.peers / peer).read_text()

    def json(self, peer: str) -> Any:  # noqa: ANN401  the tools' own
        """What a tool printed, as JSON."""
        return json.loads(self.text(peer))

    def dmsetup(self, peer: str) -> Mapping[str, list[str]]:
        """The words that dmsetup prints of each device's only target, by its name."""
        lines = (line.partition(": ") for line in self.text(peer).splitlines())
        return {name: rest.split() for name, _, rest in lines}


def capability(device: device_pb2.Device, kind: type[M]) -> M | None:
    """One of a device's capabilities; None without it."""
    values = (getattr(found, found.WhichOneof("kind") or "") for found in device.capabilities)
    return next((value for value in values if isinstance(value, kind)), None)


def the(device: device_pb2.Device, kind: type[M]) -> M:
    """A capability that the device must have."""
    found = capability(device, kind)
    assert found is not None, device.name
    return found


def look(guest: Guest, folder: Path, walked: tuple[str, ...] = WALKED) -> Seen:
    """Ask all of them, one right after the other; of the topology what is reached from `walked`."""
    guest.script("peers.sh", "/run/peers")
    guest.get("/run/peers", folder / "peers")
    guest.put(HERE / "ask.py", "/run/ask.py")
    guest.run(
        f"PYTHONPATH=/opt/nodedev python3 /run/ask.py {' '.join(walked)} >/run/ask.json", timeout=ASK_SECONDS
    )
    guest.get("/run/ask.json", folder / "ask.json")
    return Seen(json.loads((folder / "ask.json").read_text()), folder / "peers")
