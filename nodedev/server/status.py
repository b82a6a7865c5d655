"""Errors on the wire: google.rpc.Status with its details, both ways.

ErrorInfo always; BadRequest for violations, PreconditionFailure for claims, RetryInfo while starting.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from nodedev.errors import NodedevError, Obstacle, UnavailableError, Violation

DOMAIN = "nodedev"

# A status travels in trailers, for which gRPC allows 8 KiB in all, text percent-encoded and
# details in base64.
_TEXT_LIMIT_BYTES = 512
_INFO_LIMIT_BYTES = 2048
_DETAILS_LIMIT_BYTES = 3072


def to_status(error: NodedevError) -> Status:
    """The error as a status that fits into the trailers of a call."""
    info = ErrorInfo(domain=DOMAIN, reason=error.reason)
    for key, value in error.metadata.items():
        info.metadata[key] = _short(value)
        if info.ByteSize() > _INFO_LIMIT_BYTES:
            del info.metadata[key]
    details: list[Message] = [info]
    if error.violations:
        details.append(_bad_request(error.violations))
    if error.obstacles:
        details.append(_precondition_failure(error.obstacles))
    if isinstance(error, UnavailableError) and error.reason == UnavailableError.reason:
        retry = RetryInfo()
        retry.retry_delay.FromSeconds(UnavailableError.RETRY_SECONDS)
        details.append(retry)
    code, _ = grpc.StatusCode[error.status].value
    return Status(code=code, message=_short(error.message), details=[_packed(detail) for detail in details])


def _bad_request(violations: tuple[Violation, ...]) -> BadRequest:
    """As many violations as fit; the last then says how many do not."""
    bad = BadRequest()
    for count, violation in enumerate(violations):
        place = violation.field if violation.line is None else f"{violation.field}:{violation.line}"
        bad.field_violations.add(field=_short(place), description=_short(violation.message))
        if bad.ByteSize() > _DETAILS_LIMIT_BYTES - _INFO_LIMIT_BYTES:
            del bad.field_violations[-1]
            bad.field_violations.add(field="", description=f"and {len(violations) - count} more")
            break
    return bad


def _precondition_failure(obstacles: tuple[Obstacle, ...]) -> PreconditionFailure:
    """As many obstacles as fit; the last then says how many do not."""
    failure = PreconditionFailure()
    for count, obstacle in enumerate(obstacles):
        failure.violations.add(
            type=obstacle.type, subject=_short(obstacle.device), description=_short(obstacle.message)
        )
        if failure.ByteSize() > _DETAILS_LIMIT_BYTES - _INFO_LIMIT_BYTES:
            del failure.violations[-1]
            failure.violations.add(description=f"and {len(obstacles) - count} more")
            break
    return failure


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _short(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= _TEXT_LIMIT_BYTES:
        return encoded.decode()
    return encoded[:_TEXT_LIMIT_BYTES].decode(errors="ignore") + "..."


def from_status(status: Status) -> NodedevError | None:
    """The error that a service sent; None for a status without our ErrorInfo."""
    info, bad, failure = ErrorInfo(), BadRequest(), PreconditionFailure()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        detail.Unpack(failure)
    if info.domain != DOMAIN:
        return None
    name = next((code.name for code in grpc.StatusCode if code.value[0] == status.code), "UNKNOWN")
    kind = next((kind for kind in _kinds(NodedevError) if kind.status == name), NodedevError)
    violations = tuple(Violation(found.field, found.description) for found in bad.field_violations)
    obstacles = tuple(Obstacle(found.type, found.subject, found.description) for found in failure.violations)
    error = kind(status.message, reason=info.reason, violations=violations, obstacles=obstacles)
    error.metadata = dict(info.metadata)
    return error


def _kinds(base: type[NodedevError]) -> Iterator[type[NodedevError]]:
    """The kinds of error, the general ones of a status before their special cases."""
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)
