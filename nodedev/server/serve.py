"""`nodedev serve`: the two local sockets, TLS beside them if asked for, and a life's course."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import ExitStack
from pathlib import Path

import grpc
from msgspec import Struct

from nodedev.errors import InvalidError, PreconditionError
from nodedev.facts.host import Source
from nodedev.server.access import Access, Names
from nodedev.server.engine import Engine
from nodedev.server.service import Service
from nodedev.server.sockets import GROUP, READ_ONLY, READ_WRITE, LocalSocket, bind, held
from nodedev.server.systemd import notify

_log = logging.getLogger(__name__)


class TlsPort(Struct, frozen=True):
    """A TCP port with mutual TLS: PEM files, and who may do what by certificate name."""

    address: str
    certificate: Path
    key: Path
    authority: Path
    names: Names


async def serve(
    source: Source, host: str, folder: Path, tls: TlsPort | None = None, state: Path | None = None
) -> None:
    """Serves the source until SIGTERM or SIGINT; `state` is the folder of definitions.

    Errors: SOCKET_IN_USE, SOCKET_PATH_INVALID, ADDRESS_UNUSABLE, TLS_INVALID, and what keeps the
    source from being read at all.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    recorded = not source.live
    service = Service(Engine(source, host), state)
    with ExitStack() as claims:
        await asyncio.to_thread(folder.mkdir, mode=0o755, parents=True, exist_ok=True)
        for name, mode, group in ((READ_WRITE, 0o660, GROUP), (READ_ONLY, 0o666, None)):
            local = LocalSocket(folder / name, mode, group)
            claims.enter_context(held(local.path))
            bind(service.port(Access(writable=name == READ_WRITE, recorded=recorded)), local)
            _log.info("%s on unix:%s", host, local.path)
        if tls:
            port = _bind_tls(service.port(Access(writable=True, recorded=recorded, names=tls.names)), tls)
            _log.info("%s on %s", host, f"{tls.address.rpartition(':')[0]}:{port}")
        await service.start()
        try:
            await _run(service, stop)
        finally:
            notify("STOPPING=1")
            await service.stop()


async def _run(service: Service, stop: asyncio.Event) -> None:
    """Runs the service until it is told to stop; raises what ends it by itself."""
    running = asyncio.create_task(service.run())
    ready = asyncio.create_task(_announce(service.engine))
    stopping = asyncio.create_task(stop.wait())
    tasks = (running, ready, stopping)
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _announce(engine: Engine) -> None:
    await engine.published.wait()
    _log.info("%d devices at revision %d", len(engine.snapshot.devices), engine.snapshot.revision)
    notify("READY=1")


def _bind_tls(server: grpc.aio.Server, tls: TlsPort) -> int:
    try:
        key, certificate, authority = (
            path.read_bytes() for path in (tls.key, tls.certificate, tls.authority)
        )
    except OSError as error:
        raise InvalidError(f"{error.filename}: {error.strerror}", reason="TLS_INVALID") from None
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authority, require_client_auth=True
    )
    try:
        return server.add_secure_port(tls.address, credentials)
    except RuntimeError:
        # gRPC tells neither the errno nor whether the certificate or the address was wrong.
        raise PreconditionError(
            f"cannot serve {tls.address}: the address is taken or not this host's,"
            " or the certificate and key do not fit",
            reason="ADDRESS_UNUSABLE",
        ) from None
