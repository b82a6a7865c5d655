"""Pages of one snapshot, after AIP-158: opaque tokens, cut by count and by bytes."""

from __future__ import annotations

import asyncio
import base64
import binascii
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from time import monotonic
from typing import Protocol, Self, TypeVar

from msgspec import Struct

from nodedev.errors import AbortedError, InvalidError, Violation
from nodedev.inventory import Snapshot
from nodedev.model import Device

DEFAULT_SIZE = 1000
MAX_SIZE = 10_000
# gRPC's default receive limit is 4 MiB, which one item beyond the cut must not reach either.
PAGE_BYTES = 1 << 20
SNAPSHOTS_KEPT = 8

_TURN = 32  # items between two looks at the clock
_TURN_SECONDS = 0.002  # how long other calls wait for theirs
_PARTS = 3


class PagedRequest(Protocol):
    """A request message for one page of many."""

    page_size: int
    page_token: str

    def CopyFrom(self, other: Self) -> None:  # noqa: N802, D102  protobuf's name
        ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802, D102  protobuf's name
        ...


class PagedResponse(Protocol):
    """A response message that is one page of many."""

    next_page_token: str
    revision: int

    def MergeFromString(self, serialized: bytes) -> int:  # noqa: N802, D102  protobuf's name
        ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802, D102  protobuf's name
        ...


Response = TypeVar("Response", bound=PagedResponse)
Item = TypeVar("Item")


class Token(Struct, frozen=True):
    """Where a page ended: `after` is the last item's position, `digest` stands for the request."""

    revision: int
    digest: str
    after: str

    def encode(self) -> str:
        """The token as clients carry it."""
        text = f"{self.revision}.{self.digest}.{self.after}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Token:
        """Reads what encode wrote; raises InvalidError for anything else."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            parts = base64.b64decode(padded, altchars=b"-_", validate=True).decode().split(".", _PARTS - 1)
            revision, digest, after = parts
            return cls(int(revision), digest, after)
        except (ValueError, binascii.Error):
            raise _invalid_token("not a page token of this service") from None


def _invalid_token(message: str) -> InvalidError:
    return InvalidError(message, reason="PAGE_TOKEN_INVALID", violations=(Violation("page_token", message),))


class Pages:
    """The pages of one service, and the last few snapshots that their tokens refer to."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, Snapshot] = OrderedDict()
        self._names: tuple[Mapping[str, Device], tuple[str, ...]] = ({}, ())

    def open(self, request: PagedRequest, present: Snapshot) -> Page:
        """The page that the request asks for, of the present snapshot or of its token's.

        Errors: ARGUMENT_INVALID, PAGE_TOKEN_INVALID, PAGE_TOKEN_EXPIRED.
        """
        if request.page_size < 0:
            wrong = Violation("page_size", "must not be negative")
            raise InvalidError("page_size must not be negative", violations=(wrong,))
        size = min(request.page_size or DEFAULT_SIZE, MAX_SIZE)
        digest = _digest(request)
        if not request.page_token:
            return Page(self, present, digest, "", size)
        token = Token.decode(request.page_token)
        if token.digest != digest:
            raise _invalid_token("the page token belongs to another request")
        snapshot = present if token.revision == present.revision else self._kept.get(token.revision)
        if snapshot is None:
            raise expired()
        return Page(self, snapshot, digest, token.after, size)

    def names(self, devices: Mapping[str, Device]) -> tuple[str, ...]:
        """The names of a snapshot's devices, made once while page follows page."""
        if self._names[0] is not devices:
            self._names = (devices, tuple(devices))
        return self._names[1]

    def keep(self, snapshot: Snapshot) -> None:
        """Holds on to a snapshot that a token has been given for."""
        self._kept[snapshot.revision] = snapshot
        self._kept.move_to_end(snapshot.revision)
        while len(self._kept) > SNAPSHOTS_KEPT:
            self._kept.popitem(last=False)


class Page(Struct, frozen=True):
    """One page, to be filled; its items come `after` that position."""

    pages: Pages
    snapshot: Snapshot
    digest: str
    after: str
    size: int

    def devices(self) -> Iterator[Device]:
        """The snapshot's devices from where the page begins."""
        devices = self.snapshot.devices
        if not self.after:
            return iter(devices.values())
        names = self.pages.names(devices)
        return (devices[names[at]] for at in range(bisect_right(names, self.after), len(names)))

    def offset(self) -> int:
        """The position as a number, for items that are not in the order of their names."""
        try:
            return max(int(self.after or 0), 0)
        except ValueError:
            raise _invalid_token("not a page token of this service") from None

    async def fill(
        self,
        response: Response,
        items: Iterable[tuple[str, Item]],
        render: Callable[[Item], Response | bytes],
    ) -> Response:
        """Adds each item's fragment to the response until the page is full; as `serialized`."""
        response.MergeFromString(await self.serialized(response, items, render))
        return response

    async def serialized(
        self,
        response: Response,
        items: Iterable[tuple[str, Item]],
        render: Callable[[Item], Response | bytes],
    ) -> bytes:
        """The response with each item's fragment until the page is full; `items` come with positions.

        A fragment is a response with that item alone, or one already serialized. To parse them all
        and write them again would take longer than all the rest of a list.
        """
        response.revision = self.snapshot.revision
        size_bytes, position = 0, self.after
        parts: list[bytes] = []
        turn = monotonic() + _TURN_SECONDS
        for count, (next_position, item) in enumerate(items):
            if count == self.size or size_bytes >= PAGE_BYTES:
                self.pages.keep(self.snapshot)
                response.next_page_token = Token(self.snapshot.revision, self.digest, position).encode()
                break
            fragment = render(item)
            parts.append(fragment if isinstance(fragment, bytes) else fragment.SerializeToString())
            size_bytes += len(parts[-1])
            position = next_position
            if count % _TURN == _TURN - 1 and monotonic() > turn:
                await asyncio.sleep(0)
                turn = monotonic() + _TURN_SECONDS
        # Serialized messages one behind the other are the message with the items of all.
        parts.append(response.SerializeToString())
        return b"".join(parts)


def expired() -> AbortedError:
    """The refusal of a token whose snapshot is gone."""
    return AbortedError("the list has changed too often since its first page; start again")


def _digest(request: PagedRequest) -> str:
    """Stands for everything that must stay the same from page to page."""
    fixed = type(request)()
    fixed.CopyFrom(request)
    fixed.page_size = 0
    fixed.page_token = ""
    content = type(request).__name__.encode() + fixed.SerializeToString(deterministic=True)
    return sha256(content).hexdigest()[:16]
