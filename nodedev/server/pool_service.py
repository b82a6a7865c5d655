"""StoragePoolService: pools and their volumes as messages and XML."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, cast

from nodedev.errors import InvalidError, Obstacle, PreconditionError, Violation
from nodedev.facts.boot import boot_id
from nodedev.pools import relations
from nodedev.pools.book import Book, Pool
from nodedev.pools.definition import checked_type
from nodedev.pools.document import disk_xml, pool_xml, read_pool, volume_xml
from nodedev.pools.store import Store
from nodedev.pools.volumes import Devices, Volume
from nodedev.server.boundary import UNARY_SECONDS
from nodedev.server.engine import Engine
from nodedev.server.paging import Page, Pages
from nodedev.server.pool_messages import related_message
from nodedev.server.pool_starting import Starting, reason_text
from nodedev.server.pool_views import Views, no_volume
from nodedev.server.pool_watching import PoolWatches
from nodedev.server.watching import Watches
from nodedev.v1 import pool_service_pb2 as pb
from nodedev.v1 import pool_service_pb2_grpc

# Of the caller's time, so that what was begun can be undone and the reason told within it.
_SHARE = 0.8
_DISK = "vda"

T = TypeVar("T")
_Answer = TypeVar(
    "_Answer",
    pb.GetPoolResponse,
    pb.DefinePoolResponse,
    pb.StartPoolResponse,
    pb.StopPoolResponse,
    pb.SetPoolAutostartResponse,
    pb.RefreshPoolResponse,
)


def open_pools(engine: Engine, state: Path | None) -> tuple[Book, Starting]:
    """The pools whose definitions are below the state folder, and what starts them."""
    store = Store(state / "pools", boot_id()) if state else None
    book = Book(store, engine.inventory.advance, everything_active=not engine.source.live)
    return book, Starting(engine, book, state / "secrets" if state else None)


class _Call(Protocol):
    """A call's context, as far as it is asked here."""

    def time_remaining(self) -> float | None:
        """The seconds to the caller's deadline."""


