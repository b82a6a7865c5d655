"""A synchronous client: whole answers from all pages, and errors with the reasons they were sent with."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
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
    device_service_pb2,
    device_service_pb2_grpc,
)

CALL_SECONDS = 30.0
LIST_RESTARTS = 5

_UNIX = "unix:"


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
        self.address = f"{_UNIX}{address}" if address.startswith("/") else address
        self._call_seconds = call_seconds
        self._channel = _channel(self.address, certificate)
        self._devices = device_service_pb2_grpc.DeviceServiceStub(self._channel)
        self._admin = admin_service_pb2_grpc.AdminServiceStub(self._channel)

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

    def server_info(self) -> admin_service_pb2.GetServerInfoResponse:
        """The service about itself."""
        return self._call(self._admin.GetServerInfo, admin_service_pb2.GetServerInfoRequest())

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
                error = self._error(failure)
                starting = error.reason == UnavailableError.reason
                if not starting or time.monotonic() + STARTING_RETRY_SECONDS > end:
                    raise error from failure
            time.sleep(STARTING_RETRY_SECONDS)

    def _error(self, failure: grpc.RpcError) -> NodedevError:
        call = cast("grpc.Call", failure)  # what a unary call raises is both
        status = from_call(call)
        sent = from_status(status) if status else None
        if sent:
            return sent
        code, details = call.code(), call.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE:
            why = _unix_trouble(self.address) or details
            return UnavailableError(
                f"cannot connect to {self.address}: {why}", reason="SERVICE_UNREACHABLE", address=self.address
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(f"{self.address} does not answer", address=self.address)
        return NodedevError(details, reason=code.name)


def _channel(address: str, certificate: Certificate | None) -> grpc.Channel:
    if address.startswith(_UNIX):
        return grpc.insecure_channel(address)
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
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, chain))


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
