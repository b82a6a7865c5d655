"""A client that knows nothing of nodedev but the socket: what grpcurl does, by reflection alone."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.e2e.services import Process


@pytest.fixture
def channel(served: Process) -> Iterator[grpc.Channel]:
    """A bare channel to the service."""
    with grpc.insecure_channel(served.address) as opened:
        yield opened


def ask(channel: grpc.Channel, service: str, method: str, request: dict[str, object]) -> dict[str, object]:
    """Calls a method by what reflection tells of it, in JSON both ways."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    found = pool.FindServiceByName(service).FindMethodByName(method)
    message, answer = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
    call: grpc.UnaryUnaryMultiCallable[Message, Message] = channel.unary_unary(
        f"/{service}/{method}", lambda sent: sent.SerializeToString(), answer.FromString
    )
    return dict(MessageToDict(call(ParseDict(request, message())), preserving_proto_field_name=True))


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    """Ours, health and reflection itself are listed."""
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert set(services) >= {
        "nodedev.v1.DeviceService",
        "nodedev.v1.AdminService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_every_service_can_be_described(channel: grpc.Channel) -> None:
    """Each listed service's file comes with all that it imports."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    for service in database.get_services():
        assert pool.FindServiceByName(service).methods


def test_a_call_by_reflection(channel: grpc.Channel) -> None:
    """A loop device is found and read without any generated code."""
    listed = ask(channel, "nodedev.v1.DeviceService", "ListDevices", {"filter": {"capabilities": ["loop"]}})
    devices = listed["devices"]
    assert isinstance(devices, list)
    assert [device["name"] for device in devices] == ["loop_loop0"]
    assert {"loop", "storage"} <= {kind for capability in devices[0]["capabilities"] for kind in capability}


def test_health_by_reflection(channel: grpc.Channel) -> None:
    """The standard health service answers for the whole and for each service."""
    for service in ("", "nodedev.v1.DeviceService"):
        answer = ask(channel, "grpc.health.v1.Health", "Check", {"service": service})
        assert answer == {"status": "SERVING"}
