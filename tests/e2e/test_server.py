"""The services over real unix sockets: lists, lookups, errors and limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedev.client import Client
from nodedev.errors import NodedevError, PreconditionError, UnavailableError
from nodedev.facts.host import DeviceFacts
from nodedev.facts.recorded import RecordedSource
from nodedev.server import boundary
from nodedev.server.access import Access
from nodedev.server.inprocess import in_process
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.admin_service_pb2 import GetServerInfoRequest
from nodedev.v1.admin_service_pb2_grpc import AdminServiceStub
from nodedev.v1.device_service_pb2_grpc import DeviceServiceStub
from tests.e2e.services import PLAIN, recorded, serving, write_loops

WRITE = "/nodedev.v1.Future/Create"
NAMES = ["block_vda1", "block_vda2", "block_vda_plain", "computer", "loop_loop0", "pci_0000_00_04_0"]


def info(error: grpc.RpcError) -> ErrorInfo:
    """The ErrorInfo of a failed call, which must have one."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    status = rpc_status.from_call(error)
    found = ErrorInfo()
    assert status
    assert status.code == error.code().value[0]
    assert status.details[0].Unpack(found)
    assert found.domain == "nodedev"
    return found


def detail(error: grpc.RpcError, kind: type[BadRequest | RetryInfo]) -> BadRequest | RetryInfo:
    """The detail of that kind."""
    status = rpc_status.from_call(error)
    assert status
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError


@pytest.fixture(scope="module")
def stub() -> Iterator[DeviceServiceStub]:
    """The bare stub of a service of the plain host."""
    with in_process(recorded(PLAIN), "plain") as address, grpc.insecure_channel(address) as channel:
        yield DeviceServiceStub(channel)


def test_list_is_in_the_order_of_names(client: Client) -> None:
    """A list has every device once, by name, and tells its snapshot's revision."""
    found = client.list_devices()
    assert [device.name for device in found.devices] == NAMES
    assert found.revision == client.server_info().revision


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (pb.DeviceFilter(capabilities=["loop", "pci"]), ["loop_loop0", "pci_0000_00_04_0"]),
        (pb.DeviceFilter(names=["loop_loop0", "gone"]), ["loop_loop0"]),
        (pb.DeviceFilter(parent="block_vda_plain"), ["block_vda1", "block_vda2"]),
        (
            pb.DeviceFilter(capabilities=["storage"], names=["block_vda1", "block_vda_plain"]),
            ["block_vda_plain"],
        ),
    ],
)
def test_filter(client: Client, wanted: pb.DeviceFilter, names: list[str]) -> None:
    """Each part of a filter restricts, all of them together."""
    assert [device.name for device in client.list_devices(wanted).devices] == names


def test_unknown_capability_is_refused(stub: DeviceServiceStub) -> None:
    """A type that no device can have is FILTER_INVALID, with the field in the details."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListDevices(pb.ListDevicesRequest(filter=pb.DeviceFilter(capabilities=["disc"])))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info(caught.value).reason == "FILTER_INVALID"
    bad = detail(caught.value, BadRequest)
    assert isinstance(bad, BadRequest)
    assert [violation.field for violation in bad.field_violations] == ["filter.capabilities"]


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_any_page_sizes_give_the_same_list(stub: DeviceServiceStub, sizes: list[int]) -> None:
    """However the pages are cut, together they are the list, and so are the documents."""

    def gather(
        ask: Callable[[int, str], pb.ListDevicesResponse | pb.GetDeviceXmlResponse],
    ) -> list[str]:
        left, token, names = list(sizes), "", list[str]()
        while True:
            size = left.pop(0) if len(left) > 1 else left[0]
            page = ask(size, token)
            names.extend(device.name for device in page.devices)
            token = page.next_page_token
            if not token:
                return names

    devices = gather(
        lambda size, token: stub.ListDevices(pb.ListDevicesRequest(page_size=size, page_token=token))
    )
    documents = gather(
        lambda size, token: stub.GetDeviceXml(pb.GetDeviceXmlRequest(page_size=size, page_token=token))
    )
    assert devices == documents == NAMES


async def test_a_list_outlives_changes_for_a_while(folder: Path) -> None:
    """Later pages are of the first one's snapshot; when that is gone they are PAGE_TOKEN_EXPIRED."""
    async with serving(recorded(PLAIN), folder / "s") as service:
        running = asyncio.create_task(service.run())
        await service.engine.published.wait()
        async with grpc.aio.insecure_channel(f"unix:{folder / 's'}") as channel:
            stub = DeviceServiceStub(channel)
            first = await stub.ListDevices(pb.ListDevicesRequest(page_size=5))
            service.engine.inventory.publish([], removed=["pci_0000_00_04_0"])
            request = pb.ListDevicesRequest(page_token=first.next_page_token)
            rest = await stub.ListDevices(request)
            assert [device.name for device in rest.devices] == ["pci_0000_00_04_0"]
            assert rest.revision == first.revision
            for _ in range(20):
                service.engine.inventory.publish([], resync=True)
                await stub.ListDevices(pb.ListDevicesRequest(page_size=1))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListDevices(request)
            assert caught.value.code() is grpc.StatusCode.ABORTED
            assert info(caught.value).reason == "PAGE_TOKEN_EXPIRED"
        running.cancel()


