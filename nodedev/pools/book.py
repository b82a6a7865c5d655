"""The pools there are: predefined and defined ones, active or not, and how they were before.

Their changes stand in the inventory's revisions, so that one cursor follows devices and pools alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from nodedev.errors import AlreadyExistsError, NotFoundError, OutOfRangeError, PreconditionError
from nodedev.facts.host import Note
from nodedev.pools.definition import KINDS, Definition, checked_name, predefined
from nodedev.pools.store import SOURCE, Activity, Session, Store

LOG_LIMIT = 1000


class Pool(Struct, frozen=True):
    """One pool as it is. `sessions` and `records` are what an iscsi pool did to become active."""

    definition: Definition
    active: bool
    autostart: bool = False
    persistent: bool = False
    sessions: tuple[Session, ...] = ()
    records: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The definition's."""
        return self.definition.name


Pools = Mapping[str, Pool]


class _Change(Struct, frozen=True):
    revision: int
    name: str
    previous: Pool | None


class Book:
    """The one holder of the pools; `advance` makes a revision for each change.

    Without a store definitions are forgotten at the end. With `everything_active`, as for a recorded
    host on which nothing can be started, each pool shows its volumes.
    """

    def __init__(
        self, store: Store | None, advance: Callable[[], int], *, everything_active: bool = False
    ) -> None:
        self._store = store
        self._advance = advance
        self._log: deque[_Change] = deque()
        self._compacted = 0
        self._builtin = {pool.name: pool for pool in predefined()}
        self._pools: dict[str, Pool] = {
            name: Pool(definition, active=True) for name, definition in self._builtin.items()
        }
        self.problems: tuple[Note, ...] = ()
        if store:
            self._load(store, everything_active=everything_active)

    @property
    def pools(self) -> Pools:
        """The pools in the order of their names."""
        return dict(sorted(self._pools.items()))

    def _load(self, store: Store, *, everything_active: bool) -> None:
        found = store.read()
        problems = list(found.problems)
        activities = dict(found.activities)
        for stored in found.pools:
            definition = stored.definition
            try:
                self._admit(definition)
            except AlreadyExistsError as error:
                problems.append(Note(SOURCE, f"{definition.name} is left out: {error.message}"))
                continue
            single = KINDS[definition.type].single
            self._pools[definition.name] = Pool(
                definition, active=single or everything_active, autostart=stored.autostart, persistent=True
            )
        if not everything_active:
            for name, activity in activities.items():
                if name in self._pools:
                    self._pools[name] = replace(
                        self._pools[name],
                        active=activity.active,
                        sessions=activity.sessions,
                        records=activity.records,
                    )
        self.problems = tuple(problems)

    def get(self, name: str) -> Pool:
        """The pool by name or UUID; POOL_NOT_FOUND."""
        found = find(name, self._pools)
        if found is None:
            raise not_found(name)
        return found

    def at(self, revision: int) -> Pools:
        """The pools as they were at a revision; REVISION_COMPACTED where that is no longer known."""
        if revision < self._compacted:
            raise OutOfRangeError(
                f"revision {revision} is older than the change log", compacted_revision=str(self._compacted)
            )
        pools: dict[str, Pool] = dict(self._pools)
        for change in reversed(self._log):
            if change.revision <= revision:
                break
            if change.previous:
                pools[change.name] = change.previous
            else:
                pools.pop(change.name, None)
        return dict(sorted(pools.items()))

    def check(self, definition: Definition) -> Pool:
        """The pool that the definition would make; raises what `define` would, but for files."""
        checked_name(definition.name)
        self._admit(definition)
        known = self._pools.get(definition.name)
        if known is None:
            return Pool(definition, active=False, persistent=True)
        if known.sessions and known.definition.source != definition.source:
            raise PreconditionError(
                f"pool {definition.name} is logged in; stop it before its source changes",
                reason="POOL_ACTIVE",
                pool=definition.name,
            )
        return replace(known, definition=definition, persistent=True)

    def _admit(self, definition: Definition) -> None:
        """Refuses a second pool of a type that stands once, and another pool under a name."""
        known = self._pools.get(definition.name)
        for other in self._pools.values():
            same = other.definition.type == definition.type
            if same and KINDS[definition.type].single and other.name != definition.name:
                raise AlreadyExistsError(
                    f"a host has one pool of type {definition.type}, and {other.name!r} is it",
                    reason="POOL_EXISTS",
                    pool=other.name,
                )
            if other.definition.uuid == definition.uuid and other.name != definition.name:
                raise AlreadyExistsError(
                    f"pool {other.name!r} has this UUID already", reason="POOL_EXISTS", pool=other.name
                )
        if known and known.definition.type != definition.type:
            raise AlreadyExistsError(
                f"pool {definition.name!r} is one of type {known.definition.type} already",
                reason="POOL_EXISTS",
                pool=definition.name,
            )
        if known and known.persistent and known.definition.uuid != definition.uuid:
            raise AlreadyExistsError(
                f"pool {definition.name!r} has the UUID {known.definition.uuid} already",
                reason="POOL_EXISTS",
                pool=definition.name,
            )

    def define(self, definition: Definition) -> Pool:
        """Makes or changes a pool and keeps its definition. Errors: POOL_EXISTS, POOL_ACTIVE, the store's."""
        pool = self.check(definition)
        if pool != self._pools.get(pool.name):
            if self._store:
                self._store.define(definition)
            self._put(pool.name, pool)
        return pool

    def undefine(self, name: str) -> None:
        """Forgets a definition; a pool that is gone is no error.

        Errors: POOL_ACTIVE, POOL_PREDEFINED, the store's.
        """
        pool = find(name, self._pools)
        if pool is None:
            return
        single = pool.name in self._builtin
        if single and not pool.persistent:
            raise PreconditionError(
                f"pool {pool.name} is predefined; it can be stopped", reason="POOL_PREDEFINED", pool=pool.name
            )
        if pool.active and not single:
            raise PreconditionError(
                f"pool {pool.name} is active; stop it first", reason="POOL_ACTIVE", pool=pool.name
            )
        if self._store:
            self._store.undefine(pool.name)
            if not single:
                self._store.activity(pool.name, None)
        self._put(pool.name, Pool(self._builtin[pool.name], active=pool.active) if single else None)

    def set_autostart(self, name: str, *, wanted: bool) -> Pool:
        """Says whether the pool is started with the service, which predefined ones always are."""
        pool = self.get(name)
        if not pool.persistent:
            raise PreconditionError(
                f"pool {pool.name} is predefined, and active from the start",
                reason="POOL_PREDEFINED",
                pool=pool.name,
            )
        if pool.autostart != wanted:
            if self._store:
                self._store.autostart(pool.name, wanted=wanted)
            pool = replace(pool, autostart=wanted)
            self._put(pool.name, pool)
        return pool

    def set_activity(self, name: str, activity: Activity) -> Pool:
        """Makes a pool active or inactive, and keeps that until the next boot."""
        pool = self.get(name)
        changed = replace(pool, active=activity.active, sessions=activity.sessions, records=activity.records)
        if changed != pool:
            if self._store:
                self._store.activity(pool.name, activity)
            self._put(pool.name, changed)
        return changed

    def _put(self, name: str, pool: Pool | None) -> None:
        previous = self._pools.get(name)
        if pool:
            self._pools[name] = pool
        else:
            self._pools.pop(name, None)
        # Watchers are woken by the new revision, and run after this.
        self._log.append(_Change(self._advance(), name, previous))
        while len(self._log) > LOG_LIMIT:
            self._compacted = self._log.popleft().revision


def find(name: str, pools: Pools) -> Pool | None:
    """The pool by name or UUID."""
    return pools.get(name) or next((pool for pool in pools.values() if pool.definition.uuid == name), None)


def not_found(name: str) -> NotFoundError:
    """The refusal of a name that no pool has."""
    return NotFoundError(f"no pool is called {name!r}", reason="POOL_NOT_FOUND", pool=name)
