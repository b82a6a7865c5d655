"""DeviceService: the inventory's devices as messages and XML."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path

from msgspec.structs import replace

from nodedev import topology
from nodedev.documents import validate
from nodedev.errors import NotFoundError, PreconditionError
from nodedev.inventory import Snapshot
from nodedev.model import Device
from nodedev.proto import device_message
from nodedev.server.change_service import ChangeServicer
from nodedev.server.engine import Engine
from nodedev.server.filters import Filter
from nodedev.server.paging import Page, Pages, expired
from nodedev.server.rendered import Rendered
from nodedev.server.watching import Watches
from nodedev.v1 import device_service_pb2 as pb
from nodedev.xml import device_xml


class DeviceServicer(ChangeServicer):
    """All methods, the reading ones here; one instance serves every port."""

    def __init__(self, engine: Engine, state: Path | None = None) -> None:
        super().__init__(engine, state)
        self._pages = Pages()
        self._wider_pages = Pages()
        self._watches = Watches(engine.inventory)
        self._messages = Rendered(engine.inventory, _message)
        self._documents = Rendered(engine.inventory, _document)

    async def ListDevices(  # type: ignore[override]  # noqa: N802
        self,
        request: pb.ListDevicesRequest,
        context: object,  # noqa: ARG002
    ) -> bytes:
        """Lists devices in the order of their names."""
        page = await self._opened(request)
        found = filter(Filter.of(request.filter).passes, page.devices())
        named = ((device.name, device) for device in found)
        return await page.serialized(pb.ListDevicesResponse(), named, self._messages)

    async def _opened(self, request: pb.ListDevicesRequest) -> Page:
        """The page, of the devices that are meant; those that are not there are looked for with each page."""
        snapshot, presence = self._engine.snapshot, request.filter.presence
        if presence not in (pb.PRESENCE_INACTIVE, pb.PRESENCE_ALL):
            return self._pages.open(request, snapshot)
        devices = {device.name: device for device in await self.inactive()}
        if presence == pb.PRESENCE_ALL:
            devices |= snapshot.devices
        return self._wider_pages.open(request, replace(snapshot, devices=dict(sorted(devices.items()))))

    async def GetDevice(  # type: ignore[override]  # noqa: N802
        self,
        request: pb.GetDeviceRequest,
        context: object,  # noqa: ARG002
    ) -> bytes:
        """Reads one device by any handle."""
        self._engine.require_published()
        unlisted = await self._unlisted([request.handle])
        device = unlisted.get(request.handle) or self._engine.inventory.find(request.handle)
        rest = pb.GetDeviceResponse(revision=self._engine.inventory.revision)
        return self._messages(device) + rest.SerializeToString()

    async def GetDeviceXml(  # type: ignore[override]  # noqa: N802
        self,
        request: pb.GetDeviceXmlRequest,
        context: object,  # noqa: ARG002
    ) -> bytes:
        """The XML of the devices named, in that order, or of all."""
        self._engine.require_published()
        unlisted = await self._unlisted(request.handles)
        page = self._pages.open(request, self._engine.snapshot)
        found: Iterable[tuple[str, Device]] = ((device.name, device) for device in page.devices())
        if request.handles:
            start = page.offset()
            wanted = request.handles[start : start + page.size + 1]
            named = (unlisted.get(handle) or self._named(handle, page) for handle in wanted)
            # All are looked up before the first pause: what is called by a handle may change in it.
            found = [(str(number), device) for number, device in enumerate(named, start + 1)]
        return await page.serialized(pb.GetDeviceXmlResponse(), found, self._documents)

    async def _unlisted(self, handles: Iterable[str]) -> Mapping[str, Device]:
        """Those of the handles that are names of devices which are not there."""
        missing = [handle for handle in handles if not self._knows(handle)]
        if not missing:
            return {}
        return {device.name: device for device in await self.inactive() if device.name in missing}

    def _knows(self, handle: str) -> bool:
        try:
            self._engine.inventory.find(handle)
        except NotFoundError:
            return False
        except PreconditionError:
            return True
        return True

    def _named(self, handle: str, page: Page) -> Device:
        """The device of the page's snapshot; only the present one knows other handles than names."""
        device = page.snapshot.devices.get(handle)
        if device:
            return device
        try:
            name = self._engine.inventory.find(handle).name
        except NotFoundError:
            if page.after:
                raise expired() from None
            raise
        if name not in page.snapshot.devices:
            raise expired()
        return page.snapshot.devices[name]

    async def GetTopology(self, request: pb.GetTopologyRequest, context: object) -> pb.GetTopologyResponse:  # noqa: ARG002, N802
        """How devices stand on each other."""
        page = self._pages.open(request, self._engine.snapshot)
        found = page.devices()
        if request.roots:
            roots = [self._named(handle, page).name for handle in request.roots]
            reached = _reached(page.snapshot, roots, request.direction)
            found = (device for device in found if device.name in reached)
        return await page.fill(
            pb.GetTopologyResponse(),
            ((device.name, device) for device in found),
            lambda device: pb.GetTopologyResponse(
                devices=[device.name],
                edges=[
                    pb.Edge(holder=edge.holder, member=edge.member, kind=edge.kind)
                    for edge in topology.edges(device)
                ],
            ),
        )

    async def ValidateXml(self, request: pb.ValidateXmlRequest, context: object) -> pb.ValidateXmlResponse:  # noqa: ARG002, N802
        """Checks a document against the grammar, off the loop: a large one takes its time."""
        violations = await asyncio.to_thread(validate, request.xml)
        return pb.ValidateXmlResponse(
            violations=[
                pb.XmlViolation(line=found.line or 0, path=found.field, message=found.message)
                for found in violations
            ]
        )

    async def WatchDevices(  # noqa: N802
        self,
        request: pb.WatchDevicesRequest,
        context: object,  # noqa: ARG002
    ) -> AsyncGenerator[pb.WatchDevicesResponse, None]:
        """Sends every change after a revision, in order."""
        if request.after_revision == 0:
            self._engine.require_published()
        watch = self._watches.watch(request.after_revision, Filter.of(request.filter))
        async with aclosing(watch) as responses:
            async for response in responses:
                yield response


def _message(device: Device) -> bytes:
    """The device as the field of that number which is the device in GetDevice, and all of them in lists."""
    return pb.GetDeviceResponse(device=device_message(device)).SerializeToString()


def _document(device: Device) -> bytes:
    document = pb.DeviceXml(name=device.name, xml=device_xml(device))
    return pb.GetDeviceXmlResponse(devices=[document]).SerializeToString()


def _reached(snapshot: Snapshot, roots: list[str], direction: pb.Direction.ValueType) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    if direction != pb.DIRECTION_HOLDERS:
        found |= topology.below(snapshot.devices, roots)
    if direction != pb.DIRECTION_MEMBERS:
        found |= topology.above(snapshot.devices, roots)
    return found
