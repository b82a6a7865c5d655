"""What the active pools show of a snapshot: worked out once for each revision, shared by all calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from nodedev.errors import NotFoundError, PreconditionError
from nodedev.facts import nodes
from nodedev.facts.nodes import Permissions
from nodedev.inventory import Snapshot
from nodedev.pools.book import Pool, Pools, find, not_found
from nodedev.pools.definition import Definition
from nodedev.pools.volumes import Devices, View, Volume, view
from nodedev.server.engine import Engine
from nodedev.server.pool_messages import pool_message, volume_message
from nodedev.v1 import pool_service_pb2 as pb

_KEPT = 64
_NOTHING = View({}, ())


class Views:
    """The views of one engine's snapshots."""

    def __init__(self, engine: Engine) -> None:
        self._live = engine.source.live
        self._kept: OrderedDict[tuple[int, Definition], View] = OrderedDict()

    def of(self, pool: Pool, snapshot: Snapshot) -> View:
        """What the pool shows; nothing while it is inactive."""
        if not pool.active:
            return _NOTHING
        key = (snapshot.revision, pool.definition)
        if key not in self._kept:
            self._kept[key] = view(pool.definition, snapshot.devices)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]

    def volumes(self, pools: Pools, snapshot: Snapshot, name: str | None = None) -> Iterator[Volume]:
        """The volumes of the active pools, or of one. Errors: POOL_NOT_FOUND, POOL_INACTIVE."""
        for pool in pools.values() if name is None else (active(name, pools),):
            yield from self.of(pool, snapshot).volumes.values()

    def volume(self, reference: pb.VolumeReference, pools: Pools, snapshot: Snapshot) -> Volume:
        """One volume. Errors: POOL_NOT_FOUND, POOL_INACTIVE, VOLUME_NOT_FOUND."""
        pool = active(reference.pool, pools)
        found = self.of(pool, snapshot).volumes.get(reference.name)
        if found is None:
            raise no_volume(f"pool {pool.name} has no volume {reference.name!r}")
        return found

    def permissions(self, volume: Volume, devices: Devices) -> Permissions | None:
        """The permissions of the volume's node, on a live host."""
        device = devices.get(volume.device)
        return nodes.permissions(device.devnode) if self._live and device and device.devnode else None

    def pool_message(self, pool: Pool, snapshot: Snapshot) -> pb.Pool:
        """The pool with what it shows."""
        return pool_message(pool, self.of(pool, snapshot))

    def volume_message(self, volume: Volume, devices: Devices) -> pb.Volume:
        """The volume with its node's permissions."""
        return volume_message(volume, self.permissions(volume, devices))


def active(name: str, pools: Pools) -> Pool:
    """The pool by name or UUID. Errors: POOL_NOT_FOUND, POOL_INACTIVE."""
    pool = find(name, pools)
    if pool is None:
        raise not_found(name)
    if not pool.active:
        raise PreconditionError(
            f"pool {pool.name} is not active; start it first", reason="POOL_INACTIVE", pool=pool.name
        )
    return pool


def no_volume(message: str) -> NotFoundError:
    """The refusal of what is called like no volume."""
    return NotFoundError(message, reason="VOLUME_NOT_FOUND")
