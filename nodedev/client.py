"""Clients: whole answers from all pages, watches that never end, and errors with their reasons.

`Client` is synchronous; `watch_devices` is for an event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar, cast

import grpc
from grpc_status.rpc_status import from_call

from nodedev.errors import AbortedError, DeadlineError, InvalidError, NodedevError, UnavailableError
from nodedev.server.status import STARTING_RETRY_SECONDS, from_status
from nodedev.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    device_pb2,
    device_service_pb2,
    device_service_pb2_grpc,
    pool_service_pb2,
    pool_service_pb2_grpc,
)

CALL_SECONDS = 30.0
LIST_RESTARTS = 5

RECONNECT_SECONDS = 0.1
RECONNECT_SECONDS_MAX = 5.0

_UNIX = "unix:"
# What a service that goes away and comes back looks like to a stream.
_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a TLS connection needs, PEM files: this client's certificate and key, the service's CA."""

    certificate: Path
    key: Path
    authority: Path


class _Page(Protocol):
    next_page_token: str

    def MergeFrom(self, other: Self) -> None:  # noqa: N802  protobuf's name
        ...


class _Paged(Protocol):
    page_token: str


Response = TypeVar("Response")
PagedRequest = TypeVar("PagedRequest", bound=_Paged)
PageResponse = TypeVar("PageResponse", bound=_Page)