class PoolServicer(pool_service_pb2_grpc.StoragePoolServiceServicer):
    """All methods; one instance serves every port."""

    def __init__(self, engine: Engine, book: Book, starting: Starting) -> None:
        self._engine = engine
        self._book = book
        self._starting = starting
        self._views = Views(engine)
        self._pages = Pages()
        self._watches = PoolWatches(engine, book, self._views, Watches(engine.inventory))

    async def ListPools(self, request: pb.ListPoolsRequest, context: object) -> pb.ListPoolsResponse:  # noqa: ARG002, N802
        """Lists pools in the order of their names."""
        for type_ in request.types:
            checked_type(type_)
        page = self._pages.open(request, self._engine.snapshot)
        found = (
            pool
            for pool in self._book.at(page.snapshot.revision).values()
            if (not request.types or pool.definition.type in request.types)
            and (not request.HasField("active") or pool.active == request.active)
        )
        response = await page.fill(
            pb.ListPoolsResponse(),
            _numbered(page, found),
            lambda pool: pb.ListPoolsResponse(pools=[self._views.pool_message(pool, page.snapshot)]),
        )
        if not request.page_token:
            for note in self._book.problems:
                response.notes.add(source=note.source, message=note.message)
        return response

    async def GetPool(self, request: pb.GetPoolRequest, context: object) -> pb.GetPoolResponse:  # noqa: ARG002, N802
        """Reads one pool."""
        return self._answer(pb.GetPoolResponse(), self._book.get(request.name))

    async def GetPoolXml(self, request: pb.GetPoolXmlRequest, context: object) -> pb.GetPoolXmlResponse:  # noqa: ARG002, N802
        """The pool as libvirt's XML, with what its volumes come to."""
        snapshot = self._engine.snapshot
        pool = self._book.get(request.name)
        capacity = self._views.of(pool, snapshot).capacity_bytes
        return pb.GetPoolXmlResponse(xml=pool_xml(pool.definition, capacity), revision=snapshot.revision)

    async def DefinePool(self, request: pb.DefinePoolRequest, context: object) -> pb.DefinePoolResponse:  # noqa: ARG002, N802
        """Defines a pool."""
        self._engine.require_published()
        definition = await asyncio.to_thread(read_pool, request.xml, self._uuid_of)
        pool = self._book.check(definition) if request.validate_only else self._book.define(definition)
        return self._answer(pb.DefinePoolResponse(), pool)

    def _uuid_of(self, name: str) -> str | None:
        pool = self._book.pools.get(name)
        return pool.definition.uuid if pool else None

    async def UndefinePool(self, request: pb.UndefinePoolRequest, context: object) -> pb.UndefinePoolResponse:  # noqa: ARG002, N802
        """Forgets a definition."""
        self._engine.require_published()
        self._book.undefine(request.name)
        return pb.UndefinePoolResponse(revision=self._engine.inventory.revision)

    async def StartPool(self, request: pb.StartPoolRequest, context: object) -> pb.StartPoolResponse:  # noqa: N802
        """Makes a pool active."""
        self._engine.require_published()
        pool = await self._starting.start(request.name, _seconds(context))
        return self._answer(pb.StartPoolResponse(), pool)

    async def StopPool(self, request: pb.StopPoolRequest, context: object) -> pb.StopPoolResponse:  # noqa: N802
        """Makes a pool inactive."""
        self._engine.require_published()
        pool = await self._starting.stop(request.name, _seconds(context))
        return self._answer(pb.StopPoolResponse(), pool)

    async def SetPoolAutostart(  # noqa: N802
        self,
        request: pb.SetPoolAutostartRequest,
        context: object,  # noqa: ARG002
    ) -> pb.SetPoolAutostartResponse:
        """Says whether the pool is started with the service."""
        self._engine.require_published()
        pool = self._book.set_autostart(request.name, wanted=request.autostart)
        return self._answer(pb.SetPoolAutostartResponse(), pool)

    async def RefreshPool(self, request: pb.RefreshPoolRequest, context: object) -> pb.RefreshPoolResponse:  # noqa: ARG002, N802
        """The pool as it is: there is nothing to refresh."""
        return self._answer(pb.RefreshPoolResponse(), self._book.get(request.name))

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: object) -> pb.ListVolumesResponse:  # noqa: ARG002, N802
        """Lists the volumes of the active pools, or of one."""
        page = self._pages.open(request, self._engine.snapshot)
        pools = self._book.at(page.snapshot.revision)
        name = request.pool if request.HasField("pool") else None
        devices = page.snapshot.devices
        return await page.fill(
            pb.ListVolumesResponse(),
            _numbered(page, self._views.volumes(pools, page.snapshot, name)),
            lambda volume: pb.ListVolumesResponse(volumes=[self._views.volume_message(volume, devices)]),
        )

    async def FindVolumes(self, request: pb.FindVolumesRequest, context: object) -> pb.FindVolumesResponse:  # noqa: ARG002, N802
        """Looks volumes up."""
        snapshot = self._engine.snapshot
        name = request.pool if request.HasField("pool") else None
        volumes = list(self._views.volumes(self._book.pools, snapshot, name))
        found = relations.preferred(self._found(request, volumes, snapshot.devices), snapshot.devices)
        if not found:
            wanted = request.WhichOneof("by") or "handle"
            where = f" in pool {name}" if name else ""
            raise no_volume(f"no volume has the {wanted} {getattr(request, wanted)!r}{where}")
        return pb.FindVolumesResponse(
            volumes=[self._views.volume_message(volume, snapshot.devices) for volume in found],
            revision=snapshot.revision,
        )

    def _found(
        self, request: pb.FindVolumesRequest, volumes: Iterable[Volume], devices: Devices
    ) -> Iterable[Volume]:
        match request.WhichOneof("by"):
            case "name":
                return relations.with_name(request.name, volumes)
            case "key":
                return relations.with_key(request.key, volumes)
            case "path":
                return relations.with_path(request.path, volumes, devices)
            case "device":
                name = self._engine.inventory.find(request.device).name
                return (volume for volume in volumes if volume.device == name)
            case "handle":
                return _by_handle(request.handle, list(volumes), devices)
            case _:
                message = "say what to look for: a handle, name, key, path or device"
                raise InvalidError(message, violations=(Violation("by", message),))

    async def GetVolumeXml(self, request: pb.GetVolumeXmlRequest, context: object) -> pb.GetVolumeXmlResponse:  # noqa: ARG002, N802
        """The volume as libvirt's XML."""
        snapshot = self._engine.snapshot
        volume = self._views.volume(request.volume, self._book.pools, snapshot)
        xml = volume_xml(volume, self._views.permissions(volume, snapshot.devices))
        return pb.GetVolumeXmlResponse(xml=xml, revision=snapshot.revision)

    async def ListRelatedVolumes(  # noqa: N802
        self,
        request: pb.ListRelatedVolumesRequest,
        context: object,  # noqa: ARG002
    ) -> pb.ListRelatedVolumesResponse:
        """What the volume is made of and what is built on it, in every active pool."""
        page = self._pages.open(request, self._engine.snapshot)
        pools, devices = self._book.at(page.snapshot.revision), page.snapshot.devices
        volume = self._views.volume(request.volume, pools, page.snapshot)
        found = relations.related(volume, self._views.volumes(pools, page.snapshot), devices)
        return await page.fill(
            pb.ListRelatedVolumesResponse(),
            _numbered(page, found),
            lambda other: pb.ListRelatedVolumesResponse(
                related=[related_message(other, self._views.permissions(other.volume, devices))]
            ),
        )

    async def GetDiskXml(self, request: pb.GetDiskXmlRequest, context: object) -> pb.GetDiskXmlResponse:  # noqa: ARG002, N802
        """The volume as a disk of a guest, unless it is claimed."""
        snapshot = self._engine.snapshot
        volume = self._views.volume(request.volume, self._book.pools, snapshot)
        if not request.force:
            _refuse_claimed(volume)
        return pb.GetDiskXmlResponse(
            xml=disk_xml(volume, request.target or _DISK), revision=snapshot.revision
        )

    async def WatchPools(  # noqa: N802
        self,
        request: pb.WatchPoolsRequest,
        context: object,  # noqa: ARG002
    ) -> AsyncGenerator[pb.WatchPoolsResponse, None]:
        """Sends the changes of pools and volumes."""
        self._engine.require_published()
        watch = self._watches.watch(request.after_revision, frozenset(request.pools))
        async with aclosing(watch) as responses:
            async for response in responses:
                yield response

    def _answer(self, response: _Answer, pool: Pool) -> _Answer:
        snapshot = self._engine.snapshot
        response.pool.CopyFrom(self._views.pool_message(pool, snapshot))
        response.revision = snapshot.revision
        return response


