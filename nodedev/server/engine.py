"""The host behind the service: read in a thread of its own, published in the inventory."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from nodedev.discovery import Discovery
from nodedev.errors import UnavailableError
from nodedev.facts.host import Host, Note, Source, Watch
from nodedev.inventory import Inventory, Snapshot

# How long the reading thread waits for something to happen before it looks whether it is still wanted.
WAIT_SECONDS = 1.0


class Engine:
    """Owns the source, the discovery and the inventory; `host` is what a person calls the host.

    Discovery is used by one thread alone, the inventory only on the event loop. Without
    `follow` the host is read once.
    """

    def __init__(self, source: Source, host: str, *, follow: bool = True) -> None:
        self.source = source
        self.host = host
        self.inventory = Inventory()
        self.instance_id = uuid.uuid4().hex
        self.published = asyncio.Event()
        self._watch: Watch | None = None
        # What is wrong beside the host's own sources: definitions that could not be read.
        self.state_notes: tuple[Note, ...] = ()
        self._follow = follow
        self._discovery = Discovery()
        self._notes: dict[str, Note] = {}

    @property
    def events(self) -> str:
        """What tells of the host's changes at present."""
        return self._watch.mode if self._watch else "none"

    @property
    def snapshot(self) -> Snapshot:
        """The present devices; UnavailableError STARTING before the first reading is published."""
        self.require_published()
        return self.inventory.snapshot

    def require_published(self) -> None:
        """Raises UnavailableError STARTING before the first reading is published."""
        if not self.published.is_set():
            raise UnavailableError("the host is being read for the first time", reason="STARTING")

    async def run(self) -> None:
        """Reads the host, then follows it until cancelled; raises what makes either impossible.

        The thread that reads is a daemon: one that hangs in the kernel holds up neither the loop nor
        the exit.
        """
        loop = asyncio.get_running_loop()
        failed: asyncio.Future[None] = loop.create_future()
        publications = _Publications(loop)
        thread = threading.Thread(
            target=self._read, args=(publications, failed), name="nodedev-host", daemon=True
        )
        thread.start()
        try:
            await failed
        finally:
            publications.close()

    def _read(self, publications: _Publications, failed: asyncio.Future[None]) -> None:
        """The life of the thread that reads: everything once, then what changes."""
        try:
            # Before the scan, so that what happens during it is looked at again.
            watch = self._watch = self.source.watch() if self._follow else None
            self._survey(publications, resync=False)
            while watch and not publications.closed:
                hints = watch.wait(WAIT_SECONDS)
                if hints.lost:
                    # Where no events come at all, none were lost.
                    self._survey(publications, resync=watch.mode != "polling")
                elif hints.paths:
                    self._revisit(publications, hints.paths)
            if watch:
                watch.close()
        except BaseException as error:  # noqa: BLE001  it is raised again where run() is awaited
            failure = error
            publications.send(lambda: None if failed.done() else failed.set_exception(failure))

    def _survey(self, publications: _Publications, *, resync: bool) -> None:
        with _nothing_collected():
            host = Host.scan(self.source)
            found = self._discovery.survey(host)
        notes = self._noted(host)

        def publish() -> None:
            with _nothing_collected():
                self.inventory.replace(found.devices, notes, resync=resync)
            if not self.published.is_set():
                # From here on a full collection does not go through all devices.
                gc.freeze()
            self.published.set()

        publications.send(publish)

    def _revisit(self, publications: _Publications, paths: Iterable[str]) -> None:
        host = Host(self.source)
        found = self._discovery.revisit(host, paths)
        notes = self._noted(host)
        publications.send(lambda: self.inventory.publish(found.devices, found.removed, notes))

    def _noted(self, host: Host) -> tuple[Note, ...]:
        """The sources that fail: those of this pass, and from earlier ones those not asked since."""
        kept = {source: note for source, note in self._notes.items() if source not in host.answered}
        self._notes = {**kept, **host.notes}
        return tuple(self._notes.values())


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keeps the collector still while a whole host is made: it would look through it again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Publications:
    """What the reading thread has to say on the event loop, for as long as somebody listens."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.closed = False
        self._loop = loop

    def send(self, publish: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(lambda: None if self.closed else publish())

    def close(self) -> None:
        self.closed = True
