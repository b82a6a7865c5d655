"""The methods of DeviceService that change the host or what is kept of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar, cast

from google.protobuf.message import Message as ProtoMessage
from msgspec.structs import replace

from nodedev.changes.definitions import (
    Definition,
    Definitions,
    Wish,
    changing_of,
    definition_of,
    wish_of,
)
from nodedev.changes.inactive import inactive
from nodedev.changes.operations import Created, Destroyed, Operations, Outcome
from nodedev.changes.pending import Requests, aside
from nodedev.documents import read_device
from nodedev.errors import AlreadyExistsError, InvalidError, NodedevError, NotFoundError, PreconditionError
from nodedev.model import Device
from nodedev.plan import NOTHING_ALLOWED, Command, Consent, Examine, Ioctl, Message, Probe, Step
from nodedev.proto import device_message
from nodedev.server.boundary import UNARY_SECONDS
from nodedev.server.engine import Engine
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1 import device_service_pb2_grpc

_log = logging.getLogger(__name__)

# Of the caller's time, so that an error can be told within it.
_MARGIN_SECONDS = 0.25
_REQUEST_ID_MAX = 200

_OUTCOMES = {
    Outcome.PLANNED: pb.DestroyDeviceResponse.OUTCOME_UNSPECIFIED,
    Outcome.DESTROYED: pb.DestroyDeviceResponse.OUTCOME_DESTROYED,
    Outcome.DETACHING: pb.DestroyDeviceResponse.OUTCOME_DETACHING,
    Outcome.REAPPEARED: pb.DestroyDeviceResponse.OUTCOME_REAPPEARED,
    Outcome.ABSENT: pb.DestroyDeviceResponse.OUTCOME_ABSENT,
}

T = TypeVar("T")
R = TypeVar("R", pb.CreateDeviceResponse, pb.DestroyDeviceResponse, pb.StartDeviceResponse)


class _Call(Protocol):
    """A call's context, as far as it is asked here."""

    def time_remaining(self) -> float | None:
        """The seconds to the caller's deadline."""


