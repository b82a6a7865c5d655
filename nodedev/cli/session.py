"""Which host a command is about, and the client to ask it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

if TYPE_CHECKING:
    from nodedev.client import Certificate, Client, DeviceWatch, PoolWatch
    from nodedev.facts.host import Source
    from nodedev.v1.device_service_pb2 import DeviceFilter


class TlsFiles(Struct, frozen=True):
    """The files named for a TLS connection; all or none."""

    certificate: Path | None
    key: Path | None
    authority: Path | None


class Session(Struct, frozen=True):
    """What was said before the command."""

    address: str | None
    recording: Path | None
    tls: TlsFiles
    debug: bool

    @contextmanager
    def client(
        self, *, read: bool = True, follow: bool = False, seconds: float | None = None
    ) -> Iterator[Client]:
        """A client of the service asked for, or of one in this process.

        `read` asks for devices in it, `follow` for their changes; `seconds` is the time for each call.
        """
        with self._service(read=read, follow=follow) as address:
            from nodedev.client import CALL_SECONDS, Client  # noqa: PLC0415

            with Client(address, self._certificate(), seconds or CALL_SECONDS) as client:
                yield client

    @contextmanager
    def watch(self, wanted: DeviceFilter | None = None, after: int = 0) -> Iterator[DeviceWatch]:
        """A watch of the service asked for, or of one in this process that follows the host."""
        with self._service(follow=True) as address:
            from nodedev.client import DeviceWatch  # noqa: PLC0415

            yield DeviceWatch(address, wanted, after=after, certificate=self._certificate())

    def watch_beside(self, client: Client, name: str) -> DeviceWatch:
        """A watch of one device, of the service that the client is of."""
        from nodedev.client import DeviceWatch  # noqa: PLC0415
        from nodedev.v1.device_service_pb2 import DeviceFilter  # noqa: PLC0415

        return DeviceWatch(client.address, DeviceFilter(names=[name]), certificate=self._certificate())

    @contextmanager
    def watch_pools(self, names: tuple[str, ...], after: int) -> Iterator[PoolWatch]:
        """As `watch`, of pools and volumes."""
        with self._service(follow=True) as address:
            from nodedev.client import PoolWatch  # noqa: PLC0415

            yield PoolWatch(address, names, after=after, certificate=self._certificate())

    @contextmanager
    def _service(self, *, read: bool = True, follow: bool = False) -> Iterator[str]:
        """The address of the service.

        Modules are imported here, at the latest: gRPC takes longer to load than help to print.
        """
        # gRPC's own messages, as of forks or of sockets that refuse, say nothing to a user.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import logging  # noqa: PLC0415

        # A service within this process has no log of its own; without a handler Python prints it.
        if self.debug:
            logging.basicConfig(level=logging.DEBUG)
        else:
            logging.getLogger("nodedev").addHandler(logging.NullHandler())
        address = self.service()
        if address is not None:
            yield address
            return
        from nodedev.server.inprocess import in_process  # noqa: PLC0415

        source, name = self.source()
        with in_process(source, name, read=read, follow=follow) as private:
            yield private

    def service(self) -> str | None:
        """The address asked for, or of the local service if it runs; None where this process has to do."""
        from nodedev.server.sockets import answers, candidates  # noqa: PLC0415

        if self.recording:
            return None
        if self.address is None:
            return next((f"unix:{path}" for path in candidates() if answers(path)), None)
        if not self.address.startswith(("unix:", "/")) and ":" not in self.address:
            raise click.UsageError(f"{self.address} is neither unix:PATH nor HOST:PORT")
        return self.address

    def source(self) -> tuple[Source, str]:
        """The recording, or this host, and what to call it."""
        from nodedev.capabilities import attributes  # noqa: PLC0415

        if self.recording:
            from nodedev.facts.recorded import RecordedSource  # noqa: PLC0415

            return RecordedSource.open(self.recording, attributes()), self.recording.resolve().name
        from nodedev.facts.live import LiveSource  # noqa: PLC0415

        return LiveSource(attributes()), "live"

    def _certificate(self) -> Certificate | None:
        from nodedev.client import Certificate  # noqa: PLC0415

        files = self.tls
        if files.certificate and files.key and files.authority:
            return Certificate(files.certificate, files.key, files.authority)
        if files.certificate or files.key or files.authority:
            raise click.UsageError("--tls-cert, --tls-key and --tls-ca belong together")
        return None
