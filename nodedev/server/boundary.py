"""What every call passes through: admission, a deadline, and errors turned into statuses.

grpc.aio sends an unhandled exception's text to the client, paths and all, hence the catch-all here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
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


class Boundary(grpc.aio.ServerInterceptor):
    """The interceptor of one port."""

    def __init__(self, access: Access, streams: Streams) -> None:
        self._access = access
        self._streams = streams

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler[Request, Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler[Request, Response] | None:
        """The method's handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
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
            "Handler[Request, Response]",
            make(wrapped, handler.request_deserializer, handler.response_serializer),
        )

    def _streaming(self, method: str, behaviour: object) -> Callable[..., object]:
        # grpc.aio tells by the function's kind whether it yields or, as grpc_health does, writes.
        if inspect.isasyncgenfunction(behaviour):
            return self._stream(method, cast("_Stream", behaviour))
        return self._writer(method, cast("_Writer", behaviour))

    def _unary(self, method: str, behaviour: _Unary) -> _Unary:
        async def answer(request: Message, context: Context) -> Message:
            async with self._answered(method, context):
                # types-grpcio leaves out that a call may come without a deadline.
                remaining = cast("float | None", context.time_remaining())
                async with _deadline(UNARY_SECONDS if remaining is None else None):
                    return await behaviour(request, context)
            raise AssertionError  # an error has ended the call

        return answer

    def _stream(self, method: str, behaviour: _Stream) -> _Stream:
        async def stream(request: Message, context: Context) -> AsyncGenerator[Message, None]:
            async with (
                self._answered(method, context, stream=True),
                aclosing(behaviour(request, context)) as responses,
            ):
                async for response in responses:
                    yield response

        return stream

    def _writer(self, method: str, behaviour: _Writer) -> _Writer:
        async def write(request: Message, context: Context) -> None:
            async with self._answered(method, context, stream=True):
                await behaviour(request, context)

        return write

    @asynccontextmanager
    async def _answered(self, method: str, context: Context, *, stream: bool = False) -> AsyncIterator[None]:
        """Admits the call, and ends it with a status whatever goes wrong in it."""
        task = asyncio.current_task()
        if stream and task:
            self._streams.tasks.add(task)
        try:
            if stream and self._streams.closing:
                raise _shutting_down()  # noqa: TRY301  one way out for every refusal
            self._access.admit(method, context)
            yield
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError:
            if not (stream and self._streams.closing):
                raise
            error: NodedevError = _shutting_down()
        except NodedevError as refused:
            error = refused
        except Exception:  # noqa: BLE001  logged here, and nothing of it told
            incident = uuid.uuid4().hex[:12]
            _log.exception("%s failed, incident %s", method, incident)
            error = NodedevError(f"internal error; the service's log has it as {incident}", incident=incident)
        else:
            return
        finally:
            if task:
                self._streams.tasks.discard(task)
        await context.abort_with_status(to_grpc_status(to_status(error)))


def _shutting_down() -> UnavailableError:
    return UnavailableError("the service is shutting down", reason="SHUTTING_DOWN")


@asynccontextmanager
async def _deadline(seconds: float | None) -> AsyncIterator[None]:
    """Raises DeadlineError after the time; a handler's own TimeoutError stays what it is."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineError(f"no answer within {seconds} s") from None