class ChangeServicer(device_service_pb2_grpc.DeviceServiceServicer):
    """The changing methods, for a servicer that has the reading ones; `state` is the state folder."""

    def __init__(self, engine: Engine, state: Path | None) -> None:
        self._engine = engine
        self._definitions = Definitions(state / "devices" if state else None)
        self._operations = Operations(engine.inventory, engine.source)
        self._requests = Requests()
        engine.state_notes += self._definitions.notes
        engine.inventory.annotate = self._annotated

    async def CreateDevice(self, request: pb.CreateDeviceRequest, context: object) -> pb.CreateDeviceResponse:  # noqa: N802
        """Makes the device that a document describes."""
        self._engine.require_published()
        wish = wish_of(read_device(request.xml))
        consent = Consent(overwrite=frozenset(request.overwrite), force=request.force)
        until = _until(context)

        async def create() -> pb.CreateDeviceResponse:
            done = await self._operations.create(
                wish, consent, validate_only=request.validate_only, until=until
            )
            return self._filled(pb.CreateDeviceResponse(existed=done.existed), done)

        return await self._once(request, request.request_id, create)

    async def DestroyDevice(  # noqa: N802
        self, request: pb.DestroyDeviceRequest, context: object
    ) -> pb.DestroyDeviceResponse:
        """Takes a device away and leaves its data."""
        self._engine.require_published()
        consent = Consent(lazy=request.lazy, force=request.force)
        generation = request.generation if request.HasField("generation") else None
        until = _until(context)

        async def destroy() -> pb.DestroyDeviceResponse:
            done = await self._operations.destroy(
                request.handle, generation, consent, validate_only=request.validate_only, until=until
            )
            return self._filled(pb.DestroyDeviceResponse(outcome=_OUTCOMES[done.outcome]), done)

        return await self._once(request, request.request_id, destroy)

    async def DefineDevice(self, request: pb.DefineDeviceRequest, context: object) -> pb.DefineDeviceResponse:  # noqa: ARG002, N802
        """Keeps a document, so that the device can be started later."""
        self._engine.require_published()
        definition = definition_of(wish_of(read_device(request.xml)))
        self._definitions.require_free(definition)
        known = self._definitions.get(definition.name)
        other = self._engine.inventory.snapshot.devices.get(definition.name)
        present = await self._operations.present(definition.wish)
        if other and (present is None or other.name != present.name):
            raise AlreadyExistsError(f"{other.name} is another device", device=other.name)
        if known:
            definition = replace(definition, autostart=known.autostart)
        if not request.validate_only:
            await self._keep(definition)
            present = await self._operations.present(definition.wish)
        return pb.DefineDeviceResponse(device=device_message(present or definition.device()))

    async def UndefineDevice(  # noqa: N802
        self,
        request: pb.UndefineDeviceRequest,
        context: object,  # noqa: ARG002
    ) -> pb.UndefineDeviceResponse:
        """Forgets a definition."""
        self._engine.require_published()
        definition = self._defined(request.name)
        if definition is None:
            return pb.UndefineDeviceResponse(existed=False)
        if not request.validate_only:
            await aside(lambda: self._definitions.drop(definition.name))
            await self._republish(definition)
        return pb.UndefineDeviceResponse(existed=True)

    async def StartDevice(self, request: pb.StartDeviceRequest, context: object) -> pb.StartDeviceResponse:  # noqa: N802
        """Makes a device that is listed as inactive."""
        self._engine.require_published()
        definition = self._defined(request.name) or await self._waiting(request.name)
        if definition is None:
            device = self._engine.inventory.find(request.name)
            done = Created(device, (), existed=True)
        else:
            consent = Consent(force=request.force)
            done = await self._start(
                definition, consent, validate_only=request.validate_only, until=_until(context)
            )
        return self._filled(pb.StartDeviceResponse(existed=done.existed), done)

    async def SetDeviceAutostart(  # noqa: N802
        self,
        request: pb.SetDeviceAutostartRequest,
        context: object,  # noqa: ARG002
    ) -> pb.SetDeviceAutostartResponse:
        """Says whether a defined device is started with the service."""
        self._engine.require_published()
        definition = self._defined(request.name)
        if definition is None:
            device = self._engine.inventory.find(request.name)
            raise PreconditionError(
                f"{device.name} is not defined", reason="NOT_PERSISTENT", device=device.name
            )
        definition = replace(definition, autostart=request.autostart)
        if not request.validate_only:
            await self._keep(definition)
        present = await self._operations.present(definition.wish)
        return pb.SetDeviceAutostartResponse(device=device_message(present or definition.device()))

    async def autostart(self) -> None:
        """Starts what is to be started with the service, once the host has been read."""
        await self._engine.published.wait()
        for note in self._definitions.notes:
            _log.warning("%s", note.message)
        for definition in self._definitions:
            if definition.autostart:
                until = asyncio.get_running_loop().time() + UNARY_SECONDS
                try:
                    await self._start(definition, NOTHING_ALLOWED, validate_only=False, until=until)
                except NodedevError as error:
                    _log.warning("%s is not started: %s (%s)", definition.name, error.message, error.reason)

    async def inactive(self) -> tuple[Device, ...]:
        """The devices that could be started, in the order of their names."""
        found = await self._all_inactive()
        return tuple(
            definition.device()
            if self._definitions.get(definition.name)
            else replace(definition.device(), persistent=False)
            for definition in found
        )

    async def _all_inactive(self) -> tuple[Definition, ...]:
        site_of = self._operations.site_of_loop()
        return await aside(lambda: inactive(self._definitions, site_of()))

    async def _waiting(self, name: str) -> Definition | None:
        return next((found for found in await self._all_inactive() if found.name == name), None)

    async def _start(
        self, definition: Definition, consent: Consent, *, validate_only: bool, until: float
    ) -> Created:
        # Its name is what it is called while it is not there, and no wish for the device itself.
        wish = Wish(None, definition.wish.capability, definition.wish.changing)
        return await self._operations.create(wish, consent, validate_only=validate_only, until=until)

    def _defined(self, name: str) -> Definition | None:
        """The definition of that name, or of the active device that the name is a handle of."""
        definition = self._definitions.get(name)
        if definition:
            return definition
        try:
            device = self._engine.inventory.find(name)
        except NotFoundError:
            return None
        return self._definition_of(device)

    def _definition_of(self, device: Device) -> Definition | None:
        changed = changing_of(device)
        if changed is None:
            return None
        capability, changing = changed
        return self._definitions.by_identity(changing.identity(capability))

    async def _keep(self, definition: Definition) -> None:
        await aside(lambda: self._definitions.keep(definition))
        await self._republish(definition)

    async def _republish(self, definition: Definition) -> None:
        """Tells watchers whether the active device is defined."""
        device = await self._operations.present(definition.wish)
        if device:
            self._engine.inventory.publish([device])

    def _annotated(self, device: Device) -> Device:
        definition = self._definition_of(device) if self._definitions else None
        if definition is None:
            return replace(device, persistent=False, autostart=False) if device.persistent else device
        return replace(device, persistent=True, autostart=definition.autostart)

    def _filled(self, response: R, done: Created | Destroyed) -> R:
        """The response with what every change tells."""
        response.steps.extend(_steps(done.steps))
        response.revision = self._engine.inventory.revision
        if done.device:
            response.device.CopyFrom(device_message(done.device))
        return response

    async def _once(self, request: ProtoMessage, request_id: str, answer: Callable[[], Awaitable[T]]) -> T:
        if len(request_id) > _REQUEST_ID_MAX:
            raise InvalidError(f"request_id is longer than {_REQUEST_ID_MAX} characters")
        content = (type(request).__name__, request.SerializeToString(deterministic=True))
        return await self._requests.once(request_id, content, answer)


def _until(context: object) -> float:
    """The caller's deadline in the loop's time, or the default one's."""
    remaining = cast("_Call", context).time_remaining()
    seconds = UNARY_SECONDS if remaining is None else remaining
    return asyncio.get_running_loop().time() + max(seconds - _MARGIN_SECONDS, 0)


def _steps(steps: Iterable[Step]) -> list[pb.Step]:
    return [_step(step) for step in steps]


def _step(step: Step) -> pb.Step:
    match step:
        case Command(argv) | Examine(argv):
            return pb.Step(command=pb.Step.Command(arguments=argv))
        case Probe(argv, device):
            return pb.Step(probe=pb.Step.Probe(arguments=argv, device=device))
        case Message(text):
            return pb.Step(multipathd=pb.Step.Multipathd(command=text))
        case Ioctl(name, node, arguments):
            found = [pb.Step.Ioctl.Argument(name=key, value=value) for key, value in arguments]
            return pb.Step(ioctl=pb.Step.Ioctl(request=name, node=node, arguments=found))
