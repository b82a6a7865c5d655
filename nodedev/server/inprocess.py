"""A service within the calling process, for one client, on a socket that nobody else can reach."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nodedev.facts.host import Source
from nodedev.server.access import Access
from nodedev.server.engine import Engine
from nodedev.server.service import Service
from nodedev.server.sockets import LocalSocket, bind
from nodedev.server.state import state_folder

_LEAVE_SECONDS = 2.0


@contextmanager
def in_process(source: Source, host: str, *, read: bool = True, follow: bool = False) -> Iterator[str]:
    """Serves the source and gives the address, once the host has been read unless `read` is false.

    Changes of the host are followed only if asked for.

    Raises what keeps the source from being read at all.
    """
    with TemporaryDirectory(prefix="nodedev-") as folder:  # mode 0700
        path = Path(folder) / "private.sock"
        ready: Future[_Running] = Future()

        async def serve() -> None:
            await _serve(Engine(source, host, follow=follow), path, ready, read=read)

        # A daemon: a scan that hangs must not keep the process from ending.
        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        try:
            yield _address(ready, path)
        finally:
            if ready.done() and not ready.exception():
                running = ready.result()
                running.loop.call_soon_threadsafe(running.stop.set)
                thread.join(_LEAVE_SECONDS)


class _Running:
    """How to stop the loop of the other thread."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()


def _address(ready: Future[_Running], path: Path) -> str:
    ready.result()
    return f"unix:{path}"


async def _serve(engine: Engine, path: Path, ready: Future[_Running], *, read: bool) -> None:
    running = _Running()
    service = Service(engine, state_folder() if engine.source.live else None)
    bind(service.port(Access(writable=True, recorded=not engine.source.live)), LocalSocket(path, 0o600))
    await service.start()
    work = asyncio.create_task(service.run() if read else running.stop.wait())
    published = asyncio.create_task(service.engine.published.wait())
    stopping = asyncio.create_task(running.stop.wait())
    try:
        if read:
            await asyncio.wait((work, published), return_when=asyncio.FIRST_COMPLETED)
        if read and work.done():
            await work
        ready.set_result(running)
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
    except Exception as error:  # noqa: BLE001  it is raised again in the thread that waits
        if not ready.done():
            ready.set_exception(error)
    finally:
        for task in (work, published, stopping):
            task.cancel()
        await service.stop(0)