def test_large_lists_come_in_pages_that_fit(tmp_path: Path) -> None:
    """No page comes near gRPC's receive limit, and the client puts them together."""
    source = recorded(write_loops(tmp_path, 3000, name="x" * 400))
    with in_process(source, "loops") as address:
        with grpc.insecure_channel(address) as channel:
            first = DeviceServiceStub(channel).ListDevices(pb.ListDevicesRequest(page_size=10_000))
        assert len(first.devices) < 3000
        assert first.ByteSize() < 2 << 20
        with Client(address) as client:
            assert len(client.list_devices().devices) == 3001
            assert len(client.device_xml().devices) == 3001
            handles = [f"/dev/loop{number}" for number in range(3000)]
            named = client.device_xml(handles).devices
            assert [device.name for device in named] == [f"loop_loop{number}" for number in range(3000)]


@pytest.mark.parametrize(
    "handle",
    ["block_vda_plain", "/dev/vda", "vda", "254:0", "/dev/disk/by-id/virtio-plain", "/sys/block/vda"],
)
def test_any_handle_finds_the_device(client: Client, handle: str) -> None:
    """A device answers to its name, node, link, kernel name, number and sysfs path."""
    assert client.get_device(handle).device.name == "block_vda_plain"


@pytest.mark.parametrize("handle", ["gone", "", "x" * 500_000, "\N{SNOWMAN}" * 100_000])
def test_a_device_that_is_not_there(stub: DeviceServiceStub, handle: str) -> None:
    """NOT_FOUND DEVICE_NOT_FOUND comes with the handle, and fits into trailers however long that is."""
    for call in (
        lambda: stub.GetDevice(pb.GetDeviceRequest(handle=handle)),
        lambda: stub.GetDeviceXml(pb.GetDeviceXmlRequest(handles=["vda", handle])),
        lambda: stub.GetTopology(pb.GetTopologyRequest(roots=[handle])),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        found = info(caught.value)
        assert found.reason == "DEVICE_NOT_FOUND"
        assert found.metadata["handle"].startswith(handle[:100])


def test_xml_comes_in_the_order_asked_for(client: Client) -> None:
    """Documents stand in the order of the handles."""
    found = client.device_xml(["vda2", "computer", "vda1"]).devices
    assert [device.name for device in found] == ["block_vda2", "computer", "block_vda1"]
    assert all(f"<name>{device.name}</name>" in device.xml for device in found)


def test_topology(client: Client) -> None:
    """Relations are those of all devices, or of what is reached from the roots in one direction."""
    edges = {(edge.holder, edge.member, edge.kind) for edge in client.topology().edges}
    assert edges == {
        ("block_vda1", "block_vda_plain", "partition"),
        ("block_vda2", "block_vda_plain", "partition"),
    }
    assert list(client.topology(["vda1"]).devices) == ["block_vda1", "block_vda_plain"]
    assert list(client.topology(["vda1"], pb.DIRECTION_HOLDERS).devices) == ["block_vda1"]
    assert list(client.topology(["vda"], pb.DIRECTION_HOLDERS).devices) == NAMES[:3]


def test_validation(client: Client) -> None:
    """What nodedev prints is valid, and what is wrong with another document is told by line."""
    (document,) = client.device_xml(["loop_loop0"]).devices
    assert not client.validate(document.xml).violations
    wrong = client.validate("<device>\n<name>x</name>\n<nonsense/>\n</device>").violations
    assert [violation.line for violation in wrong] == [3]
    assert client.validate("no XML").violations


def test_server_info(client: Client) -> None:
    """The service tells the host, its capabilities and that a recorded host is read-only."""
    found = client.server_info()
    assert (found.host, found.read_only, found.starting) == ("plain", True, False)
    assert found.device_count == len(NAMES)
    assert "mpath" in found.capabilities
    assert found.instance_id


class Slow(RecordedSource):
    """A host whose scan waits until it is let go, as on storage that does not answer."""

    def scan(self) -> Iterator[DeviceFacts]:
        """Waits first."""
        GATE.wait()
        return super().scan()


GATE = threading.Event()


async def test_until_the_host_has_been_read(folder: Path) -> None:
    """Until then calls are UNAVAILABLE STARTING with a time to retry, and health says NOT_SERVING."""
    GATE.clear()
    async with (
        serving(Slow.open(PLAIN), folder / "s") as service,
        grpc.aio.insecure_channel(f"unix:{folder / 's'}") as channel,
    ):
        running = asyncio.create_task(service.run())
        health, devices = HealthStub(channel), DeviceServiceStub(channel)
        ask = HealthCheckRequest(service="nodedev.v1.DeviceService")
        assert (await health.Check(ask)).status == HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await devices.GetDevice(pb.GetDeviceRequest(handle="vda"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert info(caught.value).reason == "STARTING"
        retry = detail(caught.value, RetryInfo)
        assert isinstance(retry, RetryInfo)
        assert retry.retry_delay.seconds == 1
        assert (await AdminServiceStub(channel).GetServerInfo(GetServerInfoRequest())).starting
        GATE.set()
        async for change in health.Watch(ask):
            if change.status == HealthCheckResponse.SERVING:
                break
        await devices.GetDevice(pb.GetDeviceRequest(handle="vda"))
        running.cancel()


async def test_a_hung_scan_holds_up_no_shutdown(folder: Path) -> None:
    """A service whose scan never returns stops all the same."""
    GATE.clear()
    async with serving(Slow.open(PLAIN), folder / "s") as service:
        running = asyncio.create_task(service.run())
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
    GATE.set()


def method(kind: str, behaviour: object) -> grpc.GenericRpcHandler:
    """A further method of the API, as one to come that changes something."""
    make = grpc.unary_unary_rpc_method_handler if kind == "unary" else grpc.unary_stream_rpc_method_handler
    handler = make(behaviour, Empty.FromString, Empty.SerializeToString)  # type: ignore[arg-type]
    return grpc.method_handlers_generic_handler("nodedev.v1.Future", {"Create": handler})


async def call(folder: Path, behaviour: object, access: Access | None = None) -> object:
    """Calls such a method on a service of its own."""
    async with (
        serving(recorded(PLAIN), folder / "s", access, [method("unary", behaviour)]),
        grpc.aio.insecure_channel(f"unix:{folder / 's'}") as channel,
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[Empty, Empty] = channel.unary_unary(
            WRITE, Empty.SerializeToString, Empty.FromString
        )
        return await call(Empty())


async def create(request: Empty, context: object) -> Empty:
    """A change that succeeds."""
    return request


async def test_what_changes_needs_a_writable_connection(folder: Path) -> None:
    """A method not declared free of side effects works on the read-write socket only."""
    assert await call(folder, create) == Empty()
    for access, reason in (
        (Access(writable=False), "READ_ONLY_CONNECTION"),
        (Access(writable=True, recorded=True), "RECORDED_HOST"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(folder, create, access)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert info(caught.value).reason == reason


async def test_an_unknown_method_is_unimplemented(folder: Path) -> None:
    """A method of a newer API is refused as gRPC refuses it, for callers of every role."""
    async with (
        serving(recorded(PLAIN), folder / "s", Access(writable=False)),
        grpc.aio.insecure_channel(f"unix:{folder / 's'}") as channel,
    ):
        unknown: grpc.aio.UnaryUnaryMultiCallable[Empty, Empty] = channel.unary_unary(
            WRITE, Empty.SerializeToString, Empty.FromString
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unknown(Empty())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_unexpected_errors_tell_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception's text stands in the log, the client gets an incident's number to find it by."""

    async def fail(request: Empty, context: object) -> Empty:
        raise ValueError("secret")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(folder, fail)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value.details())
    assert info(caught.value).metadata["incident"] in caplog.text
    assert "secret" in caplog.text


async def test_refusals_keep_reason_and_metadata(folder: Path) -> None:
    """A NodedevError arrives with status, reason and metadata."""

    async def refuse(request: Empty, context: object) -> Empty:
        raise PreconditionError("mounted", holder="/srv")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(folder, refuse)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (info(caught.value).reason, info(caught.value).metadata["holder"]) == ("DEVICE_BUSY", "/srv")


async def test_a_call_without_a_deadline_gets_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that set no deadline does not wait for ever."""
    monkeypatch.setattr(boundary, "UNARY_SECONDS", 0.01)

    async def hang(request: Empty, context: object) -> Empty:
        await asyncio.Event().wait()
        return request

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(folder, hang)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert info(caught.value).reason == "DEADLINE_EXCEEDED"


async def test_open_streams_do_not_hold_up_a_shutdown(folder: Path) -> None:
    """A stream ends with UNAVAILABLE SHUTTING_DOWN when the service stops, and is cleaned up."""
    ended = asyncio.Event()

    async def watch(request: Empty, context: object) -> AsyncIterator[Empty]:
        try:
            yield request
            await asyncio.Event().wait()
        finally:
            ended.set()

    access = Access(writable=True)
    async with (
        serving(recorded(PLAIN), folder / "s", access, [method("stream", watch)]) as service,
        grpc.aio.insecure_channel(f"unix:{folder / 's'}") as channel,
    ):
        open_stream: grpc.aio.UnaryStreamMultiCallable[Empty, Empty] = channel.unary_stream(
            WRITE, Empty.SerializeToString, Empty.FromString
        )
        stream = open_stream(Empty())
        await stream.read()
        health = HealthStub(channel).Watch(HealthCheckRequest())
        await health.read()
        async with asyncio.timeout(boundary.UNARY_SECONDS):
            await service.stop(grace_seconds=10 * boundary.UNARY_SECONDS)
        await ended.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert info(caught.value).reason == "SHUTTING_DOWN"


def test_large_requests_are_refused(stub: DeviceServiceStub) -> None:
    """A request beyond a mebibyte is not even read."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.ValidateXml(pb.ValidateXmlRequest(xml="x" * (2 << 20)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_client_says_why_it_cannot_connect(folder: Path) -> None:
    """Without a socket the error names it, and its reason is stable."""
    with Client(str(folder / "none")) as client, pytest.raises(UnavailableError) as caught:
        client.list_devices()
    assert caught.value.reason == "SERVICE_UNREACHABLE"
    assert str(folder / "none") in caught.value.message


def test_client_errors_are_the_services(client: Client) -> None:
    """What the service refuses is raised as the error that it was there."""
    with pytest.raises(NodedevError) as caught:
        client.get_device("gone")
    assert (caught.value.status, caught.value.reason) == ("NOT_FOUND", "DEVICE_NOT_FOUND")
    assert caught.value.metadata == {"handle": "gone"}
