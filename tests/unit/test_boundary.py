"""The methods of a port: found by name, wrapped once, and what they answer with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from nodedev.server.access import Access
from nodedev.server.boundary import Boundary, Streams

KNOWN = "/nodedev.v1.Future/Get"


@dataclass(frozen=True)
class Details(grpc.HandlerCallDetails):
    """A call as it comes in."""

    method: str
    invocation_metadata: tuple[()] = ()


async def get(request: Empty, context: object) -> Empty:
    """A method that answers."""
    return request


def boundary() -> Boundary:
    """A port with one method."""
    made = Boundary(Access(writable=True), Streams())
    handler = grpc.unary_unary_rpc_method_handler(get, Empty.FromString, Empty.SerializeToString)
    made.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("nodedev.v1.Future", {"Get": handler})]
    )
    return made


def test_a_method_is_wrapped_once() -> None:
    """Every call of a method has the same handler."""
    port = boundary()
    handler = port.service(Details(KNOWN))
    assert handler
    assert port.service(Details(KNOWN)) is handler


def test_an_unknown_method_has_no_handler() -> None:
    """It is gRPC that answers UNIMPLEMENTED then."""
    assert boundary().service(Details("/nodedev.v1.Future/Put")) is None


def test_bytes_are_sent_as_they_are() -> None:
    """An answer that was kept serialized is not parsed for being serialized again."""
    handler = boundary().service(Details(KNOWN))
    assert handler
    serialize = cast("Callable[[Message | bytes], bytes]", handler.response_serializer)
    kept = b"\x0a\x00"
    assert serialize(kept) is kept
    assert serialize(Empty()) == b""
