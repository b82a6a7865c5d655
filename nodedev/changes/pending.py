"""Changes under way: which devices they have, and which requests they answer."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

from nodedev.errors import AbortedError, InvalidError

T = TypeVar("T")

REQUESTS_KEPT = 1000


class Locks:
    """What is being changed; no change waits for another one."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    @contextmanager
    def held(self, names: tuple[str, ...]) -> Iterator[None]:
        """Has the names for as long as the block runs; OPERATION_IN_PROGRESS."""
        for name in names:
            if name in self._taken:
                raise AbortedError(
                    f"another change of {name} is under way", reason="OPERATION_IN_PROGRESS", device=name
                )
        self._taken.update(names)
        try:
            yield
        finally:
            self._taken.difference_update(names)


class Requests:
    """The answers by request id, so that a request that is sent again is not carried out again."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Hashable, asyncio.Future[Any]]] = OrderedDict()

    async def once(self, identity: str, content: Hashable, answer: Callable[[], Awaitable[T]]) -> T:
        """The answer; that of the same request before, unless it was an error.

        It goes on when its caller goes away. Errors: REQUEST_ID_REUSED, OPERATION_IN_PROGRESS.
        """
        earlier = self._known.get(identity)
        if earlier:
            return cast("T", await self._again(identity, content, *earlier))
        task = asyncio.ensure_future(answer())
        _RUNNING.add(task)
        task.add_done_callback(_ended)
        if identity:
            self._known[identity] = (content, task)
            while len(self._known) > REQUESTS_KEPT:
                self._known.popitem(last=False)
            task.add_done_callback(lambda _: self._settle(identity))
        return await asyncio.shield(task)

    async def _again(
        self, identity: str, content: Hashable, known: Hashable, task: asyncio.Future[Any]
    ) -> object:
        if known != content:
            raise InvalidError(f"the request id {identity} was another request's", reason="REQUEST_ID_REUSED")
        if not task.done():
            raise AbortedError(f"the request {identity} is under way", reason="OPERATION_IN_PROGRESS")
        return task.result()

    def _settle(self, identity: str) -> None:
        """Forgets a request that failed: to send it again is to try again."""
        _, task = self._known.get(identity, (None, None))
        if task and (task.cancelled() or task.exception()):
            del self._known[identity]


# The event loop alone holds tasks weakly. Their results differ, and pass through untouched.
_RUNNING: set[asyncio.Future[Any]] = set()


def _ended(task: asyncio.Future[Any]) -> None:
    """Takes note of the error, too, when nobody waits for it any more."""
    _RUNNING.discard(task)
    if not task.cancelled():
        task.exception()


async def aside(function: Callable[[], T]) -> T:
    """What the function returns, run in a thread that holds up neither the loop nor the exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  it is raised again where it is awaited
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="nodedev-change", daemon=True).start()
    return await future
