"""What may be done to a host's devices: checked, planned, run, and seen to have happened.

A change is planned before anything is locked, so that a refusal costs nothing, and planned again from
the host as it then is when no other change has its devices. What is run is the plan.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from nodedev.capabilities import kinds
from nodedev.capabilities.claim import Claim
from nodedev.changes import execute
from nodedev.changes.definitions import Wish, changing_of
from nodedev.changes.execute import Ran
from nodedev.changes.pending import Locks, aside
from nodedev.discovery import generation as generation_of
from nodedev.discovery import plain_name
from nodedev.errors import (
    AbortedError,
    AlreadyExistsError,
    DeadlineError,
    NotFoundError,
    PermissionDeniedError,
    UnimplementedError,
)
from nodedev.facts.host import DeviceFacts, Host, Source
from nodedev.inventory import Inventory, Snapshot
from nodedev.model import Capability, Changing, Device, Scene, Site
from nodedev.plan import Consent, Plan, Step

T = TypeVar("T")

_ASK_SECONDS = 30.0
_DOUBT_SECONDS = 10.0
# Uses that keep a loop device with autoclear alive without this service's help.
_USES = frozenset({"held", "path", "member", "mounted", "swap", "backing"})


class Outcome(Enum):
    """What became of a device that was to go; `PLANNED` where only the plan was asked for."""

    PLANNED = "planned"
    DESTROYED = "destroyed"
    DETACHING = "detaching"
    REAPPEARED = "reappeared"
    ABSENT = "absent"


class Created(Struct, frozen=True):
    """The device, and the steps that made it; none made one that `existed`."""

    device: Device | None
    steps: tuple[Step, ...]
    existed: bool = False


class Destroyed(Struct, frozen=True):
    """What became of the device, and the steps; the device as it was, or as it is if it is still there."""

    outcome: Outcome
    device: Device | None
    steps: tuple[Step, ...] = ()


class Operations:
    """The changes of one host. To be used on the event loop that the inventory is published on.

    Times are the loop's. Errors of each: RECORDED_HOST, NOT_PRIVILEGED, OPERATION_IN_PROGRESS,
    DEADLINE_EXCEEDED, and those of the plans and of their steps.
    """

    def __init__(self, inventory: Inventory, source: Source) -> None:
        self._inventory = inventory
        self._source = source
        self._locks = Locks()
        self._held: dict[str, int] = {}
        inventory.subscribe(self._let_go)

    async def create(self, wish: Wish, consent: Consent, *, validate_only: bool, until: float) -> Created:
        """Makes the device that is wished for, or gives the one that is there."""
        self._require_live()
        # While the same wish is being carried out, what is half made looks like another device.
        identity = wish.changing.identity(wish.capability)
        with self._locks.held((identity,) if identity else ()):
            return await self._create(wish, consent, validate_only=validate_only, until=until)

    async def _create(self, wish: Wish, consent: Consent, *, validate_only: bool, until: float) -> Created:
        changing = wish.changing
        ask = self._asking()

        def planned() -> Plan:
            execute.require_rights()
            site = self._site(ask)
            self._require_name(wish, site)
            plan = changing.create(wish.capability, site, consent)
            execute.check(plan)
            return plan

        plan = await aside(planned)
        if validate_only:
            found = await self._existing(plan, until) if plan.existing else None
            return Created(found, plan.steps, existed=found is not None)
        with self._locks.held(plan.locks):
            plan = await aside(planned)
            if plan.existing:
                return Created(await self._existing(plan, until), (), existed=True)
            ran = await aside(lambda: execute.run(plan, plan.locks[0]))
            return Created(await self._arrived(wish, ran, until), plan.steps)

    async def _existing(self, plan: Plan, until: float) -> Device:
        path = plan.existing or ""
        return await self._fresh(path, await aside(lambda: self._generation(path)), until)

    async def _fresh(self, path: str, generation: int | None, until: float) -> Device:
        """The device at a sysfs path, when the inventory has the one of that generation."""

        def find() -> Device | None:
            device = self._named(f"/sys{path}")
            return device if device and device.generation == generation and changing_of(device) else None

        return await self._seen(find, until, path)

    def _generation(self, path: str) -> int | None:
        facts = Host(self._source).device(path)
        return generation_of(facts) if facts else None

    async def destroy(
        self, handle: str, generation: int | None, consent: Consent, *, validate_only: bool, until: float
    ) -> Destroyed:
        """Takes the device away, and tells what became of it."""
        self._require_live()
        try:
            device = self._inventory.find(handle)
        except NotFoundError:
            return Destroyed(Outcome.ABSENT, None)
        changed = changing_of(device)
        if changed is None:
            raise UnimplementedError(
                f"{device.name} is nothing that can be created, and so nothing that can be destroyed",
                reason="CAPABILITY_NOT_DESTROYABLE",
                device=device.name,
            )
        _, changing = changed
        ask = self._asking()

        def planned() -> Plan | None:
            execute.require_rights()
            site = self._site(ask)
            try:
                facts = site.facts(device)
            except NotFoundError:
                return None
            if not device.name.startswith(plain_name(facts, site.host)):
                return None  # its number is free again, or another one's
            _require_generation(device, facts, generation)
            plan = changing.destroy(device, site, consent)
            execute.check(plan)
            return plan

        plan = await aside(planned)
        if plan and not validate_only:
            with self._locks.held(plan.locks):
                plan = await aside(planned)
                if plan:
                    return await self._destroyed(device, changing, plan, until)
        if plan:
            return Destroyed(Outcome.PLANNED, device, plan.steps)
        await self._seen(lambda: self._gone(device), until, f"the end of {device.name}")
        return Destroyed(Outcome.ABSENT, device)

    async def _destroyed(self, device: Device, changing: Changing, plan: Plan, until: float) -> Destroyed:
        steps = plan.steps
        path = device.sysfs_path or ""
        ran = await aside(lambda: execute.run(plan, device.name, lambda: self._release(path)))
        if not ran.detached:
            return Destroyed(Outcome.DETACHING, await self._renewed(self._named(path) or device), steps)
        await self._seen(lambda: self._gone(device), until, f"the end of {device.name}")
        if changing.grace_seconds:
            # Only the end of it counts: while mdmon lets go of a volume, it shows once more, at rest.
            await asyncio.sleep(min(until - asyncio.get_running_loop().time(), changing.grace_seconds))
            again = self._named(device.name)
            if again:
                return Destroyed(Outcome.REAPPEARED, again, steps)
        return Destroyed(Outcome.DESTROYED, device, steps)

    async def _arrived(self, wish: Wish, ran: Ran, until: float) -> Device:
        """The device that was made, when the inventory has it; kept open if its life depends on that."""
        node = ran.node
        if node is None:
            if ran.doubt:
                until = min(until, asyncio.get_running_loop().time() + _DOUBT_SECONDS)
            try:
                return await self._seen(lambda: self._among_known(wish), until, "the new device")
            except DeadlineError as late:
                raise ran.doubt or late from None

        def located() -> tuple[str, int | None]:
            path = self._source.locate("block", os.path.basename(node)) or ""  # noqa: PTH119
            return path, self._generation(path)

        path, generation = await aside(located)
        if ran.descriptor is not None:
            self._held[f"/sys{path}"] = ran.descriptor
        device = await self._renewed(await self._fresh(path, generation, until))
        self._let_go()
        return device

    async def _renewed(self, device: Device) -> Device:
        """The device with its capability read again, as LOOP_SET_STATUS64 and LOOP_CLR_FD send no event."""
        ask = self._asking()

        def read() -> Capability | None:
            site = self._site(ask)
            with suppress(NotFoundError):
                facts = site.facts(device)
                kind = next(kind for kind in kinds() if kind.changing and device.capability(kind.type))
                if generation_of(facts) == device.generation:
                    return kind.probe(facts, Scene(site.host, site.name_of))
            return None

        found = await aside(read)
        known = self._named(device.name)
        if known is None or found is None or known.generation != device.generation:
            return device
        capabilities = tuple(found if found.TYPE == each.TYPE else each for each in known.capabilities)
        self._inventory.publish([replace(known, capabilities=capabilities)])
        return self._inventory.find(device.name)

    async def present(self, wish: Wish) -> Device | None:
        """The device that a wish means, if the inventory has it."""
        devices = tuple(self._inventory.snapshot.devices.values())
        return await aside(lambda: _among(devices, wish, Host(self._source)))

    def _among_known(self, wish: Wish) -> Device | None:
        return _among(self._inventory.snapshot.devices.values(), wish, Host(self._source))

    async def _seen(self, find: Callable[[], T | None], until: float, what: str) -> T:
        """What the inventory shows, waited for."""
        published = asyncio.Event()
        unsubscribe = self._inventory.subscribe(published.set)
        try:
            async with asyncio.timeout_at(until):
                while True:
                    found = find()
                    if found:
                        return found
                    await published.wait()
                    published.clear()
        except TimeoutError:
            raise DeadlineError(f"done, but {what} has not been seen in time") from None
        finally:
            unsubscribe()

    def _gone(self, device: Device) -> bool:
        """Whether the name stands for nothing, or for another device."""
        found = self._named(device.name)
        return found is None or found.generation != device.generation

    def _named(self, handle: str) -> Device | None:
        try:
            return self._inventory.find(handle)
        except NotFoundError:
            return None

    def _release(self, path: str) -> None:
        """Closes what is kept open of a device; from any thread."""
        descriptor = self._held.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def _let_go(self) -> None:
        """Stops keeping those devices that somebody uses by now, or that are gone."""
        for path in tuple(self._held):
            device = self._named(path)
            claim = device.capability(Claim.TYPE) if device else None
            used = isinstance(claim, Claim) and any(reason.type in _USES for reason in claim.reasons)
            if device is None or used:
                self._release(path)

    def _asking(self) -> Callable[[Callable[[], object]], object]:
        """A way for another thread to ask something on the loop, where the inventory is at home."""
        loop = asyncio.get_running_loop()

        async def answer(question: Callable[[], object]) -> object:
            return question()

        return lambda question: asyncio.run_coroutine_threadsafe(answer(question), loop).result(_ASK_SECONDS)

    def site_of_loop(self) -> Callable[[], Site]:
        """What planners may ask, to be called from another thread."""
        ask = self._asking()
        return lambda: self._site(ask)

    def _site(self, ask: Callable[[Callable[[], object]], object]) -> Site:
        """What planners may ask, from another thread."""
        host = Host(self._source)

        def known(handle: str) -> Device | None:
            found = ask(lambda: self._named(handle))
            return found if isinstance(found, Device) else None

        def name_of(facts: DeviceFacts) -> str:
            device = known(f"/sys{facts.path}")
            return device.name if device else plain_name(facts, host)

        def find(handle: str) -> Device:
            device = known(handle)
            if device is None:
                raise NotFoundError(f"no device is called {handle!r}", handle=handle)
            return device

        snapshot = ask(lambda: self._inventory.snapshot)
        devices = snapshot.devices if isinstance(snapshot, Snapshot) else {}
        return Site(devices, host, find, name_of, kernel_version())

    @staticmethod
    def _require_name(wish: Wish, site: Site) -> None:
        """Raises DEVICE_EXISTS where the document's name is another device's."""
        other = site.devices.get(wish.name or "")
        if other and not wish.changing.same(wish.capability, other, site.host):
            raise AlreadyExistsError(
                f"{other.name} is another device; leave the name out, or destroy it first", device=other.name
            )

    def _require_live(self) -> None:
        if not self._source.live:
            raise PermissionDeniedError("a recorded host cannot be changed", reason="RECORDED_HOST")


def _among(devices: Iterable[Device], wish: Wish, host: Host) -> Device | None:
    same, wanted = wish.changing.same, wish.capability
    return next((device for device in devices if same(wanted, device, host)), None)


def _require_generation(device: Device, facts: DeviceFacts, wanted: int | None) -> None:
    """Raises GENERATION_MISMATCH for another device than the one that is meant, under its name."""
    present = generation_of(facts)
    for expected in (wanted, device.generation):
        if expected is not None and present is not None and expected != present:
            raise AbortedError(
                f"{device.name} is another device now: its generation is {present}, not {expected}",
                reason="GENERATION_MISMATCH",
                device=device.name,
                generation=str(present),
            )


def kernel_version() -> tuple[int, int]:
    """The running kernel's version, (6, 1)."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