def _numbered(page: Page, items: Iterable[T]) -> Iterator[tuple[str, T]]:
    """The items from where the page begins, by their positions."""
    start = page.offset()
    return ((str(number), item) for number, item in enumerate(islice(items, start, None), start + 1))


def _by_handle(handle: str, volumes: list[Volume], devices: Devices) -> list[Volume]:
    """A name where one has it, since that is what a person sees; else a key or a path."""
    named = list(relations.with_name(handle, volumes))
    if named:
        return named
    keyed = list(relations.with_key(handle, volumes))
    return keyed or list(relations.with_path(handle, volumes, devices))


def _refuse_claimed(volume: Volume) -> None:
    if volume.reasons:
        obstacles = tuple(
            Obstacle(reason.type, volume.device, reason_text(reason)) for reason in volume.reasons
        )
        raise PreconditionError(
            f"volume {volume.name} is claimed: {', '.join(found.message for found in obstacles)}",
            obstacles=obstacles,
            volume=volume.name,
            pool=volume.pool,
        )
    if not volume.capacity_bytes:
        raise PreconditionError(
            f"volume {volume.name} has no size, or none that is known",
            reason="VOLUME_EMPTY",
            volume=volume.name,
        )


def _seconds(context: object) -> float:
    """How long a change may take: a share of the caller's time, or of what the service allows."""
    remaining = cast("_Call", context).time_remaining()
    return (UNARY_SECONDS if remaining is None else remaining) * _SHARE