class Client:
    """A connection to one service, `address` being unix:PATH or HOST:PORT.

    Errors of every call: those the service sends, UnavailableError SERVICE_UNREACHABLE, DeadlineError.
    A service that is still starting is waited for.
    """

    def __init__(
        self, address: str, certificate: Certificate | None = None, call_seconds: float = CALL_SECONDS
    ) -> None:
        self.address = _normal(address)
        self._call_seconds = call_seconds
        self._channel = _channel(self.address, certificate)
        self._devices = device_service_pb2_grpc.DeviceServiceStub(self._channel)
        self._admin = admin_service_pb2_grpc.AdminServiceStub(self._channel)
        self._pools = pool_service_pb2_grpc.StoragePoolServiceStub(self._channel)

    def __enter__(self) -> Self:
        """The client itself; nothing is connected before the first call."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Closes the connection."""
        self._channel.close()

    def list_devices(
        self, wanted: device_service_pb2.DeviceFilter | None = None
    ) -> device_service_pb2.ListDevicesResponse:
        """The devices that pass the filter, all of one revision."""
        request = device_service_pb2.ListDevicesRequest(filter=wanted)
        return self._whole(self._devices.ListDevices, request)

    def get_device(self, handle: str) -> device_service_pb2.GetDeviceResponse:
        """The device by name or any other handle."""
        request = device_service_pb2.GetDeviceRequest(handle=handle)
        return self._call(self._devices.GetDevice, request)

    def device_xml(self, handles: Iterable[str] = ()) -> device_service_pb2.GetDeviceXmlResponse:
        """The documents of the devices, in that order, or of all."""
        request = device_service_pb2.GetDeviceXmlRequest(handles=handles)
        return self._whole(self._devices.GetDeviceXml, request)

    def topology(
        self,
        roots: Iterable[str] = (),
        direction: device_service_pb2.Direction.ValueType = device_service_pb2.DIRECTION_UNSPECIFIED,
    ) -> device_service_pb2.GetTopologyResponse:
        """The relations among all devices, or among those reached from the roots."""
        request = device_service_pb2.GetTopologyRequest(roots=roots, direction=direction)
        return self._whole(self._devices.GetTopology, request)

    def validate(self, xml: str) -> device_service_pb2.ValidateXmlResponse:
        """What is wrong with a device document."""
        return self._call(self._devices.ValidateXml, device_service_pb2.ValidateXmlRequest(xml=xml))

    def create_device(
        self, xml: str, *, overwrite: Iterable[str] = (), validate_only: bool = False, request_id: str = ""
    ) -> device_service_pb2.CreateDeviceResponse:
        """The device that the document describes, made unless it is there, and how."""
        request = device_service_pb2.CreateDeviceRequest(
            xml=xml, overwrite=overwrite, validate_only=validate_only, request_id=request_id
        )
        return self._call(self._devices.CreateDevice, request)

    def destroy_device(
        self,
        handle: str,
        *,
        generation: int | None = None,
        lazy: bool = False,
        force: bool = False,
        validate_only: bool = False,
        request_id: str = "",
    ) -> device_service_pb2.DestroyDeviceResponse:
        """What became of the device, and how; `generation` keeps another one under its name safe."""
        request = device_service_pb2.DestroyDeviceRequest(
            handle=handle,
            generation=generation,
            lazy=lazy,
            force=force,
            validate_only=validate_only,
            request_id=request_id,
        )
        return self._call(self._devices.DestroyDevice, request)

    def define_device(
        self, xml: str, *, validate_only: bool = False
    ) -> device_service_pb2.DefineDeviceResponse:
        """The device that is kept."""
        request = device_service_pb2.DefineDeviceRequest(xml=xml, validate_only=validate_only)
        return self._call(self._devices.DefineDevice, request)

    def undefine_device(
        self, name: str, *, validate_only: bool = False
    ) -> device_service_pb2.UndefineDeviceResponse:
        """Whether there was such a definition."""
        request = device_service_pb2.UndefineDeviceRequest(name=name, validate_only=validate_only)
        return self._call(self._devices.UndefineDevice, request)

    def start_device(
        self, name: str, *, validate_only: bool = False
    ) -> device_service_pb2.StartDeviceResponse:
        """The device that was inactive, and how it was made."""
        request = device_service_pb2.StartDeviceRequest(name=name, validate_only=validate_only)
        return self._call(self._devices.StartDevice, request)

    def set_device_autostart(
        self, name: str, *, autostart: bool, validate_only: bool = False
    ) -> device_service_pb2.SetDeviceAutostartResponse:
        """The defined device."""
        request = device_service_pb2.SetDeviceAutostartRequest(
            name=name, autostart=autostart, validate_only=validate_only
        )
        return self._call(self._devices.SetDeviceAutostart, request)

    def server_info(self) -> admin_service_pb2.GetServerInfoResponse:
        """The service about itself."""
        return self._call(self._admin.GetServerInfo, admin_service_pb2.GetServerInfoRequest())

    def list_pools(
        self, types: Iterable[str] = (), *, active: bool | None = None
    ) -> pool_service_pb2.ListPoolsResponse:
        """The pools of those types, active or not, all of one revision."""
        request = pool_service_pb2.ListPoolsRequest(types=types, active=active)
        return self._whole(self._pools.ListPools, request)

    def get_pool(self, name: str) -> pool_service_pb2.Pool:
        """The pool by name or UUID."""
        return self._call(self._pools.GetPool, pool_service_pb2.GetPoolRequest(name=name)).pool

    def pool_xml(self, name: str) -> str:
        """The pool as libvirt's XML."""
        return self._call(self._pools.GetPoolXml, pool_service_pb2.GetPoolXmlRequest(name=name)).xml

    def define_pool(self, xml: str, *, validate_only: bool = False) -> pool_service_pb2.Pool:
        """Defines a pool, or tells what it would be."""
        request = pool_service_pb2.DefinePoolRequest(xml=xml, validate_only=validate_only)
        return self._call(self._pools.DefinePool, request).pool

    def undefine_pool(self, name: str) -> None:
        """Forgets a pool's definition."""
        self._call(self._pools.UndefinePool, pool_service_pb2.UndefinePoolRequest(name=name))

    def start_pool(self, name: str) -> pool_service_pb2.Pool:
        """Makes a pool active."""
        return self._call(self._pools.StartPool, pool_service_pb2.StartPoolRequest(name=name)).pool

    def stop_pool(self, name: str) -> pool_service_pb2.Pool:
        """Makes a pool inactive."""
        return self._call(self._pools.StopPool, pool_service_pb2.StopPoolRequest(name=name)).pool

    def autostart_pool(self, name: str, *, autostart: bool) -> pool_service_pb2.Pool:
        """Says whether a pool is started with the service."""
        request = pool_service_pb2.SetPoolAutostartRequest(name=name, autostart=autostart)
        return self._call(self._pools.SetPoolAutostart, request).pool

    def refresh_pool(self, name: str) -> pool_service_pb2.Pool:
        """The pool at the newest revision."""
        return self._call(self._pools.RefreshPool, pool_service_pb2.RefreshPoolRequest(name=name)).pool

    def list_volumes(self, pool: str | None = None) -> pool_service_pb2.ListVolumesResponse:
        """The volumes of the active pools, or of one, all of one revision."""
        return self._whole(self._pools.ListVolumes, pool_service_pb2.ListVolumesRequest(pool=pool))

    def find_volumes(
        self, wanted: pool_service_pb2.FindVolumesRequest
    ) -> pool_service_pb2.FindVolumesResponse:
        """The volumes that answer to a name, a key, a path or a device."""
        return self._call(self._pools.FindVolumes, wanted)

    def volume_xml(self, volume: pool_service_pb2.VolumeReference) -> str:
        """The volume as libvirt's XML."""
        return self._call(self._pools.GetVolumeXml, pool_service_pb2.GetVolumeXmlRequest(volume=volume)).xml

    def related_volumes(
        self, volume: pool_service_pb2.VolumeReference
    ) -> pool_service_pb2.ListRelatedVolumesResponse:
        """What the volume is made of and what is built on it, in every active pool."""
        request = pool_service_pb2.ListRelatedVolumesRequest(volume=volume)
        return self._whole(self._pools.ListRelatedVolumes, request)

    def disk_xml(
        self, volume: pool_service_pb2.VolumeReference, target: str = "", *, force: bool = False
    ) -> str:
        """The volume as a disk of a guest."""
        request = pool_service_pb2.GetDiskXmlRequest(volume=volume, target=target, force=force)
        return self._call(self._pools.GetDiskXml, request).xml

    def _whole(
        self, method: Callable[..., PageResponse], request: PagedRequest, restarts: int = LIST_RESTARTS
    ) -> PageResponse:
        """All pages in one response; from the start again when the snapshot has left the service."""
        try:
            request.page_token = ""
            page = whole = self._call(method, request)
            while page.next_page_token:
                request.page_token = page.next_page_token
                page = self._call(method, request)
                whole.MergeFrom(page)
        except AbortedError as error:
            if error.reason != AbortedError.reason or restarts == 0:
                raise
            return self._whole(method, request, restarts - 1)
        whole.next_page_token = ""
        return whole

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        """One answer; a service that is starting is asked again until the time is over."""
        end = time.monotonic() + self._call_seconds
        while True:
            try:
                return method(request, timeout=max(end - time.monotonic(), 0))
            except grpc.RpcError as failure:
                error = _error(cast("grpc.Call", failure), self.address)  # what a unary call raises is both
                starting = error.reason == UnavailableError.reason
                if not starting or time.monotonic() + STARTING_RETRY_SECONDS > end:
                    raise error from failure
            time.sleep(STARTING_RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to a device; `before` is the copy held until then, None of an added one."""

    type: device_service_pb2.DeviceChange.Type.ValueType
    device: device_pb2.Device
    before: device_pb2.Device | None


@dataclass(frozen=True, slots=True)
class Update:
    """Changes in their order; `complete` when the copy is whole, `resync` after the service lost events."""

    revision: int
    changes: tuple[Change, ...]
    complete: bool
    resync: bool


class DeviceWatch:
    """A true copy of a host's devices, kept through reconnects, restarts and compaction.

    Iterating gives the updates, for ever; `devices` is the copy as of the last one. After a
    reconnect only what differs from the copy comes as a change. Errors of the first connection, and
    refusals that trying again would not mend, are raised; those of later connections are waited out.
    """

    def __init__(
        self,
        address: str,
        wanted: device_service_pb2.DeviceFilter | None = None,
        *,
        after: int = 0,
        certificate: Certificate | None = None,
    ) -> None:
        self.devices: dict[str, device_pb2.Device] = {}
        self.revision = after
        self._address = _normal(address)
        self._wanted = wanted
        self._certificate = certificate
        self._fresh: set[str] | None = None

    async def __aiter__(self) -> AsyncIterator[Update]:
        """The updates as they come."""
        connected = False
        delay = RECONNECT_SECONDS
        while True:
            try:
                async with _aio_channel(self._address, self._certificate) as channel:
                    stub = device_service_pb2_grpc.DeviceServiceStub(channel)
                    request = device_service_pb2.WatchDevicesRequest(
                        after_revision=self.revision, filter=self._wanted
                    )
                    self._fresh = None if self.revision else set()
                    async for response in stub.WatchDevices(request):
                        connected, delay = True, RECONNECT_SECONDS
                        update = self._take(response)
                        if update.changes or update.complete or update.resync:
                            yield update
            except grpc.aio.AioRpcError as failure:
                error = _error(failure, self._address)
                if error.status == "OUT_OF_RANGE":
                    self.revision = 0
                    continue
                starting = error.reason == UnavailableError.reason
                if not (starting or (connected and failure.code() in _PASSING)):
                    raise error from failure
            await asyncio.sleep(delay)
            delay = min(2 * delay, RECONNECT_SECONDS_MAX)

    def _take(self, response: device_service_pb2.WatchDevicesResponse) -> Update:
        """Brings the copy up to date, and tells what that changed."""
        changes = [change for sent in response.changes if (change := self._apply(sent))]
        if self._fresh is not None:
            self._fresh.update(sent.device.name for sent in response.changes)
            if response.snapshot_complete:
                gone = [name for name in self.devices if name not in self._fresh]
                changes.extend(self._remove(name) for name in gone)
                self._fresh = None
        if self._fresh is None:
            self.revision = response.revision
        return Update(response.revision, tuple(changes), response.snapshot_complete, response.resync)

    def _apply(self, sent: device_service_pb2.DeviceChange) -> Change | None:
        name, before = sent.device.name, self.devices.get(sent.device.name)
        if sent.type == device_service_pb2.DeviceChange.TYPE_REMOVED:
            return self._remove(name) if before else None
        if sent.device == before:
            return None
        self.devices[name] = sent.device
        types = device_service_pb2.DeviceChange
        return Change(types.TYPE_CHANGED if before else types.TYPE_ADDED, sent.device, before)

    def _remove(self, name: str) -> Change:
        device = self.devices.pop(name)
        return Change(device_service_pb2.DeviceChange.TYPE_REMOVED, device, device)


def _normal(address: str) -> str:
    return f"{_UNIX}{address}" if address.startswith("/") else address


def _error(call: grpc.Call | grpc.aio.AioRpcError, address: str) -> NodedevError:
    """What the service sent, or what kept it from answering."""
    status = from_call(call)
    sent = from_status(status) if status else None
    if sent:
        return sent
    code, details = call.code(), call.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        why = _unix_trouble(address) or details
        return UnavailableError(
            f"cannot connect to {address}: {why}", reason="SERVICE_UNREACHABLE", address=address
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"{address} does not answer", address=address)
    return NodedevError(details, reason=code.name)


def _channel(address: str, certificate: Certificate | None) -> grpc.Channel:
    if address.startswith(_UNIX):
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, _credentials(address, certificate))


def _aio_channel(address: str, certificate: Certificate | None) -> grpc.aio.Channel:
    if address.startswith(_UNIX):
        return grpc.aio.insecure_channel(address)
    # A peer that has vanished without a word is noticed.
    options = (("grpc.keepalive_time_ms", 30_000), ("grpc.keepalive_timeout_ms", 10_000))
    return grpc.aio.secure_channel(address, _credentials(address, certificate), options)


def _credentials(address: str, certificate: Certificate | None) -> grpc.ChannelCredentials:
    if certificate is None:
        raise InvalidError(
            f"{address} is reached over TLS only, which needs a certificate, its key and a CA",
            reason="CERTIFICATE_REQUIRED",
        )
    try:
        authority, key, chain = (
            path.read_bytes() for path in (certificate.authority, certificate.key, certificate.certificate)
        )
    except OSError as error:
        raise InvalidError(f"{error.filename}: {error.strerror}", reason="TLS_INVALID") from None
    return grpc.ssl_channel_credentials(authority, key, chain)


def _unix_trouble(address: str) -> str | None:
    """Why a local socket cannot be reached, and what to do; gRPC's own text is about its resolver."""
    if not address.startswith(_UNIX):
        return None
    path = address.removeprefix(_UNIX)
    if path.startswith("//"):
        path = path.removeprefix("//")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return "there is no such socket; is the service running (nodedev serve)?"
        except ConnectionRefusedError:
            return "nobody listens on this socket; is the service running (nodedev serve)?"
        except PermissionError:
            return "permission denied; members of the socket's group may, or use the read-only socket"
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)
    return None
