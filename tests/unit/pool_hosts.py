"""The recorded SAN host's devices, and pools to look at them with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from nodedev.capabilities import attributes
from nodedev.discovery import Discovery
from nodedev.facts.host import Host
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Device
from nodedev.pools.definition import Definition
from nodedev.pools.document import read_pool

SAN = Path(__file__).parents[2] / "fixtures" / "san-basic"
IQN = "iqn.2026-11.com.example:virtimages"


@cache
def san() -> dict[str, Device]:
    """The devices of the recorded SAN host, by name."""
    source = RecordedSource.open(SAN, attributes())
    found = Discovery().survey(Host.scan(source)).devices
    return {device.name: device for device in sorted(found, key=lambda device: device.name)}


def iscsi(target: str, name: str = "virtimages", iqn: str = IQN) -> Definition:
    """The mail's iSCSI pool."""
    source = f"<source><host name='127.0.0.1'/><device path='{iqn}'/></source>"
    return read_pool(
        f"<pool type='iscsi'><name>{name}</name>{source}<target><path>{target}</path></target></pool>"
    )


def scsi(target: str, adapter: str = "name='host0'", name: str = "hba") -> Definition:
    """A pool of the disks of one SCSI host."""
    return read_pool(
        f"<pool type='scsi'><name>{name}</name><source><adapter {adapter}/></source>"
        f"<target><path>{target}</path></target></pool>"
    )
