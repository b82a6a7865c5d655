"""Starting and stopping pools, which for iscsi ones means to log in and out.

What has begun is carried through: a caller who goes away leaves no session that nobody knows of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from nodedev.capabilities.claim import Claim, Reason
from nodedev.changes import runner
from nodedev.errors import AbortedError, DeadlineError, NodedevError, Obstacle, PreconditionError
from nodedev.facts import iscsi as iscsi_facts
from nodedev.model import Device
from nodedev.pools import iscsi, secrets
from nodedev.pools.book import Book, Pool
from nodedev.pools.definition import BY_ID, MAP_FOLDERS, Definition
from nodedev.pools.iscsi import Deadline, Tools
from nodedev.pools.store import Activity, Session
from nodedev.pools.volumes import Devices, map_of
from nodedev.server.engine import Engine

AUTOSTART_SECONDS = 120.0
UNDO_SECONDS = 15.0

# Uses that end when the disk goes; what merely lies on it, a file system nobody mounts, stays there.
_IN_USE = frozenset({"held", "member", "mounted", "swap", "open", "backing"})
# A disk's driver is told by an event; this is for the one that gets lost.
_LOOK_AGAIN_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Starting:
    """Starts and stops the pools of a book; `secrets_folder` has the passwords."""

    def __init__(
        self, engine: Engine, book: Book, secrets_folder: Path | None, tools: Tools | None = None
    ) -> None:
        self._engine = engine
        self._book = book
        self._secrets = secrets_folder
        self._tools = tools or Tools(runner.run)
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[Pool]] = set()

    async def start(self, name: str, seconds: float) -> Pool:
        """Makes the pool active within the time, or leaves it as it was."""
        pool = self._book.get(name)
        if pool.active:
            return pool
        if pool.definition.type != "iscsi":
            return self._book.set_activity(pool.name, Activity(active=True))
        return await self._carried_through(pool, lambda: self._log_in(pool, Deadline(seconds)))

    async def stop(self, name: str, seconds: float) -> Pool:
        """Makes the pool inactive; DEVICE_BUSY while what it would log out of is in use."""
        pool = self._book.get(name)
        if not pool.active:
            return pool
        heir = self._heir(pool)
        if heir:
            sessions, records = (*heir.sessions, *pool.sessions), (*heir.records, *pool.records)
            self._book.set_activity(heir.name, Activity(active=True, sessions=sessions, records=records))
        if heir or not (pool.sessions or pool.records):
            return self._book.set_activity(pool.name, Activity(active=False))
        return await self._carried_through(pool, lambda: self._log_out(pool, Deadline(seconds)))

    def _heir(self, pool: Pool) -> Pool | None:
        """Another active pool of the same target, which needs the sessions and takes them over."""
        return next(
            (
                other
                for other in self._book.pools.values()
                if other.active
                and other.name != pool.name
                and other.definition.iqn == pool.definition.iqn
                and (pool.sessions or pool.records)
            ),
            None,
        )

    async def autostart(self) -> None:
        """Starts the pools that are to be started with the service; what fails is logged."""
        for pool in self._book.pools.values():
            if pool.autostart and not pool.active:
                try:
                    await self.start(pool.name, AUTOSTART_SECONDS)
                except NodedevError as error:
                    _log.warning("pool %s is not started: %s (%s)", pool.name, error.message, error.reason)

    async def _carried_through(self, pool: Pool, work: Callable[[], Awaitable[Pool]]) -> Pool:
        if pool.name in self._busy:
            raise AbortedError(
                f"pool {pool.name} is being started or stopped",
                reason="OPERATION_IN_PROGRESS",
                pool=pool.name,
            )
        self._busy.add(pool.name)

        async def carry() -> Pool:
            try:
                return await work()
            finally:
                self._busy.discard(pool.name)

        task = asyncio.create_task(carry())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Pool]) -> None:
        self._tasks.discard(task)
        # Whoever asked may be gone; asyncio would complain of a failure that nobody looked at.
        if not task.cancelled():
            task.exception()

    async def _log_in(self, pool: Pool, deadline: Deadline) -> Pool:
        definition = pool.definition
        password = await asyncio.to_thread(self._password, definition)
        found = await asyncio.to_thread(iscsi.login, definition, password, self._tools, deadline)
        for failure in found.failures:
            _log.warning("pool %s: %s", pool.name, failure)
        try:
            for session in found.sessions:
                await self._until(partial(self._lacking, session.number, definition), deadline)
            return self._book.set_activity(pool.name, found.activity)
        except BaseException:
            with suppress(NodedevError):
                undo = Deadline(UNDO_SECONDS)
                await asyncio.to_thread(iscsi.logout, definition, found.activity, self._tools, undo)
            raise

    def _password(self, definition: Definition) -> str | None:
        if definition.chap is None:
            return None
        if self._secrets is None:
            raise PreconditionError("this service keeps no secrets", reason="SECRET_INVALID")
        return secrets.read(self._secrets, definition.chap.secret)

    async def _log_out(self, pool: Pool, deadline: Deadline) -> Pool:
        _refuse_busy(pool, self._engine.snapshot.devices)
        activity = Activity(active=True, sessions=pool.sessions, records=pool.records)
        await asyncio.to_thread(iscsi.logout, pool.definition, activity, self._tools, deadline)
        stopped = self._book.set_activity(pool.name, Activity(active=False))
        with suppress(DeadlineError):  # it is stopped, whatever udev still has to say
            await self._until(partial(self._remaining, pool.sessions), deadline)
        return stopped

    def _lacking(self, number: int, definition: Definition) -> str | None:
        """A disk of the session that the inventory does not have as the pool will show it."""
        devices = list(_of_session(number, self._engine.snapshot.devices))
        for unit in iscsi_facts.logical_units(number):
            if unit.type != iscsi_facts.DISK:
                continue
            found = [device for device in devices if f"/{unit.address}/block/" in (device.sysfs_path or "")]
            if not found:
                return f"{unit.block or unit.address} is not there yet"
            claims = {reason.type for device in found for reason in _reasons(device)}
            if "not-ready" in claims:
                return f"udev is not done with {unit.block}"
            # multipath means to have the disk: its map is what the pool shows.
            if "multipath" in claims and (definition.target in MAP_FOLDERS or definition.target == BY_ID):
                return f"{unit.block} has no map yet, though multipath claims it"
        return None

    def _remaining(self, sessions: tuple[Session, ...]) -> str | None:
        for session in sessions:
            for device in _of_session(session.number, self._engine.snapshot.devices):
                return f"{device.name} is still there"
        return None

    async def _until(self, lacking: Callable[[], str | None], deadline: Deadline) -> None:
        """Waits until nothing is lacking, looking at each change of the inventory."""
        changed = asyncio.Event()
        unsubscribe = self._engine.inventory.subscribe(changed.set)
        try:
            while (what := lacking()) is not None:
                try:
                    left = deadline.left()
                except DeadlineError as error:
                    raise DeadlineError(f"{error.message}: {what}") from None
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LOOK_AGAIN_SECONDS)):
                        await changed.wait()
                changed.clear()
        finally:
            unsubscribe()


def _of_session(number: int, devices: Devices) -> Iterator[Device]:
    part = f"/session{number}/"
    return (
        device for device in devices.values() if device.device_number and part in (device.sysfs_path or "")
    )


def _reasons(device: Device) -> tuple[Reason, ...]:
    claim = device.capability("claim")
    return claim.reasons if isinstance(claim, Claim) else ()


def _refuse_busy(pool: Pool, devices: Devices) -> None:
    """Raises DEVICE_BUSY with every use of the LUNs that the pool's own sessions have, or of their maps."""
    concerned: dict[str, Device] = {}
    for session in pool.sessions:
        for device in _of_session(session.number, devices):
            for found in filter(None, (device, map_of(device, devices))):
                concerned[found.name] = found
    uses = [
        Obstacle(reason.type, device.name, reason_text(reason))
        for device in concerned.values()
        for reason in _reasons(device)
        if reason.type in _IN_USE
    ]
    if uses:
        more = f" (and {len(uses) - 1} more)" if len(uses) > 1 else ""
        raise PreconditionError(
            f"pool {pool.name} is in use: {uses[0].device} is {uses[0].message}{more}",
            obstacles=tuple(uses),
            pool=pool.name,
        )


def reason_text(reason: Reason) -> str:
    """A claim in a few words."""
    return " ".join(filter(None, (reason.type, reason.target, reason.what, reason.device)))
