"""Which host a command is about, and the client to ask it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nodedev.client import Certificate, Client
    from nodedev.facts.host import Source


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files named for a TLS connection; all or none."""

    certificate: Path | None
    key: Path | None
    authority: Path | None


@dataclass(frozen=True, slots=True)
class Session:
    """What was said before the command."""

    address: str | None
    recording: Path | None
    tls: TlsFiles
    debug: bool

    @contextmanager
    def client(self, *, read: bool = True) -> Iterator[Client]:
        """A client of the service asked for, or of one in this process; `read` asks for devices in it.

        Modules are imported here, at the latest: gRPC takes longer to load than help to print.
        """
        # gRPC's own messages, as of forks or of sockets that refuse, say nothing to a user.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from nodedev.client import Client  # noqa: PLC0415
        from nodedev.server.sockets import answers, candidates  # noqa: PLC0415

        address = self.address
        if address is None and self.recording is None:
            address = next((f"unix:{path}" for path in candidates() if answers(path)), None)
        if address is not None:
            with Client(address, self._certificate()) as client:
                yield client
            return
        from nodedev.server.inprocess import in_process  # noqa: PLC0415

        source, name = self.source()
        with in_process(source, name, read=read) as private, Client(private) as client:
            yield client

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
