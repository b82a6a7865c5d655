"""The host behind the service: read in a thread of its own, published in the inventory."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from typing import TypeVar

from nodedev.discovery import Discovery, Found
from nodedev.errors import UnavailableError
from nodedev.facts.host import Host, Note, Source
from nodedev.inventory import Inventory, Snapshot

T = TypeVar("T")


class Engine:
    """Owns the source, the discovery and the inventory; `host` is what a person calls the host.

    Discovery is used by one thread at a time, the inventory only on the event loop.
    """

    def __init__(self, source: Source, host: str) -> None:
        self.source = source
        self.host = host
        self.inventory = Inventory()
        self.instance_id = uuid.uuid4().hex
        self.published = asyncio.Event()
        self._discovery = Discovery()

    @property
    def snapshot(self) -> Snapshot:
        """The present devices; UnavailableError STARTING before the first reading is published."""
        if not self.published.is_set():
            raise UnavailableError("the host is being read for the first time", reason="STARTING")
        return self.inventory.snapshot

    async def run(self) -> None:
        """Reads the host, then follows it until cancelled; raises what makes either impossible."""
        found, notes = await in_daemon_thread(self._survey)
        self.inventory.replace(found.devices, notes)
        self.published.set()
        await self._follow()

    def _survey(self) -> tuple[Found, tuple[Note, ...]]:
        host = Host.scan(self.source)
        found = self._discovery.survey(host)
        return found, tuple(host.notes.values())

    async def _follow(self) -> None:
        """What happens to the host after it was read belongs here; a recorded host has nothing."""
        await asyncio.Event().wait()


async def in_daemon_thread(call: Callable[[], T]) -> T:
    """The call's result. A call that hangs in the kernel holds up neither the loop nor the exit."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def deliver(settle: Callable[[], None]) -> None:
        def settle_once() -> None:
            if not answer.done():
                settle()

        try:
            loop.call_soon_threadsafe(settle_once)
        except RuntimeError:
            return  # the loop has ended meanwhile, nobody waits

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  it is raised again where it is awaited
            failure = error
            deliver(lambda: answer.set_exception(failure))
        else:
            deliver(lambda: answer.set_result(result))

    threading.Thread(target=run, name="nodedev-scan", daemon=True).start()
    return await answer
