"""The service on its ports: servicers, health, reflection, start and orderly stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import grpc
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import aio as reflection
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from nodedev.server.access import Access
from nodedev.server.admin_service import AdminServicer
from nodedev.server.boundary import Boundary, Streams
from nodedev.server.device_service import DeviceServicer
from nodedev.server.engine import Engine
from nodedev.server.pool_service import PoolServicer, open_pools
from nodedev.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    device_service_pb2,
    device_service_pb2_grpc,
    pool_service_pb2,
    pool_service_pb2_grpc,
)

GRACE_SECONDS = 5.0

_SERVICES = tuple(
    service.full_name
    for file in (device_service_pb2.DESCRIPTOR, pool_service_pb2.DESCRIPTOR, admin_service_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
)
_ALL_SERVICES = (*_SERVICES, HEALTH.services_by_name["Health"].full_name, REFLECTION)
_OPTIONS = (
    ("grpc.max_receive_message_length", 1 << 20),  # requests are small
    ("grpc.so_reuseport", 0),  # a second service on a TCP port is an error, not a rival
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # watching clients keep their lines alive
    ("grpc.keepalive_permit_without_calls", 1),
)
# Open watches count among these; gRPC itself refuses those beyond with RESOURCE_EXHAUSTED.
_CALLS_AT_ONCE = 1024


class Service:
    """One engine, served on any number of ports that may do more or less.

    `state` is the folder of what outlasts the service; without it definitions are forgotten.
    """

    def __init__(self, engine: Engine, state: Path | None = None) -> None:
        self.engine = engine
        self._devices = DeviceServicer(engine, state)
        self.pools, self._starting = open_pools(engine, state)
        self._pools = PoolServicer(engine, self.pools, self._starting)
        self._streams = Streams()
        self._health = health.HealthServicer()
        self._servers: list[grpc.aio.Server] = []

    def port(self, access: Access, handlers: Iterable[grpc.GenericRpcHandler] = ()) -> grpc.aio.Server:
        """A server with all services, to be bound before the start; `handlers` are further methods."""
        boundary = Boundary(access, self._streams)
        boundary.add_generic_rpc_handlers(handlers)
        methods = cast("grpc.aio.Server", boundary)  # all that generated code does with one is to add methods
        device_service_pb2_grpc.add_DeviceServiceServicer_to_server(self._devices, methods)
        pool_service_pb2_grpc.add_StoragePoolServiceServicer_to_server(self._pools, methods)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(self.engine, access), methods)
        add_HealthServicer_to_server(self._health, methods)
        add_ServerReflectionServicer_to_server(reflection.ReflectionServicer(_ALL_SERVICES), methods)
        server = grpc.aio.server(
            handlers=(boundary,), options=_OPTIONS, maximum_concurrent_rpcs=_CALLS_AT_ONCE
        )
        self._servers.append(server)
        return server

    async def start(self) -> None:
        """Answers calls on every port, as one that is not ready."""
        await self._report(HealthCheckResponse.NOT_SERVING)
        for server in self._servers:
            await server.start()

    async def run(self) -> None:
        """Reads and follows the host until cancelled, healthy once it is published."""
        engine = asyncio.create_task(self.engine.run())
        published = asyncio.create_task(self.engine.published.wait())
        autostart: asyncio.Task[None] | None = None
        try:
            await asyncio.wait((engine, published), return_when=asyncio.FIRST_COMPLETED)
            if not engine.done():
                await self._report(HealthCheckResponse.SERVING)
                if self.engine.source.live:
                    autostart = asyncio.create_task(self._autostart())
            await engine
        finally:
            for task in filter(None, (engine, published, autostart)):
                task.cancel()

    async def _autostart(self) -> None:
        """Starts what is to be started with the service; devices first, as pools show them."""
        await self._devices.autostart()
        await self._starting.autostart()

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Lets calls under way finish and ends the streams."""
        await self._health.enter_graceful_shutdown()
        self._streams.close()
        for server in self._servers:
            await server.stop(grace_seconds)

    async def _report(self, status: HealthCheckResponse.ServingStatus.ValueType) -> None:
        for service in ("", *_SERVICES):
            await self._health.set(service, status)
