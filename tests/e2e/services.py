"""Recorded hosts as test doubles, and real services over real sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc

from nodedev.capabilities import attributes
from nodedev.facts.host import Source
from nodedev.facts.recorded import RecordedSource
from nodedev.server.access import Access
from nodedev.server.engine import Engine
from nodedev.server.service import Service
from nodedev.server.sockets import LocalSocket, bind

PLAIN = Path(__file__).parent.parent / "data" / "plain"
READY_SECONDS = 30

_LOOP = """\
P: /devices/virtual/block/loop{number}
N: loop{number}
E: SUBSYSTEM=block
E: DEVTYPE=disk
E: DEVNAME=/dev/loop{number}
E: MAJOR=7
E: MINOR={number}
E: USEC_INITIALIZED=1
A: size=2048\\n
A: loop/backing_file=/srv/{name}\\n

"""


def recorded(place: Path) -> RecordedSource:
    """The recorded host at a place, read as the program reads it."""
    return RecordedSource.open(place, attributes())


def write_loops(folder: Path, count: int, name: str = "image") -> Path:
    """A recording of a host with that many loop devices and nothing else."""
    text = "".join(_LOOP.format(number=number, name=f"{name}{number}") for number in range(count))
    (folder / "host.umockdev").write_text(text)
    return folder


@asynccontextmanager
async def serving(
    source: Source,
    path: Path,
    access: Access | None = None,
    handlers: Iterable[grpc.GenericRpcHandler] = (),
) -> AsyncIterator[Service]:
    """A service on one socket in this event loop; nothing is read before its `run`."""
    service = Service(Engine(source, "test"))
    bind(service.port(access or Access(writable=True), handlers), LocalSocket(path, 0o600))
    await service.start()
    try:
        yield service
    finally:
        await service.stop(0)


class Process:
    """`nodedev serve` in a process of its own; `folder` has its sockets."""

    def __init__(
        self, folder: Path, arguments: Iterable[str], environment: dict[str, str], host: Path = PLAIN
    ) -> None:
        self.folder = folder
        self.address = f"unix:{folder / 'nodedev.sock'}"
        self.read_only_address = f"unix:{folder / 'nodedev-ro.sock'}"
        command = [sys.executable, "-m", "nodedev", "--host", str(host)]
        self.process = subprocess.Popen(
            [*command, "serve", "--runtime-dir", str(folder), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.log: list[str] = []
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)
            if " devices at revision " in line:
                break

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal and gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=READY_SECONDS)
        self.log.append(rest)
        return self.process.returncode


@contextmanager
def process(folder: Path, *arguments: str, host: Path = PLAIN, **environment: str) -> Iterator[Process]:
    """A serving process of a recorded host, stopped in the end."""
    running = Process(folder, arguments, environment, host)
    try:
        yield running
    finally:
        running.stop()


Nodedev = Callable[..., subprocess.CompletedProcess[str]]
