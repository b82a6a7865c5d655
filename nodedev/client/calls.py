"""The synchronous client: whole answers, from all pages and of one revision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol, Self, TypeVar, cast

import grpc

from nodedev.client.connection import Certificate, channel_to, error_of, normal
from nodedev.errors import AbortedError, UnavailableError
from nodedev.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    device_service_pb2,
    device_service_pb2_grpc,
    pool_service_pb2,
    pool_service_pb2_grpc,
)

CALL_SECONDS = 30.0
LIST_RESTARTS = 5


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
        self.address = normal(address)
        self._call_seconds = call_seconds
        self._channel = channel_to(self.address, certificate)
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
        self,
        xml: str,
        *,
        overwrite: Iterable[str] = (),
        force: bool = False,
        validate_only: bool = False,
        request_id: str = "",
    ) -> device_service_pb2.CreateDeviceResponse:
        """The device that the document describes, made unless it is there, and how."""
        request = device_service_pb2.CreateDeviceRequest(
            xml=xml, overwrite=overwrite, force=force, validate_only=validate_only, request_id=request_id
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
        self, name: str, *, force: bool = False, validate_only: bool = False
    ) -> device_service_pb2.StartDeviceResponse:
        """The device that was inactive, and how it was made."""
        request = device_service_pb2.StartDeviceRequest(name=name, force=force, validate_only=validate_only)
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
                error = error_of(cast("grpc.Call", failure), self.address)  # what a unary call raises is both
                starting = error.reason == UnavailableError.reason
                if not starting or time.monotonic() + UnavailableError.RETRY_SECONDS > end:
                    raise error from failure
            time.sleep(UnavailableError.RETRY_SECONDS)
