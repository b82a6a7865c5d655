"""What every call passes through: admission, a deadline, and errors turned into statuses.

grpc.aio sends an unhandled exception's text to the client, paths and all, hence the catch-all here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status.rpc_status import to_status as to_grpc_status

from nodedev.errors import DeadlineError, NodedevError, UnavailableError
from nodedev.server.access import Access
from nodedev.server.status import to_status

UNARY_SECONDS = 30.0

_log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")
Handler: TypeAlias = "grpc.RpcMethodHandler[Request, Response]"
Context = grpc.aio.ServicerContext[Message, Message]
_Unary = Callable[[Message, Context], Awaitable[Message]]
_Stream = Callable[[Message, Context], AsyncGenerator[Message, None]]
_Writer = Callable[[Message, Context], Awaitable[None]]


class Streams:
    """The open streams of all ports, so that a shutdown need not wait for them."""

    def __init__(self) -> None:
        self.closing = False
        self.tasks: set[asyncio.Task[object]] = set()

    def close(self) -> None:
        """Ends each open stream, and each that opens later, with UNAVAILABLE SHUTTING_DOWN."""
        self.closing = True
        for task in self.tasks:
            task.cancel()


class Boundary(grpc.GenericRpcHandler):
    """The methods of one port, each wrapped when it is first called.

    To generated code it is the server that methods are added to. grpc.aio itself is to know none of
    them by name: with each call it would wait anew for the next one of every method it knows. An
    interceptor would make the wrappers anew with each call.
    """

    def __init__(self, access: Access, streams: Streams) -> None:
        self._access = access
        self._streams = streams
        self._handlers: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, Handler[Message, Message]] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds methods, to be looked up by their names here."""
        self._handlers.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: object) -> None:
        """Does nothing: generated code gives the same methods in both ways."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler[Message, Message] | None:
        """The method's handler; None for an unknown method, which gRPC answers with UNIMPLEMENTED."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            found = (handlers.service(handler_call_details) for handlers in self._handlers)
            handler = next(filter(None, found), None)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler[Message, Message]) -> Handler[Message, Message]:
        # types-grpcio knows handlers as the synchronous API has them.
        wrapped: Callable[..., object]
        if handler.unary_unary:
            make = grpc.unary_unary_rpc_method_handler
            wrapped = self._unary(method, cast("_Unary", handler.unary_unary))
        else:
            make = (
                grpc.unary_stream_rpc_method_handler
                if handler.unary_stream
                else grpc.stream_stream_rpc_method_handler
            )
            wrapped = self._streaming(method, handler.unary_stream or handler.stream_stream)
        return cast(
            "Handler[Message, Message]",
            make(wrapped, handler.request_deserializer, _serializer(handler.response_serializer)),
        )

    def _streaming(self, method: str, behaviour: object) -> Callable[..., object]:
        # grpc.aio tells by the function's kind whether it yields or, as grpc_health does, writes.
        if inspect.isasyncgenfunction(behaviour):
            return self._stream(method, cast("_Stream", behaviour))
        return self._writer(method, cast("_Writer", behaviour))

    def _unary(self, method: str, behaviour: _Unary) -> _Unary:
        async def answer(request: Message, context: Context) -> Message:
            try:
                self._access.admit(method, context)
                # types-grpcio leaves out that a call may come without a deadline.
                if cast("float | None", context.time_remaining()) is None:
                    return await _within(UNARY_SECONDS, behaviour(request, context))
                return await behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await _refuse(method, context, error)
                raise AssertionError from error  # the refusal has ended the call

        return answer

    def _stream(self, method: str, behaviour: _Stream) -> _Stream:
        async def stream(request: Message, context: Context) -> AsyncGenerator[Message, None]:
            async with self._open(method, context), aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

        return stream

    def _writer(self, method: str, behaviour: _Writer) -> _Writer:
        async def write(request: Message, context: Context) -> None:
            async with self._open(method, context):
                await behaviour(request, context)

        return write

    @asynccontextmanager
    async def _open(self, method: str, context: Context) -> AsyncIterator[None]:
        """Admits a stream, and ends it with a status whatever goes wrong in it."""
        task = asyncio.current_task()
        if task:
            self._streams.tasks.add(task)
        try:
            if self._streams.closing:
                raise _shutting_down()  # noqa: TRY301  one way out for every refusal
            self._access.admit(method, context)
            yield
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError:
            if not self._streams.closing:
                raise
            error: Exception = _shutting_down()
        except Exception as raised:  # noqa: BLE001  told by _refuse
            error = raised
        else:
            return
        finally:
            if task:
                self._streams.tasks.discard(task)
        await _refuse(method, context, error)


def _serializer(serialize: Callable[[Message], bytes] | None) -> Callable[[Message | bytes], bytes] | None:
    """Lets bytes be sent as they are: what was kept serialized."""
    if serialize is None:
        return None
    return lambda response: response if isinstance(response, bytes) else serialize(response)


async def _refuse(method: str, context: Context, error: Exception) -> None:
    """Ends the call with the status; of an error that is not ours nothing is told but where to find it."""
    if not isinstance(error, NodedevError):
        incident = uuid.uuid4().hex[:12]
        _log.error("%s failed, incident %s", method, incident, exc_info=error)
        error = NodedevError(f"internal error; the service's log has it as {incident}", incident=incident)
    await context.abort_with_status(to_grpc_status(to_status(error)))


def _shutting_down() -> UnavailableError:
    return UnavailableError("the service is shutting down", reason="SHUTTING_DOWN")


async def _within(seconds: float, answer: Awaitable[Message]) -> Message:
    """Raises DeadlineError after the time; a handler's own TimeoutError stays what it is."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await answer
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineError(f"no answer within {seconds} s") from None
