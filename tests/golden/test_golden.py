"""Every fixture's devices, as XML and as JSON, are what its expected/ folder says."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson

from nodedev.capabilities import attributes, kinds
from nodedev.discovery import Discovery
from nodedev.documents import validate
from nodedev.facts.host import Host
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Device
from nodedev.proto import device_message
from nodedev.v1.device_service_pb2 import ListDevicesResponse
from nodedev.xml import device_xml

FIXTURES = Path(__file__).parents[2] / "fixtures"
HOSTS = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())


def devices_of(host: str) -> tuple[Device, ...]:
    """The fixture's devices in the order of their names."""
    source = RecordedSource.open(FIXTURES / host, attributes())
    found = Discovery().survey(Host.scan(source))
    return tuple(sorted(found.devices, key=lambda device: device.name))


def compare(host: str, name: str, text: str, *, regenerate: bool) -> None:
    """Holds the text against the golden file, or makes it the golden file."""
    path = FIXTURES / host / "expected" / name
    if regenerate:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs: look at it, then make golden"


@pytest.mark.parametrize("host", HOSTS)
def test_xml(host: str, regenerate: bool) -> None:
    """Each fixture's dumps are the golden ones, and fit our own grammar."""
    dumps = [device_xml(device) for device in devices_of(host)]
    assert [problem for dump in dumps for problem in validate(dump)] == []
    compare(host, "devices.xml", "".join(dumps), regenerate=regenerate)


@pytest.mark.parametrize("host", HOSTS)
def test_json(host: str, regenerate: bool) -> None:
    """Each fixture's devices as protobuf JSON are the golden ones."""
    message = ListDevicesResponse(devices=map(device_message, devices_of(host)))
    text = MessageToJson(message, preserving_proto_field_name=True, ensure_ascii=False)
    compare(host, "devices.json", f"{text}\n", regenerate=regenerate)


def test_each_capability_has_a_fixture() -> None:
    """Every registered capability stands in some fixture, so that none goes unexercised."""
    shown = {
        capability.TYPE for host in HOSTS for device in devices_of(host) for capability in device.capabilities
    }
    assert shown == {kind.type for kind in kinds()}
