"""Connections to a service, and its errors with the reasons they were sent with."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import grpc
from msgspec import Struct

from nodedev.errors import DeadlineError, InvalidError, NodedevError, UnavailableError

_UNIX = "unix:"


class Certificate(Struct, frozen=True):
    """What a TLS connection needs, PEM files: this client's certificate and key, the service's CA."""

    certificate: Path
    key: Path
    authority: Path


def normal(address: str) -> str:
    """The address as gRPC takes it; a path is a socket's."""
    return f"{_UNIX}{address}" if address.startswith("/") else address


def error_of(call: grpc.Call | grpc.aio.AioRpcError, address: str) -> NodedevError:
    """What the service sent, or what kept it from answering."""
    # Start-up cost of every command, for what few of them meet.
    from grpc_status.rpc_status import from_call  # noqa: PLC0415

    from nodedev.server.status import from_status  # noqa: PLC0415

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


def channel_to(address: str, certificate: Certificate | None) -> grpc.Channel:
    """A channel for threads; nothing is connected before its first call."""
    if address.startswith(_UNIX):
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, _credentials(address, certificate))


def aio_channel(address: str, certificate: Certificate | None) -> grpc.aio.Channel:
    """A channel for the running event loop."""
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
